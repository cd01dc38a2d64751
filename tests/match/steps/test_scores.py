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


def assert_same_scores(neighbors, all_scores, is_kept, width):
    "Each listed pair with its n x n score, none better left out."
    neighbors.check(self_join=True)
    assert neighbors.ids.shape[1] == width
    is_listed = neighbors.ids >= 0
    np.testing.assert_allclose(
        neighbors.scores[:, 1:][is_listed[:, 1:]],
        np.take_along_axis(all_scores, np.maximum(neighbors.ids, 0), 1)[:, 1:][is_listed[:, 1:]],
        atol=2e-6,
    )
    is_kept = is_kept & ~np.eye(len(all_scores), dtype=bool)
    assert (is_listed[:, 1:].sum(1) == np.minimum(is_kept.sum(1), width - 1)).all()
    for i in range(len(all_scores)):
        listed = neighbors.ids[i, 1:][is_listed[i, 1:]]
        left_out = np.setdiff1d(np.flatnonzero(is_kept[i]), listed)
        if len(left_out) and len(listed):
            assert all_scores[i, left_out].max() <= neighbors.scores[i, 1:][is_listed[i, 1:]].min() + 2e-6
        assert is_kept[i, listed].all()


@settings(max_examples=100, deadline=None)
@given(random_case=cases(smallest=1), k=st.integers(1, 6), weight=st.sampled_from([1., .5, 0.]))
def test_neighbor_mean(random_case, k, weight):
    neighbors, _ = random_case
    # sums of these scores are exact but for the division
    all_scores = ref.neighbor_mean(neighbors, k, weight)
    assert_same_scores(
        neighbor_mean(neighbors, k, weight), all_scores, all_scores != 0, neighbors.ids.shape[1]
    )


@settings(max_examples=100, deadline=None)
@given(random_case=cases(smallest=1), k=st.integers(1, 6), floor=st.sampled_from([.05, 1.]))
def test_standardize(random_case, k, floor):
    neighbors, _ = random_case
    all_scores, listed = ref.standardize(neighbors, k, floor)
    actual = standardize(neighbors, k, floor)
    rows, ids, scores = actual.pairs()
    np.testing.assert_allclose(scores[rows != ids], all_scores[rows, ids][rows != ids], rtol=1e-5, atol=1e-5)
    assert sorted(zip(rows, ids)) == sorted(zip(*neighbors.pairs()[:2]))


@settings(max_examples=100, deadline=None)
@given(random_case=cases(smallest=1), k=st.none() | st.integers(1, 6))
def test_mutual(random_case, k):
    neighbors, _ = random_case
    nearest = [row_ids[:k] for row_ids in ref.sims(neighbors)[2]]
    actual = mutual(neighbors, k).check(self_join=True)
    for i, row in enumerate(actual.ids):
        assert row[row >= 0].tolist() == [j for j in nearest[i] if i in nearest[j]]
    expected = {
        (i, int(j)): score
        for i in range(len(neighbors.ids))
        for j, score in zip(neighbors.ids[i, 1:], neighbors.scores[i, 1:])
    }
    assert all(expected[i, j] == score for i, j, score in zip(*actual.pairs()) if i != j)


@pytest.mark.parametrize(
    'listing_count, k1, k2, lam',
    [(1, 2, 1, 0.3), (12, 1, 1, 0.0), (40, 4, 2, 0.3), (40, 5, 3, 0.5), (40, 7, 1, 1.0), (40, 20, 6, 0.3)],
)
@pytest.mark.parametrize('copies', [0, 20])
def test_k_reciprocal_is_the_papers(listing_count, k1, k2, lam, copies):
    space = Dense(noisy(listing_count, 5, listing_count + k1, copies if listing_count > 1 else 0))
    neighbors = space.search(listing_count)
    # distances as the search saw them, so that equal ones stay equal; each over the largest of its row
    similarity, _, lists = ref.sims(neighbors)
    distances = np.maximum(2 - 2 * similarity, 0)
    farthest = np.maximum(distances.max(1), 1e-3)
    distances /= farthest[:, None]
    all_scores = 1 - ref.k_reciprocal(distances, lists, k1, k2, lam)
    assert_same_scores(
        k_reciprocal(neighbors, k1, k2, lam, farthest),
        all_scores,
        np.ones((listing_count, listing_count), bool),
        listing_count,
    )


