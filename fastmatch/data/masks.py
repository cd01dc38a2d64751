"""Masks: reading them, how well found and true ones overlap, the threshold that makes a mask of
probabilities, and the box around what it marks."""
import math
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from ..core import InputError
from ..picture import NO_FILE
from .image import file_name, image_path, try_image

LEVELS = 255  # probabilities are kept as whole numbers of 0 to 255


def read_mask(
    path,  # File that PIL can open: a number for each pixel, of one channel or of a palette
) -> np.ndarray:  # uint8 (h,w)
    "Read a mask as it is, its palette's numbers and not its colors; `InputError` where it can't be read."
    path = Path(path)
    if not path.exists(): raise InputError(f'{path}: {NO_FILE}')
    try:
        with Image.open(path) as image: mask = np.asarray(image)
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f'{path}: can not be read as a mask ({type(error).__name__})') from error
    if mask.dtype == bool: mask = mask.astype(np.uint8)
    if mask.ndim == 2 and mask.dtype == np.uint8: return mask
    raise InputError(f'{path}: a mask has one channel of 0 to 255; this is {mask.dtype} {mask.shape}')


def check_masks(
    df: pd.DataFrame,  # A row for each picture
    folder: Path,  # That file names start from
    columns: tuple,  # (name of the column of images, name of the column of masks)
    n_classes: int,  # Masks hold 0 to `n_classes - 1`
) -> np.ndarray:  # bool (n,), which masks mark anything
    """Raise `InputError` unless every picture has a mask of its size that holds classes alone.

    A blank cell stands for an empty mask. What is wrong with up to five rows is told. Shows progress.
    """
    from tqdm import tqdm
    image_column, mask_column = columns
    for column in columns:
        if column not in df: raise InputError(f'no column {column!r}; there are {list(df.columns)}')
    wrong, is_marked = [], []
    rows = tqdm(zip(df.index, df[image_column], df[mask_column]), 'masks', len(df), delay=2, leave=False)
    for row, image_cell, mask_cell in rows:
        problem, is_any = _look_at(Path(folder), image_cell, mask_cell, n_classes)
        is_marked.append(is_any)
        if problem: wrong.append(f'row {row}: {problem}')
    if wrong:
        more = f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''
        raise InputError('; '.join(wrong[:5]) + more)
    return np.array(is_marked, bool)


def _look_at(folder, image_cell, mask_cell, n_classes):
    "(what is wrong with a picture and its mask, or None; whether the mask marks anything)."
    if file_name(image_cell) is None: return 'no file name of a picture', False
    path = image_path(folder, image_cell)
    image, reason = try_image(path)
    if reason: return f'{path.name}: {reason}', False
    if file_name(mask_cell) is None: return None, False
    try: mask = read_mask(image_path(folder, mask_cell))
    except InputError as error: return str(error), False
    name = image_path(folder, mask_cell).name
    if mask.shape != (image.height, image.width):
        return (f'{name}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels, its picture {image.width} x '
                f'{image.height}'), False
    if mask.max(initial=0) < n_classes: return None, bool(mask.any())
    hint = ' (save what is marked as 1 and not as 255)' if set(np.unique(mask)) <= {0, 255} else ''
    return f'{name}: it holds {mask.max()}, and {n_classes} classes are 0 to {n_classes - 1}{hint}', False


def image_dice(
    found,  # bool (n,h,w)
    true,  # bool (n,h,w)
) -> np.ndarray:  # float64 (n,)
    "Dice of each picture, twice what both mark over the sum of what each marks; 1 where neither marks any."
    _check_alike(found, true)
    found, true = (np.asarray(mask, bool).reshape(len(mask), -1) for mask in (found, true))
    both, total = (found & true).sum(1), found.sum(1) + true.sum(1)
    return np.where(total == 0, 1., 2 * both / np.maximum(total, 1))


def scores_by_class(
    found,  # int (n,h,w) classes
    true,  # int (n,h,w) classes
    classes: list,  # Name of each class, 0 first
) -> pd.DataFrame:  # One row a class: class, pixels, dice, iou; NaN for a class that nothing has
    "Dice and intersection over union of each class, over the pixels of all pictures together."
    _check_alike(found, true)
    found, true = np.asarray(found), np.asarray(true)
    rows = []
    for number, name in enumerate(classes):
        is_found, is_true = found == number, true == number
        both, total = int((is_found & is_true).sum()), int(is_found.sum() + is_true.sum())
        dice = 2 * both / total if total else np.nan
        iou = both / (total - both) if total else np.nan
        rows.append({'class': name, 'pixels': int(is_true.sum()), 'dice': dice, 'iou': iou})
    return pd.DataFrame(rows)


def _check_alike(found, true):
    if np.shape(found) == np.shape(true) and np.ndim(found) == 3: return
    raise InputError(f'masks {np.shape(found)} and {np.shape(true)}: give (n,h,w) for both')


