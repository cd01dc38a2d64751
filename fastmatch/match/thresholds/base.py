"What every search for thresholds offers, and what they share: rows that count, ties, where a threshold lies."
from abc import ABC, abstractmethod

import numpy as np

from ...core import InputError
from ..neighbors import Neighbors

ROUNDING = 1e-9  # sums of row F1 that differ by less are equal: the difference is rounding
BEYOND = 1e-3  # how far above the best or below the last score a threshold lies that lets in none or all


class ThresholdSearch(ABC):
    "Finds the thresholds with the best mean row F1; `heldout` takes one wherever it takes neighbors."
    neighbors: Neighbors  # Of a self-join: what recall and precision are measured on

    @abstractmethod
    def best(
        self,
        rows=None,  # bool (n,), the rows whose mean row F1 counts; default all
    ) -> tuple:  # (threshold or thresholds, mean row F1)
        "The thresholds with the best mean row F1 over `rows`."

    @abstractmethod
    def at(
        self,
        threshold,  # As `best` gives it
    ) -> np.ndarray:  # float64 (n,)
        "The row F1 of each row under these thresholds."


def row_mask(
    rows,  # bool (n,), or whole numbers from 0 to n-1 in any order
    n: int,  # How many rows there are
) -> np.ndarray:  # bool (n,)
    "Rows given as numbers or as a mask, as a mask; raises `InputError` for other shapes, types and numbers."
    rows = np.asarray(rows)
    is_chosen = np.zeros(n, bool)
    if not rows.size: return is_chosen
    if rows.dtype == bool and rows.shape == (n,): return rows
    if rows.dtype.kind not in 'iu' or rows.ndim != 1:
        raise InputError(f'rows of dtype {rows.dtype}, shape {rows.shape}: give numbers, or bool ({n},)')
    if rows.min() < 0 or rows.max() >= n:
        raise InputError(f'rows from {rows.min()} to {rows.max()}, but there are {n}')
    is_chosen[rows] = True
    return is_chosen


def first_of_best(
    totals: np.ndarray,  # float (m,), one at least: the worth of letting in more and more
) -> int:
    "The first position whose total is the largest but for rounding: of equal thresholds the highest wins."
    return int(np.argmax(totals >= totals.max() - ROUNDING))


def threshold_of_depth(
    scores: np.ndarray,  # float64 (m,), one at least, all different, highest first
    depth: int,  # How many of them are let in
) -> float:
    "The threshold that lets in the `depth` highest scores: midway to the next, or `BEYOND` the outermost."
    if not depth: return float(scores[0]) + BEYOND
    last_score = scores[depth - 1]
    next_score = scores[depth] if depth < len(scores) else last_score - 2 * BEYOND
    return float(last_score + next_score) / 2
