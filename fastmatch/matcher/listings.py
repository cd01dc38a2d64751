"From a table of listings to their embeddings: all rows that can't be used are listed at once."
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..core import InputError
from ..data.columns import Columns
from ..data.image import image_path
from ..data.kinds import cells_of
from ..data.pictures import picture_names
from ..data.read import (
    check_listings,
    check_some_exist,
    join_titles,
    raise_unusable,
    warn_left_out,
    with_names,
)
from ..data.split import usable_hashes
from ..match import Embeddings, Rule
from ..match.cells import composed, several
from ..match.embeddings import SOURCE
from .batches import by_listing
from .cropped import AnyEncoder
from .known import TITLE_SPACES, pictures_of
from .picture_table import PictureTable, hashes_by_listing

IN_MEMORY = (Image.Image, np.ndarray, io.BytesIO)


def needed_inputs(
    rule: Rule,  # Says which modalities are compared
    encoder: AnyEncoder | None,  # Reads images, titles or both
) -> list[str]:
    "What a listing must have for a rule and an encoder: 'image', 'title'."
    inputs = [] if encoder is None else list(encoder.inputs)
    reads_titles = bool(set(TITLE_SPACES) & set(rule.reads))
    return [*inputs, 'title'] if reads_titles and 'title' not in inputs else inputs


def image_files_of(
    # Of a column of images: file names as `picture_names` takes them, images in memory, the bytes of a file
    # as `io.BytesIO`, or nothing
    value,
    folder,  # Folder that file names start from
) -> list:
    "The files with their folder, and images in memory as they are; empty where there are none."
    if isinstance(value, IN_MEMORY) and not several(value): return [value]
    in_memory = several(value) and any(isinstance(part, IN_MEMORY) for part in value)
    if in_memory: return [file for part in value for file in image_files_of(part, folder)]
    return [image_path(folder, name) for name in picture_names(value, folder)]


def embed_listings(
    df: pd.DataFrame,  # Listings, one a row
    folder,  # Folder of the images
    columns: Columns,  # Of `df`; its group and fold aren't read
    rule: Rule,  # What is going to decide: titles and perceptual hashes are read where it needs them
    encoder: AnyEncoder | None,  # None: the embeddings hold titles and hashes alone
    bs: int = 64,  # Listings a batch
    on_error: str = 'raise',  # 'raise' one error that lists all unusable rows, or 'skip' them
) -> tuple[Embeddings, pd.DataFrame]:  # The embeddings; what was skipped: `id`, `row`, `column`, `reason`
    "Read and embed a table of listings; raises `InputError` for missing columns, or if no row can be used."
    if on_error not in ('raise', 'skip'): raise InputError(f"on_error={on_error!r}: choose 'raise' or 'skip'")
    inputs = needed_inputs(rule, encoder)
    with_images = 'image' in inputs
    if with_images and not Path(folder).is_dir(): raise InputError(f'path={str(folder)!r} is not a folder')
    columns = _read_columns(columns, rule)
    df = with_names(df, columns.headers)
    if 'title' in inputs: df, columns = join_titles(df, columns)
    title_column = columns.title if 'title' in inputs else None
    text_columns = replace(columns, image=None, title=title_column, group=None, fold=None, phash=None)
    unusable = check_listings(df, columns=text_columns, min_rows=0, on_error='skip').skipped
    rows = np.setdiff1d(np.arange(len(df)), unusable.row.to_numpy(int))
    usable = df.iloc[rows]
    titles = [composed(title) for title in usable[columns.title]] if 'title' in inputs else None
    read = PictureTable(_image_files(df, usable, columns.image, folder)) if with_images else None

    known_hashes = 'phash' in rule.reads and columns.phash is not None and columns.phash in df
    vectors, unreadable, hashes = {}, {}, None
    if encoder is not None and len(rows):
        titles_read = None
        if 'title' in encoder.inputs:
            titles_read = titles if read is None else [titles[listing] for listing in read.listings]
        vectors, unreadable, hashes = encoder.embed(
            None if read is None else read.files, titles_read, bs,
            hashes=with_images and 'phash' in rule.reads and not known_hashes, stop=on_error == 'raise')
    if read is None: read = PictureTable([[None]] * len(rows))
    if with_images:
        reasons = [unreadable.get(position) for position in range(len(read.files))]
        check_some_exist(reasons, columns.image, [str(file) for file in read.files])
    read.unreadable = unreadable
    lost = read.lost(range(len(read.files)) if on_error == 'raise' else read.of_lost_listings)
    skipped = _all_skipped(unusable, usable, rows, read, lost, columns)
    if len(skipped) and on_error == 'raise': raise_unusable(skipped, columns.id)
    usable_positions = np.setdiff1d(np.arange(len(rows)), read.lost_listings)
    if not len(usable_positions):
        first_reason = f'; the first: {skipped.reason[0]}' if len(skipped) else ''
        raise InputError(f'none of the {len(df)} listings can be used{first_reason}')
    left_out = read.lost(np.setdiff1d(np.arange(len(read.files)), read.of_lost_listings))
    if left_out: warn_left_out(_skipped_pictures(usable, rows, read, left_out, columns), columns.id)

    kept, listings = read.kept()
    if known_hashes: hashes = usable[columns.phash].to_numpy(object)[usable_positions]
    elif hashes is not None: hashes = hashes_by_listing(hashes[kept], listings)
    usable = usable.iloc[usable_positions]
    embeddings = Embeddings(
        by_listing({modality: values[kept] for modality, values in vectors.items()}, listings),
        ids=usable[columns.id].to_numpy(),
        titles=None if titles is None else [titles[position] for position in usable_positions],
        phash=None if hashes is None else usable_hashes(hashes), made_with=_made_with(encoder, rule),
        fields=cells_of(usable, columns.fields),
        source=None if columns.source is None else usable[columns.source].to_numpy(object))
    return embeddings, skipped


