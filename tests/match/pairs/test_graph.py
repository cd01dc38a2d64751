"PageRank against what is known and against a loop."
import numpy as np
import pytest
from scipy import sparse

from fastmatch.match import Candidates
from fastmatch.match.pairs.graph import graph_of, pagerank
from tests.reference import pair as reference


def test_pagerank_of_what_is_known():
    # a star: all lead to the first, which leads to all
    n = 5
    weights = np.zeros((n, n))
    weights[1:, 0] = weights[0, 1:] = 1
    ranks = pagerank(sparse.csr_matrix(weights))
    assert ranks.sum() == pytest.approx(1) and ranks[0] == pytest.approx(.88 / 1.85)
    assert np.allclose(ranks[1:], (1 - ranks[0]) / 4)
    # everybody alike, and nobody linked
    assert np.allclose(pagerank(sparse.csr_matrix(np.ones((4, 4)) - np.eye(4))), .25)
    assert np.allclose(pagerank(sparse.csr_matrix((4, 4))), .25)
    rng = np.random.default_rng(0)
    weights = rng.random((9, 9)) * (rng.random((9, 9)) < .3)
    expected = reference.pagerank(weights.tolist())
    np.testing.assert_allclose(pagerank(sparse.csr_matrix(weights)), expected, atol=1e-8)


def test_a_link_weighs_the_mean_similarity():
    ids = np.array([[0, 1], [1, 0]])
    first, second = np.array([[1, .5], [1, -.9]]), np.array([[1, .1], [1, .1]])
    candidates = Candidates(ids, {'a': first, 'b': second, 'key': np.ones((2, 2))}, join=('key',))
    rows, columns = np.array([0, 1]), np.array([1, 1])
    # keys have no part in it, and nothing weighs less than nothing
    np.testing.assert_allclose(graph_of(candidates, rows, columns).toarray(), [[0, .3], [0, 0]])
    key_alone = Candidates(ids, {'key': np.ones((2, 2))}, join=('key',))
    np.testing.assert_allclose(graph_of(key_alone, rows, columns).toarray(), [[0, 1], [1, 0]])
