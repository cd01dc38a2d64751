"`PictureSets`: listings with several pictures each as a space; two listings are compared picture by picture."
import copy
from typing import NamedTuple

import numpy as np

from ...core import InputError, preview
from ..arrays import rank_within_row
from .base import BLOCK_FLOATS, VectorSpace
from .dense import Dense, both_flags, inner_products

# how the pictures of two listings make one similarity: that of the nearest two; or the mean, over the
# pictures of each side, of the similarity to the nearest on the other side, and the mean of both sides
SIMILARITIES = ('best', 'mean')
# measured (nbs/several_pictures.csv): never below the first picture alone, where 'mean' and the mean vector
# lose .07 and .09 row F1 on views of clothing; on drawings by two hands the mean vector is .01 above it
SIMILARITY = 'best'
NO_SECOND = -1.  # what a pair feature holds where two listings have one picture each


class Pictures(NamedTuple):
    "The vectors of all pictures of some listings."
    vectors: np.ndarray  # float (m,d)
    listings: np.ndarray  # int (m,), the listing of each picture from 0, rising; every listing has one

    @classmethod
    def of(
        cls,
        vectors,  # float (m,d)
        listings,  # int (m,), the listing of each, in any order
        name: str = 'pictures',  # What to call them in messages
    ) -> 'Pictures':
        "The pictures sorted by listing; raises `InputError` where a listing has none."
        vectors, listings = np.asarray(vectors), np.asarray(listings)
        if vectors.ndim != 2 or listings.shape != (len(vectors),) or not len(listings):
            raise InputError(f'{name}: vectors of shape {vectors.shape}, listings of shape {listings.shape}: '
                             'give (m,d) and (m,)')
        if vectors.dtype.kind not in 'fiu': raise InputError(f'{name} of dtype {vectors.dtype}: give floats')
        if listings.dtype.kind not in 'iu' or listings.min() < 0:
            raise InputError(f'{name}: listings of dtype {listings.dtype}: give whole numbers from 0')
        counts = np.bincount(listings)
        if not counts.all():
            raise InputError(f'{name}: listings {preview(np.flatnonzero(counts == 0))} have no picture')
        listings = listings.astype(np.int64)
        if (listings[1:] >= listings[:-1]).all(): return cls(vectors, listings)
        in_order = np.argsort(listings, kind='stable')
        return cls(vectors[in_order], listings[in_order])

    @property
    def counts(self) -> np.ndarray:  # int (n,)
        "How many pictures each listing has."
        return np.bincount(self.listings)

    def take(
        self,
        rows,  # Row numbers of listings
    ) -> 'Pictures':
        "The pictures of some of the listings."
        counts = self.counts
        rows = np.arange(len(counts))[rows]
        of_pictures = picture_rows(counts, rows)
        return Pictures(self.vectors[of_pictures], np.repeat(np.arange(len(rows)), counts[rows]))

    def means(self) -> np.ndarray:  # float32 (n,d)
        """One vector a listing: that of its only picture as it is, otherwise the mean at unit length (the
        first picture's where the pictures cancel each other)."""
        counts = self.counts
        starts = counts.cumsum() - counts
        means = self.vectors[starts].astype(np.float32)
        several = np.flatnonzero(counts > 1)
        for row in several:
            of_listing = self.vectors[starts[row]:starts[row] + counts[row]].astype(np.float64)
            of_listing /= np.maximum(np.linalg.norm(of_listing, axis=1, keepdims=True), 1e-30)
            # sorted, so that the order of the pictures does not matter to the last bit
            mean = np.sort(of_listing, axis=0).sum(0)
            norm = np.linalg.norm(mean)
            if norm > 1e-6: means[row] = mean / norm
        return means


def picture_rows(
    counts: np.ndarray,  # int (n,), pictures of each listing
    rows: np.ndarray,  # int (r,), some of the listings
) -> np.ndarray:  # int, rows of their pictures, listing by listing
    "Where the pictures of some listings are among those of all."
    starts = counts.cumsum() - counts
    return np.repeat(starts[rows], counts[rows]) + rank_within_row(counts[rows])