def _read_columns(columns, rule):
    "The columns without those of fields and sources that the rule does not read."
    fields = {name: field for name, field in columns.fields.items() if name in rule.reads}
    if SOURCE in rule.reads and columns.source is None:
        raise InputError('the rule keeps listings of one source apart: say which column names it, '
                         "columns=Columns(source='shop')")
    return replace(columns, fields=fields, source=columns.source if SOURCE in rule.reads else None)


def _made_with(encoder, rule):
    "The encoder's settings, and how the rule compares listings of several pictures, where it knows."
    if encoder is None: return None
    pictures = pictures_of(rule)
    return encoder.made_with if pictures is None else {**encoder.made_with, 'pictures': pictures}


def _image_files(df, usable, column, folder):
    if column not in df:
        raise InputError(f'df lacks image_col={column!r}; its columns are: {", ".join(map(str, df.columns))}')
    return [image_files_of(value, folder) for value in usable[column]]


def _skipped_pictures(usable, rows, read, positions, columns):
    "Pictures that can't be read as a table: `id`, `row`, `column`, `reason`."
    broken = []
    for position in positions:
        listing, reason = read.listings[position], read.unreadable[position]
        file = read.files[position]
        cell = usable[columns.image].iloc[listing]
        is_one = np.sum(read.listings == listing) == 1
        named = cell if is_one and not several(cell) else getattr(file, 'name', file)
        full_reason = f'{named}: {reason}' if isinstance(file, (str, Path)) else reason
        broken.append({'id': usable[columns.id].iloc[listing], 'row': rows[listing],
                       'column': columns.image, 'reason': full_reason})
    return pd.DataFrame(broken)


def _all_skipped(unusable, usable, rows, read, lost, columns):
    "The rows with unusable text and those with unreadable pictures as one table, in the order of the rows."
    if not lost: return unusable
    broken = _skipped_pictures(usable, rows, read, lost, columns)
    return pd.concat([unusable, broken]).sort_values('row', kind='stable', ignore_index=True)
