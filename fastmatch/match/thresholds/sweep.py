"The exact search for one threshold, or for one a rank, by sorting and summing."
import numpy as np

from ...core import InputError
from ..arrays import descending_bits
from ..decide import thresholds_by_rank
from ..judge.groups import Groups
from ..judge.score import hits
from ..matches import MAX_MATCHES
from ..neighbors import Neighbors, refuse_trained_on
from .base import BEYOND, ROUNDING, ThresholdSearch, first_of_best, row_mask, threshold_of_depth

PADDING = 0xff80  # the bucket of -inf, the score of padding; no real score's bucket is as large


class Sweep(ThresholdSearch):
    "The row F1 under every threshold: what each neighbor adds when the threshold falls to its score."
    def __init__(
        self,
        neighbors: Neighbors,  # Of a self-join
        groups,  # (n,) groups, or `Groups`; the true matches of a listing are its whole group
        max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
    ):
        if max_matches < 1: raise InputError(f'max_matches={max_matches}: 1 or more')
        self.neighbors = neighbors
        considered = neighbors.top(max_matches)
        n_listings, k = considered.ids.shape
        groups = Groups.of(groups, n_listings)
        right_so_far = hits(considered, groups.codes).cumsum(1, dtype=np.int32)
        # f1[i, m]: the F1 of row i with its m nearest others let in
        self.f1 = np.empty((n_listings, k))
        self.f1[:, 0] = 2 / (1 + groups.sizes)
        self.f1[:, 1:] = 2 * (1 + right_so_far) / (1 + np.arange(1, k) + groups.sizes[:, None])
        self.gains = np.diff(self.f1, axis=1)
        # float64 as in `decide`: in float32 a threshold between two close scores would round to one
        self.scores = considered.scores[:, 1:].astype(np.float64)
        self.buckets = _buckets(considered.scores[:, 1:])

    def best(
        self,
        rows=None,  # bool (n,), the rows whose mean row F1 counts; default all
    ) -> tuple[float, float]:  # (threshold, mean row F1)
        "The threshold with the best mean row F1 over `rows`, of equally good ones the highest."
        refuse_trained_on(self.neighbors.trained_on, 'choosing a threshold', rows=rows)
        alone_f1 = self.f1[:, 0] if rows is None else self.f1[rows, 0]
        if not len(alone_f1): raise InputError('rows: none is chosen')
        scores, gains, buckets = (array.ravel() if rows is None else array[rows].ravel()
                                  for array in (self.scores, self.gains, self.buckets))
        last_bucket = _last_bucket(buckets, gains)
        # where these rows have no neighbors it lies above the scores of all rows: json knows no infinity
        if last_bucket is None:
            highest_score = self.scores.max(initial=-np.inf)
            return (float(highest_score) if highest_score > -np.inf else 1.) + BEYOND, float(alone_f1.mean())
        is_possible = buckets <= last_bucket
        scores, gains = scores[is_possible], gains[is_possible]
        # which of two equal scores comes first does not matter: a threshold never falls between them
        best_first = np.argsort(-scores)
        scores, gains = scores[best_first], gains[best_first]
        totals = gains.cumsum()
        # equal scores come in together or not at all
        last_of_equal = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
        depth = first_of_best(totals[last_of_equal]) + 1
        best_total = totals[last_of_equal[depth - 1]]
        if best_total <= ROUNDING: depth = 0
        threshold = threshold_of_depth(scores[last_of_equal], depth)
        return threshold, float((alone_f1.sum() + best_total) / len(alone_f1) if depth else alone_f1.mean())

    def at(
        self,
        threshold: float,  # Scores from here on are let in
    ) -> np.ndarray:  # float64 (n,)
        "The row F1 of each row at `threshold`."
        # padding has the score -inf and is never let in
        let_in = (self.scores >= threshold) & (self.scores > -np.inf)
        return self.f1[np.arange(len(self.f1)), let_in.sum(1)]


def _buckets(
    scores: np.ndarray,  # float32, without NaN
) -> np.ndarray:  # uint16 of the same shape
    "The first 16 bits of a score, as a number that rises where the score falls; equal scores share a bucket."
    return (descending_bits(scores) >> 16).astype(np.uint16)


def _last_bucket(buckets, gains):
    "The last bucket that the best threshold can fall into: no more need sorting; None without scores."
    counts, totals, rises = (np.bincount(buckets, weights, PADDING)[:PADDING]
                             for weights in (None, gains, np.maximum(gains, 0)))
    if not counts.any(): return None
    bucket_ends = totals.cumsum()
    # A bucket may hold the best threshold if its gains without its losses reach the best sum at the end of
    # any bucket; 1e-6 is far above what rounding does to the sums. What follows the best sum always
    # qualifies, so the score next below the best threshold is kept as well.
    return np.flatnonzero(bucket_ends - totals + rises >= max(0., bucket_ends.max()) - 1e-6)[-1]


