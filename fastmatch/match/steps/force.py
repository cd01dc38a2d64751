"""Steps on matches that let in more, or fewer, than the threshold does: min2 and chisel.

Both assume that every listing has a match.
"""
import numpy as np

from ...core import InputError
from ..judge.groups import Groups
from ..matches import MAX_MATCHES, Matches, mask_of_matches, matches_from_mask
from ..neighbors import Neighbors, check_self_first


def min2(
    matches: Matches,  # As `decide` gave them
    neighbors: Neighbors,  # Candidates that they were chosen from
    threshold: float | None = None,  # Least score of a match that is forced; None: any
    mutual: bool = False,  # Force only where two listings are each other's nearest
    # Force only where the nearest scores higher than the second by this or more; a single candidate does
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


def shares(
    groups,  # (n,) the group of each listing
    max_matches: int = MAX_MATCHES,  # Larger groups count as this large
) -> list[float]:
    "The share of listings in groups of 2 or more, of 3 or more, ...: what `chisel` takes."
    sizes = np.minimum(Groups.of(groups).sizes, max_matches)
    return [float((sizes >= size).mean()) for size in range(2, sizes.max(initial=1) + 1)]


def chisel(
    matches: Matches,  # Not read: the distribution of sizes decides
    neighbors: Neighbors,  # Candidates
    # Share of listings with 2 matches or more (the listing itself included), with 3 or more, ...: see the
    # function `shares`
    shares,
) -> Matches:
    """As many matches as the group sizes known from training ask for, given to the listings with the highest
    scores.

    Rank by rank: of the listings that have a match at the rank before, the best-scoring ones get one more,
    until the share is reached (Kaggle Shopee, 18th place: .739 to .759). Assumes that the new listings'
    groups are as large as those of training.
    """
    shares = np.asarray(shares, np.float64)
    if shares.ndim != 1 or not ((shares >= 0) & (shares <= 1)).all() or (np.diff(shares) > 0).any():
        raise InputError(f'shares={shares.tolist()}: numbers from 0 to 1 that do not rise')
    check_self_first(neighbors, int(neighbors.ids.max(initial=0)) + 1)
    n_listings = len(neighbors.ids)
    is_match = np.zeros(neighbors.ids.shape, bool)
    is_match[:, 0] = True
    for rank, share in enumerate(shares[:neighbors.ids.shape[1] - 1], 1):
        is_possible = is_match[:, rank - 1] & (neighbors.ids[:, rank] >= 0)
        rank_scores = np.where(is_possible, neighbors.scores[:, rank], -np.inf)
        n_wanted = int(round(share * n_listings))
        # equal scores come in together or not at all
        last_left_out = -np.inf if n_wanted >= n_listings else np.sort(rank_scores)[::-1][n_wanted]
        is_match[:, rank] = (rank_scores > last_left_out) & (rank_scores > -np.inf)
    return matches_from_mask(neighbors, is_match)
