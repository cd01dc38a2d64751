"Labelled items as fastai batches: several pictures, several columns of text, one class or probabilities."
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from ..core import InputError, preview
from ..match.cells import is_among, texts_of
from .batch_options import BatchOptions, take_batch_options
from .columns import Columns, check_inputs
from .draw import EpochDraw
from .frames import Frames, frames_of, take_frame_options
from .image import file_name
from .loaders import ListingDataLoaders
from .pictures import in_folder
from .read import (
    Fault,
    check_columns,
    check_listings,
    is_blank,
    join_titles,
    raise_unusable,
    text_columns_of,
    with_names,
)
from .soft import LIKELIEST, classes_in_training, label_columns_of, read_probabilities
from .split import check_valid_fold, components, in_order, part_unlabelled, train_on_all, valid_split
from .title import MAX_LEN


def _file_names(cell):
    "The file names in a cell: a list, or text with blanks between them, or a single number."
    if isinstance(cell, (list, tuple, np.ndarray)):
        return [name for name in map(file_name, cell) if name is not None]
    return (file_name(cell) or '').split()


def widen(
    df: pd.DataFrame,  # A row an item; not changed
    columns: Columns,  # Of the table, its title may be a list of columns
    frames: Frames | None = None,  # Which pictures of an item are read; None: the one that a cell names
) -> tuple[pd.DataFrame, list, Columns]:  # (a copy, the columns of its pictures, columns with a single title)
    "Give each picture a column, put several texts into one; an item with too few pictures repeats its own."
    df, columns = join_titles(df.copy(), columns)
    if columns.image is None: return df, [], columns
    if frames is None: return df, [columns.image], columns
    return frames.widen(df), frames.columns, columns


def _check_pictures(df, image_columns, path, id_column, phash, reading=None, may_lack=False):
    """The rows with a picture that can't be used, as `skipped` has them; one hash for all pictures of a
    row."""
    files_by_row = df[image_columns].to_numpy().tolist()
    # any picture of an item may be drawn
    if reading is not None and reading.draw is not None:
        files_by_row = [reading.names_of(cell) or [None] for cell in df[reading.column]]
    files = pd.DataFrame({'file': [file for files_of_row in files_by_row for file in files_of_row],
                          'row': np.repeat(np.arange(len(df)), list(map(len, files_by_row)))})
    if may_lack: files = files[files.file.notna()].reset_index(drop=True)
    if may_lack and not len(files): return pd.DataFrame(columns=['id', 'row', 'column', 'reason']), None
    checked = check_listings(files, path, image_col='file', id_col=None, on_error='skip', phash=phash,
                             min_rows=0, several=False)
    row_numbers = files.row.to_numpy()[checked.skipped.row.to_numpy(int)]
    # the column as the user knows it: 'photos', not 'photos 1'
    shown_column = image_columns[0].removesuffix(' 1') if len(image_columns) > 1 else image_columns[0]
    ids = df[id_column].to_numpy()[row_numbers]
    skipped = checked.skipped.assign(id=ids, row=row_numbers, column=shown_column)
    skipped = skipped.drop_duplicates('row')
    if not phash: return skipped, None
    hashes_by_row = pd.Series(checked.phash, dtype=object).groupby(checked.df.row.to_numpy())
    hashes = hashes_by_row.agg(lambda of_item: None if of_item.isna().any() else ''.join(sorted(of_item)))
    return skipped, hashes.reindex(range(len(df))).to_numpy(object)


def _stratified_split(df, columns, valid_fold, n_folds, seed, **links):
    "Deal folds that each get their share of every class, equal pictures in one; say which rows validate."
    check_valid_fold(valid_fold, columns.fold)
    if not 0 <= valid_fold < n_folds: raise InputError(f'valid_fold={valid_fold}: 0 to {n_folds - 1}')
    class_sizes = df[columns.group].value_counts()
    small_classes = class_sizes[class_sizes < n_folds]
    if small_classes.size:
        classes_and_sizes = preview(f'{class_name!r} ({size})' for class_name, size in small_classes.items())
        raise InputError(f'n_folds={n_folds}: too few items of {classes_and_sizes}; lower n_folds')
    component = components(df, **links)
    if component.max() + 1 < n_folds:
        raise InputError(f'{component.max() + 1} different pictures can not fill {n_folds} folds')
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    splits = splitter.split(component, df[columns.group].astype(str), component)
    held_out = [row_numbers for _, row_numbers in splits]
    is_valid, moved = train_on_all(len(df))
    is_valid[held_out[valid_fold]] = True
    return is_valid, moved


