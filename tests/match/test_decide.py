"Which neighbors match: one threshold, thresholds by rank, and what is refused; against loops over rows."

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    Keys,
    Neighbors,
    Pool,
    RankSweep,
    Sweep,
    Units,
    best_by_rank,
    best_threshold,
    best_union,
    candidates,
    chisel,
    decide,
    group,
    min2,
    row_f1,
    veto,
)
from tests.match.cases import cases, noisy, titles
from tests.reference import match as ref


def as_lists(matches): return [matched_ids.tolist() for matched_ids in matches]


THRESHOLDS = st.sampled_from([-1., -.75, 0., .25, .5, .5 + 2**-24, 1., 101.])


@settings(max_examples=100, deadline=None)
@given(
    random_case=cases(smallest=1),
    thresholds=st.lists(THRESHOLDS, min_size=1, max_size=4),
    max_matches=st.integers(1, 8),
)
def test_cuts_by_rank(random_case, thresholds, max_matches):
    neighbors, labels = random_case
    matches = decide(neighbors, thresholds, max_matches)
    assert as_lists(matches) == ref.decide_by_rank(neighbors.ids, neighbors.scores, thresholds, max_matches)
    if len(thresholds) == 1:
        assert as_lists(matches) == as_lists(decide(neighbors, thresholds[0], max_matches))
    rising_thresholds = sorted(thresholds)
    np.testing.assert_allclose(
        RankSweep(neighbors, labels, len(thresholds), max_matches).at(rising_thresholds),
        row_f1(decide(neighbors, rising_thresholds, max_matches), labels),
        atol=1e-12,
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999))
def test_row_order_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(20, 4))
    texts = titles(20, seed)
    labels = rng.integers(0, 8, 20)
    permutation = rng.permutation(20)

    def table(order):
        neighbors = Dense(vectors[order]).search(20)
        decided = [
            chisel(decide(neighbors, 9), neighbors, [0.6, 0.3]),
            min2(decide(neighbors, 0.8), neighbors, 0.2, gap=0.01),
            decide(veto(neighbors, Units([texts[i] for i in order])), 0.5),
        ]
        linked_pairs = [
            {frozenset((order[i], order[j])) for i, matched_ids in enumerate(matches) for j in matched_ids}
            for matches in decided
        ]
        scored_candidates = candidates(
            {'a': Dense(vectors[order]), 'b': Dense(vectors[order][:, ::-1] ** 3)}, 6
        )
        best_f1 = best_by_rank(neighbors, labels[order], 3)[1]
        return linked_pairs, best_f1, best_union(scored_candidates, labels[order])[1]

    plain, permuted = table(np.arange(20)), table(permutation)
    assert plain[0] == permuted[0] and plain[1:] == pytest.approx(permuted[1:], abs=1e-9)


def test_refuses():
    neighbors = Dense(noisy(5, 3, 0)).search(4)
    labels, matches = [0, 0, 1, 1, 2], decide(neighbors, .5)
    for invalid in ([], [[.5]], [.5, np.nan]):
        with pytest.raises(InputError, match='^threshold'): decide(neighbors, invalid)
    spoilt = Neighbors(neighbors.ids.copy(), neighbors.scores.copy())
    spoilt.scores[[1, 4], [3, 2]] = np.nan
    for k in (2, 50):
        with pytest.raises(InputError, match='^neighbors: rows 1, 4 have a score that is NaN$'):
            decide(spoilt, .5, k)
    # behind the last neighbour nobody looks
    spoilt.ids[[1, 4], 2:] = -1
    assert len(decide(spoilt, .5)) == 5
    with pytest.raises(InputError, match='ranks=0'): best_by_rank(neighbors, labels, 0)
    with pytest.raises(InputError, match='do not fall'): RankSweep(neighbors, labels).at([.5, .2])
    with pytest.raises(InputError, match='threshold=inf'): min2(matches, neighbors, np.inf)
    with pytest.raises(InputError, match='gap=nan'): min2(matches, neighbors, gap=np.nan)
    with pytest.raises(InputError, match='matches of 5 rows, neighbors of 3'):
        min2(matches, Dense(noisy(3, 3, 0)).search(2))
    with pytest.raises(InputError, match='not among'): min2(decide(neighbors, -1), neighbors.top(1))
    for invalid in ([.5, .6], [1.1], [-.1], [np.nan], .5):
        with pytest.raises(InputError, match='shares='): chisel(matches, neighbors, invalid)
    with pytest.raises(InputError, match='rows 1'): Units(['a', None])
    with pytest.raises(InputError, match='Keys'): Units(['a']).scores([0], [0], queries=Keys('a'))
    scored_candidates = candidates({'a': Dense(noisy(5, 3, 0))}, 3)
    with pytest.raises(InputError, match='names='): best_union(scored_candidates, labels)
    scored_in_two = candidates({'a': Dense(noisy(5, 3, 0)), 'b': Dense(noisy(5, 3, 1))}, 3)
    with pytest.raises(InputError, match='rows: none'): best_union(scored_in_two, labels, rows=[])
    with pytest.raises(InputError, match='give 5'): best_union(scored_in_two, labels[:3])
    pool = Pool(Dense(noisy(2, 3, 0)), Dense(noisy(5, 3, 1)))
    with pytest.raises(InputError, match='catalogue'): best_union(candidates({'a': pool, 'b': pool}), [0, 1])


