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
    n_listings, n_columns = neighbors.ids.shape
    row_numbers, ids, pair_scores = neighbors.pairs()
    score_matrix = _sparse(row_numbers, ids, pair_scores.astype(np.float64), n_listings)
    nearest = _adjacency(neighbors, k)
    # summed first and divided afterwards, so that scores which cancel each other give exactly 0
    mean_scores = (nearest @ score_matrix).tocsr()
    mean_scores.data /= np.repeat(np.diff(nearest.indptr), np.diff(mean_scores.indptr))
    mixed_scores = (weight * mean_scores + (1 - weight) * score_matrix).tocsr()
    mixed_scores.eliminate_zeros()
    mixed_scores = mixed_scores.tocoo()
    return Neighbors.from_pairs(
        mixed_scores.row, mixed_scores.col, mixed_scores.data, n_listings, k=n_columns)


def k_reciprocal(
    neighbors: Neighbors,  # Of a self-join; scores are cosine similarities
    k1: int = 6,  # Size of the neighborhood in which two listings must list each other
    k2: int = 3,  # Nearest listings whose neighborhoods are averaged, the listing itself included; 1: none
    lam: float = .3,  # Weight of the original distance, 0 to 1; the rest is that of the neighborhoods'
    far=2.,  # Largest squared distance of each listing (n,), or one for all; 2 is that of a score of 0
) -> Neighbors:  # Scores are 1 - distance: no cosine similarities any more, so thresholds must be chosen anew
    """k-reciprocal re-ranking, https://arxiv.org/abs/1701.08398: listings are near when their mutual
    neighborhoods overlap.

    Only listed pairs are scored; a pair that is not listed counts as far apart as the row's least similar
    neighbor. The paper's k1=20 and k2=6 are for galleries with many pictures of each identity; groups of
    listings are small, so try 3 to 10.
    """
    _check_reciprocal_options(neighbors, k1, k2, lam)
    n_listings, n_columns = neighbors.ids.shape
    far = np.broadcast_to(np.asarray(far, np.float64), n_listings)
    if not (np.isfinite(far) & (far > 0)).all(): raise InputError('far: finite numbers above 0')
    neighborhoods = _neighborhood_vectors(neighbors, k1, k2, far)
    row_numbers, ids, scores = neighbors.pairs()
    overlap = np.empty(len(row_numbers))
    for block_start in tqdm(range(0, len(row_numbers), PAIRS), desc='re-rank', delay=2, leave=False):
        block = slice(block_start, block_start + PAIRS)
        shared_weights = neighborhoods[row_numbers[block]].minimum(neighborhoods[ids[block]])
        overlap[block] = np.asarray(shared_weights.sum(1)).ravel()
    jaccard_distance = 1 - overlap / (2 - overlap)
    distance = _squared_distance(scores) / far[row_numbers]
    new_scores = 1 - (1 - lam) * jaccard_distance - lam * distance
    return Neighbors.from_pairs(row_numbers, ids, new_scores, n_listings, k=n_columns)


def _check_reciprocal_options(neighbors, k1, k2, lam):
    check_self_first(neighbors)
    for option, n_nearest in (('k1', k1), ('k2', k2)):
        if not isinstance(n_nearest, (int, np.integer)) or isinstance(n_nearest, bool) or n_nearest < 1:
            raise InputError(f'{option}={n_nearest!r}: give a whole number from 1')
    if not 0 <= lam <= 1: raise InputError(f'lam={lam!r}: between 0 and 1')
    n_listings, n_columns = neighbors.ids.shape
    if k1 >= n_columns and n_columns < n_listings:
        raise InputError(f'k1={k1}: the neighbors have {n_columns} columns, search k={k1 + 1} or more')


