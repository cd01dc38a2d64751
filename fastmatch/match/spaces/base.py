"""What every space offers, and the exact search that spaces with vectors share.

`Space` is all that the rest of `match` asks for. `PairwiseSpace` is for spaces whose pairs are scored one by
one and `VectorSpace` for those that also have vectors. A new modality extends one of the three and writes its
abstract methods.
"""
from abc import ABC, abstractmethod

import numpy as np
from tqdm import tqdm

from ...core import InputError
from ..arrays import rank_within_row
from ..neighbors import Neighbors, resolve_k

BLOCK_FLOATS = 1 << 22  # float32 numbers a temporary block may hold: 16 MB, near a processor's caches
# neighbors a library proposes beyond the k wanted, so that few rows must be compared with all listings
SPARE = 8
ROUNDING = np.float32(1e-5)  # two float32 inner products that are closer than this may come in either order


class Space(ABC):
    "One modality of n listings that can be searched, and whose pairs can be scored."
    made_with: dict | None = None  # How its vectors were made, as `Embeddings` know it; None: not known
    # bool (n,), listings that an encoder was trained on, as `Embeddings` know it; None: not known
    trained_on: np.ndarray | None = None
    is_field = False  # Whether it is a column of a table that is compared: a code, a category or a number
    # Whether it is any further column of a table, a text too: none of the encoders and titles of a listing
    is_column = False
    is_searched = True  # Whether a search finds others: brands and prices are only compared

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    def pool(self) -> int:
        "The number of listings that ids may point to."
        return len(self)

    @property
    def searched(self) -> int:
        "The number of listings that each one is compared with, itself included."
        return self.pool

    @property
    def removed(self) -> np.ndarray:  # bool (pool,)
        "Which listings were removed: they are nobody's neighbors."
        return np.zeros(self.pool, bool)

    @property
    def present(self) -> np.ndarray:  # bool (n,)
        "Whether each listing has something in this space: what is similar to itself."
        row_numbers = np.arange(len(self))
        return self.scores(row_numbers, row_numbers) > 0

    @abstractmethod
    def search(
        self,
        k: int | None = None,  # Neighbors a row, the listing itself included; None: 50, or all where fewer
        queries: 'Space | None' = None,  # New listings to look up; default each listing, itself at rank 0
    ) -> Neighbors:  # (n,k), of the queries where they are given
        """The `k` nearest listings of each row, ties to the smaller id; raises `InputError` for `k` above
        the listings."""

    @abstractmethod
    def scores(
        self,
        rows,  # int, rows of the queries (of the listings themselves where none are given)
        ids,  # int, listings; negative ones are padding; broadcast against `rows`, e.g. (n,1) and (n,K)
        queries: 'Space | None' = None,  # New listings that `rows` count
    ) -> np.ndarray:  # float32 of the broadcast shape, -1 to 1, -inf for padding
        "The exact similarities of given pairs; a pair's score has the same bits wherever it is asked for."


