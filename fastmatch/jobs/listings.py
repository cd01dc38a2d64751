"Reads a table of listings as the commands are given it: finds its columns, and unescapes its titles."
from dataclasses import replace

from ..core import InputError
from ..data.columns import Columns
from ..data.read import text_columns_of
from ..data.table import read_table, recognise, unescape


def training_listings(
    file,  # Table of listings: CSV, TSV or Parquet
    encoding: str,  # Of a text table
    images,  # Folder of the images; None: titles only
    column_names: dict,  # {'id_col': name or None, ...} as the user gave them; see `columns_of`
    echo=print,  # Called with a line of text: which columns were taken
) -> tuple:  # (DataFrame, `Columns`)
    "A table to train on: it must have ids and groups, and titles or images."
    listings = read_table(file, encoding)
    columns = columns_of(listings, column_names, ('id', 'group'))
    if images is not None and columns.image is None:
        recognise(listings, **columns.by_keyword(), required=('image',))
    if images is None and columns.title is None:
        raise InputError('nothing to train on: give --images for the pictures, or --title-col for the titles')
    for column in text_columns_of(columns): listings[column] = unescape(listings[column])
    if images is None: columns = replace(columns, image=None)
    echo(f'{len(listings)} listings in {file}; {", ".join(columns.described())}')
    return listings, columns


def columns_of(
    listings,  # DataFrame
    # {'id_col': name, ...}; None looks for the usual names, 'none' leaves the column out; several titles as a
    # list
    column_names: dict,
    required,  # Roles that must be there
) -> Columns:
    "The columns of a table by role; raises `InputError` for one that is missing."
    left_out = [role for role, column in column_names.items()
                if isinstance(column, str) and column == 'none' and column not in listings]
    wanted = {role: None if role in left_out else column for role, column in column_names.items()}
    # a column that is left out may hold what it likes: the length of titles is checked below, without it
    recognised = recognise(listings, **wanted, required=required, max_title=None)
    columns = Columns.resolve(recognised, dict.fromkeys(left_out))
    if columns.title is not None:
        used_columns = list(dict.fromkeys(columns.named))
        recognise(listings[used_columns], **columns.by_keyword())
    return columns
