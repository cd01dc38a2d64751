"Read a table's file, one function a format: cells keep the text that was typed, errors name the line."
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
        with parquet.ParquetFile(path) as parquet_file: table = parquet_file.read()
    # pyarrow's own errors are kinds of these two
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read as parquet: {error}") from error
    column_names = check_header(path, table.column_names)
    # column by column: of the whole table pandas would make an index of what was one
    text_columns = [text_cells(column) for column in table.columns]
    return pd.DataFrame(dict(zip(column_names, text_columns)))


def text_cells(column):
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
    cells_of = {name: sheet.fillna('').to_numpy().tolist() for name, sheet in sheets.items()}
    rows_of_sheet = {name: [row for row in rows if any(row)] for name, rows in cells_of.items()}
    filled_sheets = [name for name, rows in rows_of_sheet.items() if rows]
    if not filled_sheets: raise InputError(f'{path} is empty')
    if len(filled_sheets) > 1:
        shown = preview(map(repr, filled_sheets), 20)
        raise InputError(f'{path} has {len(filled_sheets)} sheets with something in them, give one: {shown}')
    header, *rows = rows_of_sheet[filled_sheets[0]]
    column_names = check_header(path, [name.strip() for name in header])
    return pd.DataFrame([[cell or None for cell in row] for row in rows], columns=column_names)


def read_delimited(
    path,  # .csv or .tsv, packed or not
    encoding: str,  # Of the text, where no byte order mark says another
) -> pd.DataFrame:
    """Read text separated by comma, semicolon, tab or bar, or as a first line `sep=;` says (Excel's); empty
    cells are missing, empty rows are left out."""
    # not pandas.read_csv: it counts records where an editor counts lines, reads on after a stray quote (two
    # of them merge rows unseen), and takes the first column for an index where every row has a cell too many
    raw_bytes, file_name = _unpack(path)
    table_text = _decode(raw_bytes, path, encoding)
    if not table_text.strip(): raise InputError(f'{path} is empty')
    table_text, separator = take_separator_line(table_text)
    if separator is None: separator = '\t' if file_name.endswith('.tsv') else separator_of(table_text)
    # by default a cell of 131,072 characters is an error, which does not name its row
    limit_before = csv.field_size_limit(len(table_text) + 1)
    try: header, rows, too_long = _split_cells(path, table_text, separator)
    finally: csv.field_size_limit(limit_before)
    if header is None: raise InputError(f'{path} is empty')
    if too_long:
        n_cells = f'{len(header)} cell' + ('' if len(header) == 1 else 's')
        raise InputError(f'{path}: the header has {n_cells}, {preview(too_long)}; '
                         + _advice_on_long_rows(table_text, separator, header, rows))
    return pd.DataFrame(rows, columns=header)


SEPARATOR_LINE = re.compile(r'"?sep=([^\r\n])[^\r\n]*(?=[\r\n]|$)', re.IGNORECASE)


def take_separator_line(table_text):
    "The text, Excel's first line `sep=;` taken off, its line end kept for line numbers; the separator."
    found = SEPARATOR_LINE.match(table_text)
    if found is None: return table_text, None
    return table_text[found.end():], found[1]


def separator_of(table_text):
    "The separator that the header has most of, outside of quotes."
    header_line = re.search(r'[^\r\n]+', table_text)[0]
    return max(',;\t|', key=re.sub('"[^"]*"', '', header_line).count)


def _advice_on_long_rows(table_text, separator, header, rows):
    "What to do about rows with more cells than the header."
    if re.search(f'{re.escape(separator)} +"', table_text):
        return f'no blank between {separator!r} and the " of a cell'
    if not rows:
        return (f'no row fits it. Is {separator.join(header)[:60]!r} the header? Delete what stands above '
                'the header (a title, a comment), and give each column a name')
    return f'put "..." around cells that hold {separator!r}'


