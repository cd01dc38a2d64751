"Dense and Tfidf: exact neighbours whatever the ties, against the whole n x n product."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Dense, Index, Keys, Neighbors, Pool, Tfidf, Units, candidates, expand
from fastmatch.match.spaces import dense as index
from tests.match.cases import asked, halves_of_one, noisy, titles
from tests.reference import match as ref


def near(nb: Neighbors, sim, space, k, queries=None, atol=2e-6):
    "The promises of `search`: k best up to rounding, scores those of `scores`, ties to the smaller id, no row twice, self first."
    own = queries is None
    nb.check(own)
    n, m = sim.shape
    ids, want = ref.nearest(sim, k, own)
    assert nb.ids.shape == (n, min(k, m))
    np.testing.assert_array_equal(nb.ids < 0, ids < 0)
    np.testing.assert_allclose(nb.scores, want, atol=atol)
    real = np.where(nb.ids >= 0, np.take_along_axis(sim, np.maximum(nb.ids, 0), 1), -np.inf)
    np.testing.assert_allclose(nb.scores, real, atol=atol)
    first = int(own)
    np.testing.assert_array_equal(nb.scores[:, first:], space.scores(np.arange(n)[:, None], nb.ids[:, first:], queries))
    tied = nb.scores[:, first:-1] == nb.scores[:, first + 1:]
    assert (~tied | (nb.ids[:, first:-1] < nb.ids[:, first + 1:]) | (nb.ids[:, first + 1:] < 0)).all()
    # exact, given the scores the space itself calculates: nothing of a higher score, or of the same and a smaller id, is left out
    whole = space.scores(np.arange(n)[:, None], np.arange(m)[None], queries).astype(np.float64)
    exact = ref.nearest(np.where(sim > -np.inf, whole, -np.inf), k, own)
    np.testing.assert_array_equal(nb.ids, exact[0])
    np.testing.assert_array_equal(nb.scores, exact[1].astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 40), d=st.integers(4, 6), k=st.integers(1, 45), seed=st.integers(0, 999))
def test_dense_without_rounding_is_exact(n, d, k, seed):
    x = halves_of_one(n, d, seed)
    nb = asked(Dense(x).search, k, n).check(self_join=True)
    ids, scores = ref.nearest(x @ x.T / 4, k)
    np.testing.assert_array_equal(nb.ids, ids)
    np.testing.assert_array_equal(nb.scores, scores)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 25), m=st.integers(1, 25), d=st.integers(4, 6), k=st.integers(1, 30), seed=st.integers(0, 999))
def test_dense_queries_without_rounding_are_exact(n, m, d, k, seed):
    x, q = halves_of_one(n, d, seed), halves_of_one(m, d, seed + 1)
    nb = asked(lambda k: Dense(x).search(k, Dense(q)), k, n).check()
    ids, scores = ref.nearest(q @ x.T / 4, k, self_join=False)
    np.testing.assert_array_equal(nb.ids, ids)
    np.testing.assert_array_equal(nb.scores, scores)


SIZES = [(1, 3, 4, 0), (2, 1, 2, 0), (2, 7, 1, 1), (60, 13, 5, 60), (60, 33, 12, 20), (45, 2, 60, 10), (90, 8, 3, 200)]


@pytest.mark.parametrize('n, d, k, copies', SIZES)
def test_dense_search(n, d, k, copies):
    x, q = noisy(n, d, n + d, copies), noisy(7, d, 5)
    q[0] = x[0]
    space, new = Dense(x), Dense(q)
    near(asked(space.search, k, n), ref.cosine(x, x), space, k)
    near(asked(lambda k: space.search(k, new), k, n), ref.cosine(q, x), space, k, new)
    # a space handed in as its own queries is no self-join
    near(asked(lambda k: space.search(k, space), k, n), ref.cosine(x, x), space, k, space)


