"Listings as fastai batches: the picture block, and `DataLoaders` over a checked and split table."
import os
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.data.block import CategoryBlock, DataBlock, TransformBlock
from fastai.data.core import DataLoaders, FilteredBase, TfmdDL
from fastai.data.load import DataLoader
from fastai.data.transforms import IndexSplitter
from fastai.torch_core import TensorBase
from fastai.vision.augment import Resize
from fastai.vision.core import PILImage
from fastai.vision.data import ImageBlock
from fastcore.foundation import L
from fasttransform import Pipeline, Transform

from ..core import PICTURE_SIZE, InputError, unknown_option
from ..match.cells import tidy
from .columns import FASTAI_NAMES, Columns, keywords_of_roles
from .draw import DrawnPicture, EpochDraw, FirstPicture
from .frames import Frames, frame_readers, frames_of, take_frame_options
from .image import image_path, read_image
from .pictures import picture_names
from .read import check_columns, check_listings, join_titles, text_columns_of
from .sampler import OverSampler, PKSampler, RowSampler, SampledDL, WeightedSampler
from .serialise import with_serialised_title
from .show import draw_listing, grid
from .soft import ProbabilitiesBlock, ReadProbabilities
from .split import valid_split
from .stored import StoredImageBlock, check_room, resize_alone, store_of
from .title import MAX_LEN, Title, TitleBlock, TitleParts, Tokenize, titles_of


class ListingImage(PILImage):
    "A listing's picture: RGB, upright, transparency on white."
    @classmethod
    def create(cls, fn, **kwargs):
        if isinstance(fn, (str, Path)): fn = read_image(fn)
        return super().create(fn, **kwargs)


class Field(Transform):
    "What a row of the table has in a column: its value, or the path of the file that it names."
    # fastai's ColReader takes a name that is a number for a position, and puts the folder before
    # absolute paths too
    def __init__(
        self,
        column,  # Name of the column
        folder: Path | None = None,  # Folder that its file names start from; None: it holds no file names
    ):
        self.column = column
        self.folder = folder

    def encodes(self, row):
        cell = row[self.column]
        return cell if self.folder is None else image_path(self.folder, cell)


class PartsOfRow(Transform):
    "The texts of a row in several columns, '' where one is missing."
    def __init__(
        self,
        columns: list,  # Their names
    ):
        self.columns = columns

    def encodes(self, row):
        cells = [row[column] for column in self.columns]
        return TitleParts('' if cell is None or cell != cell else str(cell).strip() for cell in cells)


class NoTarget(Transform):
    "The target of items that are trained on without labels: always 0."
    def encodes(self, row): return TensorBase(0)


