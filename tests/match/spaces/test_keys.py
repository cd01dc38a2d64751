"Keys against loops over all pairs: equal keys, missing ones, placeholders, and how they join in a rule."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Dense, Keys, Pool, Rule, candidates, fuse
from fastmatch.match.spaces.keys import title_keys
from tests.match.cases import noisy
from tests.match.spaces.promises import all_scores, listed
from tests.reference import match as ref


@settings(max_examples=60, deadline=None)
@given(keys=st.lists(st.sampled_from(['a', 'b', 'c', None]), min_size=2, max_size=12), m=st.integers(0, 3),
       limit=st.integers(1, 4))
def test_keys_equal_brute_force(keys, m, limit):
    m = min(m, len(keys) - 1)
    known = len(keys) - m
    def same(i, j):
        equal = keys[i] is not None and keys[i] == keys[j]
        return i == j or (equal and keys[m:].count(keys[i]) <= limit)
    space = Keys(keys[m:], limit)
    for i, row in enumerate(listed(space.search(known).check(self_join=True))):
        assert row == [i] + [j for j in range(known) if j != i and same(i + m, j + m)]
    assert (all_scores(space) == [[same(i + m, j + m) for j in range(known)] for i in range(known)]).all()
    if m:
        queries = space.transform(keys[:m])
        want = [[same(i, j + m) for j in range(known)] for i in range(m)]
        assert (space.scores(np.arange(m)[:, None], np.arange(known), queries=queries) == want).all()
        found = space.search(known, queries=queries)
        assert listed(found) == [[j for j in range(known) if same(i, j + m)] for i in range(m)]


@settings(max_examples=60, deadline=None)
@given(keys=st.lists(st.sampled_from(['a', 'b', None]), min_size=2, max_size=12), m=st.integers(1, 11),
       limit=st.integers(1, 5))
def test_a_pool_of_keys_is_one_self_join(keys, m, limit):
    m = min(m, len(keys) - 1)
    n = len(keys)
    pool, whole = Pool(Keys(keys[:m], limit), Keys(keys[m:], limit)), Keys(keys, limit)
    assert listed(pool.search(n)) == listed(whole.search(n))[:m]
    pairs = np.arange(m)[:, None], np.arange(n)
    np.testing.assert_array_equal(pool.scores(*pairs), whole.scores(*pairs))


def test_codes():
    space = Keys(['b', 'a', None, 'b', 'c', 'c', 'c'], max_shared=2)
    own, theirs = space.codes()
    assert own.tolist() == theirs.tolist() == [0, 1, -1, 0, -1, -1, -1]
    own, theirs = space.codes(space.transform(['c', 'x', None, 'a']))
    assert own.tolist() == [0, 1, -1, 0, -1, -1, -1]
    assert theirs[[0, 2]].tolist() == [-1, -1] and theirs[3] == own[1] and theirs[1] not in own
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
    x = noisy(6, 5, 3)
    spaces = {'image': Dense(x), 'phash': Keys(['p', None, 'q', 'p', 'q', None])}
    cand = candidates(spaces)
    assert cand.join == ('phash',)
    rule = Rule('mean', {'image': 1.}, .999, join=['phash'])
    assert [row.tolist() for row in rule.apply(spaces)] == [[0, 3], [1], [2, 4], [3, 0], [4, 2], [5]]
    without = Rule('mean', {'image': 1.}, .999)
    assert [row.tolist() for row in without.apply(spaces)] == [[i] for i in range(6)]
    assert Rule.from_dict(rule.to_dict()) == rule
    # what isn't joined keeps its score
    unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float64)
    plain = fuse(cand, 'mean', {'image': 1.}, join=())
    np.testing.assert_allclose(plain.scores, ref.nearest(unit @ unit.T, 6)[1], atol=1e-6)
    with pytest.raises(InputError, match='join'): fuse(cand, 'mean', {'image': 1.}, join=('sha',))
