"Dense: exact neighbors whatever the ties, against the whole n x n product."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Dense
from fastmatch.match.spaces import dense
from fastmatch.match.spaces.dense import to_unit
from tests.match.cases import checked_search, halves_of_one, noisy
from tests.match.spaces.promises import all_scores, assert_exact
from tests.reference import match as ref


@settings(max_examples=60, deadline=None)
@given(
    listing_count=st.integers(1, 40), dim=st.integers(4, 6), k=st.integers(1, 45), seed=st.integers(0, 999)
)
def test_without_rounding_is_exact(listing_count, dim, k, seed):
    vectors = halves_of_one(listing_count, dim, seed)
    neighbors = checked_search(Dense(vectors).search, k, listing_count).check(self_join=True)
    ids, scores = ref.nearest(vectors @ vectors.T / 4, k)
    np.testing.assert_array_equal(neighbors.ids, ids)
    np.testing.assert_array_equal(neighbors.scores, scores)


@settings(max_examples=40, deadline=None)
@given(
    listing_count=st.integers(1, 25),
    query_count=st.integers(1, 25),
    dim=st.integers(4, 6),
    k=st.integers(1, 30),
    seed=st.integers(0, 999),
)
def test_queries_without_rounding_are_exact(listing_count, query_count, dim, k, seed):
    vectors, new_vectors = halves_of_one(listing_count, dim, seed), halves_of_one(query_count, dim, seed + 1)
    neighbors = checked_search(
        lambda k: Dense(vectors).search(k, Dense(new_vectors)), k, listing_count
    ).check()
    ids, scores = ref.nearest(new_vectors @ vectors.T / 4, k, self_join=False)
    np.testing.assert_array_equal(neighbors.ids, ids)
    np.testing.assert_array_equal(neighbors.scores, scores)


SIZES = [(1, 3, 4, 0), (2, 1, 2, 0), (2, 7, 1, 1), (60, 13, 5, 60), (60, 33, 12, 20), (45, 2, 60, 10),
         (90, 8, 3, 200)]


@pytest.mark.parametrize('listing_count, dim, k, copies', SIZES)
def test_search(listing_count, dim, k, copies):
    vectors, new_vectors = noisy(listing_count, dim, listing_count + dim, copies), noisy(7, dim, 5)
    new_vectors[0] = vectors[0]
    space, queries = Dense(vectors), Dense(new_vectors)
    assert_exact(checked_search(space.search, k, listing_count), ref.cosine(vectors, vectors), space, k)
    neighbors = checked_search(lambda k: space.search(k, queries), k, listing_count)
    assert_exact(neighbors, ref.cosine(new_vectors, vectors), space, k, queries)
    # a space handed in as its own queries is no self-join
    neighbors = checked_search(lambda k: space.search(k, space), k, listing_count)
    assert_exact(neighbors, ref.cosine(vectors, vectors), space, k, space)


def test_self_is_the_best_score_though_a_near_duplicate_rounds_above_it():
    vectors = noisy(200, 13, 0)
    vectors[100:] = vectors[:100] + 1e-4 * noisy(100, 13, 1)
    space, rows = Dense(vectors), np.arange(200)
    neighbors = space.search(3).check(self_join=True)
    assert (neighbors.scores[:, 1] > space.scores(rows, rows)).any() and (neighbors.ids[:, 0] == rows).all()


def test_more_copies_than_proposed():
    vectors = np.repeat(noisy(4, 11, 3), 30, 0)
    neighbors = Dense(vectors).search(4)
    for i in range(120):
        start = i // 30 * 30
        first = [j for j in range(start, start + 4) if j != i][:3]
        assert neighbors.ids[i].tolist() == [i] + first
    assert len(np.unique(neighbors.scores.view(np.int32), axis=0)) <= 4
    assert abs(neighbors.scores - 1).max() < 1e-6 and neighbors.scores.max() <= 1


