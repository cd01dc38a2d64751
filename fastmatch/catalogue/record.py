"What a catalogue's file holds, read and written: listings, vectors, pairs, verdicts, groups and events."
import json
import time

import numpy as np

from ..core import InputError, preview
from ..match import Embeddings
from ..match.spaces.picture_sets import Pictures

CHUNK = 50_000  # rows that are read or written together


class Record:
    "The tables of an open catalogue; nothing here decides anything."
    def __init__(
        self,
        connection,  # As `schema.connect` gives it
    ):
        self.connection = connection
        self.execute = connection.execute

    def rows(
        self,
        statement: str,  # With one ? for the list
        numbers,  # Whole numbers or texts, as many as there are
    ) -> list:
        "The rows of a statement with a list in it: `... in (select value from json_each(?))`."
        values = numbers.tolist() if isinstance(numbers, np.ndarray) else list(numbers)
        found = []
        for start in range(0, len(values), CHUNK):
            found += self.execute(statement, (json.dumps(values[start:start + CHUNK]),)).fetchall()
        return found

    # --- settings and events

    def setting(self, name: str):  # What was kept, None where nothing was
        "What was kept under a name."
        row = self.execute('select content from setting where name = ?', (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def keep_setting(self, name: str, content):
        "Keep anything that json takes under a name."
        self.execute('insert or replace into setting values (?, ?)', (name, json.dumps(content)))

    def last_event(self) -> int:
        "The number of the last event, 0 before the first."
        return self.execute('select coalesce(max(number), 0) from event').fetchone()[0]

    def add_event(self, kind: str, who: str, reason: str, detail: dict) -> int:
        "A new event; its number."
        now = time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime())
        return self.execute('insert into event (kind, time, who, reason, detail) values (?, ?, ?, ?, ?)',
                            (kind, now, who, reason, json.dumps(detail))).lastrowid

    # --- listings

    def numbers_of(
        self,
        ids,  # Texts
        what: str = 'not in the catalogue',  # Said of ids that are not there; '': they are left out
    ) -> dict:  # Id -> its number
        "The numbers of listings that are there."
        ids = [str(listing) for listing in ids]
        found = dict(self.rows('select id, number from listing where removed is null and id in '
                               '(select value from json_each(?))', ids))
        missing = [listing for listing in ids if listing not in found]
        if missing and what: raise InputError(f'{what}: {preview(missing)}')
        return found

    def names_of(self, numbers) -> dict:  # Number -> id
        "The ids of listings by number."
        return dict(self.rows('select number, id from listing where number in '
                              '(select value from json_each(?))', numbers))

    def groups_of(self, numbers) -> dict:  # Number of a listing -> its group
        "The groups of listings that are there."
        return dict(self.rows('select number, grp from listing where removed is null and number in '
                              '(select value from json_each(?))', numbers))

    def count(self) -> int:
        "How many listings are there."
        return self.execute('select count(*) from listing where removed is null').fetchone()[0]

    def present(self) -> np.ndarray:  # int64 (n,), rising
        "The numbers of all listings that are there."
        rows = self.execute('select number from listing where removed is null order by number')
        return np.array([number for number, in rows], np.int64)

    def add_listings(
        self,
        embeddings: Embeddings,  # Of the new listings
        pictures: list | None,  # File names of each, None where they aren't known
        encoder: str,  # Fingerprint of what embedded them
        event: int,
    ) -> np.ndarray:  # int64 (m,), their numbers
        "Write listings with all that is known of them; they have no group yet."
        start = self.execute("select coalesce((select seq from sqlite_sequence where name = 'listing'), 0)"
                             ).fetchone()[0]
        numbers = np.arange(start + 1, start + 1 + len(embeddings))
        fields = [json.dumps({name: _plain(column.cells[row]) for name, column in embeddings.fields.items()})
                  for row in range(len(embeddings))] if embeddings.fields else [None] * len(embeddings)
        nothing = [None] * len(embeddings)
        hashes = nothing if embeddings.phash is None else [
            None if cell is None else json.dumps(cell) for cell in embeddings.phash]
        columns = zip(numbers.tolist(), [str(listing) for listing in embeddings.ids],
                      nothing if embeddings.titles is None else embeddings.titles,
                      nothing if pictures is None else [None if cell is None else json.dumps(cell)
                                                        for cell in pictures],
                      hashes, nothing if embeddings.source is None else embeddings.source.tolist(), fields,
                      [event] * len(embeddings))
        self.connection.executemany(
            'insert into listing (number, id, title, pictures, phash, source, fields, added, grp) '
            'values (?, ?, ?, ?, ?, ?, ?, ?, 0)', columns)
        self.add_vectors(embeddings, numbers, encoder)
        return numbers

    def add_vectors(self, embeddings, numbers, encoder: str):
        "Write the vectors of listings; of several pictures all, one behind the other."
        for modality, means in embeddings.items():
            if modality in embeddings.pictures:
                vectors, listings = embeddings.pictures[modality]
                parts = np.split(vectors, np.searchsorted(listings, np.arange(1, len(numbers))))
            else: parts = means
            self.connection.executemany(
                'insert or replace into vector values (?, ?, ?, ?)',
                ((encoder, modality, number, np.ascontiguousarray(part, '<f4').tobytes())
                 for number, part in zip(numbers.tolist(), parts)))

    def add_keys(self, kind: str, keys, numbers: np.ndarray):
        "Write the exact keys of listings: `keys` (m,) texts, None, or tuples of several."
        rows = [(kind, content, number) for key, number in zip(keys, numbers.tolist()) if key is not None
                for content in (key if isinstance(key, tuple) else (key,))]
        self.connection.executemany('insert into key values (?, ?, ?)', rows)

    def embeddings(
        self,
        numbers: np.ndarray,  # int64 (m,), of listings
        encoder: str,  # Whose vectors
        widths: dict,  # Modality -> numbers of a vector
        fields: dict,  # Name -> `Field`
        made_with: dict | None = None,  # Settings of the encoder
    ) -> Embeddings:
        "All that is known of listings, in the order of `numbers`."
        order = {number: place for place, number in enumerate(numbers.tolist())}
        rows = self.rows('select number, id, title, phash, source, fields from listing where number in '
                         '(select value from json_each(?))', numbers)
        rows.sort(key=lambda row: order[row[0]])
        titles, hashes, sources, cells = ([row[place] for row in rows] for place in (2, 3, 4, 5))
        hashes = [None if cell is None else json.loads(cell) for cell in hashes]
        columns = {}
        if fields:
            read = [json.loads(cell or '{}') for cell in cells]
            columns = {name: (field, [listing.get(name) for listing in read])
                       for name, field in fields.items()}
        vectors = {modality: self._vectors(numbers, encoder, modality, width)
                   for modality, width in widths.items()}
        return Embeddings(
            vectors, [row[1] for row in rows],
            titles=None if any(title is None for title in titles) else titles,
            phash=None if all(cell is None for cell in hashes) else hashes, made_with=made_with,
            fields=columns, source=None if any(source is None for source in sources) else sources)

    def _vectors(self, numbers, encoder, modality, width):
        found = dict(self.rows(
            f"""select listing, numbers from vector where encoder = '{encoder}' and modality = '{modality}'
            and listing in (select value from json_each(?))""", numbers))
        blobs = [found.get(number) for number in numbers.tolist()]
        counts = np.array([0 if blob is None else len(blob) // (4 * width) for blob in blobs])
        if not counts.all():
            raise InputError(f'{modality}: {int((counts == 0).sum())} listings have no vector')
        vectors = np.frombuffer(b''.join(blobs), '<f4').reshape(-1, width).astype(np.float32, copy=False)
        if (counts == 1).all(): return vectors
        return Pictures(vectors, np.repeat(np.arange(len(numbers)), counts))

    def take_out(self, numbers, event: int):
        "Let listings be no longer there; what is known of them stays, so that the event can be undone."
        values = [(event, int(number)) for number in numbers]
        self.connection.executemany('update listing set removed = ? where number = ?', values)
        gone = [(number,) for _, number in values]
        for statement in ('delete from key where listing = ?', 'delete from edge where first = ?',
                          'delete from edge where second = ?'):
            self.connection.executemany(statement, gone)

    # --- pairs and verdicts

    def add_edges(self, edges):
        """Write pairs that match: rows (first, second, score, scores as json, reason, 1 where it stands at
        any threshold)."""
        self.connection.executemany('insert or replace into edge values (?, ?, ?, ?, ?, ?)', edges)

    def pairs_at(self, numbers, threshold: float | None) -> list:  # Rows (first, second, score)
        "The pairs of some listings that match at a threshold; None: all that are kept, close calls too."
        condition = '' if threshold is None else f'(score >= {threshold!r} or stands) and'
        return list(set(self.rows(f'select first, second, score from edge where {condition} first in '
                                  '(select value from json_each(?))', numbers)
                        + self.rows(f'select first, second, score from edge where {condition} second in '
                                    '(select value from json_each(?))', numbers)))

    def verdicts(self, ids=None) -> list:  # Rows (first id, second id, same)
        "What people last said of each pair; of pairs with a listing among `ids`, where these are given."
        last = ('select first, second, same, max(number) from verdict where withdrawn is null {} '
                'group by first, second')
        if ids is None: rows = self.execute(last.format('')).fetchall()
        else:
            rows = [row for side in ('first', 'second') for row in self.rows(
                last.format(f'and {side} in (select value from json_each(?))'), list(ids))]
        return [row[:3] for row in dict.fromkeys(rows)]

    def groups_with_apart(self) -> set:  # Numbers of groups; 0: listings that have none yet
        "The groups of listings that people called different from another one."
        sides = (f'select grp from verdict join listing on id = {side} where same = 0 and withdrawn is null '
                 'and removed is null' for side in ('first', 'second'))
        return {group for group, in self.execute(' union '.join(sides))}

    def add_verdicts(self, event: int, rows):
        "Write verdicts: rows (id, other id, same), each pair in the order of the ids."
        self.connection.executemany(
            'insert into verdict (event, first, second, same) values (?, ?, ?, ?)',
            [(event, *sorted((first, second)), int(same)) for first, second, same in rows])

    # --- groups

    def resolve(self, group: int) -> int:
        "The number that a group goes by now; raises `InputError` where it has no listing, or never was."
        seen = group
        while True:
            row = self.execute('select merged, closed from grp where number = ?', (seen,)).fetchone()
            if row is None: raise InputError(f'group {group}: there is none of this number')
            if row[0] is None: break
            seen = row[0]
        if row[1] is not None: raise InputError(f'group {group}: has no listings any more')
        return seen

    def members(self, groups) -> list:  # Rows (number of a listing, group)
        "The listings of groups."
        return self.rows('select number, grp from listing where removed is null and grp in '
                         '(select value from json_each(?))', groups)


def _plain(cell):
    "A cell as json takes it: missing ones as None."
    if isinstance(cell, np.generic): cell = cell.item()
    if isinstance(cell, float) and cell != cell: return None
    return cell if cell is None or isinstance(cell, (str, int, float, bool, list, tuple)) else str(cell)
