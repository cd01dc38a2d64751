"What a few listings find nearest in spaces of many, and whose nearest a few listings change."
from functools import cached_property

import numpy as np

from .candidates import Candidates, candidates, present_in
from .cells import parts_of
from .fuse import fuse, fused_scores
from .neighbors import Neighbors
from .spaces.base import ROUNDING
from .spaces.keys import Keys


class Holders:
    "Which known listings have a key: looked up by the key, where a search goes through all listings."
    def __init__(
        self,
        keys: Keys,  # Of the known listings
    ):
        self.overused = frozenset(keys.overused_keys())
        self._rows = {}
        for row, key in enumerate(keys.keys):
            for part in parts_of(key):
                if part not in self.overused: self._rows.setdefault(part, []).append(row)

    def of(
        self,
        key,  # Of a listing: a string, a tuple of several, or None
    ) -> list[int]:
        "The known listings with one of its keys."
        return [row for part in parts_of(key) for row in self._rows.get(part, ())]


class Nearest:
    """The `k` nearest of listings by a fusion of modalities: of all known listings, as they are without new
    ones, and of a few among known and new ones together."""
    def __init__(
        self,
        spaces: dict,  # Modality -> space of n known listings: `Dense`, `Tfidf`, or `Keys` to join by
        holders: dict,  # Modality of keys -> their `Holders`
        searched: int,  # Candidates from each modality, the listing itself included; n at most
        k: int,  # Nearest that are wanted, the listing itself included
        fusion: dict,  # Arguments of `fuse`
    ):
        self.spaces, self.holders = spaces, holders
        self.searched, self.k = searched, k
        self.fusion = fusion
        self.vector_names = [name for name in spaces if name not in holders]

    @cached_property
    def _found(self):
        "Modality -> `Neighbors`: what a search finds for each known listing."
        return {name: space.search(self.searched) for name, space in self.spaces.items()}

    @cached_property
    def known(self) -> Neighbors:  # (n,k)
        "The nearest of each known listing, where there are no new ones."
        return self._fused(self.spaces, {name: found.ids for name, found in self._found.items()})

    @cached_property
    def _last(self):
        "The score of the last of the nearest, float32 (n,); -inf where there is room for more."
        if self.known.ids.shape[1] < self.k: return np.full(len(self.known.ids), -np.inf, np.float32)
        return self.known.scores[:, -1]

    @cached_property
    def _room(self):
        """How many others a search may find before one of the nearest is a candidate no more, int (n,): each
        stays one as long as one modality has it among its `searched`."""
        room = np.full(len(self.known.ids), self.searched)
        for nearest_ids in self.known.ids.T[1:]:
            behind = np.full(len(room), -1)
            for found in self._found.values():
                is_it = found.ids == nearest_ids[:, None]
                behind = np.maximum(behind, np.where(is_it.any(1), self.searched - 1 - is_it.argmax(1), -1))
            room = np.where(nearest_ids >= 0, np.minimum(room, behind), room)
        return room

    def _fused(self, spaces, found_ids):
        smallest = min(self.searched, len(next(iter(spaces.values()))))
        return fuse(candidates(spaces, smallest, None, _Given(found_ids)), **self.fusion).top(self.k)

    def touched(
        self,
        whole: dict,  # Modality -> space of new and known listings, the new ones first
        changed: np.ndarray,  # int (c,), rising: all m new listings, then known ones with other vectors
        n_new: int,  # m
    ) -> np.ndarray:  # int, rising: those of `changed` among them
        "The listings whose nearest may not be those that `known` has, because of the changed ones."
        known_changed = changed[n_new:] - n_new
        is_touched = np.zeros(len(self.known.ids), bool)
        is_touched[known_changed] = True
        is_touched |= np.isin(self.known.ids, known_changed).any(1)
        places, rows = [], []
        for name in self.vector_names:
            found = self._found[name]
            # up to rounding: what is as near as the last that a search found may come in its place
            scores = self.spaces[name].all_scores(whole[name].take(changed))
            last = found.scores[:, -1]
            could_be_found = np.nonzero((scores >= last - ROUNDING) & (scores > -np.inf))
            places.append(could_be_found[0])
            rows.append(could_be_found[1])
            for place, listing in enumerate(known_changed, n_new):
                # another one may come in its place
                is_lost = (found.ids == listing).any(1) & ~(scores[place] > last + ROUNDING)
                is_touched |= is_lost
        for name, holders in self.holders.items():
            for place, key in enumerate(whole[name].keys[changed]):
                rows.append(np.array(holders.of(key), np.int64))
                places.append(np.full(len(rows[-1]), place))
        places, rows = np.divmod(np.unique(np.concatenate(places) * len(is_touched) + np.concatenate(rows)),
                                 len(is_touched))
        is_open = ~is_touched[rows]
        places, rows = places[is_open], rows[is_open]
        is_near = self._pair_scores(whole, changed[places], rows + n_new) >= self._last[rows]
        is_touched[rows[is_near | (self._room[rows] < len(changed))]] = True
        return np.concatenate([np.arange(n_new), n_new + np.flatnonzero(is_touched)])

    def _pair_scores(self, whole, rows, ids):
        "The fused scores of pairs, float32 (m,)."
        present = None
        if self.fusion['how'] == 'joint': present = {name: present_in(whole[name]) for name in self.spaces}
        pairs = Candidates(ids, {name: whole[name].scores(rows, ids) for name in self.spaces}, rows=rows,
                           join=tuple(self.holders), pool=len(next(iter(whole.values()))), present=present)
        return fused_scores(pairs, **self.fusion)

    def of(
        self,
        whole: dict,  # Modality -> space of new and known listings, the new ones first
        rows: np.ndarray,  # int (r,), rising
        n_new: int,  # New listings
    ) -> Neighbors:  # (r,k) with ids among all
        "The nearest of some listings among new and known ones."
        found = {name: whole[name].search_rows(rows, self.searched).ids for name in self.vector_names}
        taken = [rows, *(ids[ids >= 0] for ids in found.values())]
        for name, holders in self.holders.items():
            taken.append(_key_holders(holders, whole[name].keys, rows, n_new))
        # those that were found are enough: they stand in the same order among themselves as among all
        taken = np.unique(np.concatenate(taken))
        own_places = np.searchsorted(taken, rows)
        found_ids = {}
        for name, ids in found.items():
            found_ids[name] = np.full((len(taken), ids.shape[1]), -1, np.int64)
            found_ids[name][:, 0] = np.arange(len(taken))
            found_ids[name][own_places] = np.where(ids >= 0, np.searchsorted(taken, ids), -1)
        nearest = self._fused({name: whole[name].take(taken) for name in self.spaces}, found_ids)
        ids, scores = nearest.ids[own_places], nearest.scores[own_places]
        return Neighbors(np.where(ids >= 0, taken[ids], -1), scores)


def _key_holders(holders, keys, rows, n_new):
    "The listings that have a key in common with some, int (h,), new and known ones."
    wanted = {part for key in keys[rows] for part in parts_of(key)}
    new = [row for row in range(n_new) if wanted.intersection(parts_of(keys[row]))]
    return np.array(new + [n_new + row for part in wanted for row in holders.of(part)], np.int64)


class _Given:
    "What searches found, in their place, as `candidates` asks for it."
    def __init__(self, ids): self._ids = ids

    def ids(self, name, space, search): return self._ids[name] if name in self._ids else search()

    def scores(self, spaces, rows, ids): return {}
