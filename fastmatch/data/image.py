"Read the picture of a listing: any file that PIL opens, as upright RGB on white."
import numbers
import os
import unicodedata
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError

from ..core import require_package

NO_FILE = 'no such file'


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


def read_image(
    path,  # File that PIL can open; of an animation the first frame is read
    size: tuple | None = None,  # Smallest (width, height) needed: a JPEG may be decoded at 1/2, 1/4, 1/8
) -> Image.Image:  # RGB; raises what PIL raises for a broken file
    "Read an image as RGB: upright by its EXIF tag, transparency on white, 8 bits a channel."
    with Image.open(path) as image:
        if size is not None: image.draft(None, size)  # does nothing to formats other than JPEG
        return upright_rgb(image)


def upright_rgb(
    image: Image.Image,  # Of any mode
) -> Image.Image:  # RGB
    "A picture as RGB: upright by its EXIF tag, transparency on white, 8 bits a channel."
    is_png = image.format == 'PNG'
    # a tag that isn't EXIF at all doesn't mean that the pixels are bad: they are left as they are, as PIL
    # does for JPEGs
    with suppress(SyntaxError): image = ImageOps.exif_transpose(image)
    # PIL's own convert clips: every value above 255 would turn white
    if image.mode[0] in 'IF': image = _to_8_bits(image, is_png)
    if image.has_transparency_data:
        image = image.convert('RGBA')
        # what lies under transparent pixels is arbitrary (often black); shops show it on white
        return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image).convert('RGB')
    return image.convert('RGB')


def _to_8_bits(image, is_png):
    "Scale a 16-bit, 32-bit or float gray image to 8 bits, by the range that its values use."
    gray_values = np.nan_to_num(np.asarray(image).astype(np.float64))
    largest = gray_values.max(initial=0)
    # older Pillow opens a 16-bit PNG as 'I', so that the mode alone doesn't tell the range
    if image.mode.startswith('I;16') or is_png: white = 65535
    else:
        usual = (1 if image.mode == 'F' else 255, 255, 65535)
        white = next((limit for limit in usual if largest <= limit), largest)
    return Image.fromarray((gray_values.clip(0, white)*(255/white)).round().astype(np.uint8))


def try_image(
    file,  # File, or an image in memory: PIL image or uint8 array (h,w,3)
    size: tuple | None = None,  # Smallest (width, height) needed, as for `read_image`
) -> tuple[Image.Image | None, str | None]:
    "The image as RGB and None, or None and a few words about what is wrong with it."
    try:
        if isinstance(file, Image.Image): return upright_rgb(file), None
        if isinstance(file, np.ndarray): return upright_rgb(Image.fromarray(file)), None
        # Python takes a whole number for an open file
        if not isinstance(file, (str, os.PathLike)): return None, f'{type(file).__name__}, not a file name'
        if not os.path.exists(file): return None, NO_FILE
        if os.path.isdir(file): return None, 'a folder, not a file'
        if os.path.getsize(file) == 0: return None, 'empty file (0 bytes)'
        return read_image(file, size), None
    except UnidentifiedImageError: return None, 'not an image that PIL can read'
    # decoders raise OSError, SyntaxError, ValueError, struct.error, DecompressionBombError and more
    except Exception as error: return None, f'{type(error).__name__}: {error}'


def phash(
    image: Image.Image,  # RGB
) -> str:
    "The perceptual hash of a picture: 16 hex digits, as in Shopee's column `image_phash`."
    return str(require_package('imagehash', 'perceptual hashes').phash(image))
