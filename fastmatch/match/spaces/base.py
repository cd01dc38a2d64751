"Spaces to search: what every modality shares."
import numpy as np
from tqdm import tqdm

from ...core import InputError
from ..neighbors import Neighbors, resolve_k

FLOATS = 1 << 22  # how many float32 a temporary block may hold (16 MB: small blocks stay near the processor's caches)


SPARE = 8  # neighbours fetched beyond k, so that few rows need a second look


NEAR = np.float32(1e-5)  # rounding of a float32 inner product: two scores closer than this may come in either order


class Space:
    "One modality to search. Subclasses give `_nearest`, `_all_scores` and `_pairs`; scores of one pair are the same bits wherever it's asked for."
    @property
    def pool(self) -> int: return len(self)  # listings that ids may point to

    @property
    def removed(self) -> np.ndarray: return np.zeros(self.pool, bool)  # listings that were removed: nobody's neighbours

    def search(
        self,
        k: int | None = None,  # Neighbours a row, the listing itself included; None: 50, or as many as there are where fewer
        queries: 'Space | None' = None,  # New listings to look up, of the same space; default: each listing among all, itself at rank 0
    ) -> Neighbors:
        "The exact `k` nearest of each row, ties to the smaller id."
        k = resolve_k(k, len(self))
        self_join = queries is None
        q = self if self_join else self._check_compatible(queries)
        ids, scores = np.full((len(q), k), -1, np.int64), np.full((len(q), k), -np.inf, np.float32)
        size, order = self._block(k), self._order(q, self_join)
        for i in tqdm(range(0, len(q), size), desc='search', delay=2, leave=False):
            rows = order[i:i+size]
            ids[rows], scores[rows] = self._search(rows, q, k, self_join)
        return Neighbors(ids, scores)

    def scores(
        self,
        rows,  # int, of the queries (of the listings themselves where none are given)
        ids,  # int, of the listings; negative ones are padding; broadcast against `rows`, e.g. (n,1) and (n,K)
        queries: 'Space | None' = None,  # Where `rows` come from
    ) -> np.ndarray:
        "The exact similarities of given pairs: float32 of the broadcast shape, -inf for padding."
        q = self if queries is None else self._check_compatible(queries)
        rows, ids = np.broadcast_arrays(np.asarray(rows), np.asarray(ids))
        for name, a, n in (('rows', rows, len(q)), ('ids', ids, len(self))):
            if a.size and not np.issubdtype(a.dtype, np.integer): raise InputError(f'{name} of dtype {a.dtype}: give integers')
            if a.size and (a.max() >= n or (name == 'rows' and a.min() < 0)): raise InputError(f'{name} up to {a.max()}, but there are {n}')
        out = np.full(ids.shape, -np.inf, np.float32)
        real = ids >= 0
        rows, ids = rows[real], ids[real]
        vals, size = np.empty(len(ids), np.float32), max(1, FLOATS // self._width)
        for i in tqdm(range(0, len(ids), size), desc='score', delay=2, leave=False):
            vals[i:i+size] = self._pairs(q, rows[i:i+size], ids[i:i+size])
        out[real] = np.clip(vals, -1, 1)  # inner products of unit vectors exceed 1 by rounding
        return out

    def _search(self, rows, q, k, self_join):
        ids, near = self._nearest(q, rows, min(len(self), k + SPARE))
        # a library's scores depend in their last bits on the block they were computed in, and its ties on its heap:
        # it only proposes, one kernel scores, and rows where an unseen listing could still reach rank k are looked at in full
        found = self._best(rows, ids, q, k, self_join)
        kth = found.scores[:, -1] if k > self_join else np.full(len(rows), np.inf, np.float32)
        unsure = (ids.shape[1] < len(self)) & (ids[:, -1] >= 0) & (near[:, -1] >= kth - NEAR)
        rest, size = np.flatnonzero(unsure), max(1, 4 * FLOATS // len(self))
        for i in range(0, len(rest), size):
            part = rest[i:i+size]
            at, ids = np.nonzero(self._all_scores(q, rows[part]) >= kth[part, None] - NEAR)
            count = np.bincount(at, minlength=len(part))
            grid = np.full((len(part), count.max()), -1, np.int64)
            grid[at, np.arange(len(at)) - np.repeat(count.cumsum() - count, count)] = ids
            found.ids[part], found.scores[part] = self._best(rows[part], grid, q, k, self_join)
        return found

    def _block(self, k): return max(1, min(1024, 16 * FLOATS // len(self)))
    def _order(self, q, self_join): return np.arange(len(q))

    def _best(self, rows, ids, q, k, self_join):
        # ids rise along each row, and a stable sort keeps that order in ties
        ids = np.sort(np.where(ids == rows[:, None], -1, ids) if self_join else ids, axis=1)
        scores = self.scores(rows[:, None], ids, None if q is self else q)
        order = np.argsort(-scores, axis=1, kind='stable')[:, :k - self_join]
        out = Neighbors(np.full((len(rows), k), -1, np.int64), np.full((len(rows), k), -np.inf, np.float32))
        cols = slice(int(self_join), int(self_join) + order.shape[1])
        out.ids[:, cols], out.scores[:, cols] = np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)
        if self_join:
            # a near-duplicate can round above self
            out.ids[:, 0], out.scores[:, 0] = rows, np.maximum(self.scores(rows, rows), scores.max(1, initial=-np.inf))
        return out
