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


def sets(matches): return [match.tolist() for match in matches]


THRESHOLDS = st.sampled_from([-1., -.75, 0., .25, .5, .5 + 2**-24, 1., 101.])


@settings(max_examples=100, deadline=None)
@given(
    case=cases(smallest=1),
    cuts=st.lists(THRESHOLDS, min_size=1, max_size=4),
    max_matches=st.integers(1, 8),
)
def test_cuts_by_rank(case, cuts, max_matches):
    neighbors, labels = case
    matches = decide(neighbors, cuts, max_matches)
    assert sets(matches) == ref.decide_by_rank(neighbors.ids, neighbors.scores, cuts, max_matches)
    if len(cuts) == 1: assert sets(matches) == sets(decide(neighbors, cuts[0], max_matches))
    rising = sorted(cuts)
    np.testing.assert_allclose(
        RankSweep(neighbors, labels, len(cuts), max_matches).at(rising),
        row_f1(decide(neighbors, rising, max_matches), labels),
        atol=1e-12,
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999))
def test_row_order_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    x, t, labels, perm = (
        rng.normal(size=(20, 4)),
        titles(20, seed),
        rng.integers(0, 8, 20),
        rng.permutation(20),
    )

    def table(order):
        neighbors = Dense(x[order]).search(20)
        at = [
            chisel(decide(neighbors, 9), neighbors, [0.6, 0.3]),
            min2(decide(neighbors, 0.8), neighbors, 0.2, gap=0.01),
            decide(veto(neighbors, Units([t[i] for i in order])), 0.5),
        ]
        names = [
            {frozenset((order[i], order[j])) for i, item in enumerate(matches) for j in item}
            for matches in at
        ]
        scored = candidates({'a': Dense(x[order]), 'b': Dense(x[order][:, ::-1] ** 3)}, 6)
        return names, best_by_rank(neighbors, labels[order], 3)[1], best_union(scored, labels[order])[1]
    a, b = table(np.arange(20)), table(perm)
    assert a[0] == b[0] and a[1:] == pytest.approx(b[1:], abs=1e-9)


def test_refuses():
    neighbors = Dense(noisy(5, 3, 0)).search(4)
    labels, matches = [0, 0, 1, 1, 2], decide(neighbors, .5)
    for bad in ([], [[.5]], [.5, np.nan]):
        with pytest.raises(InputError, match='^threshold'): decide(neighbors, bad)
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
    for bad in ([.5, .6], [1.1], [-.1], [np.nan], .5):
        with pytest.raises(InputError, match='shares='): chisel(matches, neighbors, bad)
    with pytest.raises(InputError, match='rows 1'): Units(['a', None])
    with pytest.raises(InputError, match='Keys'): Units(['a']).scores([0], [0], queries=Keys('a'))
    scored = candidates({'a': Dense(noisy(5, 3, 0))}, 3)
    with pytest.raises(InputError, match='names='): best_union(scored, labels)
    two = candidates({'a': Dense(noisy(5, 3, 0)), 'b': Dense(noisy(5, 3, 1))}, 3)
    with pytest.raises(InputError, match='rows: none'): best_union(two, labels, rows=[])
    with pytest.raises(InputError, match='give 5'): best_union(two, labels[:3])
    pool = Pool(Dense(noisy(2, 3, 0)), Dense(noisy(5, 3, 1)))
    with pytest.raises(InputError, match='catalogue'): best_union(candidates({'a': pool, 'b': pool}), [0, 1])


def test_nothing_near():
    neighbors = Neighbors.from_pairs([], [], [], 3)
    assert best_by_rank(neighbors, [0, 0, 1], 2) == ((1.001, 1.001), pytest.approx(7 / 9))
    assert sets(min2(decide(neighbors, 0.5), neighbors)) == [[0], [1], [2]] and sets(
        chisel(decide(neighbors, 0.5), neighbors, [1.0])
    ) == [[0], [1], [2]]


NB = Neighbors.from_pairs([0, 0, 1, 2, 3], [1, 2, 0, 0, 4], [.75, .5, .75, .5, .25], 5)


@settings(max_examples=100, deadline=None)
@given(case=cases(), max_matches=st.integers(1, 10),
       threshold=st.sampled_from([-np.inf, -.75, 0, .25, .5, .5 + 2**-25, .5 + 2**-24, 1, 100, np.inf]))
def test_decide(case, max_matches, threshold):
    neighbors, labels = case
    matches = decide(neighbors, threshold, max_matches)
    want = ref.decide(neighbors.ids, neighbors.scores, threshold, max_matches)
    assert [item.tolist() for item in matches] == want and len(matches) == len(want)
    assert [matches[i].tolist() for i in range(len(matches))] == want and [
        matches[i - len(matches)].tolist() for i in range(len(matches))
    ] == want
    for i, item in enumerate(matches):
        assert len(item) <= max_matches and item[0] == i
        np.testing.assert_array_equal(
            matches.scores[matches.indptr[i] : matches.indptr[i + 1]],
            [neighbors.scores[i, neighbors.ids[i].tolist().index(j)] for j in item],
        )
    np.testing.assert_allclose(
        Sweep(neighbors, labels, max_matches).at(threshold), ref.row_f1(want, labels), atol=1e-12
    )
    np.testing.assert_array_equal(group(matches), ref.group(want))


def test_padding_is_never_let_in():
    labels = [0, 0, 1, 1, 1]
    for matches in (NB.top(2), NB):
        np.testing.assert_allclose(
            Sweep(matches, labels).at(-np.inf), row_f1(decide(matches, -np.inf), labels)
        )
        assert all((item >= 0).all() for item in decide(matches, -np.inf))


def test_decide_refuses():
    with pytest.raises(InputError, match='NaN'): decide(NB, np.nan)
    for k in (0, -1):
        with pytest.raises(InputError): decide(NB, .5, k)
        with pytest.raises(InputError): best_threshold(NB, [0, 0, 1, 1, 1], max_matches=k)
    with pytest.raises(InputError, match='give 5'): best_threshold(NB, [0, 0, 1])
    with pytest.raises(InputError, match='missing in rows 1'): best_threshold(NB, ['a', None, 'b', 'c', 'c'])
