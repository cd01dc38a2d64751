"""Fused candidates: order, defaults, exact keys, ensembles, and what is refused. The formulas are tested in
test_fusions.py."""
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import Dense, Keys, Tfidf, candidates, ensemble, fuse, fusion_grid
from fastmatch.match.fuse import FUSIONS, check_weights, equal_weights, sorted_neighbors
from tests.match.cases import halves_of_one, noisy, pair_grid, titles


def without_self(neighbors):
    "The score of each pair of two listings."
    return {(i, int(j)): score for i, j, score in zip(*neighbors.pairs()) if i != j}


def test_a_modality_alone_is_its_search():
    for space in (Dense(noisy(30, 6, 5, 30)), Tfidf(titles(30, 5))):
        expected = space.search(7)
        for fusion in ('mean', 'prob_or', 'union', 'power'):
            actual = fuse(candidates({'a': space}, 7), fusion)
            width = actual.ids.shape[1]
            np.testing.assert_array_equal(actual.ids, expected.ids[:, :width])
            # rank 0 of an empty title: no score of its own
            np.testing.assert_allclose(actual.scores, expected.scores[:, :width], atol=1e-6)
    two_spaces = {'a': Dense(noisy(30, 6, 5)), 'b': Dense(noisy(30, 4, 6))}
    for weights in ({'a': 1.}, {'a': 5.}, {'a': .2, 'b': 0.}):
        actual = fuse(candidates(two_spaces, 7), 'mean', weights)
        np.testing.assert_array_equal(actual.ids[:, :7], two_spaces['a'].search(7).ids)


def test_the_order_of_modalities_does_not_matter():
    image, title = Dense(noisy(30, 6, 5, 30)), Tfidf(titles(30, 5))
    image_first = candidates({'a': image, 'b': title}, 6)
    title_first = candidates({'b': title, 'a': image}, 6)
    for fusion in FUSIONS:
        if fusion == 'piecewise': continue
        for array, other in zip(fuse(image_first, fusion), fuse(title_first, fusion)):
            np.testing.assert_array_equal(array, other)


def test_equal_weights_leave_exact_keys_out():
    spaces = {'a': Dense(noisy(5, 3, 0)), 'b': Tfidf(titles(5, 0)), 'key': Keys('abcab')}
    scored_candidates = candidates(spaces)
    for fusion in FUSIONS:
        weight = 0. if fusion in ('union', 'above') else 1.
        assert equal_weights(scored_candidates, fusion) == {'a': weight, 'b': weight}


@pytest.mark.parametrize('fusion, weights, options', [
    ('power', {'a': .5, 'b': .6}, {}), ('above', {'a': 0., 'b': -.5}, {}), ('union', {'a': -.5, 'b': .9}, {}),
    ('piecewise', {'a': 1., 'b': 1.}, {'planes': [({'a': 1., 'b': 1.}, .2)]}),
    ('mean', {'a': 1., 'b': 1.}, {})])
def test_an_equal_key_is_as_good_as_equal_in_everything(fusion, weights, options):
    "Wherever the threshold of a sum over thresholds lies: nothing is above it that isn't equal in all."
    vectors, other_vectors = halves_of_one(12, 6, 0), halves_of_one(12, 4, 1)
    vectors[1] = vectors[0]
    other_vectors[1] = other_vectors[0]
    keys = Keys(['p' if i in (2, 9) else None for i in range(12)])
    scored_candidates = candidates({'a': Dense(vectors), 'b': Dense(other_vectors), 'key': keys}, 12)
    scores = without_self(fuse(scored_candidates, fusion, weights, **options))
    plain = without_self(fuse(scored_candidates, fusion, weights, join=(), **options))
    assert scores[2, 9] == scores[9, 2] == max(1, scores[0, 1]) == max(scores.values()) > plain[2, 9]
    assert (scores[0, 1] > 1) == (fusion != 'mean')
    assert all(scores[pair] == plain[pair] for pair in scores if set(pair) != {2, 9})


@pytest.mark.parametrize('weights', [None, [1., 3., .5], [0., 2., 1.]])
def test_an_ensemble_is_the_mean_of_its_encoders(weights):
    encoders = [Dense(noisy(20, dim, dim, 8)) for dim in (3, 7, 5)]
    expected = np.average([encoder.scores(*pair_grid(20)) for encoder in encoders], axis=0, weights=weights)
    np.testing.assert_allclose(ensemble(encoders, weights).scores(*pair_grid(20)), expected, atol=1e-6)
    scored_candidates = candidates(dict(zip('abc', encoders)), 20)
    fused = fuse(scored_candidates, 'mean', dict(zip('abc', weights or [1.] * 3)))
    np.testing.assert_allclose(
        fused.scores[:, 1:], np.take_along_axis(expected, fused.ids, 1)[:, 1:], atol=1e-6
    )


def test_ensemble_refuses():
    five, four = Dense(noisy(5, 3, 0)), Dense(noisy(4, 3, 0))
    for encoders, weights, message in [
            ([], None, 'give Dense'), ([five, Keys('abcde')], None, 'Keys'),
            ([five, four], None, r'\[5, 4\]'),
            ([five, five], [1.], '2 numbers'), ([five, five], [0, 0], 'above 0'),
            ([five, five], [1, -1], '0 or more'),
            ([five, five], [1, np.nan], '0 or more')]:
        with pytest.raises(InputError, match=message): ensemble(encoders, weights)


