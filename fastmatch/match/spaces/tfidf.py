"Titles as a space to search: character n-gram TF-IDF, a modality of its own."
import copy
import os

import numpy as np
from scipy import sparse

from ...core import InputError, preview, require_package
from .base import Space


class Tfidf(Space):
    "Titles by the character n-grams they share: cosine of TF-IDF, exact. Titles that share none are no neighbours."
    def __init__(
        self,
        titles,  # Strings, one a listing; an empty one is similar to nothing, a missing one (None, NaN) an `InputError`
        ngram: tuple[int, int] = (3, 5),  # Shortest and longest n-gram
        analyzer: str = 'char_wb',  # 'char_wb': n-grams inside words (better than 'char' on 4 of the sample's 5 folds, 28% fewer a title), 'char' or 'word'
        min_df: int = 1,  # Leave out n-grams of fewer titles than this
        vectorizer=None,  # A fitted TfidfVectorizer: take its vocabulary instead of counting these titles
    ):
        titles = _texts(titles)
        self.vectorizer = vectorizer if vectorizer is not None else self._fit(titles, ngram, analyzer, min_df)
        self._set(self.vectorizer.transform(titles).tocsr())

    def _set(self, vectors):
        vectors.sort_indices()
        self.vectors, self._columns = vectors, None
        # pairs are scored in blocks of this many numbers
        self._width = max(1, 4 * vectors.nnz // max(1, vectors.shape[0]))

    def __len__(self): return self.vectors.shape[0]
    def __repr__(self): return f'Tfidf({len(self)} titles, {self.dim} n-grams)'

    @property
    def dim(self) -> int: return self.vectors.shape[1]

    def transform(
        self,
        titles,  # Strings, one a new listing
    ) -> 'Tfidf':
        "New titles in the vocabulary of these, to hand to `search` and `scores` as `queries`."
        return Tfidf(titles, vectorizer=self.vectorizer)

    def _with_vectors(self, vectors):
        res = copy.copy(self)
        res._set(vectors)
        return res

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
        "A space of these titles and, behind them, the `other`'s."
        return self._with_vectors(sparse.vstack([self.vectors, self._check_compatible(other).vectors], format='csr'))

    def state(self) -> tuple[dict, dict]:
        "What `from_state` needs: plain settings with the vocabulary in column order, and arrays."
        v = self.vectorizer
        # numpy integers are no json
        words = [k for k, _ in sorted(v.vocabulary_.items(), key=lambda o: int(o[1]))]
        return ({'analyzer': v.analyzer, 'ngram': list(v.ngram_range), 'vocabulary': words},
                {'idf': np.asarray(v.idf_, np.float32), 'indptr': self.vectors.indptr.astype(np.int64),
                 'indices': self.vectors.indices.astype(np.int32), 'data': self.vectors.data.astype(np.float32)})

    @classmethod
    def from_state(
        cls,
        settings: dict,  # As `state` gives them
        arrays: dict,  # As `state` gives them
    ) -> 'Tfidf':
        "The space that `state` described."
        text = require_package('sklearn.feature_extraction.text', 'TF-IDF of titles', 'scikit-learn')
        res = cls.__new__(cls)
        res.vectorizer = text.TfidfVectorizer(analyzer=settings['analyzer'], ngram_range=tuple(settings['ngram']), dtype=np.float32,
                                              vocabulary={w: i for i, w in enumerate(settings['vocabulary'])})
        res.vectorizer.idf_ = arrays['idf']
        shape = (len(arrays['indptr']) - 1, len(settings['vocabulary']))
        res._set(sparse.csr_matrix((arrays['data'], arrays['indices'], arrays['indptr']), shape))
        return res

    @staticmethod
    def _fit(titles, ngram, analyzer, min_df):
        text = require_package('sklearn.feature_extraction.text', 'TF-IDF of titles', 'scikit-learn')
        try: return text.TfidfVectorizer(analyzer=analyzer, ngram_range=ngram, min_df=min_df, dtype=np.float32).fit(titles)
        except ValueError as e: raise InputError(f'titles with ngram={ngram}, analyzer={analyzer!r}, min_df={min_df}: {e}') from e

    def _check_compatible(self, queries):
        if not isinstance(queries, Tfidf): raise InputError(f'titles: queries are {type(queries).__name__}, give Tfidf')
        if queries.vectorizer is not self.vectorizer: raise InputError('titles: queries have another vocabulary, make them by `transform`')
        return queries

    def _nearest(self, q, rows, k):
        dot = require_package('sparse_dot_topn', 'searching titles', 'sparse-dot-topn')
        if self._columns is None: self._columns = self.vectors.T.tocsr()
        # OMP_NUM_THREADS may be a list, a number a nesting level
        threads = int(os.environ.get('OMP_NUM_THREADS', '').split(',')[0] or os.cpu_count() or 1)
        top = dot.sp_matmul_topn(q.vectors[rows], self._columns, top_n=k, threshold=0., sort=True, n_threads=threads)
        ids, near = np.full((len(rows), k), -1, np.int64), np.full((len(rows), k), -np.inf, np.float32)
        counts = np.diff(top.indptr)
        at = np.repeat(np.arange(len(rows)), counts)
        rank = np.arange(len(at)) - np.repeat(top.indptr[:-1], counts)
        ids[at, rank], near[at, rank] = top.indices, top.data
        return ids, near

    def _all_scores(self, q, rows):
        if self._columns is None: self._columns = self.vectors.T.tocsr()
        near = (q.vectors[rows] @ self._columns).toarray()
        near[near <= 0] = -np.inf
        return near

    def _pairs(self, q, rows, ids):
        both = q.vectors[rows].multiply(self.vectors[ids]).tocsr()
        at = np.repeat(np.arange(len(rows)), np.diff(both.indptr))
        return np.bincount(at, both.data, minlength=len(rows))  # sums in float64, in the order of the vocabulary


def _texts(titles):
    if isinstance(titles, str): raise InputError('titles is one string: give a list of them')
    titles = list(titles)
    if not titles: raise InputError('titles are empty: give one a listing')
    bad = [i for i, o in enumerate(titles) if not isinstance(o, str)]
    if bad: raise InputError(f'titles: rows {preview(bad)} are missing or not text')
    return titles
