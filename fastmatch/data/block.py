"Listings as fastai batches: a picture block, a title block tokenised in the batch, and dataloaders over them."
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.data.block import CategoryBlock, DataBlock, TransformBlock
from fastai.data.core import DataLoaders
from fastai.data.transforms import IndexSplitter
from fastai.torch_core import TensorBase
from fastai.vision.augment import Resize
from fastai.vision.core import PILImage
from fastai.vision.data import ImageBlock
from fastcore.basics import store_attr
from fasttransform import Transform

from ..core import InputError
from .columns import Columns
from .read import check_columns, check_listings, read_image
from .sampler import OverSampler, PKSampler, SampledDL, WeightedSampler
from .show import draw_listing, grid
from .split import valid_split

MAX_LEN = 64  # tokens of a title: Shopee's longest take about 60 words, most under 20


class ListingImage(PILImage):
    "A listing's picture: RGB, upright, transparency on white."
    @classmethod
    def create(cls, fn, **kwargs):
        if isinstance(fn, (str, Path)): fn = read_image(fn)
        return super().create(fn, **kwargs)


class Field(Transform):
    "A row's value by the column's name; fastai's ColReader takes a number for a place, and glues a folder even to an absolute file."
    def __init__(
        self,
        col,  # Column
        path: Path | None = None,  # Folder that its file names start from; None: no file names
    ): store_attr()

    def encodes(self, row): return row[self.col] if self.path is None else self.path/str(row[self.col])


class Title(str):
    "A listing's title before it is tokenised."
    @classmethod
    def create(cls, o): return cls(o)


class TensorTitle(TensorBase):
    "Token ids of titles (n,l), padded at the end."


class Codepoints:
    "Stands in for a tokenizer until a title encoder brings one: a token is a character."
    pad_token_id = 0
    def __call__(self, titles, max_length, **kwargs): return {'input_ids': [[ord(c) for c in t[:max_length * 4]] for t in titles]}
    def decode(self, ids, **kwargs): return ''.join(chr(i) for i in ids if i)


class Tokenize(Transform):
    "Titles of a batch to `TensorTitle`, padded to the longest; `tokenizer` is set by the Learner to its title encoder's."
    def __init__(
        self,
        tokenizer=None,  # A transformers tokenizer; None keeps characters, for looking at
        max_len: int = MAX_LEN,  # Tokens a title is cut at
    ):
        self.tokenizer = Codepoints() if tokenizer is None else tokenizer
        store_attr('max_len')

    def encodes(self, samples: list):
        at = next((i for i, o in enumerate(samples[0]) if isinstance(o, Title)), None)
        if at is None: return samples
        rows = self.tokenizer([str(s[at]) for s in samples], truncation=True, max_length=self.max_len)['input_ids']
        # at least one token: an empty title has none in some tokenizers
        ids = torch.full((len(rows), max(1, *map(len, rows))), self.tokenizer.pad_token_id)
        for o, row in zip(ids, rows): o[:len(row)] = torch.tensor(row)
        return [(*s[:at], TensorTitle(o), *s[at + 1:]) for s, o in zip(samples, ids)]

    def decodes(self, x: TensorTitle): return Title(self.tokenizer.decode(x.tolist(), skip_special_tokens=True))


def TitleBlock(
    tokenizer=None,  # A transformers tokenizer; None: the Learner puts in its title encoder's
    max_len: int = MAX_LEN,  # Tokens a title is cut at
):
    "A `TransformBlock` for titles, tokenised and padded batch by batch."
    return TransformBlock(type_tfms=Title.create, dls_kwargs={'before_batch': Tokenize(tokenizer, max_len)})


