"The thresholds of one fusion: the highest pairs are searched first, others only if they could matter."
import numpy as np

from ....core import InputError
from ...fuse import fuse, fused_scores
from ...neighbors import Neighbors
from ..base import ROUNDING, ThresholdSearch, row_mask
from .choose import Chooser
from .level import Fusion
from .ordered import OrderedPairs

SAMPLE = 20_000  # scores from which it is estimated where the highest ones begin


class FlatSweep(ThresholdSearch):
    """The row F1 under every threshold of one fusion, as `Sweep` and `RankSweep` give it.

    Only the pairs with the highest scores are searched at first. The search ends when no threshold below
    them could do better, even if it let in all right pairs and no further wrong one. Otherwise more pairs
    are searched.

    Example (the three rows of `Flat`, fused by the mean). The pairs of the level score .6, .6, .55, .55 and
    .2. A pair that is left out scores .3 at most, so the four pairs above .3 are searched. The best threshold
    among them is .575, with a mean F1 of 1. Under a threshold below .3, the wrong pairs above .3 are in, and
    at best all right pairs are too: the rows have an F1 of 2*1/(1+1+1) = 2/3, 4/5 and 1 at most. That is less
    in sum, so the search ends without the other two pairs.
    """
    def __init__(
        self,
        flat,  # `Flat`
        fusion: Fusion,
        ranks: int,  # 1 or 2 thresholds
        max_matches: int,  # Most matches a row, itself included
    ):
        self.flat = flat
        self.fusion = fusion
        self.ranks = ranks
        self.max_matches = max_matches
        self.alone = 2 / (1 + flat.sizes)  # row F1 where nothing is let in
        self._depth = 0  # of the level
        self._room = flat.target  # about how many pairs to search
        self._load_level()

    @property
    def neighbors(self) -> Neighbors:
        "The candidates of all rows, fused."
        how, weights, join, power = self.fusion
        return fuse(self.flat.candidates, how, weights, join, power)

    def best(
        self,
        rows=None,  # bool (n,), the rows whose mean row F1 counts; default all rows of `flat`
    ) -> tuple:  # (threshold, or one for the nearest and one for all further; mean row F1)
        "The thresholds with the best mean row F1 over `rows`."
        flat = self.flat
        chosen_rows = np.ones(len(flat.rows), bool) if rows is None else row_mask(rows, flat.n)[flat.rows]
        if not chosen_rows.any(): raise InputError('rows: none is chosen')
        [(threshold, total, _)] = self._search(chosen_rows.astype(np.int64), np.array([[False, True]]))
        return threshold, float(total / chosen_rows.sum())

    def at(
        self,
        threshold,  # A threshold, or two, as `best` gives them
    ) -> np.ndarray:  # float64 (n,), NaN for rows that are not in `flat`
        "The row F1 of each row under these thresholds."
        nearest, further = (threshold, threshold) if np.ndim(threshold) == 0 else threshold
        while further < self.pairs.lowest and self._deepen(): pass
        pairs = self.pairs
        let_in = pairs.scores >= np.where(pairs.nearest, nearest, further)
        added_f1 = np.bincount(pairs.rows, np.where(let_in, pairs.gains, 0), len(self.alone))
        row_f1 = np.full(self.flat.n, np.nan)
        row_f1[self.flat.rows] = self.alone + added_f1
        return row_f1

    def crossed(
        self,
        sides,  # bool (n,) masks, ten at most: one for each halving of the rows
    ) -> float:
        "The mean row F1 of the rows of `flat`, each half of them under thresholds chosen on the other."
        # a row's code says on which side it is each time: all halvings are read from one table
        row_codes = sum(side[self.flat.rows].astype(np.int64) << halving
                        for halving, side in enumerate(sides))
        chosen = (np.arange(1 << len(sides)) >> np.arange(len(sides))[:, None] & 1).astype(bool)
        results = self._search(row_codes, np.concatenate([chosen, ~chosen]))
        return sum(elsewhere for _, _, elsewhere in results) / len(sides) / len(self.alone)

    def _search(self, row_codes, chosen):
        """Choose thresholds on several sets of rows, the rows of `chosen` (bool (s,codes)) each.

        For each set: the best thresholds, the sum of F1 of its rows under them, and that of all other rows.
        """
        alone_f1 = np.bincount(row_codes, self.alone, chosen.shape[1])
        while True:
            chooser = Chooser(self.pairs, row_codes, chosen.shape[1])
            results = []
            for of_codes in chosen:
                choice = chooser.best(of_codes)
                results.append((choice.threshold, alone_f1[of_codes].sum() + choice.gain,
                                alone_f1[~of_codes].sum() + choice.gain_elsewhere))
            if self._is_sure(row_codes, chosen, results) or not self._deepen(): return results

    def _is_sure(self, row_codes, chosen, results):
        "Whether no threshold below the scores searched could do better than the ones found."
        pairs = self.pairs
        if pairs.complete: return True
        at_most = np.bincount(row_codes, pairs.at_most, chosen.shape[1])
        for (threshold, total, _), of_codes in zip(results, chosen):
            further = np.atleast_1d(threshold)[-1]
            if not (further >= pairs.lowest and total >= at_most[of_codes].sum() - ROUNDING): return False
        return True

    def _load_level(self):
        "Fuse the pairs of the level, and work out the most that a pair left out of it can score."
        level = self.flat.level(self._depth)
        self._level_scores = fused_scores(level.pairs, *self.fusion)
        self._least = level.highest_left_out(self.fusion)
        # at a floor of 0 a threshold lets in all pairs: only scores above it need a search
        self._floored = self._least == 0 and self.fusion.floored
        if self._floored: self._least = float(np.nextafter(np.float32(0), np.float32(1)))
        self._look()

    def _look(self):
        "Put the highest pairs in order: about `_room` of them, but none that pairs left out could exceed."
        level_scores = self._level_scores
        lowest_score = self._least
        if len(level_scores) > self._room:
            sample = level_scores[::max(1, len(level_scores) // SAMPLE)]
            position = int(len(sample) * (1 - self._room / len(level_scores)))
            lowest_score = max(lowest_score, float(np.partition(sample, position)[position]))
        grounded = self._floored and lowest_score == self._least
        level = self.flat.level(self._depth)
        self.pairs = OrderedPairs(
            self.flat, level, level_scores, lowest_score, grounded, self.ranks, self.max_matches)

    def _deepen(self):
        "Search more pairs; False where all are searched already."
        if self.pairs.complete: return False
        if self.pairs.lowest > self._least:
            self._room *= 2
            self._look()
        else:
            self._depth += 1
            self._load_level()
        return True
