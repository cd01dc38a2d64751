"What every search promises, as checks that the tests of each space share."
import numpy as np

from tests.match.cases import pair_grid
from tests.reference import match as ref


def assert_exact(neighbors, similarity, space, k, queries=None, atol=2e-6):
    """The `k` best up to rounding, scores those of `scores`, ties to the smaller id, no id twice in a row,
    self first."""
    self_join = queries is None
    first = int(self_join)
    neighbors.check(self_join)
    ids, scores = neighbors
    query_count, listing_count = similarity.shape
    expected_ids, expected_scores = ref.nearest(similarity, k, self_join)
    assert ids.shape == (query_count, min(k, listing_count))
    np.testing.assert_array_equal(ids < 0, expected_ids < 0)
    np.testing.assert_allclose(scores, expected_scores, atol=atol)
    listed_similarity = np.where(ids >= 0, np.take_along_axis(similarity, np.maximum(ids, 0), 1), -np.inf)
    np.testing.assert_allclose(scores, listed_similarity, atol=atol)
    rescored = space.scores(np.arange(query_count)[:, None], ids[:, first:], queries)
    np.testing.assert_array_equal(scores[:, first:], rescored)
    assert_ties_to_smaller_id(neighbors, first)
    # exact, given the scores the space itself calculates:
    # nothing of a higher score, or of the same and a smaller id, is left out
    whole = space.scores(np.arange(query_count)[:, None], np.arange(listing_count)[None], queries)
    whole = whole.astype(np.float64)
    exact_ids, exact_scores = ref.nearest(np.where(similarity > -np.inf, whole, -np.inf), k, self_join)
    np.testing.assert_array_equal(ids, exact_ids)
    np.testing.assert_array_equal(scores, exact_scores.astype(np.float32))


def assert_keeps_promises(neighbors, index, queries=None):
    """What holds however many are missed: order, padding, exact scores, ties to the smaller id, nothing
    removed."""
    self_join = queries is None
    first = int(self_join)
    neighbors.check(self_join)
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


def assert_same(actual, expected):
    "Two pairs of arrays are the same to the bit."
    for actual_array, expected_array in zip(actual, expected):
        np.testing.assert_array_equal(actual_array, expected_array)


def listed_ids(neighbors):
    "The ids of each row without the padding."
    return [[neighbor for neighbor in row if neighbor >= 0] for row in neighbors.ids.tolist()]


def all_scores(space): return space.scores(*pair_grid(len(space)))


def clustered(count=700, dim=12, seed=0, spread=.5):
    "Vectors in groups of about seven, some of them exact copies."
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(count // 7, dim))
    vectors = centers[rng.integers(0, count // 7, count)] + spread * rng.normal(size=(count, dim))
    vectors[:count // 35] = vectors[count // 35:count // 35 * 2]
    return vectors
