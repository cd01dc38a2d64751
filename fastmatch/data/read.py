"Check listings before hours of training are spent on them: which rows and pictures can't be used, and why."
import difflib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..core import InputError, preview, require_package
from .columns import Columns
from .image import NO_FILE, phash, try_image


class Listings(NamedTuple):
    "What `check_listings` returns."
    df: pd.DataFrame  # A copy of the usable rows with a fresh RangeIndex, every column kept
    skipped: pd.DataFrame  # The others: `id`, `row` (position in the table handed in), `column`, `reason`
    singletons: int  # Groups of one listing in `df`: allowed in training, but none of them can be found
    phash: np.ndarray | None  # Perceptual hash of each row of `df`, hex strings (n,); None unless asked for


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
    **column_names,  # Single columns by keyword: `id_col`, `image_col`, `title_col`, `group_col`, `fold_col`
) -> Listings:  # Its `df` has folds as int64
    """Check every row, decode every picture, and list all that is wrong at once.

    Raises `InputError`, also with 'skip' for missing columns, repeated ids, too few rows or a single group.
    """
    if on_error not in ('raise', 'skip'): raise InputError(f"on_error={on_error!r}: choose 'raise' or 'skip'")
    columns = Columns.resolve(columns, column_names, ONLY_IDS)
    check_columns(df, replace(columns, phash=None).by_keyword())
    if len(df) < min_rows: raise InputError(f'df has {_count(len(df))}: at least {min_rows} are needed')
    faults = _faults_of_cells(df, columns)
    hashes = None
    if columns.image is not None:
        broken, hashes = _check_images(df[columns.image], Path(path), phash, n_workers)
        faults += broken
    skipped = _skipped(df, columns, sorted(faults, key=lambda fault: fault.row))
    if len(skipped) and on_error == 'raise': raise_unusable(skipped, columns.id)

    usable = np.ones(len(df), dtype=bool)
    usable[skipped.row.to_numpy()] = False
    kept = df[usable].reset_index(drop=True)
    if len(kept) < min_rows:
        raise InputError(f'{_count(len(kept))} left of {len(df)}: at least {min_rows} are needed. '
                         + _message(skipped, columns.id))
    if columns.fold is not None: kept[columns.fold] = pd.to_numeric(kept[columns.fold]).astype(np.int64)
    if hashes is not None: hashes = hashes[usable]
    return Listings(kept, skipped, _count_singletons(kept, columns.group), hashes)


def _faults_of_cells(df, columns):
    "What is wrong with ids, titles, groups and folds; a repeated id raises."
    faults = []
    if columns.id is not None:
        faults += _blank(df, columns.id, 'no id')
        _check_ids(df[columns.id])
    if columns.title is not None:
        faults += _blank(df, columns.title, 'blank title') + _not_text(df, columns.title)
    if columns.group is not None: faults += _blank(df, columns.group, 'no label')
    if columns.fold is not None: faults += not_whole(df, columns.fold)
    return faults


