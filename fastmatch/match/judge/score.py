"How good neighbors and matches are, row by row: row F1, recall at k, mean average precision at R."
import numpy as np

from ...core import InputError, preview
from ..neighbors import Neighbors, check_k, check_self_first
from .groups import Groups


def hits(
    neighbors: Neighbors,  # Of a self-join, or of the first n listings of a pool
    codes: np.ndarray,  # int (p,), the group of each listing of the pool, as `Groups.codes`
) -> np.ndarray:  # bool (n,k-1)
    "Which neighbors behind the listing itself are of its group."
    check_self_first(neighbors, len(codes))
    neighbor_ids = neighbors.ids[:, 1:]
    return (codes[neighbor_ids] == codes[:len(neighbor_ids), None]) & (neighbor_ids >= 0)


def alone(
    groups,  # (n,) groups, or `Groups`
) -> np.ndarray:  # float64 (n,)
    "Row F1 of every listing matched with itself alone: the floor under every rule."
    return 2 / (1 + Groups.of(groups).sizes)


def row_f1(
    matches,  # `Matches`, or any n arrays of ids, each with the listing itself
    groups,  # (n,) groups, or `Groups`
) -> np.ndarray:  # float64 (n,)
    "The Shopee competition's metric for each row: 2|P&T| / (|P|+|T|), the listing itself in both sets."
    match_sets = list(matches)
    n_listings = len(match_sets)
    groups = Groups.of(groups, n_listings)
    match_counts = np.array([len(ids) for ids in match_sets])
    match_rows = np.repeat(np.arange(n_listings), match_counts)
    ids = np.concatenate([np.asarray(ids, np.int64) for ids in match_sets])
    out_of_range = (ids < 0) | (ids >= groups.pool)
    if out_of_range.any():
        bad_rows = preview(np.unique(match_rows[out_of_range]))
        raise InputError(f'matches of rows {bad_rows} hold ids outside 0 to {groups.pool - 1}')
    unique_pairs, repeat_counts = np.unique(match_rows * groups.pool + ids, return_counts=True)
    if (repeat_counts > 1).any():
        bad_rows = preview(np.unique(unique_pairs[repeat_counts > 1] // groups.pool))
        raise InputError(f'matches of rows {bad_rows} name an id twice')
    is_right = groups.codes[ids] == groups.codes[match_rows]
    right_counts = np.bincount(match_rows, weights=is_right, minlength=n_listings)
    return 2 * right_counts / (match_counts + groups.sizes)


def recall_at(
    neighbors: Neighbors,  # Of a self-join
    groups,  # (n,) groups, or `Groups`
    k: int = 1,  # Nearest others that count
) -> np.ndarray:  # float64 (n,), NaN for a listing without a mate
    """1 where one of the `k` nearest others is of the same group, otherwise 0.

    Raises `InputError` where fewer than `k` others were searched.
    """
    check_k(k)
    groups = Groups.of(groups, len(neighbors.ids))
    _refuse_cut(neighbors, groups, np.where(groups.sizes > 1, k, 0), f'recall@{k}')
    has_mate_near = hits(neighbors, groups.codes)[:, :k].any(1)
    return np.where(groups.sizes > 1, has_mate_near.astype(np.float64), np.nan)


def map_at_r(
    neighbors: Neighbors,  # Of a self-join
    groups,  # (n,) groups, or `Groups`
) -> np.ndarray:  # float64 (n,), NaN for a listing without a mate
    """Mean average precision at R, where R is the number of mates, https://arxiv.org/abs/2003.08505

    Raises `InputError` where a listing has more mates than others were searched for it: for groups of 120
    search with `k=120`.
    """
    groups = Groups.of(groups, len(neighbors.ids))
    mate_counts = groups.sizes - 1
    _refuse_cut(neighbors, groups, mate_counts, 'mAP@R')
    is_right = hits(neighbors, groups.codes)
    ranks = np.arange(1, is_right.shape[1] + 1)
    precision = is_right.cumsum(1) / ranks
    precision_sum = np.where(ranks <= mate_counts[:, None], precision * is_right, 0).sum(1)
    return np.divide(precision_sum, mate_counts, out=np.full(len(mate_counts), np.nan), where=mate_counts > 0)


def recall_and_precision(
    neighbors: Neighbors,  # Of a self-join
    groups,  # (n,) groups, or `Groups`
) -> tuple[np.ndarray, np.ndarray]:  # float64 (n,), float64 (n,)
    """recall@1 and mAP@R as they stand beside row F1: all NaN where too few neighbors were searched for some
    listings, since a mean over the others would leave out the large groups."""
    groups = Groups.of(groups, len(neighbors.ids))
    figures = []
    for metric, wanted in ((recall_at, np.minimum(groups.sizes - 1, 1)), (map_at_r, groups.sizes - 1)):
        is_cut = _is_cut(neighbors, groups, wanted).any()
        figures.append(np.full(len(groups), np.nan) if is_cut else metric(neighbors, groups))
    recall, precision = figures
    return recall, precision


def _is_cut(neighbors, groups, wanted):
    "Which rows have fewer neighbors than `wanted`, int (n,), because the search ended there: bool (n,)."
    others_in_pool = groups.pool - 1
    width = neighbors.ids.shape[1] - 1
    if neighbors.searched is None:
        # a row with padding holds all that the search could find
        is_whole = neighbors.ids[:, -1] < 0
        reached = np.where(is_whole, others_in_pool, width)
    elif neighbors.searched > others_in_pool: return np.zeros(len(wanted), bool)
    else: reached = min(width, neighbors.searched - 1)
    return np.minimum(wanted, others_in_pool) > reached


def _refuse_cut(neighbors, groups, wanted, metric):
    is_cut = _is_cut(neighbors, groups, wanted)
    if not is_cut.any(): return
    deepest = int(np.minimum(wanted[is_cut].max(), groups.pool - 1))
    raise InputError(f'{metric}: rows {preview(np.flatnonzero(is_cut))} need up to {deepest} nearest others, '
                     f'and fewer were searched: search with k={deepest + 1}')
