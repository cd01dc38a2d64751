"`DataLoaders` of listings over a table that is checked and split."
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from fastai.data.block import CategoryBlock, DataBlock, TransformBlock
from fastai.data.core import DataLoaders
from fastai.data.transforms import IndexSplitter
from fastai.vision.augment import Resize
from fastai.vision.data import ImageBlock
from fastcore.foundation import L

from ..core import PICTURE_SIZE
from .batch_options import BatchOptions, sampler_of
from .columns import Columns
from .draw import DrawnPicture, EpochDraw
from .features import FeaturesBlock
from .frames import Frames, frame_readers
from .loader import MatchDL
from .picture_store import store_of
from .row import Field, ListingImage, NoTarget, PartsOfRow, picture_reader
from .soft import ProbabilitiesBlock, ReadProbabilities
from .stored import StoredImageBlock, check_room, resize_alone
from .title import TitleBlock, titles_of


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
             'skipped', 'moved', 'unlabelled', 'frame_reading', 'picture_features')
    text_columns = ()  # of loaders in a Learner that an earlier version exported
    serialised = None  # title's fields by name, where they are put together with their names
    unlabelled = None  # of such loaders too
    options = None  # `BatchOptions`; those of an exported Learner have none
    frame_reading = None  # `Frames`, where an item has several pictures in a batch or their features are read
    picture_features = None  # `FrameFeatures`, where they are read in place of a listing's one picture
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
        features = options.frame_features if frames is None else frames.features
        has_pictures = bool(image_columns) and features is None
        picture_tfms = Resize(PICTURE_SIZE) if options.item_tfms is None else options.item_tfms
        item_tfms = [*L(picture_tfms if has_pictures else None), *options.all_title_tfms]
        draw = None if frames is None else frames.draw
        if frames is None and cls._several_pictures and image_columns:
            draw = DrawnPicture(image_columns[0], image_folder)
        store = store_of(options.store) if has_pictures else None
        image_block = _image_block(store, picture_tfms, len(df) * len(image_columns))
        if frames is None and features is not None: image_block = partial(FeaturesBlock, features)
        if frames is not None: image_blocks, image_readers = frame_readers(frames, image_block)
        else:
            image_blocks = [image_block() for _ in image_columns]
            image_readers = [picture_reader(column, image_folder, draw) for column in image_columns]
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
        sampler = sampler_of(df, is_valid, columns, options)
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
        dls.picture_features = options.frame_features
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
