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


class DrawnPicture(_OfRow):
    """The path of a picture of a row, in training: each of its pictures with the same chance.

    The loader starts an epoch with its own generator, the one that shuffles: what is drawn is repeated with
    the same seed, resumes where training was interrupted, and does not hang on the number of workers.
    """
    split_idx = 0  # fastai: training rows alone
    seed = None  # of an epoch; None: the first pictures are taken

    def start_epoch(
        self,
        rng: random.Random | None,  # Of the loader, left as it is; None: the first pictures are taken
    ):
        "Draw other pictures from here on."
        if rng is None: self.seed = None
        else:
            own_rng = random.Random()
            own_rng.setstate(rng.getstate())
            self.seed = own_rng.getrandbits(63)

    def encodes(self, row: pd.Series):
        names = picture_names(row[self.column], self.folder)
        if len(names) == 1 or self.seed is None: return image_path(self.folder, names[0])
        # one number for each row and epoch, whichever process reads it and in whatever order
        place = np.random.default_rng((self.seed, int(row.name))).integers(len(names))
        return image_path(self.folder, names[place])


class FirstPicture(_OfRow):
    "The path of the first picture of a row; what was drawn already stays."
    def encodes(self, row: pd.Series): return first_picture(row[self.column], self.folder)[0]
