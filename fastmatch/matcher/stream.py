"""Match a table of any length in bounded memory, piece by piece, and go on after a kill.

Beside the output lie, while it is made, `NAME.part`, the pieces that are done, and `NAME.part.json`, how many
these are. The same call again goes on behind the last whole piece: the finished file has the same bytes as
that of a run that nobody stopped.
"""
import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from glob import escape
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ..core import InputError
from ..data.pieces import as_parquet, csv_text, table_pieces
from ..store import canonical_json, fingerprint, write_atomically
from .stored import StoredEncoder

ROWS = 4096  # listings a piece
OUTPUTS = '.csv', '.parquet'


@dataclass
class Progress:
    "How far a table is matched."
    run: str  # Hash over the table, the matcher and the options
    pieces: int = 0  # Whole pieces that are done
    size: int = 0  # Bytes of the part that they take
    listings: int = 0  # That were read
    matches: int = 0  # That were found
    skipped: int = 0  # Listings that can't be used


def match_file(
    matcher,  # `Matcher`
    listings,  # Table of listings: .csv, .tsv or .parquet
    out,  # File to write, .csv or .parquet: posting_id, matches
    path='.',  # Folder of the images
    *,
    rows: int = ROWS,  # Listings a piece, all that is in memory at a time
    store=None,  # SQLite file that keeps embeddings by content: another run embeds only what is new
    prepare=None,  # Function of a piece of the table as it was read -> DataFrame as `Matcher.match` takes it
    encoding: str = 'utf-8',  # Of a text table
    bs: int = 64,  # Listings a batch
    on_error: str = 'raise',  # 'raise', or 'skip' listings that can't be used
    echo=lambda line: None,  # Called with a line of text for each skipped listing, and where a run goes on
) -> Progress:
    """Match each listing of a table with the catalogue, a piece at a time; the listings of the table are not
    matched with each other.

    A call that was killed is gone on with by the same call. Raises `InputError` where `out` is half written
    by another call, and for rules that need the new listings' own neighbors (`within=False` of `match`).
    """
    out = Path(out)
    if out.suffix.lower() not in OUTPUTS:
        raise InputError(f'out={out}: a table in pieces is written as {" or ".join(OUTPUTS)}')
    part, progress_file = out.with_name(f'{out.name}.part'), out.with_name(f'{out.name}.part.json')
    options = {'rows': rows, 'bs': bs, 'on_error': on_error, 'out': out.suffix.lower()}
    progress = _progress(progress_file, part, _run_hash(matcher, listings, options))
    if progress.pieces: echo(f'going on after {progress.listings} listings')
    if store is not None: matcher = _with_store(matcher, store)
    with open(part, 'r+b' if part.exists() else 'w+b') as stream:
        # what a kill left of a piece that isn't counted
        stream.truncate(progress.size)
        stream.seek(progress.size)
        pieces = enumerate(table_pieces(listings, rows, encoding))
        with tqdm(desc='matching', unit=' listings', initial=progress.listings, delay=2,
                  leave=False) as progress_bar:
            for number, piece in pieces:
                if number < progress.pieces: continue
                result = _match_piece(matcher, piece, path, prepare, bs, on_error)
                _say_skipped(result.skipped, progress.listings, echo)
                stream.write(csv_text(result.to_frame(), header=number == 0))
                stream.flush()
                os.fsync(stream.fileno())
                progress = replace(
                    progress, pieces=number + 1, size=stream.tell(), listings=progress.listings + len(piece),
                    matches=progress.matches + len(result.matches.ids) - len(result),
                    skipped=progress.skipped + len(result.skipped))
                write_atomically(progress_file, json.dumps(asdict(progress)))
                progress_bar.update(len(piece))
    _finish(part, out, rows)
    progress_file.unlink()
    # what kills left of files that were being written
    for leftover in out.parent.glob(f'.{escape(progress_file.name)}.*'): leftover.unlink()
    return progress


def _match_piece(matcher, piece, path, prepare, bs, on_error):
    table = piece if prepare is None else prepare(piece)
    return matcher.match(table, path, within=False, bs=bs, on_error=on_error)


def _say_skipped(skipped, first_row, echo):
    for listing in skipped.itertuples():
        echo(f'skipped row {first_row + listing.row} ({listing.id}), {listing.column}: {listing.reason}')


def _finish(part, out, rows):
    "The part as the output, which is there whole or not at all."
    if out.suffix.lower() == '.parquet':
        converted = part.with_name(f'{part.name}.parquet')
        as_parquet(part, converted, rows)
        os.replace(converted, out)
        part.unlink()
    else: os.replace(part, out)


def _progress(progress_file, part, run):
    "What an earlier call got done; raises `InputError` where that was another one."
    if not progress_file.is_file() or not part.is_file(): return Progress(run)
    earlier = Progress(**json.loads(progress_file.read_text(encoding='utf-8')))
    if earlier.run != run:
        raise InputError(f'{part}: is half of another run (another table, matcher or options): remove it and '
                         f'{progress_file.name}, or give another file to write')
    return earlier


def _run_hash(matcher, listings, options):
    "A hash over all that the output hangs on."
    with open(listings, 'rb') as stream: table = hashlib.file_digest(stream, 'sha256').hexdigest()
    vectors = {modality: fingerprint(space.vectors) for modality, space in matcher.spaces.items()
               if isinstance(getattr(space, 'vectors', None), np.ndarray)}
    known = hashlib.sha256('\n'.join(matcher.ids).encode()).hexdigest()
    made_with = None if matcher.encoder is None else matcher.encoder.made_with
    content = {'table': table, 'vectors': vectors, 'known': known, 'made_with': made_with,
               'rule': matcher.rule.to_dict(), **options}
    return hashlib.sha256(canonical_json(content)).hexdigest()


def _with_store(matcher, store):
    "The matcher with an encoder that keeps what it embeds."
    if matcher.encoder is None: raise InputError('store: the matcher has no encoder whose vectors to keep')
    return type(matcher)(matcher.rule, matcher.catalogue, StoredEncoder(matcher.encoder, store),
                         matcher.columns, matcher.info)
