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
from tests.reference import match as reference


def as_lists(matches): return [ids.tolist() for ids in matches]


@settings(max_examples=150, deadline=None)
@given(random_case=cases(), ranks=st.integers(1, 3), max_matches=st.integers(1, 10),
       part_seed=st.none() | st.integers(0, 99))
def test_best_thresholds_by_rank_are_the_best(random_case, ranks, max_matches, part_seed):
    neighbors, groups = random_case
    n = len(groups)
    chosen_rows = np.ones(n, bool) if part_seed is None else np.random.default_rng(part_seed).random(n) < .5
    chosen_rows[0] |= not chosen_rows.any()
    thresholds, value = best_by_rank(neighbors, groups, ranks, chosen_rows, max_matches)
    rows = np.flatnonzero(chosen_rows)
    expected = reference.best_by_rank(neighbors.ids, neighbors.scores, groups, rows, max_matches, ranks)
    assert value == pytest.approx(expected, abs=1e-9)
    assert len(thresholds) == ranks
    assert all(type(threshold) is float for threshold in thresholds)
    assert (np.diff(thresholds) >= 0).all()
    decided = row_f1(decide(neighbors, thresholds, max_matches), groups)
    assert decided[chosen_rows].mean() == pytest.approx(value, abs=1e-9)
    # a threshold is in the gap between two scores of the neighbors it was chosen on, so it is none of these;
    # a listing's score with itself is not among them and may lie anywhere
    considered = neighbors.top(max_matches).scores[chosen_rows, 1:].astype(np.float64)
    assert not np.isin(thresholds, considered).any()
    of_one_rank = best_threshold(neighbors, groups, chosen_rows, max_matches)
    if ranks == 1: assert thresholds == (of_one_rank[0],)
    assert value >= of_one_rank[1] - 1e-12


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
    for best_function in (best_threshold, best_by_rank):
        with pytest.raises(InputError, match='rows: none is chosen'):
            best_function(neighbors, groups, rows=[])


NEIGHBORS = Neighbors.from_pairs([0, 0, 1, 2, 3], [1, 2, 0, 0, 4], [.75, .5, .75, .5, .25], 5)


@settings(max_examples=300, deadline=None)
@given(
    random_case=cases(),
    max_matches=st.integers(1, 10),
    part_seed=st.none() | st.integers(0, 99),
    as_numbers=st.booleans(),
)
def test_best_threshold_is_the_best(random_case, max_matches, part_seed, as_numbers):
    neighbors, groups = random_case
    n = len(groups)
    chosen_rows = np.ones(n, bool) if part_seed is None else np.random.default_rng(part_seed).random(n) < .5
    chosen_rows[0] |= not chosen_rows.any()
    rows = None if part_seed is None else np.flatnonzero(chosen_rows) if as_numbers else chosen_rows
    threshold, value = best_threshold(neighbors, groups, rows, max_matches)
    row_numbers = np.flatnonzero(chosen_rows)
    expected = reference.best_threshold(neighbors.ids, neighbors.scores, groups, row_numbers, max_matches)
    assert value == pytest.approx(expected[1], abs=1e-9)
    # the very cut: float64, midway, the highest of the best
    assert threshold == expected[0] and isinstance(threshold, float)
    considered = neighbors.scores[chosen_rows, 1:max_matches].astype(np.float64)
    assert not (considered == threshold).any()
    # what it promises is what it does
    decided_f1 = row_f1(decide(neighbors, threshold, max_matches), groups)
    assert decided_f1[chosen_rows].mean() == pytest.approx(value, abs=1e-9)
    np.testing.assert_allclose(Sweep(neighbors, groups, max_matches).at(threshold), decided_f1, atol=1e-12)


@settings(max_examples=200, deadline=None)
@given(
    scores=st.lists(
        st.floats(width=32, allow_nan=False)
        | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-149, -(2.0**-149), np.inf, -np.inf])
    )
)
def test_buckets_fall_with_the_score(scores):
    scores = np.sort(np.array(scores, np.float32))
    buckets = _buckets(scores).astype(int)
    assert (np.diff(buckets) <= 0).all() and (buckets[1:] == buckets[:-1])[scores[1:] == scores[:-1]].all()
    np.testing.assert_array_equal(buckets >= PADDING, scores == -np.inf)


