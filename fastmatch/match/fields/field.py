"`Field`: what a column of a table holds, and how two of its cells are compared."
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import NamedTuple

import numpy as np

from ...core import InputError, unknown_option
from ..spaces.base import PairwiseSpace
from .base import as_objects
from .categories import Categories
from .codes import Codes
from .numbers import Numbers
from .texts import Texts

SAME = 1e-6  # similarities this near to 1 are those of equal cells
NEAR = .8  # from this similarity on two codes may be one with a slip of the pen
KINDS = ('text', 'code', 'category', 'number')
# kind -> the options that it takes
OPTIONS = {'text': (), 'code': (), 'category': ('synonyms',), 'number': ('unit', 'rates')}


@dataclass(frozen=True)
class Field:
    """What a column holds: `Field('number', unit='EUR')`. Raises `InputError` for an unknown kind, and for an
    option that the kind does not have."""
    kind: str  # One of `KINDS`
    column: str | None = None  # Its header in a table; None: the name of the field
    unit: str | None = None  # Of a number without one: 'kg', 'EUR'
    rates: dict | None = None  # Of numbers in currencies: currency -> its worth in a common one
    synonyms: dict | None = None  # Of categories: spelling -> the one it stands for

    def __post_init__(self):
        if self.kind not in KINDS:
            raise InputError(f'kind={self.kind!r}: choose one of {", ".join(KINDS)}')
        for option in ('unit', 'rates', 'synonyms'):
            if getattr(self, option) is not None and option not in OPTIONS[self.kind]:
                takes = ', '.join(OPTIONS[self.kind]) or 'none'
                raise InputError(f'{option}={getattr(self, option)!r}: the options of a {self.kind}: {takes}')

    @classmethod
    def of(
        cls,
        given,  # A `Field`, a kind ('number', 'number:EUR'), or a dict of its arguments
    ) -> 'Field':
        "Whatever may stand for a field, as a `Field`."
        if isinstance(given, cls): return given
        if isinstance(given, dict):
            known = [field.name for field in fields(cls)]
            for option in given:
                if option not in known: raise unknown_option(option, given[option], known)
            return cls(**given)
        if not isinstance(given, str): raise InputError(f'{given!r}: give a kind, one of {", ".join(KINDS)}')
        kind, _, unit = given.partition(':')
        return cls(kind, unit=unit or None)

    def with_synonyms(
        self,
        synonyms: dict,  # Spelling -> the one it stands for
    ) -> 'Field':
        "The same field, of categories, with these synonyms besides."
        return replace(self, synonyms={**(self.synonyms or {}), **synonyms} or None)

    def in_words(
        self,
        name: str,  # Of the field
        similarity: float,  # Of two listings, NaN where unknown
    ) -> str:
        "What a similarity says: 'same modelno', 'price differs by 4%'; '' where nothing is known."
        if math.isnan(similarity): return ''
        if similarity >= 1 - SAME: return f'same {name}'
        if self.kind == 'number':
            difference = 1 - similarity
            return f'{name} differs by ' + (f'{difference:.0%}' if difference >= .005 else 'less than 1%')
        if self.kind == 'code': return f'{"nearly the same" if similarity >= NEAR else "another"} {name}'
        return f'{name} {similarity:.0%} alike'

    def to_dict(self) -> dict:
        "The field as json takes it, without what it leaves to the defaults."
        return {option: value for option, value in asdict(self).items() if value is not None}

    def space(
        self,
        name: str,  # Of the field, for messages
        cells,  # (n,) cells as a table has them
    ) -> PairwiseSpace:
        "The column as a space; raises `InputError` naming cells that can't be read."
        if self.kind == 'text': return Texts(name, cells)
        if self.kind == 'code': return Codes(name, cells)
        if self.kind == 'category': return Categories(name, cells, self.synonyms)
        return Numbers(name, cells, self.unit, self.rates)


class FieldColumn(NamedTuple):
    "A field of some listings, with their cells."
    field: Field
    cells: np.ndarray  # object (n,), as the table has them

    def take(
        self,
        rows,  # Row numbers, or bool (n,)
    ) -> 'FieldColumn':
        "The same field of some of the listings."
        return FieldColumn(self.field, self.cells[rows])


def field_columns(
    given: dict,  # Name -> `FieldColumn`, or (a field as `Field.of` takes it, (n,) cells)
    n: int,  # Listings there are
) -> dict:  # Name -> `FieldColumn`
    "Fields and their cells as a user may give them; raises `InputError` naming a field of another length."
    columns = {}
    for name, (field, cells) in given.items():
        if len(cells) != n: raise InputError(f'{name}: {len(cells)} rows for {n} ids')
        columns[name] = FieldColumn(Field.of(field), as_objects(list(cells)))
    return columns
