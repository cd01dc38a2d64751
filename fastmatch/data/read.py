"Check listings before hours of training are spent on them: which rows and pictures can't be used, and why."
import difflib
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..core import InputError, preview, require_package
from ..match.cells import BOOLS, SEVERAL, composed, texts_of, tidy, tidy_titles
from ..match.fields.numbers import parse_number
from .columns import Columns, role_of
from .image import NO_FILE, file_name, image_path, phash, try_image
from .pictures import tidy_pictures
from .serialise import BETWEEN, serialised_titles


class Listings(NamedTuple):
    "What `check_listings` returns."
    # A copy of the usable rows with a fresh RangeIndex, every column kept; a listing with several pictures
    # has a tuple of file names
    df: pd.DataFrame
    skipped: pd.DataFrame  # The others: `id`, `row` (position in the table handed in), `column`, `reason`
    singletons: int  # Groups of one listing in `df`: allowed in training, but none of them can be found
    # Perceptual hash of each row of `df`, hex strings (n,), a tuple of them for several pictures; None unless
    # asked for
    phash: np.ndarray | None
    # Pictures that were left out of usable listings which have others, in the columns of `skipped`
    left_out: pd.DataFrame


class Fault(NamedTuple):
    "What is wrong with a cell of the table."
    row: int  # Position in the table, from 0
    column: str  # Name of the column
    reason: str  # In a few words


ONLY_IDS = Columns(image=None, title=None, group=None)


def check_listings(
    df: pd.DataFrame,  # One row a listing; not changed
    path='.',  # Folder that the image file names start from
    columns: Columns | None = None,  # Columns to check; None: the ids alone
    on_error: str = 'raise',  # 'raise': one error lists all unusable rows; 'skip': they are left out
    phash: bool = False,  # Also compute each picture's perceptual hash (JPEGs are then decoded in full)
    n_workers: int | None = None,  # Threads that decode; None: as many as there are cores, at most 16
    min_rows: int = 2,  # Fewest usable listings; 1 for listings that are matched against a catalogue
    # Whether rows without a group are usable too: `df` has None for theirs
    unlabelled: bool = False,
    several: bool = True,  # Whether a cell of the image column may name several files, see `picture_names`
    # Whether a listing may lack its title, or its picture; one that lacks both is unusable all the same
    may_lack: bool = False,
    **column_names,  # Single columns by keyword: `id_col`, `image_col`, `title_col`, `group_col`, `fold_col`
) -> Listings:  # Its `df` has folds as int64 (or bool), ids and groups of one type, see match/cells.py
    """Check every row, decode every picture, and list all that is wrong at once.

    With 'skip' a listing that has several pictures keeps those that can be read, with a warning.
    Raises `InputError`, also with 'skip' for missing columns, repeated ids, too few rows or a single group.
    """
    if on_error not in ('raise', 'skip'): raise InputError(f"on_error={on_error!r}: choose 'raise' or 'skip'")
    columns = Columns.resolve(columns, column_names, ONLY_IDS)
    df = with_names(df, columns.headers)
    check_columns(df, {**replace(columns, phash=None).by_keyword(), **columns.by_field()})
    if len(df) < min_rows: raise InputError(f'df has {_count(len(df))}: at least {min_rows} are needed')
    faults = _faults_of_cells(df, columns, unlabelled, may_lack)
    pictures = None
    if columns.image is not None:
        pictures = _check_images(df[columns.image], Path(path), phash, n_workers, several)
        faults += pictures.faults
        if on_error == 'raise': faults += pictures.left_out
    skipped = _skipped(df, columns, sorted(faults, key=lambda fault: fault.row))
    if len(skipped) and on_error == 'raise': raise_unusable(skipped, columns.id)

    is_usable = np.ones(len(df), dtype=bool)
    is_usable[skipped.row.to_numpy()] = False
    usable = df[is_usable].reset_index(drop=True)
    if len(usable) < min_rows:
        raise InputError(f'{_count(len(usable))} left of {len(df)}: at least {min_rows} are needed. '
                         + _message(skipped, columns.id))
    _tidy_columns(usable, columns)
    hashes, left_out = None, []
    if pictures is not None:
        if phash: hashes = pictures.hashes[is_usable]
        left_out = [fault for fault in pictures.left_out if is_usable[fault.row]]
        if pictures.cells is not None: usable[columns.image] = pictures.cells[is_usable]
    left_out = _skipped(df, columns, left_out)
    if len(left_out): warn_left_out(left_out, columns.id)
    return Listings(usable, skipped, _count_singletons(usable, columns.group), hashes, left_out)


