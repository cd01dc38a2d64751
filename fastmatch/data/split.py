"Split listings so that validation really is on products, and on pictures, that training has not seen."
import hashlib
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from numbers import Real
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ..core import InputError, preview
from ..match.cells import codes_of, key_sets, several, tidy, tidy_hashes
from .columns import Columns
from .image import image_path
from .pictures import picture_names
from .read import check_columns, holds_booleans, not_whole, tidy_folds

NO_COLUMNS = Columns(None, None, None, None)


def components(
    df: pd.DataFrame,  # One row a listing (n rows)
    label_col: str | None = None,  # Column of groups (also `group_col`); rows of a group are linked
    # Column of image files (also `image_col`); rows with an equal picture, one of several, are linked
    fn_col: str | None = None,
    path=None,  # Folder of the files: pictures are then compared by their bytes, otherwise by their names
    phash=None,  # Perceptual hashes, hex strings (n,), or the name of their column; equal ones are linked
    max_shared: int = 50,  # A picture or hash on more groups than this is a placeholder and links nothing
    columns: Columns | None = None,  # Columns of groups, images and hashes; None: those named by keyword
    keys: dict | None = None,  # What else links: name -> values (n,), equal ones do, e.g. {'title': titles}
    **column_names,  # `group_col`, `image_col` and `phash_col`, which win over `columns`
) -> np.ndarray:  # int64 (n,), numbered from 0 in order of appearance
    """Number the connected components of listings that share a group, a picture or a perceptual hash.

    Missing values link nothing. All listings of a component have to be on one side of a split. Without a
    column of groups, each row counts as a group of its own.
    """
    column_names = {**_given(label_col=label_col, fn_col=fn_col), **column_names}
    columns = Columns.resolve(columns, column_names, NO_COLUMNS)
    check_columns(df, {'group_col': columns.group, 'image_col': columns.image, 'phash_col': columns.phash})
    if phash is None and columns.phash is not None: phash = df[columns.phash].to_numpy(object)
    groups = np.arange(len(df)) if columns.group is None else _codes(df[columns.group])
    links = [(np.arange(len(df)), groups)]
    if columns.image is not None:
        rows, names = _flat([picture_names(cell, path) for cell in df[columns.image]])
        picture_codes = _codes(names if path is None else file_digests(names, Path(path)))
        codes = _drop_placeholders(picture_codes, groups[rows], max_shared, names.to_numpy(), 'picture')
        links.append((rows, codes))
    if phash is not None:
        of_rows = tidy_hashes(df[phash] if isinstance(phash, str) else phash)
        if len(of_rows) != len(df): raise InputError(f'phash has {len(of_rows)} values for {len(df)} rows')
        rows, hashes = _flat([cell if several(cell) else (cell,) for cell in of_rows])
        codes = np.where(_is_plain(hashes), -1, _codes(hashes))
        codes = _drop_placeholders(codes, groups[rows], max_shared, hashes.to_numpy(), 'perceptual hash')
        links.append((rows, codes))
    for name, values in (keys or {}).items():
        values = np.asarray(values, dtype=object)
        if values.shape != (len(df),): raise InputError(f'keys[{name!r}]: {len(values)} for {len(df)} rows')
        codes = _drop_placeholders(_codes(values), groups, max_shared, values, name)
        links.append((np.arange(len(df)), codes))
    return _link(links, len(df))


def _flat(cells):
    "Lists of entries, one a row, as (the row of each entry, the entries); an empty list is a missing entry."
    filled = [list(entries) or [None] for entries in cells]
    rows = np.repeat(np.arange(len(filled)), [len(entries) for entries in filled])
    return rows, pd.Series([entry for entries in filled for entry in entries], dtype=object)


def _given(**column_names):
    "The columns that are named: {keyword: name}, without None."
    return {keyword: column_name for keyword, column_name in column_names.items() if column_name is not None}


def _codes(values):
    "Values as int64 (n,) from 0 in order of appearance, -1 where missing."
    return codes_of(values)