def _neighborhood_vectors(neighbors, k1, k2, far):
    """The paper's vectors V: for each listing the members of its mutual neighborhood, weighted by
    exp(-distance), sum 1; sparse (n,n)."""
    n_listings = len(neighbors.ids)
    mutual_pairs = _mutual_adjacency(neighbors, k1 + 1)
    half_mutual = _mutual_adjacency(neighbors, int(np.round(k1 / 2)) + 1)
    # a neighbor's own smaller neighborhood joins if more than two thirds of it are in already
    overlap = (mutual_pairs @ half_mutual.T).multiply(mutual_pairs).tocsr()
    half_sizes = np.diff(half_mutual.indptr)
    overlap.data = (overlap.data > 2 / 3 * half_sizes[overlap.indices]).astype(np.float64)
    overlap.eliminate_zeros()
    neighborhoods = (mutual_pairs + overlap @ half_mutual).tocoo()
    weights = np.exp(-_pair_distances(neighbors, far, neighborhoods.row, neighborhoods.col))
    vectors = _sparse(neighborhoods.row, neighborhoods.col, weights, n_listings)
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

    The adaptive s-norm of speaker recognition (Cumani et al., Interspeech 2011): a similarity says more where
    a listing's other similarities are low.
    """
    check_k(k)
    check_self_first(neighbors)
    check_finite('floor', floor)
    if floor <= 0: raise InputError(f'floor={floor}: above 0')
    mean, deviation = top_stats(neighbors, k)
    deviation = np.maximum(deviation, floor)
    row_numbers, ids, scores = neighbors.pairs()
    scores = scores.astype(np.float64)
    from_row = (scores - mean[row_numbers]) / deviation[row_numbers]
    from_neighbor = (scores - mean[ids]) / deviation[ids]
    both_sides = (from_row + from_neighbor) / 2
    return Neighbors.from_pairs(row_numbers, ids, both_sides, len(mean), k=neighbors.ids.shape[1])


def top_stats(
    neighbors: Neighbors,  # Of a self-join
    k: int,  # Nearest other listings
) -> tuple[np.ndarray, np.ndarray]:  # float64 (n,) each
    """Mean and standard deviation of the scores of each row's `k` nearest others; 0 and 1 for a listing
    without any."""
    scores = neighbors.scores[:, 1:k + 1].astype(np.float64)
    not_padding = neighbors.ids[:, 1:k + 1] >= 0
    neighbor_counts = not_padding.sum(1)
    mean = np.where(not_padding, scores, 0).sum(1) / np.maximum(neighbor_counts, 1)
    squares = np.where(not_padding, (np.where(not_padding, scores, 0) - mean[:, None])**2, 0)
    variance = squares.sum(1) / np.maximum(neighbor_counts, 1)
    return mean, np.where(neighbor_counts > 0, np.sqrt(variance), 1.)


def mutual(
    neighbors: Neighbors,  # Of a self-join
    k: int | None = None,  # Nearest listings that count, the listing itself included; default all columns
) -> Neighbors:
    "Only the pairs in which each listing has the other among its `k` nearest."
    check_self_first(neighbors)
    if k is not None: check_k(k)
    n_listings, n_columns = neighbors.ids.shape
    mutual_pairs = _mutual_adjacency(neighbors, n_columns if k is None else k)
    row_numbers, ids, scores = neighbors.pairs()
    is_kept = np.zeros(0, bool)
    if len(row_numbers): is_kept = np.asarray(mutual_pairs[row_numbers, ids]).ravel() > 0
    return Neighbors.from_pairs(row_numbers[is_kept], ids[is_kept], scores[is_kept], n_listings, k=n_columns)


def veto(
    neighbors: Neighbors,  # Candidates
    # `Units`, or a column of a table (another code, another pack size), or a `Pool` of such
    units,
    least: float = 0.,  # A similarity that is not above this forbids a pair
) -> Neighbors:
    """Drop the pairs that contradict each other: titles that name 500ml and 250ml, two different codes.

    What is unknown contradicts nothing.
    """
    row_numbers, columns = np.nonzero(neighbors.ids[:, 1:] >= 0)
    columns += 1
    is_kept = neighbors.ids >= 0
    similarity = units.scores(row_numbers, neighbors.ids[row_numbers, columns])
    is_kept[row_numbers, columns] = ~(similarity <= least)
    # what is left moves up in its order
    kept_first = np.argsort(~is_kept, axis=1, kind='stable')
    ids = np.where(is_kept, neighbors.ids, -1)
    scores = np.where(is_kept, neighbors.scores, np.float32(-np.inf))
    return Neighbors(np.take_along_axis(ids, kept_first, 1), np.take_along_axis(scores, kept_first, 1))


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
    positions = find_pairs(listed_rows, listed_ids, rows, ids, len(neighbors.ids))
    is_listed = positions >= 0
    return np.where(is_listed, scores[positions], least_score(neighbors)[rows]), is_listed


def _squared_distance(scores):
    "The squared distance of unit vectors with these cosines, float64; rounding below 0 is 0."
    return np.maximum(2 - 2 * scores.astype(np.float64), 0)


def _pair_distances(neighbors, far, row_numbers, neighbor_ids):
    scores, _ = score_of_pairs(neighbors, row_numbers, neighbor_ids)
    return _squared_distance(scores) / far[row_numbers]


def _sparse(rows, ids, entries, n): return sparse.csr_matrix((entries, (rows, ids)), shape=(n, n))


def _adjacency(neighbors, k):
    "Who is among whose `k` nearest, as a sparse matrix (n,n) of ones."
    row_numbers, ids, _ = neighbors.top(k).pairs()
    return _sparse(row_numbers, ids, np.ones(len(row_numbers)), len(neighbors.ids))


def _mutual_adjacency(neighbors, k):
    "Which two are among each other's `k` nearest, as a sparse matrix (n,n) of ones."
    adjacency = _adjacency(neighbors, k)
    return adjacency.multiply(adjacency.T).tocsr()
