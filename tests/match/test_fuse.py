"""Fused candidates: order, defaults, exact keys, ensembles, and what is refused. The formulas are tested in
test_fusions.py."""
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import Dense, Keys, Tfidf, candidates, ensemble, fuse, fusion_grid
from fastmatch.match.fuse import FUSIONS, check_weights, equal_weights, sorted_neighbors
from tests.match.cases import grid, halves_of_one, noisy, titles


def without_self(neighbors):
    "The score of each pair of two listings."
    return {(i, int(j)): score for i, j, score in zip(*neighbors.pairs()) if i != j}


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
    for weights in ({'a': 1.}, {'a': 5.}, {'a': .2, 'b': 0.}):
        got = fuse(candidates(both, 7), 'mean', weights)
        np.testing.assert_array_equal(got.ids[:, :7], both['a'].search(7).ids)


def test_the_order_of_modalities_does_not_matter():
    image, title = Dense(noisy(30, 6, 5, 30)), Tfidf(titles(30, 5))
    one = candidates({'a': image, 'b': title}, 6)
    two = candidates({'b': title, 'a': image}, 6)
    for how in FUSIONS:
        if how == 'piecewise': continue
        for x, y in zip(fuse(one, how), fuse(two, how)): np.testing.assert_array_equal(x, y)


def test_equal_weights_leave_exact_keys_out():
    spaces = {'a': Dense(noisy(5, 3, 0)), 'b': Tfidf(titles(5, 0)), 'key': Keys('abcab')}
    cand = candidates(spaces)
    for how in FUSIONS:
        weight = 0. if how in ('union', 'above') else 1.
        assert equal_weights(cand, how) == {'a': weight, 'b': weight}


@pytest.mark.parametrize('how, weights, args', [
    ('power', {'a': .5, 'b': .6}, {}), ('above', {'a': 0., 'b': -.5}, {}), ('union', {'a': -.5, 'b': .9}, {}),
    ('piecewise', {'a': 1., 'b': 1.}, {'planes': [({'a': 1., 'b': 1.}, .2)]}),
    ('mean', {'a': 1., 'b': 1.}, {})])
def test_an_equal_key_is_as_good_as_equal_in_everything(how, weights, args):
    "Wherever the threshold of a sum over thresholds lies: nothing is above it that isn't equal in all."
    x, y = halves_of_one(12, 6, 0), halves_of_one(12, 4, 1)
    x[1] = x[0]
    y[1] = y[0]
    keys = Keys(['p' if i in (2, 9) else None for i in range(12)])
    cand = candidates({'a': Dense(x), 'b': Dense(y), 'key': keys}, 12)
    scores = without_self(fuse(cand, how, weights, **args))
    plain = without_self(fuse(cand, how, weights, join=(), **args))
    assert scores[2, 9] == scores[9, 2] == max(1, scores[0, 1]) == max(scores.values()) > plain[2, 9]
    assert (scores[0, 1] > 1) == (how != 'mean')
    assert all(scores[pair] == plain[pair] for pair in scores if set(pair) != {2, 9})


@pytest.mark.parametrize('weights', [None, [1., 3., .5], [0., 2., 1.]])
def test_an_ensemble_is_the_mean_of_its_encoders(weights):
    parts = [Dense(noisy(20, d, d, 8)) for d in (3, 7, 5)]
    want = np.average([part.scores(*grid(20)) for part in parts], axis=0, weights=weights)
    np.testing.assert_allclose(ensemble(parts, weights).scores(*grid(20)), want, atol=1e-6)
    cand = candidates(dict(zip('abc', parts)), 20)
    fused = fuse(cand, 'mean', dict(zip('abc', weights or [1.] * 3)))
    np.testing.assert_allclose(fused.scores[:, 1:], np.take_along_axis(want, fused.ids, 1)[:, 1:], atol=1e-6)


def test_ensemble_refuses():
    five, four = Dense(noisy(5, 3, 0)), Dense(noisy(4, 3, 0))
    for parts, weights, says in [
            ([], None, 'give Dense'), ([five, Keys('abcde')], None, 'Keys'),
            ([five, four], None, r'\[5, 4\]'),
            ([five, five], [1.], '2 numbers'), ([five, five], [0, 0], 'above 0'),
            ([five, five], [1, -1], '0 or more'),
            ([five, five], [1, np.nan], '0 or more')]:
        with pytest.raises(InputError, match=says): ensemble(parts, weights)


