"""Steps on scores: the scores of neighbors are computed anew from the neighbors that two listings share, or
are made comparable.

`Neighbors` go in and come out. Everything is sparse: no array of n x n, whatever the number of listings.
"""
import numpy as np
from scipy import sparse
from tqdm import tqdm

from ...core import InputError
from ..arrays import find_pairs
from ..neighbors import Neighbors, check_k, check_self_first
from .vectors import check_finite

PAIRS = 1 << 16  # pairs whose neighborhoods are compared at a time


def neighbor_mean(
    neighbors: Neighbors,  # Of a self-join
    k: int = 3,  # Nearest listings whose rows are averaged, the listing itself included
    weight: float = 1.,  # Weight of the mean; the rest is that of the row's own scores
) -> Neighbors:
    """Each row of scores becomes the mean over the rows of its nearest neighbors (Kaggle Shopee, 18th place).

    A pair that a row does not list counts as 0 there, and a mean of 0 is no neighbor any more.
    """
    check_k(k)
    check_self_first(neighbors)
    if not 0 <= weight <= 1: raise InputError(f'weight={weight!r}: between 0 and 1')
    n, width = neighbors.ids.shape
    rows, ids, values = neighbors.pairs()
    scores = _sparse(rows, ids, values.astype(np.float64), n)
    nearest = _adjacency(neighbors, k)
    # summed first and divided afterwards, so that scores which cancel each other give exactly 0
    mean = (nearest @ scores).tocsr()
    mean.data /= np.repeat(np.diff(nearest.indptr), np.diff(mean.indptr))
    mixed = (weight * mean + (1 - weight) * scores).tocsr()
    mixed.eliminate_zeros()
    mixed = mixed.tocoo()
    return Neighbors.from_pairs(mixed.row, mixed.col, mixed.data, n, k=width)


def k_reciprocal(
    neighbors: Neighbors,  # Of a self-join; scores are cosine similarities
    k1: int = 6,  # Size of the neighborhood in which two listings must list each other
    k2: int = 3,  # Nearest listings whose neighborhoods are averaged, the listing itself included; 1: none
    lam: float = .3,  # Weight of the first distance against that of the neighborhoods, 0 to 1
    far=2.,  # Largest squared distance of each listing (n,), or one for all; 2 is that of a score of 0
) -> Neighbors:  # Scores are 1 - distance: no cosine similarities any more, so thresholds must be chosen anew
    """k-reciprocal re-ranking, https://arxiv.org/abs/1701.08398: listings are near when their mutual
    neighborhoods overlap.

    Only listed pairs are scored; a pair that is not listed counts as far apart as the row's least similar
    neighbor. The paper's k1=20 and
    k2=6 are for galleries with many pictures of each identity; groups of listings are small, so try 3 to 10.
    """
    _check_reciprocal_options(neighbors, k1, k2, lam)
    n, width = neighbors.ids.shape
    far = np.broadcast_to(np.asarray(far, np.float64), n)
    if not (np.isfinite(far) & (far > 0)).all(): raise InputError('far: finite numbers above 0')
    neighborhoods = _neighborhood_vectors(neighbors, k1, k2, far)
    rows, ids, scores = neighbors.pairs()
    shared = np.empty(len(rows))
    for start in tqdm(range(0, len(rows), PAIRS), desc='re-rank', delay=2, leave=False):
        part = slice(start, start + PAIRS)
        smaller = neighborhoods[rows[part]].minimum(neighborhoods[ids[part]])
        shared[part] = np.asarray(smaller.sum(1)).ravel()
    jaccard_distance = 1 - shared / (2 - shared)
    distance = _squared_distance(scores) / far[rows]
    return Neighbors.from_pairs(rows, ids, 1 - (1 - lam) * jaccard_distance - lam * distance, n, k=width)


def _check_reciprocal_options(neighbors, k1, k2, lam):
    check_self_first(neighbors)
    for name, k in (('k1', k1), ('k2', k2)):
        if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 1:
            raise InputError(f'{name}={k!r}: give a whole number from 1')
    if not 0 <= lam <= 1: raise InputError(f'lam={lam!r}: between 0 and 1')
    n, width = neighbors.ids.shape
    if k1 >= width and width < n:
        raise InputError(f'k1={k1}: the neighbors have {width} columns, search k={k1 + 1} or more')


def _neighborhood_vectors(neighbors, k1, k2, far):
    """The paper's vectors V: for each listing the members of its mutual neighborhood, weighted by
    exp(-distance), sum 1; sparse (n,n)."""
    n = len(neighbors.ids)
    mutual_pairs = _mutual_adjacency(neighbors, k1 + 1)
    half = _mutual_adjacency(neighbors, int(np.round(k1 / 2)) + 1)
    # a neighbor's own smaller neighborhood joins if more than two thirds of it are in already
    overlap = (mutual_pairs @ half.T).multiply(mutual_pairs).tocsr()
    size = np.diff(half.indptr)
    overlap.data = (overlap.data > 2 / 3 * size[overlap.indices]).astype(np.float64)
    overlap.eliminate_zeros()
    region = (mutual_pairs + overlap @ half).tocoo()
    weights = np.exp(-_pair_distances(neighbors, far, region.row, region.col))
    vectors = sparse.csr_matrix((weights, (region.row, region.col)), shape=(n, n))
    vectors = sparse.diags(1 / np.asarray(vectors.sum(1)).ravel()) @ vectors
    if k2 > 1:
        nearest = _adjacency(neighbors, k2)
        vectors = sparse.diags(1 / np.diff(nearest.indptr)) @ nearest @ vectors
    vectors = vectors.tocsr()
    vectors.sort_indices()
    return vectors


