"""How dataloaders read pictures from a `PictureStore`: what `Resize` makes of a file is decoded once.

What is random goes on from there. With `method='squish'` the stored picture is the resized one; with 'crop'
and 'pad' fastai's `Resize` takes a place at random in training, so that training reads the whole picture,
resized in the same proportion, and takes its place from that; elsewhere it is the middle, and stored.
"""
import copy
from pathlib import Path

import numpy as np
from fastai.data.block import TransformBlock
from fastai.data.transforms import IntToFloatTensor
from fastai.vision.augment import Resize
from fastcore.foundation import L
from fasttransform import Transform
from PIL import Image

from ..core import InputError
from .image import read_image
from .picture_store import RESIZED, PictureStore, resized_settings

TYPICAL_SHAPE = 4 / 3  # of width and height where pictures are stored as a whole


def resize_alone(
    item_tfms,  # fastai's, one or several
) -> Resize:
    "The one transform of pictures that a store can hold; `InputError` for others or more of them."
    transforms = list(L(item_tfms))
    if len(transforms) == 1 and type(transforms[0]) is Resize: return copy.deepcopy(transforms[0])
    names = ', '.join(type(transform).__name__ for transform in transforms) or 'none'
    raise InputError(f'store: holds what one Resize makes of pictures, and item_tfms are {names}: give '
                     'item_tfms=Resize(...), and what is random as batch_tfms')


class _Stored(Transform):
    "Base of what turns the path of a picture file into its stored picture."
    kind = None  # part of the settings that pictures are kept by

    def __init__(
        self,
        store: PictureStore,
        resize: Resize,
        picture_class: type,  # Of what comes out: `ListingImage`
    ):
        self.store = store
        self.resize = resize
        self.picture_class = picture_class
        self.settings = resized_settings(resize.method, resize.size, resize.pad_mode, resize.mode, self.kind)

    def make(self, file):
        "uint8 (h,w,3): the pixels of an open file that are stored."
        raise NotImplementedError

    def encodes(self, path: Path):
        return self.picture_class(Image.fromarray(self.store.read(path, self.settings, self.make)))


class StoredPicture(_Stored):
    "A picture as `Resize` makes it outside of training."
    kind = RESIZED

    def make(self, file):
        picture = self.picture_class(read_image(file))
        return np.asarray(self.resize(picture, split_idx=1))


class StoredWhole(_Stored):
    "In training, a whole picture of the size at which `Resize` has only to take a part of it or pad it."
    kind = 'whole'
    split_idx = 0  # fastai: training rows alone

    def make(self, file):
        picture = read_image(file)
        choose = max if self.resize.method == 'pad' else min
        ratio = choose(side / wanted for side, wanted in zip(picture.size, self.resize.size))
        whole = tuple(max(1, round(side / ratio)) for side in picture.size)
        return np.asarray(picture.resize(whole, self.resize.mode))


def StoredImageBlock(
    store: PictureStore,
    resize: Resize,  # The only transform of pictures before batches
    picture_class: type,  # With a method `create`, for what is no path
):
    "fastai's `ImageBlock`, reading from a store."
    readers = [StoredPicture(store, resize, picture_class), picture_class.create]
    if resize.method != 'squish': readers.insert(0, StoredWhole(store, resize, picture_class))
    return TransformBlock(type_tfms=readers, batch_tfms=IntToFloatTensor)


def check_room(
    store: PictureStore,
    resize: Resize,
    n_pictures: int,
):
    "Raise `InputError` where the pictures of dataloaders don't fit into a store."
    width, height = resize.size
    share = TYPICAL_SHAPE if resize.method == 'crop' else 1
    store.check_room(n_pictures, int(3 * width * height * share))