@dataclass
class MaskRule:
    "Which pixels of a picture are marked: those that are probable enough, where there are enough of them."
    threshold: int = 128  # Least probability that is marked, of 255
    smallest_share: float = 0.  # Share of a picture; fewer marked pixels than that are taken for none

    def __post_init__(self):
        if not 1 <= self.threshold <= LEVELS:
            raise InputError(f'threshold={self.threshold}: from 1 to {LEVELS}')
        if not self.smallest_share >= 0: raise InputError(f'smallest_share={self.smallest_share}: 0 or above')

    def __call__(
        self,
        probabilities: np.ndarray,  # uint8 (n,h,w), 255 for certain
    ) -> np.ndarray:  # bool (n,h,w)
        "Masks of probabilities."
        if probabilities.dtype != np.uint8 or probabilities.ndim != 3:
            raise InputError(f'probabilities are uint8 (n,h,w); these are {probabilities.dtype} '
                             f'{probabilities.shape}')
        marked = probabilities >= self.threshold
        return marked & (marked.mean((1, 2)) >= self.smallest_share)[:, None, None]


def best_mask_rule(
    probabilities: np.ndarray,  # uint8 (n,h,w) of held-out pictures, 255 for certain
    masks: np.ndarray,  # bool (n,h,w), the true ones
) -> tuple[MaskRule, float]:  # The rule, and the mean Dice of these pictures by it
    """The threshold and the smallest area with the best mean Dice, where an empty mask that is found empty
    counts 1.

    Exact: every threshold that tells probabilities apart is tried with every area that tells pictures apart.
    Of several that are as good the threshold nearest to a half is taken, then the smallest area. The score
    is that of the pictures it was chosen on: judge it on others.
    """
    _check_alike(probabilities, masks)
    if not len(masks): raise InputError('no pictures to choose a threshold on')
    if not np.any(masks):
        raise InputError(f'all {len(masks)} masks are empty: a threshold is chosen where some are not')
    if probabilities.dtype != np.uint8:
        raise InputError(f'probabilities are uint8; these are {probabilities.dtype}')
    areas, dice, emptied = _by_level(probabilities, np.asarray(masks, bool))
    n_pixels = probabilities[0].size
    best = None
    for level in sorted(range(1, LEVELS + 1), key=lambda level: abs(level - 128)):
        smallest, total = _best_area(areas[:, level], dice[:, level], emptied)
        if best is None or total > best[0] + 1e-12: best = (total, level, smallest)
    total, level, smallest = best
    # between two counts of pixels, so that rounding has no say
    share = max(0, smallest - .5) / n_pixels
    return MaskRule(level, share), total / len(masks)


def _by_level(probabilities, masks):
    "Marked pixels (n,256) and Dice (n,256) at each threshold, and the score (n,) of marking nothing."
    n_images = len(masks)
    inside, anywhere = np.zeros((2, n_images, LEVELS + 1), np.int64)
    for image, (values, mask) in enumerate(zip(probabilities, masks)):
        anywhere[image] = np.bincount(values.ravel(), minlength=LEVELS + 1)
        inside[image] = np.bincount(values[mask], minlength=LEVELS + 1)
    # at a threshold all pixels are marked that are as probable or more so
    areas, both = (np.flip(np.flip(counts, 1).cumsum(1), 1) for counts in (anywhere, inside))
    true_areas = masks.reshape(n_images, -1).sum(1)
    total = areas + true_areas[:, None]
    dice = np.where(total == 0, 1., 2 * both / np.maximum(total, 1))
    return areas, dice, (true_areas == 0).astype(float)


def _best_area(areas, dice, emptied):
    "(the smallest area that stays, the sum of scores): pictures with less marked score as empty ones."
    order = np.argsort(areas, kind='stable')
    ascending = areas[order]
    gains = np.concatenate([[0.], np.cumsum((emptied - dice)[order])])
    # so many pictures are emptied: none, or all up to the last one of an area
    last = np.concatenate([[True], np.append(ascending[1:] > ascending[:-1], True)])
    gains[~last] = -np.inf
    n_emptied = int(np.argmax(gains > gains.max() - 1e-12))
    smallest = 0 if n_emptied == 0 else int(ascending[n_emptied - 1]) + 1
    return smallest, float(dice.sum() + gains[n_emptied])


def check_margin(
    margin,  # Border around a product, as a share of its longer side
):
    "Raise `InputError` unless a margin is a finite number of 0 or more."
    if not (isinstance(margin, Real) and 0 <= margin < math.inf):
        raise InputError(f'margin={margin!r}: give a number, 0 or above')


def product_box(
    mask: np.ndarray,  # bool (h,w)
    margin: float = .1,  # Border around what is marked, as a share of its longer side
) -> tuple | None:  # (left, top, right, bottom) in pixels, the last two exclusive; None for an empty mask
    "The box around what a mask marks, with a border, inside the picture."
    check_margin(margin)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows): return None
    border = round(margin * max(rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1))
    height, width = mask.shape
    return (max(0, int(columns[0]) - border), max(0, int(rows[0]) - border),
            min(width, int(columns[-1]) + 1 + border), min(height, int(rows[-1]) + 1 + border))
