"The formula of each fusion against the whole n x n of every modality."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.match import FUSIONS, Dense, Pool, Tfidf, candidates, fuse
from fastmatch.match.candidates import Candidates
from fastmatch.match.fuse import fused_scores
from fastmatch.match.fusions import FUSION_FUNCTIONS
from tests.match.cases import grid, halves_of_one, noisy, titles
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
    n = len(next(iter(spaces.values())))
    return {name: space.scores(*grid(n)).astype(np.float64) for name, space in spaces.items()}


def three_spaces():
    return {'image': Dense(noisy(42, 8, 0, 30)), 'title': Dense(noisy(42, 5, 1, 10)),
            'tfidf': Tfidf(titles(42, 2))}


def test_every_fusion_has_its_function():
    assert FUSIONS == list(FUSION_FUNCTIONS)
    assert FUSIONS == ['mean', 'square', 'joint', 'prob_or', 'power', 'union', 'above', 'piecewise']
    for fusion in FUSION_FUNCTIONS.values(): assert fusion.__doc__


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 24), seed=st.integers(0, 999), case=st.sampled_from(EXACT))
def test_without_rounding_fusion_is_exact(n, seed, case):
    how, weights = case
    vectors = {'a': halves_of_one(n, 4, seed), 'b': halves_of_one(n, 6, seed + 1)}
    cand = candidates({name: Dense(x) for name, x in vectors.items()}, n)
    neighbors = fuse(cand, how, weights).check(self_join=True)
    similarities = {name: x @ x.T / 4 for name, x in vectors.items()}
    ids, scores = ref.nearest(ref.fuse(similarities, how, weights or dict.fromkeys('ab', DEFAULT[how])), n)
    np.testing.assert_array_equal(neighbors.ids, ids)
    np.testing.assert_array_equal(neighbors.scores, scores)


@pytest.mark.parametrize('how, weights, args', THREE)
def test_fusion_of_three(how, weights, args):
    spaces = three_spaces()
    full = ref.fuse(all_scores(spaces), how, weights, **args)
    for k in (42, None):
        neighbors = fuse(candidates(spaces, k), how, weights, **args).check(self_join=True)
        ids, scores = neighbors
        assert ids.shape == (42, 42) and (np.sort(ids, 1) == np.arange(42)).all()
        np.testing.assert_allclose(scores, ref.nearest(full, 42)[1], atol=2e-6)
        np.testing.assert_allclose(scores[:, 1:], np.take_along_axis(full, ids[:, 1:], 1), atol=2e-6)
        tied = scores[:, 1:-1] == scores[:, 2:]
        assert (~tied | (ids[:, 1:-1] < ids[:, 2:])).all()


@pytest.mark.parametrize('how, weights, args', THREE)
def test_flat_pairs_score_as_in_the_grid(how, weights, args):
    spaces = three_spaces()
    cand = candidates(spaces, 9)
    rows, columns = np.nonzero(cand.ids >= 0)
    flat = Candidates(cand.ids[rows, columns], {name: s[rows, columns] for name, s in cand.scores.items()},
                      pool=42, present=cand.present, rows=rows)
    want = fused_scores(cand, how, weights, (), **args)[rows, columns]
    np.testing.assert_array_equal(fused_scores(flat, how, weights, (), **args), want)


@pytest.mark.parametrize('m', [0, 3, 9])
def test_what_a_listing_lacks_does_not_count_in_joint(m):
    "Listings without a title, new or known, are judged by their pictures alone; a pool is one self-join."
    x, texts = noisy(12, 5, 0, 6), titles(12, 1)
    words = Tfidf(texts)
    whole = {'image': Dense(x), 'tfidf': words}
    spaces = whole
    if m:
        spaces = {'image': Pool(Dense(x[:m]), Dense(x[m:])),
                  'tfidf': Pool(words.take(np.arange(m)), words.take(np.arange(m, 12)))}
    weights = {'image': 1., 'tfidf': 3.}
    full = ref.fuse(all_scores(whole), 'joint', weights)
    ids, scores = fuse(candidates(spaces, 12), 'joint', weights)
    np.testing.assert_allclose(scores[:, 1:], np.take_along_axis(full[:len(ids)], ids, 1)[:, 1:], atol=2e-6)
    assert '' in texts and (ids.shape[1] == 12 if not m else ids.shape[0] == m)
    empty = fuse(candidates(spaces, 12), 'joint', {'tfidf': 1.})
    assert np.isfinite(empty.scores).all()


def test_the_power_sum_stands_between_sum_and_union():
    cand = candidates({'a': Dense(noisy(30, 6, 0)), 'b': Dense(noisy(30, 5, 1))}, 30)
    thresholds = {'a': .5, 'b': .7}
    high = fuse(cand, 'power', thresholds, power=200.)
    union = fuse(cand, 'union', thresholds)
    # at a high power: let in is what is above one of the thresholds
    def let_in(neighbors, threshold): return {(i, j) for i, j, s in zip(*neighbors.pairs()) if s >= threshold}
    assert let_in(high, 1) == let_in(union, 0)
