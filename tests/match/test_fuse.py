"Candidates and their fusion against the whole n x n of every modality."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import FUSIONS, Dense, Keys, Pool, Tfidf, candidates, ensemble, fuse, fusion_grid
from tests.match.cases import asked, halves_of_one, noisy, titles
from tests.reference import match as ref

# weights that leave no rounding where the similarities have none
EXACT = [('mean', {'a': .5, 'b': .5}), ('mean', {'a': 3., 'b': 1.}), ('mean', {'a': 0., 'b': 2.}), ('mean', None),
         ('prob_or', {'a': 1., 'b': 2.}),
         ('square', {'a': 1., 'b': 1.}), ('above', {'a': .25, 'b': -.25}), ('above', None), ('joint', {'a': .5, 'b': .5}),
         ('prob_or', None), ('union', {'a': .25, 'b': .5}), ('union', {'a': -.5, 'b': 0.}), ('union', None), ('union', {'b': .25})]
DEFAULT = {'mean': 1., 'prob_or': 1., 'union': 0., 'above': 0.}
PLANES = [({'a': 1.}, .7), ({'b': 1.}, .8), ({'a': .6, 'b': .4}, .5), ({'a': 1., 'b': -.5}, .9)]  # a boundary of straight pieces

PLAIN = [o for o in FUSIONS if o != 'piecewise']  # those that need no more than weights


def every(spaces):
    n = len(next(iter(spaces.values())))
    return {k: o.scores(np.arange(n)[:, None], np.arange(n)).astype(np.float64) for k, o in spaces.items()}


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 24), seed=st.integers(0, 999), case=st.sampled_from(EXACT))
def test_without_rounding_fusion_is_exact(n, seed, case):
    how, weights = case
    x = {'a': halves_of_one(n, 4, seed), 'b': halves_of_one(n, 6, seed + 1)}
    nb = fuse(candidates({k: Dense(o) for k, o in x.items()}, n), how, weights).check(self_join=True)
    full = ref.fuse({k: o @ o.T / 4 for k, o in x.items()}, how, weights or dict.fromkeys('ab', DEFAULT[how]))
    ids, scores = ref.nearest(full, n)
    np.testing.assert_array_equal(nb.ids, ids)
    np.testing.assert_array_equal(nb.scores, scores)


@pytest.mark.parametrize('how, weights, args', [*[(*o, {}) for o in [('mean', {'image': .7, 'title': .3}), ('mean', {'image': 2., 'title': 1., 'tfidf': 4.}),
                                          ('prob_or', {'image': 4., 'tfidf': 1.}),
                                          ('prob_or', {'image': .5, 'title': 3., 'tfidf': 0.}),
                                          ('square', {'image': 2., 'title': 0., 'tfidf': 1.}), ('joint', {'image': 1., 'tfidf': 2.}), ('joint', {'tfidf': 1.}),
                                          ('power', {'image': .8, 'tfidf': .5}), ('above', {'image': .3, 'title': -.2, 'tfidf': .1}),
                                          ('union', {'image': .8, 'tfidf': .3, 'title': .1})]],
                                          ('power', {'image': .8, 'tfidf': .5, 'title': 1.}, {'power': 2.}),
                                          ('piecewise', {'image': 1., 'tfidf': 2.}, {'planes': [({'image': 1.}, .7), ({'image': .6, 'tfidf': -.2}, .1)]}),
                                          ('piecewise', {'image': 1., 'title': 0.}, {'planes': [[{'title': 1.}, .7], [{'image': .6}, .1]]})])
