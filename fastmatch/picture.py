"A picture file as pixels: whatever PIL opens as upright RGB on white, and the part of it that is resized."
import io
import os
from contextlib import suppress

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .core import InputError

NO_FILE = 'no such file'
METHODS = 'squish', 'crop', 'pad'  # out of proportion, the middle, all of it with a border


def read_image(
    path,  # File that PIL can open, or an open one; of an animation the first frame is read
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
    # file, the bytes of one as `io.BytesIO`, or an image in memory: PIL image or uint8 array (h,w,3)
    file,
    size: tuple | None = None,  # Smallest (width, height) needed, as for `read_image`
) -> tuple[Image.Image | None, str | None]:
    "The image as RGB and None, or None and a few words about what is wrong with it."
    try:
        if isinstance(file, Image.Image): return upright_rgb(file), None
        if isinstance(file, np.ndarray): return upright_rgb(Image.fromarray(file)), None
        if isinstance(file, io.BytesIO): return read_image(file, size), None
        # Python takes a whole number for an open file
        if not isinstance(file, (str, os.PathLike)): return None, f'{type(file).__name__}, not a file name'
        if not os.path.exists(file): return None, NO_FILE
        if os.path.isdir(file): return None, 'a folder, not a file'
        if os.path.getsize(file) == 0: return None, 'empty file (0 bytes)'
        return read_image(file, size), None
    except UnidentifiedImageError: return None, 'not an image that PIL can read'
    # decoders raise OSError, SyntaxError, ValueError, struct.error, DecompressionBombError and more
    except Exception as error: return None, f'{type(error).__name__}: {error}'


def check_method(
    method: str,  # How a picture is made one of a given size
):
    "Raise `InputError` for a method that there isn't."
    if method not in METHODS: raise InputError(f"method={method!r}: choose 'squish', 'crop' or 'pad'")


def fitted(
    image: Image.Image,  # RGB
    size: tuple,  # (width, height) in pixels, that it is going to be resized to
    method: str = 'crop',  # 'squish' (out of proportion), 'crop' (the middle), 'pad' (with a border)
    pad_mode: str = 'reflect',  # What 'pad' fills the border with, as torchvision calls it
) -> Image.Image:
    """The part of a picture that is resized, as by fastai's `Resize` in validation: all of it, its middle, or
    all of it with a border."""
    if method == 'squish': return image
    width, height = image.size
    choose = max if method == 'pad' else min
    ratio = choose(width / size[0], height / size[1])
    new_width, new_height = int(ratio * size[0]), int(ratio * size[1])
    # int() rounds towards zero, as fastai does for a border's negative corner
    left, top = int(.5 * (width - new_width)), int(.5 * (height - new_height))
    right, bottom = min(left + new_width, width), min(top + new_height, height)
    image = image.crop((max(left, 0), max(top, 0), right, bottom))
    if new_width <= width and new_height <= height: return image
    from torchvision.transforms.functional import pad
    border_right, border_bottom = max(new_width - width + left, 0), max(new_height - height + top, 0)
    border = [max(-left, 0), max(-top, 0), border_right, border_bottom]
    return pad(image, border, padding_mode=pad_mode)
