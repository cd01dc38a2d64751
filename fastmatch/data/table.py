"Read a table of listings as people have it: find its columns by their usual names, keep every cell as it was typed."
import codecs
import csv
import gzip
import io
import numbers
import re
import zipfile
import zlib
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from ..core import InputError, preview, require_package
from .columns import Columns, role_of
from .read import check_columns

KINDS = '.csv', '.tsv', '.csv.gz', '.tsv.gz', '.zip', '.parquet'

# role -> usual names, the more specific first; case, blanks and punctuation don't count ('Product Name' is 'product_name')
USUAL = dict(
    id='posting_id listing_id offer_id item_id sku asin id product_id',
    image='image_path image_file image_filename image_name image filename file_path img_path img photo picture file path',
    title='title product_title listing_title item_title product_name listing_name item_name name text description',
    group='label_group group_id product_group match_group cluster_id cluster group label product',
    fold='fold kfold',
    phash='image_phash phash perceptual_hash')


def read_table(
    path,  # One of `KINDS`; a .csv is separated by what its header holds most of: comma, semicolon or tab
    encoding: str = 'utf-8',  # Of the text; a byte order mark (UTF-8, UTF-16) has the last word
) -> pd.DataFrame:  # Cells are text as it stands ('0012', 'NA'); empty ones are missing, rows of only empty cells are left out
    "Read a table of listings, or raise an `InputError` that names the line; lines are counted from 1, the header's."
    path = Path(path)
    if not path.exists(): raise InputError(f'{path}: no such file')
    if path.is_dir(): raise InputError(f'{path} is a folder: give the file of listings itself')
    if not path.name.lower().endswith(KINDS):
        raise InputError(f"{path}: can't tell what it is by its name; read are {', '.join(KINDS)} (export a spreadsheet as CSV, UTF-8)")
    df = _parquet(path) if path.name.lower().endswith('.parquet') else _delimited(path, encoding)
    if df.empty: raise InputError(f'{path} has a header but no listings')
    return df


def recognise(
    df: pd.DataFrame,  # One row a listing, as from `read_table`
    required=('id',),  # Roles the caller can't do without
    max_title: int | None = 10_000,  # Most characters in a title: more is a page or a broken file, and takes all memory; None allows any
    **column_names,  # `id_col`, `image_col`, ...: a name given for a role is taken as it is and must exist; None looks for the usual names
) -> Columns:
    "Say which column plays which role by the usual names; of several, the one that stands first in `USUAL`."
    given = Columns.resolve(None, column_names, Columns(None, None, None, None))
    names = asdict(given)
    required = [role_of(o) or o for o in required]
    if wrong := [o for o in required if o not in names]: raise InputError(f"required={preview(wrong)}: choose from {', '.join(names)}")
    check_columns(df, given.by_keyword())
    free = [o for o in df.columns if o not in names.values()]
    cols = Columns(**{role: name if name is not None else _usual(free, USUAL[role].split()) for role, name in names.items()})
    if lines := [f"{role} (--{role}-col; looked for {', '.join(USUAL[role].split())})"
                 for role in required if getattr(cols, role) is None]:
        raise InputError(f"say which column is {'; '.join(lines)}. The columns are: {', '.join(map(str, df.columns))}")
    check_columns(df, cols.by_keyword())  # a name that was found may be there twice
    if cols.title is not None and max_title is not None: _check_length(df, cols, max_title)
    return cols


def _plain(name): return re.sub(r'[\W_]+', '', str(name).lower())


def _usual(columns, names):
    "The one of `columns` whose name comes first in `names`, or None; 'id' beats 'ID'."
    order = {_plain(o): (i, o) for i, o in enumerate(names)}
    found = [o for o in columns if _plain(o) in order]
    return min(found, key=lambda o: (order[_plain(o)][0], o != order[_plain(o)][1]), default=None)


def _check_length(df, cols, max_title):
    "Raise if a title is longer than `max_title` characters."
    size = df[cols.title].map(lambda o: len(o) if isinstance(o, str) else 0).to_numpy()
    ids = df[cols.id].tolist() if cols.id is not None else None
    lines = [f'row {i}' + (f' ({cols.id} {ids[i]!r})' if ids else '') + f': {size[i]} characters'
             for i in (size > max_title).nonzero()[0]]
    if lines: raise InputError(f'{cols.title} has titles of more than max_title={max_title} characters '
                               f'(rows are counted from 0, without the header): {preview(lines)}')


WRAPPED = re.compile(r'''b(['"])(.*)\1''', re.DOTALL)
RUN = re.compile(r'(?:\\x[0-9a-fA-F]{2})+')
# inside the wrapper Python escapes five characters more; in one pass, or an escaped backslash would be taken for the start of an escape
RUN_OR_ONE = re.compile(RUN.pattern + r'''|\\[\\'"nrt]''')
ONE = dict(n='\n', r='\r', t='\t')


def unescape(
    titles: pd.Series,  # Text; missing values stay missing
) -> pd.Series:  # Same index
    r"Turn `\xe2\x9d\xa4` typed out back into the character it is, and take off the `b'...'` that Python puts around bytes."
    return titles.map(lambda o: _unescape(o) if isinstance(o, str) else o)


def _unescape(title):
    if m := WRAPPED.fullmatch(title): return RUN_OR_ONE.sub(_decode_run, m[2])
    return RUN.sub(_decode_run, title) if '\\x' in title else title


