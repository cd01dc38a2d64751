"Paired differences against enumeration, Student's own test, `paired`, and a simulation."
import itertools
import sys

import numpy as np
import pytest
from scipy import stats

from fastmatch.core import InputError
from fastmatch.match import HeldOut, paired
from fastmatch.match.judge.compare import compare
from fastmatch.match.judge.repeat import repeat


def held_out(values, clusters=None, independent=True):
    if clusters is None: clusters = np.arange(len(values))
    return HeldOut(np.asarray(values, float), np.asarray(clusters), independent=independent)


def set_flips(monkeypatch, count):
    "By the table of modules: the room hands out the function of the same name."
    monkeypatch.setattr(sys.modules[compare.__module__], 'FLIPS', count)


def test_numbers_a_seed_are_students_test_and_all_flips():
    rng = np.random.default_rng(0)
    first, second = rng.normal(.1, 1, 7), rng.normal(0, 1, 7)
    actual = compare(list(first), list(second))
    interval = stats.ttest_rel(first, second).confidence_interval(.95)
    assert (actual.low, actual.high) == pytest.approx((interval.low, interval.high))
    difference = first - second
    flipped = [abs(np.dot(difference, signs)) for signs in itertools.product((-1, 1), repeat=7)]
    assert actual.p == pytest.approx(np.mean(np.array(flipped) >= abs(difference.sum()) - 1e-12))
    # five seeds that all agree: no fewer than two of 32 flips are as far out
    assert compare([2., 3, 4, 5, 6], [1.] * 5).p == pytest.approx(2 / 32)


def test_one_run_agrees_with_the_bootstrap():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(300), 2)
    base_scores = rng.random(600)
    first = held_out(base_scores + .05 + .1 * rng.normal(size=300)[groups], groups)
    second = held_out(base_scores, groups)
    actual, bootstrap = compare(first, second), paired(first, second)
    assert actual.diff == pytest.approx(bootstrap.diff) and actual.se == pytest.approx(bootstrap.se)
    assert (actual.low, actual.high) == pytest.approx((bootstrap.low, bootstrap.high), abs=.001)
    assert actual.seeds == 1 and actual.listings == 600
    assert 'One seed' in actual.sentence and 'better' in actual.sentence


def test_flips_drawn_agree_with_scipys():
    difference = np.random.default_rng(4).normal(.3, 1, 40)
    expected = stats.permutation_test((difference,), np.sum, permutation_type='samples', n_resamples=4000,
                                      rng=np.random.default_rng(1)).pvalue
    assert .05 < expected < .6
    assert compare(held_out(difference), held_out(np.zeros(40))).p == pytest.approx(expected, abs=.03)


def test_matched_groups_are_not_independent():
    "The interval is wider, and as many more flips are as far out as if the sum varied so much more."
    difference = np.random.default_rng(4).normal(.3, 1, 12)
    apart, matched = (compare(held_out(difference, independent=independent),
                              held_out(np.zeros(12), independent=independent))
                      for independent in (True, False))
    factor = 1.1 * np.sqrt(1 + 2.2 / np.sqrt(12))
    assert matched.diff == apart.diff and matched.se == pytest.approx(factor * apart.se)
    assert matched.high - matched.diff == pytest.approx(factor * (apart.high - apart.diff))
    flipped = np.array([abs(np.dot(difference, signs)) for signs in itertools.product((-1, 1), repeat=12)])
    assert matched.p == pytest.approx(np.mean(factor * flipped >= difference.sum() - 1e-12))
    assert matched.p > apart.p


def test_seeds_and_groups_both_count(monkeypatch):
    set_flips(monkeypatch, 1)  # looked at elsewhere, and dear
    # coverage: seeds and groups both drawn, the interval holds the truth as often as it says
    rng = np.random.default_rng(2)
    covered = covered_as_one_run = 0
    for _ in range(300):
        group_effects, seed_effects = rng.normal(0, .3, 80), rng.normal(0, .04, 4)
        differences = .05 + group_effects[None] + seed_effects[:, None] + rng.normal(0, .1, (4, 80))
        actual = compare([held_out(values) for values in differences], [held_out(np.zeros(80))] * 4)
        covered += actual.low <= .05 <= actual.high
        as_one_run = compare(held_out(differences.mean(0)), held_out(np.zeros(80)))
        covered_as_one_run += as_one_run.low <= .05 <= as_one_run.high
    assert 275 <= covered <= 296 and covered > covered_as_one_run