@pytest.mark.parametrize('how, weights, says', [
    ('max', None, "how='max': choose one of mean, square, joint, prob_or, power, union, above, piecewise"),
    ('mean', {'b': 1.}, r"weights name \['b'\].*\['a'\]"),
    ('mean', {'a': -1.}, '0 or more'), ('prob_or', {'a': -1.}, '0 or more'),
    ('mean', {'a': 0.}, 'none is above 0'),
    ('union', {}, 'none'), ('mean', {}, 'none'), ('power', {'a': 0.}, 'above 0'),
    ('power', {'a': -1.}, 'above 0'),
    ('above', {'a': np.nan}, 'finite'), ('piecewise', None, 'planes'), ('union', {'a': np.nan}, 'finite'),
    ('mean', {'a': np.inf}, 'finite')])
def test_refuses_weights(how, weights, says):
    cand = candidates({'a': Dense(noisy(5, 3, 0))}, 3)
    with pytest.raises(InputError, match=says): fuse(cand, how, weights)


def test_refuses_thresholds_out_of_range():
    ".84 is a threshold, 84 is none."
    cand = candidates({'a': Dense(noisy(5, 3, 0))}, 3)
    for how in ('power', 'union', 'above'):
        below = [] if how == 'power' else [-1.02]
        for bad in (84, 1.02, *below):
            says = f"^{{'a': {bad}}}: outside the range of the scores, which is -1 to 1$"
            with pytest.raises(InputError, match=says): fuse(cand, how, {'a': bad})
        fuse(cand, how, {'a': 1.01})
        if below: fuse(cand, how, {'a': -1.01})
    fuse(cand, 'mean', {'a': 84.})
    fuse(cand, 'prob_or', {'a': 2.})
    fuse(cand, 'piecewise', {'a': 84.}, planes=[({'a': 1.}, 1.)])


def test_refuses_planes_power_and_order():
    cand = candidates({'a': Dense(noisy(5, 3, 0))}, 3)
    for planes, says in [
            ([], 'one at least'), ([({'a': 1.},)], 'give'), ([5], 'give'),
            ([({'b': 1.}, 1.)], r"planes name \['b'\]"),
            ([({'a': 0.}, 1.)], 'not 0'), ([({'a': np.nan}, 1.)], 'finite'), ([({'a': 1.}, None)], 'finite')]:
        with pytest.raises(InputError, match=says): fuse(cand, 'piecewise', planes=planes)
    with pytest.raises(InputError, match="not for 'mean'"): fuse(cand, planes=[({'a': 1.}, 1.)])
    for power in (0, -1, np.inf, True, '6'):
        with pytest.raises(InputError, match='power='): fuse(cand, 'power', power=power)
    with pytest.raises(InputError, match='join'): fuse(cand, join=('sha',))
    cand.ids[[0, 1]] = cand.ids[[1, 0]]
    with pytest.raises(InputError, match='column 0'): fuse(cand)


def test_check_weights_passes_what_each_fusion_takes():
    for how in FUSIONS:
        planes = [({'a': 1.}, .5)] if how == 'piecewise' else None
        check_weights(how, {'a': .5}, planes=planes)
        if how in ('union', 'above', 'piecewise'): check_weights(how, {'a': -.5}, planes=planes)


def test_sorted_neighbors_breaks_ties_by_id():
    ids = np.array([[0, 1, 2, -1], [1, 0, 2, 3], [2, -1, -1, -1]])
    scores = np.array([[.1, .5, .5, 9], [.2, .1, .7, .1], [.3, 9, 9, 9]])
    got = sorted_neighbors(ids, scores).check()
    assert got.ids.tolist() == [[0, 1, 2, -1], [1, 2, 0, 3], [2, -1, -1, -1]]
    np.testing.assert_array_equal(got.scores[:, 0], np.float32([.5, .7, .3]))


def test_fusion_grid():
    assert fusion_grid(['a']) == [('mean', {'a': 1.})]
    for names, means in ((['a', 'b'], 11), (['a', 'b', 'c'], 66)):
        grid_ = fusion_grid(names)
        assert len(grid_) == means + 3**len(names) == len({(how, *sorted(w.items())) for how, w in grid_})
        how, weights = grid_[0]
        assert how == 'mean' and len(weights) == len(names)
        assert max(weights.values()) - min(weights.values()) < .11
        assert all(abs(sum(weights.values()) - 1) < 1e-9 for how, weights in grid_ if how == 'mean')
        assert ('mean', dict(zip(names, (0., 1., 0.)))) in grid_
        cand = candidates({name: Dense(noisy(6, 3, i)) for i, name in enumerate(names)}, 4)
        for how, weights in grid_: fuse(cand, how, weights).check(self_join=True)
