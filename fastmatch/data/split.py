"Split listings so that validation really is on products, and pictures, that training has not seen."
import hashlib
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ..core import InputError, preview
from .read import _not_whole


def components(
    df: pd.DataFrame,  # One row a listing (n rows)
    label_col: str | None = None,  # Column of groups; rows of a group are linked
    fn_col: str | None = None,  # Column of image file names; rows with the same picture are linked
    path=None,  # Folder of the files: pictures are then compared by their bytes, otherwise by their names
    phash=None,  # Perceptual hashes: hex strings (n,) as from `check_listings`, or the name of a column; equal ones are linked
    max_shared: int = 50,  # A picture or hash on more groups than this (more rows, without `label_col`) is a placeholder and links nothing
) -> np.ndarray:  # int64 (n,), numbered from 0 in order of appearance; missing values link nothing
    "Number the connected components of listings that share a group, a picture or a perceptual hash."
    label = _codes(df[label_col]) if label_col is not None else np.arange(len(df))
    keys = [label]
    if fn_col is not None:
        pics = df[fn_col] if path is None else _content(df[fn_col], Path(path))
        keys.append(_drop_placeholders(_codes(pics), label, max_shared, df[fn_col].to_numpy(), 'picture'))
    if phash is not None:
        hashes = df[phash] if isinstance(phash, str) else pd.Series(np.asarray(phash, dtype=object))
        if len(hashes) != len(df): raise InputError(f'phash has {len(hashes)} values for {len(df)} rows')
        codes = np.where(_is_plain(hashes), -1, _codes(hashes))
        keys.append(_drop_placeholders(codes, label, max_shared, hashes.to_numpy(), 'perceptual hash'))
    return _link(keys, len(df))


def _codes(s): return pd.factorize(s)[0].astype(np.int64)


def _link(keys, n):
    "Connected components of `n` rows, linked where one of `keys` (codes, -1 links nothing) is equal."
    rows, cols, total = [], [], n
    for o in keys:  # each value is a node of its own next to the rows: n edges a key, however large the groups are
        rows.append(np.flatnonzero(o >= 0))
        cols.append(o[o >= 0] + total)
        total += int(o.max(initial=-1)) + 1
    rows, cols = np.concatenate(rows), np.concatenate(cols)
    _, res = connected_components(coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, cols)), shape=(total, total)), directed=False)
    return _codes(res[:n])


def _drop_placeholders(codes, label, max_shared, values, what):
    "Set the codes that more than `max_shared` groups share to -1: a 'no photo' picture says nothing about the product."
    ok = codes >= 0
    # one product's own photo on 60 of its rows is no placeholder: count groups, an unlabelled row being its own
    own = np.where(label >= 0, label, label.max(initial=-1) + 1 + np.arange(len(label)))
    pairs = np.unique(np.stack([codes[ok], own[ok]]), axis=1)
    n_groups = np.bincount(pairs[0], minlength=int(codes.max(initial=-1)) + 1)
    shared = np.flatnonzero(n_groups > max_shared)
    if len(shared) == 0: return codes
    first = [f'{values[np.argmax(codes == o)]} ({n_groups[o]} groups)' for o in shared]
    warnings.warn(f'{len(shared)} {what}(s) on more than {max_shared} groups taken for placeholders, they link nothing: {preview(first)}',
                  stacklevel=3)
    return np.where(np.isin(codes, shared), -1, codes)


def usable_hashes(
    hashes,  # (n,) perceptual hashes, missing where a listing has none
) -> np.ndarray:  # object (n,)
    "The hashes that say which picture it is; None for a missing one and for that of a picture of one colour or plain stripes."
    hashes = pd.Series(np.asarray(hashes, dtype=object))
    return np.where(_is_plain(hashes) | hashes.isna(), None, hashes)


def _is_plain(hashes):
    "True for the hash of a picture of one colour or of plain stripes: it has fewer than 8 bits set, where a real picture sets half of 64."
    try: return np.array([isinstance(o, str) and int(o, 16).bit_count() < 8 for o in hashes], dtype=bool)
    except ValueError as e: raise InputError(f'phash holds something that is not a hex string: {e}') from e


