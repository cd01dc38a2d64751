"""Several pictures ('frames') of an item in a batch: which ones, how many are there, and their features.

An item has as many inputs of pictures as a batch has frames, and a number that says how many of them are its
own: the others repeat its own, or are blank where it has none, and models leave them out.
"""
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.data.block import TransformBlock
from fastai.torch_core import TensorBase
from fasttransform import Transform

from ..core import InputError
from .draw import EpochDraw
from .features import check_features
from .image import image_path

BLANK = np.full((8, 8, 3), 255, np.uint8)  # stands for the picture of an item that has none


class TensorCount(TensorBase):
    "How many frames each item has, int64 (n,)."


class TensorFrames(TensorBase):
    "Features of frames, float32 (n,f,d); 0 where an item has no more."


@dataclass
class Frames:
    "Which pictures of an item a batch holds, and how they are read."
    column: str  # Of all pictures of an item
    n: int  # Frames of an item
    names_of: Callable  # Cell of `column` -> names of its files
    folder: Path  # That file names start from
    # Paths -> features (m,d), with `warm(paths)` and `n_out`: `FrameFeatures`; None: the pictures themselves
    features: Callable | None = None
    draw: EpochDraw | None = None  # Draws frames in training; None: they are taken evenly

    @property
    def count_column(self) -> str:
        "Of how many frames an item has."
        return f'{self.column} (frames)'

    @property
    def columns(self) -> list[str]:
        "One for each frame."
        return [f'{self.column} {number + 1}' for number in range(self.n)]

    def widen(
        self,
        df: pd.DataFrame,  # One row an item; not changed
    ) -> pd.DataFrame:
        "A copy with a column for each frame, and one of their number."
        names = [self.names_of(cell) for cell in df[self.column]]
        taken = [taken_evenly(of_item, self.n) for of_item in names]
        by_column = {column: [of_item[place] for of_item in taken]
                     for place, column in enumerate(self.columns)}
        return df.assign(**{self.count_column: [min(len(of_item), self.n) for of_item in names]},
                         **{column: pd.Series(files, df.index, dtype=object)
                            for column, files in by_column.items()})

    def warm(
        self,
        *tables: pd.DataFrame,  # Widened
        drawn: bool = False,  # Whether frames may be drawn from them, as in training
    ):
        "Encode every picture of some tables that is not stored yet, where features are read."
        if self.features is None: return
        names = [name for df in tables for column in self.columns for name in df[column] if name is not None]
        # of items with more pictures than frames any may be drawn
        if drawn and self.draw is not None:
            names += [name for df in tables for cell in df[self.column] for name in self.names_of(cell)]
        self.features.warm([image_path(self.folder, name) for name in dict.fromkeys(names)])

    def paths(
        self,
        row: pd.Series,  # Of the widened table
        drawn: bool,  # Whether they are drawn, as in training
    ) -> list[Path]:
        "The files of the frames that a row has."
        names = [row[column] for column in self.columns[:row[self.count_column]]]
        if drawn and self.draw is not None:
            all_names = self.names_of(row[self.column])
            places = self.draw.places(row, len(all_names), self.n)
            if places is not None: names = [all_names[place] for place in places]
        return [image_path(self.folder, name) for name in names]


def taken_evenly(
    names: list,  # Of an item's files, in their order
    n_frames: int,  # How many to take
) -> list:  # `n_frames` of them; repeated where there are fewer, None where there is none
    "Frames at even distances."
    if not names: return [None] * n_frames
    if len(names) <= n_frames: return [names[place % len(names)] for place in range(n_frames)]
    return [names[int((place + .5) * len(names) / n_frames)] for place in range(n_frames)]


class DrawnFrame(Transform):
    "In training, the path of one of the frames that are drawn for a row; other rows stay as they are."
    split_idx = 0  # fastai: training rows alone

    def __init__(self, frames: Frames, place: int):
        self.frames = frames
        self.place = place

    def encodes(self, row: pd.Series):
        paths = self.frames.paths(row, drawn=True)
        return paths[self.place % len(paths)] if paths else row


