"The decision: what a cut lets in, what is forced in beyond it, and the matches that are left."
from dataclasses import dataclass

import numpy as np

from ..core import InputError, some
from .neighbors import Neighbors, check_k, check_self, label_codes

MAX_MATCHES = 50  # the competition's limit, the listing itself included


@dataclass
class Matches:
    "For each row its matches, itself first, best first: row i's are `ids[indptr[i]:indptr[i+1]]`."
    indptr: np.ndarray  # int64 (n+1,)
    ids: np.ndarray  # int64 (m,)
    scores: np.ndarray  # float32 (m,)

    def __len__(self): return len(self.indptr) - 1
    def __getitem__(self, i):
        i = range(len(self))[i]  # from the end as well
        return self.ids[self.indptr[i]:self.indptr[i + 1]]

    def __iter__(self): return iter(np.split(self.ids, self.indptr[1:-1]))

    def head(
        self,
        n: int,  # Rows to keep
    ) -> 'Matches':
        "The first `n` rows."
        end = self.indptr[n]
        return Matches(self.indptr[:n + 1], self.ids[:end], self.scores[:end])

    def to_frame(
        self,
        posting_ids,  # (n,) what names each listing; (m,) with the catalogue's behind where matches point there
    ):
        "The competition's table: posting_id and its matches, blank-separated."
        import pandas as pd
        names = np.asarray(posting_ids).astype(str)
        if len(names) != len(self) and len(names) <= self.ids.max(initial=-1): raise InputError(f'posting_ids: {len(names)} for {len(self)} rows')
        return pd.DataFrame({'posting_id': names[:len(self)], 'matches': [' '.join(names[o]) for o in self]})


def decide(
    neighbors: Neighbors,  # Self-join, or new listings in a `Pool`
    threshold,  # Scores from here on are let in; or several: of the nearest, of the next, ..., the last also of all further
    max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
    pool: int | None = None,  # Listings that ids may point to; default as many as there are rows
) -> Matches:
    "Each listing with the neighbours at or above `threshold`; itself always."
    cuts = by_rank(threshold, neighbors.ids.shape[1] - 1)
    check_self(neighbors, pool)
    # no cut lets it in and none leaves it out
    lost = (np.isnan(neighbors.scores) & (neighbors.ids >= 0)).any(1)
    if lost.any(): raise InputError(f'neighbors: rows {some(np.flatnonzero(lost))} have a score that is NaN')
    nb = neighbors.top(max_matches)
    keep = nb.ids >= 0
    keep[:, 1:] &= nb.scores[:, 1:].astype(np.float64) >= cuts[:nb.ids.shape[1] - 1]
    keep[:, 0] = True
    return from_grid(nb, keep)


def by_rank(
    threshold,  # One, or one a rank, the last for all further
    k: int,  # Ranks, the listing itself not counted
) -> np.ndarray:  # float64 (k,)
    "The cut of each rank."
    cuts = np.atleast_1d(np.asarray(threshold, np.float64))
    if cuts.ndim != 1 or not len(cuts): raise InputError(f'threshold of shape {cuts.shape}: give a number, or a list, one a rank')
    if np.isnan(cuts).any(): raise InputError('threshold is NaN')
    return cuts[np.minimum(np.arange(k), len(cuts) - 1)]


def from_grid(
    neighbors: Neighbors,  # Candidates
    keep: np.ndarray,  # bool (n,k), which of them match
) -> Matches:
    "The kept candidates as matches."
    return Matches(np.concatenate([[0], keep.sum(1).cumsum()]).astype(np.int64), neighbors.ids[keep], neighbors.scores[keep])


def as_grid(
    matches: Matches,  # Of the same rows
    neighbors: Neighbors,  # Candidates
) -> np.ndarray:  # bool (n,k)
    "Which candidates match."
    n = len(matches)
    if n != len(neighbors.ids): raise InputError(f'matches of {n} rows, neighbors of {len(neighbors.ids)}')
    width = max(int(neighbors.ids.max(initial=0)), int(matches.ids.max(initial=0))) + 1
    rows = np.repeat(np.arange(n), np.diff(matches.indptr))
    keep = np.isin(np.arange(n)[:, None] * width + neighbors.ids, rows * width + matches.ids) & (neighbors.ids >= 0)
    if keep.sum() != len(rows): raise InputError('matches: some are not among the neighbors')
    return keep


def at_most(
    matches: Matches,
    k: int,  # Matches a row, itself included
) -> Matches:
    "The first `k` matches of each row."
    check_k(k)
    count = np.diff(matches.indptr)
    keep = np.arange(len(matches.ids)) - np.repeat(matches.indptr[:-1], count) < k
    return Matches(np.concatenate([[0], np.minimum(count, k).cumsum()]).astype(np.int64), matches.ids[keep], matches.scores[keep])


def min2(
    matches: Matches,  # As `decide` gave them
    neighbors: Neighbors,  # Candidates they were chosen from
    threshold: float | None = None,  # The nearest's least score; None: any
    mutual: bool = False,  # Only if it is each other's nearest
    gap: float | None = None,  # Only if it leads the next by this at least; a single candidate does
) -> Matches:
    "A listing without a match gets its nearest (Kaggle Shopee: 1st place; mutual, gap: 4th). Assumes that every listing has one: not for open catalogues."
    keep, (ids, scores) = as_grid(matches, neighbors), neighbors
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
    return from_grid(neighbors, keep)


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


def shares(
    labels,  # (n,) groups
    max_matches: int = MAX_MATCHES,  # Sizes above count as this
) -> list[float]:
    "Which share of listings has a group of 2 or more, 3 or more, ...: what `chisel` takes."
    y = label_codes(labels, len(labels))
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
    check_self(neighbors, int(neighbors.ids.max(initial=0)) + 1)
    n, keep = len(neighbors.ids), np.zeros(neighbors.ids.shape, bool)
    keep[:, 0] = True
    for rank, share in enumerate(shares[:neighbors.ids.shape[1] - 1], 1):
        score = np.where(keep[:, rank - 1] & (neighbors.ids[:, rank] >= 0), neighbors.scores[:, rank], -np.inf)
        room = int(round(share * n))
        # equal scores come in together or not at all
        cut = -np.inf if room >= n else np.sort(score)[::-1][room]
        keep[:, rank] = (score > cut) & (score > -np.inf)
    return from_grid(neighbors, keep)