class ClassifyDataLoaders(ListingDataLoaders):
    """`DataLoaders` of labelled items: one or several pictures, a text of one or several columns, and one
    class or, where `label_columns` names a column for each class, their probabilities.

    With probabilities `columns.group` is a column of the likeliest class, which split and samplers go by.
    """
    _kept = (*ListingDataLoaders._kept, 'frames', 'label_columns', 'lacking')
    in_buckets = True
    label_columns = ()  # of loaders in a Learner that an earlier version exported
    lacking = None  # with frames, how many usable items have no picture and no text: {'image': 3, 'title': 0}

    @property
    def is_soft(self) -> bool:
        "Whether the targets are a probability for each class, and not one class."
        return bool(self.label_columns)

    @property
    def table_columns(self) -> Columns:
        columns = super().table_columns
        return replace(columns, group=list(self.label_columns)) if self.is_soft else columns

    @classmethod
    def from_df(
        cls,
        df,  # DataFrame, a row an item
        path='.',  # Folder of the images
        # None: `Columns(group='label')`, `group` is the class, or a list of columns with the probability of a
        # class each: `label_col=['cat', 'dog']`. `title` may be a list of columns; with `frames`, a cell of
        # `image` lists files, as a list or with blanks between
        columns: Columns | None = None,
        # Most pictures of an item in a batch, taken evenly from those it has. With 2 or more an item may lack
        # pictures or text, and a batch says how many pictures each has
        frames: int = 1,
        # Fold held out, True where `fold_col` holds True for rows to hold out; None trains on everything
        valid_fold: int | None = 0,
        n_folds: int = 5,  # Folds to deal where `columns` names none
        seed: int = 0,  # Of the folds and of the sampler
        sampler: str | None = None,  # None: fastai's shuffle; 'pk', 'weighted', 'oversample': data/sampler.py
        k: int = 2,  # Items of a class in a batch ('pk'), or least rows of it in an epoch ('oversample')
        item_tfms=None,  # None: `Resize(224)`
        batch_tfms=None,  # e.g. `augs('colour')`
        bs: int = 32,  # Items in a batch
        val_bs: int | None = None,  # Items in a validation batch; None: 2 * `bs`
        # Most tokens of a text; or of each of its columns, {'title': 32, 'asr': 64}, joined by separators
        max_len: int | dict = MAX_LEN,
        phash: bool = True,  # Keep items with equal pictures, by perceptual hash, on one side of the split
        on_error: str = 'raise',  # 'raise', or 'skip' rows that can't be used (then listed in `skipped`)
        num_workers: int | None = None,  # Processes that read images; None: fastai's choice
        device=None,  # None: fastai's choice
        # Transforms of texts in training, e.g. `[DropFields(.2), DropSpan(.5)]`, see data/augment.py
        title_tfms=None,
        # buckets and store for `BatchOptions`; draw_frames and frame_features for `frames_of`; columns by
        # keyword (`image_col`, `title_col`, ...); more for `DataBlock.dataloaders`
        **kwargs,
    ):
        """Check the table, split it, and make dataloaders of pictures, text or both.

        Items without a class are no fault: they are kept as `unlabelled`.
        """
        columns = Columns.resolve(columns, Columns.take_from(kwargs), Columns(group='label'))
        check_inputs(columns)
        path = Path(path)
        reading = frames_of(columns, path, _file_names, frames, **take_frame_options(kwargs))
        options = BatchOptions(sampler, k, seed, item_tfms, batch_tfms, bs, val_bs, max_len, num_workers,
                               device, kwargs, title_tfms, **take_batch_options(kwargs))
        text_columns = text_columns_of(columns)
        serialised = columns.title if isinstance(columns.title, dict) else None
        label_columns = label_columns_of(columns)
        df, columns, label_faults = _read_labels(df, columns, [*text_columns, *label_columns], label_columns)
        widened, image_columns, columns = widen(df, columns, reading)
        needs_hashes = phash and valid_fold is not None
        usable, skipped, hashes = _check_items(widened, path, columns, image_columns, on_error, needs_hashes,
                                               label_faults, reading)
        usable, unlabelled, has_class = part_unlabelled(usable, columns.group)
        if hashes is not None: hashes = hashes[has_class]
        is_valid, moved = _split(usable, columns, valid_fold, n_folds, seed, hashes)
        vocab = _classes(usable, columns.group, is_valid, label_columns)
        if reading is not None: reading.warm(usable, unlabelled, drawn=True)
        dls = cls.from_rows(usable, is_valid, columns, path, image_columns, vocab, options, label_columns,
                            text_columns, reading)
        return dls.noted(skipped=skipped, moved=moved, frames=frames, unlabelled=unlabelled,
                         serialised=serialised, label_columns=label_columns,
                         lacking=_lacking(usable, columns, reading))

    def widen(
        self,
        df,  # Items with the columns that these loaders were made with; the class may be missing
        path=None,  # Folder of the images of `df`; default that of these loaders
    ) -> pd.DataFrame:
        "A copy of `df` with the columns that the blocks read; `InputError` lists rows that can't be used."
        columns = replace(self.table_columns, group=None, fold=None, phash=None)
        df = with_names(df, columns.by_keyword().values())
        check_columns(df, replace(columns, title=None).by_keyword())
        reading = self.frame_reading
        widened, image_columns, columns = widen(df, columns, reading)
        may_lack = _may_lack(columns, reading)
        widened = check_listings(widened, columns=replace(columns, image=None), min_rows=1,
                                 may_lack=may_lack).df
        if may_lack: widened[columns.title] = _filled(widened[columns.title])
        if not image_columns: return widened
        folder = self.image_folder if path is None else Path(path)
        skipped, _ = _check_pictures(widened, image_columns, folder, self.columns.id, False,
                                     may_lack=may_lack)
        if len(skipped): raise_unusable(skipped, self.columns.id)
        if path is not None: widened = in_folder(widened, image_columns, folder)
        if reading is not None: reading.warm(widened)
        return widened

    def with_training_items(
        self,
        items: pd.DataFrame,  # More items to train on, from `widen` or of `unlabelled`, with their class
        # float (items, classes): soft labels of them, in the order of `vocab`; the others then become soft
        # labels too, 1 for their class. None: their class
        probabilities: np.ndarray | None = None,
        weights=None,  # (training items,): how often each is drawn, those of `items` last; None: all alike
        labelled: bool = True,  # Keep the training items that there are; False: train on `items` alone
    ) -> 'ClassifyDataLoaders':
        """Loaders of the same classes and validation items, with more items to train on.

        Nothing is checked or split again; who may be trained on is the caller's to say (`semi/leaks.py`).
        """
        if self.options is None:
            raise InputError('dls of an exported Learner hold no items: make them with from_df')
        is_kept = self.is_valid | labelled
        own = self.df[is_kept]
        df = pd.concat([own, items], ignore_index=True)
        is_valid = np.concatenate([self.is_valid[is_kept], np.zeros(len(items), bool)])
        vocab, label_columns = list(self.vocab), list(self.label_columns)
        if probabilities is not None or self.is_soft:
            of_own = own[label_columns].to_numpy() if label_columns else self._one_hot(own)
            of_items = self._one_hot(items) if probabilities is None else probabilities
            label_columns = label_columns or [f'{class_name} (probability)' for class_name in vocab]
            together = np.concatenate([of_own, of_items]).astype(np.float64)
            df = df.drop(columns=label_columns, errors='ignore')
            df = pd.concat([df, pd.DataFrame(together, df.index, label_columns)], axis=1)
        reading = self.frame_reading
        if reading is not None and reading.draw is not None: reading = replace(reading, draw=EpochDraw())
        loaders = type(self).from_rows(
            df, is_valid, self.columns, self.image_folder, self.image_columns, vocab,
            replace(self.options, row_weights=weights), label_columns, self.text_columns, reading)
        unlabelled = self.unlabelled
        if unlabelled is not None:
            unlabelled = unlabelled[~is_among(unlabelled[self.columns.id], texts_of(items[self.columns.id]))]
        return loaders.noted(skipped=self.skipped, moved=self.moved, frames=self.frames,
                             unlabelled=unlabelled, serialised=self.serialised, label_columns=label_columns,
                             lacking=_lacking(df, self.columns, reading))

    def _one_hot(self, items):
        "float64 (n,c): 1 for the class of each item."
        codes = pd.Categorical(items[self.columns.group], list(self.vocab)).codes
        return np.eye(len(self.vocab))[codes]