def test_fusion_of_three(how, weights, args):
    spaces = {'image': Dense(noisy(42, 8, 0, 30)), 'title': Dense(noisy(42, 5, 1, 10)), 'tfidf': Tfidf(titles(42, 2))}
    full = ref.fuse(every(spaces), how, weights, **args)
    for k in (42, None):
        nb = fuse(candidates(spaces, k), how, weights, **args).check(self_join=True)
        assert nb.ids.shape == (42, 42) and (np.sort(nb.ids, 1) == np.arange(42)).all()
        np.testing.assert_allclose(nb.scores, ref.nearest(full, 42)[1], atol=2e-6)
        np.testing.assert_allclose(nb.scores[:, 1:], np.take_along_axis(full, nb.ids[:, 1:], 1), atol=2e-6)
        tied = nb.scores[:, 1:-1] == nb.scores[:, 2:]
        assert (~tied | (nb.ids[:, 1:-1] < nb.ids[:, 2:])).all()


@pytest.mark.parametrize('n, k', [(1, 3), (2, 1), (2, 2), (40, 1), (40, 4), (40, 15)])
def test_candidates_are_the_union_scored_exactly(n, k):
    spaces = {'image': Dense(noisy(n, 6, 0, n)), 'tfidf': Tfidf(['kaos'] * n if n < 3 else titles(n, 3)), 'title': Dense(noisy(n, 7, 4))}
    cand, sims = asked(lambda k: candidates(spaces, k), k, n), every(spaces)
    found = [o.search(min(k, n)).ids for o in spaces.values()]
    for i in range(n):
        want = sorted({int(j) for o in found for j in o[i] if j >= 0} - {i})
        assert cand.ids[i].tolist() == ([i] + want + [-1] * n)[:cand.ids.shape[1]] and len(want) < cand.ids.shape[1]
        for name, s in cand.scores.items():
            assert s.dtype == np.float32 and s.shape == cand.ids.shape
            # also where another modality brought the candidate
            np.testing.assert_array_equal(s[i, :len(want) + 1], sims[name][i, [i] + want])
            assert (s[i, len(want) + 1:] == -np.inf).all()
    for how in PLAIN:
        nb = fuse(cand, how).check(self_join=True)
        np.testing.assert_array_equal(nb.ids < 0, cand.ids < 0)


def test_a_modality_alone_is_its_search():
    for space in (Dense(noisy(30, 6, 5, 30)), Tfidf(titles(30, 5))):
        want = space.search(7)
        for how in ('mean', 'prob_or', 'union', 'power'):
            got = fuse(candidates({'a': space}, 7), how)
            width = got.ids.shape[1]
            np.testing.assert_array_equal(got.ids, want.ids[:, :width])
            # rank 0 of an empty title: no score of its own
            np.testing.assert_allclose(got.scores, want.scores[:, :width], atol=1e-6)
    both = {'a': Dense(noisy(30, 6, 5)), 'b': Dense(noisy(30, 4, 6))}
    for w in ({'a': 1.}, {'a': 5.}, {'a': .2, 'b': 0.}):
        np.testing.assert_array_equal(fuse(candidates(both, 7), 'mean', w).ids[:, :7], both['a'].search(7).ids)


def test_the_order_of_modalities_does_not_matter():
    a, b = Dense(noisy(30, 6, 5, 30)), Tfidf(titles(30, 5))
    one, two = candidates({'a': a, 'b': b}, 6), candidates({'b': b, 'a': a}, 6)
    np.testing.assert_array_equal(one.ids, two.ids)
    for how in PLAIN:
        for x, y in zip(fuse(one, how), fuse(two, how)): np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize('m', [0, 3, 9])
def test_what_a_listing_lacks_does_not_count_in_joint(m):
    "Listings without a title, new or known, are judged by their pictures alone; a pool is one self-join."
    x, t = noisy(12, 5, 0, 6), titles(12, 1)
    words = Tfidf(t)
    whole = {'image': Dense(x), 'tfidf': words}
    spaces = whole if not m else {'image': Pool(Dense(x[:m]), Dense(x[m:])), 'tfidf': Pool(words.take(np.arange(m)), words.take(np.arange(m, 12)))}
    weights = {'image': 1., 'tfidf': 3.}
    full = ref.fuse(every(whole), 'joint', weights)
    nb = fuse(candidates(spaces, 12), 'joint', weights)
    np.testing.assert_allclose(nb.scores[:, 1:], np.take_along_axis(full[:len(nb.ids)], nb.ids, 1)[:, 1:], atol=2e-6)
    assert '' in t and (nb.ids.shape[1] == 12 if not m else nb.ids.shape[0] == m)
    empty = fuse(candidates(spaces, 12), 'joint', {'tfidf': 1.})
    assert np.isfinite(empty.scores).all()


