"Dense: exact neighbors whatever the ties, against the whole n x n product."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Dense
from fastmatch.match.spaces import dense
from fastmatch.match.spaces.dense import to_unit
from tests.match.cases import asked, halves_of_one, noisy
from tests.match.spaces.promises import all_scores, assert_exact
from tests.reference import match as ref


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 40), d=st.integers(4, 6), k=st.integers(1, 45), seed=st.integers(0, 999))
def test_without_rounding_is_exact(n, d, k, seed):
    x = halves_of_one(n, d, seed)
    neighbors = asked(Dense(x).search, k, n).check(self_join=True)
    ids, scores = ref.nearest(x @ x.T / 4, k)
    np.testing.assert_array_equal(neighbors.ids, ids)
    np.testing.assert_array_equal(neighbors.scores, scores)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 25), m=st.integers(1, 25), d=st.integers(4, 6), k=st.integers(1, 30),
       seed=st.integers(0, 999))
def test_queries_without_rounding_are_exact(n, m, d, k, seed):
    x, new = halves_of_one(n, d, seed), halves_of_one(m, d, seed + 1)
    neighbors = asked(lambda k: Dense(x).search(k, Dense(new)), k, n).check()
    ids, scores = ref.nearest(new @ x.T / 4, k, self_join=False)
    np.testing.assert_array_equal(neighbors.ids, ids)
    np.testing.assert_array_equal(neighbors.scores, scores)


SIZES = [(1, 3, 4, 0), (2, 1, 2, 0), (2, 7, 1, 1), (60, 13, 5, 60), (60, 33, 12, 20), (45, 2, 60, 10),
         (90, 8, 3, 200)]


@pytest.mark.parametrize('n, d, k, copies', SIZES)
def test_search(n, d, k, copies):
    x, new = noisy(n, d, n + d, copies), noisy(7, d, 5)
    new[0] = x[0]
    space, queries = Dense(x), Dense(new)
    assert_exact(asked(space.search, k, n), ref.cosine(x, x), space, k)
    assert_exact(asked(lambda k: space.search(k, queries), k, n), ref.cosine(new, x), space, k, queries)
    # a space handed in as its own queries is no self-join
    assert_exact(asked(lambda k: space.search(k, space), k, n), ref.cosine(x, x), space, k, space)


def test_self_is_the_best_score_though_a_near_duplicate_rounds_above_it():
    x = noisy(200, 13, 0)
    x[100:] = x[:100] + 1e-4 * noisy(100, 13, 1)
    space, rows = Dense(x), np.arange(200)
    neighbors = space.search(3).check(self_join=True)
    assert (neighbors.scores[:, 1] > space.scores(rows, rows)).any() and (neighbors.ids[:, 0] == rows).all()


def test_more_copies_than_proposed():
    x = np.repeat(noisy(4, 11, 3), 30, 0)
    neighbors = Dense(x).search(4)
    for i in range(120):
        start = i // 30 * 30
        first = [j for j in range(start, start + 4) if j != i][:3]
        assert neighbors.ids[i].tolist() == [i] + first
    assert len(np.unique(neighbors.scores.view(np.int32), axis=0)) <= 4
    assert abs(neighbors.scores - 1).max() < 1e-6 and neighbors.scores.max() <= 1


@pytest.mark.parametrize('d', [1, 3, 8, 13, 64, 129])
def test_row_permutation(d):
    x = noisy(40, d, d, 40)
    order = np.random.default_rng(d).permutation(40)
    back = np.argsort(order)
    space, permuted = Dense(x), Dense(x[order])
    similarities = all_scores(space)
    np.testing.assert_array_equal(similarities, similarities.T)
    np.testing.assert_array_equal(similarities, permuted.scores(back[:, None], back[None]))
    np.testing.assert_array_equal(space.search(7).scores, permuted.search(7).scores[back])
    if d > 3:
        distinct = noisy(40, d, d)
        found = Dense(distinct[order]).search(7)
        np.testing.assert_array_equal(Dense(distinct).search(7).ids, order[found.ids[back]])


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8])
def test_takes_any_number_and_changes_nothing(dtype):
    x = (np.abs(noisy(20, 6, 2, 10)) * 20 + 1).astype(dtype)
    before = x.copy()
    space = Dense(x)
    assert_exact(space.search(6), ref.cosine(x, x), space, 6)
    space.scores([0], [1])
    np.testing.assert_array_equal(x, before)
    assert space.vectors.dtype == np.float32 and not np.shares_memory(x, space.vectors)
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
    for bad in (space.vectors * 2, space.vectors.astype(np.float64), with_nan):
        with pytest.raises(InputError, match='are not float32 of unit length'): Dense(bad, normalized=True)


def test_norms_do_not_matter():
    x = noisy(12, 5, 7).astype(np.float64)
    want = Dense(x).search(5)
    for scale in (1e-300, 1e-30, 1e30, 1e300):
        got = Dense(x * scale).search(5)
        np.testing.assert_array_equal(got.ids, want.ids)
        np.testing.assert_allclose(got.scores, want.scores, atol=1e-6)


def test_to_unit_in_place():
    x = noisy(6, 3, 0)
    want = Dense(x).vectors
    assert to_unit(x, x, 'x') is x
    np.testing.assert_array_equal(x, want)


@pytest.mark.parametrize('bad, says', [
    (np.zeros((0, 3)), r'pics of shape \(0, 3\)'), (np.zeros((3, 0)), r'pics of shape \(3, 0\)'),
    (np.ones(3), r'pics of shape \(3,\)'), (np.ones((2, 2, 2)), 'pics of shape'), ([['a']], 'pics of dtype'),
    (np.ones((2, 2), complex), 'pics of dtype'), (np.ones((2, 2), bool), 'dtype bool'),
    ([[1, 1], [0, 0], [1, 0], [0, 0]], 'pics: rows 1, 3 are all zero'),
    ([[1, 1], [1, np.nan]], 'pics: rows 1 are not finite'),
    ([[-np.inf, 1], [1, 1]], 'pics: rows 0 are not finite')])
def test_refuses(bad, says):
    with pytest.raises(InputError, match=says): Dense(bad, 'pics')


def test_names_rows_past_the_first_block(monkeypatch):
    monkeypatch.setattr(dense, 'BLOCK_FLOATS', 8)
    x = np.ones((30, 4))
    x[[17, 23]] = 0
    with pytest.raises(InputError, match='rows 17 are all zero'): Dense(x)


def test_scores():
    x, new = noisy(9, 4, 1, 3), noisy(5, 4, 2)
    space = Dense(x)
    ids = np.array([[0, 3, -1, 3], [8, -1, -7, 1]])
    for queries, cosines in ((None, ref.cosine(x, x)), (Dense(new), ref.cosine(new, x))):
        for rows in (np.array([[0], [4]]), np.array([4, 1, 0, 2])):
            got = space.scores(rows, ids, queries)
            want = np.where(ids >= 0, cosines[np.broadcast_to(rows, ids.shape), ids], -np.inf)
            assert got.dtype == np.float32 and got.shape == ids.shape
            np.testing.assert_allclose(got, want, atol=1e-6)
