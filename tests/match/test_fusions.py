"The formula of each fusion against the whole n x n of every modality."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.match import FUSIONS, Dense, Pool, Tfidf, candidates, fuse
from fastmatch.match.candidates import Candidates
from fastmatch.match.fuse import fused_scores
from fastmatch.match.fusions import FUSION_FUNCTIONS
from tests.match.cases import halves_of_one, noisy, pair_grid, titles
from tests.reference import match as ref

# weights that leave no rounding where the similarities have none
EXACT = [
    ('mean', {'a': .5, 'b': .5}), ('mean', {'a': 3., 'b': 1.}), ('mean', {'a': 0., 'b': 2.}), ('mean', None),
    ('prob_or', {'a': 1., 'b': 2.}), ('prob_or', None), ('square', {'a': 1., 'b': 1.}),
    ('joint', {'a': .5, 'b': .5}),
    ('above', {'a': .25, 'b': -.25}), ('above', None),
    ('union', {'a': .25, 'b': .5}), ('union', {'a': -.5, 'b': 0.}), ('union', None), ('union', {'b': .25})]
DEFAULT = {'mean': 1., 'prob_or': 1., 'union': 0., 'above': 0.}
THREE = [
    ('mean', {'image': .7, 'title': .3}, {}), ('mean', {'image': 2., 'title': 1., 'tfidf': 4.}, {}),
    ('prob_or', {'image': 4., 'tfidf': 1.}, {}), ('prob_or', {'image': .5, 'title': 3., 'tfidf': 0.}, {}),
    ('square', {'image': 2., 'title': 0., 'tfidf': 1.}, {}),
    ('joint', {'image': 1., 'tfidf': 2.}, {}), ('joint', {'tfidf': 1.}, {}),
    ('power', {'image': .8, 'tfidf': .5}, {}),
    ('power', {'image': .8, 'tfidf': .5, 'title': 1.}, {'power': 2.}),
    ('above', {'image': .3, 'title': -.2, 'tfidf': .1}, {}),
    ('union', {'image': .8, 'tfidf': .3, 'title': .1}, {}),
    ('piecewise', {'image': 1., 'tfidf': 2.}, {'planes': [({'image': 1.}, .7),
    ({'image': .6, 'tfidf': -.2}, .1)]}),
    ('piecewise', {'image': 1., 'title': 0.}, {'planes': [[{'title': 1.}, .7], [{'image': .6}, .1]]})]


def all_scores(spaces):
    listing_count = len(next(iter(spaces.values())))
    return {
        modality: space.scores(*pair_grid(listing_count)).astype(np.float64)
        for modality, space in spaces.items()
    }


def three_spaces():
    return {'image': Dense(noisy(42, 8, 0, 30)), 'title': Dense(noisy(42, 5, 1, 10)),
            'tfidf': Tfidf(titles(42, 2))}


def test_every_fusion_has_its_function():
    assert FUSIONS == list(FUSION_FUNCTIONS)
    assert FUSIONS == ['mean', 'square', 'joint', 'prob_or', 'power', 'union', 'above', 'piecewise']
    for fusion in FUSION_FUNCTIONS.values(): assert fusion.__doc__


@settings(max_examples=60, deadline=None)
@given(listing_count=st.integers(1, 24), seed=st.integers(0, 999), fusion_and_weights=st.sampled_from(EXACT))
def test_without_rounding_fusion_is_exact(listing_count, seed, fusion_and_weights):
    fusion, weights = fusion_and_weights
    vectors = {'a': halves_of_one(listing_count, 4, seed), 'b': halves_of_one(listing_count, 6, seed + 1)}
    scored_candidates = candidates(
        {modality: Dense(array) for modality, array in vectors.items()}, listing_count
    )
    neighbors = fuse(scored_candidates, fusion, weights).check(self_join=True)
    similarities = {modality: array @ array.T / 4 for modality, array in vectors.items()}
    fused = ref.fuse(similarities, fusion, weights or dict.fromkeys('ab', DEFAULT[fusion]))
    ids, scores = ref.nearest(fused, listing_count)
    np.testing.assert_array_equal(neighbors.ids, ids)
    np.testing.assert_array_equal(neighbors.scores, scores)


