"Keys against loops over all pairs: equal keys, missing ones, placeholders, and how they join in a rule."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Dense, Keys, Pool, Rule, candidates, fuse
from fastmatch.match.spaces.keys import title_keys
from tests.match.cases import noisy
from tests.match.spaces.promises import all_scores, listed_ids
from tests.reference import match as ref


@settings(max_examples=60, deadline=None)
@given(
    keys=st.lists(st.sampled_from(['a', 'b', 'c', None]), min_size=2, max_size=12),
    new_count=st.integers(0, 3),
    limit=st.integers(1, 4),
)
def test_keys_equal_brute_force(keys, new_count, limit):
    new_count = min(new_count, len(keys) - 1)
    known_count = len(keys) - new_count
    def same(i, j):
        equal = keys[i] is not None and keys[i] == keys[j]
        return i == j or (equal and keys[new_count:].count(keys[i]) <= limit)
    space = Keys(keys[new_count:], limit)
    for i, row in enumerate(listed_ids(space.search(known_count).check(self_join=True))):
        assert row == [i] + [j for j in range(known_count) if j != i and same(i + new_count, j + new_count)]
    expected = [[same(i + new_count, j + new_count) for j in range(known_count)] for i in range(known_count)]
    assert (all_scores(space) == expected).all()
    if new_count:
        queries = space.transform(keys[:new_count])
        expected = [[same(i, j + new_count) for j in range(known_count)] for i in range(new_count)]
        actual = space.scores(np.arange(new_count)[:, None], np.arange(known_count), queries=queries)
        assert (actual == expected).all()
        found = space.search(known_count, queries=queries)
        assert listed_ids(found) == [
            [j for j in range(known_count) if same(i, j + new_count)] for i in range(new_count)
        ]


@settings(max_examples=60, deadline=None)
@given(
    keys=st.lists(st.sampled_from(['a', 'b', None]), min_size=2, max_size=12),
    new_count=st.integers(1, 11),
    limit=st.integers(1, 5),
)
def test_a_pool_of_keys_is_one_self_join(keys, new_count, limit):
    new_count = min(new_count, len(keys) - 1)
    listing_count = len(keys)
    pool, whole_space = Pool(Keys(keys[:new_count], limit), Keys(keys[new_count:], limit)), Keys(keys, limit)
    assert listed_ids(pool.search(listing_count)) == listed_ids(whole_space.search(listing_count))[:new_count]
    pairs = np.arange(new_count)[:, None], np.arange(listing_count)
    np.testing.assert_array_equal(pool.scores(*pairs), whole_space.scores(*pairs))


def test_codes():
    space = Keys(['b', 'a', None, 'b', 'c', 'c', 'c'], max_shared=2)
    own_codes, query_codes = space.codes()
    assert own_codes.tolist() == query_codes.tolist() == [0, 1, -1, 0, -1, -1, -1]
    own_codes, query_codes = space.codes(space.transform(['c', 'x', None, 'a']))
    assert own_codes.tolist() == [0, 1, -1, 0, -1, -1, -1]
    assert query_codes[[0, 2]].tolist() == [-1, -1]
    assert query_codes[3] == own_codes[1] and query_codes[1] not in own_codes
    for codes in Keys([None, None]).codes(): assert codes.tolist() == [-1, -1]


def test_overused_keys():
    space = Keys(['b', 'a', None, 'b', 'c', 'c', 'c', None, None], max_shared=2)
    assert space.overused_keys() == ['c'] and Keys([None] * 3, 1).overused_keys() == []
    without = space.without(['c'])
    assert without.keys.tolist() == ['b', 'a', None, 'b', None, None, None, None, None]
    assert without.max_shared == 2
    assert space.without([]) is space


def test_title_keys():
    assert title_keys(['Kaos  Merah', 'kaos merah ', '', '  ', 'STRASSE', 'straße']) == \
        ['kaos merah', 'kaos merah', None, None, 'strasse', 'strasse']


def test_an_equal_key_matches_by_itself():
    vectors = noisy(6, 5, 3)
    spaces = {'image': Dense(vectors), 'phash': Keys(['p', None, 'q', 'p', 'q', None])}
    scored_candidates = candidates(spaces)
    assert scored_candidates.join == ('phash',)
    rule = Rule('mean', {'image': 1.}, .999, join=['phash'])
    matches = [matched_ids.tolist() for matched_ids in rule.apply(spaces)]
    assert matches == [[0, 3], [1], [2, 4], [3, 0], [4, 2], [5]]
    without = Rule('mean', {'image': 1.}, .999)
    assert [matched_ids.tolist() for matched_ids in without.apply(spaces)] == [[i] for i in range(6)]
    assert Rule.from_dict(rule.to_dict()) == rule
    # what isn't joined keeps its score
    unit_vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float64)
    plain = fuse(scored_candidates, 'mean', {'image': 1.}, join=())
    np.testing.assert_allclose(plain.scores, ref.nearest(unit_vectors @ unit_vectors.T, 6)[1], atol=1e-6)
    with pytest.raises(InputError, match='join'):
        fuse(scored_candidates, 'mean', {'image': 1.}, join=('sha',))
