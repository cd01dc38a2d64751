"Titles as a space to search: character n-gram TF-IDF, a modality of its own."
import os

import numpy as np

from ..core import InputError, need, some
from .index import Space


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
        self.vectors = self.vectorizer.transform(titles).tocsr()
        self.vectors.sort_indices()
        self._width, self._columns = max(1, 4 * self.vectors.nnz // len(titles)), None

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

    @staticmethod
    def _fit(titles, ngram, analyzer, min_df):
        text = need('sklearn.feature_extraction.text', 'TF-IDF of titles', 'scikit-learn')
        try: return text.TfidfVectorizer(analyzer=analyzer, ngram_range=ngram, min_df=min_df, dtype=np.float32).fit(titles)
        except ValueError as e: raise InputError(f'titles with ngram={ngram}, analyzer={analyzer!r}, min_df={min_df}: {e}') from e

    def _known(self, queries):
        if not isinstance(queries, Tfidf): raise InputError(f'titles: queries are {type(queries).__name__}, give Tfidf')
        if queries.vectorizer is not self.vectorizer: raise InputError('titles: queries have another vocabulary, make them by `transform`')
        return queries

    def _near(self, q, rows, k):
        dot = need('sparse_dot_topn', 'searching titles', 'sparse-dot-topn')
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

    def _all(self, q, rows):
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
    if bad: raise InputError(f'titles: rows {some(bad)} are missing or not text')
    return titles
