"One picture as encoders read it: resized, with its perceptual hash where asked for, or why it can't be read."
import os
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..data.image import phash
from ..data.picture_store import PictureStore, resized_settings
from ..picture import try_image

# what a perceptual hash is computed from: 32 pixels a side, in gray, as `imagehash` makes them first of all
HASHED = 'hashed 32 gray 1'
HASHED_SIZE = 32, 32
FASTAI_PAD = {'constant': 'zeros', 'edge': 'border', 'reflect': 'reflection'}  # by torchvision's names


class UnreadablePicture(Exception):
    "A picture file that holds nothing to decode; its reason is told by reading it without a store."


class ResizedPicture(NamedTuple):
    "A picture as each of several encoders reads it, or why it can't be read."
    images: list | None  # uint8 (h,w,3), one for each way of resizing that was asked for
    phash: str | None  # Its perceptual hash, where asked for
    reason: str | None  # Why it can't be read; None where it was


def read_picture(
    picture,  # A file, an image in memory, or None
    resizings: list,  # `Picture`s
    with_hash: bool,  # Whether its perceptual hash is wanted
    store: PictureStore | None = None,  # What it is made of a file is kept there, and taken from there
) -> ResizedPicture:
    "Read a picture once, and resize it in each way."
    if picture is None: return ResizedPicture(None, None, 'no file name')
    if store is not None and isinstance(picture, (str, os.PathLike)):
        try: return _stored(store, picture, resizings, with_hash)
        # below it is told in the same words as without a store
        except (UnreadablePicture, FileNotFoundError, IsADirectoryError, PermissionError): pass
    image, reason = try_image(picture)
    if reason: return ResizedPicture(None, None, reason)
    return ResizedPicture([resize(image) for resize in resizings], phash(image) if with_hash else None, None)


def _stored(store, file, resizings, with_hash):
    decoded = []

    def picture_of(opened):
        "The picture of an open file, decoded once for all that is made of it."
        if not decoded:
            image, reason = try_image(opened)
            if reason is not None: raise UnreadablePicture(reason)
            decoded.append(image)
        return decoded[0]

    images = []
    for resize in resizings:
        settings = resized_settings(resize.method, resize.size, FASTAI_PAD[resize.pad_mode], resize.resample)
        images.append(store.read(file, settings, lambda opened, resize=resize: resize(picture_of(opened))))
    if not with_hash: return ResizedPicture(images, None, None)
    small = store.read(file, HASHED, lambda opened: _small_and_gray(picture_of(opened)))
    return ResizedPicture(images, phash(Image.fromarray(small)), None)


def _small_and_gray(image):
    "uint8 (h,w,3), whose perceptual hash is that of the picture."
    return np.asarray(image.convert('L').resize(HASHED_SIZE, Image.LANCZOS).convert('RGB'))