@pytest.mark.parametrize('k, group_count, spread', [(6, 20, .3), (6, 20, .003), (9, 4, .3), (6, 20, 1e-7)])
def test_best_threshold_of_many_edges(k, group_count, spread):
    """Scores over many buckets and in a few, mates nearer, much further, and not at all: the cut is brute
    force's."""
    rng = np.random.default_rng(k + group_count)
    groups = rng.integers(0, group_count, 60)
    rows, ids = np.repeat(np.arange(60), k), rng.integers(0, 60, 60 * k)
    for sign in (1, -1, 0):
        scores = .6 + spread * (rng.normal(size=len(rows)) + 2 * sign * (groups[rows] == groups[ids]))
        neighbors = Neighbors.from_pairs(rows, ids, np.where(scores > .6 - spread, scores, -scores), 60)
        for chosen_rows in (None, rng.random(60) < .3):
            row_numbers = np.arange(60) if chosen_rows is None else np.flatnonzero(chosen_rows)
            threshold, value = reference.best_threshold(
                neighbors.ids, neighbors.scores, groups, row_numbers, 50)
            actual = best_threshold(neighbors, groups, chosen_rows)
            assert actual == (threshold, pytest.approx(value, abs=1e-9))


def test_nothing_is_let_in_when_nothing_helps():
    # all neighbours wrong; and one right of three is not worth it
    for groups, rows in (([0, 1, 2, 3, 4], None), ([0, 1, 2, 3, 3], [0, 1, 2])):
        threshold, value = best_threshold(NEIGHBORS, groups, rows)
        assert (
            threshold > 0.75
            and value
            == reference.row_f1([[i] for i in range(5)], groups)[slice(None) if rows is None else rows].mean()
        )
        assert [matched_ids.tolist() for matched_ids in decide(NEIGHBORS, threshold)][:3] == [[0], [1], [2]]
    alone = Neighbors.from_pairs([], [], [], 3)
    assert best_threshold(alone, [0, 0, 1]) == (1.001, pytest.approx((2 / 3 + 2 / 3 + 1) / 3))
    assert best_threshold(NEIGHBORS, [0, 0, 1, 1, 1], max_matches=1)[0] == 1.001


@pytest.mark.parametrize('seed', [757, 1227])
def test_one_threshold_ignores_a_gain_that_is_only_rounding(seed):
    "Two cuts of the same worth, of which the lower sums up to a few bits more: the higher is taken."
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 4, 14)
    rows, ids = np.nonzero(rng.random((14, 14)) < .4)
    neighbors = Neighbors.from_pairs(
        rows, ids, rng.integers(0, 40, len(rows)) / 64 + (groups[rows] == groups[ids]) * 0.05, 14
    )
    expected = reference.best_threshold(neighbors.ids, neighbors.scores, groups, range(14), 50)
    assert best_threshold(neighbors, groups) == (expected[0], pytest.approx(expected[1], abs=1e-9))


def test_two_listings():
    neighbors = Dense([[1., 0], [1., .5]]).search(2)
    threshold, value = best_threshold(neighbors, ['a', 'a'])
    assert value == 1 and threshold == pytest.approx(float(neighbors.scores[0, 1]) - 1e-3)
    assert [matched_ids.tolist() for matched_ids in decide(neighbors, threshold)] == [[0, 1], [1, 0]]
    threshold, value = best_threshold(neighbors, ['a', 'b'])
    assert (
        value == 1
        and threshold > neighbors.scores[0, 1]
        and [matched_ids.tolist() for matched_ids in decide(neighbors, threshold)] == [[0], [1]]
    )


def test_string_labels_do_as_well():
    groups = np.array([0, 0, 1, 1, 1])
    assert best_threshold(NEIGHBORS, groups) == best_threshold(NEIGHBORS, [f'g{group}' for group in groups])


@pytest.mark.parametrize(
    'rows', [[], np.zeros(5, bool), np.zeros(0, int), [5], [-1], [True, False], np.ones(6, bool), [0.5]]
)
def test_rows_refused(rows):
    with pytest.raises(InputError, match='^rows'): best_threshold(NEIGHBORS, [0, 0, 1, 1, 1], rows)


def test_rows_as_lists():
    groups = [0, 0, 1, 1, 1]
    expected = best_threshold(NEIGHBORS, groups, np.array([True, True, False, False, True]))
    assert (
        best_threshold(NEIGHBORS, groups, [True, True, False, False, True])
        == best_threshold(NEIGHBORS, groups, [4, 0, 1])
        == expected
    )