class PairwiseSpace(Space):
    "A space whose pairs are scored one by one; parts of it, and more listings behind it, are spaces again."
    _floats_per_pair = 1  # float32 numbers that scoring a pair takes: `scores` chooses its blocks by it

    @abstractmethod
    def take(
        self,
        rows,  # Row numbers, or bool (n,)
    ) -> 'PairwiseSpace':
        "A space of some of the listings."

    @abstractmethod
    def append(
        self,
        other: 'PairwiseSpace',  # More listings of the same space
    ) -> 'PairwiseSpace':
        "A space of these listings and, behind them, those of `other`."

    def pair_features(
        self,
        rows: np.ndarray,  # int (m,), the first listing of each pair
        ids: np.ndarray,  # int (m,), the second
    ) -> dict:  # Name -> float32 (m,)
        "What a pair model reads of pairs beside their similarity; nothing here."
        return {}

    @abstractmethod
    def _check_compatible(
        self,
        queries: Space,  # Listings to look up, or to append
    ) -> 'PairwiseSpace':
        "`queries`, or `InputError` where they can't be compared with these listings."

    @abstractmethod
    def _pair_scores(
        self,
        queries: 'PairwiseSpace',  # Compatible listings, or `self`
        query_rows: np.ndarray,  # int (m,), of `queries`
        listing_ids: np.ndarray,  # int (m,), of these listings
    ) -> np.ndarray:  # float (m,)
        """The similarity of each pair (row, id), computed from the two listings alone, whatever else is in
        the block."""

    def scores(self, rows, ids, queries=None):
        "The exact similarities of given pairs, float32 of the broadcast shape; see `Space.scores`."
        queries = self if queries is None else self._check_compatible(queries)
        rows, ids = np.broadcast_arrays(np.asarray(rows), np.asarray(ids))
        _check_numbers('rows', rows, len(queries), lowest=0)
        _check_numbers('ids', ids, len(self))
        all_scores = np.full(ids.shape, -np.inf, np.float32)
        not_padding = ids >= 0
        rows, ids = rows[not_padding], ids[not_padding]
        scores = np.empty(len(ids), np.float32)
        block_size = max(1, BLOCK_FLOATS // self._floats_per_pair)
        for block_start in tqdm(range(0, len(ids), block_size), desc='score', delay=2, leave=False):
            block = slice(block_start, block_start + block_size)
            scores[block] = self._pair_scores(queries, rows[block], ids[block])
        # inner products of unit vectors exceed 1 by rounding
        all_scores[not_padding] = np.clip(scores, -1, 1)
        return all_scores


class VectorSpace(PairwiseSpace):
    """A space of listings with vectors, searched exactly.

    A library's scores depend in their last bits on the block they were computed in, and which of several
    equal ones it returns depends on its heap. So the library only proposes `SPARE` neighbors more than
    wanted, `_pair_scores` scores them, and rows where a listing that was not proposed could still reach rank
    k are compared with all listings.
    """
    vectors: np.ndarray  # (n, dim), an array or a sparse matrix, rows of unit length

    def __len__(self): return self.vectors.shape[0]

    @property
    def dim(self) -> int:
        "The length of a vector."
        return self.vectors.shape[1]

    @abstractmethod
    def _with_vectors(
        self,
        vectors,  # (m, dim), rows of unit length
        removed: np.ndarray | None = None,  # bool (m,), for spaces that remember which listings were removed
    ) -> 'VectorSpace':
        "A space with the settings of this one and other vectors."

    @abstractmethod
    def _nearest(
        self,
        queries: 'VectorSpace',  # Compatible listings, or `self`
        query_rows: np.ndarray,  # int (b,), of `queries`
        k: int,  # Listings to propose
    ) -> tuple[np.ndarray, np.ndarray]:  # ids (b,k), padded with -1; scores (b,k), nearly exact
        "The `k` nearest of each row up to rounding, in a library's order, the listing itself among them."

    @abstractmethod
    def _all_scores(
        self,
        queries: 'VectorSpace',  # Compatible listings, or `self`
        query_rows: np.ndarray,  # int (b,), of `queries`
    ) -> np.ndarray:  # float32 (b,n), -inf for listings that can be nobody's neighbor
        "The similarity of each row to all listings, up to rounding."

    def search(self, k=None, queries=None):
        "The exact `k` nearest of each row, ties to the smaller id; see `Space.search`."
        k = resolve_k(k, len(self))
        self_join = queries is None
        queries = self if self_join else self._check_compatible(queries)
        found = _no_neighbors(len(queries), k)
        block_size = self._query_block(k)
        query_order = self._query_order(queries, self_join)
        for block_start in tqdm(range(0, len(queries), block_size), desc='search', delay=2, leave=False):
            query_rows = query_order[block_start:block_start + block_size]
            nearest = self._search_block(query_rows, queries, k, self_join)
            found.ids[query_rows], found.scores[query_rows] = nearest
        return found

    def search_rows(
        self,
        rows: np.ndarray,  # int (r,), of one listing or more
        k: int,  # Neighbors a row, the listing itself included
    ) -> Neighbors:  # (r,k), the listing itself at rank 0
        "What `search` finds for some of the listings among all."
        blocks = np.array_split(rows, -(-len(rows) // self._query_block(k)))
        found = [self._search_block(block, self, k, True) for block in blocks]
        return Neighbors(np.concatenate([block.ids for block in found]),
                         np.concatenate([block.scores for block in found]))

    def all_scores(
        self,
        queries: 'VectorSpace',  # Listings to look up, compatible ones
    ) -> np.ndarray:  # float32 (q,n), -inf for listings that can be nobody's neighbor
        "The similarity of each query to all listings, up to rounding."
        return self._all_scores(self._check_compatible(queries), np.arange(len(queries)))

    def _query_block(self, k):
        "How many queries are looked up at a time."
        return max(1, min(1024, 16 * BLOCK_FLOATS // len(self)))

    def _query_order(self, queries, self_join):
        "The order in which queries are looked up; it changes nothing but the time."
        return np.arange(len(queries))

    def _search_block(self, query_rows, queries, k, self_join):
        proposed, proposed_scores = self._nearest(queries, query_rows, min(len(self), k + SPARE))
        found = self._best_of(query_rows, proposed, queries, k, self_join)
        kth_score = found.scores[:, -1] if k > self_join else np.full(len(query_rows), np.inf, np.float32)
        is_unsure = proposed_scores[:, -1] >= kth_score - ROUNDING
        is_unsure &= (proposed.shape[1] < len(self)) & (proposed[:, -1] >= 0)
        unsure_rows = np.flatnonzero(is_unsure)
        block_size = max(1, 4 * BLOCK_FLOATS // len(self))
        for block_start in range(0, len(unsure_rows), block_size):
            searched_rows = unsure_rows[block_start:block_start + block_size]
            all_scores = self._all_scores(queries, query_rows[searched_rows])
            possible = _as_grid(all_scores >= kth_score[searched_rows, None] - ROUNDING)
            nearest = self._best_of(query_rows[searched_rows], possible, queries, k, self_join)
            found.ids[searched_rows], found.scores[searched_rows] = nearest
        return found

    def _best_of(self, query_rows, listing_ids, queries, k, self_join):
        """The `k` best of the proposed `listing_ids` (b,K) of each row, exactly scored, ties to the smaller
        id."""
        if self_join: listing_ids = np.where(listing_ids == query_rows[:, None], -1, listing_ids)
        # ids rise along each row, and a stable sort keeps that order in ties
        listing_ids = np.sort(listing_ids, axis=1)
        scores = self.scores(query_rows[:, None], listing_ids, None if queries is self else queries)
        best_first = np.argsort(-scores, axis=1, kind='stable')[:, :k - self_join]
        best = _no_neighbors(len(query_rows), k)
        columns = slice(int(self_join), int(self_join) + best_first.shape[1])
        best.ids[:, columns] = np.take_along_axis(listing_ids, best_first, 1)
        best.scores[:, columns] = np.take_along_axis(scores, best_first, 1)
        if self_join:
            best.ids[:, 0] = query_rows
            # a near-duplicate can round above the listing itself
            own_scores = self.scores(query_rows, query_rows)
            # a listing stands in its row, also where nothing is known of it
            own_scores[np.isnan(own_scores)] = 0
            best.scores[:, 0] = np.maximum(own_scores, scores.max(1, initial=-np.inf))
        return best


def _no_neighbors(n_rows, k):
    return Neighbors(np.full((n_rows, k), -1, np.int64), np.full((n_rows, k), -np.inf, np.float32))


def _as_grid(is_listed):
    "The columns that are True in each row of a mask (b,n), int64 (b,K), rising, padded with -1."
    row_numbers, columns = np.nonzero(is_listed)
    row_counts = np.bincount(row_numbers, minlength=len(is_listed))
    column_grid = np.full((len(is_listed), row_counts.max()), -1, np.int64)
    column_grid[row_numbers, rank_within_row(row_counts)] = columns
    return column_grid


def _check_numbers(argument, numbers, n_listings, lowest=None):
    if not numbers.size: return
    if not np.issubdtype(numbers.dtype, np.integer):
        raise InputError(f'{argument} of dtype {numbers.dtype}: give integers')
    if numbers.max() >= n_listings or (lowest is not None and numbers.min() < lowest):
        raise InputError(f'{argument} up to {numbers.max()}, but there are {n_listings}')