@pytest.mark.parametrize('weights', [None, [1., 3., .5], [0., 2., 1.]])
def test_an_ensemble_is_the_mean_of_its_encoders(weights):
    parts = [Dense(noisy(20, d, d, 8)) for d in (3, 7, 5)]
    got = ensemble(parts, weights)
    want = np.average([o.scores(np.arange(20)[:, None], np.arange(20)) for o in parts], axis=0, weights=weights)
    np.testing.assert_allclose(got.scores(np.arange(20)[:, None], np.arange(20)), want, atol=1e-6)
    names = dict(zip('abc', parts))
    fused = fuse(candidates(names, 20), 'mean', dict(zip('abc', weights or [1.] * 3)))
    np.testing.assert_allclose(fused.scores[:, 1:], np.take_along_axis(want, fused.ids, 1)[:, 1:], atol=1e-6)


def test_ensemble_refuses():
    a, b = Dense(noisy(5, 3, 0)), Dense(noisy(4, 3, 0))
    for parts, weights, says in [([], None, 'give Dense'), ([a, Keys('abcde')], None, 'Keys'), ([a, b], None, r'\[5, 4\]'), ([a, a], [1.], '2 numbers'),
                                 ([a, a], [0, 0], 'above 0'), ([a, a], [1, -1], '0 or more'), ([a, a], [1, np.nan], '0 or more')]:
        with pytest.raises(InputError, match=says): ensemble(parts, weights)


def test_the_power_sum_stands_between_sum_and_union():
    cand = candidates({'a': Dense(noisy(30, 6, 0)), 'b': Dense(noisy(30, 5, 1))}, 30)
    t = {'a': .5, 'b': .7}
    high, cut = fuse(cand, 'power', t, power=200.), fuse(cand, 'union', t)
    # at a high power: let in is what is above one of the thresholds
    pairs = [{(i, j) for i, j, s in zip(*o.pairs()) if s >= at} for o, at in ((high, 1), (cut, 0))]
    assert pairs[0] == pairs[1]


@pytest.mark.parametrize('how, weights, args', [('power', {'a': .5, 'b': .6}, {}), ('above', {'a': 0., 'b': -.5}, {}), ('union', {'a': -.5, 'b': .9}, {}),
                                                ('piecewise', {'a': 1., 'b': 1.}, {'planes': [({'a': 1., 'b': 1.}, .2)]}), ('mean', {'a': 1., 'b': 1.}, {})])
def test_an_equal_key_is_as_good_as_equal_in_everything(how, weights, args):
    "Wherever the cut of a sum over thresholds lies: nothing is above it that isn't equal in all."
    x, y = halves_of_one(12, 6, 0), halves_of_one(12, 4, 1)
    x[1], y[1] = x[0], y[0]
    cand = candidates({'a': Dense(x), 'b': Dense(y), 'key': Keys(['p' if i in (2, 9) else None for i in range(12)])}, 12)
    s = {(i, int(j)): v for i, j, v in zip(*fuse(cand, how, weights, **args).pairs()) if i != j}
    plain = {(i, int(j)): v for i, j, v in zip(*fuse(cand, how, weights, join=(), **args).pairs()) if i != j}
    assert s[2, 9] == s[9, 2] == max(1, s[0, 1]) == max(s.values()) > plain[2, 9] and (s[0, 1] > 1) == (how != 'mean')
    assert all(s[o] == plain[o] for o in s if set(o) != {2, 9})


