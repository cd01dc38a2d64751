"New listings against a catalogue and among themselves, as one space: what `candidates` takes in place of a self-join."
import numpy as np

from ...core import InputError
from ..neighbors import Neighbors, resolve_k
from .base import Space
from .keys import Keys


class Pool:
    "One modality of new listings, searched in the new ones and the catalogue together: ids 0..m-1 are new, from m on the catalogue's."
    def __init__(
        self,
        new: Space,  # The new listings; made by the catalogue space's `transform` where that has a vocabulary
        catalogue: Space | None = None,  # The known listings; None: the new ones alone
        within: bool = True,  # Also search the new listings among themselves
    ):
        if isinstance(new, Keys) and catalogue is not None:
            # what is a placeholder is told by new and known listings together, as in one self-join of all
            overused_keys = new.append(catalogue).overused_keys()
            new, catalogue = new.without(overused_keys), catalogue.without(overused_keys)
        self.new, self.catalogue, self.within = new, catalogue, within

    def __len__(self): return len(self.new)

    @property
    def pool(self) -> int: return len(self.new) + (0 if self.catalogue is None else len(self.catalogue))

    @property
    def removed(self): return np.concatenate([o.removed for o in (self.new, self.catalogue) if o is not None])  # bool (pool,)

    def whole(
        self,
        why: str,  # What needs it, for the message
    ) -> Space:
        "New and known listings as one space, the new ones first."
        if not self.within: raise InputError(f'within=False: {why} looks at the neighbours of neighbours, so new listings are matched with each other as well')
        return self.new if self.catalogue is None else self.new.append(self.catalogue)

    def search(
        self,
        k: int | None = None,  # Neighbours a row, the listing itself included; None: 50, or as many as the pool holds where fewer
    ) -> Neighbors:  # The new listing itself at rank 0
        "The exact `k` nearest of each new listing in the whole pool, ties to the smaller id."
        k = resolve_k(k, self.pool)
        m = len(self.new)
        own = self.new.search(min(k, m) if self.within else 1)
        if self.catalogue is None: return own
        far = self.catalogue.search(min(k, len(self.catalogue)), queries=self.new)
        ids = np.concatenate([own.ids[:, 1:], np.where(far.ids >= 0, far.ids + m, -1)], 1)
        scores = np.concatenate([own.scores[:, 1:], far.scores], 1)
        order = np.lexsort((ids, -scores), axis=1)[:, :k - 1]
        ids, scores = np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)
        # what rounds above the listing itself must not break the order
        first = np.maximum(own.scores[:, :1], scores[:, :1]) if scores.shape[1] else own.scores[:, :1]
        return Neighbors(np.concatenate([own.ids[:, :1], ids], 1), np.concatenate([first, scores], 1))

    def scores(
        self,
        rows,  # int, of the new listings
        ids,  # int, of the pool; negative ones are padding; broadcast against `rows`
    ) -> np.ndarray:  # float32 of the broadcast shape, -inf for padding
        "The exact similarities of given pairs."
        rows, ids = np.broadcast_arrays(np.asarray(rows), np.asarray(ids))
        m = len(self.new)
        if ids.size and ids.max() >= self.pool: raise InputError(f'ids up to {ids.max()}, but there are {self.pool}')
        out = np.full(ids.shape, -np.inf, np.float32)
        near, far = (ids >= 0) & (ids < m), ids >= m
        out[near] = self.new.scores(rows[near], ids[near])
        if far.any(): out[far] = self.catalogue.scores(rows[far], ids[far] - m, queries=self.new)
        return out
