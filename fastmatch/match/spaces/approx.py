"""`Index`: embeddings to search at any size, exactly or by an index of faiss, with the recall against exact
search stated."""
import warnings
from dataclasses import asdict

import numpy as np

from ...core import InputError, preview, require_package
from ..neighbors import resolve_k
from .base import BLOCK_FLOATS
from .dense import Dense, both_flags
from .faiss_index import (
    KINDS,
    add_vectors,
    build_index,
    cell_order,
    effort_steps,
    memory_needed,
    proposal_count,
    propose,
)
from .recall import SAMPLE, Recall, draw_rows, measure_recall
from .saved_index import read_index, write_index

# An exact self-join costs n*n*d: a second for 10,000 x 384 on two cores, under a minute for 75,000 (the
# competition's test set has 70,000 listings), hours for a million. Up to here exact search is quick enough.
EXACT_ROWS = 75_000


class Index(Dense):
    """Embeddings to search approximately where exact search would take long.

    Scores are exact, neighbors may be missed; `reached` says how many, as {k: `Recall`} for each k that was
    searched.
    """
    def __init__(
        self,
        vectors,  # float (n,d), one row a listing; any norm but 0
        name: str = 'vectors',  # What to call them in messages
        kind: str = 'auto',  # One of `KINDS`; 'auto': exact up to `EXACT_ROWS` listings, IVF-PQ above
        recall: float = .98,  # To be reached on a sample: a search examines more listings until it is
        memory: float | None = None,  # GB that index and search may take beside vectors and results
        seed: int = 0,  # Of the samples to train on and to measure the recall on
        normalized: bool = False,  # They are float32 of unit length, of another `Dense`: keep their bits
    ):
        super().__init__(vectors, name, normalized)
        if kind not in ('auto', *KINDS):
            raise InputError(f"kind={kind!r}: choose one of auto, {', '.join(KINDS)}")
        if not 0 < recall <= 1: raise InputError(f'recall={recall}: above 0, 1 at most')
        if memory is not None and not memory > 0: raise InputError(f'memory={memory}: GB, above 0')
        self.requested_kind = kind
        self.target_recall = recall
        self.memory = memory
        self.seed = seed
        self._removed = np.zeros(len(self), bool)
        self._forget_index()
        self._choose_kind(len(self))  # raises where no kind fits in `memory`, before any work

    def _forget_index(self):
        self._faiss_index = None
        self._built_kind = None
        self._effort_for = {}  # k -> the effort that reaches the recall
        self.reached = {}  # k -> `Recall` on the sample

    def __repr__(self):
        descriptions = [f'Index({self.name!r}', f'{len(self)} x {self.dim}']
        if self._removed.any(): descriptions.append(f'{self._removed.sum()} removed')
        return ', '.join([*descriptions, self.kind, *map(repr, self.reached.values())]) + ')'

    @property
    def removed(self) -> np.ndarray:  # bool (n,)
        "Which listings were removed: they are nobody's neighbors."
        return self._removed

    @property
    def remaining(self) -> np.ndarray:  # int64
        "The numbers of the listings that were not removed."
        return np.flatnonzero(~self._removed)

    @property
    def kind(self) -> str:
        "How it searches: one of `KINDS`; follows the size until an index is built."
        return self._built_kind or self._choose_kind(len(self))

    def _choose_kind(self, n_listings):
        chosen_kind = self.requested_kind
        if chosen_kind == 'auto': chosen_kind = 'exact' if n_listings <= EXACT_ROWS else 'ivfpq'
        self._check_memory(chosen_kind, n_listings)
        return chosen_kind

    def _check_memory(self, kind, n_listings):
        if self.memory is None or self.needs(kind, n_listings) <= self.memory: return
        all_needs = {other_kind: round(self.needs(other_kind, n_listings), 2) for other_kind in KINDS}
        raise InputError(f'{self.name}: {n_listings} x {self.dim} by {kind!r} takes more than '
                         f'memory={self.memory} GB; in GB: {all_needs}')

    def needs(
        self,
        kind: str,  # One of `KINDS`
        n: int | None = None,  # Listings; default those there are
    ) -> float:
        """About how many GB an index takes while it is built and searched, beside the vectors and what is
        found."""
        return memory_needed(kind, len(self) if n is None else n, self.dim)

    def search(self, k=None, queries=None):
        """The `k` nearest of each row, some missed as `reached` says; a removed listing has itself alone.

        The first search with a `k` builds the index where there is none, and measures its recall.
        """
        k = resolve_k(k, len(self))
        if self.kind != 'exact': self._prepare(k)
        found = super().search(k, queries)
        if queries is None and self._removed.any():
            removed_rows = np.flatnonzero(self._removed)
            found.ids[removed_rows, 1:] = -1
            found.scores[removed_rows, 1:] = -np.inf
            found.scores[removed_rows, 0] = self.scores(removed_rows, removed_rows)
        return found

    def recall(
        self,
        k: int | None = None,  # Neighbors a row, as `search` takes it
        sample: int = SAMPLE,  # Rows to measure on, drawn at random
        queries: Dense | None = None,  # New listings to draw from; default the listings themselves
        seed: int = 1,  # Of the draw: other rows than those that the effort was chosen on
    ) -> Recall:
        "Compare with exact search on a sample."
        k = resolve_k(k, len(self))
        if sample < 1: raise InputError(f'sample={sample}: 1 or more')
        if self.kind != 'exact': self._prepare(k)
        queries = self if queries is None else self._check_compatible(queries)
        drawn_rows = draw_rows(self.remaining if queries is self else np.arange(len(queries)), sample, seed)
        return self._measure(drawn_rows, queries, k, self._exact_scores(drawn_rows, queries, k))

    def _exact_scores(self, query_rows, queries, k):
        self_join = queries is self
        return super()._search_block(query_rows, queries, k, self_join).scores[:, int(self_join):]

    def _measure(self, query_rows, queries, k, exact_scores):
        self_join = queries is self
        found_scores = self._search_block(query_rows, queries, k, self_join).scores[:, int(self_join):]
        return measure_recall(found_scores, exact_scores, k)

    def _prepare(self, k):
        "Build the index where there is none, and find the least effort that reaches the recall for this `k`."
        if self._faiss_index is None: self._build()
        if k in self._effort_for: return
        drawn_rows = draw_rows(self.remaining, SAMPLE, self.seed)
        exact_scores = self._exact_scores(drawn_rows, self, k)
        for effort in effort_steps(self._built_kind, self._faiss_index, k):
            self._effort_for[k] = effort
            reached = self.reached[k] = self._measure(drawn_rows, self, k, exact_scores)
            # two standard errors above the target, so that no effort passes by luck
            if reached.mean - 2 * reached.se >= self.target_recall: return
        if reached.mean < self.target_recall:
            warnings.warn(f'{self.name}: {reached!r} is all that {self._built_kind!r} can reach, '
                          f'below {self.target_recall}', stacklevel=4)

    def _build(self):
        chosen_kind = self.kind
        self._faiss_index = build_index(chosen_kind, self.vectors, self.remaining, self.seed)
        self._built_kind = chosen_kind

    def _query_block(self, k): return super()._query_block(proposal_count(self._built_kind, k, len(self)))

    def _query_order(self, queries, self_join):
        if self_join and self._built_kind in ('ivf', 'ivfpq'): return cell_order(self._faiss_index)
        return super()._query_order(queries, self_join)

    def _search_block(self, query_rows, queries, k, self_join):
        if self._faiss_index is None: return super()._search_block(query_rows, queries, k, self_join)
        n_proposed = proposal_count(self._built_kind, k, len(self))
        proposed = propose(self._built_kind, self._faiss_index, queries.vectors[query_rows], n_proposed,
                           self._effort_for[k], self._removed)
        return self._best_of(query_rows, proposed, queries, k, self_join)

    def _nearest(self, queries, query_rows, k):
        if not self._removed.any(): return super()._nearest(queries, query_rows, k)
        faiss = require_package('faiss', 'searching embeddings', 'faiss-cpu')
        vectors = queries.vectors[query_rows]
        listing_ids = np.full((len(query_rows), k), -1, np.int64)
        scores = np.full((len(query_rows), k), -np.inf, np.float32)
        # exact among those that remain, a part of them at a time
        block_size = max(1, 4 * BLOCK_FLOATS // self.dim)
        for block in np.split(self.remaining, range(block_size, len(self.remaining), block_size)):
            new_scores, places = faiss.knn(vectors, self.vectors[block], k, faiss.METRIC_INNER_PRODUCT)
            all_scores = np.concatenate([scores, np.where(places >= 0, new_scores, -np.inf)], 1)
            all_ids = np.concatenate([listing_ids, np.where(places >= 0, block[places], -1)], 1)
            best_first = np.argsort(-all_scores, axis=1)[:, :k]
            scores = np.take_along_axis(all_scores, best_first, 1)
            listing_ids = np.take_along_axis(all_ids, best_first, 1)
        return listing_ids, scores

    def _all_scores(self, queries, query_rows):
        scores = super()._all_scores(queries, query_rows)
        scores[:, self._removed] = -np.inf
        return scores

    def add(
        self,
        vectors,  # float (m,d), or a `Dense`
    ) -> np.ndarray:  # int64 (m,), their numbers
        """Put listings behind the others; an index that is built takes them in, its cells stay as they are
        until `rebuild`."""
        added_space = vectors if isinstance(vectors, Dense) else Dense(vectors, self.name)
        new_vectors = self._check_compatible(added_space).vectors
        n_before = len(self)
        if self._built_kind: self._check_memory(self._built_kind, n_before + len(new_vectors))
        else: self._choose_kind(n_before + len(new_vectors))
        if self._faiss_index is not None: add_vectors(self._faiss_index, new_vectors)
        self.trained_on = both_flags(self, added_space)
        self.vectors = np.concatenate([self.vectors, new_vectors])
        self._removed = np.concatenate([self._removed, np.zeros(len(new_vectors), bool)])
        return np.arange(n_before, len(self))

    def remove(
        self,
        rows,  # Row numbers
    ):
        """Let listings never be found again; the others keep their numbers, and the memory stays taken until
        `rebuild`."""
        rows = np.unique(np.atleast_1d(rows))
        if not rows.size: return
        if rows.dtype.kind not in 'iu' or rows.min() < 0 or rows.max() >= len(self):
            last = len(self) - 1
            raise InputError(f'{self.name}: rows {preview(rows)} to remove: numbers from 0 to {last}')
        twice = rows[self._removed[rows]]
        if twice.size: raise InputError(f'{self.name}: rows {preview(twice)} were removed before')
        if len(rows) == len(self.remaining): raise InputError(f'{self.name}: that would leave no listing')
        self._removed[rows] = True

    def rebuild(self) -> np.ndarray:  # int64, the old number of each listing that is left
        "Drop what was removed and build anew at the next search; listings get new numbers."
        old_numbers = self.remaining
        self.vectors = self.vectors[old_numbers]
        self._removed = np.zeros(len(old_numbers), bool)
        if self.trained_on is not None: self.trained_on = self.trained_on[old_numbers]
        self._forget_index()
        return old_numbers

    def _with_vectors(self, vectors, removed=None):
        index = super()._with_vectors(vectors)
        index._removed = np.zeros(len(index), bool) if removed is None else removed.copy()
        index._forget_index()
        return index

    def save(
        self,
        path,  # Folder; one that an index was saved to before is replaced
    ):
        "Save vectors and index with their hashes; an exact one holds no more than its vectors."
        settings = {'name': self.name, 'kind': self.requested_kind, 'built': self._built_kind,
                    'recall': self.target_recall, 'memory': self.memory, 'seed': self.seed,
                    'effort': {str(k): effort for k, effort in self._effort_for.items()},
                    'reached': [asdict(recall) for recall in self.reached.values()],
                    'removed': np.flatnonzero(self._removed).tolist()}
        write_index(path, settings, self.vectors, self._faiss_index)

    @classmethod
    def load(
        cls,
        path,  # Folder that `save` wrote
        vectors=None,  # The (n,d) vectors it was made from, where they are at hand; default the saved ones
    ) -> 'Index':
        "Load an index; raises `InputError` for a folder that is damaged, or was made from other vectors."
        settings, vectors, faiss_index = read_index(path, vectors)
        index = cls(vectors, settings['name'], settings['kind'], settings['recall'], settings['memory'],
                    settings['seed'], normalized=True)
        index._removed[settings['removed']] = True
        index._effort_for = {int(k): effort for k, effort in settings['effort'].items()}
        index.reached = {recall['k']: Recall(**recall) for recall in settings['reached']}
        index._faiss_index = faiss_index
        index._built_kind = settings['built']
        return index
