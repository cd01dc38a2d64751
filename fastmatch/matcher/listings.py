"From a table of listings to their embeddings: all rows that can't be used are listed at once."
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..core import InputError
from ..data.columns import Columns
from ..data.image import file_name, image_path
from ..data.kinds import cells_of
from ..data.read import check_listings, check_some_exist, join_titles, raise_unusable, with_names
from ..data.split import usable_hashes
from ..match import Embeddings, Rule
from ..match.cells import composed
from ..match.embeddings import SOURCE
from .catalogue import TITLE_SPACES
from .encode import Encoder


def needed_inputs(
    rule: Rule,  # Says which modalities are compared
    encoder: Encoder | None,  # Reads images, titles or both
) -> list[str]:
    "What a listing must have for a rule and an encoder: 'image', 'title'."
    inputs = [] if encoder is None else list(encoder.inputs)
    reads_titles = bool(set(TITLE_SPACES) & set(rule.reads))
    return [*inputs, 'title'] if reads_titles and 'title' not in inputs else inputs


def image_file(
    value,  # Of a table's column of images: a file name, an image in memory, or nothing
    folder,  # Folder that file names start from
):
    "The file with its folder, an image in memory as it is, or None where there is none."
    if isinstance(value, (Image.Image, np.ndarray)): return value
    return None if file_name(value) is None else image_path(folder, value)


def embed_listings(
    df: pd.DataFrame,  # Listings, one a row
    folder,  # Folder of the images
    columns: Columns,  # Of `df`; its group and fold aren't read
    rule: Rule,  # What is going to decide: titles and perceptual hashes are read where it needs them
    encoder: Encoder | None,  # Embeds pictures and titles; None: the embeddings hold titles and hashes alone
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
    files = _image_files(df, usable, columns.image, folder) if with_images else None

    known_hashes = 'phash' in rule.reads and columns.phash is not None and columns.phash in df
    vectors, unreadable = {}, {}
    hashes = None
    if encoder is not None and len(rows):
        vectors, unreadable, hashes = encoder.embed(
            files, titles if 'title' in encoder.inputs else None, bs,
            hashes=with_images and 'phash' in rule.reads and not known_hashes, stop=on_error == 'raise')
    if with_images:
        reasons = [unreadable.get(position) for position in range(len(rows))]
        check_some_exist(reasons, columns.image, [str(file) for file in files])
    skipped = _all_skipped(unusable, usable, rows, files, unreadable, columns)
    if len(skipped) and on_error == 'raise': raise_unusable(skipped, columns.id)
    if len(rows) == len(unreadable):
        first_reason = f'; the first: {skipped.reason[0]}' if len(skipped) else ''
        raise InputError(f'none of the {len(df)} listings can be used{first_reason}')

    usable_positions = np.setdiff1d(np.arange(len(rows)), list(unreadable))
    if known_hashes: hashes = usable[columns.phash].to_numpy(object)
    embeddings = Embeddings(
        {modality: values[usable_positions] for modality, values in vectors.items()},
        ids=usable[columns.id].iloc[usable_positions].to_numpy(),
        titles=None if titles is None else [titles[position] for position in usable_positions],
        phash=None if hashes is None else usable_hashes(hashes)[usable_positions],
        made_with=None if encoder is None else encoder.made_with,
        fields=cells_of(usable.iloc[usable_positions], columns.fields),
        source=(None if columns.source is None
                else usable[columns.source].iloc[usable_positions].to_numpy(object)))
    return embeddings, skipped


def _read_columns(columns, rule):
    "The columns without those of fields and sources that the rule does not read."
    fields = {name: field for name, field in columns.fields.items() if name in rule.reads}
    if SOURCE in rule.reads and columns.source is None:
        raise InputError('the rule keeps listings of one source apart: say which column names it, '
                         "columns=Columns(source='shop')")
    return replace(columns, fields=fields, source=columns.source if SOURCE in rule.reads else None)


def _image_files(df, usable, column, folder):
    if column not in df:
        raise InputError(f'df lacks image_col={column!r}; its columns are: {", ".join(map(str, df.columns))}')
    return [image_file(value, folder) for value in usable[column]]


def _all_skipped(unusable, usable, rows, files, unreadable, columns):
    "The rows with unusable text and those with unreadable pictures as one table, in the order of the rows."
    if not unreadable: return unusable
    broken = []
    for position, reason in unreadable.items():
        filename = usable[columns.image].iloc[position]
        full_reason = f'{filename}: {reason}' if isinstance(files[position], (str, Path)) else reason
        broken.append({'id': usable[columns.id].iloc[position], 'row': rows[position],
                       'column': columns.image, 'reason': full_reason})
    return pd.concat([unusable, pd.DataFrame(broken)]).sort_values('row', kind='stable', ignore_index=True)
