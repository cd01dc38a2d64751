"""Steps on vectors: each listing's vector is pulled towards those of its neighbors, before the search that
counts.

A space goes in, a new space comes out. Vectors of several listings of one product have different noise, so
their mean is nearer to the truth. Of a listing with several pictures (`PictureSets`) each picture is pulled
by itself, and a neighbor pulls with the mean of its pictures.
"""
import numpy as np
from scipy import sparse

from ...core import InputError, preview
from ..neighbors import Neighbors, check_k, check_self_first
from ..spaces.asymmetric import AsymmetricSpace
from ..spaces.base import Space, VectorSpace
from ..spaces.dense import to_unit
from ..spaces.keys import Keys
from ..spaces.picture_sets import PictureSets


def expand(
    space: Space,  # `Dense` or `Tfidf`
    neighbors: Neighbors | None = None,  # Neighbors to take the vectors of; default those in `space` itself
    k: int = 5,  # Neighbors that take part, the listing itself included
    alpha: float = 3.,  # Power of the similarities that weight the neighbors
) -> AsymmetricSpace:
    """Alpha query expansion, https://arxiv.org/abs/1711.02512: only the vectors that search are changed.

    A query becomes the sum of the vectors of its `k` nearest listings, each times its similarity to the power
    `alpha`.
    """
    row_numbers, ids, scores, _ = _nearest_pairs(space, neighbors, k)
    return AsymmetricSpace(space, weighted_sums(space, row_numbers, ids, _similarity_weights(scores, alpha)))


def augment(
    space: Space,  # `Dense` or `Tfidf`
    neighbors: Neighbors | None = None,  # Neighbors to take the vectors of; default those in `space` itself
    k: int = 3,  # Neighbors that take part, the listing itself included; 2: the nearest only
    # Power of the similarities that weight the neighbors; None: weights fall from 1 to 1/k with the rank
    alpha: float | None = None,
) -> Space:
    """Database augmentation, https://arxiv.org/abs/1610.07940: all vectors are changed.

    Each listing's vector becomes the weighted sum of those of its `k` nearest listings. On the tested sets it
    gained most with the fused neighbors and `k=2` (Kaggle Shopee, 5th and 8th place).
    """
    row_numbers, ids, scores, ranks = _nearest_pairs(space, neighbors, k)
    if alpha is None: weights = np.where(scores > 0, (k - ranks) / k, 0)
    else: weights = _similarity_weights(scores, alpha)
    return weighted_sums(space, row_numbers, ids, weights)


def blend(
    space: Space,  # `Dense` or `Tfidf`
    neighbors: Neighbors | None = None,  # Neighbors to take the vectors of; default those in `space` itself
    threshold: float = .5,  # Neighbors with this similarity or more take part
    # Most neighbors that take part, the listing itself included; fewer keep the vectors of titles sparse
    k: int = 50,
    power: float = 1.,  # Power of the similarities that weight the neighbors; the listing itself has weight 1
    min2: bool = False,  # The nearest takes part even below `threshold`
) -> Space:
    """One stage of iterative neighborhood blending (Kaggle Shopee, 1st place).

    Each listing's vector becomes the sum of its own and of its neighbors' above a threshold, weighted by
    similarity. Several stages with rising thresholds are several steps.
    """
    check_finite('threshold', threshold)
    # neighbors that were fused or refined may have scores of another range
    if neighbors is None and not -1.01 <= threshold <= 1.01:
        raise InputError(f'threshold={threshold}: outside the range of the scores, which is -1 to 1')
    row_numbers, ids, scores, ranks = _nearest_pairs(space, neighbors, k)
    takes_part = (scores.astype(np.float64) >= threshold) | (ranks == 0) | (min2 & (ranks == 1))
    return weighted_sums(space, row_numbers, ids, np.where(takes_part, _similarity_weights(scores, power), 0))