class MatchDL(SampledDL):
    """A `TfmdDL` that can draw its batches with a sampler, and shows listings as picture and title.

    Tokens are counted for the first epoch, by the tokenizer that the loader has then: that of a learner.
    """
    # of loaders that an earlier version exported
    draw = titles = _counted = None
    buckets = by_length = False

    def __init__(
        self,
        dataset,  # As for `TfmdDL`
        draw: EpochDraw | None = None,  # Draws pictures of listings that have several, in training
        titles: partial | None = None,  # Table -> its n titles, `titles_of`; None: lengths don't count
        buckets: bool = False,  # Train on batches of titles of like length
        **kwargs,  # For `SampledDL`
    ):
        self.draw = draw
        self.titles = titles
        self.buckets = buckets
        self.by_length = False  # Whether short titles come first where nothing is shuffled
        self._counted = None  # tokens of each title
        super().__init__(dataset, **kwargs)

    def item_lengths(self):
        "int (n,): the tokens of each title; None where batches don't go by them."
        return self._token_counts() if self.buckets else super().item_lengths()

    def _token_counts(self):
        "int (n,): the tokens of each title; None where there are no titles, or no table of them."
        items = getattr(self.dataset, 'items', None)
        if self.titles is None or not isinstance(items, pd.DataFrame): return None
        if self._counted is None:
            tokenize = next(step for step in self.before_batch.fs if isinstance(step, Tokenize))
            self._counted = tokenize.count(self.titles(items))
        return self._counted

    def get_idxs(self):
        "The rows of an epoch; of listings with several pictures others are drawn in each."
        if self.draw is not None: self.draw.start_epoch(self.rng if self.shuffle else None)
        rows = super().get_idxs()
        counts = self._token_counts() if self.by_length and not self.shuffle else None
        return rows if counts is None else np.argsort(counts, kind='stable').tolist()

    def new(self, dataset=None, cls=None, **kwargs):
        "A loader like this one; for another dataset without sampler and draw."
        kwargs = {'titles': self.titles, 'buckets': self.buckets, **kwargs}
        if dataset is None and cls is None: kwargs = {'draw': self.draw, **kwargs}
        return super().new(dataset, cls, **kwargs)

    def show_results(self, *args, **kwargs):
        "Not for listings: the Learner shows them."
        raise InputError('call learn.show_matches() or learn.show_mistakes() of a match_learner, '
                         'learn.show_worst() or learn.show_confusions() of a classify_learner')

    def show_batch(
        self,
        b=None,  # A batch; None draws one
        max_n: int = 12,  # Most listings to show
        cols: int = 6,  # Listings in a row
        **kwargs,
    ):
        "Show listings of a batch: picture, title and group."
        if b is None: b = self.one_batch()
        listings = list(self.decode_batch(b, max_n=max_n))
        axes = grid(-(-len(listings) // cols), min(cols, len(listings)))
        for ax, listing in zip(axes.flat, listings):
            ax.axis('on')
            listing_parts = listing if isinstance(listing, tuple) else (listing,)
            pictures = [part for part in listing_parts if isinstance(part, torch.Tensor) and part.ndim == 3]
            title = next((part for part in listing_parts if isinstance(part, Title)), '')
            group = str(listing_parts[-1]) if len(listing_parts) > self.n_inp else ''
            draw_listing(ax, _side_by_side(pictures), title, group)


@contextmanager
def short_titles_first(
    loader,  # Not shuffled; where it knows no titles, or is no `MatchDL`, nothing changes
    is_on: bool = True,  # False: in the order of the table
):
    "Context in which a loader reads rows by the length of their titles, which saves padding."
    if not isinstance(loader, MatchDL):
        yield
        return
    earlier, loader.by_length = loader.by_length, is_on
    try: yield
    finally: loader.by_length = earlier


def _side_by_side(pictures):
    "Pictures (3,h,w) as one array (h,w,3) with values 0..1, or None where there are none."
    if not pictures: return None
    joined = torch.cat([picture.as_subclass(torch.Tensor) for picture in pictures], 2).detach().cpu().float()
    # decoded batches hold 0..1 or, without IntToFloat, bytes
    max_value = 255 if joined.max() > 1.5 else 1
    return joined.clamp(0, max_value).permute(1, 2, 0).numpy() / max_value


def _in_order(groups):
    "The different groups, sorted; a column may hold both numbers and text."
    return sorted(groups.unique(), key=lambda group: (isinstance(group, str), group))


SAMPLERS = {
    'pk': lambda groups, bs, k, seed: PKSampler(groups, p=max(1, bs // max(1, k)), k=k, seed=seed),
    'weighted': lambda groups, bs, k, seed: WeightedSampler(groups, seed),
    'oversample': lambda groups, bs, k, seed: OverSampler(groups, seed, min_count=k)}


# options of fastai's loaders that would displace what is done here -> what to use
INSTEAD = {'after_item': 'item_tfms', 'after_batch': 'batch_tfms', 'before_batch': 'item_tfms or batch_tfms',
           'create_batch': 'item_tfms or batch_tfms'}


@dataclass
class BatchOptions:
    "How rows become batches: what the `from_df` of both kinds of dataloaders take and hand on."
    sampler: str | None  # None: fastai's shuffle; 'pk', 'weighted' or 'oversample'
    k: int  # Listings of a group in a batch ('pk'), or rows that a group gets at least ('oversample')
    seed: int  # Of the sampler
    item_tfms: Any  # fastai's; None: `Resize(PICTURE_SIZE)`
    batch_tfms: Any  # fastai's
    bs: int  # Listings in a batch
    val_bs: int | None  # Listings in a validation batch; None: twice as many
    max_len: int | dict  # Most tokens of a title, or of the text in each of its columns: {'title': 32}
    num_workers: int | None  # Processes that read images; None: fastai's choice
    device: Any  # None: fastai's choice
    others: dict = field(default_factory=dict)  # More for `DataBlock.dataloaders`
    title_tfms: Any = None  # Transforms of titles in training, see data/augment.py
    # True: train on batches of titles of like length, which halves the time of a text encoder; False: not,
    # and validate in the order of the table; None: as the kind of dataloaders does, see `in_buckets`
    buckets: bool | None = None
    # A `PictureStore` or its folder, so that pictures are decoded once; True: a folder of the user's
    store: Any = None
    row_weights: Any = None  # (training rows,): how often each is drawn, see `RowSampler`; None: all alike

    @property
    def all_title_tfms(self) -> list:
        "The transforms of titles as a list."
        given = self.title_tfms or []
        return list(given) if isinstance(given, (list, tuple)) else [given]

    def __post_init__(self):
        for option, setting in self.others.items():
            if option in INSTEAD:
                raise InputError(f'{option}: these loaders set it themselves; give {INSTEAD[option]}')
            known = known_options()
            if option not in known: raise unknown_option(option, setting, known, 'from_df')
        if self.sampler is not None and self.sampler not in SAMPLERS:
            raise InputError(f'sampler={self.sampler!r}: choose None or one of {list(SAMPLERS)}')
        for option, size in (('bs', self.bs), ('val_bs', self.val_bs)):
            if size is not None and size < 1: raise InputError(f'{option}={size}: give 1 or more')
        if isinstance(self.max_len, dict) and self.all_title_tfms:
            raise InputError('title_tfms change one text, and max_len by column leaves the texts apart')
        if not 0 <= self.seed < 2**32:
            raise InputError(f'seed={self.seed}: give an integer from 0 to 2**32-1')

    def limits(
        self,
        text_columns: list,  # Of the table
    ) -> int | tuple:  # For `TitleBlock`
        "Most tokens of a title, or of each of its texts; `InputError` where `max_len` names other columns."
        if not isinstance(self.max_len, dict):
            if isinstance(self.max_len, int) and self.max_len >= 1: return self.max_len
            raise InputError(f'max_len={self.max_len!r}: give 1 or more, or a dict by column of text')
        if set(self.max_len) != set(text_columns):
            raise InputError(f'max_len={self.max_len}: give a number for each of the columns {text_columns}')
        for column, limit in self.max_len.items():
            if not isinstance(limit, int) or limit < 1:
                raise InputError(f'max_len: {limit!r} tokens of {column!r}; give 1 or more')
        return tuple(self.max_len[column] for column in text_columns)

    def for_loaders(self) -> dict:
        "Keyword arguments for `Datasets.dataloaders`."
        worker_option = {} if self.num_workers is None else {'num_workers': self.num_workers}
        batch_sizes = {'bs': self.bs, 'val_bs': self.val_bs or 2 * self.bs}
        return {**batch_sizes, 'device': self.device, **self.others, **worker_option}


def take_batch_options(
    keywords: dict,  # Of a call; what is taken is removed from them
) -> dict:
    "Options of `BatchOptions` among them that `from_df` has no arguments of its own for."
    return {name: keywords.pop(name) for name in ('buckets', 'store') if name in keywords}


def known_options() -> list[str]:
    "Every option of `from_df`: columns by keyword, how rows become batches, and those of fastai's loaders."
    fastais = [name for function in (DataLoader.__init__, TfmdDL.__init__, FilteredBase.dataloaders)
               for name in signature(function).parameters]
    ours = [each.name for each in fields(BatchOptions)]
    of_split = ['path', 'columns', 'serialise', 'valid_fold', 'n_folds', 'phash', 'on_error', 'frames',
                'draw_frames', 'frame_features']
    # what the table itself says, or the loaders make
    taken = {'self', 'dataset', 'kwargs', 'others', 'row_weights', 'get_idxs', 'path', 'dl_kwargs', 'dl_type',
             *INSTEAD}
    return [*of_split, *keywords_of_roles(), *FASTAI_NAMES,
            *(name for name in (*ours, *fastais) if name not in taken)]


def check_inputs(
    columns: Columns,  # Of the table
):
    "Raise `InputError` where a listing would have neither picture nor title."
    # compared with None, since a column may be named 0
    if columns.image is None and columns.title is None:
        raise InputError('image_col and title_col are both None: a listing needs a picture or a title')


class ListingDataLoaders(DataLoaders):
    """`DataLoaders` of listings, which keep the table that they were made from.

    A training batch holds one picture of each listing, drawn at random where it has several, in each epoch
    anew; a validation batch holds the first.

    `df` (usable rows), `is_valid` (bool, its held-out rows), `skipped` (what was left out and why), `moved`
    (rows that changed their fold), `columns` (of `df`), `text_columns` (a list; `df` has their texts put
    together as its title), `serialised` (None, or the dict of fields that they are put together by),
    `image_folder`, `image_columns` (one for each picture), `unlabelled` (usable rows without a group: neither
    trained nor validated on, kept for the catalogue).
    """
    _kept = ('df', 'is_valid', 'columns', 'text_columns', 'serialised', 'image_folder', 'image_columns',
             'skipped', 'moved', 'unlabelled', 'frame_reading')
    text_columns = ()  # of loaders in a Learner that an earlier version exported
    serialised = None  # title's fields by name, where they are put together with their names
    unlabelled = None  # of such loaders too
    options = None  # `BatchOptions`; those of an exported Learner have none
    frame_reading = None  # `Frames`, where an item has several pictures in a batch or their features are read
    _several_pictures = False  # whether a cell of the image column may name several files
    # Whether batches of training are of titles of like length unless `buckets` says it. In matching they cost
    # quality where titles of a group differ in length: Amazon-Google .006 row F1, see tests/bench/buckets.py
    in_buckets = False

    def noted(
        self,
        **known,  # Some of the attributes above
    ):  # These loaders
        "Note what is known of the listings, and return the loaders."
        for name, value in known.items(): setattr(self, name, value)
        return self

    @property
    def table_columns(self) -> Columns:
        "The columns that a new table has: a list or a dict of titles where they are put together."
        if self.serialised is not None: return replace(self.columns, title=self.serialised)
        return replace(self.columns, title=self.text_columns) if len(self.text_columns) > 1 else self.columns

    @property
    def all_df(self) -> pd.DataFrame:
        "All usable listings, those without a group behind the others: what a matcher may hold."
        if self.unlabelled is None or not len(self.unlabelled): return self.df
        return pd.concat([self.df, self.unlabelled], ignore_index=True)

    @property
    def train_df(self) -> pd.DataFrame:
        "The listings trained on."
        return self.df[~self.is_valid].reset_index(drop=True)

    @property
    def valid_df(self) -> pd.DataFrame:
        "The held-out listings."
        return self.df[self.is_valid].reset_index(drop=True)

    def new_empty(self):
        "A copy without listings, which is what an exported Learner holds."
        empty = super().new_empty()
        for attribute in self._kept: setattr(empty, attribute, getattr(self, attribute))
        # the columns' names are needed, the listings stay private
        empty.df = self.df.iloc[:0]
        empty.is_valid = self.is_valid[:0]
        empty.unlabelled = None if self.unlabelled is None else self.unlabelled.iloc[:0]
        return empty

    def show_batch(self, b=None, max_n=12, **kwargs):
        "Show listings of a training batch: picture, title and group."
        self.train.show_batch(b, max_n=max_n, **kwargs)

    @classmethod
    def from_rows(
        cls,
        df: pd.DataFrame,  # Usable rows (n)
        is_valid: np.ndarray,  # bool (n,), True for held-out rows
        columns: Columns,  # Of the table, its title a single column
        image_folder: Path,  # Folder of the images
        image_columns: list,  # Columns of image files, one for each picture of a listing
        vocab: list | None,  # Groups in the order of their numbers; None: no row has a target
        options: BatchOptions,  # How rows become batches
        label_columns: list = (),  # Columns of probabilities, one a class; empty: the group is the target
        text_columns: list = (),  # Those that the title was put together from
        frames: Frames | None = None,  # Which pictures of an item are read; None: the one of `image_columns`
    ):
        """Make loaders over a table that is checked and split: pictures first (and how many an item has,
        where there are frames), then the title, then the group."""
        has_pictures = bool(image_columns) and (frames is None or frames.features is None)
        picture_tfms = Resize(PICTURE_SIZE) if options.item_tfms is None else options.item_tfms
        item_tfms = [*L(picture_tfms if has_pictures else None), *options.all_title_tfms]
        draw = None if frames is None else frames.draw
        if frames is None and cls._several_pictures and image_columns:
            draw = DrawnPicture(image_columns[0], image_folder)
        store = store_of(options.store) if has_pictures else None
        image_block = _image_block(store, picture_tfms, len(df) * len(image_columns))
        if frames is not None: image_blocks, image_readers = frame_readers(frames, image_block)
        else:
            image_blocks = [image_block() for _ in image_columns]
            image_readers = [_reader(column, image_folder, draw) for column in image_columns]
        title_blocks, title_readers, titles = _title_inputs(columns.title, list(text_columns), options)
        buckets = cls.in_buckets if options.buckets is None else options.buckets
        target_block, target_reader = _target(vocab, label_columns, columns.group)
        block = DataBlock(
            blocks=[*image_blocks, *title_blocks, target_block],
            n_inp=len(image_blocks) + len(title_blocks), dl_type=MatchDL,
            get_x=[*image_readers, *title_readers],
            get_y=target_reader,
            splitter=IndexSplitter(np.flatnonzero(is_valid)),
            item_tfms=item_tfms or None,
            batch_tfms=options.batch_tfms if has_pictures else None)
        # processes forked after a fast tokenizer has run threads get a warning for each batch otherwise
        os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
        datasets = block.datasets(df)
        sampler = _sampler(df, is_valid, columns, options)
        loaders = datasets.dataloaders(path='.', after_item=block.item_tfms, after_batch=block.batch_tfms,
                                       **{**block.dls_kwargs, **options.for_loaders()},
                                       dl_kwargs=[{'sampler': sampler, 'draw': draw, 'titles': titles,
                                                   'buckets': buckets}, {}])
        dls = cls(*loaders.loaders, path='.', device=loaders.device)
        dls.df = df
        dls.is_valid = is_valid
        dls.columns = columns
        dls.image_folder = image_folder
        dls.image_columns = image_columns
        dls.frame_reading = frames
        dls.text_columns = list(text_columns)
        dls.options = options
        return dls

    def without_targets(
        self,
        without_valid: bool = False,  # Train without the validation items, and validate on them
    ) -> 'ListingDataLoaders':
        "Loaders over all items, labelled or not, read in the same way, whose targets are all 0."
        items = self.all_df
        is_valid = np.zeros(len(items), bool)
        if without_valid: is_valid[:len(self.df)] = self.is_valid
        reading = self.frame_reading
        if reading is not None and reading.draw is not None: reading = replace(reading, draw=EpochDraw())
        loaders = ListingDataLoaders.from_rows(
            items, is_valid, replace(self.columns, group=None), self.image_folder, self.image_columns, None,
            replace(self.options, sampler=None, row_weights=None), text_columns=self.text_columns,
            frames=reading)
        return loaders.noted(serialised=self.serialised, skipped=self.skipped, moved=self.moved,
                             unlabelled=items.iloc[:0])


def _image_block(store, picture_tfms, n_pictures):
    "What makes the block of a picture; it reads from a store where there is one."
    if store is None: return partial(ImageBlock, ListingImage)
    resize = resize_alone(picture_tfms)
    check_room(store, resize, n_pictures)
    return partial(StoredImageBlock, store, resize, ListingImage)
def _sampler(df, is_valid, columns, options):
    "What draws the training rows; None for fastai's shuffle."
    if options.row_weights is not None:
        if options.sampler:
            raise InputError(f'sampler={options.sampler!r} draws rows by their groups, and these have '
                             'weights of their own: make dls with sampler=None')
        return RowSampler(options.row_weights, options.seed)
    if not options.sampler: return None
    groups = df[columns.group][~is_valid].to_numpy()
    return SAMPLERS[options.sampler](groups, options.bs, options.k, options.seed)


def _target(vocab, label_columns, group_column):
    "The block of the target, and what reads it."
    if vocab is None: return TransformBlock(), NoTarget()
    if label_columns: return ProbabilitiesBlock(vocab), ReadProbabilities(label_columns)
    return CategoryBlock(vocab=vocab, sort=False), Field(group_column)


def _title_inputs(title_column, text_columns, options):
    """The block of the title and what reads it, each in a list, and what reads the titles of a table; empty
    and None where there is no title."""
    if title_column is None: return [], [], None
    limits = options.limits(text_columns)
    in_parts = isinstance(limits, tuple)
    reader = PartsOfRow(text_columns) if in_parts else Field(title_column)
    titles = partial(titles_of, column=title_column, parts=text_columns if in_parts else None)
    if options.buckets is False: titles = None
    return [TitleBlock(max_len=limits)], [reader], titles


def _reader(column, image_folder, draw):
    "What reads the file name of a row: of several the one that is drawn in training, the first elsewhere."
    if draw is None: return Field(column, image_folder)
    return Pipeline([draw, FirstPicture(column, image_folder)])


def in_folder(
    df: pd.DataFrame,  # One row a listing; not changed
    image_columns: list,  # Columns of image files
    folder,  # That the file names start from
) -> pd.DataFrame:
    "A copy with whole paths for file names, to be read by dataloaders of another folder."
    folder = Path(folder).resolve()

    def whole_path(cell):
        paths = [str(image_path(folder, name)) for name in picture_names(cell, folder)]
        if not paths: return None
        return paths[0] if len(paths) == 1 else tuple(paths)
    # a map would make NaN of what is missing
    return df.assign(**{column: pd.Series([whole_path(cell) for cell in df[column]], df.index, dtype=object)
                        for column in image_columns})


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


class MatchDataLoaders(ListingDataLoaders):
    "`ListingDataLoaders` for matching: listings are told apart by group, validation is on unseen groups."
    _kept = (*ListingDataLoaders._kept, 'n_groups', 'left_out')
    left_out = None  # of loaders in a Learner that an earlier version exported
    _several_pictures = True

    @classmethod
    def from_df(
        cls,
        df,  # DataFrame, a row a listing
        path='.',  # Folder of the images
        # None: `Columns()`, Shopee's names; image or title may be None, title may be a list of columns
        columns: Columns | None = None,
        # Fold held out, True where `fold_col` holds True for rows to hold out; None trains on everything
        valid_fold: int | None = 0,
        n_folds: int = 5,  # Folds to deal where `columns` names none
        seed: int = 0,  # Of the folds and of the sampler
        sampler: str | None = None,  # None: fastai's shuffle; 'pk', 'weighted', 'oversample': data/sampler.py
        k: int = 2,  # Listings of a group in a batch ('pk'), or least rows of it in an epoch ('oversample')
        item_tfms=None,  # None: `Resize(224)`
        batch_tfms=None,  # e.g. `augs('colour')`
        bs: int = 64,  # Listings in a batch
        val_bs: int | None = None,  # Listings in a validation batch; None: 2 * `bs`
        max_len: int = MAX_LEN,  # Most tokens of a title; the rest is left out
        phash: bool = True,  # Keep listings with equal perceptual hash on one side of the split
        # 'raise', or 'skip' rows that can't be used (see `skipped`), and pictures of listings with others
        on_error: str = 'raise',
        num_workers: int | None = None,  # Processes that read images; None: fastai's choice
        device=None,  # None: fastai's choice
        # Transforms of titles in training, e.g. `[DropFields(.2), DropSpan(.5)]`, see data/augment.py
        title_tfms=None,
        # Read title and `columns.fields` as one text with their names, in the order of the table
        serialise: bool = False,
        # Most pictures of a listing in a batch, all of which a fusion reads together; 1: one is drawn
        frames: int = 1,
        **kwargs,  # For `BatchOptions` (buckets, store), `frames_of`, columns by keyword, for `dataloaders`
    ):
        """Check the table, split it by group, and make dataloaders of pictures, titles or both.

        Rows without a group are no fault: they are kept as `unlabelled`.
        """
        columns = Columns.resolve(columns, Columns.take_from(kwargs))
        if serialise: columns = with_serialised_title(columns, list(getattr(df, 'columns', [])))
        check_inputs(columns)
        path = Path(path)
        reading = frames_of(columns, path, partial(picture_names, folder=path), frames,
                            **take_frame_options(kwargs))
        options = BatchOptions(sampler, k, seed, item_tfms, batch_tfms, bs, val_bs, max_len, num_workers,
                               device, kwargs, title_tfms, **take_batch_options(kwargs))
        # every image is decoded by the check anyway: then its hash costs little
        needs_hash = phash and valid_fold is not None and columns.image is not None and columns.phash is None
        text_columns = text_columns_of(columns)
        serialised = columns.title if isinstance(columns.title, dict) else None
        df, columns = join_titles(df, columns)
        checked = check_listings(df, path, columns, on_error=on_error, phash=needs_hash, unlabelled=True)
        df, unlabelled, has_group = part_unlabelled(checked.df, columns.group)
        hashes = None if checked.phash is None else checked.phash[has_group]
        check_columns(df, {'phash_col': columns.phash})
        links = columns if phash else replace(columns, phash=None)
        is_valid, moved = _split(df, valid_fold, n_folds=n_folds, seed=seed, columns=links, path=path,
                                 phash=hashes)
        train_groups, other_groups = _groups_of(df[columns.group], is_valid)
        df, unlabelled, image_columns = _with_frames(df, unlabelled, columns, reading)
        # training groups first, so that those of training rows are 0 to c-1 for a head with c classes
        dls = cls.from_rows(df, is_valid, columns, path, image_columns, [*train_groups, *other_groups],
                            options, text_columns=text_columns, frames=reading)
        return dls.noted(skipped=checked.skipped, left_out=checked.left_out, moved=moved,
                         n_groups=len(train_groups), unlabelled=unlabelled, serialised=serialised)


def _with_frames(df, unlabelled, columns, reading):
    "Both tables and the columns of pictures in them: one, or one for each frame."
    if reading is None: return df, unlabelled, [] if columns.image is None else [columns.image]
    df, unlabelled = reading.widen(df), reading.widen(unlabelled)
    reading.warm(df, unlabelled, drawn=True)
    return df, unlabelled, reading.columns


def _split(df, valid_fold, **options):
    "Which rows validate, none where `valid_fold` is None, and those that changed their fold."
    return train_on_all(len(df)) if valid_fold is None else valid_split(df, valid_fold, **options)


def _groups_of(groups, is_valid):
    "The groups trained on, and the others, each sorted."
    train_groups = _in_order(groups[~is_valid])
    if len(train_groups) < 2:
        raise InputError(f'{len(train_groups)} group to train on: a loss over groups needs two at least')
    trained_on = set(train_groups)
    return train_groups, [group for group in _in_order(groups) if group not in trained_on]
