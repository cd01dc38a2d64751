"""`Neighbors`: who is near whom, best first, as two arrays. Every search, fusion and refinement of `match`
gives or takes one."""
from typing import NamedTuple

import numpy as np

from ..core import InputError, preview
from .arrays import rank_within_row
from .cells import codes_of

# how many neighbors a search returns by default: as many as the Kaggle Shopee competition lets a listing
# match
NEAREST = 50


class _TwoArrays(NamedTuple):
    "The two arrays of `Neighbors`, which can be unpacked."
    ids: np.ndarray  # int64 (n,k), padded with -1 behind the last neighbor
    scores: np.ndarray  # float32 (n,k), higher is nearer, padded with -inf


class Neighbors(_TwoArrays):
    """For each row its nearest ids and their scores, best first: int64 and float32 (n,k), padded with -1 and
    -inf. In a self-join the listing itself is at rank 0."""
    # What a search knows of them beside the arrays, None where nothing is known. Steps that make new
    # neighbors from old ones know nothing of it.
    trained_on: np.ndarray | None = None  # bool (n,), rows that an encoder was trained on: not to be judged
    searched: int | None = None  # Of fused ones: neighbors taken from each modality, itself included

    def top(
        self,
        k: int,  # Columns to keep, the listing itself included
    ) -> 'Neighbors':
        "The first `k` neighbors of each row."
        check_k(k)
        searched = None if self.searched is None else min(k, self.searched)
        return Neighbors(self.ids[:, :k], self.scores[:, :k]).known(self.trained_on, searched)

    def head(
        self,
        n: int,  # Rows to keep
    ) -> 'Neighbors':
        "The first `n` rows."
        trained_on = None if self.trained_on is None else self.trained_on[:n]
        return Neighbors(self.ids[:n], self.scores[:n]).known(trained_on, self.searched)

    def known(
        self,
        trained_on: np.ndarray | None,  # bool (n,), rows that an encoder was trained on; None: not known
        searched: int | None = None,  # Neighbors taken from each modality, itself included; None: not known
    ) -> 'Neighbors':
        "Note what is known of these neighbors, and return them."
        self.trained_on, self.searched = trained_on, searched
        return self

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
        is_padding = ids < 0
        _refuse_rows((ids < -1).any(1), 'have ids below -1')
        _refuse_rows((is_padding[:, :-1] & ~is_padding[:, 1:]).any(1), 'have a neighbor behind the padding')
        _refuse_rows((is_padding & (scores != -np.inf)).any(1), 'have padding whose score is not -inf')
        _refuse_rows((~is_padding & ~np.isfinite(scores)).any(1), 'have a score that is not finite')
        _refuse_rows((scores[:, 1:] > scores[:, :-1]).any(1), 'are not sorted best first')
        sorted_ids = np.sort(ids, axis=1)
        is_repeated = (sorted_ids[:, 1:] == sorted_ids[:, :-1]) & (sorted_ids[:, 1:] >= 0)
        _refuse_rows(is_repeated.any(1), 'name a neighbor twice')
        if self_join: check_self_first(self)
        return self

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All neighbors without the padding, flat and row by row: (rows, ids, scores), the listing itself
        included."""
        row_numbers, columns = np.nonzero(self.ids >= 0)
        return row_numbers, self.ids[row_numbers, columns], self.scores[row_numbers, columns]

    @classmethod
    def from_pairs(
        cls,
        rows,  # int (m,), in any order
        ids,  # int (m,), the neighbor of each row; negative ones are padding and left out
        scores,  # float (m,), finite; of a pair given twice the better score counts
        n: int,  # Number of rows
        self_join: bool = True,  # Put each listing itself at rank 0, given or not
        k: int | None = None,  # Columns, the listing itself included; default what the longest row needs
        pool: int | None = None,  # In a self-join, number of listings that ids may point to; default `n`
    ) -> 'Neighbors':
        "Neighbors from loose pairs; ties go to the smaller id, so that the order of the pairs never matters."
        if k is not None: check_k(k)
        rows, ids, scores = _best_of_each_pair(
            *_checked_pairs(rows, ids, scores, n, (pool or n) if self_join else None)
        )
        if self_join:
            is_self = rows == ids
            own_scores = np.ones(n, np.float32)
            own_scores[rows[is_self]] = scores[is_self]
            rows, ids, scores = rows[~is_self], ids[~is_self], scores[~is_self]
            # rank 0 also has the best score: rounding, or pairs without the listing itself, must not break
            # the order
            np.maximum.at(own_scores, rows, scores)
        best_first = np.lexsort((ids, -scores, rows))
        rows, ids, scores = rows[best_first], ids[best_first], scores[best_first]
        neighbor_counts = np.bincount(rows, minlength=n)
        pair_ranks = rank_within_row(neighbor_counts) + int(self_join)
        n_columns = k or max(1, int(neighbor_counts.max(initial=0)) + int(self_join))
        neighbors = cls(np.full((n, n_columns), -1, np.int64), np.full((n, n_columns), -np.inf, np.float32))
        has_column = pair_ranks < n_columns
        neighbors.ids[rows[has_column], pair_ranks[has_column]] = ids[has_column]
        neighbors.scores[rows[has_column], pair_ranks[has_column]] = scores[has_column]
        if self_join:
            neighbors.ids[:, 0] = np.arange(n)
            neighbors.scores[:, 0] = own_scores
        return neighbors


def _checked_pairs(row_numbers, neighbor_ids, scores, n_rows, pool):
    """The pairs of `Neighbors.from_pairs` as int64, int64 and float32 arrays without padding; raises
    `InputError` for what can't be."""
    row_numbers = np.asarray(row_numbers, np.int64)
    neighbor_ids = np.asarray(neighbor_ids, np.int64)
    scores = np.asarray(scores, np.float32)
    if not row_numbers.shape == neighbor_ids.shape == scores.shape or row_numbers.ndim != 1:
        shapes = f'rows {row_numbers.shape}, ids {neighbor_ids.shape} and scores {scores.shape}'
        raise InputError(f'{shapes}: give three 1-D arrays of one length')
    not_padding = neighbor_ids >= 0
    row_numbers = row_numbers[not_padding]
    neighbor_ids = neighbor_ids[not_padding]
    scores = scores[not_padding]
    if len(row_numbers) and (row_numbers.min() < 0 or row_numbers.max() >= n_rows):
        raise InputError(f'rows from {row_numbers.min()} to {row_numbers.max()}, but n={n_rows}')
    if pool is not None and len(neighbor_ids) and neighbor_ids.max() >= pool:
        raise InputError(f'id {neighbor_ids.max()} in a self-join of n={pool}')
    is_finite = np.isfinite(scores)
    if not is_finite.all():
        raise InputError(f'scores of rows {preview(np.unique(row_numbers[~is_finite]))} are not finite')
    return row_numbers, neighbor_ids, scores


