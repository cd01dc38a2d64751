"""`Neighbors`: who is near whom, best first, as two arrays. Every search, fusion and refinement of `match`
gives or takes one."""
from typing import NamedTuple

import numpy as np

from ..core import InputError, preview
from .arrays import rank_within_row

# how many neighbors a search returns by default: as many as the Kaggle Shopee competition lets a listing
# match
NEAREST = 50


class Neighbors(NamedTuple):
    """For each row its nearest ids and their scores, best first; in a self-join the listing itself is at
    rank 0."""
    ids: np.ndarray  # int64 (n,k), padded with -1 behind the last neighbor
    scores: np.ndarray  # float32 (n,k), higher is nearer, padded with -inf

    def top(
        self,
        k: int,  # Columns to keep, the listing itself included
    ) -> 'Neighbors':
        "The first `k` neighbors of each row."
        check_k(k)
        return Neighbors(self.ids[:, :k], self.scores[:, :k])

    def head(
        self,
        n: int,  # Rows to keep
    ) -> 'Neighbors':
        "The first `n` rows."
        return Neighbors(self.ids[:n], self.scores[:n])

    def check(
        self,
        self_join: bool = False,  # Also check that each listing itself is at rank 0
    ) -> 'Neighbors':
        """Return `self`, or raise `InputError` naming the first rows whose shape, dtype, padding or order
        is not as described."""
        ids, scores = self
        _check_array('ids', ids, np.int64)
        _check_array('scores', scores, np.float32)
        if ids.shape != scores.shape:
            raise InputError(f'neighbors.ids has shape {ids.shape}, neighbors.scores {scores.shape}')
        padding = ids < 0
        _refuse_rows((ids < -1).any(1), 'have ids below -1')
        _refuse_rows((padding[:, :-1] & ~padding[:, 1:]).any(1), 'have a neighbor behind the padding')
        _refuse_rows((padding & (scores != -np.inf)).any(1), 'have padding whose score is not -inf')
        _refuse_rows((~padding & ~np.isfinite(scores)).any(1), 'have a score that is not finite')
        _refuse_rows((scores[:, 1:] > scores[:, :-1]).any(1), 'are not sorted best first')
        by_id = np.sort(ids, axis=1)
        _refuse_rows(((by_id[:, 1:] == by_id[:, :-1]) & (by_id[:, 1:] >= 0)).any(1), 'name a neighbor twice')
        if self_join: check_self_first(self)
        return self

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All neighbors without the padding, flat and row by row: (rows, ids, scores), the listing itself
        included."""
        rows, columns = np.nonzero(self.ids >= 0)
        return rows, self.ids[rows, columns], self.scores[rows, columns]

    @classmethod
    def from_pairs(
        cls,
        rows,  # int (m,), in any order
        ids,  # int (m,), the neighbor of each row; negative ones are padding and left out
        scores,  # float (m,), finite; of a pair given twice the better score counts
        n: int,  # Number of rows
        self_join: bool = True,  # Put each listing itself at rank 0, given or not
        k: int | None = None,  # Columns, the listing itself included; default what the longest row needs
    ) -> 'Neighbors':
        "Neighbors from loose pairs; ties go to the smaller id, so that the order of the pairs never matters."
        if k is not None: check_k(k)
        rows, ids, scores = _best_of_each_pair(*_checked_pairs(rows, ids, scores, n, self_join))
        if self_join:
            is_self = rows == ids
            own_scores = np.ones(n, np.float32)
            own_scores[rows[is_self]] = scores[is_self]
            rows, ids, scores = rows[~is_self], ids[~is_self], scores[~is_self]
            # rank 0 also has the best score: rounding, or pairs without the listing itself, must not break
            # the order
            np.maximum.at(own_scores, rows, scores)
        order = np.lexsort((ids, -scores, rows))
        rows, ids, scores = rows[order], ids[order], scores[order]
        row_sizes = np.bincount(rows, minlength=n)
        rank = rank_within_row(row_sizes) + int(self_join)
        width = k or max(1, int(row_sizes.max(initial=0)) + int(self_join))
        neighbors = cls(np.full((n, width), -1, np.int64), np.full((n, width), -np.inf, np.float32))
        fits = rank < width
        neighbors.ids[rows[fits], rank[fits]] = ids[fits]
        neighbors.scores[rows[fits], rank[fits]] = scores[fits]
        if self_join:
            neighbors.ids[:, 0] = np.arange(n)
            neighbors.scores[:, 0] = own_scores
        return neighbors


def _checked_pairs(rows, ids, scores, n, self_join):
    """The pairs of `Neighbors.from_pairs` as int64, int64 and float32 arrays without padding; raises
    `InputError` for what can't be."""
    rows = np.asarray(rows, np.int64)
    ids = np.asarray(ids, np.int64)
    scores = np.asarray(scores, np.float32)
    if not rows.shape == ids.shape == scores.shape or rows.ndim != 1:
        shapes = f'rows {rows.shape}, ids {ids.shape} and scores {scores.shape}'
        raise InputError(f'{shapes}: give three 1-D arrays of one length')
    real = ids >= 0
    rows, ids, scores = rows[real], ids[real], scores[real]
    if len(rows) and (rows.min() < 0 or rows.max() >= n):
        raise InputError(f'rows from {rows.min()} to {rows.max()}, but n={n}')
    if self_join and len(ids) and ids.max() >= n: raise InputError(f'id {ids.max()} in a self-join of n={n}')
    finite = np.isfinite(scores)
    if not finite.all():
        raise InputError(f'scores of rows {preview(np.unique(rows[~finite]))} are not finite')
    return rows, ids, scores