def _link(keys, n_rows):
    "Connected components of the rows, linked where one of `keys`, each (rows, codes), is equal and not -1."
    row_numbers = []
    nodes = []
    n_nodes = n_rows
    # each value of a key is a node beside the rows: n edges for a key, however many rows share a value
    for rows, key in keys:
        row_numbers.append(rows[key >= 0])
        nodes.append(key[key >= 0] + n_nodes)
        n_nodes += int(key.max(initial=-1)) + 1
    row_numbers = np.concatenate(row_numbers)
    ones = np.ones(len(row_numbers), dtype=np.int8)
    edges = coo_matrix((ones, (row_numbers, np.concatenate(nodes))), shape=(n_nodes, n_nodes))
    _, component = connected_components(edges, directed=False)
    return _codes(component[:n_rows])


def _drop_placeholders(codes, groups, max_shared, values, kind):
    "Set codes on more than `max_shared` groups to -1: a 'no photo' picture doesn't identify a product."
    is_present = codes >= 0
    # groups are counted, not rows: a product's own picture on sixty of its rows is no placeholder.
    # A row without a group counts as a group of its own
    n_groups = groups.max(initial=-1) + 1
    groups = np.where(groups >= 0, groups, n_groups + np.arange(len(groups)))
    code_group_pairs = np.unique(np.stack([codes[is_present], groups[is_present]]), axis=1)
    groups_of_code = np.bincount(code_group_pairs[0], minlength=int(codes.max(initial=-1)) + 1)
    placeholders = np.flatnonzero(groups_of_code > max_shared)
    if len(placeholders) == 0: return codes
    shown = [f'{values[np.argmax(codes == code)]} ({groups_of_code[code]} groups)' for code in placeholders]
    warnings.warn(f'{len(placeholders)} {kind}(s) on more than {max_shared} groups taken for placeholders, '
                  f'they link nothing: {preview(shown)}', stacklevel=3)
    return np.where(np.isin(codes, placeholders), -1, codes)


def usable_hashes(
    hashes,  # (n,) perceptual hashes, missing where a listing has none; a list where it has several
) -> np.ndarray:  # object (n,), None where none is there or usable, tuples where a listing has several
    "The hashes that tell pictures apart, without those of pictures of one color or of plain stripes."
    tidied = tidy_hashes(hashes)
    if any(several(cell) for cell in tidied):
        return key_sets([list(usable_hashes(cell)) if several(cell) else usable_hashes([cell])[0]
                         for cell in tidied])
    hashes = pd.Series(tidied, dtype=object)
    return np.where(_is_plain(hashes) | hashes.isna(), None, hashes)


def _is_plain(hashes):
    "bool (n,), True for hashes of one color or of stripes: fewer than 8 bits set, real pictures set 32."
    try: is_plain = [isinstance(digits, str) and int(digits, 16).bit_count() < 8 for digits in hashes]
    except ValueError as error:
        raise InputError(f'phash holds something that is not a hex string: {error}') from error
    return np.array(is_plain, dtype=bool)


def file_digests(
    file_names: pd.Series,  # (n,) relative to `path`, missing where there is no file
    path: Path,  # Folder of the files
) -> pd.Series:  # (n,) hex digits, missing where the name is
    "A digest of the bytes of each row's file; `InputError` where one isn't there."
    different = list(dict.fromkeys(file_names[file_names.notna()]))
    missing = [name for name in different if not image_path(path, name).is_file()]
    if missing:
        raise InputError(f'{len(missing)} of {len(different)} files are not in {path}: {preview(missing)}')

    def digest(name): return hashlib.blake2b(image_path(path, name).read_bytes(), digest_size=16).hexdigest()

    with ThreadPoolExecutor(8) as pool: digests = pool.map(digest, different)
    return file_names.map(dict(zip(different, digests)))


