"Best thresholds, one or one a rank, against every combination tried."

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    Neighbors,
    RankSweep,
    Sweep,
    best_by_rank,
    best_threshold,
    decide,
    min2,
    row_f1,
)
from fastmatch.match.thresholds.base import ThresholdSearch
from fastmatch.match.thresholds.sweep import PADDING, _buckets
from tests.match.cases import cases, noisy
from tests.reference import match as ref
from tests.reference import match as reference


def as_lists(matches): return [ids.tolist() for ids in matches]


@settings(max_examples=150, deadline=None)
@given(case=cases(), ranks=st.integers(1, 3), max_matches=st.integers(1, 10),
       part=st.none() | st.integers(0, 99))
def test_best_thresholds_by_rank_are_the_best(case, ranks, max_matches, part):
    neighbors, groups = case
    n = len(groups)
    mask = np.ones(n, bool) if part is None else np.random.default_rng(part).random(n) < .5
    mask[0] |= not mask.any()
    thresholds, value = best_by_rank(neighbors, groups, ranks, mask, max_matches)
    rows = np.flatnonzero(mask)
    wanted = reference.best_by_rank(neighbors.ids, neighbors.scores, groups, rows, max_matches, ranks)
    assert value == pytest.approx(wanted, abs=1e-9)
    assert len(thresholds) == ranks
    assert all(type(threshold) is float for threshold in thresholds)
    assert (np.diff(thresholds) >= 0).all()
    decided = row_f1(decide(neighbors, thresholds, max_matches), groups)
    assert decided[mask].mean() == pytest.approx(value, abs=1e-9)
    # a threshold is in the gap between two scores of the neighbors it was chosen on, so it is none of these;
    # a listing's score with itself is not among them and may lie anywhere
    considered = neighbors.top(max_matches).scores[mask, 1:].astype(np.float64)
    assert not np.isin(thresholds, considered).any()
    one = best_threshold(neighbors, groups, mask, max_matches)
    if ranks == 1: assert thresholds == (one[0],)
    assert value >= one[1] - 1e-12


def test_two_thresholds_are_min2():
    neighbors = Dense(noisy(40, 5, 0, 10)).search(9)
    groups = np.random.default_rng(0).integers(0, 15, 40)
    (low, main), value = best_by_rank(neighbors, groups)
    forced = min2(decide(neighbors, main), neighbors, low)
    assert as_lists(forced) == as_lists(decide(neighbors, [low, main]))
    assert row_f1(forced, groups).mean() == pytest.approx(value)


def test_a_gain_that_is_only_rounding_is_none():
    for seed in (757, 1227):
        rng = np.random.default_rng(seed)
        groups = rng.integers(0, 4, 14)
        rows, ids = np.nonzero(rng.random((14, 14)) < .4)
        scores = rng.integers(0, 40, len(rows)) / 64 + (groups[rows] == groups[ids]) * .05
        neighbors = Neighbors.from_pairs(rows, ids, scores, 14)
        assert best_by_rank(neighbors, groups, 1)[0] == (best_threshold(neighbors, groups)[0],)


def test_nothing_near():
    neighbors = Neighbors.from_pairs([], [], [], 3)
    assert best_by_rank(neighbors, [0, 0, 1], 2) == ((1.001, 1.001), pytest.approx(7 / 9))
    assert best_threshold(neighbors, [0, 0, 1]) == (1.001, pytest.approx(7 / 9))


def test_both_are_threshold_searches():
    neighbors = Dense(noisy(6, 3, 0)).search(4)
    groups = [0, 0, 1, 1, 2, 2]
    for search in (Sweep(neighbors, groups), RankSweep(neighbors, groups)):
        assert isinstance(search, ThresholdSearch)
        assert search.neighbors is neighbors
        threshold, value = search.best()
        assert search.at(threshold).mean() == pytest.approx(value)


def test_refuses():
    neighbors = Dense(noisy(5, 3, 0)).search(4)
    groups = [0, 0, 1, 1, 2]
    with pytest.raises(InputError, match='ranks=0'): best_by_rank(neighbors, groups, 0)
    with pytest.raises(InputError, match='do not fall'): RankSweep(neighbors, groups).at([.5, .2])
    with pytest.raises(InputError, match='max_matches=0'): Sweep(neighbors, groups, 0)
    with pytest.raises(InputError, match='give 5'): Sweep(neighbors, groups[:3])
    for best in (best_threshold, best_by_rank):
        with pytest.raises(InputError, match='rows: none is chosen'): best(neighbors, groups, rows=[])


NB = Neighbors.from_pairs([0, 0, 1, 2, 3], [1, 2, 0, 0, 4], [.75, .5, .75, .5, .25], 5)


@settings(max_examples=300, deadline=None)
@given(
    case=cases(),
    max_matches=st.integers(1, 10),
    part=st.none() | st.integers(0, 99),
    as_numbers=st.booleans(),
)
def test_best_threshold_is_the_best(case, max_matches, part, as_numbers):
    neighbors, labels = case
    n = len(labels)
    mask = np.ones(n, bool) if part is None else np.random.default_rng(part).random(n) < .5
    mask[0] |= not mask.any()
    rows = None if part is None else np.flatnonzero(mask) if as_numbers else mask
    threshold, value = best_threshold(neighbors, labels, rows, max_matches)
    want = ref.best_threshold(neighbors.ids, neighbors.scores, labels, np.flatnonzero(mask), max_matches)
    assert value == pytest.approx(want[1], abs=1e-9)
    # the very cut: float64, midway, the highest of the best
    assert threshold == want[0] and isinstance(threshold, float)
    seen = neighbors.scores[mask, 1:max_matches].astype(np.float64)
    assert not (seen == threshold).any()
    # what it promises is what it does
    f1 = row_f1(decide(neighbors, threshold, max_matches), labels)
    assert f1[mask].mean() == pytest.approx(value, abs=1e-9)
    np.testing.assert_allclose(Sweep(neighbors, labels, max_matches).at(threshold), f1, atol=1e-12)


