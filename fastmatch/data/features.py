"Features of a frozen image encoder in the place of a listing's picture: no picture is read in an epoch."
from pathlib import Path

import torch
from fastai.data.block import TransformBlock
from fastai.torch_core import TensorBase
from fasttransform import Transform

from ..core import InputError
from .image import image_path
from .pictures import picture_names


class TensorFeatures(TensorBase):
    "Features of pictures, float32 (n,d)."


class StoredFeatures(Transform):
    "The features of the picture file that a path names."
    def __init__(self, features):
        self.features = features

    def encodes(self, path: Path): return TensorFeatures(torch.from_numpy(self.features.of(path)))


def FeaturesBlock(
    features,  # `FrameFeatures`
):
    "What fastai's `ImageBlock` is for pictures, for their features."
    return TransformBlock(type_tfms=[StoredFeatures(features)])


def check_features(
    frame_features,  # As `from_df` was given it, not None
    has_images: bool,  # Whether there is a column of images
):
    "Raise `InputError` for what gives no features, and where there are no images to give them of."
    if not has_images: raise InputError('frame_features: there are no images (image_col=None)')
    if all(hasattr(frame_features, needed) for needed in ('warm', 'n_out')): return
    raise InputError(f'frame_features={frame_features!r}: give FrameFeatures(image_arch, folder=...)')


def features_of_one(
    frame_options: dict,  # Of `frames_of`; what is taken is removed from them
    frames: int,  # Pictures of a listing in a batch
    has_images: bool,  # Whether there is a column of images
    **picture_options,  # Options of `from_df` that change or keep pictures
):  # `FrameFeatures`, or None
    """The features that stand in for a listing's one picture; None where pictures or several frames are read.

    Raises `InputError` for options of pictures beside them: what they do would not be seen.
    """
    if frames != 1 or frame_options.get('frame_features') is None: return None
    features = frame_options.pop('frame_features')
    check_features(features, has_images)
    for option, setting in picture_options.items():
        if setting is None or setting is False: continue
        raise InputError(f'{option}: pictures are encoded once, as FrameFeatures(size=..., method=...) says, '
                         f'and read no more; leave out {option} or frame_features')
    return features


def warm_pictures(
    features,  # `FrameFeatures`
    column: str,  # Of images
    folder: Path,  # That their names start from
    *tables,  # DataFrames, one row a listing
):
    "Encode every picture of some tables whose features aren't kept yet."
    names = [name for df in tables for cell in df[column] for name in picture_names(cell, folder)]
    features.warm([image_path(folder, name) for name in dict.fromkeys(names)])
