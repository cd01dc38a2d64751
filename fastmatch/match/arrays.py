"Small array operations that several files of the match floor share."
import numpy as np


def rank_within_row(
    counts: np.ndarray,  # int (n,), entries of each row, which lie one row after the other
) -> np.ndarray:  # int64 (sum of counts,)
    "The position of each entry within its own row, from 0: counts (2, 0, 3) give 0 1 0 1 2."
    return np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)


def find_pairs(
    rows: np.ndarray,  # int (m,), of the pairs to search in; no pair twice
    ids: np.ndarray,  # int (m,)
    wanted_rows: np.ndarray,  # int (w,), of the pairs to find
    wanted_ids: np.ndarray,  # int (w,)
    n: int,  # More than any id
) -> np.ndarray:  # int64 (w,), -1 where a wanted pair is not there
    "The position of each wanted pair (row, id) among the pairs given."
    if not len(rows): return np.full(len(wanted_rows), -1, np.int64)
    keys = rows.astype(np.int64) * n + ids
    wanted = wanted_rows.astype(np.int64) * n + wanted_ids
    order = np.argsort(keys)
    found = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)]
    return np.where(keys[found] == wanted, found, -1)


def descending_bits(
    scores: np.ndarray,  # float32, without NaN
) -> np.ndarray:  # uint32 of the same shape
    "Whole numbers that rise where the scores fall, equal for equal scores: what sorts or buckets float32 numbers best first."
    bits = (scores + np.float32(0)).view(np.uint32)  # adding 0 makes -0. to 0.
    return np.where(bits >> 31, bits, bits ^ np.uint32(0x7fffffff))


def from_descending_bits(
    bits: np.ndarray,  # uint32, as `descending_bits` gives them
) -> np.ndarray:  # float32
    "The scores that `descending_bits` was given."
    return np.where(bits >> 31, bits, bits ^ np.uint32(0x7fffffff)).view(np.float32)