def group_folds(
    df: pd.DataFrame,  # One row a listing
    label_col: str | None = None,  # Column of groups (also `group_col`)
    n_folds: int = 5,  # Number of folds, 2 or more
    seed: int = 0,  # The same seed gives the same folds
    **kwargs,  # `columns`, or `fn_col` or `image_col`; `path`, `phash`, `max_shared`, as for `components`
) -> np.ndarray:  # int64 (n,), 0 to n_folds-1; raises `InputError` if there are fewer components than folds
    "Deal listings into folds of about equal size, so that no group, picture or hash is in two of them."
    if n_folds < 2: raise InputError(f'n_folds={n_folds}: give 2 or more')
    component = components(df, label_col, **kwargs)
    return _deal(component, n_folds, seed)[component]


def _deal(component, n_folds, seed):
    "The fold of each component, int64: the largest component first, into the smallest fold so far."
    # scikit-learn's GroupKFold doesn't balance when it shuffles, its StratifiedGroupKFold balances worse
    component_sizes = np.bincount(component)
    if len(component_sizes) < n_folds:
        raise InputError(f'{len(component_sizes)} separate groups of listings can not fill {n_folds} folds: '
                         'lower n_folds, or check the group column')
    rng = np.random.default_rng(seed)
    fold_of_component = np.zeros(len(component_sizes), dtype=np.int64)
    listings_in_fold = np.zeros(n_folds)
    shuffled_order = rng.permutation(len(component_sizes))
    for number in shuffled_order[np.argsort(-component_sizes[shuffled_order], kind='stable')]:
        # ties at random, or fold 0 would get the largest component each time
        fold_of_component[number] = rng.choice(np.flatnonzero(listings_in_fold == listings_in_fold.min()))
        listings_in_fold[fold_of_component[number]] += component_sizes[number]
    return fold_of_component


def valid_split(
    df: pd.DataFrame,  # One row a listing (n rows)
    valid_fold: int,  # Which fold validates; True where `fold_col` holds True for rows that validate
    fold_col: str | None = None,  # Column of folds, whole numbers; None: `n_folds` folds are dealt
    label_col: str | None = None,  # Column of groups (also `group_col`)
    n_folds: int = 5,  # Folds to deal without `fold_col`
    seed: int = 0,  # Of the dealing
    columns: Columns | None = None,  # Columns of folds, groups, images, hashes, ids; None: those by keyword
    # `fn_col` or `image_col`; `id_col` for the report, default 'posting_id', used if the table has it;
    # `path`, `phash`, `max_shared`, as for `components`
    **kwargs,
) -> tuple[np.ndarray, pd.DataFrame]:  # bool (n,), and the rows that moved: `id`, `row`, `fold`, `to`
    """Say which rows validate: True for those of fold `valid_fold`.

    Where the folds given would split a component, all of it goes to the fold that most of its rows are in,
    with a warning. Raises `InputError` if training or validation would be empty.
    """
    column_names = {**_given(fold_col=fold_col, label_col=label_col), **Columns.take_from(kwargs)}
    columns = Columns.resolve(columns, column_names, replace(NO_COLUMNS, id='posting_id'))
    check_valid_fold(valid_fold, columns.fold)
    component = components(df, columns=columns, **kwargs)
    if columns.fold is None:
        given_folds = final_folds = _deal(component, n_folds, seed)[component]
    else:
        given_folds = _folds(df, columns.fold, valid_fold)
        rows_per_fold = pd.crosstab(component, given_folds)
        # the columns are sorted and argmax takes the first: ties go to the smaller fold
        final_folds = rows_per_fold.columns.to_numpy()[rows_per_fold.to_numpy().argmax(1)][component]
    if valid_fold not in given_folds:
        known_folds = preview(np.unique(given_folds).tolist(), 20)
        raise InputError(f'valid_fold={valid_fold!r} is not among the folds: {known_folds}')
    moved = _moved(df, given_folds, final_folds, columns.id)
    if len(moved):
        warnings.warn(f'{len(moved)} row(s) share a group or a picture with another fold and move there: '
                      f'{preview(moved.id)}', stacklevel=2)
    is_valid = final_folds == valid_fold
    if is_valid.all() or not is_valid.any():
        raise InputError(f"valid_fold={valid_fold!r} holds {is_valid.sum()} of {len(df)} rows, linked rows "
                         "taken together: both training and validation need some")
    return is_valid, moved


