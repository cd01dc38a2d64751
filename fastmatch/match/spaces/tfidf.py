"`Tfidf`: titles as a space, by the character n-grams they share."
import copy
import os

import numpy as np
from scipy import sparse

from ...core import InputError, preview, require_package
from ..arrays import rank_within_row
from ..cells import composed
from .base import VectorSpace
from .rare import rare_part, reached_without

# where a least similarity is asked for, n-grams of so much of its length are left out of a title: on a
# hundred thousand titles .6 of it was best for a similarity of .4, .7 for .7 and .85 for .85; on a million
# .85 took a quarter of the time of .7
LEAST_LEFT_OUT, MOST_LEFT_OUT = .6, .85
MOST_PROPOSED = 4096  # listings that a title's rare n-grams may propose; for more all n-grams are compared
LEAST_OF_USE = .3  # below it so many are similar enough that leaving n-grams out finds nothing sooner


class Tfidf(VectorSpace):
    """Titles by the n-grams they share: the cosine of their TF-IDF vectors, searched exactly.

    Titles that share no n-gram are no neighbors. New titles bring n-grams that no title here has; `transform`
    adds them to the vocabulary with the weight of the rarest known ones. If they were left out, as
    TfidfVectorizer does it, the rest of a new title would weigh more and all its cosines would be too high
    for a threshold that was chosen on titles whose n-grams are all known.
    """
    def __init__(
        self,
        titles,  # Strings, one a listing; an empty one is similar to nothing. None where `vectors` are given
        ngram: tuple[int, int] = (3, 5),  # Shortest and longest n-gram
        analyzer: str = 'char_wb',  # letters within words; 'char': also across words; 'word': words
        min_df: int = 1,  # Leave out n-grams of fewer titles than this
        vectorizer=None,  # A fitted TfidfVectorizer: take its vocabulary instead of these titles'
        vectors: sparse.csr_matrix | None = None,  # float32 (n, n-grams), the titles by `vectorizer`
        added: tuple = (),  # N-grams that the vocabulary lacks, for the columns of `vectors` behind its own
        # An empty title's similarities are NaN, which says nothing for or against a match, in place of 0
        missing_is_unknown: bool = False,
    ):
        # 'char_wb' was better than 'char' on 4 of the demo's 5 folds, with 28% fewer n-grams a title
        if vectors is None:
            titles = _checked_titles(titles)
            if vectorizer is None:
                vectorizer = _fitted_vectorizer(titles, ngram, analyzer, min_df)
                vectors = vectorizer.transform(titles).tocsr()
            else: vectors, added = _transformed(titles, vectorizer, added)
        elif vectorizer is None: raise InputError('vectors: give the vectorizer that they were made by')
        vectors.sort_indices()
        self.vectorizer = vectorizer
        self.vectors = vectors
        self.added = added
        self.missing_is_unknown = missing_is_unknown
        self.least = None
        self._by_ngram = None
        self._floats_per_pair = max(1, 4 * vectors.nnz // max(1, vectors.shape[0]))

    def __repr__(self): return f'Tfidf({len(self)} titles, {self.dim} n-grams)'

    def transform(
        self,
        titles,  # Strings, one a new listing
    ) -> 'Tfidf':
        "New titles, to hand to `search` and `scores` as `queries`: in the vocabulary of these and their own."
        return Tfidf(titles, vectorizer=self.vectorizer, added=self.added,
                     missing_is_unknown=self.missing_is_unknown)

    def take(
        self,
        rows,  # Row numbers, or bool (n,)
    ) -> 'Tfidf':
        "A space of some of the titles, in the same vocabulary."
        return self._with_vectors(self.vectors[rows])

    def append(
        self,
        other: 'Tfidf',  # More titles, made by `transform`
    ) -> 'Tfidf':
        "A space of these titles and, behind them, those of `other`."
        other = self._check_compatible(other)
        added = max(self.added, other.added, key=len)
        width = len(self.vectorizer.vocabulary_) + len(added)
        wide_vectors = [widened(space.vectors, width) for space in (self, other)]
        return Tfidf(None, vectorizer=self.vectorizer, vectors=sparse.vstack(wide_vectors, format='csr'),
                     added=added, missing_is_unknown=self.missing_is_unknown)

    def at_least(
        self,
        least: float,  # A similarity
    ) -> 'Tfidf':
        """The same titles, of which a search gives all that are so similar, up to `k`, and not always the
        others: the more is asked, the sooner it ends."""
        if least < LEAST_OF_USE: return self
        self.by_ngram()
        bounded = copy.copy(self)
        bounded.least = least
        return bounded

    @property
    def present(self):
        "Whether each title has an n-gram."
        return ~self._is_empty()

    def by_ngram(self) -> sparse.csr_matrix:  # (n-grams, n)
        "The vectors transposed, as a search reads them; made once."
        if self._by_ngram is None: self._by_ngram = self.vectors.T.tocsr()
        return self._by_ngram

    def searched_by(
        self,
        by_ngram: sparse.csr_matrix,  # What `by_ngram` gave for the same titles
    ):
        "Spare the first search from making it."
        self._by_ngram = by_ngram

    def state(self) -> tuple[dict, dict]:  # Settings as json takes them, with the vocabulary; arrays by name
        "All that `from_state` needs to make this space again."
        vocabulary = self.vectorizer.vocabulary_
        settings = {'analyzer': self.vectorizer.analyzer, 'ngram': list(self.vectorizer.ngram_range),
                    'vocabulary': [*sorted(vocabulary, key=vocabulary.get), *self.added]}
        if self.vectorizer.min_df != 1: settings['min_df'] = self.vectorizer.min_df
        if self.missing_is_unknown: settings['missing_is_unknown'] = True
        arrays = {'idf': _weights(self.vectorizer, len(self.added)),
                  'indptr': self.vectors.indptr.astype(np.int64),
                  'indices': self.vectors.indices.astype(np.int32),
                  'data': self.vectors.data.astype(np.float32)}
        return settings, arrays

    @classmethod
    def from_state(
        cls,
        settings: dict,  # As `state` gives them
        arrays: dict,  # As `state` gives them
    ) -> 'Tfidf':
        "The space whose `state` this is, without reading titles."
        text = require_package('sklearn.feature_extraction.text', 'TF-IDF of titles', 'scikit-learn')
        columns = {ngram: column for column, ngram in enumerate(settings['vocabulary'])}
        vectorizer = text.TfidfVectorizer(
            analyzer=settings['analyzer'], ngram_range=tuple(settings['ngram']), dtype=np.float32,
            min_df=settings.get('min_df', 1), vocabulary=columns)
        vectorizer.idf_ = arrays['idf']
        shape = (len(arrays['indptr']) - 1, len(columns))
        vectors = sparse.csr_matrix((arrays['data'], arrays['indices'], arrays['indptr']), shape)
        return cls(None, vectorizer=vectorizer, vectors=vectors,
                   missing_is_unknown=settings.get('missing_is_unknown', False))

    def _with_vectors(self, vectors, removed=None):
        return Tfidf(None, vectorizer=self.vectorizer, vectors=vectors, added=self.added,
                     missing_is_unknown=self.missing_is_unknown)

    def _check_compatible(self, queries):
        if not isinstance(queries, Tfidf):
            raise InputError(f'titles: queries are {type(queries).__name__}, give Tfidf')
        if queries.vectorizer is not self.vectorizer:
            raise InputError('titles: queries have another vocabulary, make them by `transform`')
        n_shared = min(len(self.added), len(queries.added))
        if self.added[:n_shared] != queries.added[:n_shared]:
            raise InputError('titles: queries and listings were made by different calls of `transform`, '
                             'each with n-grams of its own: make them by one')
        return queries

    def _factors(self, queries, query_rows):
        """The vectors of some queries, (m, n-grams), and those of all these titles transposed, (n-grams, n),
        over the n-grams of both; transposed once, at the first search."""
        by_ngram = self.by_ngram()
        n_unknown = queries.vectors.shape[1] - self.vectors.shape[1]
        vectors = widened(queries.vectors[query_rows], self.vectors.shape[1])
        if n_unknown <= 0: return vectors, by_ngram
        # rows of zeros below: no entry is touched, however many titles there are
        starts = np.pad(by_ngram.indptr, (0, n_unknown), mode='edge')
        return vectors, sparse.csr_matrix((by_ngram.data, by_ngram.indices, starts),
                                          (vectors.shape[1], len(self)))

    def _query_block(self, k): return super()._query_block(k) if self.least is None else 1024

    def _search_block(self, query_rows, queries, k, self_join):
        if self.least is None: return super()._search_block(query_rows, queries, k, self_join)
        if self_join and k == 1:
            return self._best_of(query_rows, np.full((len(query_rows), 1), -1), queries, k, self_join)
        proposed, is_too_many = self._similar_enough(queries, query_rows)
        found = self._best_of(query_rows, proposed, queries, k, self_join)
        block_size = super()._query_block(k)
        many_rows = np.flatnonzero(is_too_many)
        for start in range(0, len(many_rows), block_size):
            rows = many_rows[start:start + block_size]
            found.ids[rows], found.scores[rows] = super()._search_block(query_rows[rows], queries, k,
                                                                        self_join)
        return found

    def _similar_enough(self, queries, query_rows):
        """The listings that reach `least` for each row, int64 (b,K), padded with -1; and bool (b,), rows for
        which too many had to be looked at, which have none here."""
        vectors, by_ngram = self._factors(queries, query_rows)
        left_out = min(max(LEAST_LEFT_OUT, self.least), MOST_LEFT_OUT) * self.least
        rare = rare_part(vectors, np.diff(by_ngram.indptr), left_out)
        most = min(len(self), MOST_PROPOSED)
        # similarities are of float32
        products = _top_products(rare, by_ngram, most, reached_without(left_out, self.least) - 1e-4)
        counts = np.diff(products.indptr)
        is_too_many = (counts == most) & (most < len(self))
        row_numbers = np.repeat(np.arange(len(query_rows)), counts)
        is_looked_at = ~is_too_many[row_numbers]
        row_numbers, listing_ids = row_numbers[is_looked_at], products.indices[is_looked_at]
        own = None if queries is self else queries
        is_enough = self.scores(query_rows[row_numbers], listing_ids, own) >= self.least
        row_numbers, listing_ids = row_numbers[is_enough], listing_ids[is_enough]
        counts = np.bincount(row_numbers, minlength=len(query_rows))
        proposed = np.full((len(query_rows), max(1, counts.max(initial=0))), -1, np.int64)
        proposed[row_numbers, rank_within_row(counts)] = listing_ids
        return proposed, is_too_many

    def _nearest(self, queries, query_rows, k):
        top_products = _top_products(*self._factors(queries, query_rows), k, 0.)
        found_counts = np.diff(top_products.indptr)
        places = np.repeat(np.arange(len(query_rows)), found_counts), rank_within_row(found_counts)
        listing_ids = np.full((len(query_rows), k), -1, np.int64)
        scores = np.full((len(query_rows), k), -np.inf, np.float32)
        listing_ids[places] = top_products.indices
        scores[places] = top_products.data
        return listing_ids, scores

    def _all_scores(self, queries, query_rows):
        vectors, by_ngram = self._factors(queries, query_rows)
        scores = (vectors @ by_ngram).toarray()
        scores[scores <= 0] = -np.inf
        return scores

    def _pair_scores(self, queries, query_rows, listing_ids):
        width = max(self.vectors.shape[1], queries.vectors.shape[1])
        query_vectors = widened(queries.vectors[query_rows], width)
        products = query_vectors.multiply(widened(self.vectors[listing_ids], width)).tocsr()
        pair_of_product = np.repeat(np.arange(len(query_rows)), np.diff(products.indptr))
        # sums in float64, in the order of the vocabulary
        scores = np.bincount(pair_of_product, products.data, minlength=len(query_rows)).astype(np.float64)
        if self.missing_is_unknown:
            is_missing, is_missing_query = self._is_empty(), queries._is_empty()
            scores[is_missing_query[query_rows] | is_missing[listing_ids]] = np.nan
        return scores

    def _is_empty(self): return np.diff(self.vectors.indptr) == 0


def _top_products(vectors, by_ngram, most, threshold):
    "For each row its largest products above a threshold, best first, as a sparse matrix."
    topn = require_package('sparse_dot_topn', 'searching titles', 'sparse-dot-topn')
    # OMP_NUM_THREADS may be a list, one number for each nesting level
    n_threads = int(os.environ.get('OMP_NUM_THREADS', '').split(',')[0] or os.cpu_count() or 1)
    return topn.sp_matmul_topn(vectors, by_ngram, top_n=most, threshold=threshold, sort=True,
                               n_threads=n_threads)


def _checked_titles(
    titles,  # Strings, one a listing
) -> list:
    """The titles as a list; raises `InputError` for one string, for none, and naming rows that are missing or
    no text."""
    if isinstance(titles, str): raise InputError('titles is one string: give a list of them')
    titles = list(titles)
    if not titles: raise InputError('titles are empty: give one a listing')
    wrong_rows = [row_number for row_number, title in enumerate(titles) if not isinstance(title, str)]
    if wrong_rows: raise InputError(f'titles: rows {preview(wrong_rows)} are missing or not text')
    return [composed(title) for title in titles]


def _fitted_vectorizer(titles, ngram, analyzer, min_df):
    text = require_package('sklearn.feature_extraction.text', 'TF-IDF of titles', 'scikit-learn')
    vectorizer = text.TfidfVectorizer(analyzer=analyzer, ngram_range=ngram, min_df=min_df, dtype=np.float32)
    try: return vectorizer.fit(titles)
    except ValueError as error:
        settings = f'titles with ngram={ngram}, analyzer={analyzer!r}, min_df={min_df}'
        raise InputError(f'{settings}: {error}') from error


def _transformed(titles, vectorizer, added):
    """The vectors of new titles, float32 (n, n-grams), and the n-grams behind those of the vocabulary: those
    `added` before, then those that only these titles have."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
    known = vectorizer.vocabulary_
    leaves_rare_out = not isinstance(vectorizer.min_df, int) or vectorizer.min_df > 1
    if leaves_rare_out or not vectorizer.use_idf: return vectorizer.transform(titles).tocsr(), added
    counter = CountVectorizer(analyzer=vectorizer.build_analyzer(), dtype=vectorizer.dtype)
    try: counts = counter.fit_transform(titles)
    # no title has any n-gram
    except ValueError: return vectorizer.transform(titles).tocsr(), ()
    new_ngrams = counter.get_feature_names_out().tolist()
    earlier = set(added)
    added = (*added, *(ngram for ngram in new_ngrams if ngram not in known and ngram not in earlier))
    # beside the vocabulary, which is too large to be copied for a few titles
    places = {ngram: column for column, ngram in enumerate(added, len(known))}
    column_of_new = np.array([known[ngram] if ngram in known else places[ngram] for ngram in new_ngrams],
                             np.int32)
    counts = sparse.csr_matrix((counts.data, column_of_new[counts.indices], counts.indptr),
                               (len(titles), len(known) + len(added)))
    counts.sort_indices()
    weighting = TfidfTransformer(norm=vectorizer.norm, sublinear_tf=vectorizer.sublinear_tf)
    weighting.idf_ = _weights(vectorizer, len(added))
    return weighting.transform(counts, copy=False).tocsr(), added


def _weights(vectorizer, n_added):
    "The inverse document frequency of each n-gram, float32: that of the rarest known for those added."
    known = np.asarray(vectorizer.idf_, np.float32)
    return np.append(known, np.full(n_added, known.max(), np.float32))


def widened(vectors, width):
    "Vectors of at least this width, with columns of zeros behind their own."
    if vectors.shape[1] >= width: return vectors
    return sparse.csr_matrix((vectors.data, vectors.indices, vectors.indptr), (vectors.shape[0], width))