class MatchDL(SampledDL):
    "A `TfmdDL` that can draw its batches by a sampler and shows listings as picture and title."
    def show_batch(
        self,
        b=None,  # A batch; None draws one
        max_n: int = 12,  # Listings to show
        cols: int = 6,  # Listings in a row
        **kwargs,
    ):
        "Show listings of a batch: picture, title and group."
        if b is None: b = self.one_batch()
        items = list(self.decode_batch(b, max_n=max_n))
        axes = grid(-(-len(items) // cols), min(cols, len(items)))
        for ax, item in zip(axes.flat, items):
            ax.axis('on')
            parts = item if isinstance(item, tuple) else (item,)
            # views of one item side by side
            images = [o for o in parts if isinstance(o, torch.Tensor) and o.ndim == 3]
            image = torch.cat([o.as_subclass(torch.Tensor) for o in images], 2) if images else None
            if image is not None: image = image.detach().cpu().float().clamp(0, 255 if image.max() > 1.5 else 1).permute(1, 2, 0).numpy()
            if image is not None and image.max() > 1.5: image = image / 255
            title = next((o for o in parts if isinstance(o, Title)), '')
            draw_listing(ax, image, title, str(parts[-1]) if len(parts) > self.n_inp else '')


def _in_order(labels):
    "The different labels, sorted; a column may hold both numbers and text."
    return sorted(labels.unique(), key=lambda o: (isinstance(o, str), o))


SAMPLERS = {
    'pk': lambda y, bs, k, seed: PKSampler(y, p=max(1, bs // max(1, k)), k=k, seed=seed),
    'weighted': lambda y, bs, k, seed: WeightedSampler(y, seed),
    'oversample': lambda y, bs, k, seed: OverSampler(y, seed, min_count=k)}


class ListingDataLoaders(DataLoaders):
    "`DataLoaders` of listings; keeps the table it was made from (`df`, `train_df`, `valid_df`) and what was left out (`skipped`)."
    _kept = ('df', 'is_valid', 'columns', 'image_folder', 'image_columns', 'skipped', 'moved')

    @property
    def train_df(self): return self.df[~self.is_valid].reset_index(drop=True)  # the listings trained on

    @property
    def valid_df(self): return self.df[self.is_valid].reset_index(drop=True)  # the held-out listings

    def new_empty(self):
        res = super().new_empty()
        for o in self._kept: setattr(res, o, getattr(self, o))
        # an exported Learner carries the columns' names, not the listings
        res.df, res.is_valid = self.df.iloc[:0], self.is_valid[:0]
        return res

    def show_batch(self, b=None, max_n=12, **kwargs):
        "Show listings of a training batch: picture, title and group."
        self.train.show_batch(b, max_n=max_n, **kwargs)

    @classmethod
    def from_rows(
        cls,
        df,  # Usable rows
        is_valid,  # bool (n,)
        image_folder: Path,  # Folder of the images
        columns: Columns,  # Of the table, its title one column
        image_columns: list,  # Columns of image files: one for each picture of a listing
        vocab: list,  # Labels in the order of their numbers
        sampler: str | None,  # As for `MatchDataLoaders.from_df`, and so the rest
        k: int, seed: int, item_tfms, batch_tfms, bs: int, val_bs, max_len: int, num_workers, device, kwargs: dict,
    ):
        "Blocks and loaders over a checked table; the pictures come first, then the title, then the label."
        path, files, text, label = image_folder, image_columns, columns.title, columns.group
        block = DataBlock(
            blocks=[*[ImageBlock(ListingImage) for _ in files], *([] if text is None else [TitleBlock(max_len=max_len)]), CategoryBlock(vocab=vocab, sort=False)],
            n_inp=len(files) + (text is not None), dl_type=MatchDL,
            get_x=[*[Field(o, path) for o in files], *([] if text is None else [Field(text)])],
            get_y=Field(label), splitter=IndexSplitter(np.flatnonzero(is_valid)),
            item_tfms=(Resize(224) if item_tfms is None else item_tfms) if files else None, batch_tfms=batch_tfms if files else None)
        if num_workers is not None: kwargs = {**kwargs, 'num_workers': num_workers}
        # fork after a fast tokenizer has run threads only warns, but once a batch
        os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
        dsets = block.datasets(df)
        draw = SAMPLERS[sampler](df[label][~is_valid].to_numpy(), bs, k, seed) if sampler else None
        dls = dsets.dataloaders(path='.', after_item=block.item_tfms, after_batch=block.batch_tfms, bs=bs, val_bs=val_bs or 2 * bs,
                                device=device, **{**block.dls_kwargs, **kwargs}, dl_kwargs=[{'sampler': draw}, {}])
        res = cls(*dls.loaders, path='.', device=dls.device)
        res.df, res.is_valid, res.columns, res.image_folder, res.image_columns = df, is_valid, columns, image_folder, image_columns
        return res


def check_options(columns, sampler, bs, seed):
    "Raise `InputError` for options that no table can satisfy."
    # a column may be named 0
    if columns.image is None and columns.title is None: raise InputError('image_col and title_col are both None: a listing needs a picture or a title')
    if sampler is not None and sampler not in SAMPLERS: raise InputError(f'sampler={sampler!r}: choose None or one of {list(SAMPLERS)}')
    if bs < 1: raise InputError(f'bs={bs}: give 1 or more')
    if not 0 <= seed < 2**32: raise InputError(f'seed={seed}: give an integer from 0 to 2**32-1')


class MatchDataLoaders(ListingDataLoaders):
    "`ListingDataLoaders` for matching: the label is the group, and validation is on groups that training has not seen."
    _kept = (*ListingDataLoaders._kept, 'n_groups')

    @classmethod
    def from_df(
        cls,
        df,  # DataFrame, a row a listing
        path='.',  # Folder of the images
        columns: Columns | None = None,  # Its columns; default those of the competition, without folds. No image: titles only; no title: images only
        valid_fold: int | None = 0,  # Fold held out for validation; None trains on everything
        n_folds: int = 5,  # Folds to make where none are given
        seed: int = 0,  # Of the folds and of the sampler
        sampler: str | None = None,  # None: fastai's shuffle; 'pk': groups x `k` listings; 'weighted', 'oversample': rare groups more often
        k: int = 2,  # Listings of a group in a batch ('pk'), or that each group gets at least in an epoch ('oversample')
        item_tfms=None,  # Default `Resize(224)`
        batch_tfms=None,  # e.g. `augs('colour')`
        bs: int = 64,  # Listings a batch
        val_bs: int | None = None,  # Listings a validation batch; default 2 * `bs`
        max_len: int = MAX_LEN,  # Tokens a title is cut at
        phash: bool = True,  # Keep listings with equal perceptual hash on one side of the split
        on_error: str = 'raise',  # 'raise', or 'skip' rows that can't be used (then listed in `skipped`)
        num_workers: int | None = None,  # Processes that read images; None: fastai's choice
        device=None,  # Default: fastai's choice
        **kwargs,  # Single columns by keyword (`image_col`, `title_col`, ...), and more for `DataBlock.dataloaders`
    ):
        "Check the table, split it by group, and make dataloaders of pictures, titles or both."
        columns = Columns.resolve(columns, Columns.take_from(kwargs))
        check_options(columns, sampler, bs, seed)
        path = Path(path)
        # hashing rides on the check that decodes every image anyway
        seen = check_listings(df, path, columns, on_error=on_error,
                              phash=phash and columns.phash is None and columns.image is not None and valid_fold is not None)
        df = seen.df
        check_columns(df, {'phash_col': columns.phash})
        hashes = df[columns.phash].to_numpy(object) if phash and columns.phash is not None else seen.phash
        if valid_fold is None: is_valid, moved = np.zeros(len(df), bool), pd.DataFrame(columns=['id', 'row', 'fold', 'to'])
        else:
            is_valid, moved = valid_split(df, valid_fold, columns.fold, columns.group, n_folds, seed, columns.id,
                                          fn_col=columns.image, path=path, phash=hashes)
        train_groups = _in_order(df[columns.group][~is_valid])
        if len(train_groups) < 2: raise InputError(f'{len(train_groups)} group to train on: a loss over groups needs two at least')
        known = set(train_groups)
        # training groups first, so that labels of training rows are 0..c-1 for a head with c classes
        vocab = [*train_groups, *(o for o in _in_order(df[columns.group]) if o not in known)]
        res = cls.from_rows(df, is_valid, path, columns, [] if columns.image is None else [columns.image], vocab, sampler, k, seed, item_tfms, batch_tfms, bs, val_bs, max_len, num_workers, device, kwargs)
        res.skipped, res.moved, res.n_groups = seen.skipped, moved, len(train_groups)
        return res