def _skipped(df, columns, faults):
    "The faults as a table: `id`, `row`, `column`, `reason`."
    rows = [fault.row for fault in faults]
    ids = df[columns.id] if columns.id is not None else pd.Series([None]*len(df))
    return pd.DataFrame({'id': ids.iloc[rows].tolist(), 'row': np.array(rows, dtype=np.int64),
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


def _count(n): return f'{n} listing' + ('' if n == 1 else 's')


def check_columns(
    df,  # DataFrame of listings
    columns: dict,  # Option -> name of the column that it gives, or None: {'image_col': 'photo'}
):
    "Raise `InputError` if a column is missing, with the nearest name, or if its name is there twice."
    if not isinstance(df, pd.DataFrame):
        raise InputError(f'df is a {type(df).__name__}: hand in a DataFrame (pd.read_csv reads one)')
    names = [str(name) for name in df.columns]
    by_lower_case = {name.lower(): name for name in names}
    missing = []
    for option, name in columns.items():
        if name is None or name in df.columns: continue
        near = difflib.get_close_matches(str(name).lower(), by_lower_case, n=1, cutoff=0.5)
        advice = f' (did you mean {by_lower_case[near[0]]!r}?)' if near else ''
        missing.append(f'{option}={name!r}{advice}')
    if missing: raise InputError(f"df lacks {', '.join(missing)}; its columns are: {', '.join(names)}")
    twice = [str(name) for name in columns.values() if name is not None and (df.columns == name).sum() > 1]
    if twice: raise InputError(f"df has more than one column named {', '.join(twice)}: rename or drop one")


def _check_ids(ids):
    "Raise if an id stands on more than one row: only the owner of the table can say which row is right."
    rows = pd.Series(np.arange(len(ids)), index=ids.to_numpy())[ids.notna().to_numpy()]
    twice = rows[rows.index.duplicated(keep=False)].groupby(level=0, sort=False)
    if len(twice):
        lines = [f"{id_!r} on rows {preview(rows_of_id.tolist(), 10)}" for id_, rows_of_id in twice]
        raise InputError(f'{ids.name} must be unique; {len(lines)} repeated: {preview(lines, 20)}')


def _blank(df, column, reason):
    "The rows where `column` is missing, None or white space."
    return [Fault(row, column, reason) for row in np.flatnonzero(_is_blank(df[column])).tolist()]


def _is_blank(values):
    "bool (n,), True where a value is missing, None or white space."
    is_space = values.map(lambda value: isinstance(value, str) and not value.strip()).astype(bool)
    return (values.isna() | is_space).to_numpy()


def _not_text(df, column):
    "The rows where `column` holds something other than text."
    return [Fault(row, column, f'{value!r} is not text')
            for row, (value, blank) in enumerate(zip(df[column], _is_blank(df[column])))
            if not blank and not isinstance(value, str)]


def not_whole(
    df: pd.DataFrame,  # One row a listing
    column: str,  # Column of folds
) -> list[Fault]:
    "The rows where a column doesn't hold a whole number; 2.0 and '2' are whole."
    numbers = pd.to_numeric(df[column], errors='coerce').to_numpy(dtype=np.float64, na_value=np.nan)
    is_finite = np.isfinite(numbers)
    is_whole = is_finite & (np.where(is_finite, numbers, .5) % 1 == 0)
    is_blank = _is_blank(df[column])
    values = df[column].tolist()
    return [Fault(row, column, 'no fold' if is_blank[row] else f'{values[row]!r} is not a whole number')
            for row in np.flatnonzero(~is_whole).tolist()]


def _check_images(names, path, phash, n_workers):
    "Decode each file once: the faults, and the hash of each row (None where it can't be read) if `phash`."
    if phash: require_package('imagehash', 'phash=True')
    if n_workers is None: n_workers = min(os.cpu_count() or 1, 16)
    if n_workers < 1: raise InputError(f'n_workers={n_workers}: give 1 or more')
    if not path.is_dir(): raise InputError(f'path={str(path)!r} is not a folder')
    files = [None if blank else str(path/str(name)) for name, blank in zip(names, _is_blank(names))]
    different = list(dict.fromkeys(file for file in files if file is not None))
    with ThreadPoolExecutor(n_workers) as pool:  # PIL lets go of the interpreter lock while it decodes
        results = tqdm(pool.map(lambda file: _try_file(file, phash), different), total=len(different),
                       desc='Checking images', delay=2, leave=False)
        seen = dict(zip(different, results))
    check_some_exist([reason for reason, _ in seen.values()], names.name, different)
    faults = []
    for row, file in enumerate(files):
        reason = 'no file name' if file is None else seen[file][0]
        if reason is None: continue
        faults.append(Fault(row, names.name, reason if file is None else f'{names.iloc[row]}: {reason}'))
    if not phash: return faults, None
    return faults, np.array([None if file is None else seen[file][1] for file in files], dtype=object)


def check_some_exist(
    reasons: list,  # What is wrong with each file, or None
    column: str,  # Column of the file names, for the message
    files: list,  # The files, as they were looked for
):
    "Raise `InputError` where every file is missing: that is one wrong folder, not n broken rows."
    if len(files) and all(reason == NO_FILE for reason in reasons):
        raise InputError(f'none of the {len(files)} files in {column!r} exists; '
                         f'the first was looked for at {files[0]}. Is path right?')


def _try_file(file, with_hash):
    "Read one file as training will: (what is wrong with it or None, its hash or None)."
    # the hash of a JPEG decoded at a smaller size may differ in a bit, so it is taken from the whole picture
    image, reason = try_image(file, None if with_hash else (64, 64))
    return reason, phash(image) if with_hash and image is not None else None


def raise_unusable(
    skipped: pd.DataFrame,  # `id`, `row`, `column`, `reason`: as in `Listings`
    id_col: str | None,  # Column of ids, for the message
):
    "Raise the `InputError` that lists unusable rows."
    raise InputError(_message(skipped, id_col))


def _message(skipped, id_column, most=50):
    "A message with one line for each unusable row, and how to go on without them."
    lines = []
    for fault in skipped.head(most).itertuples():
        name = f' ({id_column} {fault.id!r})' if id_column is not None else ''
        lines.append(f'  row {fault.row}{name}, {fault.column}: {fault.reason}')
    if len(skipped) > most: lines.append(f'  and {len(skipped) - most} more')
    rows = skipped.row.nunique()
    advice = "(on_error='skip' leaves them out and returns the list)"
    return f"{rows} unusable row{'s' if rows > 1 else ''} {advice}:\n" + '\n'.join(lines)
