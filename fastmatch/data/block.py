"Listings for matching as fastai batches: a table is checked and split by group."
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..core import InputError
from .batch_options import BatchOptions, take_batch_options
from .columns import Columns, check_inputs
from .features import features_of_one, warm_pictures
from .frames import frames_of, take_frame_options

# Learners that earlier versions exported ask for these here
from .loader import MatchDL  # noqa: F401
from .loaders import ListingDataLoaders
from .pictures import picture_names
from .read import check_columns, check_listings, join_titles, text_columns_of
from .row import Field, ListingImage, NoTarget, PartsOfRow  # noqa: F401
from .serialise import with_serialised_title
from .split import in_order, part_unlabelled, train_on_all, valid_split
from .title import MAX_LEN


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
        **kwargs,  # frame_features, draw_frames, buckets, store; columns by keyword; more for `dataloaders`
    ):
        """Check the table, split it by group, and make dataloaders of pictures, titles or both.

        Rows without a group are no fault: they are kept as `unlabelled`. With `frame_features`
        (`FrameFeatures`) pictures are encoded once, by an encoder that stands still: all else is trained.
        """
        columns = Columns.resolve(columns, Columns.take_from(kwargs))
        if serialise: columns = with_serialised_title(columns, list(getattr(df, 'columns', [])))
        check_inputs(columns)
        path = Path(path)
        reading = _frames(columns, path, frames, kwargs, item_tfms, batch_tfms)
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
        df, unlabelled, image_columns = _with_frames(df, unlabelled, columns, reading, options, path)
        # training groups first, so that those of training rows are 0 to c-1 for a head with c classes
        dls = cls.from_rows(df, is_valid, columns, path, image_columns, [*train_groups, *other_groups],
                            options, text_columns=text_columns, frames=reading)
        return dls.noted(skipped=checked.skipped, left_out=checked.left_out, moved=moved,
                         n_groups=len(train_groups), unlabelled=unlabelled, serialised=serialised)


def _frames(columns, path, frames, keywords, item_tfms, batch_tfms):
    "How frames are read; None where one picture is, whose features then stay in `keywords` if it has some."
    of_frames = take_frame_options(keywords)
    features = features_of_one(of_frames, frames, columns.image is not None, item_tfms=item_tfms,
                               batch_tfms=batch_tfms, store=keywords.get('store'))
    reading = frames_of(columns, path, partial(picture_names, folder=path), frames, **of_frames)
    if features is not None: keywords['frame_features'] = features
    return reading


def _with_frames(df, unlabelled, columns, reading, options, path):
    "Both tables and the columns of pictures in them: one, or one for each frame; features are made here."
    features = options.frame_features
    if features is not None: warm_pictures(features, columns.image, path, df, unlabelled)
    if reading is None: return df, unlabelled, [] if columns.image is None else [columns.image]
    df, unlabelled = reading.widen(df), reading.widen(unlabelled)
    reading.warm(df, unlabelled, drawn=True)
    return df, unlabelled, reading.columns


def _split(df, valid_fold, **options):
    "Which rows validate, none where `valid_fold` is None, and those that changed their fold."
    return train_on_all(len(df)) if valid_fold is None else valid_split(df, valid_fold, **options)


def _groups_of(groups, is_valid):
    "The groups trained on, and the others, each sorted."
    train_groups = in_order(groups[~is_valid])
    if len(train_groups) < 2:
        raise InputError(f'{len(train_groups)} group to train on: a loss over groups needs two at least')
    trained_on = set(train_groups)
    return train_groups, [group for group in in_order(groups) if group not in trained_on]