@pytest.mark.parametrize('space', [Dense(noisy(50, 4, 0, 30)), Tfidf(titles(50, 1))])
@pytest.mark.parametrize('k1, k2', [(3, 1), (6, 3)])
def test_k_reciprocal_of_few_columns(space, k1, k2):
    """Fewer columns than listings, and rows without neighbours: what isn't listed counts as the row's least
    similar."""
    neighbors = space.search(9)
    similarity, listed, lists = ref.sims(neighbors)
    least_similar = [min(similarity[i, j] for j in row) for i, row in enumerate(lists)]
    distances = np.maximum(2 - 2 * np.where(listed, similarity, np.array(least_similar)[:, None]), 0) / 2
    assert_same_scores(
        k_reciprocal(neighbors, k1, k2), 1 - ref.k_reciprocal(distances, lists, k1, k2, 0.3), listed, 9
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), step=st.sampled_from([neighbor_mean, k_reciprocal, standardize, mutual]))
def test_row_order_does_not_matter(seed, step):
    rng = np.random.default_rng(seed)
    vectors, permutation = rng.normal(size=(25, 4)), rng.permutation(25)
    def table(neighbors, names):
        return {(names[i], names[j]): score for i, j, score in zip(*neighbors.pairs()) if i != j}
    plain = table(step(Dense(vectors).search(9)), np.arange(25))
    permuted = table(step(Dense(vectors[permutation]).search(9)), permutation)
    # the last column may be cut between two that differ by rounding
    assert len(plain.keys() ^ permuted.keys()) <= 2
    for pair in plain.keys() & permuted.keys(): assert plain[pair] == pytest.approx(permuted[pair], abs=1e-5)


def test_limits():
    neighbors = Dense(noisy(20, 4, 0)).search(8)
    of_itself, unweighted = neighbor_mean(neighbors, 1), neighbor_mean(neighbors, 5, 0.)
    for unchanged in (of_itself, unweighted):
        np.testing.assert_array_equal(unchanged.ids, neighbors.ids)
        np.testing.assert_allclose(unchanged.scores, neighbors.scores, atol=1e-6)
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
    for invalid in (dict(k1=0), dict(k2=0), dict(k1=True), dict(lam=2.), dict(far=0.), dict(k1=4)):
        with pytest.raises(InputError, match=f'^{next(iter(invalid))}'):
            k_reciprocal(neighbors, **{'k1': 2, **invalid})
    with pytest.raises(InputError, match='weight'): neighbor_mean(neighbors, 2, 1.5)
    with pytest.raises(InputError, match='floor'): standardize(neighbors, 3, 0.)
    for function in (neighbor_mean, standardize, mutual):
        with pytest.raises(InputError, match='k=0'): function(neighbors, 0)


def as_lists(matches): return [match.tolist() for match in matches]


def test_veto():
    texts = ['susu 500ml', 'susu 0.5 l', 'susu 250 ml', 'susu', 'susu 250ml isi 2', 'susu isi 3']
    neighbors = Dense(noisy(6, 4, 0)).search(6)
    actual = veto(neighbors, Units(texts)).check(self_join=True)
    vetoed = {(0, 2), (0, 4), (1, 2), (1, 4), (4, 5)}
    expected = {
        (i, j): score for i, j, score in zip(*neighbors.pairs()) if (min(i, j), max(i, j)) not in vetoed
    }
    assert {(i, j): score for i, j, score in zip(*actual.pairs())} == expected
    for array, expected_array in zip(veto(neighbors, Units([''] * 6)), neighbors):
        np.testing.assert_array_equal(array, expected_array)
