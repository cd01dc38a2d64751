"""The jobs behind `fastmatch add`, `remove`, `groups`, `why`, `split`, `verdicts`, `events`, `undo`: files in
and out."""
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from ..catalogue import Catalogue, Changes
from ..core import InputError, preview
from ..data.table import read_table
from ..match.cells import texts_of
from ..store import table_text, write_atomically
from .match import check_output, new_listings

PIECE = 5_000  # listings that are added as one event: so many are embedded again after a kill
SAME = {'same': True, 'not the same': False, '1': True, '0': False, 'true': True, 'false': False}


def open_catalogue(
    file: Path,  # Of the catalogue
    matcher: Path | None,  # Folder of the matcher; None: the one that it was last used with
    device: str | None = None,  # Where the encoder runs
    create: bool = False,  # Make the file where it isn't there
) -> Catalogue:
    "A catalogue with its matcher, whose folder is remembered."
    from ..matcher import load_matcher
    file = Path(file)
    if create and not file.exists():
        if matcher is None: raise InputError(f'{file}: is new: say which matcher decides, --matcher FOLDER')
        catalogue = Catalogue.create(file, load_matcher(matcher, device))
    else:
        if matcher is None: matcher = _remembered(file)
        catalogue = Catalogue(file, load_matcher(matcher, device))
    catalogue.remember('matcher', str(Path(matcher).resolve()))
    return catalogue


def _remembered(file):
    with Catalogue(file) as reader: folder = reader.remembered('matcher')
    if folder is None: raise InputError(f'{file}: no matcher is known: give its folder, --matcher FOLDER')
    if not Path(folder).is_dir():
        raise InputError(f'{file}: its matcher was in {folder}, which is not there: give --matcher FOLDER')
    return folder


def add_file(
    catalogue: Catalogue,
    table: Path,  # Table of listings
    images: Path | None = None,  # Folder of the images
    *,
    encoding: str = 'utf-8',  # Of a text table
    dry_run: bool = False,  # Say what would change, and keep nothing
    echo=print,  # Called with a line of text
    **options,  # Of `Catalogue.add`: on_known, on_error, who, reason
) -> list[Changes]:
    """Add the listings of a file in pieces, each whole or not at all; after a kill the same call with
    on_known='skip' goes on."""
    columns = {f'{role}_col': None for role in ('id', 'image', 'title', 'phash', 'source')}
    try: listings = new_listings(read_table(table, encoding), catalogue.matcher, columns, images)
    except InputError as error:
        if '-col' not in str(error): raise
        # columns are named by options elsewhere, not here
        raise InputError(f'{table}: {error}. Here they are found by their names alone: rename them in the '
                         'table') from error
    _check_ids(catalogue, listings, options.get('on_known', 'raise'))
    piece = max(1, len(listings)) if dry_run else PIECE
    done = []
    for start in tqdm(range(0, len(listings), piece), desc='add', delay=2, disable=piece >= len(listings)):
        changes = catalogue.add(listings.iloc[start:start + piece], images or '.', dry_run=dry_run, **options)
        echo(repr(changes))
        if changes.skipped is not None:
            for row in changes.skipped.itertuples():
                echo(f'skipped row {start + row.row} ({row.id}), {row.column}: {row.reason}')
        done.append(changes)
    return done


def _check_ids(catalogue, listings, on_known):
    "What is wrong in a later piece is to be told before the first one is written."
    ids = pd.Series(texts_of(listings[catalogue.matcher.columns.id])).dropna()
    twice = ids[ids.duplicated()].unique()
    if len(twice): raise InputError(f'ids given twice: {preview(twice)}')
    known = [listing for listing in catalogue.known(ids)]
    if known and on_known == 'raise':
        raise InputError(f'in the catalogue already: {preview(known)}; --on-known skip or replace')


def explain(
    file: Path,  # Of the catalogue
    first: str,  # Id of a listing
    second: str | None = None,  # Id of another one
):  # `Why`
    """Why a listing is in its group, or two are in one or in two; how similar two that are apart are, where
    the matcher that was last used is still there."""
    with Catalogue(file) as reader:
        answer = reader.why(first, second)
        folder = reader.remembered('matcher')
        apart = second is not None and reader.group_of(first) != reader.group_of(second)
    is_asked = apart and not len(answer.frame) and folder is not None and Path(folder).is_dir()
    if not is_asked: return answer
    with open_catalogue(file, Path(folder)) as opened: return opened.why(first, second)


def write_events(
    file: Path,  # Of the catalogue
    out: Path | None = None,  # File to write; None: none
    last: int | None = None,  # Only so many, the last ones
) -> str:  # What to print
    "The events of a catalogue: as a table of a file, or as text."
    with Catalogue(file) as reader: events = reader.events(last)
    if out is not None: return write_table(events, out, file)
    return events.drop(columns='detail').to_string(index=False) if len(events) else 'no event yet'


def remove_listings(
    catalogue: Catalogue,
    ids: list,  # Of listings, or one file with a column of ids
    **options,  # Of `Catalogue.remove`
) -> Changes:
    "Take listings out, by id or by a file with a column posting_id."
    if len(ids) == 1 and Path(ids[0]).is_file(): ids = _column_of(ids[0], ('posting_id', 'id'))
    return catalogue.remove(ids, **options)


def _column_of(file, names):
    table = read_table(file)
    found = next((name for name in names if name in table), None)
    if found is None: raise InputError(f'{file}: has no column {" or ".join(names)}; it has {list(table)}')
    return [listing for listing in texts_of(table[found]) if listing is not None]


def write_table(
    table,  # DataFrame
    out: Path,  # File to write
    catalogue: Path,  # The catalogue's file, which is not to be written over
) -> str:  # What was written, in words
    "Write a table whole or not at all."
    check_output(out, catalogue)
    write_atomically(out, table_text(table))
    return f'wrote {out}: {len(table)} rows'


def read_verdicts(
    file: Path,  # Table: first, second, same
) -> list:  # Rows (first, second, same)
    "Verdicts from a file; `same` is 1 or 0, true or false, 'same' or 'not the same'."
    table = read_table(file)
    missing = [name for name in ('first', 'second', 'same') if name not in table]
    if missing: raise InputError(f'{file}: has no column {preview(missing)}; it has {list(table)}')
    first, second = (texts_of(table[name]) for name in ('first', 'second'))
    rows = []
    for row, (one, other, said) in enumerate(zip(first, second, texts_of(table['same']))):
        if one is None or other is None: raise InputError(f'{file}: row {row} lacks an id')
        # not judged yet: a list of close calls that somebody began with
        if said is None: continue
        if said.lower() not in SAME:
            raise InputError(f'{file}: row {row}: same={said!r}: give {", ".join(SAME)}')
        rows.append((one, other, SAME[said.lower()]))
    if not rows: raise InputError(f'{file}: no row says anything in the column same')
    return rows