@settings(max_examples=200, deadline=None)
@given(
    x=st.lists(
        st.floats(width=32, allow_nan=False)
        | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-149, -(2.0**-149), np.inf, -np.inf])
    )
)
def test_buckets_fall_with_the_score(x):
    x = np.sort(np.array(x, np.float32))
    b = _buckets(x).astype(int)
    assert (np.diff(b) <= 0).all() and (b[1:] == b[:-1])[x[1:] == x[:-1]].all()
    np.testing.assert_array_equal(b >= PADDING, x == -np.inf)


@pytest.mark.parametrize('k, n_groups, spread', [(6, 20, .3), (6, 20, .003), (9, 4, .3), (6, 20, 1e-7)])
def test_best_threshold_of_many_edges(k, n_groups, spread):
    """Scores over many buckets and in a few, mates nearer, much further, and not at all: the cut is brute
    force's."""
    rng = np.random.default_rng(k + n_groups)
    labels = rng.integers(0, n_groups, 60)
    rows, ids = np.repeat(np.arange(60), k), rng.integers(0, 60, 60 * k)
    for sign in (1, -1, 0):
        scores = .6 + spread * (rng.normal(size=len(rows)) + 2 * sign * (labels[rows] == labels[ids]))
        neighbors = Neighbors.from_pairs(rows, ids, np.where(scores > .6 - spread, scores, -scores), 60)
        for part in (None, rng.random(60) < .3):
            want = ref.best_threshold(
                neighbors.ids,
                neighbors.scores,
                labels,
                np.arange(60) if part is None else np.flatnonzero(part),
                50,
            )
            assert best_threshold(neighbors, labels, part) == (want[0], pytest.approx(want[1], abs=1e-9))


def test_nothing_is_let_in_when_nothing_helps():
    # all neighbours wrong; and one right of three is not worth it
    for labels, rows in (([0, 1, 2, 3, 4], None), ([0, 1, 2, 3, 3], [0, 1, 2])):
        threshold, value = best_threshold(NB, labels, rows)
        assert (
            threshold > 0.75
            and value
            == ref.row_f1([[i] for i in range(5)], labels)[slice(None) if rows is None else rows].mean()
        )
        assert [item.tolist() for item in decide(NB, threshold)][:3] == [[0], [1], [2]]
    alone = Neighbors.from_pairs([], [], [], 3)
    assert best_threshold(alone, [0, 0, 1]) == (1.001, pytest.approx((2 / 3 + 2 / 3 + 1) / 3))
    assert best_threshold(NB, [0, 0, 1, 1, 1], max_matches=1)[0] == 1.001


@pytest.mark.parametrize('seed', [757, 1227])
def test_one_threshold_ignores_a_gain_that_is_only_rounding(seed):
    "Two cuts of the same worth, of which the lower sums up to a few bits more: the higher is taken."
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 14)
    rows, ids = np.nonzero(rng.random((14, 14)) < .4)
    neighbors = Neighbors.from_pairs(
        rows, ids, rng.integers(0, 40, len(rows)) / 64 + (labels[rows] == labels[ids]) * 0.05, 14
    )
    want = ref.best_threshold(neighbors.ids, neighbors.scores, labels, range(14), 50)
    assert best_threshold(neighbors, labels) == (want[0], pytest.approx(want[1], abs=1e-9))


def test_two_listings():
    neighbors = Dense([[1., 0], [1., .5]]).search(2)
    threshold, value = best_threshold(neighbors, ['a', 'a'])
    assert value == 1 and threshold == pytest.approx(float(neighbors.scores[0, 1]) - 1e-3)
    assert [item.tolist() for item in decide(neighbors, threshold)] == [[0, 1], [1, 0]]
    threshold, value = best_threshold(neighbors, ['a', 'b'])
    assert (
        value == 1
        and threshold > neighbors.scores[0, 1]
        and [item.tolist() for item in decide(neighbors, threshold)] == [[0], [1]]
    )


def test_string_labels_do_as_well():
    labels = np.array([0, 0, 1, 1, 1])
    assert best_threshold(NB, labels) == best_threshold(NB, [f'g{label}' for label in labels])


@pytest.mark.parametrize(
    'rows', [[], np.zeros(5, bool), np.zeros(0, int), [5], [-1], [True, False], np.ones(6, bool), [0.5]]
)
def test_rows_refused(rows):
    with pytest.raises(InputError, match='^rows'): best_threshold(NB, [0, 0, 1, 1, 1], rows)


def test_rows_as_lists():
    labels = [0, 0, 1, 1, 1]
    want = best_threshold(NB, labels, np.array([True, True, False, False, True]))
    assert (
        best_threshold(NB, labels, [True, True, False, False, True])
        == best_threshold(NB, labels, [4, 0, 1])
        == want
    )