def test_self_is_the_best_score_though_a_near_duplicate_rounds_above_it():
    x = noisy(200, 13, 0)
    x[100:] = x[:100] + 1e-4 * noisy(100, 13, 1)
    space, i = Dense(x), np.arange(200)
    nb = space.search(3).check(self_join=True)
    assert (nb.scores[:, 1] > space.scores(i, i)).any() and (nb.ids[:, 0] == i).all()


def test_dense_more_copies_than_fetched():
    x = np.repeat(noisy(4, 11, 3), 30, 0)
    nb = Dense(x).search(4)
    for i in range(120):
        first = [o for o in range(i // 30 * 30, i // 30 * 30 + 4) if o != i][:3]
        assert nb.ids[i].tolist() == [i] + first
    assert len(np.unique(nb.scores.view(np.int32), axis=0)) <= 4 and abs(nb.scores - 1).max() < 1e-6 and nb.scores.max() <= 1


def test_small_blocks_change_nothing(monkeypatch):
    x, t = noisy(50, 131, 1, 30), titles(50, 1)
    want = [(Dense(x).search(6), Dense(x).scores(np.arange(50)[:, None], np.arange(50))), (Tfidf(t).search(6),)]
    monkeypatch.setattr(index, 'FLOATS', 20)
    got = [(Dense(x).search(6), Dense(x).scores(np.arange(50)[:, None], np.arange(50))), (Tfidf(t).search(6),)]
    for a, b in zip(want, got):
        for o, p in zip(a, b): np.testing.assert_array_equal(o, p)


@pytest.mark.parametrize('d', [1, 3, 8, 13, 64, 129])
def test_row_permutation(d):
    x = noisy(40, d, d, 40)
    order = np.random.default_rng(d).permutation(40)
    back = np.argsort(order)
    a, b = Dense(x), Dense(x[order])
    every = a.scores(np.arange(40)[:, None], np.arange(40))
    np.testing.assert_array_equal(every, every.T)
    np.testing.assert_array_equal(every, b.scores(back[:, None], back[None]))
    np.testing.assert_array_equal(a.search(7).scores, b.search(7).scores[back])
    if d > 3:
        distinct = noisy(40, d, d)
        np.testing.assert_array_equal(Dense(distinct).search(7).ids, order[Dense(distinct[order]).search(7).ids[back]])


def test_row_permutation_of_titles():
    t, order = titles(45, 4), np.random.default_rng(4).permutation(45)
    back = np.argsort(order)
    a, b = Tfidf(t), Tfidf([t[i] for i in order], vectorizer=Tfidf(t).vectorizer)
    np.testing.assert_array_equal(a.search(9).scores, b.search(9).scores[back])


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8])
def test_dense_takes_any_number_and_changes_nothing(dtype):
    x = (np.abs(noisy(20, 6, 2, 10)) * 20 + 1).astype(dtype)
    before = x.copy()
    space = Dense(x)
    near(space.search(6), ref.cosine(x, x), space, 6)
    space.scores([0], [1])
    np.testing.assert_array_equal(x, before)
    assert space.vectors.dtype == np.float32 and not np.shares_memory(x, space.vectors)
    unit = Dense(space.vectors)
    before = space.vectors.copy()
    unit.search(5)
    np.testing.assert_array_equal(space.vectors, before)
    assert not np.shares_memory(unit.vectors, space.vectors)


def test_dense_norms_do_not_matter():
    x = noisy(12, 5, 7).astype(np.float64)
    want = Dense(x).search(5)
    for scale in (1e-300, 1e-30, 1e30, 1e300):
        got = Dense(x * scale).search(5)
        np.testing.assert_array_equal(got.ids, want.ids)
        np.testing.assert_allclose(got.scores, want.scores, atol=1e-6)