class FrameFile(Transform):
    "The path of one of a row's frames, a blank picture where it has none; what was drawn already stays."
    def __init__(self, frames: Frames, place: int):
        self.frames = frames
        self.place = place

    def encodes(self, row: pd.Series):
        name = row[self.frames.columns[self.place]]
        return BLANK if name is None else image_path(self.frames.folder, name)


class DrawnFeatures(Transform):
    "In training, the features (f,d) of the frames that are drawn for a row."
    split_idx = 0

    def __init__(self, frames: Frames):
        self.frames = frames

    def encodes(self, row: pd.Series): return features_of(self.frames, row, drawn=True)


class FeaturesOfRow(Transform):
    "The features (f,d) of a row's frames; what was drawn already stays."
    def __init__(self, frames: Frames):
        self.frames = frames

    def encodes(self, row: pd.Series): return features_of(self.frames, row, drawn=False)


def features_of(
    frames: Frames,  # With `features`
    row: pd.Series,  # Of the widened table
    drawn: bool,  # Whether frames are drawn, as in training
) -> TensorFrames:  # float32 (f,d)
    "The features of a row's frames, and 0 for those that it lacks."
    paths = frames.paths(row, drawn)
    features = torch.zeros(frames.n, frames.features.n_out)
    if paths: features[:len(paths)] = torch.from_numpy(frames.features(paths))
    return TensorFrames(features)


class CountOfRow(Transform):
    "How many frames a row has."
    def __init__(self, frames: Frames):
        self.frames = frames

    def encodes(self, row): return TensorCount(int(row[self.frames.count_column]))


def frame_readers(
    frames: Frames,  # How they are read
    image_block: Callable,  # Makes the block of a picture
) -> tuple[list, list]:  # (blocks, what reads a row for each)
    "What turns rows of a widened table into frames and their number."
    if frames.features is not None:
        blocks, readers = [TransformBlock()], [[DrawnFeatures(frames), FeaturesOfRow(frames)]]
    else:
        blocks = [image_block() for _ in range(frames.n)]
        readers = [[DrawnFrame(frames, place), FrameFile(frames, place)] for place in range(frames.n)]
    return [*blocks, TransformBlock()], [*readers, [CountOfRow(frames)]]


def take_frame_options(
    keywords: dict,  # Of a call; what is taken is removed from them
) -> dict:
    "The options of `frames_of` among them."
    return {name: keywords.pop(name) for name in ('draw_frames', 'frame_features') if name in keywords}


def frames_of(
    columns,  # `Columns` of the table
    folder: Path,  # That file names start from
    names_of: Callable,  # Cell of the column of images -> names of its files
    frames: int,  # Most pictures of an item
    draw_frames: bool = False,  # In training draw which frames of an item are read, in each epoch anew
    frame_features=None,  # `FrameFeatures`: read features of pictures that are stored, not the pictures
) -> Frames | None:
    """How the frames of items are read; None where a batch holds one picture of each. Raises `InputError` for
    options that don't fit together."""
    has_images = columns.image is not None
    if not isinstance(frames, int) or isinstance(frames, bool) or frames < 1:
        raise InputError(f'frames={frames!r}: give 1 or more')
    if draw_frames and not has_images:
        raise InputError('draw_frames: there are no images (image_col=None)')
    if draw_frames and frames == 1: raise InputError('draw_frames=True asks for frames=2 or more')
    if frame_features is not None: check_features(frame_features, has_images)
    if not has_images or frames == 1 and frame_features is None: return None
    own = Frames(columns.image, frames, names_of, folder)
    texts = columns.title if isinstance(columns.title, (list, tuple)) else [columns.title]
    taken = [name for name in (*own.columns, own.count_column) if name in (*texts, columns.id, columns.group)]
    if taken: raise InputError(f'{taken}: frames make columns of these names; rename yours')
    return Frames(columns.image, frames, names_of, folder, frame_features,
                  EpochDraw() if draw_frames else None)


