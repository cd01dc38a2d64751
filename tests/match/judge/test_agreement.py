"Rank correlation against scipy's, its interval against repeated samples, the choice by hand."
import numpy as np
import pytest
from scipy import stats

from fastmatch.core import InputError
from fastmatch.match.judge.agreement import _weighted_correlations, rank_correlation, validation_agreement


def pairs(n=40, correlation=.6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], n).T


def test_rank_correlation_is_scipys():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 6, (2, 15))
        assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert np.isnan(rank_correlation(np.ones(5), np.arange(5)))


def test_the_interval_holds_the_truth_as_often_as_it_says():
    # of a normal pair Spearman's is 6 / pi * arcsin(r / 2)
    truth = 6 / np.pi * np.arcsin(.6 / 2)
    hits = 0
    for seed in range(30):
        found = validation_agreement(*pairs(seed=seed))
        hits += found.low <= truth <= found.high
    assert 24 <= hits <= 30


def test_samples_are_ranked_anew():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (2, 12)).astype(float)
    times = rng.multinomial(12, np.full(12, 1 / 12), 30)
    found = _weighted_correlations(a, b, times.astype(float))
    expected = [rank_correlation(np.repeat(a, row), np.repeat(b, row)) for row in times]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_choice_by_hand():
    found = validation_agreement([.1, .5, .9, .7], [.2, .8, .6, .4])
    assert (found.rank, round(found.regret, 9)) == (2, .2)
    assert 'number 2 of 4 on test, 0.2 below the best' in found.sentence
    losses = validation_agreement([.9, .5, .1, .3], [.8, .2, .4, .6], lower_is_better=True)
    assert (losses.rho, losses.rank, round(losses.regret, 9)) == (found.rho, 2, .2)


def test_words():
    same = np.arange(10.)
    told = validation_agreement(same, same**3).sentence
    assert told.startswith('Validation tells of test (rank correlation +1.00')
    assert validation_agreement(same, -same).sentence.startswith('What is better in validation is worse')
    assert 'can not be said' in validation_agreement(*pairs(8, 0., seed=3)).sentence
    assert 'never changes' in validation_agreement(same, same * 0).sentence


def test_epochs_of_a_run_are_drawn_together():
    # ten epochs of a run have the same scores: no more is known than of the runs
    valid, test = pairs(8)
    runs = np.repeat(np.arange(8), 10)
    by_run = validation_agreement(np.repeat(valid, 10), np.repeat(test, 10), runs=runs)
    alone = validation_agreement(valid, test)
    assert by_run.units == 8 and '80 pairs of scores of 8 runs' in by_run.sentence
    assert by_run.rho == pytest.approx(alone.rho)
    assert by_run.high - by_run.low == pytest.approx(alone.high - alone.low, abs=.1)
    naive = validation_agreement(np.repeat(valid, 10), np.repeat(test, 10))
    assert naive.high - naive.low < .6 * (by_run.high - by_run.low)


def test_what_is_refused():
    for args, options, message in (
            (([1, 2, 3], [1, 2, 3]), {}, '3 pairs'), (([1, 2, 3, 4], [1, 2]), {}, 'in pairs'),
            (([1, 2, np.nan, 4], [1, 2, 3, 4]), {}, r'valid_scores: those at \[2\]'),
            ((range(4), range(4)), {'runs': [1, 2]}, 'runs: 2 for 4'),
            ((range(4), range(4)), {'level': 2}, 'level=2'), (([[1]], [1]), {}, 'shape')):
        with pytest.raises(InputError, match=message): validation_agreement(*args, **options)
