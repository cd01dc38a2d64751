"Columns of a matcher's catalogue as plain values and arrays, and these as columns again; and what they say."
import numpy as np

from ..match import Tfidf
from ..match.fields.categories import Categories
from ..match.fields.codes import Codes
from ..match.fields.field import Field
from ..match.fields.numbers import Numbers
from ..match.fields.texts import Texts
from ..match.spaces.pool import Pool, holds_column

FIELDS_FILE = 'fields.json'


def field_of(
    space,  # A column as a space
) -> Field:
    "What the column holds, and how it is compared."
    return Field('text') if isinstance(space, Texts) else Field(space.kind, **space.settings())


def pack_fields(
    spaces: dict,  # Name -> space, of a catalogue
) -> tuple[dict, dict]:  # Name -> the column as json takes it; arrays by name
    "The columns among the spaces, their cells in canonical form; texts with their vocabulary."
    packed, arrays = {}, {}
    for name, space in spaces.items():
        if not holds_column(space): continue
        packed[name] = {'field': field_of(space).to_dict()}
        if isinstance(space, Texts):
            vocabulary, of_texts = space.state()
            packed[name] |= {'cells': space.texts, 'vocabulary': vocabulary}
            arrays |= {f'fields/{name}/{array_name}': array for array_name, array in of_texts.items()}
        else: packed[name]['cells'] = [_plain(cell) for cell in space.cells]
    return packed, arrays


def unpack_fields(
    packed: dict,  # As `pack_fields` gives it
    arrays: dict,  # All arrays of the catalogue, those of texts among them
) -> dict:  # Name -> space
    "The spaces that `pack_fields` took apart."
    return {name: _unpacked(name, column, arrays) for name, column in packed.items()}


def _unpacked(name, packed, arrays):
    field = Field.of(packed['field'])
    if field.kind == 'text':
        start = f'fields/{name}/'
        of_texts = {array_name.removeprefix(start): array for array_name, array in arrays.items()
                    if array_name.startswith(start)}
        tfidf = Tfidf.from_state(packed['vocabulary'], of_texts)
        return Texts(name, packed['cells'], vectorizer=tfidf.vectorizer, vectors=tfidf.vectors)
    cells = [tuple(cell) if isinstance(cell, list) else cell for cell in packed['cells']]
    if field.kind == 'code': return Codes(name, cells, canonical=True)
    if field.kind == 'category': return Categories(name, cells, field.synonyms)
    return Numbers(name, cells, field.unit, field.rates, canonical=True)


def _plain(cell): return list(cell) if isinstance(cell, tuple) else cell


def in_words(
    spaces: dict,  # Name -> space or `Pool`
    similarities,  # Name -> (m,) of the same pairs, NaN where unknown
    n_pairs: int,  # How many pairs there are
) -> np.ndarray:  # object (m,)
    "What the columns say of each pair: 'same modelno; price differs by 4%'; '' where nothing is known."
    said = []
    for name, space in spaces.items():
        if not holds_column(space): continue
        field = field_of(space.new if isinstance(space, Pool) else space)
        said.append([field.in_words(name, float(similarity)) for similarity in similarities[name]])
    if not said: return np.full(n_pairs, '', object)
    return np.array(['; '.join(filter(None, of_pair)) for of_pair in zip(*said)], object)
