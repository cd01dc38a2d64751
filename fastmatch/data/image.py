"The picture of a listing: which file a cell names, its pixels as upright RGB on white, its perceptual hash."
import numbers
import os
import unicodedata
from pathlib import Path

import pandas as pd
from PIL import Image

from ..core import require_package
from ..picture import NO_FILE, read_image, try_image, upright_rgb

__all__ = ['NO_FILE', 'file_name', 'image_path', 'phash', 'read_image', 'try_image', 'upright_rgb']


def file_name(
    cell,  # Of a column of file names: text, a path, a number where pandas read '7' as one, or missing
) -> str | None:
    "The name as the file has it, which is '7' for 7 and for 7.0; None where the cell is missing or blank."
    if isinstance(cell, (str, os.PathLike)): return os.fspath(cell) if str(cell).strip() else None
    if pd.api.types.is_scalar(cell) and pd.isna(cell): return None
    # a column of whole numbers is read as floats where one is missing
    is_whole = isinstance(cell, numbers.Real) and not isinstance(cell, bool) and float(cell).is_integer()
    return str(int(cell)) if is_whole else str(cell)


def image_path(
    folder,  # That file names start from
    cell,  # Of a column of file names, not missing
) -> Path:
    "The file that a cell names; where there is none, one whose name has its accents in another Unicode form."
    name = file_name(cell)
    path = Path(folder)/name
    if name.isascii() or path.exists(): return path
    other_forms = (Path(folder)/unicodedata.normalize(form, name) for form in ('NFC', 'NFD'))
    return next((other for other in other_forms if other.exists()), path)


def phash(
    image: Image.Image,  # RGB
) -> str:
    "The perceptual hash of a picture: 16 hex digits, as in Shopee's column `image_phash`."
    return str(require_package('imagehash', 'perceptual hashes').phash(image))
