"`fastmatch link`: two files of listings in, a file of their matches out."
import json
from dataclasses import replace
from pathlib import Path

from ..core import InputError
from ..data.columns import Columns
from ..data.kinds import recognise_fields
from ..data.table import read_table, recognise
from ..link import TableMatches, match_tables
from ..store import table_text, write_text
from .fields import read_field


def link_files(
    left,  # File of listings: CSV, TSV, Parquet, spreadsheet
    right,  # File of the other shop's listings
    out,  # File to write: left_id, right_id, probability
    known=None,  # File of pairs: left_id, right_id, label
    fields=(),  # 'price:number', 'brand' (the kind is recognised); none: all that both tables have
    id_cols: tuple = (None, None),  # Columns of ids of the left and the right table; None: by usual names
    how: str = 'one-to-one',  # As for `match_tables`
    threshold: float | None = None,  # As for `match_tables`
    encoding: str = 'utf-8',  # Of text tables
    seed: int = 0,  # Of the model
    echo=print,  # Called with a line of text at each stage
) -> TableMatches:
    "Match two files, and write the matches and, beside them, what was compared and what it is worth."
    out = Path(out)
    check_new_file(out, (left, right, known))
    tables = [read_table(file, encoding) for file in (left, right)]
    pairs = None if known is None else read_table(known, encoding)
    columns = tuple(_columns(table, fields or (), id_col) for table, id_col in zip(tables, id_cols))
    found = match_tables(*tables, columns=columns, known=pairs, how=how, threshold=threshold, seed=seed,
                         echo=echo)
    write_text(out, table_text(found.matches))
    summary = out.with_suffix('.json')
    write_text(summary, json.dumps(found.summary(), indent=2) + '\n')
    echo(f'wrote {out} and {summary}')
    return found


def check_new_file(
    out: Path,  # File to be written
    inputs,  # Files that are read, or None
):
    "Raise `InputError` for a file that would replace an input, or whose folder is not there."
    if not out.parent.is_dir(): raise InputError(f'--out {out}: no folder {out.parent}')
    if out.suffix == '.json': raise InputError(f'--out {out}: the matches are a table, give a .csv')
    for file in inputs:
        if file is None: continue
        if Path(file).resolve() in (out.resolve(), out.with_suffix('.json').resolve()):
            raise InputError(f'--out {out}: that is an input')


def _columns(table, given, id_column):
    "The columns of one table: its ids by their usual name where they were not named, and its title."
    found = recognise(table, ('id',), id_col=id_column)
    columns = Columns(id=found.id, image=None, title=found.title, group=None)
    fields = dict(read_field(text, table) for text in given) or recognise_fields(table, columns)
    return replace(columns, fields=fields)
