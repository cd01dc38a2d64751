"""The search behind `UnionSweep`: the best two thresholds, one for each of two modalities.

A pair of listings is let in where its score reaches the threshold in at least one of the two modalities. All
combinations of the two thresholds are compared. Only the order of the scores matters, so a threshold is given
as its depth: how many different scores, counted from the highest, it lets in.

To compare them quickly, the first modality's threshold falls from score to score. At each score a few pairs
come in, and F1 changes in the rows of these pairs only. They are worked out anew, many scores together (a
block). All other rows are one array, kept up to date: their sum of F1 at each depth of the second modality.
"""
from dataclasses import dataclass

import numpy as np

from ...core import InputError
from ..arrays import rank_within_row
from .base import ROUNDING, first_of_best

BLOCK = 128  # pairs that the first modality lets in between two passes over the second
TURNS = 6  # improvements of one threshold at a time that come before the search, from either modality


@dataclass
class Depths:
    "Two thresholds as depths, and what they are worth."
    first: int  # Different scores of the first modality that are let in
    second: int  # The same of the second
    total: float  # Sum of row F1


@dataclass
class Places:
    """The scores of one modality, replaced by their places: 0 for the highest score, 1 for the next, and so
    on. Equal scores have the same place.

    Depth d lets in the pairs with places 0 to d - 1. Example: the scores .9 .4 .9 .7 have the places 0 2 0 1,
    and depth 2 lets in all but the .4.
    """
    values: np.ndarray  # float64 (v,), the different scores, highest first
    of_pair: np.ndarray  # int (n,k); v for padding and for pairs that are in anyway: no depth lets v in

    @classmethod
    def of(cls, scores, free):
        "The places of `scores` (n,k), where `free` says which pairs a threshold decides."
        values, value_index = np.unique(scores[free], return_inverse=True)
        places = np.full(scores.shape, len(values))
        places[free] = len(values) - 1 - value_index
        return cls(values[::-1], places)


