"The pairs of one fusion, best first within each row, and what each adds to the F1 of its row."
from functools import cached_property

import numpy as np

from ...arrays import descending_bits, from_descending_bits, rank_within_row

BUCKETS = 4096  # parts of the range of scores: pairs are summed by bucket before any are sorted


class OrderedPairs:
    """The pairs of one fusion that score `lowest` or more, row by row and best first within a row.

    A threshold lets in the first pairs of a row, as many as reach it. So each pair has a gain: the change of
    the row's F1 when it comes in after those before it. The gains of all pairs above a threshold add up to
    what the threshold is worth.

    Example (the four pairs of `Level`, fused by the mean): 0-1 and 1-0 have .55, 1-2 and 2-1 have .6.
    Listings 1 and 2 are one group. Alone, the rows have an F1 of 2/(1+1) = 1, 2/(1+2) = 2/3 and 2/3. In
    order:

        pair   score   right   row F1 with it        gain
        0-1    .55     no      2*1/(1+1+1) = 2/3     -1/3
        1-2    .6      yes     2*2/(1+1+2) = 1       +1/3
        1-0    .55     no      2*2/(1+2+2) = 4/5     -1/5
        2-1    .6      yes     1                     +1/3

    `count` is 1 2 1, and `nearest` marks the first pair of each row: all but 1-0.
    """
    def __init__(
        self,
        flat,  # `Flat`
        level,  # `Level`
        level_scores: np.ndarray,  # float32 (m,), the fused scores of its pairs
        lowest: float,  # Pairs with this score or more are searched; -inf: all there are
        grounded: bool,  # All pairs that are not searched score 0, the fusion's least score
        ranks: int,  # 1, or 2 where the nearest of a row has a threshold of its own
        max_matches: int,  # Most matches a row, itself included
    ):
        self.flat = flat
        self.lowest = lowest
        self.grounded = grounded
        self.max_matches = max_matches
        pair_keys, self.count = self._sorted_keys(level, level_scores, ranks)
        is_right = (pair_keys & np.uint64(1)).astype(np.int64)
        self.wrong = is_right == 0
        self.bits = ((pair_keys >> np.uint64(level.shift)) & np.uint64(0xffffffff)).astype(np.uint32)
        self.scores = from_descending_bits(self.bits).astype(np.float64)
        self.gains = self._gains(is_right)
        self.nearest = np.zeros(len(pair_keys), bool)
        starts = self.count.cumsum() - self.count
        self.nearest[starts[self.count > 0]] = True
        self._sort_into_buckets(ranks)

    @property
    def complete(self) -> bool:
        "Whether all pairs were searched."
        return self.lowest == -np.inf

    @property
    def rows(self) -> np.ndarray:  # int (m,)
        "The row of each pair."
        return np.repeat(np.arange(len(self.count)), self.count)

    def _sorted_keys(self, level, level_scores, ranks):
        """The pairs that are searched, each as one number which sorts them, and how many each row has.

        The number holds the score, the rank and whether the pair is right. Pairs beyond the most matches that
        a row may have are left out.
        """
        n_rows = len(self.flat.rows)
        if self.complete: looked_at = np.ones(len(level_scores), bool)
        else:
            looked_at = level_scores >= np.float32(self.lowest)
            if ranks == 2: looked_at[level.nearest(level_scores, n_rows)] = True
        positions = np.flatnonzero(looked_at)
        score_bits = descending_bits(level_scores[positions]).astype(np.uint64)
        pair_keys = level.low_bits[positions] | (score_bits << np.uint64(level.shift))
        row_counts = np.bincount(level.row[positions], minlength=n_rows)
        sort_within_rows(pair_keys, row_counts)
        if row_counts.max(initial=0) >= self.max_matches:
            pair_keys = pair_keys[rank_within_row(row_counts) + 2 <= self.max_matches]
            row_counts = np.minimum(row_counts, self.max_matches - 1)
        return pair_keys, row_counts

    def _gains(self, is_right):
        "What each pair adds to the F1 of its row when it comes in after those before it."
        starts = self.count.cumsum() - self.count
        right_so_far = is_right.cumsum()
        right_so_far -= np.repeat(np.append(0, right_so_far)[starts], self.count)
        # the matches of the row with this pair and all before it, itself included, and the listings of its
        # group
        both_sizes = rank_within_row(self.count) + 2 + np.repeat(self.flat.sizes, self.count)
        return 2 * (1 + right_so_far) / both_sizes - 2 * (1 + right_so_far - is_right) / (both_sizes - 1)

    def _sort_into_buckets(self, ranks):
        """Give each pair the number of its bucket and of its cell.

        Buckets are parts of the range of scores, 0 for the highest. With one threshold a cell is a bucket.
        With two, each bucket has two cells, one for the further pairs and one for the nearest of their rows;
        the cells of the nearest come after all others.
        """
        bits = self.bits
        lowest_bits, highest_bits = (int(bits.min()), int(bits.max())) if len(bits) else (0, 0)
        shift = max(0, (highest_bits - lowest_bits).bit_length() - BUCKETS.bit_length() + 1)
        self.bucket = ((bits - np.uint32(lowest_bits)) >> np.uint32(shift)).astype(np.int64)
        self.n_buckets = int(self.bucket.max(initial=0)) + 1
        self.cell = self.bucket if ranks == 1 else self.bucket + self.n_buckets * self.nearest
        # pairs by cell: those of one bucket, or of several in a row, are one slice
        self.by_cell = np.argsort(self.cell.astype(np.uint16), kind='stable')
        counts = np.bincount(self.cell, minlength=self.n_buckets * ranks)
        self.cell_starts = np.append(0, counts.cumsum())

    @cached_property
    def at_most(self) -> np.ndarray:  # float64 (rows,)
        "The highest F1 that each row could have under a threshold below `lowest`; -inf if nothing is below."
        flat = self.flat
        if self.complete: return np.full(len(flat.rows), -np.inf)
        # all right candidates of the row are in at best, and of the wrong ones those that are in by then
        if self.grounded: wrong_counts = flat.wrong
        else: wrong_counts = np.bincount(self.rows, self.wrong & (self.scores >= self.lowest), len(flat.rows))
        right_counts = np.minimum(flat.found, self.max_matches - 1)
        wrong_counts = np.minimum(wrong_counts, self.max_matches - 1 - right_counts)
        return 2 * (1 + right_counts) / (1 + right_counts + wrong_counts + flat.sizes)

    @property
    def left_out(self) -> np.ndarray:  # bool (rows,)
        "Rows that may match more candidates than were searched."
        return self.count < np.minimum(self.flat.found + self.flat.wrong, self.max_matches - 1)


def sort_within_rows(
    keys: np.ndarray,  # uint64 (m,), row after row; sorted in place
    count: np.ndarray,  # int (n,), how many keys each row has
):
    """Sort the numbers within each row.

    Rows of similar length are sorted together as a matrix, ten times as fast as sorting all numbers at once.
    Example: the keys 5 9 7 3 of rows with 1, 2 and 1 of them become 5 7 9 3.
    """
    starts = count.cumsum() - count
    n_columns = 4
    while n_columns < 2 * max(3, count.max(initial=0)):
        shortest = 1 if n_columns == 4 else n_columns // 2
        similar_rows = np.flatnonzero((count <= n_columns) & (count > shortest))
        positions = starts[similar_rows][:, None] + np.arange(n_columns)
        is_padding = np.arange(n_columns) >= count[similar_rows][:, None]
        block = keys[np.minimum(positions, len(keys) - 1)]
        block[is_padding] = np.iinfo(np.uint64).max
        block.sort(axis=1)
        keys[positions[~is_padding]] = block[~is_padding]
        n_columns *= 2
