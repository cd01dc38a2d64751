"`Keys`: exact keys as a space; listings with an equal perceptual hash (or another key) are the same picture."
import numpy as np
import pandas as pd
from scipy import sparse

from ...core import InputError
from ..cells import comparable, key_sets, parts_of, several
from ..neighbors import Neighbors, resolve_k
from .base import PairwiseSpace

MAX_SHARED = 50  # a key on more listings than this is a placeholder ('no photo') and joins nothing


def title_keys(
    titles,  # (n,) strings
) -> list:  # (n,) strings, None for an empty title
    """Titles as keys for `Keys`: titles are equal that differ in capitals and blanks only, or in how Unicode
    writes the same characters."""
    return [comparable(title) or None for title in titles]


class Keys(PairwiseSpace):
    """Listings by a key: similarity 1 where two keys are equal, otherwise they are no neighbors. Missing
    keys equal nothing. Of listings with several keys (hashes of several pictures) one in common is enough.
    """
    def __init__(
        self,
        keys,  # (n,) strings, None where a listing has none, or a tuple or list where it has several
        max_shared: int = MAX_SHARED,  # A key on more listings than this joins nothing
    ):
        self.keys = key_sets(keys)  # object (n,), a string, None, or a tuple of two strings or more
        self.max_shared = max_shared

    def __len__(self): return len(self.keys)
    def __repr__(self): return f'Keys({len(self)})'

    @property
    def has_several(self) -> bool:
        "Whether a listing has more than one key."
        return any(several(key) for key in self.keys)

    def take(self, rows):
        "A space of some of the listings, by row numbers or bool (n,)."
        return Keys(self.keys[rows], self.max_shared)

    def append(self, other):
        "A space of these listings and, behind them, those of `other`."
        return Keys(np.concatenate([self.keys, self._check_compatible(other).keys]), self.max_shared)

    def transform(
        self,
        keys,  # (m,) strings or None, one a new listing
    ) -> 'Keys':
        "New listings, to hand to `search` and `scores` as `queries`."
        return Keys(keys, self.max_shared)

    def overused_keys(self) -> list:
        "The keys on more listings than `max_shared`."
        key_counts = pd.Series(self.keys).explode().value_counts()
        return key_counts.index[key_counts > self.max_shared].tolist()

    def without(
        self,
        keys,  # Some keys
    ) -> 'Keys':
        "A space of the same listings where those `keys` count as missing."
        if not len(keys): return self
        if self.has_several:
            left_out = set(keys)
            return Keys([tuple(part for part in parts_of(key) if part not in left_out) for key in self.keys],
                        self.max_shared)
        return Keys(np.where(np.isin(self.keys.astype(str), keys), None, self.keys), self.max_shared)

    def codes(
        self,
        queries: 'Keys | None' = None,  # New listings; default these listings themselves
    ) -> tuple[np.ndarray, np.ndarray]:  # int (n,) of the listings, int (m,) of the queries
        """Keys as numbers, equal where the keys are; -1 for a missing key and for one on more than
        `max_shared` listings. Raises `InputError` for listings with several keys."""
        if self.has_several or (queries is not None and queries.has_several):
            raise InputError('keys: some listings have several keys, which one number each cannot hold')
        if queries is None or queries is self:
            own_codes = query_codes = pd.factorize(self.keys)[0]
        else:
            all_codes = pd.factorize(np.concatenate([self.keys, queries.keys]))[0]
            own_codes, query_codes = all_codes[:len(self)], all_codes[len(self):]
        key_counts = np.bincount(own_codes[own_codes >= 0])
        overused = np.flatnonzero(key_counts > self.max_shared)
        return tuple(np.where(np.isin(codes, overused), -1, codes) for codes in (own_codes, query_codes))

    def search(self, k=None, queries=None):
        "The listings with an equal key, `k` at most, those of smaller ids first."
        k = resolve_k(k, len(self))
        checked_queries = self if queries is None else self._check_compatible(queries)
        own_table, query_table = self._tables(checked_queries)
        # of a key on very many listings the first `k` are enough: all pairs would be their number squared
        found = own_table.rename(columns={'listing': 'id'}).groupby('key').head(k)
        pairs = query_table.rename(columns={'listing': 'row'}).merge(found, on='key')
        # listings may have several keys in common
        if self.has_several and checked_queries.has_several: pairs = pairs.drop_duplicates(['row', 'id'])
        ones = np.ones(len(pairs))
        return Neighbors.from_pairs(
            pairs.row, pairs.id, ones, len(checked_queries), self_join=queries is None, k=k)

    def _check_compatible(self, queries):
        if not isinstance(queries, Keys):
            raise InputError(f'keys: queries are {type(queries).__name__}, give Keys')
        return queries

    def shared_pairs(
        self,
        is_counted: np.ndarray,  # bool (n,), listings that share their keys with others
    ) -> tuple[np.ndarray, np.ndarray]:  # int (m,), int (m,)
        "All pairs of listings with a key in common, each listing with itself among them, sorted."
        table = self._tables(self)[0]
        table = table[is_counted[table.listing.to_numpy()]]
        pairs = table.merge(table, on='key')
        own = np.arange(len(self))
        rows = np.concatenate([own, pairs.listing_x.to_numpy()])
        ids = np.concatenate([own, pairs.listing_y.to_numpy()])
        return np.divmod(np.unique(rows * len(self) + ids), len(self))

    def _tables(self, queries):
        "Each key of each listing with its code, of these listings and of the queries: no overused ones."
        if not self.has_several and not queries.has_several:
            return tuple(_by_key(codes) for codes in self.codes(queries))
        spaces = [self] if queries is self else [self, queries]
        keys = pd.concat([pd.Series(space.keys, dtype=object).explode() for space in spaces])
        codes = pd.factorize(keys.to_numpy(object))[0]
        n_own = len(codes) if queries is self else sum(len(parts_of(key)) or 1 for key in self.keys)
        listings = keys.index.to_numpy()
        key_counts = np.bincount(codes[:n_own][codes[:n_own] >= 0], minlength=codes.max(initial=-1) + 1)
        overused = np.flatnonzero(key_counts > self.max_shared)
        codes = np.where(np.isin(codes, overused), -1, codes)
        table = pd.DataFrame({'key': codes, 'listing': listings})
        own, of_queries = table[:n_own], table if queries is self else table[n_own:]
        return own[own.key >= 0], of_queries[of_queries.key >= 0]

    def _pair_scores(self, queries, query_rows, listing_ids):
        if self.has_several or queries.has_several:
            return self._common(queries, query_rows, listing_ids)
        own_codes, query_codes = self.codes(queries)
        is_equal = (query_codes[query_rows] >= 0) & (query_codes[query_rows] == own_codes[listing_ids])
        # a listing equals itself, with or without a key
        if queries is self: is_equal |= query_rows == listing_ids
        return is_equal.astype(np.float32)

    def _common(self, queries, query_rows, listing_ids):
        "Whether the listings of each pair have a key in common, as 0 or 1."
        own, of_queries = self._tables(queries)
        width = max(own.key.max() if len(own) else 0, of_queries.key.max() if len(of_queries) else 0) + 1
        own_grid, query_grid = (
            sparse.csr_matrix((np.ones(len(table), np.float32), (table.listing, table.key)), (n_rows, width))
            for table, n_rows in ((own, len(self)), (of_queries, len(queries))))
        n_common = np.asarray(query_grid[query_rows].multiply(own_grid[listing_ids]).sum(1)).ravel()
        is_equal = n_common > 0
        if queries is self: is_equal |= query_rows == listing_ids
        return is_equal.astype(np.float32)


def source_space(
    sources,  # (n,) where each listing comes from
) -> Keys:
    "Where listings come from as a space, for rules that keep those of one source apart."
    return Keys(sources, max_shared=np.iinfo(np.int64).max)


def _by_key(codes):
    "The numbers of the listings that have a key, with its code: a table to merge on."
    return pd.DataFrame({'key': codes, 'listing': np.arange(len(codes))})[codes >= 0]
