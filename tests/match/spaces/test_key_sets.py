"Keys of listings that have several: one in common is enough."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Embeddings, Keys, Pool
from tests.match.spaces.promises import assert_exact, assert_same

some_keys = st.lists(st.sampled_from('abcdef'), max_size=3)
keys_of_listings = st.lists(st.one_of(st.none(), st.sampled_from('abcdef'), some_keys), min_size=2,
                            max_size=15)


def as_set(cell): return set() if cell is None else {cell} if isinstance(cell, str) else set(cell)


def naive(queries, listings, self_join):
    "1 where two listings have a key in common, -inf elsewhere."
    return np.array([[1. if as_set(query) & as_set(listing) or (self_join and row == column) else -np.inf
                      for column, listing in enumerate(listings)] for row, query in enumerate(queries)])


@settings(max_examples=100, deadline=None)
@given(keys_of_listings, keys_of_listings)
def test_search_and_scores_by_any_key_in_common(listings, others):
    for space_keys, query_keys in ((listings, None), (listings, others)):
        space = Keys(space_keys)
        queries = None if query_keys is None else Keys(query_keys)
        similarity = naive(query_keys or space_keys, space_keys, queries is None)
        rows = np.arange(len(similarity))[:, None]
        scores = space.scores(rows, np.arange(len(space))[None], queries)
        np.testing.assert_array_equal(scores, np.where(similarity > 0, 1, 0))
        found = space.search(len(space), queries)
        for row, ids in enumerate(found.ids):
            assert set(ids[ids >= 0]) == set(np.flatnonzero(similarity[row] > 0))


def test_parts_pools_and_one_key_each():
    keys = ['a', ('a', 'b'), None, ['b', 'c', 'b'], 'c', 'd']
    space = Keys(keys)
    assert space.has_several and space.keys[3] == ('b', 'c')
    assert not Keys([['a'], ('a', 'a'), [], None]).has_several
    whole = space.search(4)
    pool = Pool(space.take(np.arange(3)), space.take(np.arange(3, 6)))
    assert_same(pool.search(4), (whole.ids[:3], whole.scores[:3]))
    single = Keys(['a', 'b', 'a', None])
    assert_exact(single.search(3), np.where(naive(single.keys, single.keys, True) > 0, 1, -np.inf), single, 3)
    with pytest.raises(InputError, match='several keys'): space.codes()


def test_a_key_on_very_many_listings_joins_nothing():
    keys = [('none', str(row // 2)) for row in range(12)]
    assert (Keys(keys, max_shared=12).search(12).ids >= 0).all()
    found = Keys(keys, max_shared=11).search(12)
    assert (found.ids[:, :2] >= 0).all() and (found.ids[:, 2:] < 0).all()
    assert Keys(keys, max_shared=11).overused_keys() == ['none']
    # counted over new and known listings together
    halves = Keys(keys[:6], max_shared=11), Keys(keys[6:], max_shared=11)
    assert (Pool(*halves).search(12).ids >= 0).sum() == 12


def test_hashes_of_several_pictures_in_embeddings():
    emb = Embeddings({'image': np.eye(4)}, range(4),
                     phash=['F' * 16, ['f' * 16, '0xe' + 'a' * 15], 'ea' + 'a' * 14 + '|' + 'b' * 16, None])
    assert emb.phash.tolist() == ['f' * 16, ('f' * 16, 'e' + 'a' * 15), ('e' + 'a' * 15, 'b' * 16), None]
    found = emb.spaces()['phash'].search(4)
    assert [sorted(ids[ids >= 0]) for ids in found.ids] == [[0, 1], [0, 1, 2], [1, 2], [3]]
    assert emb.take([2, 1]).phash.tolist() == emb.phash[[2, 1]].tolist()