def _best_of_each_pair(row_numbers, neighbor_ids, scores):
    "The pairs sorted by row and id, each once, with the best of its scores."
    by_pair = np.lexsort((-scores, neighbor_ids, row_numbers))
    row_numbers, neighbor_ids, scores = row_numbers[by_pair], neighbor_ids[by_pair], scores[by_pair]
    is_first = np.ones(len(row_numbers), bool)
    is_first[1:] = (row_numbers[1:] != row_numbers[:-1]) | (neighbor_ids[1:] != neighbor_ids[:-1])
    return row_numbers[is_first], neighbor_ids[is_first], scores[is_first]


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


def k_among_more(
    k: int | None,  # Neighbors taken from each modality where a rule was chosen; None: the default
    n: int,  # Listings there were
) -> int:
    """How many neighbors a rule takes that was chosen among `n` listings.

    Where all listings were taken nothing was cut, and `k` says how many there were, not how many are wanted:
    among more listings such a rule takes 50 at least.
    """
    if k is None: return NEAREST
    return max(k, NEAREST) if k >= n else k


def refuse_trained_on(
    trained_on: np.ndarray | None,  # bool (n,), listings that an encoder was trained on; None: not known
    what: str,  # What they would be used for, for the message
    names=None,  # (n,) what to call them in the message; default row numbers
    rows=None,  # bool (n,) or row numbers, the listings that count; default all
):
    """Raise `InputError` where an encoder was trained on some of these listings: their similarities are near
    1 and mislead `what`."""
    if trained_on is None: return
    if rows is not None:
        counts = np.zeros(len(trained_on), bool)
        counts[rows] = True
        trained_on = trained_on & counts
    if not np.any(trained_on): return
    shown = np.flatnonzero(trained_on) if names is None else np.asarray(names)[trained_on]
    raise InputError(f'{np.sum(trained_on)} of {len(trained_on)} listings were trained on '
                     f'({preview(shown)}): {what} needs listings the encoder never saw')


def check_self_first(
    neighbors: Neighbors,  # Of a self-join, or of new listings in a `Pool`
    pool: int | None = None,  # Number of listings that ids may point to; default as many as there are rows
):
    "Raise `InputError` unless each listing itself is at rank 0 and all neighbors are listings."
    ids = neighbors.ids
    if not ids.shape[1]: raise InputError('neighbors have no columns: not even the listing itself')
    n_listings = len(ids) if pool is None else pool
    _refuse_rows((ids >= n_listings).any(1), 'name a neighbor past the last listing')
    _refuse_rows(ids[:, 0] != np.arange(len(ids)),
                 'do not start with the listing itself (self_join=False where new listings meet a catalogue)')


def group_codes(
    groups,  # (n,) ints or strings: listings with the same value are the same product
    n: int,  # How many there must be
    name: str = 'groups',  # What to call them in messages
) -> np.ndarray:  # int32 (n,)
    """Groups as codes from 0, numbered by first appearance; raises `InputError` for another length, or
    naming the rows without a group."""
    shape = np.shape(groups)
    if len(shape) != 1 or shape[0] != n: raise InputError(f'{name} of shape {shape}: give {n}, one a row')
    codes = codes_of(groups)
    if (codes < 0).any(): raise InputError(f'{name} are missing in rows {preview(np.flatnonzero(codes < 0))}')
    return codes.astype(np.int32)


def _check_array(field_name, array, dtype):
    if not isinstance(array, np.ndarray) or array.ndim != 2:
        given_type = f'{array.ndim}-D' if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f'neighbors.{field_name}: give a 2-D array, not {given_type}')
    if array.dtype != dtype:
        raise InputError(f'neighbors.{field_name} has dtype {array.dtype}: give {np.dtype(dtype)}')


def _refuse_rows(is_bad, problem):
    if is_bad.any(): raise InputError(f'neighbors: rows {preview(np.flatnonzero(is_bad))} {problem}')
