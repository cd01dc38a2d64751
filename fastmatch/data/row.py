"What a row of a table becomes: its picture, a cell, its texts."
from pathlib import Path

from fastai.torch_core import TensorBase
from fastai.vision.core import PILImage
from fasttransform import Pipeline, Transform

from .draw import FirstPicture
from .image import image_path, read_image
from .title import TitleParts


class ListingImage(PILImage):
    "A listing's picture: RGB, upright, transparency on white."
    @classmethod
    def create(cls, fn, **kwargs):
        if isinstance(fn, (str, Path)): fn = read_image(fn)
        return super().create(fn, **kwargs)


class Field(Transform):
    "What a row of the table has in a column: its value, or the path of the file that it names."
    # fastai's ColReader takes a name that is a number for a position, and puts the folder before
    # absolute paths too
    def __init__(
        self,
        column,  # Name of the column
        folder: Path | None = None,  # Folder that its file names start from; None: it holds no file names
    ):
        self.column = column
        self.folder = folder

    def encodes(self, row):
        cell = row[self.column]
        return cell if self.folder is None else image_path(self.folder, cell)


class PartsOfRow(Transform):
    "The texts of a row in several columns, '' where one is missing."
    def __init__(
        self,
        columns: list,  # Their names
    ):
        self.columns = columns

    def encodes(self, row):
        cells = [row[column] for column in self.columns]
        return TitleParts('' if cell is None or cell != cell else str(cell).strip() for cell in cells)


class NoTarget(Transform):
    "The target of items that are trained on without labels: always 0."
    def encodes(self, row): return TensorBase(0)


def picture_reader(
    column,  # Of image files
    image_folder: Path,  # That their names start from
    draw=None,  # `EpochDraw` or `DrawnPicture`: draws one of several pictures in training
):  # Function of a row
    "What gives the file name of a row: of several the one that is drawn in training, the first elsewhere."
    if draw is None: return Field(column, image_folder)
    return Pipeline([draw, FirstPicture(column, image_folder)])