class PictureSets(VectorSpace):
    """Listings with one or more pictures each, of the vectors of all pictures; `search` is exact.

    Listings with one picture each have the similarity that `Dense` gives them, to the bit. `vectors` are
    those of the pictures (m,d), listing by listing.
    """
    def __init__(
        self,
        vectors,  # float (m,d), one row a picture; any norm but 0
        listings,  # int (m,), the listing that each belongs to, from 0; every one has a picture
        name: str = 'pictures',  # What to call them in messages
        similarity: str = SIMILARITY,  # One of `SIMILARITIES`
        normalized: bool = False,  # They are float32 of unit length, of another space: keep their bits
    ):
        self.name = name
        self.similarity = check_similarity(similarity)
        pictures = Pictures.of(vectors, listings, name)
        self.vectors = Dense(pictures.vectors, name, normalized).vectors
        self.counts = pictures.counts  # int (n,), pictures of each listing

    @classmethod
    def of_one_each(
        cls,
        space: Dense,  # One vector a listing
        similarity: str = SIMILARITY,  # One of `SIMILARITIES`
    ) -> 'PictureSets':
        "The listings of another space as sets of one picture each, with the same bits."
        if type(space) is not Dense:
            raise InputError(f'{space.name}: {space!r} holds one vector a listing, and cannot be compared '
                             'with listings of several pictures: give Dense')
        sets = cls(space.vectors, np.arange(len(space)), space.name, similarity, normalized=True)
        sets.made_with, sets.trained_on = space.made_with, space.trained_on
        return sets

    def __len__(self): return len(self.counts)
    def __repr__(self):
        return (f'PictureSets({self.name!r}, {len(self)} listings, {len(self.vectors)} x {self.dim}, '
                f'{self.similarity!r})')

    @property
    def listings(self) -> np.ndarray:  # int (m,)
        "The listing of each picture."
        return np.repeat(np.arange(len(self)), self.counts)

    @property
    def _starts(self): return self.counts.cumsum() - self.counts

    @property
    def _floats_per_pair(self): return 4 * int(np.ceil(self.counts.mean()**2))

    def means(self) -> Dense:
        "One vector a listing, the mean of its pictures: smaller, and for what can't read sets."
        space = Dense(Pictures(self.vectors, self.listings).means(), self.name, normalized=True)
        space.made_with, space.trained_on = self.made_with, self.trained_on
        return space

    def take(
        self,
        rows,  # Row numbers, or bool (n,)
    ) -> 'PictureSets':
        "A space of some of the listings, with all their pictures."
        rows = np.arange(len(self))[rows]
        taken = self._with_sets(self.vectors[picture_rows(self.counts, rows)], self.counts[rows])
        if self.trained_on is not None: taken.trained_on = self.trained_on[rows]
        return taken

    def append(
        self,
        other: 'PictureSets',  # More listings of the same space; `Dense` for listings of one picture
    ) -> 'PictureSets':
        "A space of these listings and, behind them, those of `other`."
        other = self._check_compatible(other)
        both = self._with_sets(np.concatenate([self.vectors, other.vectors]),
                               np.concatenate([self.counts, other.counts]))
        both.trained_on = both_flags(self, other)
        return both

    def weighted_terms(
        self,
        rows,  # int (t,), listing that each term belongs to
        ids,  # int (t,), listing that is added
        weights,  # float (t,)
    ) -> tuple:  # The same for pictures, int (s,), int (s,), float (s,)
        """Terms between listings as terms between pictures: every picture keeps itself as it is, and gets the
        mean of another listing's pictures for that listing."""
        rows, ids, weights = np.asarray(rows), np.asarray(ids), np.asarray(weights)
        is_own = rows == ids
        own_count, added_count = self.counts[rows], np.where(is_own, 1, self.counts[ids])
        n_terms = own_count * added_count
        term = np.repeat(np.arange(len(rows)), n_terms)
        own_place, added_place = np.divmod(rank_within_row(n_terms), added_count[term])
        own_picture = self._starts[rows[term]] + own_place
        added_picture = np.where(is_own[term], own_picture, self._starts[ids[term]] + added_place)
        return own_picture, added_picture, (weights / added_count)[term]

    def pair_features(self, rows, ids):
        """The similarity of the nearest two pictures, the mean of those to the nearest on the other side, and
        the second best of all pairs of pictures (-1 where both listings have one)."""
        rows, ids = np.asarray(rows, np.int64), np.asarray(ids, np.int64)
        best, mean = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
        second = np.full(len(rows), NO_SECOND, np.float32)
        block_size = max(1, BLOCK_FLOATS // self._floats_per_pair)
        for start in range(0, len(rows), block_size):
            block = slice(start, start + block_size)
            pairs = _PicturePairs(self, self, rows[block], ids[block])
            best[block] = pairs.best()
            mean[block] = pairs.mean()
            second[block] = pairs.second()
        return {f'{self.name} best': best, f'{self.name} mean': mean, f'{self.name} second': second}

    def _with_sets(self, vectors, counts):
        space = copy.copy(self)
        space.vectors, space.counts = vectors, counts
        return space

    def _with_vectors(self, vectors, removed=None): return self._with_sets(vectors, self.counts)

    def _check_compatible(self, queries):
        if isinstance(queries, Dense): queries = PictureSets.of_one_each(queries, self.similarity)
        if not isinstance(queries, PictureSets):
            raise InputError(f'{self.name}: queries are {type(queries).__name__}, give PictureSets')
        if queries.dim != self.dim:
            raise InputError(f'{self.name}: queries have {queries.dim} dimensions, the listings {self.dim}')
        return queries

    def _query_block(self, k):
        per_query = len(self.vectors) * max(1, round(self.counts.mean()))
        return max(1, min(1024, 16 * BLOCK_FLOATS // per_query))

    def _nearest(self, queries, query_rows, k):
        scores = self._all_scores(queries, query_rows)
        if k < scores.shape[1]: listing_ids = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        else: listing_ids = np.broadcast_to(np.arange(len(self)), scores.shape)
        found_scores = np.take_along_axis(scores, listing_ids, 1)
        best_first = np.argsort(-found_scores, axis=1)
        return (np.take_along_axis(listing_ids, best_first, 1),
                np.take_along_axis(found_scores, best_first, 1))

    def _all_scores(self, queries, query_rows):
        of_queries = queries.vectors[picture_rows(queries.counts, query_rows)]
        query_counts = queries.counts[query_rows]
        query_starts = query_counts.cumsum() - query_counts
        products = of_queries @ self.vectors.T
        nearest_own = np.maximum.reduceat(products, self._starts, axis=1)  # (pictures of the queries, n)
        if self.similarity == 'best': return np.maximum.reduceat(nearest_own, query_starts, axis=0)
        of_each_query = np.add.reduceat(nearest_own, query_starts, axis=0) / query_counts[:, None]
        nearest_query = np.maximum.reduceat(products, query_starts, axis=0)  # (queries, m)
        of_each_listing = np.add.reduceat(nearest_query, self._starts, axis=1) / self.counts
        return ((of_each_query + of_each_listing) / 2).astype(np.float32)

    def _pair_scores(self, queries, query_rows, listing_ids):
        pairs = _PicturePairs(queries, self, query_rows, listing_ids)
        return pairs.best() if self.similarity == 'best' else pairs.mean()


class _PicturePairs:
    "Every picture of one listing with every picture of another, for pairs of listings (i,j)."
    def __init__(self, queries, space, query_rows, listing_ids):
        self.query_counts, self.counts = queries.counts[query_rows], space.counts[listing_ids]
        self.sizes = self.query_counts * self.counts  # pairs of pictures
        self.starts = self.sizes.cumsum() - self.sizes
        pair = np.repeat(np.arange(len(self.sizes)), self.sizes)
        query_place, place = np.divmod(rank_within_row(self.sizes), self.counts[pair])
        self.scores = inner_products(
            queries.vectors, queries._starts[query_rows][pair] + query_place,
            space.vectors, space._starts[listing_ids][pair] + place)

    def best(self):
        "The similarity of the nearest two pictures, float32."
        if not len(self.sizes): return np.empty(0, np.float32)
        return np.maximum.reduceat(self.scores, self.starts)

    def mean(self):
        """The mean of both sides' means of the similarity to the nearest on the other side, float64.

        float64 holds a sum of so few float32 numbers without rounding, so that neither the order of the
        pictures nor that of the two listings matters to the bit."""
        if not len(self.sizes): return np.empty(0)
        by_listing = self._turned()
        return (self._side(self.scores, self.query_counts, self.counts)
                + self._side(self.scores[by_listing], self.counts, self.query_counts)) / 2

    def second(self):
        "The second best of all pairs of pictures, `NO_SECOND` where there is one alone."
        if not len(self.sizes): return np.empty(0, np.float32)
        pair = np.repeat(np.arange(len(self.sizes)), self.sizes)
        sorted_scores = self.scores[np.lexsort((-self.scores, pair))]
        places = np.minimum(self.starts + 1, len(sorted_scores) - 1)
        return np.where(self.sizes > 1, sorted_scores[places], np.float32(NO_SECOND))

    def _turned(self):
        "Positions of the pairs of pictures with the second listing's picture counting first."
        pair = np.repeat(np.arange(len(self.sizes)), self.sizes)
        place, query_place = np.divmod(rank_within_row(self.sizes), self.query_counts[pair])
        return self.starts[pair] + query_place * self.counts[pair] + place

    @staticmethod
    def _side(scores, own_counts, other_counts):
        "The mean over the pictures of one side; `scores` holds `other_counts` in a row for each of them."
        row_lengths = np.repeat(other_counts, own_counts)
        nearest = np.maximum.reduceat(scores, row_lengths.cumsum() - row_lengths).astype(np.float64)
        return np.add.reduceat(nearest, own_counts.cumsum() - own_counts) / own_counts


def check_similarity(
    similarity,  # As a user gave it
) -> str:
    "`similarity`, or `InputError` where there is none of that name."
    if similarity in SIMILARITIES: return similarity
    raise InputError(f'similarity of pictures {similarity!r}: choose one of {", ".join(SIMILARITIES)}')


def alike(
    space,  # Any space, or None
    other,  # One of the same modality, or None
) -> tuple:
    "Both spaces, as sets of pictures where one of them holds such."
    if isinstance(space, Dense) and isinstance(other, PictureSets):
        return PictureSets.of_one_each(space, other.similarity), other
    if isinstance(space, PictureSets) and isinstance(other, Dense):
        return space, PictureSets.of_one_each(other, space.similarity)
    return space, other
