"Which picture of a listing a batch holds: of several one drawn at random in training, otherwise the first."
import random
from pathlib import Path

import numpy as np
import pandas as pd
from fasttransform import Transform

from .image import image_path
from .pictures import first_picture, picture_names


class _OfRow(Transform):
    "Base of what takes a picture of a row."
    def __init__(
        self,
        column,  # Name of the column of images
        folder: Path,  # Folder that its file names start from
    ):
        self.column = column
        self.folder = folder


class EpochDraw:
    """What is drawn for the rows of an epoch.

    The loader starts an epoch with its own generator, the one that shuffles: what is drawn is repeated with
    the same seed, resumes where training was interrupted, and does not hang on the number of workers.
    """
    seed = None  # of an epoch; None: nothing is drawn

    def start_epoch(
        self,
        rng: random.Random | None,  # Of the loader, left as it is; None: nothing is drawn
    ):
        "Draw anew from here on."
        if rng is None: self.seed = None
        else:
            own_rng = random.Random()
            own_rng.setstate(rng.getstate())
            self.seed = own_rng.getrandbits(63)

    def places(
        self,
        row: pd.Series,  # Of a table with row numbers as its index
        n_there: int,  # Pictures of the row
        n_wanted: int,  # How many to draw
    ) -> list[int] | None:  # Ascending; None where there is no choice
        "Which of its pictures are drawn for a row."
        if n_there <= n_wanted or self.seed is None: return None
        # one number for each row and epoch, whichever process reads it and in whatever order
        rng = np.random.default_rng((self.seed, int(row.name)))
        if n_wanted == 1: return [int(rng.integers(n_there))]
        return sorted(rng.choice(n_there, n_wanted, replace=False).tolist())


class DrawnPicture(_OfRow, EpochDraw):
    "The path of a picture of a row, in training: each of its pictures with the same chance."
    split_idx = 0  # fastai: training rows alone

    def encodes(self, row: pd.Series):
        names = picture_names(row[self.column], self.folder)
        places = self.places(row, len(names), 1)
        return image_path(self.folder, names[0 if places is None else places[0]])


class FirstPicture(_OfRow):
    "The path of the first picture of a row; what was drawn already stays."
    def encodes(self, row: pd.Series): return first_picture(row[self.column], self.folder)[0]