def _split_cells(path, table_text, separator):
    "The header, the rows, and a few words on each row that has more cells than the header."
    reader = csv.reader(io.StringIO(table_text, newline=''), delimiter=separator, strict=True)
    header = None
    rows = []
    too_long = []
    first_line = 1  # of the row at hand, which may go over several
    try:
        for row in reader:
            if any(row):
                if header is None: header = check_header(path, [cell.strip() for cell in row])
                # separators at the end of a line are no cells
                elif any(row[len(header):]): too_long.append(f'line {first_line} has {len(row)}')
                else:
                    cells = [cell or None for cell in row[:len(header)]]
                    rows.append(cells + [None]*(len(header) - len(cells)))
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f'{path}: unbalanced quotes in the row that begins on line {first_line} ({error}): '
                         'a cell that begins with " ends with one, a " inside it is doubled') from error
    return header, rows, too_long


def check_header(path, column_names):
    "The header with a name for each column, or an error if two have the same."
    repeated = [name for name in dict.fromkeys(column_names) if name and column_names.count(name) > 1]
    if repeated:
        shown_names = ', '.join(map(repr, repeated))
        raise InputError(f"{path} has more than one column named {shown_names}: rename or drop one")
    # as pandas names the index that it wrote
    return [name or f'Unnamed: {position}' for position, name in enumerate(column_names)]


def _unpack(path):
    "The bytes of the table, and its name without .gz or .zip."
    file_name = path.name.lower()
    try:
        if file_name.endswith('.gz'): return gzip.decompress(path.read_bytes()), file_name[:-3]
        if not file_name.endswith('.zip'): return path.read_bytes(), file_name
        with zipfile.ZipFile(path) as archive:
            table_files = [entry for entry in archive.namelist()
                           if entry.lower().endswith(('.csv', '.tsv')) and not entry.startswith('__MACOSX/')]
            if len(table_files) != 1:
                shown_names = preview(table_files or archive.namelist())
                raise InputError(f"{path} holds {len(table_files)} tables, give one: {shown_names}")
            return archive.read(table_files[0]), table_files[0].lower()
    # RuntimeError: a zip with a password
    except (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{path} can't be read: {error}") from error


def _decode(raw_bytes, path, encoding):
    "The text, or an error that names the line of the first byte that isn't text."
    # that of UTF-32 begins as that of UTF-16
    if raw_bytes.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)): encoding = 'utf-32'
    elif raw_bytes.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)): encoding = 'utf-16'
    elif raw_bytes.startswith(codecs.BOM_UTF8):
        raw_bytes = raw_bytes[len(codecs.BOM_UTF8):]
        encoding = 'utf-8'
    failure = None
    try: text = raw_bytes.decode(encoding)
    except LookupError as error:
        raise InputError(f'encoding={encoding!r} is none that Python knows; '
                         'utf-8, cp1252 and utf-16 are usual') from error
    except UnicodeDecodeError as error:
        failure = error
        text = raw_bytes.decode(encoding, 'replace')
    if '\0' in text:
        line = _line_after(text[:text.index('\0')])
        raise InputError(f'{path}, line {line}: a NUL byte. This is no text (a spreadsheet? export it as '
                         'CSV, UTF-8), or UTF-16 (--encoding utf-16-le), or damaged')
    if failure:
        line = _line_after(raw_bytes[:failure.start].decode(encoding, 'ignore'))
        hint = '' if b'\0' in raw_bytes else _hint(raw_bytes, failure.start)
        raise InputError(f'{path}, line {line}: not {encoding} ({failure.reason}){hint}')
    return text


def _line_after(text_before):
    "The number, from 1, of the line that the text after `text_before` begins on."
    return len(re.findall(r'\r\n|\r|\n', text_before)) + 1


def _hint(raw_bytes, position):
    "A byte's surroundings, decoded in an encoding that fits the whole file, so that a reader can judge it."
    for other_encoding in ('utf-8', 'cp1252', 'latin-1'):  # the last takes anything
        with suppress(UnicodeDecodeError):
            raw_bytes.decode(other_encoding)
            break
    bytes_before = re.split(rb'[\r\n]', raw_bytes[max(0, position - 20):position])[-1]
    bytes_after = re.split(rb'[\r\n]', raw_bytes[position:position + 20])[0]
    reading = (bytes_before + bytes_after).decode(other_encoding, 'replace')
    return f': byte 0x{raw_bytes[position]:02x}; with --encoding {other_encoding} it reads {reading!r}'