def _tidy_columns(df, columns):
    "Bring ids, groups, titles and folds into the form in which they are compared, in place."
    for column in {columns.id, columns.group} - {None}:
        cells = df[column]
        # a blank group is none
        if column == columns.group and is_blank(cells).any(): cells = cells.mask(is_blank(cells), None)
        df[column] = tidy(cells, column)
    if columns.title is not None: df[columns.title] = tidy_titles(df[columns.title])
    if columns.fold is None: return
    # those of rows without a group may hold anything
    if not not_whole(df, columns.fold): df[columns.fold] = tidy_folds(df[columns.fold])


def _faults_of_cells(df, columns, unlabelled=False, may_lack=False):
    "What is wrong with ids, titles, groups, folds, sources and numbers; a repeated id raises."
    faults = []
    if columns.id is not None:
        faults += _blank(df, columns.id, 'no id')
        refuse_lists(df[columns.id])
        _check_ids(df[columns.id])
    if columns.title is not None:
        faults += [] if may_lack else _blank(df, columns.title, 'blank title')
        faults += _not_text(df, columns.title)
    needs_group = np.ones(len(df), bool)
    if columns.group is not None:
        if unlabelled: needs_group = ~is_blank(df[columns.group])
        else: faults += _blank(df, columns.group, 'no label')
    if columns.fold is not None:
        # what is trained on nowhere needs no fold
        faults += [fault for fault in not_whole(df, columns.fold) if needs_group[fault.row]]
    if columns.source is not None: faults += _blank(df, columns.source, 'no source')
    for field in columns.fields.values():
        if field.kind == 'number': faults += number_faults(df, field.column)
    return faults


def _skipped(df, columns, faults):
    "The faults as a table: `id`, `row`, `column`, `reason`."
    row_numbers = [fault.row for fault in faults]
    listing_ids = df[columns.id] if columns.id is not None else pd.Series([None]*len(df))
    return pd.DataFrame({'id': listing_ids.iloc[row_numbers].tolist(),
                         'row': np.array(row_numbers, dtype=np.int64),
                         'column': [fault.column for fault in faults],
                         'reason': [fault.reason for fault in faults]})


def _count_singletons(df, group_column):
    "How many groups have one listing; a single group raises, since there is nothing to tell apart."
    if group_column is None: return 0
    sizes = df[group_column].value_counts()
    if len(sizes) == 1 and len(df) > 1:
        raise InputError(f'all {len(df)} listings are in one group ({group_column}={sizes.index[0]!r}): '
                         'there is nothing to tell apart')
    return int((sizes == 1).sum())


def _count(n_listings): return f'{n_listings} listing' + ('' if n_listings == 1 else 's')


def with_names(
    df,  # DataFrame of listings, not changed
    names,  # Of columns; None and those that it has are passed over
):  # DataFrame
    "The table with these names for headers that differ from them in the Unicode form of accents alone."
    if not isinstance(df, pd.DataFrame): return df
    missing = {composed(name): name for name in names if isinstance(name, str) and name not in df.columns}
    if not missing: return df
    return df.rename(columns={header: missing[composed(header)] for header in df.columns
                              if isinstance(header, str) and composed(header) in missing})


def text_columns_of(
    columns: Columns,  # Of a table
) -> list:
    "The columns of text as a list, empty where there are none."
    if columns.title is None: return []
    if isinstance(columns.title, dict): return [field['column'] for field in columns.title.values()]
    if not pd.api.types.is_list_like(columns.title): return [columns.title]
    if not list(columns.title): raise InputError('title_col=[]: name a column, or None for images only')
    return list(columns.title)


