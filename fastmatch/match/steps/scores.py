"Refinement of scores: neighbours told again by their neighbours. `Neighbors` in, `Neighbors` out, nothing of size n x n."
import numpy as np
from scipy import sparse
from tqdm import tqdm

from ...core import InputError
from ..neighbors import Neighbors, check_k, check_self_first
from .vectors import _number

PAIRS = 1 << 16  # pairs whose neighbourhoods are compared at a time


def neighbor_mean(
    neighbors: Neighbors,  # Self-join
    k: int = 3,  # Nearest whose rows are averaged, the listing itself included
    weight: float = 1.,  # Of the mean; the rest is the row's own
) -> Neighbors:
    "Each row as the mean of its nearest neighbours' rows (Kaggle Shopee, 18th place); what a row doesn't list counts 0, and 0 is no neighbour."
    check_k(k)
    check_self_first(neighbors)
    if not 0 <= weight <= 1: raise InputError(f'weight={weight!r}: between 0 and 1')
    n, width = neighbors.ids.shape
    scores = _matrix(neighbors)
    near = _pattern(neighbors, k)
    # summed, and then divided: what cancels is 0 to the last bit
    mean = (near @ scores).tocsr()
    mean.data /= np.repeat(np.diff(near.indptr), np.diff(mean.indptr))
    out = (weight * mean + (1 - weight) * scores).tocsr()
    out.eliminate_zeros()
    out = out.tocoo()
    return Neighbors.from_pairs(out.row, out.col, out.data, n, k=width)


def k_reciprocal(
    neighbors: Neighbors,  # Self-join
    k1: int = 6,  # Neighbours that must be mutual
    k2: int = 3,  # Neighbours whose neighbourhoods are averaged, the listing itself included; 1: none
    lam: float = .3,  # Weight of the first distance
    far=2.,  # Largest squared distance of each listing (n,), or one for all: 2 is that of a score of 0
) -> Neighbors:  # Score: 1 - distance, no cosine any more
    "k-reciprocal re-ranking, https://arxiv.org/abs/1701.08398, of the pairs listed; an unlisted one counts as the row's least similar."
    check_self_first(neighbors)
    for name, k in (('k1', k1), ('k2', k2)):
        if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 1: raise InputError(f'{name}={k!r}: give a whole number from 1')
    if not 0 <= lam <= 1: raise InputError(f'lam={lam!r}: between 0 and 1')
    n, width = neighbors.ids.shape
    far = np.broadcast_to(np.asarray(far, np.float64), n)
    if not (np.isfinite(far) & (far > 0)).all(): raise InputError('far: finite numbers above 0')
    if k1 >= width and width < n: raise InputError(f'k1={k1}: the neighbors have {width} columns, search k={k1 + 1} or more')
    mutual, half = (_mutual(neighbors, k + 1) for k in (k1, int(np.round(k1 / 2))))
    # a neighbour's own smaller neighbourhood joins, if most of it is in already
    overlap = (mutual @ half.T).multiply(mutual).tocsr()
    size = np.diff(half.indptr)
    overlap.data = (overlap.data > 2 / 3 * size[overlap.indices]).astype(np.float64)
    overlap.eliminate_zeros()
    region = (mutual + overlap @ half).tocoo()
    value = np.exp(-_distance(neighbors, far, region.row, region.col))
    v = sparse.csr_matrix((value, (region.row, region.col)), shape=(n, n))
    v = sparse.diags(1 / np.asarray(v.sum(1)).ravel()) @ v
    if k2 > 1:
        near = _pattern(neighbors, k2)
        v = sparse.diags(1 / np.diff(near.indptr)) @ near @ v
    v = v.tocsr()
    v.sort_indices()
    rows, ids, scores = neighbors.pairs()
    shared = np.empty(len(rows))
    for i in tqdm(range(0, len(rows), PAIRS), desc='re-rank', delay=2, leave=False):
        part = slice(i, i + PAIRS)
        shared[part] = np.asarray(v[rows[part]].minimum(v[ids[part]]).sum(1)).ravel()
    jaccard = 1 - shared / (2 - shared)
    d = np.maximum(2 - 2 * scores.astype(np.float64), 0) / far[rows]
    return Neighbors.from_pairs(rows, ids, 1 - (1 - lam) * jaccard - lam * d, n, k=width)


