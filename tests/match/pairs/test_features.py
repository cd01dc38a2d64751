"Features of candidate pairs against a loop over pairs."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from fastmatch.core import InputError
from fastmatch.match import Candidates, Dense, Keys, Neighbors, Pool, Tfidf, candidates, fuse
from fastmatch.match.pairs.features import FEATURES, pair_features, radii_of, tied_ranks, with_scores
from fastmatch.match.pairs.graph import pagerank
from fastmatch.match.pairs.titles import edit_similarity
from tests.match.cases import halves_of_one, noisy, titles
from tests.reference import pair as ref


def case(n, seed, k=6):
    "Copies, ties, listings without candidates, titles that are empty."
    t = [o.upper() if i % 2 else o for i, o in enumerate(titles(n, seed))]
    spaces = {'image': Dense(halves_of_one(n, 4, seed)), 'tfidf': Tfidf(t),
              'phash': Keys([None if i % 3 else f'h{i % 2}' for i in range(n)])}
    cand = candidates(spaces, min(k, n))
    if n > 8:
        # a listing that finds nobody
        cand.ids[5, 1:] = -1
        for s in cand.scores.values(): s[5, 1:] = -np.inf
    return cand, t


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 16), seed=st.integers(0, 999), top=st.integers(1, 7))
def test_every_feature_against_a_loop(n, seed, top):
    cand, t = case(n, seed)
    radii = {'image': [-.5, .5, 1.], 'tfidf': [.1, .25, .9]}
    rows, cols, x, names = pair_features(cand, t, radii=radii, top=top)
    near = [[int(j) for j in row[1:] if j >= 0] for row in cand.ids]
    scores = {k: [{int(j): float(v) for j, v in zip(row, s)} for row, s in zip(cand.ids, o)] for k, o in cand.scores.items()}
    want = ref.features(near, scores, ['phash'], t, radii, top)
    assert x.dtype == np.float32 and x.shape == (len(want), len(names)) and np.isfinite(x).all()
    assert list(zip(rows.tolist(), cand.ids[rows, cols].tolist())) == list(want)
    if want: assert set(names) == set(next(iter(want.values())))
    for got, f in zip(x, want.values()): np.testing.assert_allclose(got, [f[o] for o in names], atol=1e-5, err_msg=str(names))


def test_row_order_matters_to_none():
    n, rng = 30, np.random.default_rng(0)
    x, t = noisy(n, 6, 0, 15), titles(n, 0)
    order = rng.permutation(n)
    every = Tfidf(t).vectorizer
    def of(o): return pair_features(candidates({'image': Dense(x[o]), 'tfidf': Tfidf([t[i] for i in o], vectorizer=every)}, n), [t[i] for i in o])
    a, b = of(np.arange(n)), of(order)
    pairs = lambda o, f: {(int(o[i]), int(o[j])): v for i, j, v in zip(f[0], np.where(f[1] > f[0], f[1], f[1] - 1), f[2])}
    # with all as candidates the columns are the others in rising order
    one, two = pairs(np.arange(n), a), pairs(order, b)
    assert a[3] == b[3] and set(one) == set(two) and len(one) == n * (n - 1)
    for key, v in one.items(): np.testing.assert_allclose(v, two[key], atol=1e-5)


def test_pagerank_of_what_is_known():
    # a star: all lead to the first, which leads to all
    n = 5
    w = np.zeros((n, n))
    w[1:, 0] = w[0, 1:] = 1
    p = pagerank(sparse.csr_matrix(w))
    assert p.sum() == pytest.approx(1) and p[0] == pytest.approx(.88 / 1.85) and np.allclose(p[1:], (1 - p[0]) / 4)
    # everybody alike, and nobody linked
    assert np.allclose(pagerank(sparse.csr_matrix(np.ones((4, 4)) - np.eye(4))), .25) and np.allclose(pagerank(sparse.csr_matrix((4, 4))), .25)
    rng = np.random.default_rng(0)
    w = rng.random((9, 9)) * (rng.random((9, 9)) < .3)
    np.testing.assert_allclose(pagerank(sparse.csr_matrix(w)), ref.pagerank(w.tolist()), atol=1e-8)