def _best_of_each_pair(rows, ids, scores):
    "The pairs sorted by row and id, each once, with the best of its scores."
    order = np.lexsort((-scores, ids, rows))
    rows, ids, scores = rows[order], ids[order], scores[order]
    first = np.ones(len(rows), bool)
    first[1:] = (rows[1:] != rows[:-1]) | (ids[1:] != ids[:-1])
    return rows[first], ids[first], scores[first]


def check_k(
    k: int,  # A number of neighbors, as a user gave it
):
    "Raise `InputError` unless `k` is a whole number from 1."
    if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 1:
        raise InputError(f'k={k!r}: give a whole number from 1')


def resolve_k(
    k: int | None,  # Neighbors to return, the listing itself included; None: 50, or all where there are fewer
    n: int,  # Listings there are
) -> int:
    """How many neighbors a search returns for the `k` it was given; raises `InputError` for more than there
    are listings."""
    if k is None: return min(NEAREST, n)
    check_k(k)
    if k > n: raise InputError(f'k={k}: there are {n} listings')
    return k


def check_self_first(
    neighbors: Neighbors,  # Of a self-join, or of new listings in a `Pool`
    pool: int | None = None,  # Number of listings that ids may point to; default as many as there are rows
):
    "Raise `InputError` unless each listing itself is at rank 0 and all neighbors are listings."
    ids = neighbors.ids
    if not ids.shape[1]: raise InputError('neighbors have no columns: not even the listing itself')
    listings = len(ids) if pool is None else pool
    _refuse_rows((ids >= listings).any(1), 'name a neighbor past the last listing')
    _refuse_rows(ids[:, 0] != np.arange(len(ids)),
                 'do not start with the listing itself (self_join=False where new listings meet a catalogue)')


def group_codes(
    groups,  # (n,) ints or strings: listings with the same value are the same product
    n: int,  # How many there must be
    name: str = 'groups',  # What to call them in messages
) -> np.ndarray:  # int32 (n,)
    """Groups as codes from 0, numbered by first appearance; raises `InputError` for another length, or
    naming the rows without a group."""
    import pandas as pd
    groups = pd.Series(groups).to_numpy() if not isinstance(groups, np.ndarray) else groups
    if groups.ndim != 1 or len(groups) != n:
        raise InputError(f'{name} of shape {groups.shape}: give {n}, one a row')
    codes = pd.factorize(groups)[0]
    if (codes < 0).any(): raise InputError(f'{name} are missing in rows {preview(np.flatnonzero(codes < 0))}')
    return codes.astype(np.int32)


def _check_array(name, array, dtype):
    if not isinstance(array, np.ndarray) or array.ndim != 2:
        kind = f'{array.ndim}-D' if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f'neighbors.{name}: give a 2-D array, not {kind}')
    if array.dtype != dtype:
        raise InputError(f'neighbors.{name} has dtype {array.dtype}: give {np.dtype(dtype)}')


def _refuse_rows(bad, what):
    if bad.any(): raise InputError(f'neighbors: rows {preview(np.flatnonzero(bad))} {what}')
