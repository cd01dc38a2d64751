"Read listings and their photos, and say which are unusable before hours of training are spent on them."
import difflib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from ..core import InputError, preview, require_package
from .columns import Columns


def read_image(
    path,  # File that PIL can open; of an animation the first frame is read
    size: tuple | None = None,  # Smallest (width, height) needed: a JPEG is decoded at 1/2, 1/4 or 1/8 as long as it stays this large
) -> Image.Image:  # RGB; raises what PIL raises on a broken file
    "Read an image as RGB: upright by its EXIF tag, transparency on white, 16-bit and CMYK brought down to 8 bits a channel."
    with Image.open(path) as im:
        if size is not None: im.draft(None, size)  # does nothing to formats other than JPEG
        return upright_rgb(im)


def upright_rgb(
    im: Image.Image,  # Any mode
) -> Image.Image:  # RGB
    "A picture as RGB: upright by its EXIF tag, transparency on white, 8 bits a channel."
    png = im.format == 'PNG'
    # a tag that isn't EXIF at all says nothing against the pixels: the picture stays as it is (PIL does so for JPEGs by itself)
    with suppress(SyntaxError): im = ImageOps.exif_transpose(im)
    if im.mode[0] in 'IF': im = _to_8_bits(im, png)  # PIL's own convert clips: every value above 255 would turn white
    if im.has_transparency_data:
        im = im.convert('RGBA')
        # what lies under transparent pixels is arbitrary (often black); shops show it on white
        return Image.alpha_composite(Image.new('RGBA', im.size, 'white'), im).convert('RGB')
    return im.convert('RGB')


def _to_8_bits(im, png):
    "Scale a 16-bit, 32-bit or float grey image to 8 bits by the range that its values use."
    a = np.nan_to_num(np.asarray(im).astype(np.float64))
    # older Pillow opens a 16-bit PNG as 'I', so the mode alone doesn't tell the range
    if im.mode.startswith('I;16') or png: top = 65535
    else: top = next((o for o in (1 if im.mode == 'F' else 255, 255, 65535) if a.max(initial=0) <= o), a.max(initial=0))
    return Image.fromarray((a.clip(0, top)*(255/top)).round().astype(np.uint8))


class Listings(NamedTuple):
    "What `check_listings` hands back."
    df: pd.DataFrame  # A copy of the usable rows with a fresh RangeIndex; every column that was handed in is kept
    skipped: pd.DataFrame  # What was left out and why: `id`, `row` (position in the frame handed in), `column`, `reason`
    singletons: int  # Groups of one listing in `df`: allowed in training, but they can't be found by anyone
    phash: np.ndarray | None  # Perceptual hash of each row of `df`, hex strings (n,); None unless asked for


ONLY_IDS = Columns(image=None, title=None, group=None)


