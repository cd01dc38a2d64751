"How rows become batches: the options that both kinds of dataloaders take, checked."
from dataclasses import dataclass, field, fields
from inspect import signature
from typing import Any

import numpy as np
from fastai.data.core import FilteredBase, TfmdDL
from fastai.data.load import DataLoader

from ..core import InputError, unknown_option
from .columns import FASTAI_NAMES, keywords_of_roles
from .sampler import OverSampler, PKSampler, RowSampler, WeightedSampler

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
    # `FrameFeatures` that are read in place of a listing's one picture; None: pictures, or frames of several
    frame_features: Any = None

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
    return {name: keywords.pop(name) for name in ('buckets', 'store', 'frame_features')
            if name in keywords}


def known_options() -> list[str]:
    "Every option of `from_df`: columns by keyword, how rows become batches, and those of fastai's loaders."
    fastais = [name for function in (DataLoader.__init__, TfmdDL.__init__, FilteredBase.dataloaders)
               for name in signature(function).parameters]
    ours = [each.name for each in fields(BatchOptions)]
    of_split = ['path', 'columns', 'serialise', 'valid_fold', 'n_folds', 'phash', 'on_error', 'frames',
                'draw_frames']
    # what the table itself says, or the loaders make
    taken = {'self', 'dataset', 'kwargs', 'others', 'row_weights', 'get_idxs', 'path', 'dl_kwargs', 'dl_type',
             *INSTEAD}
    return [*of_split, *keywords_of_roles(), *FASTAI_NAMES,
            *(name for name in (*ours, *fastais) if name not in taken)]


def sampler_of(
    df,  # DataFrame of usable rows (n)
    is_valid: np.ndarray,  # bool (n,), True for held-out rows
    columns,  # `Columns` of the table
    options: BatchOptions,
):
    "What draws the training rows; None for fastai's shuffle."
    if options.row_weights is not None:
        if options.sampler:
            raise InputError(f'sampler={options.sampler!r} draws rows by their groups, and these have '
                             'weights of their own: make dls with sampler=None')
        return RowSampler(options.row_weights, options.seed)
    if not options.sampler: return None
    groups = df[columns.group][~is_valid].to_numpy()
    return SAMPLERS[options.sampler](groups, options.bs, options.k, options.seed)
