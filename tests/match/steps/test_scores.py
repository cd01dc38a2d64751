"Scores told again by neighbours, against n x n loops."

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    Neighbors,
    Tfidf,
    Units,
    k_reciprocal,
    mutual,
    neighbor_mean,
    standardize,
    veto,
)
from tests.match.cases import cases, noisy, titles
from tests.reference import match as ref


def same(nb, full, keep, width):
    "Each listed pair with its n x n score, none better left out."
    nb.check(self_join=True)
    assert nb.ids.shape[1] == width
    real = nb.ids >= 0
    np.testing.assert_allclose(
        nb.scores[:, 1:][real[:, 1:]],
        np.take_along_axis(full, np.maximum(nb.ids, 0), 1)[:, 1:][real[:, 1:]],
        atol=2e-6,
    )
    keep = keep & ~np.eye(len(full), dtype=bool)
    assert (real[:, 1:].sum(1) == np.minimum(keep.sum(1), width - 1)).all()
    for i in range(len(full)):
        mine = nb.ids[i, 1:][real[i, 1:]]
        out = np.setdiff1d(np.flatnonzero(keep[i]), mine)
        if len(out) and len(mine): assert full[i, out].max() <= nb.scores[i, 1:][real[i, 1:]].min() + 2e-6
        assert keep[i, mine].all()


@settings(max_examples=100, deadline=None)
@given(case=cases(smallest=1), k=st.integers(1, 6), weight=st.sampled_from([1., .5, 0.]))
def test_neighbor_mean(case, k, weight):
    neighbors, _ = case
    # sums of these scores are exact but for the division
    full = ref.neighbor_mean(neighbors, k, weight)
    same(neighbor_mean(neighbors, k, weight), full, full != 0, neighbors.ids.shape[1])


@settings(max_examples=100, deadline=None)
@given(case=cases(smallest=1), k=st.integers(1, 6), floor=st.sampled_from([.05, 1.]))
def test_standardize(case, k, floor):
    neighbors, _ = case
    full, listed = ref.standardize(neighbors, k, floor)
    got = standardize(neighbors, k, floor)
    rows, ids, scores = got.pairs()
    np.testing.assert_allclose(scores[rows != ids], full[rows, ids][rows != ids], rtol=1e-5, atol=1e-5)
    assert sorted(zip(rows, ids)) == sorted(zip(*neighbors.pairs()[:2]))


@settings(max_examples=100, deadline=None)
@given(case=cases(smallest=1), k=st.none() | st.integers(1, 6))
def test_mutual(case, k):
    neighbors, _ = case
    lists = [item[:k] for item in ref.sims(neighbors)[2]]
    got = mutual(neighbors, k).check(self_join=True)
    for i, row in enumerate(got.ids): assert row[row >= 0].tolist() == [j for j in lists[i] if i in lists[j]]
    want = {
        (i, int(j)): s
        for i in range(len(neighbors.ids))
        for j, s in zip(neighbors.ids[i, 1:], neighbors.scores[i, 1:])
    }
    assert all(want[i, j] == s for i, j, s in zip(*got.pairs()) if i != j)


@pytest.mark.parametrize(
    'n, k1, k2, lam',
    [(1, 2, 1, 0.3), (12, 1, 1, 0.0), (40, 4, 2, 0.3), (40, 5, 3, 0.5), (40, 7, 1, 1.0), (40, 20, 6, 0.3)],
)
@pytest.mark.parametrize('copies', [0, 20])
def test_k_reciprocal_is_the_papers(n, k1, k2, lam, copies):
    space = Dense(noisy(n, 5, n + k1, copies if n > 1 else 0))
    neighbors = space.search(n)
    # distances as the search saw them, so that equal ones stay equal; each over the largest of its row
    s, _, lists = ref.sims(neighbors)
    values = np.maximum(2 - 2 * s, 0)
    far = np.maximum(values.max(1), 1e-3)
    values /= far[:, None]
    full = 1 - ref.k_reciprocal(values, lists, k1, k2, lam)
    same(k_reciprocal(neighbors, k1, k2, lam, far), full, np.ones((n, n), bool), n)