@pytest.mark.parametrize('bad, says', [
    (np.zeros((0, 3)), r'pics of shape \(0, 3\)'), (np.zeros((3, 0)), r'pics of shape \(3, 0\)'), (np.ones(3), r'pics of shape \(3,\)'),
    (np.ones((2, 2, 2)), 'pics of shape'), ([['a']], 'pics of dtype'), (np.ones((2, 2), complex), 'pics of dtype'),
    (np.ones((2, 2), bool), 'dtype bool'),
    ([[1, 1], [0, 0], [1, 0], [0, 0]], 'pics: rows 1, 3 are all zero'), ([[1, 1], [1, np.nan]], 'pics: rows 1 are not finite'),
    ([[-np.inf, 1], [1, 1]], 'pics: rows 0 are not finite')])
def test_dense_refuses(bad, says):
    with pytest.raises(InputError, match=says): Dense(bad, 'pics')


def test_dense_names_rows_past_the_first_block(monkeypatch):
    monkeypatch.setattr(index, 'FLOATS', 8)
    x = np.ones((30, 4))
    x[[17, 23]] = 0
    with pytest.raises(InputError, match='rows 17 are all zero'): Dense(x)


def test_scores():
    x, q = noisy(9, 4, 1, 3), noisy(5, 4, 2)
    space, new = Dense(x), Dense(q)
    for queries, want in ((None, ref.cosine(x, x)), (new, ref.cosine(q, x))):
        ids = np.array([[0, 3, -1, 3], [8, -1, -7, 1]])
        for r in (np.array([[0], [4]]), np.array([4, 1, 0, 2])):
            got = space.scores(r, ids, queries)
            full = np.where(ids >= 0, want[np.broadcast_to(r, ids.shape), ids], -np.inf)
            assert got.dtype == np.float32 and got.shape == ids.shape
            np.testing.assert_allclose(got, full, atol=1e-6)
    assert space.scores(2, 3).shape == () and space.scores([], []).shape == (0,)
    bad = ([9], [0], 'rows up to 9'), ([0], [9], 'ids up to 9'), ([-1], [0], 'rows'), ([0.], [0], 'rows of dtype'), \
        ([0], [1.], 'ids of dtype')
    for r, i, says in bad:
        with pytest.raises(InputError, match=says): space.scores(r, i)
    with pytest.raises(InputError, match='rows up to 5'): space.scores([5], [0], new)


def test_refuse_other_queries():
    a, t = Dense(noisy(5, 4, 1), 'pics'), Tfidf(['kaos merah', 'susu'])
    with pytest.raises(InputError, match='pics: queries have 3 dimensions, the listings 4'): a.search(2, Dense(noisy(5, 3, 1)))
    with pytest.raises(InputError, match='pics: queries are Tfidf'): a.search(2, t)
    with pytest.raises(InputError, match='queries are Dense'): t.search(2, a)
    with pytest.raises(InputError, match='another vocabulary'): t.search(2, Tfidf(['kaos']))
    for space in (a, t):
        for k in (0, 2.5, True, '3'):
            with pytest.raises(InputError, match='k='): space.search(k)


@pytest.mark.parametrize('make', [lambda n: Dense(noisy(n, 4, 1)), lambda n: Tfidf(titles(n, 1)), lambda n: Keys(titles(n, 1)), lambda n: Units(titles(n, 1)),
                                  lambda n: Index(noisy(n, 4, 1)), lambda n: expand(Dense(noisy(n, 4, 1))), lambda n: Pool(Dense(noisy(2, 4, 0)), Dense(noisy(n - 2, 4, 1)))])
def test_as_many_as_there_are_and_no_more(make):
    "In every space: without a `k` 50, or all of fewer; a `k` above that is an error."
    for n in (4, 49, 50, 51, 60):
        space = make(n)
        assert space.search().ids.shape[1] == space.search(None).ids.shape[1] == min(50, n) and space.search(n).ids.shape[1] == n
        assert candidates({'a': space}).k == 50 and candidates({'a': space}, n).k == n
        for f in (space.search, lambda k, space=space: candidates({'a': space}, k)):
            with pytest.raises(InputError, match=f'^k={n + 1}: there are {n} listings$'): f(n + 1)


