"Refinement of vectors: each listing's pulled towards its neighbours', before the search that counts. Spaces in, new spaces out."
import numpy as np
from scipy import sparse

from ...core import InputError, preview
from ..neighbors import Neighbors, check_k, check_self_first, resolve_k
from ..spaces.base import Space
from ..spaces.dense import to_unit
from ..spaces.keys import Keys


class AsymmetricSpace(Space):
    "A space whose listings look others up by vectors of their own: the similarity of (i,j) is that of i's query to listing j."
    _width = 1

    def __init__(
        self,
        listings: Space,  # What is found
        queries: Space,  # What is looked up, a row a listing
    ):
        if len(listings) != len(queries): raise InputError(f'{len(queries)} queries for {len(listings)} listings')
        self.listings, self.queries = listings, queries

    @property
    def removed(self): return self.listings.removed

    def __len__(self): return len(self.listings)
    def __repr__(self): return f'Sided({self.listings!r})'

    def search(self, k=None, queries=None):
        k = resolve_k(k, len(self))
        if queries is not None: raise InputError('new queries: expand them before, these listings hold their own')
        rows, ids, scores = self.listings.search(k, queries=self.queries).pairs()
        # what was removed looks nobody up
        here = ~self.removed[rows]
        return Neighbors.from_pairs(rows[here], ids[here], scores[here], len(self), k=k)

    def scores(self, rows, ids, queries=None):
        if queries is not None: raise InputError('new queries: expand them before, these listings hold their own')
        return self.listings.scores(rows, ids, queries=self.queries)


def expand(
    space: Space,  # `Dense` or `Tfidf`
    neighbors: Neighbors | None = None,  # Whose they are; default the space's own
    k: int = 5,  # Neighbours that take part, the listing itself included
    alpha: float = 3.,  # Power of the similarities that weigh them
) -> AsymmetricSpace:  # Queries expanded, listings as they were
    "Alpha query expansion, https://arxiv.org/abs/1711.02512: a query becomes the sum of its `k` nearest, each times its similarity to the power `alpha`."
    rows, ids, scores, _ = _nearest(space, neighbors, k)
    return AsymmetricSpace(space, mix(space, rows, ids, _power(rows, ids, scores, alpha)))


def augment(
    space: Space,  # `Dense` or `Tfidf`
    neighbors: Neighbors | None = None,  # Whose they are; default the space's own
    k: int = 3,  # Neighbours that take part, the listing itself included; 2: the nearest only
    alpha: float | None = None,  # Power of the similarities that weigh them; None: weights fall evenly with the rank, from 1 to 1/k
) -> Space:
    "Database augmentation, https://arxiv.org/abs/1610.07940: each listing becomes the weighted sum of its `k` nearest."
    rows, ids, scores, rank = _nearest(space, neighbors, k)
    return mix(space, rows, ids, np.where(scores > 0, (k - rank) / k, 0) if alpha is None else _power(rows, ids, scores, alpha))


def blend(
    space: Space,  # `Dense` or `Tfidf`
    neighbors: Neighbors | None = None,  # Whose they are; default the space's own
    threshold: float = .5,  # Neighbours from here on take part
    k: int = 50,  # At most so many, the listing itself included; fewer keep the vectors of titles sparse
    power: float = 1.,  # Of the similarities that weigh them; the listing itself weighs 1
    min2: bool = False,  # The nearest takes part also below `threshold`
) -> Space:
    "One stage of iterative neighbourhood blending (Kaggle Shopee, 1st place): a listing plus its neighbours above a threshold, weighed by similarity."
    _number('threshold', threshold)
    # what is fused or refined has a range of its own
    if neighbors is None and not -1.01 <= threshold <= 1.01: raise InputError(f'threshold={threshold}: outside the range of the scores, which is -1 to 1')
    rows, ids, scores, rank = _nearest(space, neighbors, k)
    weights = _power(rows, ids, scores, power)
    return mix(space, rows, ids, np.where((scores.astype(np.float64) >= threshold) | (rank == 0) | (min2 & (rank == 1)), weights, 0))


def cross_mean(
    space: Space,  # `Dense` or `Tfidf`: the titles', say
    keys: Keys,  # What makes listings the same otherwise: the pictures' hashes, say
) -> Space:
    "The mean vector over listings whose key is equal (Kaggle Shopee, 15th place); a listing without a key keeps its own."
    if not isinstance(keys, Keys): raise InputError(f'keys: {type(keys).__name__}, give Keys')
    if not hasattr(space, 'vectors'): raise InputError(f'{space!r}: has no vectors to refine')
    if len(keys) != len(space): raise InputError(f'keys: {len(keys)} for {len(space)} listings')
    code = np.where(space.removed, -1, keys._codes(keys)[0].astype(np.int64))
    code[code < 0] = code.max(initial=-1) + 1 + np.arange((code < 0).sum())
    member = sparse.csr_matrix((np.ones(len(code), np.float32), (np.arange(len(code)), code)))
    # two thin products: groups of equal keys may be large
    return _unit(space, member @ (member.T @ space.vectors))


def mix(
    space: Space,  # `Dense` or `Tfidf`
    rows,  # int (m,)
    ids,  # int (m,), whose vectors go into each row
    weights,  # float (m,)
) -> Space:
    "A space whose row i is the weighted sum of listings' vectors, at unit length again."
    n = len(space)
    return _unit(space, sparse.csr_matrix((np.asarray(weights, np.float32), (rows, ids)), shape=(n, n)) @ space.vectors)


def _unit(space, vectors):
    if sparse.issparse(vectors):
        vectors = vectors.tocsr()
        norm = np.sqrt(np.asarray(vectors.multiply(vectors).sum(1), np.float64)).ravel()
        # an empty title stays empty
        return space._with_vectors((sparse.diags(np.divide(1, norm, out=np.zeros_like(norm), where=norm > 0)) @ vectors).tocsr().astype(np.float32))
    # vectors that cancel each other leave no direction: the listing keeps its own
    lost = np.einsum('nd,nd->n', vectors, vectors) < 1e-12
    # an index stays one: exact search among a million takes hours, and who was removed stays removed
    vectors[lost] = space.vectors[lost]
    return space._with_vectors(to_unit(vectors, vectors, space.name), space.removed)


def _nearest(space, neighbors, k):
    check_k(k)
    if not hasattr(space, '_with') or not hasattr(space, 'vectors'): raise InputError(f'{space!r}: has no vectors to refine')
    if neighbors is None: neighbors = space.search(min(k, len(space)))
    check_self_first(neighbors)
    if len(neighbors.ids) != len(space): raise InputError(f'neighbors: {len(neighbors.ids)} rows for {len(space)} listings')
    nb = neighbors.top(k)
    rows, rank = np.nonzero(nb.ids >= 0)
    scores = nb.scores[rows, rank]
    if (bad := ~np.isfinite(scores)).any(): raise InputError(f'neighbors: scores of rows {preview(np.unique(rows[bad]))} are not finite')
    return rows, nb.ids[rows, rank], np.where(rank == 0, np.float32(1), scores), rank


def _power(rows, ids, scores, power):
    _number('power', power)
    if power < 0: raise InputError(f'power={power}: 0 or more')
    # what points the other way takes no part, whatever the power
    return np.where(scores > 0, np.maximum(scores, 0)**np.float32(power), 0)


def _number(name, x):
    if isinstance(x, bool) or not isinstance(x, (int, float, np.number)) or not np.isfinite(x): raise InputError(f'{name}={x!r}: give a finite number')
