"The listings of two tables as texts, for a cross-encoder."
from dataclasses import dataclass

import numpy as np

from ..data.serialise import serialised_cells
from .candidates import TablePairs
from .tables import Tables


@dataclass
class PairTexts:
    "All columns of each listing as one text, field names as words; see `fastmatch.data.serialise`."
    left: list  # n texts, '' for a listing without anything in the columns
    right: list  # m texts

    @classmethod
    def of(
        cls,
        tables: Tables,
    ) -> 'PairTexts':
        "The texts of both tables."
        texts = serialised_cells(tables.fields, {name: tables.cells(name) for name in tables.fields})
        return cls(texts[:len(tables.left)], texts[len(tables.left):])

    def at(
        self,
        pairs: TablePairs,
    ):  # Function of int (c,), places among the candidates: c texts of the left table, c of the right one
        "What gives the texts of candidates."
        def texts_of(places: np.ndarray):
            return ([self.left[row] for row in pairs.left[places]],
                    [self.right[row] for row in pairs.right[places]])
        return texts_of