@pytest.mark.parametrize('space', [Dense(noisy(50, 4, 0, 30)), Tfidf(titles(50, 1))])
@pytest.mark.parametrize('k1, k2', [(3, 1), (6, 3)])
def test_k_reciprocal_of_few_columns(space, k1, k2):
    """Fewer columns than listings, and rows without neighbours: what isn't listed counts as the row's least
    similar."""
    neighbors = space.search(9)
    s, listed, lists = ref.sims(neighbors)
    least = [min(s[i, j] for j in row) for i, row in enumerate(lists)]
    values = np.maximum(2 - 2 * np.where(listed, s, np.array(least)[:, None]), 0) / 2
    same(k_reciprocal(neighbors, k1, k2), 1 - ref.k_reciprocal(values, lists, k1, k2, .3), listed, 9)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), step=st.sampled_from([neighbor_mean, k_reciprocal, standardize, mutual]))
def test_row_order_does_not_matter(seed, step):
    rng = np.random.default_rng(seed)
    x, perm = rng.normal(size=(25, 4)), rng.permutation(25)
    a, b = step(Dense(x).search(9)), step(Dense(x[perm]).search(9))
    def table(nb, names): return {(names[i], names[j]): s for i, j, s in zip(*nb.pairs()) if i != j}
    a, b = table(a, np.arange(25)), table(b, perm)
    # the last column may be cut between two that differ by rounding
    assert len(a.keys() ^ b.keys()) <= 2
    for item in a.keys() & b.keys(): assert a[item] == pytest.approx(b[item], abs=1e-5)


def test_limits():
    neighbors = Dense(noisy(20, 4, 0)).search(8)
    one, rest = neighbor_mean(neighbors, 1), neighbor_mean(neighbors, 5, 0.)
    for item in (one, rest):
        np.testing.assert_array_equal(item.ids, neighbors.ids)
        np.testing.assert_allclose(item.scores, neighbors.scores, atol=1e-6)
    # the first distance alone keeps the order
    np.testing.assert_array_equal(k_reciprocal(neighbors, 3, lam=1.).ids, neighbors.ids)
    np.testing.assert_allclose(
        k_reciprocal(neighbors, 3, lam=1.0).scores[:, 1:], neighbors.scores[:, 1:], atol=1e-6
    )
    assert (mutual(neighbors, 1).ids[:, 1:] < 0).all()


def test_refuses():
    neighbors = Dense(noisy(9, 4, 0)).search(4)
    for function in (neighbor_mean, k_reciprocal, standardize, mutual):
        with pytest.raises(InputError, match='itself'):
            function(Neighbors(neighbors.ids[:, 1:], neighbors.scores[:, 1:]))
    for bad in (dict(k1=0), dict(k2=0), dict(k1=True), dict(lam=2.), dict(far=0.), dict(k1=4)):
        with pytest.raises(InputError, match=f'^{next(iter(bad))}'):
            k_reciprocal(neighbors, **{'k1': 2, **bad})
    with pytest.raises(InputError, match='weight'): neighbor_mean(neighbors, 2, 1.5)
    with pytest.raises(InputError, match='floor'): standardize(neighbors, 3, 0.)
    for function in (neighbor_mean, standardize, mutual):
        with pytest.raises(InputError, match='k=0'): function(neighbors, 0)


def sets(matches): return [match.tolist() for match in matches]


def test_veto():
    t = ['susu 500ml', 'susu 0.5 l', 'susu 250 ml', 'susu', 'susu 250ml isi 2', 'susu isi 3']
    neighbors = Dense(noisy(6, 4, 0)).search(6)
    got = veto(neighbors, Units(t)).check(self_join=True)
    out = {(0, 2), (0, 4), (1, 2), (1, 4), (4, 5)}
    want = {(i, j): s for i, j, s in zip(*neighbors.pairs()) if (min(i, j), max(i, j)) not in out}
    assert {(i, j): s for i, j, s in zip(*got.pairs())} == want
    for a, b in zip(veto(neighbors, Units([''] * 6)), neighbors): np.testing.assert_array_equal(a, b)
