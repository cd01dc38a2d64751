"Labelled items as fastai batches: several pictures, several text columns, one label."
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from ..core import InputError, preview
from .block import MAX_LEN, ListingDataLoaders, _in_order, check_options
from .columns import Columns
from .read import check_columns, check_listings, raise_unusable
from .split import components, valid_split


def _names(value):
    "The file names in a cell: a list, or a string of them separated by blanks."
    if isinstance(value, str): return value.split()
    return [str(o) for o in value] if isinstance(value, (list, tuple, np.ndarray)) else []


def widen(
    df: pd.DataFrame,  # A row an item; not changed
    fn_col: str | None,  # Column of image files
    text_col,  # Column of text, or a list of them
    frames: int = 1,  # Pictures an item
) -> tuple[pd.DataFrame, list, str | None]:  # (a copy, the columns of its pictures, the column of its text)
    "Give each picture a column of its own and put several texts into one; an item with fewer pictures shows them again."
    df, files, text = df.copy(), [] if fn_col is None else [fn_col], text_col
    if frames > 1 and fn_col is not None:
        names, files = df[fn_col].map(_names), [f'{fn_col} {i + 1}' for i in range(frames)]
        for i, o in enumerate(files): df[o] = [v[i % len(v)] if v else None for v in names]
    if not (text_col is None or isinstance(text_col, str)):
        text = ' + '.join(map(str, text_col))
        # a description may be missing as long as something is said
        df[text] = df[list(text_col)].fillna('').astype(str).agg(lambda o: '. '.join(p for p in map(str.strip, o) if p), axis=1)
    return df, files, text


def _check_pictures(df, files, path, id_col, phash):
    "The rows with a picture that can't be used, as `skipped` has them, and a hash of each row's pictures together."
    long = pd.DataFrame({'file': df[files].to_numpy().ravel(), 'row': np.repeat(np.arange(len(df)), len(files))})
    seen = check_listings(long, path, image_col='file', id_col=None, on_error='skip', phash=phash, min_rows=0)
    at = long.row.to_numpy()[seen.skipped.row.to_numpy(int)]
    bad = seen.skipped.assign(id=df[id_col].to_numpy()[at], row=at, column=files[0].removesuffix(' 1') if len(files) > 1 else files[0]).drop_duplicates('row')
    if not phash: return bad, None
    own = pd.Series(seen.phash, dtype=object).groupby(seen.df.row.to_numpy()).agg(lambda o: None if o.isna().any() else ''.join(sorted(o)))
    return bad, own.reindex(range(len(df))).to_numpy(object)


def _split(df, fold_col, valid_fold, n_folds, seed, label_col, id_col, **links):
    "Which rows validate; without folds given they are dealt so that each has its share of every class, and never split equal pictures."
    if fold_col is not None: return valid_split(df, valid_fold, fold_col=fold_col, id_col=id_col, **links)
    if not 0 <= valid_fold < n_folds: raise InputError(f'valid_fold={valid_fold}: 0 to {n_folds - 1}')
    few = df[label_col].value_counts()
    if (few := few[few < n_folds]).size: raise InputError(f'n_folds={n_folds}: too few items of {preview(f"{k!r} ({v})" for k, v in few.items())}; lower n_folds')
    comp = components(df, **links)
    if comp.max() + 1 < n_folds: raise InputError(f'{comp.max() + 1} different pictures can not fill {n_folds} folds')
    cut = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(comp, df[label_col].astype(str), comp)
    is_valid = np.zeros(len(df), bool)
    is_valid[[o for _, o in cut][valid_fold]] = True
    return is_valid, pd.DataFrame(columns=['id', 'row', 'fold', 'to'])


