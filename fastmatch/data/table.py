"Read a table of listings as people have it, cells as they were typed, and find its columns by their names."
import re
from pathlib import Path

import pandas as pd

from ..core import InputError, preview
from ..match.cells import composed
from .columns import ROLES, Columns, role_of
from .formats import read_delimited, read_parquet, read_spreadsheet
from .read import check_columns, text_columns_of

KINDS = '.csv', '.tsv', '.csv.gz', '.tsv.gz', '.zip', '.parquet', '.xlsx'

# role -> usual names, the more specific first; case, blanks and punctuation don't count ('Product Name' is
# 'product_name')
USUAL = dict(
    id='posting_id listing_id offer_id item_id sku asin id product_id',
    image='image_path image_file image_filename image_name image filename file_path img_path img photo '
          'picture file path images image_paths image_files photos pictures',
    title='title product_title listing_title item_title product_name listing_name item_name name text '
          'description',
    group='label_group group_id product_group match_group cluster_id cluster group label product',
    fold='fold kfold',
    phash='image_phash phash perceptual_hash',
    source='')  # only where it is named: a source keeps its listings from matching each other


def read_table(
    path,  # A file of one of `KINDS`; a .csv is separated as its header is: , ; tab or |
    encoding: str = 'utf-8',  # Of a .csv or .tsv; a byte order mark (UTF-8, -16, -32) has the last word
) -> pd.DataFrame:  # Cells are text as it was typed ('0012', 'NA'), empty ones missing, empty rows left out
    """Read a table of listings from CSV, parquet or a spreadsheet; Excel's first line `sep=;` is understood.

    Raises `InputError` that names the line of the file, counted from 1, or the sheet or column.
    """
    path = Path(path)
    if not path.exists(): raise InputError(f'{path}: no such file')
    if path.is_dir(): raise InputError(f'{path} is a folder: give the file of listings itself')
    file_name = path.name.lower()
    if not file_name.endswith(KINDS):
        raise InputError(f"{path}: can't tell what it is by its name; read are {', '.join(KINDS)} "
                         '(export a spreadsheet as CSV, UTF-8)')
    if file_name.endswith('.parquet'): df = read_parquet(path)
    elif file_name.endswith('.xlsx'): df = read_spreadsheet(path)
    else: df = read_delimited(path, encoding)
    if df.empty: raise InputError(f'{path} has a header but no listings')
    return df


def recognise(
    df: pd.DataFrame,  # One row a listing, as from `read_table`
    required=('id',),  # Roles that the caller can't do without: 'id', 'image', ... or 'id_col', ...
    max_title: int | None = 10_000,  # Most characters in a title: more is a broken file and takes all memory
    **column_names,  # Columns by keyword, `id_col`, `image_col`, ...; None looks for the usual names
) -> Columns:
    """Say which column plays which role by the usual names; of several, the one that comes first in `USUAL`.

    Raises `InputError` for a required role without a column, with the names that were looked for.
    """
    given = Columns.resolve(None, column_names, Columns(None, None, None, None))
    column_of_role = {role: getattr(given, role) for role in ROLES}
    required = [role_of(role) or role for role in required]
    unknown = [role for role in required if role not in column_of_role]
    if unknown: raise InputError(f"required={preview(unknown)}: choose from {', '.join(column_of_role)}")
    column_of_role = {role: _header(df, name) for role, name in column_of_role.items()}
    check_columns(df, {f'{role}_col': name for role, name in column_of_role.items()})
    taken = Columns(**column_of_role).named
    free_columns = [column for column in df.columns if column not in taken]
    columns = Columns(**{
        role: _usual(free_columns, USUAL[role].split()) if column_name is None else column_name
        for role, column_name in column_of_role.items()})
    missing_roles = [f"{role} (--{role}-col; looked for {', '.join(USUAL[role].split())})"
                     for role in required if getattr(columns, role) is None]
    if missing_roles:
        known_columns = ', '.join(map(str, df.columns))
        raise InputError(f"say which column is {'; '.join(missing_roles)}. The columns are: {known_columns}")
    check_columns(df, columns.by_keyword())  # a name that was found may be there twice
    if max_title is not None:
        for text_column in text_columns_of(columns): _check_length(df, columns.id, text_column, max_title)
    return columns


def _header(df, name):
    "The header that a name given for a column means: also one with its accents in another Unicode form."
    if isinstance(name, (list, tuple)): return [_header(df, one_name) for one_name in name]
    if not isinstance(name, str) or not isinstance(df, pd.DataFrame) or name in df.columns: return name
    return next((header for header in df.columns if composed(str(header)) == composed(name)), name)


def _plain(column_name):
    "A column's name without case, blanks and punctuation."
    return re.sub(r'[\W_]+', '', str(column_name).lower())


def _usual(columns, usual_names):
    "The one of `columns` whose name comes first in `usual_names`, or None; 'id' beats 'ID'."
    place_and_name = {_plain(usual_name): (place, usual_name) for place, usual_name in enumerate(usual_names)}
    candidates = [column for column in columns if _plain(column) in place_and_name]

    def rank(column):
        place, usual_name = place_and_name[_plain(column)]
        return place, column != usual_name

    return min(candidates, key=rank, default=None)


def _check_length(df, id_column, text_column, max_title):
    "Raise if a title is longer than `max_title` characters."
    lengths = df[text_column].map(lambda title: len(title) if isinstance(title, str) else 0).to_numpy()
    listing_ids = None if id_column is None else df[id_column].tolist()
    lines = []
    for row_number in (lengths > max_title).nonzero()[0]:
        listing_name = f' ({id_column} {listing_ids[row_number]!r})' if listing_ids else ''
        lines.append(f'row {row_number}{listing_name}: {lengths[row_number]} characters')
    if lines:
        raise InputError(f'{text_column} has titles of more than max_title={max_title} characters '
                         f'(rows are counted from 0, without the header): {preview(lines)}')


WRAPPED = re.compile(r'''b(['"])(.*)\1''', re.DOTALL)
RUN = re.compile(r'(?:\\x[0-9a-fA-F]{2})+')
# inside b'...' Python escapes five characters more; both in one pass, or an escaped backslash would be taken
# for the start of an escape
RUN_OR_ONE = re.compile(RUN.pattern + r'''|\\[\\'"nrt]''')
ONE = dict(n='\n', r='\r', t='\t')


def unescape(
    titles: pd.Series,  # Text; missing values stay missing
) -> pd.Series:  # Same index
    r"Turn `\xe2\x9d\xa4` typed out back into its character, and take off the `b'...'` around printed bytes."
    return titles.map(lambda title: _unescape(title) if isinstance(title, str) else title)


def _unescape(title):
    wrapped = WRAPPED.fullmatch(title)
    if wrapped: return RUN_OR_ONE.sub(_decode_run, wrapped[2])
    return RUN.sub(_decode_run, title) if '\\x' in title else title


def _decode_run(match):
    "The characters of a run of escapes, or the run itself where it isn't UTF-8."
    escapes = match[0]
    if len(escapes) == 2: return ONE.get(escapes[1], escapes[1])
    try: return bytes.fromhex(escapes.replace('\\x', '')).decode()
    except UnicodeDecodeError: return escapes
