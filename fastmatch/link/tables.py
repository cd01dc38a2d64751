"Two tables as one list of listings, with the columns that both have."
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..core import InputError, preview
from ..data.columns import Columns
from ..data.kinds import recognise_fields
from ..data.read import check_columns, number_faults, refuse_lists, with_names
from ..data.table import recognise
from ..match.cells import as_text, texts_of
from ..match.embeddings import Embeddings
from ..match.fields.field import Field

LEFT, RIGHT = 'left', 'right'  # what the two tables are called as sources
ALL_TEXT = 'all text'  # the field of all columns put together: what one shop has in the title the other has
# in a column of its own


@dataclass
class Tables:
    "Two tables of listings, one behind the other."
    left: pd.DataFrame
    right: pd.DataFrame
    left_ids: np.ndarray  # object (n,), as texts
    right_ids: np.ndarray  # object (m,), as texts
    fields: dict  # Name -> `Field` with its column in the left table
    right_fields: dict  # Name -> the same field with its column in the right table

    @classmethod
    def of(
        cls,
        left: pd.DataFrame,  # One row a listing
        right: pd.DataFrame,  # One row a listing
        columns: Columns | None = None,  # Of the left table; None: recognised by names and cells
        right_columns: Columns | None = None,  # Of the right table; None: recognised
    ) -> 'Tables':
        """Find the columns that both tables have, and check ids and cells.

        Raises `InputError` naming the table with the column or rows that can't be used.
        """
        by_side = []
        for side, table, given in ((LEFT, left, columns), (RIGHT, right, right_columns)):
            with _told_with(side): by_side.append(_columns_of(table, given))
        (id_column, own), (right_id_column, other) = by_side
        own, other = _shared(own, other)
        with _told_with(LEFT): left, left_ids = _checked(left, id_column, own)
        with _told_with(RIGHT): right, right_ids = _checked(right, right_id_column, other)
        return cls(left, right, left_ids, right_ids, own, other)

    def __len__(self): return len(self.left) + len(self.right)

    @property
    def sources(self) -> np.ndarray:  # object (n+m,)
        "Which table each listing is in."
        return np.array([LEFT] * len(self.left) + [RIGHT] * len(self.right), object)

    def cells(
        self,
        name: str,  # Of a field
    ) -> np.ndarray:  # object (n+m,)
        "The cells of a field, those of the left table first."
        own, other = self.fields[name].column, self.right_fields[name].column
        return np.concatenate([self.left[own].to_numpy(object), self.right[other].to_numpy(object)])

    def embeddings(
        self,
        vectors: dict | None = None,  # Modality -> (n+m,d) of encoders; None: the columns alone
    ) -> Embeddings:
        "Both tables' listings with their columns as fields, and the text of all columns as one more."
        fields = {name: (field, self.cells(name)) for name, field in self.fields.items()}
        if len(fields) > 1:
            joined = [' '.join(texts) for texts in zip(*(
                [as_text(cell) or '' for cell in cells] for _, cells in fields.values()))]
            fields[ALL_TEXT] = Field('text'), np.array([text.strip() or None for text in joined], object)
        ids = [f'{side}:{listing}' for side, ids in ((LEFT, self.left_ids), (RIGHT, self.right_ids))
               for listing in ids]
        return Embeddings(vectors or {}, ids, fields=fields, source=self.sources)


@contextmanager
def _told_with(side):
    "Put the table's side before an `InputError`."
    try: yield
    except InputError as error: raise InputError(f'{side} table: {error}') from error


def _columns_of(table, given):
    "The id column of a table and its fields by name, the title among them: those given, or recognised."
    if not isinstance(table, pd.DataFrame):
        raise InputError(f'{type(table).__name__}: hand in a DataFrame (pd.read_csv reads one)')
    found = given
    if given is None or not given.fields:
        found = recognise(table, **({} if given is None else _named(given)), required=('id',))
        found = replace(found, fields=recognise_fields(table, found))
    headers = found.title if isinstance(found.title, (list, tuple)) else [found.title]
    titles = {'title' if number == 0 else header: Field('text', column=header)
              for number, header in enumerate(headers) if header is not None}
    taken = set(titles) & set(found.fields)
    if taken: raise InputError(f'fields named {preview(sorted(taken))}: titles have these names')
    return found.id, {**titles, **found.fields}


def _named(columns):
    "The columns by keyword that are not named as usual, which a table need not have."
    usual = Columns().by_keyword()
    return {keyword: name for keyword, name in columns.by_keyword().items() if name != usual[keyword]}


def _shared(own, other):
    """The fields that both tables have, in the order of the left one.

    Where a column looks like two kinds, what the left table says counts.
    """
    shared = [name for name in own if name in other]
    if not shared:
        raise InputError(f'the tables have no column in common: {preview(own)} on the left, {preview(other)} '
                         'on the right; name them, columns=Columns(fields={name: Field(kind, column=...)})')
    right = {name: other[name] if own[name].kind == other[name].kind
             else replace(own[name], column=other[name].column) for name in shared}
    return {name: own[name] for name in shared}, right


def _checked(table, id_column, fields):
    "A table whose columns are there and whose cells can be read, and its ids as texts."
    table = with_names(table, [id_column, *(field.column for field in fields.values())])
    table = table.reset_index(drop=True)
    check_columns(table, {'id_col': id_column,
                          **{f'fields[{name!r}]': field.column for name, field in fields.items()}})
    if not len(table): raise InputError('it has no rows')
    for field in fields.values():
        faults = number_faults(table, field.column) if field.kind == 'number' else []
        if faults:
            rows = preview(f'row {fault.row}: {fault.reason}' for fault in faults)
            raise InputError(f'{field.column}: {len(faults)} cells hold no number: {rows}')
    refuse_lists(table[id_column])
    ids = texts_of(table[id_column])
    missing = np.flatnonzero([not listing for listing in ids])
    if len(missing): raise InputError(f'{id_column}: no id in rows {preview(missing)}')
    values, counts = np.unique(ids.astype(str), return_counts=True)
    if (counts > 1).any(): raise InputError(f'{id_column}: given twice: {preview(values[counts > 1])}')
    return table, ids
