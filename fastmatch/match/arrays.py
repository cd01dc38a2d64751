"""Small operations on arrays that several files of `match` share: ranks within rows, pairs looked up,
float32 scores as sortable bits."""
import numpy as np


def rank_within_row(
    counts: np.ndarray,  # int (n,), entries of each row; all entries are one array, one row after the other
) -> np.ndarray:  # int64 (sum of counts,)
    "The position of each entry within its own row, from 0: counts (2, 0, 3) give 0 1 0 1 2."
    positions = np.arange(counts.sum())
    # in place, because arrays of one number a pair are what a whole rule's memory peaks with
    positions -= np.repeat(counts.cumsum() - counts, counts)
    return positions


def find_pairs(
    rows: np.ndarray,  # int (m,), rows of the pairs to search in; no pair may occur twice
    ids: np.ndarray,  # int (m,), ids of the pairs to search in
    wanted_rows: np.ndarray,  # int (w,), rows of the pairs to find
    wanted_ids: np.ndarray,  # int (w,), ids of the pairs to find
    n: int,  # Any number above all ids
) -> np.ndarray:  # int64 (w,), positions in `rows` and `ids`; -1 where a wanted pair is not among them
    """The position of each wanted pair (row, id) among the given pairs: of (0,5), (2,1) the pair (2,1) is
    at 1, (2,5) at -1."""
    if not len(rows): return np.full(len(wanted_rows), -1, np.int64)
    pair_keys = rows.astype(np.int64) * n + ids
    wanted_keys = wanted_rows.astype(np.int64) * n + wanted_ids
    by_key = np.argsort(pair_keys)
    sorted_places = np.searchsorted(pair_keys, wanted_keys, sorter=by_key)
    positions = by_key[np.minimum(sorted_places, len(pair_keys) - 1)]
    return np.where(pair_keys[positions] == wanted_keys, positions, -1)


def descending_bits(
    scores: np.ndarray,  # float32 of any shape, without NaN
) -> np.ndarray:  # uint32 of the same shape
    """Whole numbers that rise where the scores fall, equal for equal scores: for sorting or bucketing
    float32 scores best first."""
    bits = (scores + np.float32(0)).view(np.uint32)  # adding 0 makes -0. to 0.
    return np.where(bits >> 31, bits, bits ^ np.uint32(0x7fffffff))


def from_descending_bits(
    bits: np.ndarray,  # uint32, as `descending_bits` gives them
) -> np.ndarray:  # float32 of the same shape
    "The scores that `descending_bits` was given, -0. as 0."
    return np.where(bits >> 31, bits, bits ^ np.uint32(0x7fffffff)).view(np.float32)