def standardize(
    neighbors: Neighbors,  # Of a self-join
    k: int = 10,  # Nearest other listings whose mean and deviation are used
    floor: float = .05,  # Least deviation, so that a row of equal scores is not divided by almost 0
) -> Neighbors:
    """Scores less the mean and over the deviation of the row's `k` best, the same from the other listing's
    side, and the two averaged.

    The adaptive s-norm of speaker recognition (Cumani et al., Interspeech 2011):
    a similarity says more where a listing's other similarities are low.
    """
    check_k(k)
    check_self_first(neighbors)
    check_finite('floor', floor)
    if floor <= 0: raise InputError(f'floor={floor}: above 0')
    mean, deviation = top_stats(neighbors, k)
    deviation = np.maximum(deviation, floor)
    rows, ids, scores = neighbors.pairs()
    scores = scores.astype(np.float64)
    from_row = (scores - mean[rows]) / deviation[rows]
    from_neighbor = (scores - mean[ids]) / deviation[ids]
    both_sides = (from_row + from_neighbor) / 2
    return Neighbors.from_pairs(rows, ids, both_sides, len(mean), k=neighbors.ids.shape[1])


def top_stats(
    neighbors: Neighbors,  # Of a self-join
    k: int,  # Nearest other listings
) -> tuple[np.ndarray, np.ndarray]:  # float64 (n,) each
    """Mean and standard deviation of the scores of each row's `k` nearest others; 0 and 1 for a listing
    without any."""
    scores = neighbors.scores[:, 1:k + 1].astype(np.float64)
    real = neighbors.ids[:, 1:k + 1] >= 0
    count = real.sum(1)
    mean = np.where(real, scores, 0).sum(1) / np.maximum(count, 1)
    squares = np.where(real, (np.where(real, scores, 0) - mean[:, None])**2, 0)
    variance = squares.sum(1) / np.maximum(count, 1)
    return mean, np.where(count > 0, np.sqrt(variance), 1.)


def mutual(
    neighbors: Neighbors,  # Of a self-join
    k: int | None = None,  # Nearest listings that count, the listing itself included; default all columns
) -> Neighbors:
    "Only the pairs in which each listing has the other among its `k` nearest."
    check_self_first(neighbors)
    if k is not None: check_k(k)
    n, width = neighbors.ids.shape
    both = _mutual_adjacency(neighbors, width if k is None else k)
    rows, ids, scores = neighbors.pairs()
    keep = np.asarray(both[rows, ids]).ravel() > 0 if len(rows) else np.zeros(0, bool)
    return Neighbors.from_pairs(rows[keep], ids[keep], scores[keep], n, k=width)


def veto(
    neighbors: Neighbors,  # Candidates
    units,  # `Units`, or a `Pool` of such: similarity 0 forbids a pair
) -> Neighbors:
    """Drop the pairs whose titles name quantities that contradict each other: 500ml and 250ml are two
    products."""
    rows, columns = np.nonzero(neighbors.ids[:, 1:] >= 0)
    columns += 1
    keep = neighbors.ids >= 0
    keep[rows, columns] = units.scores(rows, neighbors.ids[rows, columns]) > 0
    # what is left moves up in its order
    order = np.argsort(~keep, axis=1, kind='stable')
    ids = np.where(keep, neighbors.ids, -1)
    scores = np.where(keep, neighbors.scores, np.float32(-np.inf))
    return Neighbors(np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1))


def least_score(
    neighbors: Neighbors,  # With one column at least
) -> np.ndarray:  # float32 (n,)
    "The score of the last neighbor of each row: what stands for a pair that the row does not list."
    return np.where(neighbors.ids >= 0, neighbors.scores, np.inf).min(1)


def score_of_pairs(
    neighbors: Neighbors,  # Of a self-join
    rows: np.ndarray,  # int (m,)
    ids: np.ndarray,  # int (m,)
) -> tuple[np.ndarray, np.ndarray]:  # float (m,), bool (m,) whether the pair is listed
    "The score of each pair (row, id), that of the row's last neighbor where the row does not list it."
    listed_rows, listed_ids, scores = neighbors.pairs()
    position = find_pairs(listed_rows, listed_ids, rows, ids, len(neighbors.ids))
    known = position >= 0
    return np.where(known, scores[position], least_score(neighbors)[rows]), known


def _squared_distance(scores):
    "The squared distance of unit vectors with these cosines, float64; rounding below 0 is 0."
    return np.maximum(2 - 2 * scores.astype(np.float64), 0)


def _pair_distances(neighbors, far, rows, ids):
    scores, _ = score_of_pairs(neighbors, rows, ids)
    return _squared_distance(scores) / far[rows]


def _sparse(rows, ids, data, n): return sparse.csr_matrix((data, (rows, ids)), shape=(n, n))


def _adjacency(neighbors, k):
    "Who is among whose `k` nearest, as a sparse matrix (n,n) of ones."
    rows, ids, _ = neighbors.top(k).pairs()
    return _sparse(rows, ids, np.ones(len(rows)), len(neighbors.ids))


def _mutual_adjacency(neighbors, k):
    "Which two are among each other's `k` nearest, as a sparse matrix (n,n) of ones."
    adjacency = _adjacency(neighbors, k)
    return adjacency.multiply(adjacency.T).tocsr()