def test_the_luck_of_seeds_is_in_p(monkeypatch):
    set_flips(monkeypatch, 199)
    # without a difference one in twenty is below .05, also where seeds differ more than groups do (by flips
    # of groups alone it was two in five)
    rng = np.random.default_rng(5)
    significant = 0
    for _ in range(120):
        group_effects, seed_effects = rng.normal(0, .1, 80), rng.normal(0, .05, 5)
        differences = group_effects[None] + seed_effects[:, None] + rng.normal(0, .1, (5, 80))
        actual = compare([held_out(values) for values in differences], [held_out(np.zeros(80))] * 5)
        significant += actual.p < .05
    assert significant <= 14
    # drawn by hand: signs of groups, Student's t of seeds
    differences = np.array([[.3, .1, -.2, .4, .2, .1], [.1, .2, .1, .3, .1, .2], [.2, .2, -.1, .1, .3, .2]])
    no_scores = held_out(np.zeros(6))
    drawn_sums = rng.choice([-1, 1], (200_000, 6)) @ differences.mean(0) / 6
    drawn_sums += stats.sem(differences.mean(1)) * rng.standard_t(2, 200_000)
    expected = (abs(drawn_sums) >= differences.mean()).mean()
    actual = compare([held_out(values) for values in differences], [no_scores] * 3)
    assert actual.p == pytest.approx(expected, abs=.005)
    # seeds that all gave the same have none
    one_run = held_out(differences[0])
    assert compare([one_run] * 3, [no_scores] * 3).p == compare(one_run, no_scores).p


def test_folds_are_put_side_by_side():
    rng = np.random.default_rng(3)
    first_scores, second_scores = rng.random((2, 2, 30))
    groups = [np.repeat(np.arange(15), 2), np.repeat(np.arange(10), 3)]
    first_runs, second_runs = {}, {}
    for seed, fold in itertools.product((0, 1), (0, 1)):
        first_runs[seed, fold] = held_out(first_scores[seed] + fold, groups[fold])
        second_runs[seed, fold] = held_out(second_scores[seed], groups[fold])
    actual = compare(first_runs, second_runs)
    difference = np.concatenate([first_scores - second_scores, first_scores - second_scores + 1], 1)
    assert actual.diff == pytest.approx(difference.mean()) and actual.listings == 60 and actual.seeds == 2
    joined_groups = np.concatenate([groups[0], groups[1] + 15])
    seed_mean = held_out(difference.mean(0), joined_groups)
    group_error = paired(seed_mean, held_out(np.zeros(60), joined_groups)).se
    assert actual.se**2 == pytest.approx(group_error**2 + stats.sem(difference.mean(1))**2)


def test_no_difference_is_said():
    same_scores = held_out([.5, .5, 1.])
    actual = compare(same_scores, same_scores)
    assert (actual.diff, actual.low, actual.high, actual.p) == (0, 0, 0, 1)
    assert actual.sentence.startswith('No difference that 1 seed on 3 listings could show')
    repeated = repeat(lambda seed: held_out([seed, 0, 1.]), 3)
    assert compare(repeated, repeated).seeds == 3
    assert compare([1., 2.], [3., 5.]).sentence.startswith('No difference that 2 seeds could show')
    assert 'worse' in compare([1., 1.1, 1.05], [2., 2.1, 2.06]).sentence


LACKS_A_FOLD = {(0, 0): held_out([1.]), (1, 1): held_out([1.])}


@pytest.mark.parametrize('first, second, message', [
    ([1.], [2.], 'two seeds'),
    ([1., float('nan')], [1., 2.], 'a: seed 1, fold 0'),
    (held_out([1., .5]), held_out([1., np.inf]), 'b: seed 0'),
    (held_out([1., .5], [0, 0]), held_out([0., 1], [0, 0]), 'one group'),
    ([1., 2.], [1., 2., 3.], 'same runs'),
    ('x', 'y', 'str'),
    (held_out([1.]), held_out([1., 2.]), 'different listings'),
    (LACKS_A_FOLD, LACKS_A_FOLD, 'each seed needs each fold')])
def test_refused(first, second, message):
    with pytest.raises(InputError, match=message): compare(first, second)
