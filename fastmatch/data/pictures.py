"""The pictures of a listing: a cell of the image column names one file, or several.

Several are a list, tuple or array of names, or one text with `|` or `;` between them: 'front.jpg|back.jpg'.
Blanks around a name don't count; a name may hold blanks and commas. Text with such a character that is the
name of a file in the folder is that one file. Where both characters are in a text, `|` separates.
"""
from pathlib import Path

import numpy as np
import pandas as pd

from ..match.cells import several
from .image import file_name, image_path

SEPARATORS = '|', ';'


def picture_names(
    cell,  # Of a column of images
    folder=None,  # That file names start from; None: text is taken apart where each part has a suffix, '.jpg'
) -> list:  # Strings, each once, in their order; empty where the cell is missing or blank
    "The names of a listing's picture files."
    if several(cell): return list(dict.fromkeys(name for name in map(file_name, cell) if name is not None))
    name = file_name(cell)
    if name is None: return []
    separator = next((character for character in SEPARATORS if character in name), None)
    if separator is None: return [name]
    if folder is not None and image_path(folder, name).exists(): return [name]
    parts = list(dict.fromkeys(part.strip() for part in name.split(separator) if part.strip()))
    if folder is None and not all(Path(part).suffix for part in parts): return [name]
    return parts or [name]


def first_picture(
    cell,  # Of a column of images, not missing
    folder,  # That file names start from
) -> tuple[Path, int]:  # The file, and how many more there are
    "The first of a listing's pictures: what is shown of it, and what validates it."
    names = picture_names(cell, folder)
    return image_path(folder, names[0]), len(names) - 1


def tidy_pictures(
    cells,  # (n,) of a column of images
    folder,  # That file names start from
) -> list:  # One name as the cell has it, a tuple of names where there are several
    "The cells of a column of images in the form in which tables of a dataloader hold them."
    tidied = []
    for cell in cells:
        names = picture_names(cell, folder)
        if len(names) > 1: tidied.append(tuple(names))
        else: tidied.append(cell if not names or names == [_plain(cell)] else names[0])
    return tidied


def _plain(cell): return None if several(cell) else file_name(cell)


def one_a_picture(
    df: pd.DataFrame,  # One row a listing; not changed
    column: str,  # Of images
    folder,  # That file names start from
) -> tuple[pd.DataFrame, np.ndarray]:  # One row a picture (m); int (m,), the row of its listing
    "A table with a row for each picture, which repeats all else that is known of its listing."
    names = [picture_names(cell, folder) for cell in df[column]]
    if not any(len(of_listing) > 1 for of_listing in names): return df, np.arange(len(df))
    rows = np.repeat(np.arange(len(df)), [len(of_listing) for of_listing in names])
    wide = df.iloc[rows].reset_index(drop=True)
    wide[column] = [name for of_listing in names for name in of_listing]
    return wide, rows


def in_folder(
    df: pd.DataFrame,  # One row a listing; not changed
    image_columns: list,  # Columns of image files
    folder,  # That the file names start from
) -> pd.DataFrame:
    "A copy with whole paths for file names, to be read by dataloaders of another folder."
    folder = Path(folder).resolve()

    def whole_path(cell):
        paths = [str(image_path(folder, name)) for name in picture_names(cell, folder)]
        if not paths: return None
        return paths[0] if len(paths) == 1 else tuple(paths)
    # a map would make NaN of what is missing
    return df.assign(**{column: pd.Series([whole_path(cell) for cell in df[column]], df.index, dtype=object)
                        for column in image_columns})
