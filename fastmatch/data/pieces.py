"Read a table of any length piece by piece, its cells as `read_table` gives them."
import csv
import itertools
from pathlib import Path

import pandas as pd

from ..core import InputError, require_package
from ..store import table_text
from .formats import check_header, separator_of, take_separator_line, text_cells

KINDS = '.csv', '.tsv', '.parquet'  # of which a piece can be read without the rest


def table_pieces(
    path,  # File of one of `KINDS`
    n_rows: int,  # Rows a piece
    encoding: str = 'utf-8',  # Of a .csv or .tsv
):
    """Yield DataFrames of `n_rows` rows each, the last one shorter: cells are text, empty ones missing, empty
    rows left out.

    Raises `InputError` that names the line of a row with too many cells, and for files that can't be read in
    pieces.
    """
    path = Path(path)
    if not path.is_file(): raise InputError(f'{path}: no such file')
    if n_rows < 1: raise InputError(f'rows={n_rows}: give 1 or more')
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise InputError(f'{path}: only {", ".join(KINDS)} are read piece by piece')
    rows = _parquet_pieces(path, n_rows) if kind == '.parquet' else _text_pieces(path, n_rows, encoding)
    is_empty = True
    for piece in rows:
        is_empty = False
        yield piece
    if is_empty: raise InputError(f'{path} holds no listings')


def _parquet_pieces(path, n_rows):
    parquet = require_package('pyarrow.parquet', f'reading {path}', 'pyarrow')
    try:
        with parquet.ParquetFile(path) as parquet_file:
            names = check_header(path, parquet_file.schema_arrow.names)
            for batch in parquet_file.iter_batches(n_rows):
                yield pd.DataFrame(dict(zip(names, map(text_cells, batch.columns))))
    # pyarrow's own errors are kinds of these two
    except InputError: raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read as parquet: {error}") from error


def _text_pieces(path, n_rows, encoding):
    try:
        # as `read_table`: a byte order mark is no part of the first name
        with open(path, encoding='utf-8-sig' if encoding.lower() in ('utf-8', 'utf8') else encoding,
                  newline='') as stream:
            yield from _pieces_of_text(path, stream, n_rows)
    except (UnicodeDecodeError, LookupError) as error:
        raise InputError(f'{path}: is not text in encoding={encoding!r} ({error})') from error


def _pieces_of_text(path, stream, n_rows):
    first_line = stream.readline()
    rest, separator = take_separator_line(first_line)
    # Excel's `sep=;` stands on a line of its own
    if separator is not None: first_line = stream.readline()
    while first_line and not first_line.strip(): first_line = stream.readline()
    if not first_line.strip(): return
    if separator is None:
        separator = '\t' if path.suffix.lower() == '.tsv' else separator_of(first_line)
    reader = csv.reader(itertools.chain([first_line], stream), delimiter=separator, strict=True)
    try: header = check_header(path, [cell.strip() for cell in next(reader)])
    except csv.Error as error: raise InputError(f'{path}: its header can not be read ({error})') from error
    cells = _rows_of(path, reader, len(header))
    while piece := list(itertools.islice(cells, n_rows)): yield pd.DataFrame(piece, columns=header)


def _rows_of(path, reader, n_columns):
    "The rows of a table, each with as many cells as the header."
    try:
        for row in reader:
            if not any(row): continue
            # separators at the end of a line are no cells
            if any(row[n_columns:]):
                raise InputError(f'{path}: the header has {n_columns} cells, the row that ends on line '
                                 f'{reader.line_num} has {len(row)}')
            cells = [cell or None for cell in row[:n_columns]]
            yield cells + [None] * (n_columns - len(cells))
    except csv.Error as error:
        raise InputError(f'{path}: the row that ends on line {reader.line_num} can not be read ({error})'
                         ) from error


def as_parquet(
    source,  # CSV file
    target,  # Parquet file to write
    n_rows: int,  # Rows at a time, a row group each
):
    "Write a CSV as Parquet, all columns as text, a few rows at a time: equal tables make equal bytes."
    pyarrow = require_package('pyarrow', f'writing {target}')
    parquet = require_package('pyarrow.parquet', f'writing {target}', 'pyarrow')
    with open(source, encoding='utf-8', newline='') as stream:
        reader = csv.reader(stream)
        header = next(reader)
        schema = pyarrow.schema([(name, pyarrow.string()) for name in header])
        with parquet.ParquetWriter(target, schema) as writer:
            while rows := list(itertools.islice(reader, n_rows)):
                columns = [pyarrow.array(column, pyarrow.string()) for column in zip(*rows)]
                writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))


def csv_text(
    table: pd.DataFrame,  # Of text, no line ends in the names of its columns
    header: bool,  # Whether the names of the columns come first
) -> bytes:
    "A piece of a table as CSV."
    text = table_text(table)
    return (text if header else text.partition('\n')[2]).encode()