def _content(names, path):
    "A digest of the bytes of each row's file."
    todo = list(dict.fromkeys(names[names.notna()]))
    removed = [o for o in todo if not (path/str(o)).is_file()]
    if removed: raise InputError(f'{len(removed)} of {len(todo)} files are not in {path}: {preview(removed)}')
    with ThreadPoolExecutor(8) as pool:
        done = dict(zip(todo, pool.map(lambda o: hashlib.blake2b((path/str(o)).read_bytes(), digest_size=16).hexdigest(), todo)))
    return names.map(done)


def group_folds(
    df: pd.DataFrame,  # One row a listing (n rows)
    label_col: str | None,  # Column of groups
    n_folds: int = 5,  # Number of folds, 2 or more
    seed: int = 0,  # The same seed gives the same folds
    **kwargs,  # `fn_col`, `path`, `phash`, `max_shared`: see `components`
) -> np.ndarray:  # int64 (n,), 0..n_folds-1; raises `InputError` if there are fewer components than folds
    "Deal listings into folds of about equal size that never split a component."
    if n_folds < 2: raise InputError(f'n_folds={n_folds}: give 2 or more')
    comp = components(df, label_col, **kwargs)
    return _deal(comp, n_folds, seed)[comp]


def _deal(comp, n_folds, seed):
    "The fold of each component: the largest first, into the fold that is smallest so far."
    sizes = np.bincount(comp)
    if len(sizes) < n_folds:
        raise InputError(f'{len(sizes)} separate groups of listings can not fill {n_folds} folds: lower n_folds, or check the label column')
    rng = np.random.default_rng(seed)
    fold, rows = np.zeros(len(sizes), dtype=np.int64), np.zeros(n_folds)
    order = rng.permutation(len(sizes))
    for c in order[np.argsort(-sizes[order], kind='stable')]:
        fold[c] = rng.choice(np.flatnonzero(rows == rows.min()))  # ties at random, or fold 0 would get the largest each time
        rows[fold[c]] += sizes[c]
    return fold


def valid_split(
    df: pd.DataFrame,  # One row a listing (n rows)
    valid_fold: int,  # Which fold validates
    fold_col: str | None = None,  # Column of whole numbers; None deals `n_folds` folds
    label_col: str | None = None,  # Column of groups
    n_folds: int = 5,  # Used without `fold_col`
    seed: int = 0,  # Used without `fold_col`
    id_col: str | None = 'posting_id',  # Column of ids for the report; used if it is there
    **kwargs,  # `fn_col`, `path`, `phash`, `max_shared`: see `components`
) -> tuple[np.ndarray, pd.DataFrame]:  # (bool (n,) True where a row validates, the rows moved: `id`, `row`, `fold`, `to`)
    "Say which rows validate; where folds cut through a component, the fold of most of its rows wins and the rest move, with a warning."
    comp = components(df, label_col, **kwargs)
    if fold_col is None: fold = new = _deal(comp, n_folds, seed)[comp]
    else:
        fold = _folds(df, fold_col)
        counts = pd.crosstab(comp, fold)  # columns sorted, and argmax takes the first: ties go to the smaller fold
        new = counts.columns.to_numpy()[counts.to_numpy().argmax(1)][comp]
    if valid_fold not in fold: raise InputError(f'valid_fold={valid_fold!r} is not among the folds: {preview(np.unique(fold).tolist(), 20)}')
    rows = np.flatnonzero(fold != new)
    ids = df[id_col].to_numpy() if id_col in df.columns else np.arange(len(df))
    moved = pd.DataFrame({'id': ids[rows], 'row': rows, 'fold': fold[rows], 'to': new[rows]})
    if len(moved):
        warnings.warn(f'{len(moved)} row(s) share a group or a picture with another fold and move there: {preview(moved.id)}', stacklevel=2)
    is_valid = new == valid_fold
    if is_valid.all() or not is_valid.any():
        raise InputError(f"valid_fold={valid_fold!r} holds {is_valid.sum()} of {len(df)} rows, linked rows taken together: "
                         "both training and validation need some")
    return is_valid, moved


def _folds(df, fold_col):
    "The column as int64, or an error that names the rows that aren't whole numbers."
    if fold_col not in df.columns: raise InputError(f"df lacks fold_col={fold_col!r}; its columns are: {', '.join(map(str, df.columns))}")
    if bad := _not_whole(df, fold_col): raise InputError(f'{fold_col}, {len(bad)} row(s): ' + preview(f'row {i}: {why}' for i, _, why in bad))
    return pd.to_numeric(df[fold_col]).to_numpy(dtype=np.int64)
