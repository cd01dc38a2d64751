"Embeddings as a space to search: exact cosine neighbours with faiss, whatever the ties."
import copy

import numpy as np

from ...core import InputError, preview, require_package
from .base import FLOATS, SPARE, Space


def to_unit(vectors, out, name):
    "Write `vectors` (n,d) at unit length into `out` float32 (n,d), which may be the same array; zero and non-finite rows raise `InputError`."
    size = max(1, FLOATS // vectors.shape[1])
    for i in range(0, len(vectors), size):
        v = vectors[i:i+size].astype(np.float64)
        for bad, what in ((~np.isfinite(v).all(1), 'not finite'), (~v.any(1), 'all zero')):
            if bad.any(): raise InputError(f'{name}: rows {preview(i + np.flatnonzero(bad))} are {what}')
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
            if vectors.dtype != np.float32 or off.any(): raise InputError(f'{name}: rows {preview(np.flatnonzero(off))} are not float32 of unit length')
            self.vectors = vectors
            return
        self.vectors = to_unit(vectors, np.empty(vectors.shape, np.float32), name)

    def __len__(self): return len(self.vectors)
    def __repr__(self): return f'Dense({self.name!r}, {len(self)} x {self.dim})'

    @property
    def dim(self) -> int: return self.vectors.shape[1]

    def _with_vectors(self, vectors, removed=None):
        res = copy.copy(self)
        res.vectors = vectors
        return res

    def take(
        self,
        rows,  # Row numbers, or bool (n,)
    ) -> 'Dense':
        "A space of some of the listings."
        return self._with_vectors(self.vectors[rows], self.removed[rows])

    def append(
        self,
        other: 'Dense',  # More listings of the same space
    ) -> 'Dense':
        "A space of these listings and, behind them, the `other`'s."
        # an index behind plain vectors makes an index: it knows who was removed
        like = self if isinstance(self, type(self._check_compatible(other))) else other
        return like._with_vectors(np.concatenate([self.vectors, other.vectors]), np.concatenate([self.removed, other.removed]))

    def _check_compatible(self, queries):
        if not isinstance(queries, Dense): raise InputError(f'{self.name}: queries are {type(queries).__name__}, give Dense')
        if queries.dim != self.dim: raise InputError(f'{self.name}: queries have {queries.dim} dimensions, the listings {self.dim}')
        return queries

    def _nearest(self, q, rows, k):
        faiss = require_package('faiss', 'searching embeddings', 'faiss-cpu')
        # what a flat index does, without its copy of the vectors
        near, ids = faiss.knn(q.vectors[rows], self.vectors, k, faiss.METRIC_INNER_PRODUCT)
        return ids, near

    def _all_scores(self, q, rows): return q.vectors[rows] @ self.vectors.T

    # faiss works through blocks of 4096 queries by 1024 listings; fewer queries at a time cost it up to 1.7 times as much
    def _block(self, k): return max(1, min(4096, 16 * FLOATS // (k + SPARE)))

    def _pairs(self, q, rows, ids):
        # no BLAS: these sums depend on the two vectors alone, so equal pairs get equal scores and (i,j) equals (j,i)
        faiss = require_package('faiss', 'scoring pairs', 'faiss-cpu')
        rows, ids, out = np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(ids, np.int64), np.empty(len(ids), np.float32)
        x, y, ix, iy, res = (faiss.swig_ptr(o) for o in (q.vectors, self.vectors, rows, ids, out))
        faiss.pairwise_indexed_inner_product(self.dim, len(ids), x, ix, y, iy, res)
        return out
