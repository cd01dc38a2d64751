"Steps that force matches."
import numpy as np

from ...core import InputError
from ..matches import MAX_MATCHES, Matches, mask_of_matches, matches_from_mask
from ..neighbors import Neighbors, check_self_first, group_codes


def min2(
    matches: Matches,  # As `decide` gave them
    neighbors: Neighbors,  # Candidates they were chosen from
    threshold: float | None = None,  # The nearest's least score; None: any
    mutual: bool = False,  # Only if it is each other's nearest
    gap: float | None = None,  # Only if it leads the next by this at least; a single candidate does
) -> Matches:
    "A listing without a match gets its nearest (Kaggle Shopee: 1st place; mutual, gap: 4th). Assumes that every listing has one: not for open catalogues."
    keep, (ids, scores) = mask_of_matches(matches, neighbors), neighbors
    for name, o in (('threshold', threshold), ('gap', gap)):
        if o is not None and not np.isfinite(o): raise InputError(f'{name}={o}: give a finite number, or None')
    if ids.shape[1] < 2: return matches
    force = (keep.sum(1) == 1) & (ids[:, 1] >= 0)
    if threshold is not None: force &= scores[:, 1].astype(np.float64) >= threshold
    if gap is not None and ids.shape[1] > 2:
        second = np.where(ids[:, 2] >= 0, scores[:, 2], np.finfo(np.float32).min)
        force &= (ids[:, 2] < 0) | (scores[:, 1].astype(np.float64) - second >= gap)
    if mutual: force &= ids[np.where((ids[:, 1] >= 0) & (ids[:, 1] < len(ids)), ids[:, 1], 0), 1] == np.arange(len(ids))
    keep[:, 1] |= force
    return matches_from_mask(neighbors, keep)


def shares(
    groups,  # (n,) groups
    max_matches: int = MAX_MATCHES,  # Sizes above count as this
) -> list[float]:
    "Which share of listings has a group of 2 or more, 3 or more, ...: what `chisel` takes."
    y = group_codes(groups, len(groups))
    size = np.minimum(np.bincount(y)[y], max_matches)
    return [float((size >= o).mean()) for o in range(2, size.max(initial=1) + 1)]


def chisel(
    matches: Matches,  # Not looked at: the distribution decides
    neighbors: Neighbors,  # Candidates
    shares,  # Of listings with 2 matches or more (itself included), 3 or more, ...: see `shares`
) -> Matches:
    "As many matches as the group sizes known from training say, to the listings whose scores say so loudest (Kaggle Shopee, 18th place)."
    shares = np.asarray(shares, np.float64)
    if shares.ndim != 1 or not ((shares >= 0) & (shares <= 1)).all() or (np.diff(shares) > 0).any():
        raise InputError(f'shares={shares.tolist()}: numbers from 0 to 1 that do not rise')
    check_self_first(neighbors, int(neighbors.ids.max(initial=0)) + 1)
    n, keep = len(neighbors.ids), np.zeros(neighbors.ids.shape, bool)
    keep[:, 0] = True
    for rank, share in enumerate(shares[:neighbors.ids.shape[1] - 1], 1):
        score = np.where(keep[:, rank - 1] & (neighbors.ids[:, rank] >= 0), neighbors.scores[:, rank], -np.inf)
        room = int(round(share * n))
        # equal scores come in together or not at all
        cut = -np.inf if room >= n else np.sort(score)[::-1][room]
        keep[:, rank] = (score > cut) & (score > -np.inf)
    return matches_from_mask(neighbors, keep)
