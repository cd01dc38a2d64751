"The decision: what a cut lets in, what is forced in beyond it, and the matches that are left."

import numpy as np

from ..core import InputError, preview
from .matches import MAX_MATCHES, Matches, matches_from_mask
from .neighbors import Neighbors, check_self_first


def decide(
    neighbors: Neighbors,  # Self-join, or new listings in a `Pool`
    threshold,  # Scores from here on are let in; or several: of the nearest, of the next, ..., the last also of all further
    max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
    pool: int | None = None,  # Listings that ids may point to; default as many as there are rows
) -> Matches:
    "Each listing with the neighbours at or above `threshold`; itself always."
    cuts = thresholds_by_rank(threshold, neighbors.ids.shape[1] - 1)
    check_self_first(neighbors, pool)
    # no cut lets it in and none leaves it out
    lost = (np.isnan(neighbors.scores) & (neighbors.ids >= 0)).any(1)
    if lost.any(): raise InputError(f'neighbors: rows {preview(np.flatnonzero(lost))} have a score that is NaN')
    nb = neighbors.top(max_matches)
    keep = nb.ids >= 0
    keep[:, 1:] &= nb.scores[:, 1:].astype(np.float64) >= cuts[:nb.ids.shape[1] - 1]
    keep[:, 0] = True
    return matches_from_mask(nb, keep)


def thresholds_by_rank(
    threshold,  # One, or one a rank, the last for all further
    k: int,  # Ranks, the listing itself not counted
) -> np.ndarray:  # float64 (k,)
    "The cut of each rank."
    cuts = np.atleast_1d(np.asarray(threshold, np.float64))
    if cuts.ndim != 1 or not len(cuts): raise InputError(f'threshold of shape {cuts.shape}: give a number, or a list, one a rank')
    if np.isnan(cuts).any(): raise InputError('threshold is NaN')
    return cuts[np.minimum(np.arange(k), len(cuts) - 1)]


