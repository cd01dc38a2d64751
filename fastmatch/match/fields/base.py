"`FieldSpace`: a column of a table as a space, whose similarities may be unknown."
from abc import abstractmethod
from typing import ClassVar

import numpy as np

from ...core import InputError
from ..neighbors import Neighbors, resolve_k
from ..spaces.base import PairwiseSpace, Space

UNKNOWN = -1.  # what a pair feature holds where nothing can be said


class FieldSpace(PairwiseSpace):
    """One column of n listings, its cells in canonical form.

    The similarity of two listings is from 0 to 1, 1 for equal cells, and NaN where one of both is missing:
    that says nothing for or against a match.
    """
    kind: ClassVar[str]  # As `Field` calls it
    is_field = True
    proposes = False  # Whether a search finds candidates, and not each listing itself alone

    def __init__(
        self,
        name: str,  # Of the column, for messages
        cells: np.ndarray,  # object (n,), canonical cells; None where one is missing
    ):
        self.name = name
        self.cells = cells

    def __len__(self): return len(self.cells)
    def __repr__(self):
        return f'{type(self).__name__}({self.name!r}, {self.known.sum()} of {len(self)} known)'

    @property
    def known(self) -> np.ndarray:  # bool (n,)
        "Which listings have something in this column."
        return np.array([cell is not None for cell in self.cells], bool)

    @abstractmethod
    def _with_cells(self, cells: np.ndarray) -> 'FieldSpace':
        "A space with the settings of this one and other canonical cells."

    @abstractmethod
    def transform(
        self,
        cells,  # (m,) cells of new listings as a table has them
    ) -> 'FieldSpace':
        "New listings, to hand to `search` and `scores` as `queries`."

    @abstractmethod
    def settings(self) -> dict:
        "How cells are read and compared, as json takes it."

    def take(self, rows):
        "A space of some of the listings, by row numbers or bool (n,)."
        return self._with_cells(self.cells[rows])

    def append(self, other):
        "A space of these listings and, behind them, those of `other`."
        return self._with_cells(np.concatenate([self.cells, self._check_compatible(other).cells]))

    def search(self, k=None, queries=None):
        "Each listing itself, or nothing for queries: the column is compared, it does not propose candidates."
        k = resolve_k(k, len(self))
        n_rows = len(self if queries is None else self._check_compatible(queries))
        return Neighbors.from_pairs([], [], [], n_rows, self_join=queries is None, k=k)

    def _check_compatible(self, queries: Space):
        if type(queries) is not type(self):
            raise InputError(f'{self.name}: queries are {type(queries).__name__}, give {type(self).__name__}')
        return queries


def filled(
    similarities: np.ndarray,  # float, NaN where unknown
) -> np.ndarray:  # float32
    "Similarities with -1 where they are unknown: features that every classifier takes."
    return np.where(np.isnan(similarities), UNKNOWN, similarities).astype(np.float32)


def as_objects(
    cells,  # Any sequence
) -> np.ndarray:  # object (n,)
    "A 1-D array of objects, also where cells are tuples of one length."
    array = np.empty(len(cells), object)
    for row, cell in enumerate(cells): array[row] = cell
    return array
