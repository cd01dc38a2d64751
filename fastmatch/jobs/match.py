"The job behind `fastmatch match`: new listings as a saved matcher reads them, and the files written."
import os
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ..core import InputError
from ..data.kinds import cells_of
from ..data.read import check_columns, join_titles, text_columns_of
from ..data.split import usable_hashes
from ..data.table import unescape
from ..match import Embeddings
from ..match.embeddings import SOURCE
from ..matcher import match_file
from ..store import table_text, write_atomically
from .fields import columns_of_fields
from .listings import columns_of


def check_output(
    output: Path,  # File to write
    listings: Path,  # The table that is read
):
    "Raise `InputError` where `output` can't be written: to be asked before the work."
    if output.is_dir(): raise InputError(f'--out {output}: is a folder, give a file')
    if output.resolve() == listings.resolve():
        raise InputError(f'--out {output}: is the table of listings itself')
    if not output.parent.is_dir(): raise InputError(f'--out {output}: there is no folder {output.parent}')
    if not os.access(output.parent, os.W_OK):
        raise InputError(f'--out {output}: no right to write in {output.parent}')


def new_listings(
    listings,  # DataFrame as it was read
    matcher,  # `Matcher`
    column_names: dict,  # {'id_col': name or None, ...} as the user gave them
    images=None,  # Folder of the images
    embeddings=None,  # File .npz of vectors made elsewhere
    fields=(),  # 'price:cost': the matcher's field `price` stands in the column `cost`
):  # DataFrame, or `Embeddings`
    "The listings as `matcher.match` takes them: under its own column names, titles unescaped."
    reads_pictures = 'image' in matcher.inputs and embeddings is None
    if reads_pictures and images is None:
        raise InputError('this matcher reads pictures: give their folder as --images')
    own_names = matcher.columns.by_keyword()
    own_texts = text_columns_of(matcher.columns)
    own_names['title_col'] = _own_texts(own_texts, column_names.get('title_col'))
    for column in own_texts:
        if column in listings: listings[column] = unescape(listings[column])
    # the matcher's own names first: the table may come from the same place
    wanted = {role: given_name or _if_there(own_names[role], listings)
              for role, given_name in column_names.items()}
    required = ['id']
    if reads_pictures: required.append('image')
    if 'title' in matcher.inputs: required.append('title')
    if SOURCE in matcher.rule.reads: required.append('source')
    columns = columns_of(listings, wanted, tuple(required))
    for column in set(text_columns_of(columns)) - set(own_texts):
        listings[column] = unescape(listings[column])
    own_fields = matcher.columns.fields
    found_names = {**columns.by_keyword(), **columns_of_fields(fields, own_fields, listings)}
    own_names |= {name: field.column for name, field in own_fields.items()}
    listings = _renamed(listings, found_names, own_names)
    for field in own_fields.values():
        if field.kind == 'text' and field.column in listings:
            listings[field.column] = unescape(listings[field.column])
    return listings if embeddings is None else _embeddings(embeddings, listings, matcher)


def match_in_pieces(
    matcher,  # `Matcher`
    listings,  # Table of listings: .csv, .tsv or .parquet
    out,  # File to write: .csv or .parquet
    images,  # Folder of the images, or None
    column_names: dict,  # As for `new_listings`
    fields=(),  # As for `new_listings`
    echo=print,  # Called with a line of text
    **kwargs,  # For `match_file`
):
    "Match a table of any length, its columns found as `new_listings` finds them."
    def prepare(piece): return new_listings(piece, matcher, column_names, images, None, fields)
    done = match_file(matcher, listings, out, images or '.', prepare=prepare, echo=echo, **kwargs)
    echo(f'{done.listings} listings ({done.skipped} skipped), {done.matches} matches among {len(matcher)}; '
         f'wrote {out}')


def _own_texts(own_texts, given):
    """The matcher's columns of text that the given names stand for, in their order; the first one where none
    is given."""
    if not own_texts: return None
    if given is None or isinstance(given, str): return own_texts[0]
    if len(given) > len(own_texts):
        raise InputError(f'--title-col: {len(given)} are given, and this matcher reads {len(own_texts)} '
                         f'({", ".join(own_texts)})')
    return own_texts[:len(given)]


def _if_there(name, listings):
    return name if isinstance(name, str) and name in listings else None


def _renamed(listings, found_names, own_names):
    "The listings with the columns that were found under the matcher's own names."
    changed, own_columns = {}, set()
    for role, found in found_names.items():
        own, found = (name if isinstance(name, list) else [name] for name in (own_names[role], found))
        own_columns |= set(own)
        changed |= {column: own_name for column, own_name in zip(found, own)
                    if column is not None and own_name is not None}
    # a column that isn't used may have the name that a used one is going to get
    kept_columns = [column for column in listings if column in changed or column not in own_columns]
    return listings[kept_columns].rename(columns=changed)


def _embeddings(vectors_file, listings, matcher):
    "Vectors from a file, a row a listing, with what else the rule reads of the table."
    vectors, columns = _read_vectors(vectors_file), matcher.columns
    fields = {name: field for name, field in columns.fields.items() if name in matcher.rule.reads}
    check_columns(listings, replace(columns, fields=fields).by_field())
    source = listings[columns.source].to_numpy(object) if SOURCE in matcher.rule.reads else None
    _refuse_blank(listings, columns.id, 'id')
    if any(column in listings for column in text_columns_of(columns)):
        listings, columns = join_titles(listings, columns)
    if columns.title in listings: _refuse_blank(listings, columns.title, 'title')
    titles = listings[columns.title] if columns.title in listings else None
    hashes = usable_hashes(listings[columns.phash]) if columns.phash in listings else None
    return Embeddings(vectors, listings[columns.id], titles=titles, phash=hashes,
                      fields=cells_of(listings, fields), source=source)


def _read_vectors(vectors_file):
    # a .npy is no context manager, and a broken zip has an error of its own
    unreadable = (OSError, ValueError, EOFError, TypeError, AttributeError, BadZipFile)
    try:
        with np.load(vectors_file, allow_pickle=False) as arrays:
            vectors = {modality: arrays[modality] for modality in arrays.files}
    except unreadable as error:
        raise InputError(f'--embeddings {vectors_file}: no .npz of numbers ({error})') from error
    malformed = {modality: f'{array.dtype} {array.shape}' for modality, array in vectors.items()
                 if array.ndim != 2 or array.dtype.kind not in 'fiu'}
    if malformed:
        raise InputError(f'--embeddings {vectors_file}: {malformed}; '
                         'give numbers of shape (listings, dimensions)')
    return vectors


def _refuse_blank(listings, column, expected):
    is_blank = listings[column].isna().to_numpy()
    if is_blank.any(): raise InputError(f'{column}: row {int(is_blank.argmax())} has no {expected}')


def write_matches(
    result,  # `MatchResult`
    output: Path,  # File to write: posting_id, matches
    scores: bool = False,  # Also write a .pairs.csv beside it, a row a match with its scores and its reason
) -> list[Path]:
    "Write what was found, each file whole or not at all; returns the files."
    write_atomically(output, table_text(result.to_frame()))
    if not scores: return [output]
    pairs_file = output.with_suffix('.pairs.csv')
    write_atomically(pairs_file, table_text(result.pairs()))
    return [output, pairs_file]
