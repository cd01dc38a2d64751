"Choosing the threshold, or the two, under which some rows have the best mean F1, from the gains of pairs."
from dataclasses import dataclass

import numpy as np

from ..base import BEYOND, ROUNDING, first_of_best, threshold_of_depth

# kinds of pairs, where the nearest of a row has a threshold of its own; with one threshold for all, every
# pair is of kind 0
FURTHER, NEAREST = 0, 1


@dataclass
class Choice:
    "A threshold, and what the pairs that it lets in add to the sum of row F1."
    threshold: float | tuple  # Or (of the nearest, of all further); -inf: below all pairs searched
    gain: float  # Over the rows it was chosen on
    gain_elsewhere: float  # Over all other rows


class Chooser:
    """The best thresholds for any choice of rows.

    The gain of a pair is what it adds to its row's F1. A threshold lets in all pairs that reach it, so
    the best one is where the sum of gains, from the highest score down, is largest. Gains are summed by
    bucket first, a bucket being a small range of scores (see `OrderedPairs`). Pairs are sorted only in the
    buckets where the largest sum can be.

    Held-out scores choose thresholds on many halves of the rows. To read all of them from one table of sums,
    each row has a code, and rows are chosen by code: bit i of it says on which side of halving i the row is.

    Example with one threshold (the pairs of `OrderedPairs`, all rows chosen). From the highest score down,
    the pairs 1-2 and 2-1 (.6) add 2/3, then 0-1 and 1-0 (.55) add -1/3 - 1/5. The largest sum, 2/3, is after
    .6, and the threshold lies midway to the next score: (.6 + .55)/2 = .575.

    Example with two thresholds, one for the nearest of each row and one for all further candidates. Of the
    nearest, 1-2 and 2-1 add 2/3 and 0-1 adds -1/3: the threshold is .575. Of the further ones there is 1-0,
    which adds -1/5: it is kept out by a threshold above it, .551. But the threshold of the nearest must not
    be the higher one. So both are chosen together (`_together`): .575 and .601, which let in the same pairs.
    """
    def __init__(
        self,
        pairs,  # `OrderedPairs`
        code: np.ndarray,  # int (rows,), the code of each row, from 0
        n_codes: int,  # All codes are below it
    ):
        self.pairs = pairs
        self.code = code
        # pairs are sorted by row, so this equals code[row], quicker
        self.codes = np.repeat(code, pairs.count)
        n_cells = len(pairs.cell_starts) - 1
        cell_and_code = pairs.cell * n_codes + self.codes
        shape = -1, pairs.n_buckets, n_codes
        gains, rises = (np.bincount(cell_and_code, array, n_cells * n_codes).reshape(shape)
                        for array in (pairs.gains, np.maximum(pairs.gains, 0)))
        self.kinds = [KindOfPairs(self, kind, gains[kind], rises[kind]) for kind in range(len(gains))]

    def best(
        self,
        chosen: np.ndarray,  # bool (codes,), the rows to choose on
    ) -> Choice:
        "The best threshold, or the best two that do not fall with the rank."
        if len(self.kinds) == 1: return self.kinds[0].best(chosen)
        further, nearest = (kind.best(chosen) for kind in self.kinds)
        if nearest.threshold > further.threshold > -np.inf: return self._together(chosen)
        return Choice((nearest.threshold, further.threshold), nearest.gain + further.gain,
                      nearest.gain_elsewhere + further.gain_elsewhere)

    def _together(self, chosen):
        """The best two thresholds of which that of the nearest is not the higher one.

        A depth is how many different scores, from the highest down, a threshold lets in. For each depth of
        the nearest, that of the further pairs is the best of those that are not deeper.
        """
        pairs = self.pairs
        is_chosen = chosen[self.codes]
        by_score = np.argsort(pairs.bits[is_chosen])
        scores, gains, nearest = (array[is_chosen][by_score]
                                  for array in (pairs.scores, pairs.gains, pairs.nearest))
        last_of_equal = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
        of_nearest, of_further = (np.append(0, np.where(of_kind, gains, 0).cumsum()[last_of_equal])
                                  for of_kind in (nearest, ~nearest))
        totals = of_nearest + np.maximum.accumulate(of_further)
        nearest_depth = first_of_best(totals)
        depths = nearest_depth, first_of_best(of_further[:nearest_depth + 1])
        thresholds = tuple(threshold_of_depth(scores[last_of_equal], of_rank) for of_rank in depths)
        elsewhere = (pairs.scores >= np.where(pairs.nearest, *thresholds)) & ~is_chosen
        return Choice(thresholds, totals[nearest_depth], pairs.gains[elsewhere].sum())