def product(t, q=None, **kwargs):
    "Dense product of sklearn's own vectors in float64; pairs that share nothing are no neighbours."
    from sklearn.feature_extraction.text import TfidfVectorizer
    v = TfidfVectorizer(**{'analyzer': 'char_wb', 'ngram_range': (3, 5), **kwargs}).fit(t)
    res = v.transform(t if q is None else q).toarray() @ v.transform(t).toarray().T
    sim = np.where(res > 1e-12, res, -np.inf)
    if q is None: np.fill_diagonal(sim, res.diagonal())
    return sim


@pytest.mark.parametrize('n, k, seed', [(2, 2, 0), (2, 1, 1), (60, 5, 2), (60, 3, 3), (40, 60, 4), (33, 40, 5)])
def test_tfidf_search(n, k, seed):
    t = titles(n, seed)
    space = Tfidf(t)
    near(asked(space.search, k, n), product(t), space, k)
    new = ['susu sabun', '', 'zzzqqq', t[-1], '  ']
    q = space.transform(new)
    near(asked(lambda k: space.search(k, q), k, n), product(t, new), space, k, q)


@pytest.mark.parametrize('ours, theirs', [({'ngram': (2, 3), 'analyzer': 'char'}, {'ngram_range': (2, 3), 'analyzer': 'char'}),
                                          ({'ngram': (1, 1), 'analyzer': 'word'}, {'ngram_range': (1, 1), 'analyzer': 'word'}),
                                          ({'min_df': 3}, {'min_df': 3})])
def test_tfidf_options(ours, theirs):
    t = titles(40, 8)
    space = Tfidf(t, **ours)
    near(space.search(8), product(t, **theirs), space, 8)


def test_tfidf_scores():
    t, new = titles(20, 6), ['kaos biru', '', 'susu']
    space = Tfidf(t)
    i = np.arange(20)
    want = product(t)
    got = space.scores(i[:, None], np.concatenate([i, [-1]])[None])
    # sharing nothing is 0 where a pair is asked for, and nobody's neighbour in a search
    np.testing.assert_allclose(got[:, :-1], np.maximum(want, 0), atol=1e-6)
    assert (got[:, -1] == -np.inf).all() and got.max() <= 1
    np.testing.assert_allclose(space.scores(np.arange(3)[:, None], i, space.transform(new)), np.maximum(product(t, new), 0), atol=1e-6)


def test_tfidf_empty_titles():
    t = ['', 'kaos merah', '', 'kaos merah', 'susu']
    nb = Tfidf(t).search(5).check(self_join=True)
    assert nb.ids.tolist() == [[0, -1, -1, -1, -1], [1, 3, -1, -1, -1], [2, -1, -1, -1, -1], [3, 1, -1, -1, -1], [4, -1, -1, -1, -1]]
    assert nb.scores[0, 0] == nb.scores[2, 0] == 0
    preview = Tfidf(['kaos'])
    nothing = preview.transform(['', ''])
    assert (nothing.search(2).ids == [[0, -1], [1, -1]]).all() and (preview.search(1, nothing).ids == -1).all()
    assert (nothing.scores([0, 1], [1, 0]) == 0).all()


@pytest.mark.parametrize('bad, says', [(['a', None, 'b'], 'rows 1 are missing'), (['a', 'b', float('nan')], 'rows 2 are missing'),
                                       ([3, 'x'], 'rows 0'), ('kaos', 'one string'), ([], 'empty'), (['', ''], 'empty vocabulary')])
def test_tfidf_refuses(bad, says):
    with pytest.raises(InputError, match=says): Tfidf(bad)
    if says != 'empty vocabulary':
        with pytest.raises(InputError, match=says): Tfidf(['kaos merah']).transform(bad)
