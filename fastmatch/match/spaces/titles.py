"`Titles`: the titles themselves as a space, for steps that read them."
import numpy as np

from ...core import InputError
from ..pairs.titles import edit_similarity
from .base import PairwiseSpace


class Titles(PairwiseSpace):
    """The titles of listings, which the pair model reads. The similarity of two is by edits; they are not
    searched: candidates come from other spaces."""
    def __init__(
        self,
        titles,  # (n,) strings
    ):
        self.titles = [str(title) for title in titles]

    def __len__(self): return len(self.titles)
    def __repr__(self): return f'Titles({len(self)})'

    def take(self, rows):
        "The titles of some of the listings, by row numbers or bool (n,)."
        return Titles([self.titles[row] for row in np.arange(len(self))[rows]])

    def append(self, other):
        "These titles and, behind them, those of `other`."
        return Titles(self.titles + self._check_compatible(other).titles)

    def transform(
        self,
        titles,  # (m,) strings of new listings
    ) -> 'Titles':
        "New listings' titles, to be read together with these."
        return Titles(titles)

    def search(self, k=None, queries=None):
        "Refused: titles are read, the spaces 'tfidf' and 'title' are searched."
        raise InputError(
            "titles: they are read and not searched; search 'tfidf' or the title encoder's vectors")

    def _check_compatible(self, queries):
        if not isinstance(queries, Titles):
            raise InputError(f'titles: queries are {type(queries).__name__}, give Titles')
        return queries

    def _pair_scores(self, queries, query_rows, listing_ids):
        first = [queries.titles[row] for row in query_rows]
        second = [self.titles[listing] for listing in listing_ids]
        pair_numbers = np.arange(len(first))
        return edit_similarity(first + second, pair_numbers, pair_numbers + len(first))
