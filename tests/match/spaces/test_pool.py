"New listings in a pool with a catalogue: the same as the new rows of one self-join of everything."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Dense, Keys, Neighbors, Pool, Rule, Tfidf, candidates, decide, fuse
from tests.match.cases import asked, halves_of_one, noisy, titles
from tests.reference import match as ref


def brute(sims, m, k, within=True):
    "The k nearest of rows 0..m-1 in the full similarity matrix, itself first, ties to the smaller id."
    out = []
    for i in range(m):
        others = [j for j in range(len(sims)) if j != i and (within or j >= m) and sims[i, j] > -np.inf]
        out.append([i, *sorted(others, key=lambda j: (-sims[i, j], j))][:k])
    return out


@settings(max_examples=60, deadline=None)
@given(m=st.integers(1, 9), n=st.integers(1, 9), k=st.integers(1, 20), seed=st.integers(0, 999), within=st.booleans())
def test_dense_pool_is_one_self_join(m, n, k, seed, within):
    x = halves_of_one(m + n, 5, seed)
    pool = Pool(Dense(x[:m]), Dense(x[m:]), within)
    nb = asked(pool.search, k, m + n).check()
    sims = x @ x.T / 4
    assert [[j for j in o if j >= 0] for o in nb.ids] == brute(sims, m, k, within)
    np.testing.assert_array_equal(pool.scores(np.arange(m)[:, None], np.arange(m + n)), sims[:m].astype(np.float32))


@pytest.mark.parametrize('m, n', [(1, 30), (7, 24), (30, 1)])
def test_candidates_and_rule_see_the_pool(m, n):
    x, t = noisy(m + n, 6, 0, 12), titles(m + n, 1)
    known = {'image': Dense(x[m:]), 'tfidf': Tfidf(t[m:])}
    mine = {'image': Dense(x[:m]), 'tfidf': known['tfidf'].transform(t[:m])}
    pools = {k: Pool(mine[k], known[k]) for k in known}
    rule = Rule('mean', {'image': .6, 'tfidf': .4}, .35, k=m + n)
    # every pair in one table, in the catalogue's vocabulary
    whole = {'image': Dense(x), 'tfidf': mine['tfidf'].append(known['tfidf'])}
    want = fuse(candidates(whole, m + n), rule.how, rule.weights)
    got = rule.neighbors(pools).check()
    np.testing.assert_array_equal(got.ids, want.ids[:m])
    np.testing.assert_array_equal(got.scores, want.scores[:m])
    assert [o.tolist() for o in rule.apply(pools)] == [o.tolist() for o in decide(want, .35)][:m]


def test_a_pool_without_catalogue_is_a_self_join():
    x = noisy(9, 4, 0)
    for a, b in zip(Pool(Dense(x)).search(4), Dense(x).search(4)): np.testing.assert_array_equal(a, b)
    assert Pool(Dense(x)).pool == 9


def test_ids_past_the_pool_are_refused():
    pool = Pool(Dense(noisy(3, 4, 0)), Dense(noisy(2, 4, 1)))
    with pytest.raises(InputError, match='ids up to 5, but there are 5'): pool.scores([0], [5])
    with pytest.raises(InputError, match='past the last'): decide(pool.search(5), .5)
    with pytest.raises(InputError, match='catalogues of different length'):
        candidates({'a': pool, 'b': Pool(Dense(noisy(3, 4, 0)), Dense(noisy(4, 4, 1)))})


@settings(max_examples=60, deadline=None)
@given(keys=st.lists(st.sampled_from(['a', 'b', 'c', None]), min_size=2, max_size=12), m=st.integers(0, 3), limit=st.integers(1, 4))
def test_keys_equal_brute_force(keys, m, limit):
    m = min(m, len(keys) - 1)
    def same(i, j): return i == j or (keys[i] is not None and keys[i] == keys[j] and keys[m:].count(keys[i]) <= limit)
    n = len(keys)
    space = Keys(keys[m:], limit)
    nb = space.search(n - m).check(self_join=True)
    for i, row in enumerate(nb.ids): assert row[row >= 0].tolist() == [i] + [j for j in range(n - m) if j != i and same(i + m, j + m)]
    grid = space.scores(np.arange(n - m)[:, None], np.arange(n - m))
    assert (grid == [[same(i + m, j + m) for j in range(n - m)] for i in range(n - m)]).all()
    if m:
        q = space.transform(keys[:m])
        assert (space.scores(np.arange(m)[:, None], np.arange(n - m), queries=q) == [[same(i, j + m) for j in range(n - m)] for i in range(m)]).all()
        found = space.search(n - m, queries=q)
        assert [[j for j in o if j >= 0] for o in found.ids] == [[j for j in range(n - m) if same(i, j + m)] for i in range(m)]