def _read_labels(df, columns, more_names, label_columns):
    """The table, its columns with one for the class of an item, and what is wrong with its probabilities
    (None where it holds classes)."""
    df = with_names(df, [*columns.by_keyword().values(), *more_names])
    one_class = replace(columns, title=None, group=None if label_columns else columns.group)
    check_columns(df, one_class.by_keyword())
    if not label_columns:
        _check_one_class(df, columns)
        return df, columns, None
    df, faults = read_probabilities(df, label_columns)
    return df, replace(columns, group=LIKELIEST), faults


def _check_one_class(df, columns):
    "Raise `InputError` for rows with a list of classes, or of probabilities, in place of one class."
    has_several = df[columns.group].map(pd.api.types.is_list_like).to_numpy(bool)
    if not has_several.any(): return
    rows = np.flatnonzero(has_several)
    raise InputError(f'label_col={columns.group!r}: {len(rows)} rows hold a list, not one class '
                     f'(rows {preview(rows.tolist())}): make a row of each class, give a column of '
                     "probabilities for each class (label_col=['cat', 'dog']), or for several classes at "
                     "once take fastai's DataBlock with a MultiCategoryBlock")


def _may_lack(columns, reading):
    "Whether an item may lack its pictures or its text: a model with masks has another input to go by."
    return reading is not None and columns.title is not None


