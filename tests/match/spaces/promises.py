"What every search promises, as checks that the tests of each space share."
import numpy as np

from tests.match.cases import grid
from tests.reference import match as ref


def assert_exact(neighbors, similarity, space, k, queries=None, atol=2e-6):
    """The `k` best up to rounding, scores those of `scores`, ties to the smaller id, no id twice in a row,
    self first."""
    own = queries is None
    first = int(own)
    neighbors.check(own)
    ids, scores = neighbors
    n, listings = similarity.shape
    want_ids, want_scores = ref.nearest(similarity, k, own)
    assert ids.shape == (n, min(k, listings))
    np.testing.assert_array_equal(ids < 0, want_ids < 0)
    np.testing.assert_allclose(scores, want_scores, atol=atol)
    listed = np.where(ids >= 0, np.take_along_axis(similarity, np.maximum(ids, 0), 1), -np.inf)
    np.testing.assert_allclose(scores, listed, atol=atol)
    rescored = space.scores(np.arange(n)[:, None], ids[:, first:], queries)
    np.testing.assert_array_equal(scores[:, first:], rescored)
    assert_ties_to_smaller_id(neighbors, first)
    # exact, given the scores the space itself calculates:
    # nothing of a higher score, or of the same and a smaller id, is left out
    whole = space.scores(np.arange(n)[:, None], np.arange(listings)[None], queries).astype(np.float64)
    exact_ids, exact_scores = ref.nearest(np.where(similarity > -np.inf, whole, -np.inf), k, own)
    np.testing.assert_array_equal(ids, exact_ids)
    np.testing.assert_array_equal(scores, exact_scores.astype(np.float32))


def assert_keeps_promises(neighbors, index, queries=None):
    """What holds however many are missed: order, padding, exact scores, ties to the smaller id, nothing
    removed."""
    own = queries is None
    first = int(own)
    neighbors.check(own)
    ids, scores = neighbors
    exact = index.scores(np.arange(len(ids))[:, None], ids[:, first:], queries)
    np.testing.assert_array_equal(scores[:, first:], exact)
    assert_ties_to_smaller_id(neighbors, first)
    others = ids[:, first:]
    assert not index.removed[others[others >= 0]].any()


def assert_ties_to_smaller_id(neighbors, first):
    ids, scores = neighbors
    tied = (scores[:, first:-1] == scores[:, first + 1:]) & (ids[:, first + 1:] >= 0)
    assert (ids[:, first:-1] < ids[:, first + 1:])[tied].all()


def assert_same(got, want):
    "Two pairs of arrays are the same to the bit."
    for mine, theirs in zip(got, want): np.testing.assert_array_equal(mine, theirs)


def listed(neighbors):
    "The ids of each row without the padding."
    return [[j for j in row if j >= 0] for row in neighbors.ids.tolist()]


def all_scores(space): return space.scores(*grid(len(space)))


def clustered(n=700, d=12, seed=0, spread=.5):
    "Vectors in groups of about seven, some of them exact copies."
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n // 7, d))[rng.integers(0, n // 7, n)] + spread * rng.normal(size=(n, d))
    vectors[:n // 35] = vectors[n // 35:n // 35 * 2]
    return vectors
