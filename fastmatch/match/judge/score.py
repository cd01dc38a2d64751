"How good neighbours and matches are, row by row: row F1, recall at k, mean average precision at R."
import numpy as np

from ...core import InputError, preview
from ..neighbors import Neighbors, check_self_first, group_codes


def hits(
    neighbors: Neighbors,  # Self-join
    y: np.ndarray,  # int (n,), groups as numbers from 0
) -> np.ndarray:  # bool (n,k-1)
    "Which neighbours behind the listing itself are of its group."
    check_self_first(neighbors)
    ids = neighbors.ids[:, 1:]
    return (y[ids] == y[:, None]) & (ids >= 0)


def alone(
    groups,  # (n,) groups
) -> np.ndarray:  # float64 (n,)
    "Row F1 of every listing matched with itself alone."
    y = group_codes(groups, len(groups))
    return 2 / (1 + np.bincount(y)[y])


def row_f1(
    matches,  # `Matches`, or any n id arrays, itself included
    groups,  # (n,) groups
) -> np.ndarray:  # float64 (n,)
    "The competition's metric for each row: 2|P&T| / (|P|+|T|), the listing itself in both."
    sets = list(matches)
    y = group_codes(groups, len(sets))
    sizes = np.bincount(y)[y]
    count = np.array([len(o) for o in sets])
    rows, ids = np.repeat(np.arange(len(sets)), count), np.concatenate([np.asarray(o, np.int64) for o in sets])
    if (bad := (ids < 0) | (ids >= len(sets))).any(): raise InputError(f'matches of rows {preview(np.unique(rows[bad]))} hold ids outside 0 to {len(sets) - 1}')
    pair, times = np.unique(rows * len(sets) + ids, return_counts=True)
    if (times > 1).any(): raise InputError(f'matches of rows {preview(np.unique(pair[times > 1] // len(sets)))} name an id twice')
    right = np.bincount(rows, weights=y[ids] == y[rows], minlength=len(sets))
    return 2 * right / (count + sizes)


def recall_at(
    neighbors: Neighbors,  # Self-join
    groups,  # (n,) groups
    k: int = 1,  # Nearest others looked at
) -> np.ndarray:  # float64 (n,), NaN for a listing without a mate
    "1 where one of the `k` nearest others is of the same group."
    if k < 1: raise InputError(f'k={k}: 1 or more')
    y = group_codes(groups, len(neighbors.ids))
    return np.where(np.bincount(y)[y] > 1, hits(neighbors, y)[:, :k].any(1).astype(np.float64), np.nan)


def map_at_r(
    neighbors: Neighbors,  # Self-join
    groups,  # (n,) groups
) -> np.ndarray:  # float64 (n,), NaN for a listing without a mate
    "Mean average precision at R, R the number of mates, https://arxiv.org/abs/2003.08505"
    y = group_codes(groups, len(neighbors.ids))
    r = np.bincount(y)[y] - 1
    hit = hits(neighbors, y)
    rank = np.arange(1, hit.shape[1] + 1)
    precision = hit.cumsum(1) / rank
    total = np.where(rank <= r[:, None], precision * hit, 0).sum(1)
    return np.divide(total, r, out=np.full(len(r), np.nan), where=r > 0)
