"""A listing's columns as one text, field names as words: `title: sony tv | brand: sony | price: 399 USD`.

Ditto (https://arxiv.org/abs/2004.00584) writes `[COL] title [VAL] sony tv`, with tokens that a pretrained
encoder has never seen and must be trained to understand. A name with a colon and a bar between fields is how
product pages already write it: the words have vectors from the first step on, a person can read it, and it
can be taken apart again (`fields_in`), which augmentation needs.
"""
import re
from dataclasses import replace

import numpy as np
import pandas as pd

from ..core import InputError
from ..match.cells import as_text, composed
from ..match.fields.field import Field
from ..match.fields.numbers import parse_number

BETWEEN = ' | '  # fields
NAMED = ': '  # between a field's name and what it holds
CAPITALS = re.compile(r'(?<=[a-z0-9])(?=[A-Z])')
BARS = re.compile(r'\s*\|\s*')


def name_in_words(
    name: str,  # Of a field or column: 'brandName', 'list_price'
) -> str:
    "A field's name as lower-case words without colons and bars: 'brand name', 'list price'."
    words = CAPITALS.sub(' ', composed(str(name)))
    return ' '.join(re.sub(r'[_:|\s]+', ' ', words).split()).lower() or 'field'


def cell_in_words(
    field: Field,  # What the column holds
    cell,  # As a table has it
) -> str | None:
    """What a cell says in a line: a number without a unit gets its field's, `399.0` becomes '399 USD'; a bar
    becomes a slash. None for a missing cell."""
    if isinstance(cell, (list, tuple, set, np.ndarray)):
        parts = [part for part in (cell_in_words(field, each) for each in cell) if part]
        return ', '.join(parts) or None
    text = as_text(cell)
    text = ' '.join(BARS.sub('/', text).split()) if text else None
    if not text or field.kind != 'number': return text or None
    try: number = parse_number(cell)
    except ValueError: return text
    if number is None: return None
    is_bare = not number[1]
    return f'{text} {field.unit}' if is_bare and field.unit else text


def serialised_cells(
    fields: dict,  # Name -> `Field`, in the order of the text
    cells: dict,  # Name -> (n,) cells of the column
) -> list[str]:  # n texts; '' for a listing without anything in these columns
    "The columns of n listings as one text each; missing fields are left out."
    names = {name: name_in_words(name) for name in fields}
    columns = [[(names[name], cell_in_words(field, cell)) for cell in cells[name]]
               for name, field in fields.items()]
    return [BETWEEN.join(f'{word}{NAMED}{text}' for word, text in row if text) for row in zip(*columns)]


def fields_in(
    # As `serialised_cells` writes it; in any other text, what stands before a colon is taken for a name
    text: str,
) -> list[tuple]:  # (name with its colon or '', what it holds)
    "A serialised text taken apart; put together again with ' | ' it is the same text."
    parts = []
    for part in text.split(BETWEEN):
        name, colon, held = part.partition(NAMED)
        parts.append((name + colon, held) if colon else ('', part))
    return parts


def title_fields(
    given: dict,  # Field name or header -> kind of field, `Field`, or dict of its arguments
) -> dict:  # Name -> plain dict, as json takes it, with its 'column'
    "The fields of a serialised title in plain values, so that a saved matcher keeps them."
    if not given: raise InputError('title_col={}: name a column, or None for images only')
    fields = {}
    for name, kind in given.items():
        field = Field.of(kind).to_dict()
        fields[str(name)] = {**field, 'column': field.get('column', name)}
    return fields


def serialised_titles(
    df: pd.DataFrame,  # A row a listing
    fields: dict,  # Name -> as `title_fields` gives it
) -> list[str]:
    "The text of each row."
    made = {name: Field.of(field) for name, field in fields.items()}
    return serialised_cells(made, {name: df[field.column].tolist() for name, field in made.items()})


def with_serialised_title(
    columns,  # `Columns` with a title, or fields, or both
    headers,  # Of the table, in its order
):  # `Columns` whose title is a dict of all of them
    """Columns whose title is the text of titles and fields together, in the order of the table's columns but
    the title first, where truncation can't reach it.

    What is trained on it keeps the order: a later table may have its columns in any.
    """
    if isinstance(columns.title, dict): return columns
    titles = columns.title if isinstance(columns.title, (list, tuple)) else [columns.title]
    titles = {str(header): {'kind': 'text', 'column': header} for header in titles if header is not None}
    places = {header: place for place, header in enumerate(headers)}
    rest = sorted((name for name in columns.fields if name not in titles),
                  key=lambda name: places.get(columns.fields[name].column, len(places)))
    if not titles and not rest: raise InputError('serialise: there is no title and no field')
    return replace(columns, title={**titles, **{name: columns.fields[name] for name in rest}})


def without_fields(
    text: str,  # As `serialised_cells` writes it; any other text stays as it is
    p: float,  # Probability of each field but the first to be left out
    rng,  # `random.Random`, or the module `random`
) -> str:
    "A text without some of its fields; the first one, the title, always stays."
    first, *others = text.split(BETWEEN)
    return BETWEEN.join([first, *(field for field in others if rng.random() >= p)])


def without_span(
    text: str,  # Serialised or not
    most: int,  # Words of the longest span
    rng,  # `random.Random`, or the module `random`
) -> str:
    "A text without up to `most` words in a row of one field, which keeps its name and one word at least."
    parts = fields_in(text)
    held = [words.split() for _, words in parts]
    able = [number for number, words in enumerate(held) if len(words) > 1]
    if not able: return text
    # longer fields lose words more often
    number = rng.choices(able, [len(held[place]) for place in able])[0]
    words = held[number]
    length = rng.randint(1, min(most, len(words) - 1))
    start = rng.randint(0, len(words) - length)
    parts[number] = parts[number][0], ' '.join(words[:start] + words[start + length:])
    return BETWEEN.join(name + held_words for name, held_words in parts)