@pytest.mark.parametrize('fusion, weights, message', [
    ('max', None, "how='max': choose one of mean, square, joint, prob_or, power, union, above, piecewise"),
    ('mean', {'b': 1.}, r"weights name \['b'\].*\['a'\]"),
    ('mean', {'a': -1.}, '0 or more'), ('prob_or', {'a': -1.}, '0 or more'),
    ('mean', {'a': 0.}, 'none is above 0'),
    ('union', {}, 'none'), ('mean', {}, 'none'), ('power', {'a': 0.}, 'above 0'),
    ('power', {'a': -1.}, 'above 0'),
    ('above', {'a': np.nan}, 'finite'), ('piecewise', None, 'planes'), ('union', {'a': np.nan}, 'finite'),
    ('mean', {'a': np.inf}, 'finite')])
def test_refuses_weights(fusion, weights, message):
    scored_candidates = candidates({'a': Dense(noisy(5, 3, 0))}, 3)
    with pytest.raises(InputError, match=message): fuse(scored_candidates, fusion, weights)


def test_refuses_thresholds_out_of_range():
    ".84 is a threshold, 84 is none."
    scored_candidates = candidates({'a': Dense(noisy(5, 3, 0))}, 3)
    for fusion in ('power', 'union', 'above'):
        below = [] if fusion == 'power' else [-1.02]
        for invalid in (84, 1.02, *below):
            message = f"^{{'a': {invalid}}}: outside the range of the scores, which is -1 to 1$"
            with pytest.raises(InputError, match=message): fuse(scored_candidates, fusion, {'a': invalid})
        fuse(scored_candidates, fusion, {'a': 1.01})
        if below: fuse(scored_candidates, fusion, {'a': -1.01})
    fuse(scored_candidates, 'mean', {'a': 84.})
    fuse(scored_candidates, 'prob_or', {'a': 2.})
    fuse(scored_candidates, 'piecewise', {'a': 84.}, planes=[({'a': 1.}, 1.)])


def test_refuses_planes_power_and_order():
    scored_candidates = candidates({'a': Dense(noisy(5, 3, 0))}, 3)
    for planes, message in [
            ([], 'one at least'), ([({'a': 1.},)], 'give'), ([5], 'give'),
            ([({'b': 1.}, 1.)], r"planes name \['b'\]"),
            ([({'a': 0.}, 1.)], 'not 0'), ([({'a': np.nan}, 1.)], 'finite'), ([({'a': 1.}, None)], 'finite')]:
        with pytest.raises(InputError, match=message): fuse(scored_candidates, 'piecewise', planes=planes)
    with pytest.raises(InputError, match="not for 'mean'"): fuse(scored_candidates, planes=[({'a': 1.}, 1.)])
    for power in (0, -1, np.inf, True, '6'):
        with pytest.raises(InputError, match='power='): fuse(scored_candidates, 'power', power=power)
    with pytest.raises(InputError, match='join'): fuse(scored_candidates, join=('sha',))
    scored_candidates.ids[[0, 1]] = scored_candidates.ids[[1, 0]]
    with pytest.raises(InputError, match='column 0'): fuse(scored_candidates)


def test_check_weights_passes_what_each_fusion_takes():
    for fusion in FUSIONS:
        planes = [({'a': 1.}, .5)] if fusion == 'piecewise' else None
        check_weights(fusion, {'a': .5}, planes=planes)
        if fusion in ('union', 'above', 'piecewise'): check_weights(fusion, {'a': -.5}, planes=planes)


def test_sorted_neighbors_breaks_ties_by_id():
    ids = np.array([[0, 1, 2, -1], [1, 0, 2, 3], [2, -1, -1, -1]])
    scores = np.array([[.1, .5, .5, 9], [.2, .1, .7, .1], [.3, 9, 9, 9]])
    actual = sorted_neighbors(ids, scores).check()
    assert actual.ids.tolist() == [[0, 1, 2, -1], [1, 2, 0, 3], [2, -1, -1, -1]]
    np.testing.assert_array_equal(actual.scores[:, 0], np.float32([.5, .7, .3]))


def test_fusion_grid():
    assert fusion_grid(['a']) == [('mean', {'a': 1.})]
    for modalities, mean_count in ((['a', 'b'], 11), (['a', 'b', 'c'], 66)):
        fusions = fusion_grid(modalities)
        distinct = {(fusion, *sorted(weights.items())) for fusion, weights in fusions}
        assert len(fusions) == mean_count + 3**len(modalities) == len(distinct)
        fusion, weights = fusions[0]
        assert fusion == 'mean' and len(weights) == len(modalities)
        assert max(weights.values()) - min(weights.values()) < .11
        assert all(abs(sum(weights.values()) - 1) < 1e-9 for fusion, weights in fusions if fusion == 'mean')
        assert ('mean', dict(zip(modalities, (0., 1., 0.)))) in fusions
        scored_candidates = candidates(
            {modality: Dense(noisy(6, 3, i)) for i, modality in enumerate(modalities)}, 4
        )
        for fusion, weights in fusions: fuse(scored_candidates, fusion, weights).check(self_join=True)