def join_titles(
    df,  # DataFrame, a row a listing; not changed
    columns: Columns,  # Its title may be a list of columns, or a dict of them
) -> tuple[pd.DataFrame, Columns]:  # (a table with the column of all texts, columns whose title is that one)
    """Put the texts of several columns together, without empty ones; a single column stays.

    Those of a list become sentences, those of a dict fields with their names, see data/serialise.py.
    """
    if not pd.api.types.is_list_like(columns.title): return df, columns
    text_columns = text_columns_of(columns)
    df = with_names(df, text_columns)
    check_columns(df, {'title_col': text_columns})
    if isinstance(columns.title, dict):
        title_column = BETWEEN.join(columns.title)
        texts = pd.Series(serialised_titles(df, columns.title), df.index, dtype=object)
        return df.assign(**{title_column: texts}), replace(columns, title=title_column)
    if len(text_columns) == 1: return df, replace(columns, title=text_columns[0])
    # one of the texts may be missing, as long as another is there
    texts = df[text_columns].fillna('').astype(str).agg(_joined, axis=1)
    title_column = ' + '.join(map(str, text_columns))
    # without rows pandas makes a table of what is none
    return (df.assign(**{title_column: texts if len(df) else pd.Series(dtype=object)}),
            replace(columns, title=title_column))


def _joined(cells):
    "The texts of a row put together as sentences, without empty ones."
    return '. '.join(text for text in map(str.strip, cells) if text)


def check_columns(
    df,  # DataFrame of listings
    columns: dict,  # Option -> the column that it names, a list of titles, or None: {'image_col': 'photo'}
):
    "Raise `InputError` if a column is missing, with the nearest name, or if its name is there twice."
    if not isinstance(df, pd.DataFrame):
        raise InputError(f'df is a {type(df).__name__}: hand in a DataFrame (pd.read_csv reads one)')
    column_names = [str(column) for column in df.columns]
    by_lower_case = {column.lower(): column for column in column_names}
    columns = _one_by_one(columns)
    missing = []
    for option, column in columns.items():
        if pd.api.types.is_list_like(column) and not isinstance(column, tuple):
            raise InputError(f'{option}={column!r}: name one column here')
        if column is None or column in df.columns: continue
        nearest = difflib.get_close_matches(str(column).lower(), by_lower_case, n=1, cutoff=0.5)
        advice = f' (did you mean {by_lower_case[nearest[0]]!r}?)' if nearest else ''
        missing.append(f'{option}={column!r}{advice}')
    if missing: raise InputError(f"df lacks {', '.join(missing)}; its columns are: {', '.join(column_names)}")
    repeated = [str(column) for column in columns.values()
                if column is not None and (df.columns == column).sum() > 1]
    if repeated:
        raise InputError(f"df has more than one column named {', '.join(repeated)}: rename or drop one")


def _one_by_one(columns):
    "{option: column}, where a title of several columns is one for each: 'title_col[0]', 'title_col[1]'."
    flat = {}
    for option, column in columns.items():
        if role_of(option) == 'title' and isinstance(column, (list, tuple)):
            flat |= {f'{option}[{number}]': name for number, name in enumerate(column)}
        else: flat[option] = column
    return flat


def _check_ids(ids):
    "Raise if two rows have the same id: only the owner of the table can say which row is right."
    row_numbers = pd.Series(np.arange(len(ids)), index=texts_of(ids))[ids.notna().to_numpy()]
    repeated = row_numbers[row_numbers.index.duplicated(keep=False)].groupby(level=0, sort=False)
    if len(repeated):
        lines = [f"{listing_id!r} on rows {preview(rows_of_id.tolist(), 10)}"
                 for listing_id, rows_of_id in repeated]
        raise InputError(f'{ids.name} must be unique, also as text; '
                         f'{len(lines)} repeated: {preview(lines, 20)}')


def refuse_lists(
    ids: pd.Series,  # With its header
):
    "Raise `InputError` for lists, dicts and the like in the place of ids, which can't be compared."
    rows = np.flatnonzero([isinstance(cell, SEVERAL) for cell in ids])
    if len(rows):
        raise InputError(f'{ids.name}: an id is a number or a text, {ids.iloc[rows[0]]!r} is neither '
                         f'(rows {preview(rows.tolist())})')


