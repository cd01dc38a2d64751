"The currency of the match floor: who is near whom, best first, as two arrays."
from typing import NamedTuple

import numpy as np

from ..core import InputError, preview

NEAREST = 50  # neighbours where nobody says how many: as many as the competition lets match


class Neighbors(NamedTuple):
    "For each row its nearest ids and their scores, best first; in a self-join the listing itself sits at rank 0."
    ids: np.ndarray  # int64 (n,k), padded with -1 behind the last neighbour
    scores: np.ndarray  # float32 (n,k), higher is nearer, padded with -inf

    def top(
        self,
        k: int,  # Columns to keep, the listing itself included
    ) -> 'Neighbors':
        "The first `k` neighbours of each row."
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
        self_join: bool = False,  # Also ask that each listing itself sits at rank 0
    ) -> 'Neighbors':
        "Return `self`, or raise `InputError` naming the first rows that break a promise on shape, dtype, padding or order."
        ids, scores = self
        for name, a, dtype in (('ids', ids, np.int64), ('scores', scores, np.float32)):
            if not isinstance(a, np.ndarray) or a.ndim != 2: raise InputError(f'neighbors.{name}: give a 2-D array, not {_kind(a)}')
            if a.dtype != dtype: raise InputError(f'neighbors.{name} has dtype {a.dtype}: give {np.dtype(dtype)}')
        if ids.shape != scores.shape: raise InputError(f'neighbors.ids has shape {ids.shape}, neighbors.scores {scores.shape}')
        pad = ids < 0
        _none((ids < -1).any(1), 'have ids below -1')
        _none((pad[:, :-1] & ~pad[:, 1:]).any(1), 'have a neighbour behind the padding')
        _none((pad & (scores != -np.inf)).any(1), 'have padding whose score is not -inf')
        _none((~pad & ~np.isfinite(scores)).any(1), 'have a score that is not finite')
        _none((scores[:, 1:] > scores[:, :-1]).any(1), 'are not sorted best first')
        by_id = np.sort(ids, axis=1)
        _none(((by_id[:, 1:] == by_id[:, :-1]) & (by_id[:, 1:] >= 0)).any(1), 'name a neighbour twice')
        if self_join: check_self_first(self)
        return self

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        "All neighbours without the padding, flat and row by row: (rows, ids, scores), the listing itself included."
        rows, cols = np.nonzero(self.ids >= 0)
        return rows, self.ids[rows, cols], self.scores[rows, cols]

    @classmethod
    def from_pairs(
        cls,
        rows,  # int (m,), in any order
        ids,  # int (m,), the neighbour of each row; negative ones are padding and left out
        scores,  # float (m,), finite; of a pair given twice the better score counts
        n: int,  # Number of rows
        self_join: bool = True,  # Put each listing itself at rank 0, given or not
        k: int | None = None,  # Columns, the listing itself included; default: as many as the longest row needs
    ) -> 'Neighbors':
        "Neighbours from loose pairs; ties go to the smaller id, so that the order of the pairs never matters."
        rows, ids, scores = np.asarray(rows, np.int64), np.asarray(ids, np.int64), np.asarray(scores, np.float32)
        if not rows.shape == ids.shape == scores.shape or rows.ndim != 1:
            raise InputError(f'rows {rows.shape}, ids {ids.shape} and scores {scores.shape}: give three 1-D arrays of one length')
        if k is not None: check_k(k)
        real = ids >= 0
        rows, ids, scores = rows[real], ids[real], scores[real]
        if len(rows) and (rows.min() < 0 or rows.max() >= n): raise InputError(f'rows from {rows.min()} to {rows.max()}, but n={n}')
        if self_join and len(ids) and ids.max() >= n: raise InputError(f'id {ids.max()} in a self-join of n={n}')
        if not np.isfinite(scores).all(): raise InputError(f'scores of rows {preview(np.unique(rows[~np.isfinite(scores)]))} are not finite')
        order = np.lexsort((-scores, ids, rows))
        rows, ids, scores = rows[order], ids[order], scores[order]
        fresh = np.ones(len(rows), bool)
        fresh[1:] = (rows[1:] != rows[:-1]) | (ids[1:] != ids[:-1])
        rows, ids, scores = rows[fresh], ids[fresh], scores[fresh]
        if self_join:
            me = rows == ids
            own = np.ones(n, np.float32)
            own[rows[me]] = scores[me]
            rows, ids, scores = rows[~me], ids[~me], scores[~me]
            # rank 0 is also the best score: rounding, or a score that knows no self, must not break the order
            np.maximum.at(own, rows, scores)
        order = np.lexsort((ids, -scores, rows))
        rows, ids, scores = rows[order], ids[order], scores[order]
        counts = np.bincount(rows, minlength=n)
        rank = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts) + int(self_join)
        width = k or max(1, int(counts.max(initial=0)) + int(self_join))
        out = cls(np.full((n, width), -1, np.int64), np.full((n, width), -np.inf, np.float32))
        fits = rank < width
        out.ids[rows[fits], rank[fits]], out.scores[rows[fits], rank[fits]] = ids[fits], scores[fits]
        if self_join: out.ids[:, 0], out.scores[:, 0] = np.arange(n), own
        return out


def check_k(
    k: int,  # Any number of neighbours
):
    "Raise `InputError` unless `k` is a whole number from 1."
    if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 1: raise InputError(f'k={k!r}: give a whole number from 1')


def resolve_k(
    k: int | None,  # Neighbours asked for, the listing itself included; None: 50, or as many as there are where fewer
    n: int,  # Listings there are
) -> int:
    "How many neighbours that is; raises `InputError` for more than there are listings."
    if k is None: return min(NEAREST, n)
    check_k(k)
    if k > n: raise InputError(f'k={k}: there are {n} listings')
    return k


def check_self_first(
    neighbors: Neighbors,  # Of a self-join, or of new listings in a `Pool`
    pool: int | None = None,  # Listings that ids may point to; default as many as there are rows
):
    "Raise `InputError` unless each listing itself sits at rank 0 and all neighbours are listings."
    ids = neighbors.ids
    if not ids.shape[1]: raise InputError('neighbors have no columns: not even the listing itself')
    _none((ids >= (len(ids) if pool is None else pool)).any(1), 'name a neighbour past the last listing')
    _none(ids[:, 0] != np.arange(len(ids)), 'do not start with the listing itself (self_join=False where new listings meet a catalogue)')


def group_codes(
    groups,  # 1-D, ints or strings: which listings are the same product
    n: int,  # How many there must be
    name: str = 'groups',  # What to call them in messages
) -> np.ndarray:
    "Labels as int32 codes from 0 (n,), numbered by first appearance; a missing label is an `InputError` naming its row."
    import pandas as pd
    groups = pd.Series(groups).to_numpy() if not isinstance(groups, np.ndarray) else groups
    if groups.ndim != 1 or len(groups) != n: raise InputError(f'{name} of shape {groups.shape}: give {n}, one a row')
    codes = pd.factorize(groups)[0]
    if (codes < 0).any(): raise InputError(f'{name} are missing in rows {preview(np.flatnonzero(codes < 0))}')
    return codes.astype(np.int32)


def _none(bad, what):
    if bad.any(): raise InputError(f'neighbors: rows {preview(np.flatnonzero(bad))} {what}')


def _kind(a): return f'{a.ndim}-D' if isinstance(a, np.ndarray) else type(a).__name__