class KindOfPairs:
    "The pairs that share a threshold: all of them, only the nearest of each row, or only the further ones."
    def __init__(
        self,
        chooser: Chooser,
        kind: int,  # `FURTHER` or `NEAREST`
        gains: np.ndarray,  # float64 (buckets, codes), what the pairs of a bucket add
        rises: np.ndarray,  # float64 (buckets, codes), the same without losses
    ):
        self.pairs = chooser.pairs
        self.code = chooser.code
        self.codes = chooser.codes
        self.kind = kind
        self.gains = gains
        self.rises = rises
        n_buckets = len(gains)
        self.starts = self.pairs.cell_starts[kind * n_buckets:(kind + 1) * n_buckets + 1]

    def best(
        self,
        chosen: np.ndarray,  # bool (codes,), the rows to choose on
    ) -> Choice:
        "The threshold with the largest sum of gains in the chosen rows; the highest of those that are equal."
        scores, totals, buckets = self._possible(chosen)
        if not len(totals) or totals.max() <= ROUNDING: return self._none_let_in(chosen)
        position = first_of_best(totals)
        score, bucket = scores[position], buckets[position]
        near_pairs, scores_below = self._next_below(chosen, score, bucket)
        if len(scores_below): threshold = float(score + scores_below.max()) / 2
        else: threshold = self._below_all(chosen, score)
        elsewhere = near_pairs[~chosen[self.codes[near_pairs]] & (self.pairs.scores[near_pairs] >= threshold)]
        gain_elsewhere = self.gains[:bucket, ~chosen].sum() + self.pairs.gains[elsewhere].sum()
        return Choice(threshold, float(totals[position]), float(gain_elsewhere))

    def _possible(self, chosen):
        """The scores of chosen rows that may be the lowest which the best threshold lets in.

        Three arrays, highest score first: the scores, the sum of gains down to each, and its bucket.
        """
        pairs = self.pairs
        in_bucket = self.gains[:, chosen].sum(1)
        bucket_ends = in_bucket.cumsum()
        total_before = bucket_ends - in_bucket
        # a bucket can hold the best threshold only where the sum before it, with its gains and without its
        # losses, reaches the best sum at any bucket's end; 1e-6 is far above what rounding does to the sums
        is_possible = total_before + self.rises[:, chosen].sum(1) >= max(0., bucket_ends.max()) - 1e-6
        positions = self._within(0, len(bucket_ends))[np.repeat(is_possible, np.diff(self.starts))]
        positions = positions[chosen[self.codes[positions]]]
        positions = positions[np.argsort(pairs.bits[positions])]
        scores, buckets = pairs.scores[positions], pairs.bucket[positions]
        totals = pairs.gains[positions].cumsum()
        totals += total_before[buckets] - np.append(0, totals)[np.searchsorted(buckets, buckets)]
        # equal scores come in together or not at all
        last_of_equal = np.append(scores[1:] != scores[:-1], True)[:len(scores)]
        return scores[last_of_equal], totals[last_of_equal], buckets[last_of_equal]

    def _none_let_in(self, chosen):
        "No pair of the chosen rows is worth letting in: a threshold above them all."
        pairs = self.pairs
        all_pairs = self._within(0, len(self.gains))
        chosen_scores = pairs.scores[all_pairs[chosen[self.codes[all_pairs]]]]
        if len(chosen_scores): highest = chosen_scores.max()
        else: highest = pairs.scores.max(initial=-np.inf if len(pairs.scores) else 1.)
        threshold = float(highest) + BEYOND
        elsewhere = all_pairs[pairs.scores[all_pairs] >= threshold]
        return Choice(threshold, 0., float(pairs.gains[elsewhere].sum()))

    def _next_below(self, chosen, score, bucket):
        """The pairs near `score`, and which scores of chosen rows among them are below it.

        The pairs are those of `bucket`, and of as many lower buckets as are needed to find such a score.
        """
        n_buckets = 1
        while True:
            near_pairs = self._within(bucket, bucket + n_buckets)
            scores_below = self.pairs.scores[near_pairs[chosen[self.codes[near_pairs]]]]
            scores_below = scores_below[scores_below < score]
            if len(scores_below) or bucket + n_buckets > len(self.gains): return near_pairs, scores_below
            n_buckets *= 4

    def _below_all(self, chosen, score):
        """A threshold below `score`, the lowest score of the chosen rows that was searched; -inf where it is
        not known which scores come next."""
        pairs = self.pairs
        if pairs.complete or self.kind == NEAREST: return float(score) - BEYOND
        if not pairs.grounded: return -np.inf
        # what is below lies on the floor, 0, if these rows have more pairs than were searched
        return float(score) / 2 if pairs.left_out[chosen[self.code]].any() else float(score) - BEYOND

    def _within(self, first, end):
        "The pairs of this kind in the buckets from `first` to `end`, without `end`."
        return self.pairs.by_cell[self.starts[first]:self.starts[min(end, len(self.starts) - 1)]]
