"`Dense`: embeddings as a space, with exact cosine neighbors."
import copy

import numpy as np

from ...core import InputError, preview, require_package
from .base import BLOCK_FLOATS, SPARE, VectorSpace


def to_unit(
    vectors: np.ndarray,  # Any number type, (n,d)
    out: np.ndarray,  # float32 (n,d), where to write; may be `vectors` itself
    name: str,  # What to call the vectors in messages
) -> np.ndarray:  # `out`
    """Write vectors at unit length, computed in float64; raises `InputError` naming rows that are zero or
    not finite."""
    block_size = max(1, BLOCK_FLOATS // vectors.shape[1])
    for start in range(0, len(vectors), block_size):
        block = vectors[start:start + block_size].astype(np.float64)
        for wrong_rows, problem in ((~np.isfinite(block).all(1), 'not finite'), (~block.any(1), 'all zero')):
            if wrong_rows.any():
                raise InputError(f'{name}: rows {preview(start + np.flatnonzero(wrong_rows))} are {problem}')
        # first to a range whose squares neither overflow nor vanish
        block /= np.abs(block).max(1, keepdims=True)
        out[start:start + block_size] = block / np.sqrt((block * block).sum(1, keepdims=True))
    return out


class Dense(VectorSpace):
    """Embeddings of one modality, copied and brought to unit length; the similarity is the cosine, `search`
    is exact (faiss)."""
    def __init__(
        self,
        vectors,  # float (n,d), one row a listing; any norm but 0
        name: str = 'vectors',  # What to call them in messages
        normalized: bool = False,  # They are float32 of unit length, of another `Dense`: keep their bits
    ):
        self.name = name
        vectors = np.asarray(vectors)
        if vectors.ndim != 2 or not vectors.size:
            raise InputError(f'{name} of shape {vectors.shape}: give (listings, dimensions)')
        if vectors.dtype.kind not in 'fiu': raise InputError(f'{name} of dtype {vectors.dtype}: give floats')
        if normalized:
            wrong_rows = np.flatnonzero(~(np.abs(np.einsum('nd,nd->n', vectors, vectors) - 1) < 1e-3))
            if vectors.dtype != np.float32 or wrong_rows.size:
                raise InputError(f'{name}: rows {preview(wrong_rows)} are not float32 of unit length')
            self.vectors = vectors
        else: self.vectors = to_unit(vectors, np.empty(vectors.shape, np.float32), name)

    def __repr__(self): return f'Dense({self.name!r}, {len(self)} x {self.dim})'

    def take(
        self,
        rows,  # Row numbers, or bool (n,)
    ) -> 'Dense':
        "A space of some of the listings."
        taken = self._with_vectors(self.vectors[rows], self.removed[rows])
        if self.trained_on is not None: taken.trained_on = self.trained_on[rows]
        return taken

    def append(
        self,
        other: 'Dense',  # More listings of the same space
    ) -> 'Dense':  # An `Index` where one of the two is an `Index`
        "A space of these listings and, behind them, those of `other`."
        # an index knows which listings were removed, plain vectors don't
        template = self if isinstance(self, type(self._check_compatible(other))) else other
        both = template._with_vectors(np.concatenate([self.vectors, other.vectors]),
                                      np.concatenate([self.removed, other.removed]))
        both.trained_on = both_flags(self, other)
        return both

    def _with_vectors(self, vectors, removed=None):
        space = copy.copy(self)
        space.vectors = vectors
        return space

    def _check_compatible(self, queries):
        if not isinstance(queries, Dense):
            raise InputError(f'{self.name}: queries are {type(queries).__name__}, give Dense')
        if queries.dim != self.dim:
            raise InputError(f'{self.name}: queries have {queries.dim} dimensions, the listings {self.dim}')
        return queries

    def _nearest(self, queries, query_rows, k):
        faiss = require_package('faiss', 'searching embeddings', 'faiss-cpu')
        # what a flat index does, without its copy of the vectors
        vectors = queries.vectors[query_rows]
        scores, listing_ids = faiss.knn(vectors, self.vectors, k, faiss.METRIC_INNER_PRODUCT)
        return listing_ids, scores

    def _all_scores(self, queries, query_rows): return queries.vectors[query_rows] @ self.vectors.T

    def _query_block(self, k):
        # faiss works in blocks of 4096 queries by 1024 listings; with fewer queries it took up to 1.7 times
        # as long
        return max(1, min(4096, 16 * BLOCK_FLOATS // (k + SPARE)))

    def _pair_scores(self, queries, query_rows, listing_ids):
        return inner_products(queries.vectors, query_rows, self.vectors, listing_ids)


def inner_products(
    vectors: np.ndarray,  # float32 (n,d)
    rows: np.ndarray,  # int (m,), of `vectors`
    other_vectors: np.ndarray,  # float32 (p,d)
    other_rows: np.ndarray,  # int (m,), of `other_vectors`
) -> np.ndarray:  # float32 (m,)
    """The inner products of given pairs, without BLAS: the sums depend on the two vectors alone, so equal
    pairs get equal scores and (i,j) equals (j,i)."""
    faiss = require_package('faiss', 'scoring pairs', 'faiss-cpu')
    rows = np.ascontiguousarray(rows, np.int64)
    other_rows = np.ascontiguousarray(other_rows, np.int64)
    scores = np.empty(len(rows), np.float32)
    pointers = [faiss.swig_ptr(array) for array in (vectors, rows, other_vectors, other_rows, scores)]
    faiss.pairwise_indexed_inner_product(vectors.shape[1], len(rows), *pointers)
    return scores


def both_flags(
    space: Dense,
    other: Dense,  # Listings that come behind those of `space`
) -> np.ndarray | None:  # bool, one a listing
    "Which listings of two spaces an encoder was trained on, None where neither space knows."
    if space.trained_on is None and other.trained_on is None: return None
    return np.concatenate([np.zeros(len(each), bool) if each.trained_on is None else each.trained_on
                           for each in (space, other)])
