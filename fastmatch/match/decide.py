"The decision: which neighbors of a listing score high enough to be its matches."
import numpy as np

from ..core import InputError, preview
from .matches import MAX_MATCHES, Matches, matches_from_mask
from .neighbors import Neighbors, check_self_first


def decide(
    neighbors: Neighbors,  # Of a self-join, or of new listings in a `Pool`
    # Neighbors with this score or more match; several: one for the nearest, one for the next, ..., the last
    # for all further
    threshold,
    max_matches: int = MAX_MATCHES,  # Most matches of a row, the listing itself included
    pool: int | None = None,  # Number of listings that ids may point to; default as many as there are rows
) -> Matches:
    "Each listing with its neighbors at or above `threshold`; the listing itself is always among its matches."
    thresholds = thresholds_by_rank(threshold, neighbors.ids.shape[1] - 1)
    check_self_first(neighbors, pool)
    # a score that is NaN is neither above nor below any threshold
    not_a_number = (np.isnan(neighbors.scores) & (neighbors.ids >= 0)).any(1)
    if not_a_number.any():
        raise InputError(f'neighbors: rows {preview(np.flatnonzero(not_a_number))} have a score that is NaN')
    nearest = neighbors.top(max_matches)
    is_match = nearest.ids >= 0
    # float64, as the thresholds: in float32 a threshold between two neighboring scores would be rounded to
    # one of them
    is_match[:, 1:] &= nearest.scores[:, 1:].astype(np.float64) >= thresholds[:nearest.ids.shape[1] - 1]
    is_match[:, 0] = True
    return matches_from_mask(nearest, is_match)


def cut_short(
    neighbors: Neighbors,  # Candidates of each row, as `decide` took them
    matches: Matches,  # That `decide` made of them
    threshold: float,  # Neighbors with this score or more match
    max_matches: int,  # Most matches of a row, the listing itself included
    k: int,  # Candidates searched in each modality, the listing itself included
    searched: int,  # Listings that each one is compared with, itself included
) -> np.ndarray:  # bool (n,)
    """The rows that may match more listings than they were given: further candidates reach the threshold, or
    as many match as were searched, where there are others."""
    match_counts = np.diff(matches.indptr)
    is_cut = (match_counts >= k) & (match_counts < searched)
    # best first: where the first one left out is below the threshold, all others are
    if neighbors.ids.shape[1] > max_matches:
        is_cut |= neighbors.scores[:, max_matches].astype(np.float64) >= threshold
    return is_cut


def thresholds_by_rank(
    threshold,  # A number, or a list of numbers: one a rank, the last for all further ranks
    k: int,  # Number of ranks, the listing itself not counted
) -> np.ndarray:  # float64 (k,)
    "The threshold of each rank; raises `InputError` for NaN or for something that is no list of numbers."
    thresholds = np.atleast_1d(np.asarray(threshold, np.float64))
    if thresholds.ndim != 1 or not len(thresholds):
        raise InputError(f'threshold of shape {thresholds.shape}: give a number, or a list, one a rank')
    if np.isnan(thresholds).any(): raise InputError('threshold is NaN')
    return thresholds[np.minimum(np.arange(k), len(thresholds) - 1)]
