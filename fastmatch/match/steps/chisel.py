"""chisel: a step on matches that gives listings as many matches as the group sizes of training ask for.

It assumes that new listings come in groups as large as those of training.
"""
import numpy as np

from ...core import InputError
from ..judge.groups import Groups
from ..matches import MAX_MATCHES, Matches, matches_from_mask
from ..neighbors import Neighbors, check_self_first


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
    until the share is reached (Kaggle Shopee, 18th place: F1 from .739 to .759). Assumes that the new
    listings' groups are as large as those of training.
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