class UnionSearch:
    "The best pair of depths for some rows; `run` finds it."
    def __init__(
        self,
        first: np.ndarray,  # float64 (n,k), scores of each row's candidates in the first modality
        second: np.ndarray,  # float64 (n,k), those in the second
        right: np.ndarray,  # bool (n,k), candidates of the row's group
        real: np.ndarray,  # bool (n,k), candidates that are not padding
        always: np.ndarray,  # bool (n,k), candidates let in whatever the thresholds
        sizes: np.ndarray,  # int (n,), the size of each row's group
    ):
        if not len(sizes): raise InputError('rows: none is chosen')
        self.right = right
        self.always = always
        self.sizes = sizes
        self.free = real & ~always
        self.first = Places.of(first, self.free)
        self.second = Places.of(second, self.free)
        # the candidates of each row in the order in which the second modality lets them in
        self.order = np.argsort(self.second.of_pair, axis=1, kind='stable')
        self.sorted_places, self.sorted_right, self.sorted_free = (
            np.take_along_axis(array, self.order, 1) for array in (self.second.of_pair, right, self.free))

    def run(self) -> Depths:
        "The depths with the best sum of row F1."
        least_total = self._reached_by_turns()
        first_limit = self._deepest(self.first, least_total)
        self.limit = self._deepest(self.second, least_total)
        self.sorted_free &= self.sorted_places < self.limit
        self._start()
        totals = self.base + np.concatenate([[0], self.added.cumsum()])
        second_depth = first_of_best(totals)
        best = Depths(0, second_depth, float(totals[second_depth]))
        pair_rows, pair_columns = np.nonzero(self.free & (self.first.of_pair < first_limit))
        places = self.first.of_pair[pair_rows, pair_columns]
        by_place = np.argsort(places, kind='stable')
        pair_rows, places = pair_rows[by_place], places[by_place]
        block_start = 0
        while block_start < len(pair_rows):
            # pairs of one score come in together
            last_place = places[min(block_start + BLOCK, len(pair_rows)) - 1]
            block_end = np.searchsorted(places, last_place, 'right')
            best = self._try_block(best, pair_rows[block_start:block_end], places[block_start:block_end])
            block_start = block_end
        return best

    def _reached_by_turns(self):
        """A sum of row F1 that is known to be reached, so that depths which can't reach it need no trial.

        It is found by choosing the best depth of one modality while the other's stays, by turns.
        """
        least_total = -np.inf
        modalities = self.first, self.second
        for starts_with in (0, 1):
            let_in = self.always
            for turn in range(TURNS):
                modality = modalities[(starts_with + turn) % 2]
                depth, total = self._best_depth(modality, let_in)
                let_in = self.always | (self.free & (modality.of_pair < depth))
                least_total = max(least_total, total)
        return least_total

    def _best_depth(self, modality, let_in):
        "The best depth of one modality where the pairs `let_in` (n,k) are in anyway: (depth, sum of row F1)."
        by_place = np.argsort(modality.of_pair, axis=1, kind='stable')
        inside, right, places = (np.take_along_axis(array, by_place, 1)
                                 for array in (let_in, self.right, modality.of_pair))
        n_values = len(modality.values)
        let_in_later = ~inside & (places < n_values)
        f1_by_step = self._f1_by_step(inside, let_in_later, right, self.sizes)
        gains = np.diff(f1_by_step, axis=1)
        added_by_place = np.bincount(places[let_in_later], gains[let_in_later], n_values)
        totals = f1_by_step[:, 0].sum() + np.concatenate([[0], added_by_place.cumsum()])
        return first_of_best(totals), float(totals.max())

    @staticmethod
    def _f1_by_step(inside, let_in_later, right, sizes):
        """Row F1 (s,k+1) of s rows while pairs come in one after the other.

        Column 0 is the F1 with the pairs `inside` (s,k) alone. Column j is the F1 once those of
        `let_in_later` (s,k) in the first j columns are in as well.
        """
        base_right = (inside & right).sum(1)
        base_count = inside.sum(1)
        right_by_step = base_right[:, None] + (let_in_later & right).cumsum(1)
        count_by_step = base_count[:, None] + let_in_later.cumsum(1)
        base_f1 = 2 * (1 + base_right) / (1 + base_count + sizes)
        later_f1 = 2 * (1 + right_by_step) / (1 + count_by_step + sizes[:, None])
        return np.concatenate([base_f1[:, None], later_f1], 1)

    def _deepest(self, modality, least_total):
        """The deepest depth of `modality` that could still reach `least_total`, whatever the other's depth.

        The most that a depth can reach is the sum of F1 with all right pairs in, and no wrong pairs but those
        that are in anyway or that this depth lets in.
        """
        n = len(self.sizes)
        right_count = (self.right & (self.free | self.always)).sum(1)
        wrong_anyway = (self.always & ~self.right).sum(1)
        has_place = modality.of_pair < len(modality.values)
        wrong_rows, wrong_columns = np.nonzero(~self.right & self.free & has_place)
        places = modality.of_pair[wrong_rows, wrong_columns]
        by_row_and_place = np.lexsort((places, wrong_rows))
        wrong_rows, places = wrong_rows[by_row_and_place], places[by_row_and_place]
        wrong_before = wrong_anyway[wrong_rows] + rank_within_row(np.bincount(wrong_rows, minlength=n))
        def f1(rows, wrong_count):
            right = right_count[rows]
            return 2 * (1 + right) / (1 + right + wrong_count + self.sizes[rows])
        losses = f1(wrong_rows, wrong_before + 1) - f1(wrong_rows, wrong_before)
        lost_by_depth = np.bincount(places, losses, len(modality.values)).cumsum()
        possible = np.flatnonzero(f1(np.arange(n), wrong_anyway).sum() + lost_by_depth >= least_total - 1e-6)
        return int(possible[-1]) + 1 if len(possible) else 0

    def _start(self):
        "Set the sums that are kept up to date to what they are before the first modality lets in anything."
        all_rows = np.arange(len(self.sizes))
        base_f1, gains = self.states(all_rows, self.always)
        self.base = base_f1.sum()  # the sum of row F1 where the second modality lets in nothing
        self.added = self._by_place(all_rows, gains)  # (limit,), what each of its places adds

    def states(self, rows, let_in):
        """The F1 (s,) of `rows` (s,) with the pairs `let_in` (s,k) alone, and what each other pair adds to it
        when the second modality lets it in (s,k).

        The columns of the second array are in the order in which the second modality lets pairs in.
        """
        inside = np.take_along_axis(let_in, self.order[rows], 1)
        let_in_later = self.sorted_free[rows] & ~inside
        f1_by_step = self._f1_by_step(inside, let_in_later, self.sorted_right[rows], self.sizes[rows])
        return f1_by_step[:, 0], np.diff(f1_by_step, axis=1)

    def _by_place(self, rows, gains):
        "The sum of the gains (s,k) of `rows` (s,) at each place of the second modality: (limit,)."
        undecided = self.sorted_free[rows]
        return np.bincount(self.sorted_places[rows][undecided], gains[undecided], self.limit)

    def _try_block(self, best, rows, places):
        """Let in some pairs of the first modality, given by their `rows` and `places`: the better of `best`
        and the best depths after any of these places, with any depth of the second modality."""
        block = Block(self, rows, places)
        before, after = block.is_before, block.is_last
        added_before = self._by_place(block.rows[before], block.gains[before])
        base_before = block.base[before].sum()
        # what all rows outside the block are worth at each second depth
        others = self.base - base_before + np.concatenate([[0], (self.added - added_before).cumsum()])
        best = block.better(best, others)
        self.added += self._by_place(block.rows[after], block.gains[after]) - added_before
        self.base += block.base[after].sum() - base_before
        return best


