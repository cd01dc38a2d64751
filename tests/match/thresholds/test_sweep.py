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
from tests.match.cases import cases, noisy
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
    # a threshold is in the gap between two scores: none is a score
    assert not np.isin(thresholds, neighbors.scores[mask].astype(np.float64)).any()
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
