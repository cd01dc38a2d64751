"""`Matches`: for each listing the listings that it matches.

What a decision gives, and what groups, files and scores are made from.
"""
from dataclasses import dataclass

import numpy as np

from ..core import InputError
from .arrays import find_pairs, rank_within_row
from .cells import texts_of
from .neighbors import Neighbors, check_k

MAX_MATCHES = 50  # the competition's limit for each listing, the listing itself included


@dataclass
class Matches:
    """The matches of n listings, one row after the other: row i's are `ids[indptr[i]:indptr[i+1]]`.

    Each row holds the listing itself first, then its matches from the best score to the worst. `len`,
    indexing and iteration go by row.
    """
    indptr: np.ndarray  # int64 (n+1,), where each row starts and the last one ends
    ids: np.ndarray  # int64 (m,), the matched listings of all rows
    scores: np.ndarray  # float32 (m,), their scores

    def __len__(self): return len(self.indptr) - 1

    def __getitem__(self, row):
        row = range(len(self))[row]  # negative numbers count from the end
        return self.ids[self.indptr[row]:self.indptr[row + 1]]

    def __iter__(self): return iter(np.split(self.ids, self.indptr[1:-1]))

    def head(
        self,
        n: int,  # Rows to keep
    ) -> 'Matches':
        "The matches of the first `n` listings."
        n_matches = self.indptr[n]
        return Matches(self.indptr[:n + 1], self.ids[:n_matches], self.scores[:n_matches])

    def to_frame(
        self,
        # (n,) what names each listing; where matches point into a catalogue, its names behind them
        posting_ids,
    ):
        "The competition's table as a DataFrame: `posting_id`, and `matches` separated by blanks."
        import pandas as pd
        listing_names = texts_of(posting_ids).astype(str)
        if len(listing_names) != len(self) and len(listing_names) <= self.ids.max(initial=-1):
            raise InputError(f'posting_ids: {len(listing_names)} for {len(self)} rows')
        joined_names = [' '.join(listing_names[matched_ids]) for matched_ids in self]
        return pd.DataFrame({'posting_id': listing_names[:len(self)], 'matches': joined_names})


def row_pointers(
    counts: np.ndarray,  # int (n,), matches of each row
) -> np.ndarray:  # int64 (n+1,)
    "The `indptr` of rows with so many matches: counts (2, 1, 3) give 0 2 3 6."
    return np.concatenate([[0], counts.cumsum()]).astype(np.int64)


def matches_from_mask(
    neighbors: Neighbors,  # Candidates (n,k)
    keep: np.ndarray,  # bool (n,k), which of them match
) -> Matches:
    "The candidates that are kept, as matches."
    return Matches(row_pointers(keep.sum(1)), neighbors.ids[keep], neighbors.scores[keep])


def mask_of_matches(
    matches: Matches,  # Of the same n rows
    neighbors: Neighbors,  # Candidates (n,k) that the matches were chosen from
) -> np.ndarray:  # bool (n,k)
    "Which candidates match; raises `InputError` for a match that is no candidate of its row, or in it twice."
    n_listings = len(matches)
    if n_listings != len(neighbors.ids):
        raise InputError(f'matches of {n_listings} rows, neighbors of {len(neighbors.ids)}')
    n_ids = max(int(neighbors.ids.max(initial=0)), int(matches.ids.max(initial=0))) + 1
    match_rows = np.repeat(np.arange(n_listings), np.diff(matches.indptr))
    candidate_rows, candidate_columns = np.nonzero(neighbors.ids >= 0)
    candidate_ids = neighbors.ids[candidate_rows, candidate_columns]
    positions = find_pairs(candidate_rows, candidate_ids, match_rows, matches.ids, n_ids)
    if (positions < 0).any() or len(np.unique(positions)) < len(positions):
        raise InputError('matches: some are not among the neighbors, or twice in a row')
    is_match = np.zeros(neighbors.ids.shape, bool)
    is_match[candidate_rows[positions], candidate_columns[positions]] = True
    return is_match


def at_most(
    matches: Matches,  # Of any number of rows
    k: int,  # Most matches of a row, the listing itself included
) -> Matches:
    "The first `k` matches of each row."
    check_k(k)
    match_counts = np.diff(matches.indptr)
    is_kept = rank_within_row(match_counts) < k
    return Matches(row_pointers(np.minimum(match_counts, k)), matches.ids[is_kept], matches.scores[is_kept])
