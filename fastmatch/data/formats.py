"Read the file of a table in any of its formats: every cell stays the text that it was, errors name the line."
import codecs
import csv
import gzip
import io
import numbers
import re
import zipfile
import zlib
from contextlib import suppress

import pandas as pd

from ..core import InputError, preview, require_package


def read_parquet(
    path,  # File
) -> pd.DataFrame:
    "Read a parquet's columns as text."
    parquet = require_package('pyarrow.parquet', f'reading {path}', 'pyarrow')
    try:
        with parquet.ParquetFile(path) as file: table = file.read()
    # pyarrow's own errors are kinds of these two
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read as parquet: {error}") from error
    names = _check_header(path, table.column_names)
    # column by column: of the whole table pandas would make an index of what was one
    cells = [_cells_of(column) for column in table.columns]
    return pd.DataFrame(dict(zip(names, cells)))


def _cells_of(column):
    "A parquet's column as text."
    # by default pandas makes floats of whole numbers where some are missing
    return column.to_pandas(integer_object_nulls=True).astype(object).map(_as_text)


def _as_text(cell):
    "A cell as a CSV would hold it."
    if isinstance(cell, float):
        if cell != cell: return None
        return str(int(cell)) if cell.is_integer() else str(cell)
    return str(cell) if isinstance(cell, numbers.Number) else cell


def read_spreadsheet(
    path,  # .xlsx
) -> pd.DataFrame:
    "Read the one sheet of a spreadsheet that holds anything; numbers and dates come without display format."
    require_package('openpyxl', f'reading {path}', '"fastmatch[excel]"')
    try:
        sheets = pd.read_excel(path, sheet_name=None, header=None, dtype=str, keep_default_na=False,
                               na_filter=False, engine='openpyxl')
    # a damaged or encrypted file fails in zip, in xml or in openpyxl itself
    except Exception as error:
        reason = f'{type(error).__name__}: {error}'
        raise InputError(f"{path} can't be read as a spreadsheet ({reason})") from error
    # a cell with an error in it (#N/A) is missing
    cells = {name: sheet.fillna('').to_numpy().tolist() for name, sheet in sheets.items()}
    rows_of = {name: [row for row in rows if any(row)] for name, rows in cells.items()}
    filled = [name for name, rows in rows_of.items() if rows]
    if not filled: raise InputError(f'{path} is empty')
    if len(filled) > 1:
        named = preview(map(repr, filled), 20)
        raise InputError(f'{path} has {len(filled)} sheets with something in them, give one: {named}')
    header, *rows = rows_of[filled[0]]
    names = _check_header(path, [name.strip() for name in header])
    return pd.DataFrame([[cell or None for cell in row] for row in rows], columns=names)


def read_delimited(
    path,  # .csv or .tsv, packed or not
    encoding: str,  # Of the text, where no byte order mark says another
) -> pd.DataFrame:
    "Read comma-, semicolon- or tab-separated text; empty cells are missing, empty rows are left out."
    # not pandas.read_csv: it counts records where an editor counts lines, reads on after a stray quote (two
    # of them merge rows unseen), and takes the first column for an index where every row has a cell too many
    data, name = _unpack(path)
    text = _decode(data, path, encoding)
    if not text.strip(): raise InputError(f'{path} is empty')
    header_line = re.search(r'[^\r\n]+', text)[0]
    separator = '\t' if name.endswith('.tsv') else max(',;\t', key=header_line.count)
    # by default a cell of 131,072 characters is an error, which does not name its row
    limit = csv.field_size_limit(len(text) + 1)
    try: header, rows, too_long = _split_cells(path, text, separator)
    finally: csv.field_size_limit(limit)
    if too_long:
        raise InputError(f'{path}: the header has {len(header)} cells, {preview(too_long)}; '
                         f'put "..." around cells that hold {separator!r}')
    return pd.DataFrame(rows, columns=header)


def _split_cells(path, text, separator):
    "The header, the rows, and a few words on each row that has more cells than the header."
    reader = csv.reader(io.StringIO(text, newline=''), delimiter=separator, strict=True)
    header = None
    rows = []
    too_long = []
    first_line = 1  # of the row at hand, which may go over several
    try:
        for row in reader:
            if any(row):
                if header is None: header = _check_header(path, [name.strip() for name in row])
                elif len(row) > len(header): too_long.append(f'line {first_line} has {len(row)}')
                else: rows.append([cell or None for cell in row] + [None]*(len(header) - len(row)))
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f'{path}: unbalanced quotes in the row that begins on line {first_line} ({error}): '
                         'a cell that begins with " ends with one, a " inside it is doubled') from error
    return header, rows, too_long


def _check_header(path, names):
    "The header with a name for each column, or an error if two have the same."
    twice = [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
    if twice:
        named = ', '.join(map(repr, twice))
        raise InputError(f"{path} has more than one column named {named}: rename or drop one")
    # as pandas names the index that it wrote
    return [name or f'Unnamed: {i}' for i, name in enumerate(names)]


def _unpack(path):
    "The bytes of the table, and its name without .gz or .zip."
    name = path.name.lower()
    try:
        if name.endswith('.gz'): return gzip.decompress(path.read_bytes()), name[:-3]
        if not name.endswith('.zip'): return path.read_bytes(), name
        with zipfile.ZipFile(path) as archive:
            tables = [entry for entry in archive.namelist()
                      if entry.lower().endswith(('.csv', '.tsv')) and not entry.startswith('__MACOSX/')]
            if len(tables) != 1:
                named = preview(tables or archive.namelist())
                raise InputError(f"{path} holds {len(tables)} tables, give one: {named}")
            return archive.read(tables[0]), tables[0].lower()
    # RuntimeError: a zip with a password
    except (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{path} can't be read: {error}") from error


def _decode(data, path, encoding):
    "The text, or an error that names the line of the first byte that isn't text."
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)): encoding = 'utf-16'
    elif data.startswith(codecs.BOM_UTF8):
        data = data[len(codecs.BOM_UTF8):]
        encoding = 'utf-8'
    failure = None
    try: text = data.decode(encoding)
    except LookupError as error:
        raise InputError(f'encoding={encoding!r} is none that Python knows; '
                         'utf-8, cp1252 and utf-16 are usual') from error
    except UnicodeDecodeError as error:
        failure = error
        text = data.decode(encoding, 'replace')
    if '\0' in text:
        line = _line_after(text[:text.index('\0')])
        raise InputError(f'{path}, line {line}: a NUL byte. This is no text (a spreadsheet? export it as '
                         'CSV, UTF-8), or UTF-16 (--encoding utf-16-le), or damaged')
    if failure:
        line = _line_after(data[:failure.start].decode(encoding, 'ignore'))
        hint = '' if b'\0' in data else _hint(data, failure.start)
        raise InputError(f'{path}, line {line}: not {encoding} ({failure.reason}){hint}')
    return text


def _line_after(before):
    "The number of the line that the text after `before` stands on, from 1."
    return len(re.findall(r'\r\n|\r|\n', before)) + 1


def _hint(data, position):
    "How the surroundings of a byte read in an encoding that takes the whole file, so that one can judge."
    for other in ('utf-8', 'cp1252', 'latin-1'):  # the last takes anything
        with suppress(UnicodeDecodeError):
            data.decode(other)
            break
    before = re.split(rb'[\r\n]', data[max(0, position - 20):position])[-1]
    after = re.split(rb'[\r\n]', data[position:position + 20])[0]
    reading = (before + after).decode(other, 'replace')
    return f': byte 0x{data[position]:02x}; with --encoding {other} it reads {reading!r}'