def _blank(df, column, reason):
    "The rows where `column` is missing, None or white space."
    return [Fault(row, column, reason) for row in np.flatnonzero(is_blank(df[column])).tolist()]


def number_faults(
    df: pd.DataFrame,  # One row a listing
    column,  # Of numbers
) -> list[Fault]:
    "The rows where `column` holds text without a number; a missing cell is unknown, and no fault."
    faults = []
    for row, cell in enumerate(df[column]):
        try: parse_number(cell)
        except ValueError as error: faults.append(Fault(row, column, str(error)))
    return faults


def is_blank(
    cells: pd.Series,  # A column
) -> np.ndarray:  # bool (n,)
    "True where a value is missing, None or white space."
    is_space = cells.map(lambda cell: isinstance(cell, str) and not cell.strip()).astype(bool)
    return (cells.isna() | is_space).to_numpy()


def _not_text(df, column):
    "The rows where `column` holds something other than text."
    return [Fault(row_number, column, f'{cell!r} is not text')
            for row_number, (cell, is_missing) in enumerate(zip(df[column], is_blank(df[column])))
            if not is_missing and not isinstance(cell, str)]


def holds_booleans(
    cells: pd.Series,  # Of folds
) -> bool:
    "Whether all cells that are there are True or False, as in fastai's `is_valid`, or say so as text."
    filled = cells[~is_blank(cells)]
    return len(filled) > 0 and all(_truth(cell) is not None for cell in filled)


def _truth(cell):
    "What a cell says that is True or False, also as a text file has it; None for any other."
    if isinstance(cell, BOOLS): return bool(cell)
    return {'true': True, 'false': False}.get(cell.strip().lower()) if isinstance(cell, str) else None


def tidy_folds(
    cells: pd.Series,  # Folds without a fault, see `not_whole`
) -> pd.Series:  # int64, or bool where all are True or False
    "Folds in one type."
    if holds_booleans(cells): return cells.map(_truth).astype(bool)
    return pd.to_numeric(cells).astype(np.int64)


def not_whole(
    df: pd.DataFrame,  # One row a listing
    column: str,  # Column of folds
) -> list[Fault]:
    "The rows where a column doesn't hold a whole number; 2.0 and '2' are whole, a column of booleans is."
    if holds_booleans(df[column]):
        return _blank(df, column, 'no fold')
    # a True among numbers would be taken for 1
    cells = df[column].map(lambda cell: None if isinstance(cell, BOOLS) else cell)
    fold_numbers = pd.to_numeric(cells, errors='coerce').to_numpy(dtype=np.float64, na_value=np.nan)
    is_finite = np.isfinite(fold_numbers)
    is_whole = is_finite & (np.where(is_finite, fold_numbers, .5) % 1 == 0)
    is_missing = is_blank(df[column])
    cells = df[column].tolist()
    return [Fault(row, column, 'no fold' if is_missing[row] else f'{cells[row]!r} is not a whole number')
            for row in np.flatnonzero(~is_whole).tolist()]


class CheckedPictures(NamedTuple):
    "What decoding the pictures of a table found."
    faults: list  # `Fault`s of listings without a picture that can be read
    left_out: list  # `Fault`s of pictures whose listings have others
    hashes: np.ndarray  # object (n,), of the pictures that can be read: one, a tuple of several, or None
    cells: np.ndarray | None  # object (n,), the names of those; None where each cell names one file