def test_refuses():
    a, b = Dense(noisy(5, 3, 0)), Dense(noisy(4, 3, 0))
    with pytest.raises(InputError, match="'a': 5, 'b': 4"): candidates({'a': a, 'b': b})
    with pytest.raises(InputError, match='one modality'): candidates({})
    for k, says in ((0, 'give'), (-2, 'give'), (6, 'there are 5 listings')):
        with pytest.raises(InputError, match=f'k={k}: {says}'): candidates({'a': a}, k)
    cand = candidates({'a': a}, 3)
    for how, weights, says in [('max', None, "how='max': choose one of mean, square, joint, prob_or, power, union, above, piecewise"),
                               ('mean', {'b': 1.}, r"weights name \['b'\].*\['a'\]"),
                               ('mean', {'a': -1.}, '0 or more'), ('prob_or', {'a': -1.}, '0 or more'),
                               ('mean', {'a': 0.}, 'none is above 0'),
                               ('union', {}, 'none'), ('mean', {}, 'none'),
                               ('power', {'a': 0.}, 'above 0'), ('power', {'a': -1.}, 'above 0'), ('above', {'a': np.nan}, 'finite'), ('piecewise', None, 'planes'),
                               ('union', {'a': np.nan}, 'finite'), ('mean', {'a': np.inf}, 'finite')]:
        with pytest.raises(InputError, match=says): fuse(cand, how, weights)
    # .84 is a threshold, 84 is none
    for how in ('power', 'union', 'above'):
        for bad in (84, 1.02, *([] if how == 'power' else [-1.02])):
            with pytest.raises(InputError, match=f"^{{'a': {bad}}}: outside the range of the scores, which is -1 to 1$"): fuse(cand, how, {'a': bad})
        for edge in (1.01, *([] if how == 'power' else [-1.01])): fuse(cand, how, {'a': edge})
    fuse(cand, 'mean', {'a': 84.}), fuse(cand, 'prob_or', {'a': 2.}), fuse(cand, 'piecewise', {'a': 84.}, planes=[({'a': 1.}, 1.)])
    for planes, says in [([], 'one at least'), ([({'a': 1.},)], 'give'), ([5], 'give'), ([({'b': 1.}, 1.)], r"planes name \['b'\]"), ([({'a': 0.}, 1.)], 'not 0'),
                         ([({'a': np.nan}, 1.)], 'finite'), ([({'a': 1.}, None)], 'finite')]:
        with pytest.raises(InputError, match=says): fuse(cand, 'piecewise', planes=planes)
    with pytest.raises(InputError, match="not for 'mean'"): fuse(cand, planes=[({'a': 1.}, 1.)])
    for power in (0, -1, np.inf, True, '6'):
        with pytest.raises(InputError, match='power='): fuse(cand, 'power', power=power)
    cand.ids[[0, 1]] = cand.ids[[1, 0]]
    with pytest.raises(InputError, match='column 0'): fuse(cand)


def test_fusion_grid():
    assert fusion_grid(['a']) == [('mean', {'a': 1.})]
    for names, means in ((['a', 'b'], 11), (['a', 'b', 'c'], 66)):
        grid = fusion_grid(names)
        assert len(grid) == means + 3**len(names) == len({(how, *sorted(w.items())) for how, w in grid})
        assert grid[0][0] == 'mean' and max(grid[0][1].values()) - min(grid[0][1].values()) < .11 and len(grid[0][1]) == len(names)
        assert all(abs(sum(w.values()) - 1) < 1e-9 for how, w in grid if how == 'mean') and ('mean', dict(zip(names, (0., 1., 0.)))) in grid
        cand = candidates({k: Dense(noisy(6, 3, i)) for i, k in enumerate(names)}, 4)
        for how, w in grid: fuse(cand, how, w).check(self_join=True)