def standardize(
    neighbors: Neighbors,  # Self-join
    k: int = 10,  # Nearest others whose mean and deviation count
    floor: float = .05,  # Least deviation, so that a row of equal scores doesn't explode
) -> Neighbors:
    "Similarities less the mean and over the deviation of each side's top k, averaged (Cumani 2011's adaptive s-norm)."
    check_k(k)
    check_self_first(neighbors)
    _number('floor', floor)
    if floor <= 0: raise InputError(f'floor={floor}: above 0')
    mean, dev = top_stats(neighbors, k)
    dev = np.maximum(dev, floor)
    rows, ids, scores = neighbors.pairs()
    s = scores.astype(np.float64)
    z = ((s - mean[rows]) / dev[rows] + (s - mean[ids]) / dev[ids]) / 2
    return Neighbors.from_pairs(rows, ids, z, len(mean), k=neighbors.ids.shape[1])


def top_stats(
    neighbors: Neighbors,  # Self-join
    k: int,  # Nearest others
) -> tuple[np.ndarray, np.ndarray]:  # float64 (n,) each
    "Mean and standard deviation of the scores of each row's `k` nearest others; 0 and 1 for a listing without any."
    s = neighbors.scores[:, 1:k + 1].astype(np.float64)
    real = neighbors.ids[:, 1:k + 1] >= 0
    count = real.sum(1)
    mean = np.where(real, s, 0).sum(1) / np.maximum(count, 1)
    var = np.where(real, (np.where(real, s, 0) - mean[:, None])**2, 0).sum(1) / np.maximum(count, 1)
    return mean, np.where(count > 0, np.sqrt(var), 1.)


def mutual(
    neighbors: Neighbors,  # Self-join
    k: int | None = None,  # Nearest, the listing itself included, that count; default all columns
) -> Neighbors:
    "Only pairs in which each lists the other among its `k` nearest."
    check_self_first(neighbors)
    if k is not None: check_k(k)
    both = _mutual(neighbors, neighbors.ids.shape[1] if k is None else k)
    rows, ids, scores = neighbors.pairs()
    keep = _lookup(both, rows, ids) > 0
    return Neighbors.from_pairs(rows[keep], ids[keep], scores[keep], len(neighbors.ids), k=neighbors.ids.shape[1])


def _csr(rows, ids, data, n):
    return sparse.csr_matrix((data, (rows, ids)), shape=(n, n))


def _matrix(neighbors): return _csr(*(o := neighbors.pairs())[:2], o[2].astype(np.float64), len(neighbors.ids))


def _pattern(neighbors, k):
    rows, ids, _ = neighbors.top(k).pairs()
    return _csr(rows, ids, np.ones(len(rows)), len(neighbors.ids))


def _mutual(neighbors, k): return (o := _pattern(neighbors, k)).multiply(o.T).tocsr()


def _distance(neighbors, far, rows, ids):
    # listed pairs as they are; the last column that a row lists stands for what it doesn't
    n = len(neighbors.ids)
    mine, theirs, scores = neighbors.pairs()
    order = np.argsort(key := mine * n + theirs)
    at = np.minimum(np.searchsorted(key[order], want := rows.astype(np.int64) * n + ids), len(key) - 1)
    known = key[order][at] == want
    least = np.where(neighbors.ids >= 0, neighbors.scores, np.inf).min(1)
    s = np.where(known, scores[order][at], least[rows]).astype(np.float64)
    return np.maximum(2 - 2 * s, 0) / far[rows]


def _lookup(matrix, rows, ids):
    return np.asarray(matrix[rows, ids]).ravel() if len(rows) else np.zeros(0)


def veto(
    neighbors: Neighbors,  # Candidates
    units,  # `Units`, or a `Pool` of such: what says no to pairs (similarity 0)
) -> Neighbors:
    "Drop the pairs whose titles name quantities that can't be the same: 500ml and 250ml."
    rows, cols = np.nonzero(neighbors.ids[:, 1:] >= 0)
    keep = neighbors.ids >= 0
    keep[rows, cols + 1] = units.scores(rows, neighbors.ids[rows, cols + 1]) > 0
    # what is left moves up; the order stays
    order = np.argsort(~keep, axis=1, kind='stable')
    ids, scores = np.where(keep, neighbors.ids, -1), np.where(keep, neighbors.scores, np.float32(-np.inf))
    return Neighbors(np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1))
