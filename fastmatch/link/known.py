"Pairs of listings that are known to be the same product, or not to be."
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..core import InputError, preview
from ..data.read import refuse_lists
from ..match.cells import texts_of
from .tables import Tables

# usual headers of the three columns, besides the tables' own id columns
LEFT_HEADERS = 'left_id', 'ltable_id', 'left', 'id_left', 'idAbt'
RIGHT_HEADERS = 'right_id', 'rtable_id', 'right', 'id_right'
LABEL_HEADERS = 'label', 'match', 'same', 'is_match'


@dataclass
class KnownLabels:
    "Labelled pairs: `left` and `right` are rows of the two tables, `same` says whether they match."
    left: np.ndarray  # int (m,)
    right: np.ndarray  # int (m,)
    same: np.ndarray  # bool (m,)
    # Whether they are all matches of the left listings that they name, so that what else is a candidate of
    # these does not match
    complete: bool = False

    def __len__(self): return len(self.same)

    @classmethod
    def of(
        cls,
        known: pd.DataFrame,  # Columns `left_id`, `right_id` and `label` (1, 0); without labels all match
        tables: Tables,
    ) -> 'KnownLabels':
        """The pairs by row numbers; raises `InputError` for unknown ids, labels, and pairs that contradict.

        A pair that is given twice counts once.
        """
        left, right = cls.rows_of(known, tables)
        label_header = next((header for header in LABEL_HEADERS if header in known), None)
        same = np.ones(len(known), bool)
        if label_header is not None: same = _labels(known[label_header])
        table = pd.DataFrame({'left': left, 'right': right, 'same': same}).drop_duplicates()
        twice = table[table.duplicated(['left', 'right'])]
        if len(twice):
            pairs = [(tables.left_ids[row.left], tables.right_ids[row.right]) for row in twice.itertuples()]
            raise InputError(f'known: pairs that match and that do not: {preview(pairs)}')
        return cls(table.left.to_numpy(np.int64), table.right.to_numpy(np.int64), table.same.to_numpy(bool),
                   complete=label_header is None)

    def among(
        self,
        left: np.ndarray,  # int (p,), left row of each candidate pair
        places: np.ndarray,  # int (m,), where these pairs stand among the candidates
    ) -> tuple:  # (int, places of the pairs to learn from; bool, whether they match)
        "The candidate pairs that these say something of."
        if not self.complete: return places, self.same
        of_named = np.flatnonzero(np.isin(left, self.left))
        return of_named, np.isin(of_named, places)


    @staticmethod
    def rows_of(
        pairs: pd.DataFrame,  # Columns `left_id` and `right_id`
        tables: Tables,
    ) -> tuple:  # int (m,) of the left table, int (m,) of the right one
        "The rows of both tables that pairs name."
        if not isinstance(pairs, pd.DataFrame):
            raise InputError(f'known: a {type(pairs).__name__}: give a DataFrame of left_id, right_id, label')
        left_header = _header(pairs, LEFT_HEADERS, 'left_id')
        right_header = _header(pairs, RIGHT_HEADERS, 'right_id')
        return (_rows_of(pairs[left_header], tables.left_ids, 'left', left_header),
                _rows_of(pairs[right_header], tables.right_ids, 'right', right_header))


def _header(known, headers, role):
    found = next((header for header in headers if header in known), None)
    if found is None:
        raise InputError(f'known: lacks {role}; its columns are: {", ".join(map(str, known.columns))}')
    return found


def _rows_of(cells, ids, side, header):
    "The row of each id in its table."
    refuse_lists(cells)
    places = {listing: row for row, listing in enumerate(ids)}
    texts = texts_of(cells)
    unknown = [f'{text!r} (row {row})' for row, text in enumerate(texts) if text not in places]
    if unknown: raise InputError(f'known: {header} of no listing in the {side} table: {preview(unknown)}')
    return np.array([places[text] for text in texts], np.int64)


def _labels(cells):
    "1 and 0, True and False as bool; raises for anything else."
    texts = pd.Series(texts_of(cells)).str.lower()
    same = texts.isin(['1', 'true', 'yes'])
    wrong = np.flatnonzero(~same & ~texts.isin(['0', 'false', 'no']))
    if len(wrong):
        raise InputError(f'known: {cells.name}: neither 1 nor 0 in rows {preview(wrong)}')
    return same.to_numpy(bool)
