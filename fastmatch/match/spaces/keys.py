"`Keys`: exact keys as a space; listings with an equal perceptual hash (or another key) are the same picture."
import numpy as np
import pandas as pd

from ...core import InputError
from ..cells import comparable, texts_of
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
    keys equal nothing."""
    def __init__(
        self,
        keys,  # (n,) strings, or None where a listing has none
        max_shared: int = MAX_SHARED,  # A key on more listings than this joins nothing
    ):
        self.keys = texts_of(keys)
        self.max_shared = max_shared

    def __len__(self): return len(self.keys)
    def __repr__(self): return f'Keys({len(self)})'

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
        key_counts = pd.Series(self.keys).value_counts()
        return key_counts.index[key_counts > self.max_shared].tolist()

    def without(
        self,
        keys,  # Some keys
    ) -> 'Keys':
        "A space of the same listings where those `keys` count as missing."
        if not len(keys): return self
        return Keys(np.where(np.isin(self.keys.astype(str), keys), None, self.keys), self.max_shared)

    def codes(
        self,
        queries: 'Keys | None' = None,  # New listings; default these listings themselves
    ) -> tuple[np.ndarray, np.ndarray]:  # int (n,) of the listings, int (m,) of the queries
        """Keys as numbers, equal where the keys are; -1 for a missing key and for one on more than
        `max_shared` listings."""
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
        own_codes, query_codes = self.codes(checked_queries)
        # of a key on very many listings the first `k` are enough: all pairs would be their number squared
        found = _by_key(own_codes, 'id').groupby('key').head(k)
        pairs = _by_key(query_codes, 'row').merge(found, on='key')
        ones = np.ones(len(pairs))
        return Neighbors.from_pairs(
            pairs.row, pairs.id, ones, len(checked_queries), self_join=queries is None, k=k)

    def _check_compatible(self, queries):
        if not isinstance(queries, Keys):
            raise InputError(f'keys: queries are {type(queries).__name__}, give Keys')
        return queries

    def _pair_scores(self, queries, query_rows, listing_ids):
        own_codes, query_codes = self.codes(queries)
        is_equal = (query_codes[query_rows] >= 0) & (query_codes[query_rows] == own_codes[listing_ids])
        # a listing equals itself, with or without a key
        if queries is self: is_equal |= query_rows == listing_ids
        return is_equal.astype(np.float32)


def source_space(
    sources,  # (n,) where each listing comes from
) -> Keys:
    "Where listings come from as a space, for rules that keep those of one source apart."
    return Keys(sources, max_shared=np.iinfo(np.int64).max)


def _by_key(codes, column):
    "The numbers of the listings that have a key, with its code: a table to merge on."
    return pd.DataFrame({'key': codes, column: np.arange(len(codes))})[codes >= 0]
