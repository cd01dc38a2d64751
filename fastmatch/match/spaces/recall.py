"""Recall of an approximate search: the share of the exact neighbors that it finds, measured on a sample of
rows."""
from dataclasses import dataclass

import numpy as np

SAMPLE = 1000  # rows that are also looked up exactly: enough to know a recall of .98 to about .002


@dataclass
class Recall:
    "The share of the exact neighbors that a search found, and on how many rows it was measured."
    k: int  # Neighbors a row, the listing itself included in a self-join
    mean: float  # Over the rows; any listing that is as near as the last exact neighbor counts
    se: float  # Standard error of the mean
    rows: int  # Number of rows it was measured on

    def __repr__(self): return f'recall@{self.k} {self.mean:.3f} (s.e. {self.se:.3f}, {self.rows} rows)'


def measure_recall(
    found_scores: np.ndarray,  # float32 (rows,k), found by the search; without the listing itself
    exact_scores: np.ndarray,  # float32 (rows,k), what is nearest; -inf where there are fewer
    k: int,  # Neighbors a row, to state it
) -> Recall:
    """Compare what was found with what is nearest, by the scores: one that is as near as the last exact
    neighbor counts."""
    not_padding = exact_scores > -np.inf
    last_scores = np.where(not_padding, exact_scores, np.inf).min(1, initial=np.inf)
    exact_counts = not_padding.sum(1)
    found_counts = np.minimum((found_scores >= last_scores[:, None]).sum(1), exact_counts)
    shares = found_counts / np.maximum(exact_counts, 1)
    shares[exact_counts == 0] = 1
    return Recall(k, float(shares.mean()), float(shares.std() / np.sqrt(len(shares))), len(shares))


def draw_rows(
    rows: np.ndarray,  # int, to draw from
    size: int,  # How many to draw; all where there are fewer
    seed: int,  # Of the draw
) -> np.ndarray:  # int, rising
    "Some of the rows, drawn at random without replacement."
    return np.sort(np.random.default_rng(seed).choice(rows, min(size, len(rows)), replace=False))
