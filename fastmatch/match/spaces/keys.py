"Exact keys as a space to search: listings whose perceptual hash (or other key) is equal are the same picture."
import numpy as np
import pandas as pd

from ...core import InputError
from ..neighbors import Neighbors, resolve_k
from .base import Space

MAX_SHARED = 50  # a key on more listings than this is a placeholder ('no photo'): it joins nothing


def title_keys(
    titles,  # (n,) strings
) -> list:  # (n,) strings, None for an empty title
    "Titles as keys: the same but for capitals and blanks is the same."
    return [' '.join(o.casefold().split()) or None for o in titles]


class Keys(Space):
    "Listings by a key: similarity 1 where two keys are equal, otherwise they are no neighbours. Missing keys equal nothing."
    def __init__(
        self,
        keys,  # (n,) strings, or None where a listing has none
        max_shared: int = MAX_SHARED,  # A key on more listings than this joins nothing
    ):
        self.keys, self.max_shared = np.array([None if pd.isna(o) else str(o) for o in keys], dtype=object), max_shared

    def __len__(self): return len(self.keys)
    def __repr__(self): return f'Keys({len(self)})'

    def take(self, rows): return Keys(self.keys[rows], self.max_shared)
    def append(self, other): return Keys(np.concatenate([self.keys, self._check_compatible(other).keys]), self.max_shared)
    def transform(self, keys): return Keys(keys, self.max_shared)

    def overused_keys(self) -> list:
        "The keys on more listings than `max_shared`."
        count = pd.Series(self.keys).value_counts()
        return count.index[count > self.max_shared].tolist()

    def without(
        self,
        keys,  # Some keys
    ) -> 'Keys':
        "A space of the same listings where those `keys` count as missing."
        return Keys(np.where(np.isin(self.keys.astype(str), keys), None, self.keys), self.max_shared) if len(keys) else self

    def _check_compatible(self, queries):
        if not isinstance(queries, Keys): raise InputError(f'keys: queries are {type(queries).__name__}, give Keys')
        return queries

    def _codes(self, q):
        both = pd.factorize(np.concatenate([self.keys, q.keys]) if q is not self else self.keys)[0]
        mine, theirs = both[:len(self)], both[len(self):] if q is not self else both
        shared = np.flatnonzero(np.bincount(mine[mine >= 0]) > self.max_shared) if (mine >= 0).any() else []
        return np.where(np.isin(mine, shared), -1, mine), np.where(np.isin(theirs, shared), -1, theirs)

    def search(self, k=None, queries=None):
        k = resolve_k(k, len(self))
        q = self if queries is None else self._check_compatible(queries)
        mine, theirs = self._codes(q)
        mine, theirs = (pd.DataFrame({'key': o, name: np.arange(len(o))})[o >= 0] for o, name in ((mine, 'id'), (theirs, 'row')))
        both = theirs.merge(mine, on='key')
        return Neighbors.from_pairs(both.row, both.id, np.ones(len(both)), len(q), self_join=queries is None, k=k)

    def _pairs(self, q, rows, ids):
        mine, theirs = self._codes(q)
        same = (theirs[rows] >= 0) & (theirs[rows] == mine[ids])
        # a listing is itself, with or without a key
        return (same | (rows == ids if q is self else False)).astype(np.float32)

    _width = 1