@pytest.mark.parametrize('dim', [1, 3, 8, 13, 64, 129])
def test_row_permutation(dim):
    vectors = noisy(40, dim, dim, 40)
    permutation = np.random.default_rng(dim).permutation(40)
    inverse = np.argsort(permutation)
    space, permuted = Dense(vectors), Dense(vectors[permutation])
    similarities = all_scores(space)
    np.testing.assert_array_equal(similarities, similarities.T)
    np.testing.assert_array_equal(similarities, permuted.scores(inverse[:, None], inverse[None]))
    np.testing.assert_array_equal(space.search(7).scores, permuted.search(7).scores[inverse])
    if dim > 3:
        distinct = noisy(40, dim, dim)
        found = Dense(distinct[permutation]).search(7)
        np.testing.assert_array_equal(Dense(distinct).search(7).ids, permutation[found.ids[inverse]])


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8])
def test_takes_any_number_and_changes_nothing(dtype):
    vectors = (np.abs(noisy(20, 6, 2, 10)) * 20 + 1).astype(dtype)
    before = vectors.copy()
    space = Dense(vectors)
    assert_exact(space.search(6), ref.cosine(vectors, vectors), space, 6)
    space.scores([0], [1])
    np.testing.assert_array_equal(vectors, before)
    assert space.vectors.dtype == np.float32 and not np.shares_memory(vectors, space.vectors)
    again = Dense(space.vectors)
    before = space.vectors.copy()
    again.search(5)
    np.testing.assert_array_equal(space.vectors, before)
    assert not np.shares_memory(again.vectors, space.vectors)


def test_normalized_vectors_keep_their_bits():
    space = Dense(noisy(20, 6, 2, 10))
    again = Dense(space.vectors, normalized=True)
    assert again.vectors is space.vectors
    with_nan = np.where(np.eye(20, 6), np.float32(np.nan), space.vectors)
    for invalid in (space.vectors * 2, space.vectors.astype(np.float64), with_nan):
        with pytest.raises(InputError, match='are not float32 of unit length'):
            Dense(invalid, normalized=True)


def test_norms_do_not_matter():
    vectors = noisy(12, 5, 7).astype(np.float64)
    expected = Dense(vectors).search(5)
    for scale in (1e-300, 1e-30, 1e30, 1e300):
        actual = Dense(vectors * scale).search(5)
        np.testing.assert_array_equal(actual.ids, expected.ids)
        np.testing.assert_allclose(actual.scores, expected.scores, atol=1e-6)


def test_to_unit_in_place():
    vectors = noisy(6, 3, 0)
    expected = Dense(vectors).vectors
    assert to_unit(vectors, vectors, 'x') is vectors
    np.testing.assert_array_equal(vectors, expected)


@pytest.mark.parametrize('invalid, message', [
    (np.zeros((0, 3)), r'pics of shape \(0, 3\)'), (np.zeros((3, 0)), r'pics of shape \(3, 0\)'),
    (np.ones(3), r'pics of shape \(3,\)'), (np.ones((2, 2, 2)), 'pics of shape'), ([['a']], 'pics of dtype'),
    (np.ones((2, 2), complex), 'pics of dtype'), (np.ones((2, 2), bool), 'dtype bool'),
    ([[1, 1], [0, 0], [1, 0], [0, 0]], 'pics: rows 1, 3 are all zero'),
    ([[1, 1], [1, np.nan]], 'pics: rows 1 are not finite'),
    ([[-np.inf, 1], [1, 1]], 'pics: rows 0 are not finite')])
def test_refuses(invalid, message):
    with pytest.raises(InputError, match=message): Dense(invalid, 'pics')


def test_names_rows_past_the_first_block(monkeypatch):
    monkeypatch.setattr(dense, 'BLOCK_FLOATS', 8)
    vectors = np.ones((30, 4))
    vectors[[17, 23]] = 0
    with pytest.raises(InputError, match='rows 17 are all zero'): Dense(vectors)


def test_scores():
    vectors, new_vectors = noisy(9, 4, 1, 3), noisy(5, 4, 2)
    space = Dense(vectors)
    ids = np.array([[0, 3, -1, 3], [8, -1, -7, 1]])
    for queries, cosines in (
        (None, ref.cosine(vectors, vectors)),
        (Dense(new_vectors), ref.cosine(new_vectors, vectors)),
    ):
        for rows in (np.array([[0], [4]]), np.array([4, 1, 0, 2])):
            actual = space.scores(rows, ids, queries)
            expected = np.where(ids >= 0, cosines[np.broadcast_to(rows, ids.shape), ids], -np.inf)
            assert actual.dtype == np.float32 and actual.shape == ids.shape
            np.testing.assert_allclose(actual, expected, atol=1e-6)