class ClassifyDataLoaders(ListingDataLoaders):
    "`DataLoaders` of labelled items: one or several pictures, a text of one or several columns, one label."
    _kept = (*ListingDataLoaders._kept, 'frames', 'text_columns')

    @classmethod
    def from_df(
        cls,
        df,  # DataFrame, a row an item
        path='.',  # Folder of the images
        columns: Columns | None = None,  # Its columns; default as for `MatchDataLoaders`, but `group`, the class, is 'label'. `image`: with `frames` a cell
        # holds several files, as a list or blank-separated; `title`: a list of columns is put together
        frames: int = 1,  # Pictures an item; of one with more the first are taken, one with fewer shows its own again
        valid_fold: int | None = 0,  # Fold held out for validation; None trains on everything
        n_folds: int = 5,  # Folds to make where none are given
        seed: int = 0,  # Of the folds and of the sampler
        sampler: str | None = None,  # As for `MatchDataLoaders.from_df`
        k: int = 2,  # As for `MatchDataLoaders.from_df`
        item_tfms=None,  # Default `Resize(224)`
        batch_tfms=None,  # e.g. `augs('colour')`
        bs: int = 32,  # Items a batch
        val_bs: int | None = None,  # Items a validation batch; default 2 * `bs`
        max_len: int = MAX_LEN,  # Tokens a text is cut at
        phash: bool = True,  # Keep items whose pictures are all equal by perceptual hash on one side of the split
        on_error: str = 'raise',  # 'raise', or 'skip' rows that can't be used (then listed in `skipped`)
        num_workers: int | None = None,  # Processes that read images; None: fastai's choice
        device=None,  # Default: fastai's choice
        **kwargs,  # Single columns by keyword (`image_col`, `title_col`, ...), and more for `DataBlock.dataloaders`
    ):
        "Check the table, split it, and make dataloaders of pictures, text or both."
        columns = Columns.resolve(columns, Columns.take_from(kwargs), Columns(group='label'))
        check_options(columns, sampler, bs, seed)
        fn_col, text_col, label_col, id_col, fold_col = columns.image, columns.title, columns.group, columns.id, columns.fold
        if on_error not in ('raise', 'skip'): raise InputError(f"on_error={on_error!r}: choose 'raise' or 'skip'")
        if frames < 1: raise InputError(f'frames={frames}: give 1 or more')
        path, texts = Path(path), [] if text_col is None else [text_col] if isinstance(text_col, str) else list(text_col)
        if text_col is not None and not texts: raise InputError('title_col=[]: name a column, or None for images only')
        check_columns(df, {**replace(columns, title=None).by_keyword(), **{f'title_col[{i}]': o for i, o in enumerate(texts)}})
        wide, files, text = widen(df, fn_col, text_col, frames)
        seen = check_listings(wide, path, replace(columns, image=None, title=text), on_error='skip')
        skipped, hashes = seen.skipped, None
        if files:
            bad, hashes = _check_pictures(wide, files, path, id_col, phash and valid_fold is not None)
            skipped = pd.concat([o for o in (skipped, bad) if len(o)] or [skipped]).sort_values('row', ignore_index=True)
        if len(skipped) and on_error == 'raise': raise_unusable(skipped, id_col)
        ok = ~np.isin(np.arange(len(wide)), skipped.row.to_numpy(int))
        # whole numbers for folds are `seen`'s work
        keep = seen.df[seen.df[id_col].isin(wide[id_col][ok])].reset_index(drop=True)
        if hashes is not None: hashes = hashes[ok]
        if len(keep) < 2: raise InputError(f'{len(keep)} of {len(df)} items left: two at least are needed')
        if valid_fold is None: is_valid, moved = np.zeros(len(keep), bool), pd.DataFrame(columns=['id', 'row', 'fold', 'to'])
        else:
            # one file, or the same files in the same order
            links = dict(fn_col=fn_col) if files and keep[fn_col].map(lambda o: isinstance(o, str)).all() else {}
            is_valid, moved = _split(keep, fold_col, valid_fold, n_folds, seed, label_col, id_col, phash=hashes, **links)
        lost = set(keep[label_col][is_valid]) - set(keep[label_col][~is_valid])
        if lost: warnings.warn(f'{len(lost)} label(s) stand on held-out items only, no model can learn them: {preview(lost)}', stacklevel=2)
        vocab = _in_order(keep[label_col])
        if len(vocab) < 2: raise InputError(f'{label_col} has one value, {vocab[0]!r}: there is nothing to tell apart')
        res = cls.from_rows(keep, is_valid, path, replace(columns, title=text), files, vocab, sampler, k, seed, item_tfms, batch_tfms, bs, val_bs, max_len, num_workers, device, kwargs)
        res.skipped, res.moved, res.frames, res.text_columns = skipped, moved, frames, texts
        return res

    def widen(
        self,
        df,  # Items with the columns these were made with; the label may be missing
    ) -> pd.DataFrame:
        "A copy of `df` with the columns that the blocks read; `InputError` lists rows that can't be used."
        columns, texts = self.columns, self.text_columns
        check_columns(df, {'image_col': columns.image, 'id_col': columns.id, **{f'title_col[{i}]': o for i, o in enumerate(texts)}})
        wide, files, text = widen(df, columns.image, texts[0] if len(texts) == 1 else texts or None, self.frames)
        wide = check_listings(wide, self.image_folder, id_col=columns.id, title_col=text, min_rows=1).df
        if files and len(bad := _check_pictures(wide, files, self.image_folder, columns.id, False)[0]): raise_unusable(bad, columns.id)
        return wide
