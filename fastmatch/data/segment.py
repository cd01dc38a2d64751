"DataLoaders of pictures and their masks."
from pathlib import Path

import numpy as np
import pandas as pd
from fastai.data.block import TransformBlock
from fastai.data.core import DataLoaders, Datasets
from fastai.data.transforms import IntToFloatTensor, ToTensor
from fastai.vision.augment import Resize, ResizeMethod
from fastai.vision.core import PILImage, PILMask
from fasttransform import Transform

from ..core import PICTURE_SIZE, InputError
from .image import file_name, image_path, read_image
from .masks import check_masks, read_mask

__all__ = ['SegmentDataLoaders']


class OpenPicture(Transform):
    "The picture of a row, upright and on white."
    def __init__(
        self,
        folder: Path,  # That file names start from
        column: str,  # Of images
    ):
        self.folder = Path(folder)
        self.column = column

    def encodes(self, row: pd.Series):
        return PILImage.create(np.asarray(read_image(image_path(self.folder, row[self.column]))))


class OpenMask(Transform):
    "The mask of a row; a blank cell stands for an empty one of the picture's size."
    def __init__(
        self,
        folder: Path,  # That file names start from
        columns: tuple,  # (column of images, column of masks)
    ):
        self.folder = Path(folder)
        self.columns = columns

    def encodes(self, row: pd.Series):
        image_column, mask_column = self.columns
        if mask_column in row and file_name(row[mask_column]) is not None:
            mask = read_mask(image_path(self.folder, row[mask_column]))
        else:
            size = read_image(image_path(self.folder, row[image_column])).size
            mask = np.zeros(size[::-1], np.uint8)
        return PILMask.create(mask)


class SegmentDataLoaders(DataLoaders):
    "Batches of pictures, float32 (n,3,h,w) of 0..1, and masks, int64 (n,h,w); made by `from_df`."
    @classmethod
    def from_df(
        cls,
        df: pd.DataFrame,  # A row for each picture
        path='.',  # Folder that file names start from
        image_col: str = 'image',  # Column of picture files
        mask_col: str = 'mask',  # Column of mask files; a blank cell is an empty mask
        fold_col: str = 'fold',  # Column of folds
        valid_fold=0,  # The fold that is held out
        classes: tuple = ('background', 'product'),  # Name of each number that a mask holds, 0 first
        bs: int = 16,  # Pictures a batch
        # Transform of picture and mask together that makes all of one size; None: a `Resize` out of
        # proportion, which is how a `Segmenter` reads pictures
        item_tfms=None,
        batch_tfms=None,  # Augmentations of a batch, such as fastai's `aug_transforms()`; no `Normalize`
    ) -> 'SegmentDataLoaders':
        """Make them of a table. Raises `InputError` for a mask of another size than its picture, for one that
        holds other numbers than classes, and where a fold is empty."""
        if len(classes) < 2: raise InputError(f'classes={classes}: two at least, the background first')
        if fold_col not in df: raise InputError(f'no column {fold_col!r}; there are {list(df.columns)}')
        df = df.reset_index(drop=True)
        is_marked = check_masks(df, Path(path), (image_col, mask_col), len(classes))
        is_valid = (df[fold_col] == valid_fold).to_numpy()
        if is_valid.all() or not is_valid.any():
            which = 'all pictures are' if is_valid.all() else 'no picture is'
            raise InputError(f'valid_fold={valid_fold!r}: {which} in that fold of {fold_col!r}')
        if not is_marked[~is_valid].any():
            raise InputError(f'{mask_col}: all masks of the training pictures are empty')
        splits = [np.flatnonzero(~is_valid).tolist(), np.flatnonzero(is_valid).tolist()]
        pipelines = [[OpenPicture(path, image_col)], [OpenMask(path, (image_col, mask_col))]]
        rows = [row for _, row in df.iterrows()]
        datasets = Datasets(rows, pipelines, splits=splits, n_inp=1)
        if item_tfms is None: item_tfms = Resize(PICTURE_SIZE, method=ResizeMethod.Squish)
        after_batch = [*TransformBlock(batch_tfms=IntToFloatTensor).batch_tfms,
                       *([] if batch_tfms is None else batch_tfms if isinstance(batch_tfms, (list, tuple))
                         else [batch_tfms])]
        items = [*(item_tfms if isinstance(item_tfms, (list, tuple)) else [item_tfms]), ToTensor]
        dls = datasets.dataloaders(bs=min(bs, len(splits[0])), after_item=items, after_batch=after_batch,
                                   num_workers=0)
        dls = cls(*dls.loaders, path=path, device=dls.device)
        dls.classes = list(classes)
        dls.df, dls.is_valid = df, is_valid
        dls.folder, dls.columns = Path(path), (image_col, mask_col)
        return dls

    @property
    def valid_df(self) -> pd.DataFrame:
        "The rows of the held-out pictures, in the order in which they are read."
        return self.df[self.is_valid].reset_index(drop=True)
