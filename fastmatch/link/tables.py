"Two tables as one list of listings, with the columns that both have."
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..core import InputError, preview
from ..data.columns import Columns
from ..data.kinds import check_fields, recognise_fields
from ..data.read import check_columns, with_names
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
    columns: Columns  # The id column of the left table, and the fields that both tables have
    right_columns: Columns  # The same of the right table

    @classmethod
    def of(
        cls,
        left: pd.DataFrame,  # One row a listing
        right: pd.DataFrame,  # One row a listing
        columns: Columns | None = None,  # Of the left table; None: recognised by names and cells
        right_columns: Columns | None = None,  # Of the right table; None: as those of the left
    ) -> 'Tables':
        """Find the columns that both tables have, and check ids and cells.

        Raises `InputError` naming the table with the column or rows that can't be used.
        """
        by_side = []
        for side, table, given in ((LEFT, left, columns),
                                   (RIGHT, right, right_columns if right_columns is not None else columns)):
            try: by_side.append(_columns_of(table, given))
            except InputError as error: raise InputError(f'{side} table: {error}') from error
        own, other = _shared(*by_side)
        checked = []
        for side, table, of_side in ((LEFT, left, own), (RIGHT, right, other)):
            try: checked.append(_checked(table, of_side))
            except InputError as error: raise InputError(f'{side} table: {error}') from error
        (left, left_ids), (right, right_ids) = checked
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
        own, other = self.columns.fields[name].column, self.right_columns.fields[name].column
        return np.concatenate([self.left[own].to_numpy(object), self.right[other].to_numpy(object)])

    def embeddings(
        self,
        vectors: dict | None = None,  # Modality -> (n+m,d) of encoders; None: the columns alone
        all_text: bool = True,  # Also compare the text of all columns together
    ) -> Embeddings:
        "Both tables' listings with their columns as fields."
        fields = {name: (field, self.cells(name)) for name, field in self.columns.fields.items()}
        if all_text and len(fields) > 1:
            joined = [' '.join(texts) for texts in zip(*(
                [as_text(cell) or '' for cell in cells] for _, cells in fields.values()))]
            fields[ALL_TEXT] = Field('text'), np.array([text.strip() or None for text in joined], object)
        ids = [f'{side}:{listing}' for side, ids in ((LEFT, self.left_ids), (RIGHT, self.right_ids))
               for listing in ids]
        return Embeddings(vectors or {}, ids, fields=fields, source=self.sources)


def _columns_of(table, given):
    "The columns of a table: those given, or recognised, the title among the fields."
    if not isinstance(table, pd.DataFrame):
        raise InputError(f'{type(table).__name__}: hand in a DataFrame (pd.read_csv reads one)')
    if given is None or (isinstance(given, Columns) and not given.fields):
        found = recognise(table, **({} if given is None else _named(given)), required=('id',))
        found = replace(found, fields=recognise_fields(table, found))
    else: found = given
    fields = dict(found.fields)
    titles = found.title if isinstance(found.title, (list, tuple)) else [found.title]
    titles = {'title' if number == 0 else header: Field('text', column=header)
              for number, header in enumerate(titles) if header is not None}
    return replace(found, title=None, fields={**_renamed(titles, fields), **fields})


def _named(columns):
    "The columns by keyword that a table may lack, where they are the usual names."
    usual = Columns().by_keyword()
    return {keyword: name for keyword, name in columns.by_keyword().items() if name != usual[keyword]}


def _renamed(titles, fields):
    "The titles under names that no field has."
    return {(name if name not in fields else f'{name} text'): field for name, field in titles.items()}


def _shared(own, other):
    "The columns with the fields that both have, in the order of the first."
    shared = [name for name in own.fields if name in other.fields]
    if not shared:
        raise InputError(f'the tables have no column in common: {preview(own.fields)} on the left, '
                         f'{preview(other.fields)} on the right; name them, columns=Columns(fields=...)')
    kinds = {name: (own.fields[name].kind, other.fields[name].kind) for name in shared}
    differing = {name: pair for name, pair in kinds.items() if pair[0] != pair[1]}
    # recognised alone a column may look like another kind: what the left table says counts
    right = {name: replace(other.fields[name], **_options(own.fields[name])) if name in differing
             else other.fields[name] for name in shared}
    return replace(own, fields={name: own.fields[name] for name in shared}), replace(other, fields=right)


def _options(field): return {'kind': field.kind, 'unit': field.unit, 'rates': field.rates,
                             'synonyms': field.synonyms}


def _checked(table, columns):
    "A table whose columns are there and whose cells can be read, and its ids as texts."
    headers = [columns.id, *(field.column for field in columns.fields.values())]
    table = with_names(table, headers).reset_index(drop=True)
    check_columns(table, {'id_col': columns.id,
                          **{f'fields[{name!r}]': field.column for name, field in columns.fields.items()}})
    if not len(table): raise InputError('it has no rows')
    check_fields(table, columns.fields)
    ids = texts_of(table[columns.id])
    missing = np.flatnonzero([listing is None or not listing for listing in ids])
    if len(missing): raise InputError(f'{columns.id}: no id in rows {preview(missing)}')
    values, counts = np.unique(ids.astype(str), return_counts=True)
    if (counts > 1).any(): raise InputError(f'{columns.id}: given twice: {preview(values[counts > 1])}')
    return table, ids