@settings(max_examples=60, deadline=None)
@given(keys=st.lists(st.sampled_from(['a', 'b', None]), min_size=2, max_size=12), m=st.integers(1, 11), limit=st.integers(1, 5))
def test_a_pool_of_keys_is_one_self_join(keys, m, limit):
    m = min(m, len(keys) - 1)
    pool, whole = Pool(Keys(keys[:m], limit), Keys(keys[m:], limit)), Keys(keys, limit).search(len(keys))
    got = pool.search(len(keys))
    assert [[j for j in o if j >= 0] for o in got.ids] == [[j for j in o if j >= 0] for o in whole.ids[:m]]
    grid = np.arange(m)[:, None], np.arange(len(keys))
    np.testing.assert_array_equal(pool.scores(*grid), Keys(keys, limit).scores(*grid))


def test_an_equal_key_matches_by_itself():
    x = noisy(6, 5, 3)
    spaces = {'image': Dense(x), 'phash': Keys(['p', None, 'q', 'p', 'q', None])}
    cand = candidates(spaces)
    assert cand.join == ('phash',)
    rule = Rule('mean', {'image': 1.}, .999, join=['phash'])
    assert [o.tolist() for o in rule.apply(spaces)] == [[0, 3], [1], [2, 4], [3, 0], [4, 2], [5]]
    without = Rule('mean', {'image': 1.}, .999)
    assert [o.tolist() for o in without.apply(spaces)] == [[i] for i in range(6)]
    assert Rule.from_dict(rule.to_dict()) == rule
    # what isn't joined keeps its score
    sims = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float64)
    full = ref.nearest(sims @ sims.T, 6)
    plain = fuse(cand, 'mean', {'image': 1.}, join=())
    np.testing.assert_allclose(plain.scores, full[1], atol=1e-6)
    with pytest.raises(InputError, match='join'): fuse(cand, 'mean', {'image': 1.}, join=('sha',))


@pytest.mark.parametrize('make', [lambda x, t: Dense(x), lambda x, t: Tfidf(t), lambda x, t: Keys(t)])
def test_take_and_append(make):
    x, t = noisy(20, 5, 0), titles(20, 0)
    whole = make(x, t)
    rows = np.array([3, 1, 19, 7])
    part = whole.take(rows)
    grid = np.arange(20)[:, None], np.arange(20)
    if isinstance(whole, Keys): rows = np.sort(rows); part = whole.take(rows)
    np.testing.assert_array_equal(part.scores(np.arange(4)[:, None], np.arange(4)), whole.scores(*grid)[np.ix_(rows, rows)])
    mask = np.arange(20) < 12
    both = whole.take(mask).append(whole.take(~mask))
    np.testing.assert_array_equal(both.scores(*grid), whole.scores(*grid))
    for a, b in zip(both.search(6), whole.search(6)): np.testing.assert_array_equal(a, b)


def test_tfidf_state_round_trip():
    t = titles(30, 4) + ['ñandú 🎁 "quoted"']
    a = Tfidf(t)
    b = Tfidf.from_state(*a.state())
    for x, y in zip(a.search(9), b.search(9)): np.testing.assert_array_equal(x, y)
    new = ['kaos merah', 'something else', '']
    for x, y in zip(a.search(5, queries=a.transform(new)), b.search(5, queries=b.transform(new))): np.testing.assert_array_equal(x, y)


def test_matches_name_the_catalogue():
    m = decide(Neighbors(np.array([[0, 3], [1, -1]]), np.array([[1, .9], [1, -np.inf]], np.float32)), .5, pool=4)
    assert m.to_frame(['n0', 'n1', 'c0', 'c1']).matches.tolist() == ['n0 c1', 'n1']
    with pytest.raises(InputError): m.to_frame(['n0', 'n1', 'c0'])
