"New listings in a pool with a catalogue: the same as the new rows of one self-join of everything."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Dense, Index, Keys, Neighbors, Pool, decide
from tests.match.cases import checked_search, halves_of_one, noisy
from tests.match.spaces.promises import assert_same, listed_ids


def brute_force(similarity, new_count, k, within=True):
    "The k nearest of the first rows in the full similarity matrix, itself first, ties to the smaller id."
    rows = []
    for i in range(new_count):
        searched = [listing for listing in range(len(similarity)) if within or listing >= new_count]
        others = [listing for listing in searched if listing != i and similarity[i, listing] > -np.inf]
        rows.append([i, *sorted(others, key=lambda listing, row=similarity[i]: (-row[listing], listing))][:k])
    return rows


@settings(max_examples=60, deadline=None)
@given(
    new_count=st.integers(1, 9),
    known_count=st.integers(1, 9),
    k=st.integers(1, 20),
    seed=st.integers(0, 999),
    within=st.booleans(),
)
def test_dense_pool_is_one_self_join(new_count, known_count, k, seed, within):
    vectors = halves_of_one(new_count + known_count, 5, seed)
    pool = Pool(Dense(vectors[:new_count]), Dense(vectors[new_count:]), within)
    neighbors = checked_search(pool.search, k, new_count + known_count).check()
    similarity = vectors @ vectors.T / 4
    assert listed_ids(neighbors) == brute_force(similarity, new_count, k, within)
    actual = pool.scores(np.arange(new_count)[:, None], np.arange(new_count + known_count))
    np.testing.assert_array_equal(actual, similarity[:new_count].astype(np.float32))


def test_a_pool_without_catalogue_is_a_self_join():
    vectors = noisy(9, 4, 0)
    assert_same(Pool(Dense(vectors)).search(4), Dense(vectors).search(4))
    assert Pool(Dense(vectors)).pool == 9 and Pool(Dense(vectors)).removed.tolist() == [False] * 9


def test_whole():
    new_listings, catalogue = Dense(noisy(3, 4, 0)), Dense(noisy(2, 4, 1))
    all_vectors = np.concatenate([new_listings.vectors, catalogue.vectors])
    np.testing.assert_array_equal(Pool(new_listings, catalogue).whole('x').vectors, all_vectors)
    assert Pool(new_listings).whole('x') is new_listings
    message = "^within=False: step 'blend' uses the neighbors of neighbors"
    with pytest.raises(InputError, match=message):
        Pool(new_listings, catalogue, within=False).whole("step 'blend'")


def test_removed_from_the_catalogue():
    catalogue = Index(noisy(5, 4, 1))
    catalogue.remove([1, 4])
    pool = Pool(Dense(noisy(3, 4, 0)), catalogue)
    assert pool.removed.tolist() == [False] * 4 + [True, False, False, True]
    assert not np.isin(pool.search(8).ids, [4, 7]).any()


def test_ids_past_the_pool_are_refused():
    pool = Pool(Dense(noisy(3, 4, 0)), Dense(noisy(2, 4, 1)))
    with pytest.raises(InputError, match='ids up to 5, but there are 5'): pool.scores([0], [5])
    with pytest.raises(InputError, match='past the last'): decide(pool.search(5), .5)


def test_placeholders_are_counted_over_new_and_known():
    "A key on one new and two known listings is on three, as in one self-join."
    pool = Pool(Keys(['a', 'b'], 2), Keys(['a', 'a', 'b'], 2))
    assert listed_ids(pool.search(5)) == [[0], [1, 4]]


def test_matches_name_the_catalogue():
    neighbors = Neighbors(np.array([[0, 3], [1, -1]]), np.array([[1, .9], [1, -np.inf]], np.float32))
    matches = decide(neighbors, .5, pool=4)
    assert matches.to_frame(['n0', 'n1', 'c0', 'c1']).matches.tolist() == ['n0 c1', 'n1']
    with pytest.raises(InputError): matches.to_frame(['n0', 'n1', 'c0'])