def _decode_run(m):
    "The characters of a run of escapes, or the run itself where it isn't UTF-8."
    if len(m[0]) == 2: return ONE.get(m[0][1], m[0][1])
    try: return bytes.fromhex(m[0].replace('\\x', '')).decode()
    except UnicodeDecodeError: return m[0]


def _parquet(path):
    "Read a parquet's columns as text."
    pq = require_package('pyarrow.parquet', f'reading {path}', 'pyarrow')
    try:
        with pq.ParquetFile(path) as f: table = f.read()
    except (OSError, ValueError) as e: raise InputError(f"{path} can't be read as parquet: {e}") from e  # pyarrow's errors are both
    names = _check_header(path, table.column_names)
    # without pandas' own notes an index stays a column; by default nulls would turn whole numbers into floats
    cols = [o.to_pandas(integer_object_nulls=True).astype(object).map(_text) for o in table.columns]
    return pd.DataFrame(dict(zip(names, cols)))


def _text(o):
    "A cell as a CSV would hold it."
    if isinstance(o, float): return None if o != o else str(int(o)) if o.is_integer() else str(o)
    return str(o) if isinstance(o, numbers.Number) else o


def _delimited(path, encoding):
    "Read comma-, semicolon- or tab-separated text."
    # not pandas.read_csv: it counts records where an editor counts lines, reads on after a stray quote (two of them merge rows unseen),
    # and takes the first column for an index where every row has a cell too many
    data, name = _unpack(path)
    text = _decode(data, path, encoding)
    if not text.strip(): raise InputError(f'{path} is empty')
    sep = '\t' if name.endswith('.tsv') else max(',;\t', key=re.search(r'[^\r\n]+', text)[0].count)
    reader = csv.reader(io.StringIO(text, newline=''), delimiter=sep, strict=True)
    header, rows, ragged, line = None, [], [], 1  # line: where the row at hand begins, which may hold several
    limit = csv.field_size_limit(len(text) + 1)  # by default a cell of 131,072 characters ends the reading, without its row
    try:
        for row in reader:
            if any(row):
                if header is None: header = _check_header(path, [o.strip() for o in row])
                elif len(row) > len(header): ragged.append(f'line {line} has {len(row)}')
                else: rows.append([o or None for o in row] + [None]*(len(header) - len(row)))
            line = reader.line_num + 1
    except csv.Error as e:
        raise InputError(f'{path}: unbalanced quotes in the row that begins on line {line} ({e}): a cell that begins with " ends with one, '
                         'a " inside it is doubled') from e
    finally: csv.field_size_limit(limit)
    if ragged: raise InputError(f'{path}: the header has {len(header)} cells, {preview(ragged)}; put "..." around cells that hold {sep!r}')
    return pd.DataFrame(rows, columns=header)


def _check_header(path, names):
    "The header with a name for each column, or an error if two have the same."
    if twice := [o for o in dict.fromkeys(names) if o and names.count(o) > 1]:
        raise InputError(f"{path} has more than one column named {', '.join(map(repr, twice))}: rename or drop one")
    return [o or f'Unnamed: {i}' for i, o in enumerate(names)]  # as pandas names the index that it wrote


def _unpack(path):
    "The bytes of the table, and its name without .gz or .zip."
    name = path.name.lower()
    try:
        if name.endswith('.gz'): return gzip.decompress(path.read_bytes()), name[:-3]
        if not name.endswith('.zip'): return path.read_bytes(), name
        with zipfile.ZipFile(path) as z:
            inside = [o for o in z.namelist() if o.lower().endswith(('.csv', '.tsv')) and not o.startswith('__MACOSX/')]
            if len(inside) != 1: raise InputError(f"{path} holds {len(inside)} tables, give one: {preview(inside or z.namelist())}")
            return z.read(inside[0]), inside[0].lower()
    # RuntimeError: a zip with a password
    except (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as e: raise InputError(f"{path} can't be read: {e}") from e


def _decode(data, path, encoding):
    "The text, or an error that names the line of the first byte that isn't text."
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)): encoding = 'utf-16'
    elif data.startswith(codecs.BOM_UTF8): data, encoding = data[len(codecs.BOM_UTF8):], 'utf-8'
    bad = None
    try: text = data.decode(encoding)
    except LookupError as e: raise InputError(f'encoding={encoding!r} is none that Python knows; utf-8, cp1252 and utf-16 are usual') from e
    except UnicodeDecodeError as e: text, bad = data.decode(encoding, 'replace'), e
    if '\0' in text: raise InputError(f'{path}, line {_line(text[:text.index(chr(0))])}: a NUL byte. This is no text (a spreadsheet? '
                                      'export it as CSV, UTF-8), or UTF-16 (--encoding utf-16-le), or damaged')
    if bad: raise InputError(f'{path}, line {_line(data[:bad.start].decode(encoding, "ignore"))}: not {encoding} ({bad.reason})'
                             + (_hint(data, bad.start) if b'\0' not in data else ''))
    return text


def _line(before): return len(re.findall(r'\r\n|\r|\n', before)) + 1


def _hint(data, pos):
    "Say how the surroundings of the byte at `pos` read in an encoding that takes the whole file, so that one can judge."
    for other in ('utf-8', 'cp1252', 'latin-1'):  # the last takes anything
        with suppress(UnicodeDecodeError):
            data.decode(other)
            break
    around = re.split(rb'[\r\n]', data[max(0, pos - 20):pos])[-1] + re.split(rb'[\r\n]', data[pos:pos + 20])[0]
    return f': byte 0x{data[pos]:02x}; with --encoding {other} it reads {around.decode(other, "replace")!r}'