def check_listings(
    df: pd.DataFrame,  # One row a listing; not changed
    path='.',  # Folder that the image file names start from
    columns: Columns | None = None,  # Columns to check; default the ids alone. Files are decoded, folds come back as int64
    on_error: str = 'raise',  # 'raise' lists every unusable row in one error, 'skip' leaves them out and returns them in `skipped`
    phash: bool = False,  # Also compute each photo's perceptual hash, in the same pass (needs imagehash; JPEGs are then decoded in full)
    n_workers: int | None = None,  # Threads that decode; defaults to the number of cores, at most 16
    min_rows: int = 2,  # Fewest usable listings; 1 for listings that are matched against a catalogue
    **column_names,  # Single columns by keyword, as `Columns.resolve` takes them: `image_col`, `title_col`, `group_col`, ...
) -> Listings:  # Raises `InputError`; missing columns, repeated ids, too few rows and a single group raise even with 'skip'
    "Check every row and decode every photo of `df`, and list all that is wrong at once."
    if on_error not in ('raise', 'skip'): raise InputError(f"on_error={on_error!r}: choose 'raise' or 'skip'")
    columns = Columns.resolve(columns, column_names, ONLY_IDS)
    check_columns(df, {k: v for k, v in columns.by_keyword().items() if k != 'phash_col'})
    id_col, fn_col, text_col, label_col, fold_col = columns.id, columns.image, columns.title, columns.group, columns.fold
    if len(df) < min_rows: raise InputError(f'df has {_count(len(df))}: at least {min_rows} are needed')

    bad, hashes = [], None  # bad: (row, column, reason)
    if id_col is not None:
        bad += _blank(df, id_col, 'no id')
        _check_ids(df[id_col])
    if text_col is not None: bad += _blank(df, text_col, 'blank title') + _not_text(df, text_col)
    if label_col is not None: bad += _blank(df, label_col, 'no label')
    if fold_col is not None: bad += _not_whole(df, fold_col)
    if fn_col is not None:
        broken, hashes = _check_images(df[fn_col], Path(path), phash, n_workers)
        bad += broken

    bad.sort(key=lambda o: o[0])
    rows = [o[0] for o in bad]
    ids = (df[id_col] if id_col is not None else pd.Series([None]*len(df))).iloc[rows].tolist()
    skipped = pd.DataFrame({'id': ids, 'row': np.array(rows, dtype=np.int64), 'column': [o[1] for o in bad], 'reason': [o[2] for o in bad]})
    if bad and on_error == 'raise': raise_unusable(skipped, id_col)

    keep = np.ones(len(df), dtype=bool)
    keep[rows] = False
    res = df[keep].reset_index(drop=True)
    if len(res) < min_rows:
        raise InputError(f'{_count(len(res))} left of {len(df)}: at least {min_rows} are needed. {_list_bad(skipped, id_col)}')
    if fold_col is not None: res[fold_col] = pd.to_numeric(res[fold_col]).astype(np.int64)
    sizes = res[label_col].value_counts() if label_col is not None else None
    if sizes is not None and len(sizes) == 1 and len(res) > 1:
        raise InputError(f'all {len(res)} listings are in one group ({label_col}={sizes.index[0]!r}): there is nothing to tell apart')
    return Listings(res, skipped, 0 if sizes is None else int((sizes == 1).sum()), None if hashes is None else hashes[keep])


def _count(n): return f'{n} listing' + ('' if n == 1 else 's')


def check_columns(df, cols):
    "Raise if one of the columns in `cols` (option -> name) is missing, or is there twice."
    if not isinstance(df, pd.DataFrame): raise InputError(f'df is a {type(df).__name__}: hand in a DataFrame (pd.read_csv reads one)')
    have, lower = [str(o) for o in df.columns], {str(o).lower(): str(o) for o in df.columns}
    lines = []
    for option, name in cols.items():
        if name is None or name in df.columns: continue
        near = difflib.get_close_matches(str(name).lower(), lower, n=1, cutoff=0.5)
        lines.append(f'{option}={name!r}' + (f' (did you mean {lower[near[0]]!r}?)' if near else ''))
    if lines: raise InputError(f"df lacks {', '.join(lines)}; its columns are: {', '.join(have)}")
    twice = [str(o) for o in cols.values() if o is not None and (df.columns == o).sum() > 1]
    if twice: raise InputError(f"df has more than one column named {', '.join(twice)}: rename or drop one")


def _check_ids(ids):
    "Raise if an id stands on more than one row: nobody but its owner can say which row is right."
    rows = pd.Series(np.arange(len(ids)), index=ids.to_numpy())[ids.notna().to_numpy()]
    twice = rows[rows.index.duplicated(keep=False)].groupby(level=0, sort=False)
    if len(twice):
        lines = [f"{i!r} on rows {preview(o.tolist(), 10)}" for i, o in twice]
        raise InputError(f'{ids.name} must be unique; {len(lines)} repeated: {preview(lines, 20)}')


def _blank(df, col, reason):
    "The rows where `col` is missing, None or white space."
    return [(i, col, reason) for i in np.flatnonzero(_is_blank(df[col])).tolist()]


def _is_blank(s):
    "True where a value is missing, None or white space, (n,)."
    return (s.isna() | s.map(lambda o: isinstance(o, str) and not o.strip()).astype(bool)).to_numpy()


def _not_text(df, col):
    "The rows where `col` holds something other than text."
    return [(i, col, f'{o!r} is not text') for i, (o, blank) in enumerate(zip(df[col], _is_blank(df[col])))
            if not blank and not isinstance(o, str)]


