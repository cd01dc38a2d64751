"`fastmatch link`: two files of listings in, a file of their matches out."
import json
from pathlib import Path

from ..core import InputError
from ..data.columns import Columns
from ..data.table import read_table
from ..link import TableMatches, match_tables
from ..match.fields.field import Field
from ..store import table_text, write_text


def fields_of(
    given,  # Texts 'name:kind' or 'name:kind:unit', such as 'price:number:EUR'
) -> dict:  # Name -> `Field`
    "The fields that options of a command name; raises `InputError` for what is no field."
    fields = {}
    for text in given or ():
        name, *kind_and_unit = text.split(':')
        if not name or len(kind_and_unit) not in (1, 2):
            raise InputError(f'--field {text!r}: give NAME:KIND, as in price:number or price:number:EUR')
        try: fields[name] = Field.of(':'.join(kind_and_unit))
        except InputError as error: raise InputError(f'--field {text!r}: {error}') from error
    return fields


def link_files(
    left,  # File of listings: CSV, TSV, Parquet, spreadsheet
    right,  # File of the other shop's listings
    out,  # File to write: left_id, right_id, probability
    known=None,  # File of pairs: left_id, right_id, label
    fields=(),  # 'name:kind' texts; none: recognised
    id_cols: tuple = (None, None),  # Columns of ids of the left and the right table; None: by usual names
    title_cols: tuple = (None, None),  # Columns of titles, likewise
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
    columns = tuple(_columns(table, fields_of(fields), id_col, title_col)
                    for table, id_col, title_col in zip(tables, id_cols, title_cols))
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


def _columns(table, fields, id_column, title_column):
    "The columns of one table: its ids and titles by their usual names where they were not named."
    from ..data.kinds import recognise_fields
    from ..data.table import recognise
    found = recognise(table, ('id',), id_col=id_column, title_col=title_column)
    columns = Columns(id=found.id, image=None, title=found.title, group=None, fields=fields)
    return columns if fields else Columns(id=found.id, image=None, title=found.title, group=None,
                                          fields=recognise_fields(table, found))