def cross_mean(
    space: Space,  # `Dense` or `Tfidf`: that of the titles, say
    keys: Keys,  # What makes listings equal in another modality: the perceptual hashes of their pictures, say
) -> Space:
    """Each listing's vector becomes the mean over the listings of equal key (Kaggle Shopee, 15th place);
    without a key it keeps its own."""
    if not isinstance(keys, Keys): raise InputError(f'keys: {type(keys).__name__}, give Keys')
    _check_has_vectors(space)
    if len(keys) != len(space): raise InputError(f'keys: {len(keys)} for {len(space)} listings')
    if keys.has_several or isinstance(space, PictureSets):
        rows, ids = keys.shared_pairs(~space.removed)
        return weighted_sums(space, rows, ids, np.ones(len(rows)))
    codes = np.where(space.removed, -1, keys.codes()[0].astype(np.int64))
    has_no_key = codes < 0
    codes[has_no_key] = codes.max(initial=-1) + 1 + np.arange(has_no_key.sum())
    membership = sparse.csr_matrix((np.ones(len(codes), np.float32), (np.arange(len(codes)), codes)))
    # two thin products instead of one of all pairs: many listings may share a key
    return _at_unit_length(space, membership @ (membership.T @ space.vectors))


def weighted_sums(
    space: Space,  # `Dense` or `Tfidf`
    rows,  # int (m,), listing that each term belongs to
    ids,  # int (m,), listing whose vector is added
    weights,  # float (m,)
) -> Space:
    """A space in which the vector of listing i is the weighted sum of the vectors of its terms, at unit
    length again."""
    if isinstance(space, PictureSets): rows, ids, weights = space.weighted_terms(rows, ids, weights)
    n_vectors = space.vectors.shape[0]
    terms = sparse.csr_matrix((np.asarray(weights, np.float32), (rows, ids)), shape=(n_vectors, n_vectors))
    return _at_unit_length(space, terms @ space.vectors)


def _at_unit_length(space, vectors):
    "`space` with other vectors, dense or sparse (n,d), at unit length."
    if sparse.issparse(vectors):
        vectors = vectors.tocsr()
        norms = np.sqrt(np.asarray(vectors.multiply(vectors).sum(1), np.float64)).ravel()
        # an empty title stays empty
        inverse_norms = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        return space._with_vectors((sparse.diags(inverse_norms) @ vectors).tocsr().astype(np.float32))
    # vectors that cancel each other leave no direction: such a listing keeps its own
    is_cancelled = np.einsum('nd,nd->n', vectors, vectors) < 1e-12
    vectors[is_cancelled] = space.vectors[is_cancelled]
    # a space that searches with an index gets an index again (exact search among a million listings takes
    # hours), and what was removed stays removed
    return space._with_vectors(to_unit(vectors, vectors, space.name), space.removed)


def _check_has_vectors(space):
    if not isinstance(space, VectorSpace):
        raise InputError(f'{space!r}: has no vectors to refine')


def _nearest_pairs(space, neighbors, k):
    """Each listing's `k` nearest as flat arrays: rows, ids, scores (1 for the listing itself) and ranks (0
    for the listing itself)."""
    check_k(k)
    _check_has_vectors(space)
    if neighbors is None: neighbors = space.search(min(k, len(space)))
    check_self_first(neighbors)
    if len(neighbors.ids) != len(space):
        raise InputError(f'neighbors: {len(neighbors.ids)} rows for {len(space)} listings')
    nearest = neighbors.top(k)
    row_numbers, ranks = np.nonzero(nearest.ids >= 0)
    scores = nearest.scores[row_numbers, ranks]
    if (not_finite := ~np.isfinite(scores)).any():
        bad_rows = preview(np.unique(row_numbers[not_finite]))
        raise InputError(f'neighbors: scores of rows {bad_rows} are not finite')
    return row_numbers, nearest.ids[row_numbers, ranks], np.where(ranks == 0, np.float32(1), scores), ranks


def _similarity_weights(scores, power):
    "Similarities to a power; what points the other way has weight 0, whatever the power."
    check_finite('power', power)
    if power < 0: raise InputError(f'power={power}: 0 or more')
    return np.where(scores > 0, np.maximum(scores, 0)**np.float32(power), 0)


def check_finite(
    name: str,  # Of the option, for the message
    value,  # What was given for it
):
    "Raise `InputError` unless `value` is a finite number."
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not np.isfinite(value):
        raise InputError(f'{name}={value!r}: give a finite number')