def _check_images(cells, path, phash, n_workers, several):
    "Decode each file of a column once; see `CheckedPictures`. Without `phash` its hashes are None."
    if phash: require_package('imagehash', 'phash=True')
    if n_workers is None: n_workers = min(os.cpu_count() or 1, 16)
    if n_workers < 1: raise InputError(f'n_workers={n_workers}: give 1 or more')
    if not path.is_dir(): raise InputError(f'path={str(path)!r} is not a folder')
    tidied = tidy_pictures(cells, path) if several else cells.tolist()
    names_by_row = [list(cell) if isinstance(cell, tuple) else [cell] for cell in tidied]
    files_by_row = [[None if file_name(name) is None else str(image_path(path, name)) for name in names]
                    for names in names_by_row]
    distinct_files = list(dict.fromkeys(file for files in files_by_row for file in files if file is not None))
    with ThreadPoolExecutor(n_workers) as pool:  # PIL releases the interpreter lock while it decodes
        results = tqdm(pool.map(lambda file: _try_file(file, phash), distinct_files),
                       total=len(distinct_files), desc='Checking images', delay=2, leave=False)
        results_by_file = dict(zip(distinct_files, results))
    check_some_exist([reason for reason, _ in results_by_file.values()], cells.name, distinct_files)
    results_by_file[None] = 'no file name', None
    checked = CheckedPictures([], [], np.full(len(cells), None, object), np.full(len(cells), None, object))
    for row_number, (names, files) in enumerate(zip(names_by_row, files_by_row)):
        reasons = [results_by_file[file][0] for file in files]
        readable = [place for place, reason in enumerate(reasons) if reason is None]
        faults = checked.left_out if readable else checked.faults
        for name, file, reason in zip(names, files, reasons):
            if reason is None: continue
            full_reason = reason if file is None else f'{name}: {reason}'
            faults.append(Fault(row_number, cells.name, full_reason))
        if not readable: continue
        checked.cells[row_number] = one_or_tuple([names[place] for place in readable])
        checked.hashes[row_number] = one_or_tuple([results_by_file[files[place]][1] for place in readable])
    # a column whose cells name one file each stays as it is, its type too
    is_plain = all(tidy is cell for tidy, cell in zip(tidied, cells.tolist()))
    return checked._replace(cells=None) if is_plain else checked


def one_or_tuple(
    parts: list,  # One or more
):
    "The only part, or a tuple of several: how a table holds the files and hashes of a listing."
    return parts[0] if len(parts) == 1 else tuple(parts)


def warn_left_out(
    left_out: pd.DataFrame,  # As in `Listings`
    id_column: str | None,  # Column of ids, for the message
):
    "Warn of pictures that were left out of listings which have others."
    lines = _lines(left_out.head(20), id_column)
    warnings.warn(f'{len(left_out)} picture(s) that can not be used are left out of listings that have '
                  f'others: {preview(lines, 20)}', stacklevel=3)


def check_some_exist(
    reasons: list,  # What is wrong with each file, or None
    column: str,  # Column of the file names, for the message
    files: list,  # Their paths
):
    "Raise `InputError` where every file is missing: that is one wrong folder, not n broken rows."
    if len(files) and all(reason == NO_FILE for reason in reasons):
        # numbers as names: '0012' may have been read as 12
        zeros = ' Are there zeros in front? Read the table with dtype=str then.'
        raise InputError(f'none of the {len(files)} files in {column!r} exists; the first was looked for at '
                         f'{files[0]}. Is path right?{zeros if Path(files[0]).name.isdigit() else ""}')


def _try_file(image_file, with_hash):
    "Read one file as training will: (what is wrong with it or None, its hash or None)."
    # the hash of a JPEG decoded at a smaller size may differ in a bit, so it is taken from the whole picture
    image, reason = try_image(image_file, None if with_hash else (64, 64))
    return reason, phash(image) if with_hash and image is not None else None


def raise_unusable(
    skipped: pd.DataFrame,  # `id`, `row`, `column`, `reason`: as in `Listings`
    id_col: str | None,  # Column of ids, for the message
):
    "Raise the `InputError` that lists unusable rows."
    raise InputError(_message(skipped, id_col))


def _message(skipped, id_column, max_lines=50):
    "A message with one line for each unusable row, and how to go on without them."
    lines = [f'  {line}' for line in _lines(skipped.head(max_lines), id_column)]
    if len(skipped) > max_lines: lines.append(f'  and {len(skipped) - max_lines} more')
    n_rows = skipped.row.nunique()
    advice = "(on_error='skip' leaves them out and returns the list)"
    return f"{n_rows} unusable row{'s' if n_rows > 1 else ''} {advice}:\n" + '\n'.join(lines)


def _lines(faults, id_column):
    "A line for each fault: row, id, column and reason."
    lines = []
    for fault in faults.itertuples():
        listing_name = f' ({id_column} {fault.id!r})' if id_column is not None else ''
        lines.append(f'row {fault.row}{listing_name}, {fault.column}: {fault.reason}')
    return lines