def _not_whole(df, col):
    "The rows where `col` isn't a whole number (2.0 and '2' are)."
    num = pd.to_numeric(df[col], errors='coerce').to_numpy(dtype=np.float64, na_value=np.nan)
    blank, values = _is_blank(df[col]), df[col].tolist()
    bad = ~(np.isfinite(num) & (np.where(np.isfinite(num), num, .5) % 1 == 0))
    return [(i, col, 'no fold' if blank[i] else f'{values[i]!r} is not a whole number') for i in np.flatnonzero(bad).tolist()]


def _check_images(names, path, phash, n_workers):
    "Decode each file once: the rows that can't be used, and the hash of each row (None where broken) if `phash`."
    if phash: require_package('imagehash', 'phash=True')
    if n_workers is None: n_workers = min(os.cpu_count() or 1, 16)
    if n_workers < 1: raise InputError(f'n_workers={n_workers}: give 1 or more')
    if not path.is_dir(): raise InputError(f'path={str(path)!r} is not a folder')
    blank = _is_blank(names)
    files = [None if b else str(path/str(o)) for o, b in zip(names, blank)]
    todo = list(dict.fromkeys(o for o in files if o is not None))
    with ThreadPoolExecutor(n_workers) as pool:  # PIL lets go of the interpreter lock while it decodes
        seen = tqdm(pool.map(lambda o: _try_image(o, phash), todo), total=len(todo), desc='Checking images', delay=2, leave=False)
        done = dict(zip(todo, seen))
    check_some_exist([reason for reason, _ in done.values()], names.name, todo)
    bad = [(i, names.name, 'no file name' if f is None else f'{names.iloc[i]}: {done[f][0]}')
           for i, f in enumerate(files) if f is None or done[f][0] is not None]
    hashes = np.array([None if f is None else done[f][1] for f in files], dtype=object) if phash else None
    return bad, hashes


NO_FILE = 'no such file'


def check_some_exist(reasons, column, files):
    "Raise where every file is missing: that is one wrong folder, not n broken rows."
    if len(files) and all(o == NO_FILE for o in reasons):
        raise InputError(f'none of the {len(files)} files in {column!r} exists; the first was looked for at {files[0]}. Is path right?')


def try_image(
    file,  # File, or an image in memory: PIL image or uint8 array (h,w,3)
    size: tuple | None = None,  # As for `read_image`
) -> tuple[Image.Image | None, str | None]:
    "The image as RGB and None, or None and what is wrong with it."
    try:
        if isinstance(file, Image.Image): return upright_rgb(file), None
        if isinstance(file, np.ndarray): return upright_rgb(Image.fromarray(file)), None
        if not os.path.exists(file): return None, NO_FILE
        if os.path.isdir(file): return None, 'a folder, not a file'
        if os.path.getsize(file) == 0: return None, 'empty file (0 bytes)'
        return read_image(file, size), None
    except UnidentifiedImageError: return None, 'not an image that PIL can read'
    # decoders raise OSError, SyntaxError, ValueError, struct.error, DecompressionBombError ...; whatever it is, the row is listed with it
    except Exception as e: return None, f'{type(e).__name__}: {e}'


def phash(
    im: Image.Image,  # RGB
) -> str:
    "The perceptual hash of a picture: 16 hex digits, as in the competition's column `image_phash`."
    return str(require_package('imagehash', 'perceptual hashes').phash(im))


def _try_image(file, with_hash):
    "Read one file as training will: (what is wrong with it or None, its hash or None)."
    # the hash of a reduced JPEG differs by a bit here and there, so it is taken from the full picture
    im, reason = try_image(file, None if with_hash else (64, 64))
    return reason, phash(im) if with_hash and im is not None else None


def raise_unusable(
    skipped: pd.DataFrame,  # `id`, `row`, `column`, `reason`: as in `Listings`
    id_col: str | None,  # Column of ids, for the message
):
    "Raise the `InputError` that lists unusable rows."
    raise InputError(_list_bad(skipped, id_col))


def _list_bad(skipped, id_col, n=50):
    "A message with one line an unusable row, and how to go on without them."
    lines = [f'  row {o.row}' + (f' ({id_col} {o.id!r})' if id_col is not None else '') + f', {o.column}: {o.reason}'
             for o in skipped.head(n).itertuples()]
    if len(skipped) > n: lines.append(f'  and {len(skipped) - n} more')
    rows = skipped.row.nunique()
    return f"{rows} unusable row{'s' if rows > 1 else ''} (on_error='skip' leaves them out and returns the list):\n" + '\n'.join(lines)