class Block:
    """The rows of the pairs that come in together, each in several states: before the first of its pairs is
    in, and after each place at which one comes in.

    Arrays over states (s) hold one state after the other, those of a row side by side and in order.
    """
    def __init__(
        self,
        search: UnionSearch,
        rows: np.ndarray,  # int (m,), the rows of the pairs that come in
        places: np.ndarray,  # int (m,), their places in the first modality
    ):
        self.places = np.unique(places)
        first = search.first.of_pair
        # a number for each state: by row, first the one before the block, then those after each of its places
        stride = len(search.first.values) + 2
        states = np.unique(np.concatenate([np.unique(rows) * stride, rows * stride + places + 1]))
        self.rows = states // stride
        place = states % stride - 1
        self.is_before = place < 0
        self.is_last = np.append(self.rows[1:] != self.rows[:-1], True)
        reached = np.where(self.is_before, self.places[0] - 1, place)
        let_in = search.always[self.rows] | (search.free[self.rows] & (first[self.rows] <= reached[:, None]))
        self.base, self.gains = search.states(self.rows, let_in)
        self.step = np.searchsorted(self.places, place)  # of the states that are not before the block
        # From one score that these rows have in the second modality to the next, only the other rows change
        # with the depth: such a stretch of depths is a segment; segment 0 comes before the first score.
        second = search.sorted_places[self.rows]
        self.live = search.sorted_free[self.rows]
        points = np.unique(second[self.live])
        self.segments = np.where(self.live, np.searchsorted(points, second) + 1, 0)
        self.starts = np.concatenate([[0], points + 1])  # the first depth of each segment

    def better(
        self,
        best: Depths,  # The best so far
        others: np.ndarray,  # float64 (limit+1,), sum of F1 of the rows outside the block, by second depth
    ) -> Depths:
        "The best depths after any of the block's places where they are worth more than `best`, else `best`."
        totals = self._worth() + np.maximum.reduceat(others, self.starts)
        step, segment = np.unravel_index(first_of_best(totals), totals.shape)
        total = float(totals[step, segment])
        if not total > best.total + ROUNDING: return best
        start = self.starts[segment]
        end = self.starts[segment + 1] if segment + 1 < len(self.starts) else None
        return Depths(int(self.places[step]) + 1, int(start) + first_of_best(others[start:end]), total)

    def _worth(self):
        "The sum of F1 of the block's rows after each of its places, at each segment of depths."
        before, later = np.flatnonzero(self.is_before), np.flatnonzero(~self.is_before)
        at_first = self._spread(before, np.zeros(len(before), int), 1, self.base[before], self.gains[before])
        # a row's states follow each other: each is given by how it differs from the one before
        base_changes = self.base[later] - self.base[later - 1]
        gain_changes = self.gains[later] - self.gains[later - 1]
        changes = self._spread(later, self.step[later], len(self.places), base_changes, gain_changes)
        return changes.cumsum(1).cumsum(0) + at_first.cumsum(1)

    def _spread(self, states, steps, n_steps, base_f1, gains):
        """Add up numbers of some states by step and segment: (n_steps, segments).

        The `base_f1` (s,) of a state counts in segment 0, the `gains` (s,k) of its pairs in the segments in
        which the second modality lets these in.
        """
        n_segments = len(self.starts)
        is_live = self.live[states]
        step_and_segment = (steps[:, None] * n_segments + self.segments[states])[is_live]
        of_pairs = np.bincount(step_and_segment, gains[is_live], n_steps * n_segments)
        of_rows = np.bincount(steps * n_segments, base_f1, n_steps * n_segments)
        return (of_pairs + of_rows).reshape(n_steps, n_segments)
