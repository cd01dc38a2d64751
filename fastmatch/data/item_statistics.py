"Plain figures of items, of titles, pictures and numbers: what tables can be compared by without a model."
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ..core import InputError, preview
from ..match.cells import as_text
from ..picture import try_image
from .columns import Columns
from .image import image_path
from .pictures import picture_names
from .read import check_columns, join_titles

THUMBNAIL = 64, 64  # pixels that brightness and contrast are taken from
READERS = 8  # threads that read pictures


def title_statistics(
    titles,  # (n,) strings, missing where an item has none
) -> pd.DataFrame:  # float64 (n,5), 0 characters and NaN shares where a title is missing
    "Length of each title in words and characters, and the shares of its characters that are of some kinds."
    texts = pd.Series([as_text(title) or '' for title in titles], dtype=object)
    length = texts.str.len().to_numpy(np.float64)

    def share(is_kind):
        counts = [sum(map(is_kind, text)) for text in texts]
        return np.divide(counts, length, out=np.full(len(length), np.nan), where=length > 0)
    words = texts.str.split().str.len().to_numpy(np.float64)
    return pd.DataFrame({'title characters': length, 'title words': words, 'title digits': share(str.isdigit),
                         'title capitals': share(str.isupper),
                         'title beyond ASCII': share(lambda character: not character.isascii())})


def picture_statistics(
    cells,  # (n,) of a column of images: of several pictures the first is taken
    path,  # Folder of the files
) -> pd.DataFrame:  # float64 (n,7), NaN where there is no picture that can be read
    "Size of each picture in pixels and bytes, its proportions, brightness, contrast and color."
    folder = Path(path)
    with ThreadPoolExecutor(READERS) as pool:
        rows = list(tqdm(pool.map(lambda cell: _of_picture(cell, folder), cells), total=len(cells),
                         desc='pictures', delay=2, leave=False))
    names = ['picture width', 'picture height', 'picture proportions', 'picture bytes', 'picture brightness',
             'picture contrast', 'picture color']
    return pd.DataFrame(rows, columns=names, dtype=np.float64)


def _of_picture(cell, folder):
    names = picture_names(cell, folder)
    if not names: return [np.nan] * 7
    file = image_path(folder, names[0])
    image, reason = try_image(file)
    if reason: return [np.nan] * 7
    pixels = np.asarray(image.resize(THUMBNAIL), np.float64) / 255
    gray = pixels.mean(2)
    return [image.width, image.height, image.width / image.height, file.stat().st_size, gray.mean(),
            gray.std(), pixels.std(2).mean()]


def item_statistics(
    df: pd.DataFrame,  # One row an item (n rows)
    path=None,  # Folder of the images; None: pictures are not looked at
    *,
    numbers: list = (),  # Columns of numbers that are taken as they are
    columns: Columns | None = None,  # Columns of title and image; None: those named by keyword
    **column_names,  # `title_col`, `image_col`, ..., which win over `columns`
) -> pd.DataFrame:  # float64 (n, figures)
    "Plain figures of each item: of its title, its first picture, and its own numbers."
    columns = Columns.resolve(columns, column_names)
    missing = [name for name in numbers if name not in df]
    if missing: raise InputError(f'numbers: df lacks {preview(missing)}')
    df, columns = join_titles(df, columns)
    check_columns(df, {'title_col': columns.title, 'image_col': None if path is None else columns.image})
    parts = []
    if columns.title is not None:
        parts.append(title_statistics(df[columns.title]))
    if path is not None and columns.image is not None:
        parts.append(picture_statistics(df[columns.image], path))
    for name in numbers:
        parts.append(pd.to_numeric(df[name], errors='coerce').astype(np.float64).rename(str(name))
                     .reset_index(drop=True))
    if not parts: raise InputError('no titles, pictures or numbers are named: nothing to look at')
    return pd.concat(parts, axis=1)


__all__ = ['item_statistics', 'picture_statistics', 'title_statistics']
