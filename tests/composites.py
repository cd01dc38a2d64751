"""Pictures of products on busy backgrounds with their true masks: drawings of the sample, cut out of their
white, several sizes, over photographs or made-up clutter.

Each is drawn from a seed of its own, so that the same call makes the same pictures.
"""
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

from fastmatch.data.image import read_image

WHITE = 246  # of 255: as white as the background of a drawing


def product_mask(image) -> np.ndarray:  # bool (h,w)
    "What is not the white background: white that is joined to a corner or edge of the picture."
    pixels = np.asarray(image).min(2)
    is_white, n_parts = ndimage.label(pixels >= WHITE)
    edges = np.concatenate([is_white[0], is_white[-1], is_white[:, 0], is_white[:, -1]])
    mask = ~np.isin(is_white, np.unique(edges[edges > 0]))
    return ndimage.binary_fill_holes(mask)


def made_up_background(rng, size) -> Image.Image:
    "Clutter: a coarse wash of colors, and rectangles, ellipses and lines over it."
    from PIL import ImageDraw
    coarse = rng.integers(40, 220, (int(rng.integers(2, 6)), int(rng.integers(2, 6)), 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((size, size), Image.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(6, 16))):
        left, top = rng.integers(-size // 4, size, 2)
        width, height = rng.integers(size // 12, size // 2, 2)
        color = tuple(int(value) for value in rng.integers(0, 256, 3))
        shape = rng.integers(3)
        box = [int(left), int(top), int(left + width), int(top + height)]
        if shape == 0: draw.rectangle(box, fill=color)
        elif shape == 1: draw.ellipse(box, fill=color)
        else: draw.line(box, fill=color, width=int(rng.integers(1, 5)))
    return image


def photo_background(rng, size, photos) -> Image.Image:
    "A random square of a photograph."
    photo = read_image(photos[int(rng.integers(len(photos)))])
    side = int(min(photo.size) * rng.uniform(.4, .9))
    left, top = (int(rng.integers(0, length - side + 1)) for length in photo.size)
    return photo.crop((left, top, left + side, top + side)).resize((size, size), Image.BILINEAR)


def composite(drawing, seed: int, size: int = 64, photos=None, empty: float = .3):
    "(picture, mask): a drawing over a background, or in a share of the seeds the background alone."
    rng = np.random.default_rng(seed)
    background = photo_background(rng, size, photos) if photos else made_up_background(rng, size)
    mask = np.zeros((size, size), np.uint8)
    if drawing is None or rng.random() < empty: return background, Image.fromarray(mask)
    scale = rng.uniform(.35, .75)
    side = max(8, int(size * scale))
    left, top = (int(rng.integers(0, size - side + 1)) for _ in range(2))
    small = drawing.resize((side, side), Image.LANCZOS)
    alpha = Image.fromarray(product_mask(drawing).astype(np.uint8) * 255).resize((side, side), Image.BILINEAR)
    background.paste(small, (left, top), alpha)
    mask[top:top + side, left:left + side] = np.asarray(alpha) > 127
    return background, Image.fromarray(mask)


def write_composites(df, images: Path, folder: Path, size: int = 64, photos=None, empty: float = .3,
                     seed: int = 0) -> pd.DataFrame:
    """Write a composite and its mask for each row of listings; `image` and `mask` are the new files' names,
    those of empty masks are blank, `has_product` says which these are."""
    folder = Path(folder)
    for name in ('images', 'masks'): (folder/name).mkdir(parents=True, exist_ok=True)
    rows = []
    for number, row in enumerate(df.to_dict('records')):
        drawing = read_image(Path(images)/row['image'])
        picture, mask = composite(drawing, seed * 1_000_003 + number, size, photos, empty)
        name = f'{number}.png'
        picture.save(folder/'images'/name)
        has_product = bool(np.asarray(mask).any())
        if has_product: mask.save(folder/'masks'/name)
        rows.append({**row, 'drawing': row['image'], 'image': f'images/{name}',
                     'mask': f'masks/{name}' if has_product else None, 'has_product': has_product})
    return pd.DataFrame(rows)