class RankSweep(Sweep):
    "The row F1 under thresholds that rise with the rank: for the nearest, the next, ..., all further ones."
    def __init__(
        self,
        neighbors: Neighbors,  # Of a self-join
        groups,  # (n,) groups, or `Groups`
        ranks: int = 2,  # How many thresholds; 2: the main one, and a lower one for the nearest (min2)
        max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
    ):
        super().__init__(neighbors, groups, max_matches)
        if not isinstance(ranks, (int, np.integer)) or ranks < 1:
            raise InputError(f'ranks={ranks!r}: give a whole number from 1')
        self.ranks = int(ranks)

    def best(
        self,
        rows=None,  # bool (n,), the rows whose mean row F1 counts; default all
    ) -> tuple[tuple, float]:  # (thresholds, mean row F1)
        "The thresholds with the best mean row F1 over `rows`, of equally good ones the highest."
        refuse_trained_on(self.neighbors.trained_on, 'choosing thresholds', rows=rows)
        alone_f1, scores, gains = (array if rows is None else array[rows]
                                   for array in (self.f1[:, 0], self.scores, self.gains))
        if not len(alone_f1): raise InputError('rows: none is chosen')
        not_padding = scores > -np.inf
        distinct_scores, places = np.unique(scores[not_padding], return_inverse=True)
        if not len(distinct_scores): return (super().best(rows)[0],) * self.ranks, float(alone_f1.mean())
        places = len(distinct_scores) - 1 - places
        ranks = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
        pair_ranks = np.minimum(ranks[not_padding], self.ranks - 1)
        worth_by_rank = self._worth(places, pair_ranks, gains[not_padding], len(distinct_scores))
        depths, deepest = [], len(distinct_scores)
        for rank_worth in worth_by_rank:
            deepest = first_of_best(rank_worth[:deepest + 1])
            depths.append(deepest)
        thresholds = tuple(threshold_of_depth(distinct_scores[::-1], depth) for depth in depths)
        return thresholds, float((alone_f1.sum() + worth_by_rank[0][depths[0]]) / len(alone_f1))

    def _worth(self, places, pair_ranks, gains, n_scores):
        "For each rank, what the highest 0, 1, ... `n_scores` scores add, with the best of all later ranks."
        # with thresholds that rise, what is let in of a row is always its first neighbors: what a rank adds
        # depends on its own threshold alone
        worth_by_rank = []
        for rank in range(self.ranks):
            gain_by_place = np.bincount(places[pair_ranks == rank], gains[pair_ranks == rank], n_scores)
            worth_by_rank.append(np.concatenate([[0], gain_by_place.cumsum()]))
        # later ranks let in no lower scores than earlier ones: the best of them within each depth
        for rank in range(self.ranks - 2, -1, -1):
            best_of_later = np.maximum.accumulate(worth_by_rank[rank + 1])
            worth_by_rank[rank] = worth_by_rank[rank] + best_of_later
        return worth_by_rank

    def at(
        self,
        threshold,  # One threshold a rank, as `best` gives them
    ) -> np.ndarray:  # float64 (n,)
        "The row F1 of each row under these thresholds; raises `InputError` where they fall with the rank."
        thresholds = thresholds_by_rank(threshold, self.scores.shape[1])
        if (np.diff(thresholds) < 0).any():
            raise InputError(f'threshold={list(threshold)}: give thresholds that do not fall with the rank')
        let_in = (self.scores >= thresholds) & (self.scores > -np.inf)
        return self.f1[np.arange(len(self.f1)), let_in.sum(1)]


def best_threshold(
    neighbors: Neighbors,  # Of a self-join
    groups,  # (n,) groups, or `Groups`
    rows=None,  # bool (n,) or row numbers, the rows whose mean row F1 counts; default all
    max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
) -> tuple[float, float]:  # (threshold, mean row F1)
    "The threshold with the best mean row F1, midway between the last score let in and the first left out."
    sweep = Sweep(neighbors, groups, max_matches)
    return sweep.best(None if rows is None else row_mask(rows, len(neighbors.ids)))


def best_by_rank(
    neighbors: Neighbors,  # Of a self-join
    groups,  # (n,) groups, or `Groups`
    ranks: int = 2,  # How many thresholds; 2: the main one, and a lower one for the nearest (min2)
    rows=None,  # bool (n,) or row numbers, the rows whose mean row F1 counts; default all
    max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
) -> tuple[tuple, float]:  # (thresholds, mean row F1)
    "The best thresholds that rise with the rank, as `decide` takes them; two: `min2` and the main one."
    sweep = RankSweep(neighbors, groups, ranks, max_matches)
    return sweep.best(None if rows is None else row_mask(rows, len(neighbors.ids)))
