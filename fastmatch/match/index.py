"Embeddings as a space to search: exact cosine neighbours with faiss, whatever the ties."
import copy

import numpy as np
from tqdm import tqdm

from ..core import InputError, need, some
from .neighbors import Neighbors, as_k

FLOATS = 1 << 22  # how many float32 a temporary block may hold (16 MB: small blocks stay near the processor's caches)
SPARE = 8  # neighbours fetched beyond k, so that few rows need a second look
NEAR = np.float32(1e-5)  # rounding of a float32 inner product: two scores closer than this may come in either order


class Space:
    "One modality to search. Subclasses give `_near`, `_all` and `_pairs`; scores of one pair are the same bits wherever it's asked for."
    @property
    def pool(self) -> int: return len(self)  # listings that ids may point to

    @property
    def gone(self) -> np.ndarray: return np.zeros(self.pool, bool)  # listings that were removed: nobody's neighbours

    def search(
        self,
        k: int | None = None,  # Neighbours a row, the listing itself included; None: 50, or as many as there are where fewer
        queries: 'Space | None' = None,  # New listings to look up, of the same space; default: each listing among all, itself at rank 0
    ) -> Neighbors:
        "The exact `k` nearest of each row, ties to the smaller id."
        k = as_k(k, len(self))
        self_join = queries is None
        q = self if self_join else self._known(queries)
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
        q = self if queries is None else self._known(queries)
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
        ids, near = self._near(q, rows, min(len(self), k + SPARE))
        # a library's scores depend in their last bits on the block they were computed in, and its ties on its heap:
        # it only proposes, one kernel scores, and rows where an unseen listing could still reach rank k are looked at in full
        found = self._best(rows, ids, q, k, self_join)
        kth = found.scores[:, -1] if k > self_join else np.full(len(rows), np.inf, np.float32)
        unsure = (ids.shape[1] < len(self)) & (ids[:, -1] >= 0) & (near[:, -1] >= kth - NEAR)
        rest, size = np.flatnonzero(unsure), max(1, 4 * FLOATS // len(self))
        for i in range(0, len(rest), size):
            part = rest[i:i+size]
            at, ids = np.nonzero(self._all(q, rows[part]) >= kth[part, None] - NEAR)
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


def to_unit(vectors, out, name):
    "Write `vectors` (n,d) at unit length into `out` float32 (n,d), which may be the same array; zero and non-finite rows raise `InputError`."
    size = max(1, FLOATS // vectors.shape[1])
    for i in range(0, len(vectors), size):
        v = vectors[i:i+size].astype(np.float64)
        for bad, what in ((~np.isfinite(v).all(1), 'not finite'), (~v.any(1), 'all zero')):
            if bad.any(): raise InputError(f'{name}: rows {some(i + np.flatnonzero(bad))} are {what}')
        v /= np.abs(v).max(1, keepdims=True)  # first to a range whose squares neither overflow nor vanish
        out[i:i+size] = v / np.sqrt((v*v).sum(1, keepdims=True))
    return out


class Dense(Space):
    "Embeddings of one modality, copied and l2-normalised; `search` is exact (faiss, inner product)."
    def __init__(
        self,
        vectors,  # float (n,d), one row a listing; any norm but 0
        name: str = 'vectors',  # What to call them in messages
        normalized: bool = False,  # They were normalised by another `Dense`: keep their very bits
    ):
        self.name, vectors = name, np.asarray(vectors)
        if vectors.ndim != 2 or not vectors.size: raise InputError(f'{name} of shape {vectors.shape}: give (listings, dimensions)')
        if vectors.dtype.kind not in 'fiu': raise InputError(f'{name} of dtype {vectors.dtype}: give floats')
        self._width = 1
        if normalized:
            off = ~(np.abs(np.einsum('nd,nd->n', vectors, vectors) - 1) < 1e-3)
            if vectors.dtype != np.float32 or off.any(): raise InputError(f'{name}: rows {some(np.flatnonzero(off))} are not float32 of unit length')
            self.vectors = vectors
            return
        self.vectors = to_unit(vectors, np.empty(vectors.shape, np.float32), name)

    def __len__(self): return len(self.vectors)
    def __repr__(self): return f'Dense({self.name!r}, {len(self)} x {self.dim})'

    @property
    def dim(self) -> int: return self.vectors.shape[1]

    def _with(self, vectors, gone=None):
        res = copy.copy(self)
        res.vectors = vectors
        return res

    def take(
        self,
        rows,  # Row numbers, or bool (n,)
    ) -> 'Dense':
        "A space of some of the listings."
        return self._with(self.vectors[rows], self.gone[rows])

    def append(
        self,
        other: 'Dense',  # More listings of the same space
    ) -> 'Dense':
        "A space of these listings and, behind them, the `other`'s."
        # an index behind plain vectors makes an index: it knows who was removed
        like = self if isinstance(self, type(self._known(other))) else other
        return like._with(np.concatenate([self.vectors, other.vectors]), np.concatenate([self.gone, other.gone]))

    def _known(self, queries):
        if not isinstance(queries, Dense): raise InputError(f'{self.name}: queries are {type(queries).__name__}, give Dense')
        if queries.dim != self.dim: raise InputError(f'{self.name}: queries have {queries.dim} dimensions, the listings {self.dim}')
        return queries

    def _near(self, q, rows, k):
        faiss = need('faiss', 'searching embeddings', 'faiss-cpu')
        # what a flat index does, without its copy of the vectors
        near, ids = faiss.knn(q.vectors[rows], self.vectors, k, faiss.METRIC_INNER_PRODUCT)
        return ids, near

    def _all(self, q, rows): return q.vectors[rows] @ self.vectors.T

    # faiss works through blocks of 4096 queries by 1024 listings; fewer queries at a time cost it up to 1.7 times as much
    def _block(self, k): return max(1, min(4096, 16 * FLOATS // (k + SPARE)))

    def _pairs(self, q, rows, ids):
        # no BLAS: these sums depend on the two vectors alone, so equal pairs get equal scores and (i,j) equals (j,i)
        faiss = need('faiss', 'scoring pairs', 'faiss-cpu')
        rows, ids, out = np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(ids, np.int64), np.empty(len(ids), np.float32)
        x, y, ix, iy, res = (faiss.swig_ptr(o) for o in (q.vectors, self.vectors, rows, ids, out))
        faiss.pairwise_indexed_inner_product(self.dim, len(ids), x, ix, y, iy, res)
        return out
