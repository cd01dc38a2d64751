"Recognise what the further columns of a table hold: texts, codes, categories, numbers."
import re

import pandas as pd

from ..match.cells import as_text
from ..match.fields.field import Field
from ..match.fields.numbers import parse_number
from .columns import Columns
from .read import text_columns_of

# kind -> words that a header of such a column has; the first kind with one wins
HEADERS = {
    'code': 'model modelno modelnumber mpn sku ean upc gtin isbn asin barcode partno partnumber code',
    'number': 'price cost msrp weight width height length depth volume size_ml amount capacity qty quantity '
              'pack packsize year',
    'category': 'brand manufacturer maker producer vendor publisher author category type colour color size '
                'material genre gender format platform',
    'text': 'description details features specs specification text name title subtitle summary'}
ROWS = 2_000  # that are looked at
NUMERIC = .9  # share of the cells that must hold a number
FEW = .2  # distinct values, as a share of the cells, of a category
WORDS = 4  # of a text, at the median
CODE = re.compile(r'(?=.*\d)[A-Za-z0-9][\w./-]{3,}')


def recognise_fields(
    df: pd.DataFrame,  # One row a listing
    columns: Columns | None = None,  # Those whose role or kind is known already
) -> dict:  # Header -> `Field`
    """The kind of each further column, by its header, and by its cells where the header says nothing.

    A column with the same cell everywhere, or none, is left out. Those of `columns` come first, as they are.
    """
    columns = Columns() if columns is None else columns
    known = {header for header in columns.headers if isinstance(header, str)}
    known |= set(text_columns_of(columns)) if columns.title is not None else set()
    found = dict(columns.fields)
    for header in df.columns:
        if header in known or not isinstance(header, str): continue
        kind = kind_of(df[header])
        if kind is not None: found[header] = Field(kind, column=header)
    return found


def kind_of(
    cells: pd.Series,  # A column with its header
) -> str | None:
    "What a column holds, one of `KINDS`; None where nothing can be compared."
    texts = [text for text in map(as_text, cells.head(ROWS)) if text]
    if len(set(texts)) < 2: return None
    numeric = sum(_is_number(text) for text in texts) / len(texts)
    header = str(cells.name).lower()
    words = {*re.findall('[a-z]+', header), re.sub('[^a-z]', '', header)}
    for kind, usual in HEADERS.items():
        if words & set(usual.split()) and (kind != 'number' or numeric >= NUMERIC): return kind
    if numeric >= NUMERIC: return 'number'
    lengths = sorted(len(text.split()) for text in texts)
    if lengths[len(lengths) // 2] >= WORDS: return 'text'
    if sum(bool(CODE.fullmatch(text)) for text in texts) / len(texts) >= NUMERIC: return 'code'
    return 'category' if len(set(texts)) <= FEW * len(texts) else 'text'


def cells_of(
    df: pd.DataFrame,  # One row a listing
    fields: dict,  # Name -> `Field` with its column
) -> dict:  # Name -> (`Field`, its cells), as `Embeddings` takes them
    "The cells of the fields of a table."
    return {name: (field, df[field.column].to_numpy(object)) for name, field in fields.items()}


def _is_number(text):
    try: return parse_number(text) is not None
    except ValueError: return False