def test_ranks_of_equals():
    s = np.array([[9, .5, .7, .5, .7, .1, 3]], np.float32)
    real = np.array([[False, True, True, True, True, True, False]])
    assert tied_ranks(s, real)[0, 1:6].tolist() == [3, 1, 3, 1, 5]


def test_edit_similarity():
    t = ['kitten', 'sitting', '', 'kitten', 'läuft', 'laeuft']
    got = edit_similarity(t, [0, 0, 2, 2, 4], [1, 3, 2, 0, 5])
    np.testing.assert_allclose(got, [1 - 3 / 7, 1, 1, 0, 1 - 2 / 6], atol=1e-6)


def test_radii():
    cand, _ = case(16, 3)
    got = radii_of(cand)
    assert set(got) == {'image', 'tfidf'}
    best = [max(r) for r in ([float(v) for v in row[1:] if v > -np.inf] for row in cand.scores['image']) if r]
    np.testing.assert_allclose(got['image'], np.quantile(best, [.25, .5, .75]), atol=1e-6)
    a, b = pair_features(cand)[2], pair_features(cand, radii=got)[2]
    np.testing.assert_array_equal(a, b)
    lone = Candidates(np.arange(3)[:, None], {'a': np.ones((3, 1), np.float32)})
    assert radii_of(lone) == {'a': [0., 0., 0.]} and pair_features(lone)[2].shape[0] == 0


def test_use():
    cand, t = case(12, 1)
    assert pair_features(cand, use=['score'])[3] == ['image', 'tfidf', 'phash'] and pair_features(cand, t, ['length'])[3] == ['length_i', 'length_j']
    whole = pair_features(cand, t)
    for o in FEATURES:
        _, _, x, names = pair_features(cand, t, [o])
        np.testing.assert_array_equal(x, whole[2][:, [whole[3].index(n) for n in names]])
    assert not {'edit', 'length_i'} & set(pair_features(cand)[3])


def test_refuses():
    cand, t = case(12, 1)
    for args, says in [((cand, None, ['title']), 'title: need titles'), ((cand, t[:-1]), 'titles: 11 for 12'), ((cand, t, ['colour']), "use=\\['colour'\\]: choose from score")]:
        with pytest.raises(InputError, match=says): pair_features(*args)
    pool = candidates({'image': Pool(Dense(noisy(4, 3, 0)), Dense(noisy(6, 3, 1)))}, 5)
    with pytest.raises(InputError, match='self-join'): pair_features(pool)
    bad = Candidates(cand.ids[::-1], cand.scores)
    with pytest.raises(InputError, match='listing itself'): pair_features(bad)


def test_with_scores():
    cand, _ = case(14, 2)
    nb = fuse(cand).top(3)
    more = with_scores(cand, fused=nb)
    assert list(more.scores) == ['image', 'tfidf', 'phash', 'fused'] and list(cand.scores) == ['image', 'tfidf', 'phash'] and more.join == cand.join
    given = {(i, int(j)): float(s) for i in range(14) for j, s in zip(nb.ids[i], nb.scores[i]) if j >= 0}
    low = min(given.values())
    for i in range(14):
        for j, s in zip(cand.ids[i], more.scores['fused'][i]): assert s == (given.get((i, int(j)), low) if j >= 0 else -np.inf)
    assert 'fused rank back' in pair_features(more)[3]
    with pytest.raises(InputError, match='image: the candidates have scores of that name'): with_scores(cand, image=nb)
    with pytest.raises(InputError, match='2 listings'): with_scores(cand, b=Neighbors(nb.ids[:2], nb.scores[:2]))
