"Matches: for each listing the ids that it matches."
from dataclasses import dataclass

import numpy as np

from ..core import InputError
from .neighbors import Neighbors, check_k

MAX_MATCHES = 50  # the competition's limit, the listing itself included


@dataclass
class Matches:
    "For each row its matches, itself first, best first: row i's are `ids[indptr[i]:indptr[i+1]]`."
    indptr: np.ndarray  # int64 (n+1,)
    ids: np.ndarray  # int64 (m,)
    scores: np.ndarray  # float32 (m,)

    def __len__(self): return len(self.indptr) - 1
    def __getitem__(self, i):
        i = range(len(self))[i]  # from the end as well
        return self.ids[self.indptr[i]:self.indptr[i + 1]]

    def __iter__(self): return iter(np.split(self.ids, self.indptr[1:-1]))

    def head(
        self,
        n: int,  # Rows to keep
    ) -> 'Matches':
        "The first `n` rows."
        end = self.indptr[n]
        return Matches(self.indptr[:n + 1], self.ids[:end], self.scores[:end])

    def to_frame(
        self,
        posting_ids,  # (n,) what names each listing; (m,) with the catalogue's behind where matches point there
    ):
        "The competition's table: posting_id and its matches, blank-separated."
        import pandas as pd
        names = np.asarray(posting_ids).astype(str)
        if len(names) != len(self) and len(names) <= self.ids.max(initial=-1): raise InputError(f'posting_ids: {len(names)} for {len(self)} rows')
        return pd.DataFrame({'posting_id': names[:len(self)], 'matches': [' '.join(names[o]) for o in self]})


def matches_from_mask(
    neighbors: Neighbors,  # Candidates
    keep: np.ndarray,  # bool (n,k), which of them match
) -> Matches:
    "The kept candidates as matches."
    return Matches(np.concatenate([[0], keep.sum(1).cumsum()]).astype(np.int64), neighbors.ids[keep], neighbors.scores[keep])


def mask_of_matches(
    matches: Matches,  # Of the same rows
    neighbors: Neighbors,  # Candidates
) -> np.ndarray:  # bool (n,k)
    "Which candidates match."
    n = len(matches)
    if n != len(neighbors.ids): raise InputError(f'matches of {n} rows, neighbors of {len(neighbors.ids)}')
    width = max(int(neighbors.ids.max(initial=0)), int(matches.ids.max(initial=0))) + 1
    rows = np.repeat(np.arange(n), np.diff(matches.indptr))
    keep = np.isin(np.arange(n)[:, None] * width + neighbors.ids, rows * width + matches.ids) & (neighbors.ids >= 0)
    if keep.sum() != len(rows): raise InputError('matches: some are not among the neighbors')
    return keep


def at_most(
    matches: Matches,
    k: int,  # Matches a row, itself included
) -> Matches:
    "The first `k` matches of each row."
    check_k(k)
    count = np.diff(matches.indptr)
    keep = np.arange(len(matches.ids)) - np.repeat(matches.indptr[:-1], count) < k
    return Matches(np.concatenate([[0], np.minimum(count, k).cumsum()]).astype(np.int64), matches.ids[keep], matches.scores[keep])
