"The pairs of one fusion in order: best first within each row, with what each adds to its row's F1."
from functools import cached_property

import numpy as np

from ...arrays import descending_bits, from_descending_bits, rank_within_row

BUCKETS = 4096  # parts of the range of scores: pairs are summed by bucket before any are sorted


class OrderedPairs:
    """The pairs of one fusion that score `lowest` or more, row by row and best first within a row.

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
        lowest: float,  # Scores from here on are looked at; -inf: all there are
        grounded: bool,  # All that is not looked at lies on the fusion's floor
        ranks: int,  # 1, or 2 where the nearest of a row has a threshold of its own
        max_matches: int,  # Most matches a row, itself included
    ):
        self.flat = flat
        self.lowest = lowest
        self.grounded = grounded
        self.max_matches = max_matches
        keys, self.count = self._sorted_keys(level, level_scores, ranks)
        right = (keys & np.uint64(1)).astype(np.int64)
        self.wrong = right == 0
        self.bits = ((keys >> np.uint64(level.shift)) & np.uint64(0xffffffff)).astype(np.uint32)
        self.scores = from_descending_bits(self.bits).astype(np.float64)
        self.gains = self._gains(right)
        self.nearest = np.zeros(len(keys), bool)
        starts = self.count.cumsum() - self.count
        self.nearest[starts[self.count > 0]] = True
        self._sort_into_buckets(ranks)

    @property
    def complete(self) -> bool:
        "Whether all pairs there are were looked at."
        return self.lowest == -np.inf

    @property
    def rows(self) -> np.ndarray:  # int (m,)
        "The row of each pair."
        return np.repeat(np.arange(len(self.count)), self.count)

    def _sorted_keys(self, level, level_scores, ranks):
        "A number for each pair looked at, in order, and how many each row has; no more a row than may match."
        n_rows = len(self.flat.rows)
        if self.complete: looked_at = np.ones(len(level_scores), bool)
        else:
            looked_at = level_scores >= np.float32(self.lowest)
            if ranks == 2: looked_at[level.nearest(level_scores, n_rows)] = True
        positions = np.flatnonzero(looked_at)
        score_bits = descending_bits(level_scores[positions]).astype(np.uint64)
        keys = level.low_bits[positions] | (score_bits << np.uint64(level.shift))
        count = np.bincount(level.row[positions], minlength=n_rows)
        sort_within_rows(keys, count)
        if count.max(initial=0) >= self.max_matches:
            keys = keys[rank_within_row(count) + 2 <= self.max_matches]
            count = np.minimum(count, self.max_matches - 1)
        return keys, count

    def _gains(self, right):
        "What each pair adds to its row's F1 when it comes in after those before it."
        starts = self.count.cumsum() - self.count
        right_so_far = right.cumsum()
        right_so_far -= np.repeat(np.append(0, right_so_far)[starts], self.count)
        # the matches of the row with this pair and all before it, itself included, and the listings of its
        # group
        both_sizes = rank_within_row(self.count) + 2 + np.repeat(self.flat.sizes, self.count)
        return 2 * (1 + right_so_far) / both_sizes - 2 * (1 + right_so_far - right) / (both_sizes - 1)

    def _sort_into_buckets(self, ranks):
        "Number the buckets by falling score, those of the nearest behind all others where they count apart."
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
        "What each row's F1 can be under a threshold below `lowest`; -inf where there is nothing below."
        flat = self.flat
        if self.complete: return np.full(len(flat.rows), -np.inf)
        # all right candidates of the row are in at best, and of the wrong ones those that are in by then
        if self.grounded: wrong = flat.wrong
        else: wrong = np.bincount(self.rows, self.wrong & (self.scores >= self.lowest), len(flat.rows))
        right = np.minimum(flat.found, self.max_matches - 1)
        wrong = np.minimum(wrong, self.max_matches - 1 - right)
        return 2 * (1 + right) / (1 + right + wrong + flat.sizes)

    @property
    def left_out(self) -> np.ndarray:  # bool (rows,)
        "Rows that may match more candidates than were looked at."
        return self.count < np.minimum(self.flat.found + self.flat.wrong, self.max_matches - 1)


def sort_within_rows(
    keys: np.ndarray,  # uint64 (m,), row after row; sorted in place
    count: np.ndarray,  # int (n,), of each row
):
    """Sort each row's numbers; rows of similar length at once, which costs a tenth of sorting all in one.

    Example: keys 5, 9 7, 3 with counts 1 2 1 become 5, 7 9, 3.
    """
    starts = count.cumsum() - count
    width = 4
    while width < 2 * max(3, count.max(initial=0)):
        shortest = 1 if width == 4 else width // 2
        similar_rows = np.flatnonzero((count <= width) & (count > shortest))
        positions = starts[similar_rows][:, None] + np.arange(width)
        padding = np.arange(width) >= count[similar_rows][:, None]
        block = keys[np.minimum(positions, len(keys) - 1)]
        block[padding] = np.iinfo(np.uint64).max
        block.sort(axis=1)
        keys[positions[~padding]] = block[~padding]
        width *= 2