def test_nothing_near():
    neighbors = Neighbors.from_pairs([], [], [], 3)
    assert best_by_rank(neighbors, [0, 0, 1], 2) == ((1.001, 1.001), pytest.approx(7 / 9))
    assert as_lists(min2(decide(neighbors, 0.5), neighbors)) == [[0], [1], [2]] and as_lists(
        chisel(decide(neighbors, 0.5), neighbors, [1.0])
    ) == [[0], [1], [2]]


NEIGHBORS = Neighbors.from_pairs([0, 0, 1, 2, 3], [1, 2, 0, 0, 4], [.75, .5, .75, .5, .25], 5)


@settings(max_examples=100, deadline=None)
@given(random_case=cases(), max_matches=st.integers(1, 10),
       threshold=st.sampled_from([-np.inf, -.75, 0, .25, .5, .5 + 2**-25, .5 + 2**-24, 1, 100, np.inf]))
def test_decide(random_case, max_matches, threshold):
    neighbors, labels = random_case
    matches = decide(neighbors, threshold, max_matches)
    expected = ref.decide(neighbors.ids, neighbors.scores, threshold, max_matches)
    assert [matched_ids.tolist() for matched_ids in matches] == expected and len(matches) == len(expected)
    assert [matches[i].tolist() for i in range(len(matches))] == expected and [
        matches[i - len(matches)].tolist() for i in range(len(matches))
    ] == expected
    for i, matched_ids in enumerate(matches):
        assert len(matched_ids) <= max_matches and matched_ids[0] == i
        np.testing.assert_array_equal(
            matches.scores[matches.indptr[i] : matches.indptr[i + 1]],
            [neighbors.scores[i, neighbors.ids[i].tolist().index(neighbor)] for neighbor in matched_ids],
        )
    np.testing.assert_allclose(
        Sweep(neighbors, labels, max_matches).at(threshold), ref.row_f1(expected, labels), atol=1e-12
    )
    np.testing.assert_array_equal(group(matches), ref.group(expected))


def test_padding_is_never_let_in():
    labels = [0, 0, 1, 1, 1]
    for matches in (NEIGHBORS.top(2), NEIGHBORS):
        np.testing.assert_allclose(
            Sweep(matches, labels).at(-np.inf), row_f1(decide(matches, -np.inf), labels)
        )
        assert all((matched_ids >= 0).all() for matched_ids in decide(matches, -np.inf))


def test_decide_refuses():
    with pytest.raises(InputError, match='NaN'): decide(NEIGHBORS, np.nan)
    for k in (0, -1):
        with pytest.raises(InputError): decide(NEIGHBORS, .5, k)
        with pytest.raises(InputError): best_threshold(NEIGHBORS, [0, 0, 1, 1, 1], max_matches=k)
    with pytest.raises(InputError, match='give 5'): best_threshold(NEIGHBORS, [0, 0, 1])
    with pytest.raises(InputError, match='missing in rows 1'):
        best_threshold(NEIGHBORS, ['a', None, 'b', 'c', 'c'])