@pytest.mark.parametrize('fusion, weights, options', THREE)
def test_fusion_of_three(fusion, weights, options):
    spaces = three_spaces()
    all_fused = ref.fuse(all_scores(spaces), fusion, weights, **options)
    for k in (42, None):
        neighbors = fuse(candidates(spaces, k), fusion, weights, **options).check(self_join=True)
        ids, scores = neighbors
        assert ids.shape == (42, 42) and (np.sort(ids, 1) == np.arange(42)).all()
        np.testing.assert_allclose(scores, ref.nearest(all_fused, 42)[1], atol=2e-6)
        np.testing.assert_allclose(scores[:, 1:], np.take_along_axis(all_fused, ids[:, 1:], 1), atol=2e-6)
        tied = scores[:, 1:-1] == scores[:, 2:]
        assert (~tied | (ids[:, 1:-1] < ids[:, 2:])).all()


@pytest.mark.parametrize('fusion, weights, options', THREE)
def test_flat_pairs_score_as_in_the_grid(fusion, weights, options):
    spaces = three_spaces()
    scored_candidates = candidates(spaces, 9)
    rows, columns = np.nonzero(scored_candidates.ids >= 0)
    flat = Candidates(
        scored_candidates.ids[rows, columns],
        {modality: scores[rows, columns] for modality, scores in scored_candidates.scores.items()},
        pool=42,
        present=scored_candidates.present,
        rows=rows,
    )
    expected = fused_scores(scored_candidates, fusion, weights, (), **options)[rows, columns]
    np.testing.assert_array_equal(fused_scores(flat, fusion, weights, (), **options), expected)


@pytest.mark.parametrize('new_count', [0, 3, 9])
def test_what_a_listing_lacks_does_not_count_in_joint(new_count):
    "Listings without a title, new or known, are judged by their pictures alone; a pool is one self-join."
    vectors, texts = noisy(12, 5, 0, 6), titles(12, 1)
    tfidf = Tfidf(texts)
    all_spaces = {'image': Dense(vectors), 'tfidf': tfidf}
    spaces = all_spaces
    if new_count:
        spaces = {'image': Pool(Dense(vectors[:new_count]), Dense(vectors[new_count:])),
                  'tfidf': Pool(tfidf.take(np.arange(new_count)), tfidf.take(np.arange(new_count, 12)))}
    weights = {'image': 1., 'tfidf': 3.}
    all_fused = ref.fuse(all_scores(all_spaces), 'joint', weights)
    ids, scores = fuse(candidates(spaces, 12), 'joint', weights)
    np.testing.assert_allclose(
        scores[:, 1:], np.take_along_axis(all_fused[: len(ids)], ids, 1)[:, 1:], atol=2e-6
    )
    assert '' in texts and (ids.shape[1] == 12 if not new_count else ids.shape[0] == new_count)
    empty = fuse(candidates(spaces, 12), 'joint', {'tfidf': 1.})
    assert np.isfinite(empty.scores).all()


def test_the_power_sum_stands_between_sum_and_union():
    scored_candidates = candidates({'a': Dense(noisy(30, 6, 0)), 'b': Dense(noisy(30, 5, 1))}, 30)
    thresholds = {'a': .5, 'b': .7}
    high_power = fuse(scored_candidates, 'power', thresholds, power=200.)
    union = fuse(scored_candidates, 'union', thresholds)
    # at a high power: let in is what is above one of the thresholds
    def let_in(neighbors, threshold):
        return {(i, j) for i, j, score in zip(*neighbors.pairs()) if score >= threshold}
    assert let_in(high_power, 1) == let_in(union, 0)