def _lacking(df, columns, reading):
    "How many items have no picture, and how many no text; None where none may lack them."
    if not _may_lack(columns, reading): return None
    without = {'image': df[reading.count_column] == 0, 'title': df[columns.title] == ''}
    return {modality: int(lacks.sum()) for modality, lacks in without.items()}


def _filled(texts):
    "The texts, '' for those that are missing."
    return texts.where(~is_blank(texts), '')


def _empty_items(df, columns, reading):
    "The rows with neither picture nor text."
    is_empty = (df[reading.count_column] == 0).to_numpy() & is_blank(df[columns.title])
    rows = np.flatnonzero(is_empty).tolist()
    return [Fault(row, columns.title, 'neither picture nor text') for row in rows]


def _check_items(df, path, columns, image_columns, on_error, phash, label_faults, reading):
    "The usable items, what was left out, and a hash of each usable item's pictures or None."
    if on_error not in ('raise', 'skip'): raise InputError(f"on_error={on_error!r}: choose 'raise' or 'skip'")
    # the likeliest class was made here, the probabilities are checked already
    given = columns if label_faults is None else replace(columns, group=None)
    may_lack = _may_lack(columns, reading)
    checked = check_listings(df, path, replace(given, image=None), on_error='skip', unlabelled=True,
                             may_lack=may_lack)
    faults = list(label_faults or [])
    if may_lack: faults += _empty_items(df, columns, reading)
    tables = [checked.skipped, _as_table(faults, df[columns.id])]
    hashes = None
    if image_columns:
        unusable_pictures, hashes = _check_pictures(df, image_columns, path, columns.id, phash, reading,
                                                    may_lack)
        tables.append(unusable_pictures)
    filled = [table for table in tables if len(table)] or [checked.skipped]
    skipped = pd.concat(filled).sort_values('row', kind='stable', ignore_index=True)
    if len(skipped) and on_error == 'raise': raise_unusable(skipped, columns.id)
    is_usable = ~np.isin(np.arange(len(df)), skipped.row.to_numpy(int))
    # taken from the checked table, where folds are whole numbers
    is_kept = is_usable[~np.isin(np.arange(len(df)), checked.skipped.row.to_numpy(int))]
    usable = checked.df[is_kept].reset_index(drop=True)
    if may_lack: usable[columns.title] = _filled(usable[columns.title])
    return usable, skipped, None if hashes is None else hashes[is_usable]


def _as_table(faults: list[Fault], ids):
    "Faults as the table of `skipped`."
    return pd.DataFrame({'id': [ids.iloc[fault.row] for fault in faults],
                         'row': np.array([fault.row for fault in faults], dtype=np.int64),
                         'column': [fault.column for fault in faults],
                         'reason': [fault.reason for fault in faults]})


def _split(df, columns, valid_fold, n_folds, seed, hashes):
    "Which items validate, and those that changed their fold: by the folds given, or by folds dealt here."
    if len(df) < 2: raise InputError(f'{len(df)} items with a class are left: two at least are needed')
    if valid_fold is None: return train_on_all(len(df))
    links = {'phash': hashes}
    # an item with one file is linked by it; with several, by the text that lists them
    if columns.image is not None and df[columns.image].map(lambda cell: isinstance(cell, str)).all():
        links['image_col'] = columns.image
    if columns.fold is None: return _stratified_split(df, columns, valid_fold, n_folds, seed, **links)
    return valid_split(df, valid_fold, fold_col=columns.fold, id_col=columns.id, **links)


def _classes(df, group_column, is_valid, label_columns):
    """The classes, sorted, or as their columns of probabilities are given; those that only held-out items
    have are warned of, and a single one raises."""
    classes = df[group_column]
    if label_columns:
        can_be_learned = classes_in_training(df[label_columns].to_numpy(np.float64), is_valid)
        held_out_only = [label for label, is_there in zip(label_columns, can_be_learned) if not is_there]
    else: held_out_only = set(classes[is_valid]) - set(classes[~is_valid])
    if held_out_only:
        warnings.warn(f'{len(held_out_only)} label(s) stand on held-out items only, no model can learn them: '
                      f'{preview(held_out_only)}', stacklevel=3)
    if label_columns: return label_columns
    vocab = in_order(classes)
    if len(vocab) < 2:
        raise InputError(f'{classes.name} has one value, {vocab[0]!r}: there is nothing to tell apart')
    return vocab
