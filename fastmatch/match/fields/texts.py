"`Texts`: a column of text as a space, by its character TF-IDF, and what two texts say pair by pair."
from functools import cached_property

import numpy as np

from ...core import InputError
from ..cells import as_text, composed
from ..pairs.title_pairs import TITLE_FEATURES, TitlePairs
from ..spaces.tfidf import Tfidf
from .base import UNKNOWN


def texts_of_cells(
    cells,  # (n,) cells of any types
) -> list[str]:
    "Cells as texts, empty where missing."
    return [composed(as_text(cell) or '') for cell in cells]


class Texts(Tfidf):
    """A column of text: the cosine of TF-IDF vectors, NaN where one of the texts is missing.

    A pair model also reads edits, rare words, numbers and model numbers that two texts have in common.
    """
    kind = 'text'
    is_column = True

    def __init__(
        self,
        name: str,  # Of the column, for messages
        cells,  # (n,) cells as a table has them; None where one is missing
        vectorizer=None,  # As for `Tfidf`
        vectors=None,  # As for `Tfidf`
        added: tuple = (),  # As for `Tfidf`
    ):
        self.name = name
        self.texts = texts_of_cells(cells)
        if vectorizer is None and not any(self.texts):
            raise InputError(f'{name}: all {len(self.texts)} texts are missing')
        titles = self.texts if vectors is None else None
        try:
            super().__init__(titles, vectorizer=vectorizer, vectors=vectors, added=added,
                             missing_is_unknown=True)
        except InputError as error: raise InputError(f'{name}: {error}') from error

    def __repr__(self): return f'Texts({self.name!r}, {len(self)} x {self.dim} n-grams)'

    def transform(self, titles):
        "New listings, to hand to `search` and `scores` as `queries`."
        return Texts(self.name, titles, vectorizer=self.vectorizer, added=self.added)

    def take(self, rows):
        "A space of some of the texts, in the same vocabulary."
        return self._with_texts(super().take(rows), [self.texts[row] for row in np.arange(len(self))[rows]])

    def append(self, other):
        "A space of these texts and, behind them, those of `other`."
        return self._with_texts(super().append(other), self.texts + other.texts)

    def _with_texts(self, space, texts):
        return Texts(self.name, texts, vectorizer=space.vectorizer, vectors=space.vectors, added=space.added)

    @cached_property
    def _pairs(self): return TitlePairs(self.texts)

    def pair_features(self, rows, ids):
        "What a pair model reads of two texts, -1 where one of them is missing."
        is_empty = np.array([not text for text in self.texts], bool)
        is_unknown = is_empty[rows] | is_empty[ids]
        return {f'{self.name} {feature}': np.where(is_unknown, UNKNOWN, values)
                for feature, values in self._pairs.of(TITLE_FEATURES, rows, ids).items()}
