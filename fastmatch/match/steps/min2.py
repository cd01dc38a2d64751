"""min2: a step on matches that forces a listing without any match to have one.

It assumes that every listing has a match, as in Kaggle's Shopee contest.
"""
import numpy as np

from ...core import InputError
from ..matches import Matches, mask_of_matches, matches_from_mask
from ..neighbors import Neighbors


def min2(
    matches: Matches,  # As `decide` gave them
    neighbors: Neighbors,  # Candidates that they were chosen from
    threshold: float | None = None,  # Least score of a match that is forced; None: any
    mutual: bool = False,  # Force only where two listings are each other's nearest
    # Force only where the nearest scores higher than the second by this or more; a single candidate is enough
    gap: float | None = None,
) -> Matches:
    """A listing without any match is given its nearest neighbor as a match.

    Used by several teams of Kaggle's Shopee contest (1st place; with `mutual` and `gap` the 4th). It pays
    where the forced match is right more than one time in three, and assumes that every listing has a match:
    not for open catalogues.
    """
    for option, number in (('threshold', threshold), ('gap', gap)):
        if number is not None and not np.isfinite(number):
            raise InputError(f'{option}={number}: give a finite number, or None')
    is_match = mask_of_matches(matches, neighbors)
    ids, scores = neighbors
    if ids.shape[1] < 2: return matches
    is_forced = (is_match.sum(1) == 1) & (ids[:, 1] >= 0)
    if threshold is not None: is_forced &= scores[:, 1].astype(np.float64) >= threshold
    if gap is not None and ids.shape[1] > 2:
        second_score = np.where(ids[:, 2] >= 0, scores[:, 2], np.finfo(np.float32).min)
        is_forced &= (ids[:, 2] < 0) | (scores[:, 1].astype(np.float64) - second_score >= gap)
    if mutual: is_forced &= _is_mutual_nearest(ids)
    is_match[:, 1] |= is_forced
    return matches_from_mask(neighbors, is_match)


def _is_mutual_nearest(neighbor_ids):
    "For each row of candidates (n,k) whether its nearest neighbor's nearest is the row itself: bool (n,)."
    nearest = neighbor_ids[:, 1]
    has_row = (nearest >= 0) & (nearest < len(neighbor_ids))  # padding and listings of a catalogue have none
    return has_row & (neighbor_ids[np.where(has_row, nearest, 0), 1] == np.arange(len(neighbor_ids)))