def check_valid_fold(
    valid_fold,  # Which fold validates
    fold_column: str | None,  # Column of folds; None where they are dealt, from 0
):
    "Raise `InputError` for what is not the number of one fold."
    is_bool = isinstance(valid_fold, (bool, np.bool_))
    if is_bool and fold_column is None:
        raise InputError(f'valid_fold={valid_fold!r}: without a column of folds they are dealt, and have '
                         'numbers from 0')
    if not is_bool and not isinstance(valid_fold, Real):
        raise InputError(f'valid_fold={valid_fold!r}: give the number of one fold')


def _moved(df, given, final, id_column):
    "The rows whose fold is another than was given."
    row_numbers = np.flatnonzero(given != final)
    listing_ids = df[id_column].to_numpy() if id_column in df.columns else np.arange(len(df))
    return pd.DataFrame({'id': listing_ids[row_numbers], 'row': row_numbers,
                         'fold': given[row_numbers], 'to': final[row_numbers]})


def _folds(df, fold_column, valid_fold):
    """The column as int64 (n,), or an error that names the rows that aren't whole numbers.

    A column of booleans, such as fastai's `is_valid`, needs a boolean `valid_fold`: 0, the default, would
    hold out the rows that are meant to be trained on.
    """
    if fold_column not in df.columns:
        known_columns = ', '.join(map(str, df.columns))
        raise InputError(f"df lacks fold_col={fold_column!r}; its columns are: {known_columns}")
    faults = not_whole(df, fold_column)
    if faults:
        lines = preview(f'row {fault.row}: {fault.reason}' for fault in faults)
        raise InputError(f'{fold_column}, {len(faults)} row(s): {lines}')
    is_bool = holds_booleans(df[fold_column])
    if is_bool and not isinstance(valid_fold, (bool, np.bool_)):
        raise InputError(f'fold_col={fold_column!r} holds True and False: valid_fold=True holds out the rows '
                         f'that are True, valid_fold=False the others (valid_fold={valid_fold!r} is neither)')
    if isinstance(valid_fold, (bool, np.bool_)) and not is_bool:
        raise InputError(f'valid_fold={valid_fold!r}: {fold_column!r} holds numbers, give one of them')
    return tidy_folds(df[fold_column]).to_numpy(dtype=np.int64)


def part_unlabelled(
    df: pd.DataFrame,  # Usable rows; the group of some may be missing
    group_column,  # Of the groups
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:  # With a group, without one, bool (n,) which have one
    "Take the rows without a group out of a table, and say how many there are."
    has_group = df[group_column].notna().to_numpy()
    if has_group.all(): return df, df.iloc[:0], has_group
    unlabelled = df[~has_group].reset_index(drop=True)
    labelled = df[has_group].reset_index(drop=True)
    if len(labelled): labelled[group_column] = tidy(labelled[group_column], str(group_column))
    warnings.warn(f'{len(unlabelled)} listings without a group ({group_column}) take no part in training and '
                  'validation, and are kept aside', stacklevel=3)
    return labelled, unlabelled, has_group


def train_on_all(
    n: int,  # Rows
) -> tuple[np.ndarray, pd.DataFrame]:  # As `valid_split`
    "The split without held-out rows."
    return np.zeros(n, bool), pd.DataFrame(columns=['id', 'row', 'fold', 'to'])


def in_order(
    groups: pd.Series,
) -> list:
    "The different groups, sorted; a column may hold both numbers and text."
    return sorted(groups.unique(), key=lambda group: (isinstance(group, str), group))
