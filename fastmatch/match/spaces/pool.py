"`Pool`: new listings searched in a catalogue and among themselves, as one space that `candidates` takes."
import numpy as np

from ...core import InputError
from ..neighbors import Neighbors, resolve_k
from .asymmetric import AsymmetricSpace
from .base import PairwiseSpace, Space
from .keys import Keys
from .picture_sets import alike


class Pool:
    """One modality of new listings, searched in the new ones and the catalogue together.

    Of m new listings, ids 0 to m-1 are the new ones and ids from m on are the catalogue's.
    """
    def __init__(
        self,
        new: PairwiseSpace,  # The new listings; made by the catalogue's `transform` where it has a vocabulary
        catalogue: PairwiseSpace | None = None,  # The known listings; None: the new ones alone
        within: bool = True,  # Also search the new listings among themselves
    ):
        self.known = catalogue  # as it was given: `catalogue` lacks keys on too many listings
        self._overused_keys = []
        if isinstance(new, Keys):
            # which keys are placeholders is counted over new and known listings together, as in one
            # self-join of all
            together = new if catalogue is None else new.append(catalogue)
            self._overused_keys = together.overused_keys()
        if self._overused_keys and catalogue is not None:
            new = new.without(self._overused_keys)
            catalogue = catalogue.without(self._overused_keys)
        new, catalogue = alike(new, catalogue)
        self.new = new
        self.catalogue = catalogue
        self.within = within
        self.made_with = new.made_with
        self.trained_on = new.trained_on

    def __len__(self): return len(self.new)
    def overused_keys(self) -> list:
        "The keys on so many listings, new and known ones, that they join nothing."
        return self._overused_keys

    @property
    def pool(self) -> int:
        "The number of listings that ids may point to: new and known ones."
        return len(self.new) + (0 if self.catalogue is None else len(self.catalogue))

    @property
    def searched(self) -> int:
        "The number of listings that each new one is compared with, itself included."
        return self.pool if self.within else self.pool - len(self.new) + 1

    @property
    def removed(self) -> np.ndarray:  # bool (pool,)
        "Which listings were removed: they are nobody's neighbors."
        return np.concatenate([space.removed for space in (self.new, self.catalogue) if space is not None])

    def whole(
        self,
        why: str,  # What needs it, for the message
    ) -> PairwiseSpace:
        """New and known listings as one space, the new ones first; raises `InputError` where `within` is
        False."""
        if not self.within:
            raise InputError(f'within=False: {why} uses the neighbors of neighbors, '
                             'so new listings are matched with each other as well')
        return self.new if self.catalogue is None else self.new.append(self.catalogue)

    def search(
        self,
        k: int | None = None,  # Neighbors a row, the listing itself included; None: 50, or all where fewer
    ) -> Neighbors:  # (m,k), the new listing itself at rank 0
        "The exact `k` nearest of each new listing in the whole pool, ties to the smaller id."
        k = resolve_k(k, self.pool)
        n_new = len(self.new)
        among_new = self.new.search(min(k, n_new) if self.within else 1)
        if self.catalogue is None: return among_new
        in_catalogue = self.catalogue.search(min(k, len(self.catalogue)), queries=self.new)
        catalogue_ids = np.where(in_catalogue.ids >= 0, in_catalogue.ids + n_new, -1)
        ids = np.concatenate([among_new.ids[:, 1:], catalogue_ids], 1)
        scores = np.concatenate([among_new.scores[:, 1:], in_catalogue.scores], 1)
        best_first = np.lexsort((ids, -scores), axis=1)[:, :k - 1]
        ids = np.take_along_axis(ids, best_first, 1)
        scores = np.take_along_axis(scores, best_first, 1)
        # a near-duplicate that rounds above the listing itself must not break the order
        own_scores = among_new.scores[:, :1]
        if scores.shape[1]: own_scores = np.maximum(own_scores, scores[:, :1])
        return Neighbors(np.concatenate([among_new.ids[:, :1], ids], 1),
                         np.concatenate([own_scores, scores], 1))

    def scores(
        self,
        rows,  # int, of the new listings
        ids,  # int, of the pool; negative ones are padding; broadcast against `rows`
    ) -> np.ndarray:  # float32 of the broadcast shape, -inf for padding
        "The exact similarities of given pairs."
        rows, ids = np.broadcast_arrays(np.asarray(rows), np.asarray(ids))
        n_new = len(self.new)
        if ids.size and ids.max() >= self.pool:
            raise InputError(f'ids up to {ids.max()}, but there are {self.pool}')
        all_scores = np.full(ids.shape, -np.inf, np.float32)
        is_new = (ids >= 0) & (ids < n_new)
        is_known = ids >= n_new
        all_scores[is_new] = self.new.scores(rows[is_new], ids[is_new])
        if is_known.any():
            catalogue_ids = ids[is_known] - n_new
            all_scores[is_known] = self.catalogue.scores(rows[is_known], catalogue_ids, queries=self.new)
        return all_scores


def holds_keys(
    space: Space | Pool,  # Of any kind
) -> bool:
    "Whether it compares exact keys, which match by themselves."
    return isinstance(_held(space), Keys)


def holds_field(
    space: Space | Pool,  # Of any kind
) -> bool:
    "Whether it is a column of a table that is compared: a code, a category or a number."
    return _held(space).is_field


def holds_column(
    space: Space | Pool,  # Of any kind
) -> bool:
    "Whether it is a further column of a table: a text, a code, a category or a number."
    return _held(space).is_column


def finds_candidates(
    space: Space | Pool,  # Of any kind
) -> bool:
    "Whether a search finds other listings: not so in columns of categories and numbers."
    return _held(space).is_searched


def _held(space):
    "The space of listings that a pool, or a space with queries of its own, holds."
    if isinstance(space, Pool): return _held(space.new)
    return space.listings if isinstance(space, AsymmetricSpace) else space


def first_rows(
    space: Space,  # p listings
    n: int,  # How many of them are looked up
) -> Space | Pool:
    "A space in which only the first `n` listings are looked up, in the pool of all."
    if n == len(space): return space
    # a listing without a key equals itself alone, which a `Pool` knows
    if isinstance(space, Keys): return Pool(space.take(np.arange(n)), space.take(np.arange(n, len(space))))
    if isinstance(space, AsymmetricSpace):
        return AsymmetricSpace(space.listings, space.queries.take(np.arange(n)))
    return AsymmetricSpace(space, space.take(np.arange(n)))
