"New listings in a pool with a catalogue: the same as the new rows of one self-join of everything."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Dense, Index, Keys, Neighbors, Pool, decide
from tests.match.cases import asked, halves_of_one, noisy
from tests.match.spaces.promises import assert_same, listed


def brute(similarity, m, k, within=True):
    "The k nearest of rows 0 to m-1 in the full similarity matrix, itself first, ties to the smaller id."
    rows = []
    for i in range(m):
        searched = [j for j in range(len(similarity)) if within or j >= m]
        others = [j for j in searched if j != i and similarity[i, j] > -np.inf]
        rows.append([i, *sorted(others, key=lambda j, row=similarity[i]: (-row[j], j))][:k])
    return rows


@settings(max_examples=60, deadline=None)
@given(m=st.integers(1, 9), n=st.integers(1, 9), k=st.integers(1, 20), seed=st.integers(0, 999),
       within=st.booleans())
def test_dense_pool_is_one_self_join(m, n, k, seed, within):
    x = halves_of_one(m + n, 5, seed)
    pool = Pool(Dense(x[:m]), Dense(x[m:]), within)
    neighbors = asked(pool.search, k, m + n).check()
    similarity = x @ x.T / 4
    assert listed(neighbors) == brute(similarity, m, k, within)
    got = pool.scores(np.arange(m)[:, None], np.arange(m + n))
    np.testing.assert_array_equal(got, similarity[:m].astype(np.float32))


def test_a_pool_without_catalogue_is_a_self_join():
    x = noisy(9, 4, 0)
    assert_same(Pool(Dense(x)).search(4), Dense(x).search(4))
    assert Pool(Dense(x)).pool == 9 and Pool(Dense(x)).removed.tolist() == [False] * 9


def test_whole():
    new, known = Dense(noisy(3, 4, 0)), Dense(noisy(2, 4, 1))
    both = np.concatenate([new.vectors, known.vectors])
    np.testing.assert_array_equal(Pool(new, known).whole('x').vectors, both)
    assert Pool(new).whole('x') is new
    says = "^within=False: step 'blend' uses the neighbors of neighbors"
    with pytest.raises(InputError, match=says): Pool(new, known, within=False).whole("step 'blend'")


def test_removed_from_the_catalogue():
    known = Index(noisy(5, 4, 1))
    known.remove([1, 4])
    pool = Pool(Dense(noisy(3, 4, 0)), known)
    assert pool.removed.tolist() == [False] * 4 + [True, False, False, True]
    assert not np.isin(pool.search(8).ids, [4, 7]).any()


def test_ids_past_the_pool_are_refused():
    pool = Pool(Dense(noisy(3, 4, 0)), Dense(noisy(2, 4, 1)))
    with pytest.raises(InputError, match='ids up to 5, but there are 5'): pool.scores([0], [5])
    with pytest.raises(InputError, match='past the last'): decide(pool.search(5), .5)


def test_placeholders_are_counted_over_new_and_known():
    "A key on one new and two known listings is on three, as in one self-join."
    pool = Pool(Keys(['a', 'b'], 2), Keys(['a', 'a', 'b'], 2))
    assert listed(pool.search(5)) == [[0], [1, 4]]


def test_matches_name_the_catalogue():
    neighbors = Neighbors(np.array([[0, 3], [1, -1]]), np.array([[1, .9], [1, -np.inf]], np.float32))
    matches = decide(neighbors, .5, pool=4)
    assert matches.to_frame(['n0', 'n1', 'c0', 'c1']).matches.tolist() == ['n0 c1', 'n1']
    with pytest.raises(InputError): matches.to_frame(['n0', 'n1', 'c0'])
