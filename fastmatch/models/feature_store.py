"""Feature vectors in a file, kept by the content of the pictures that they were made of.

The file is an SQLite database. A process that is killed loses what it hadn't committed and nothing else, and
several processes may write at once: SQLite's transactions see to both.
"""
import json
import os
import sqlite3
import time
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from ..core import InputError

ASKED_AT_ONCE = 500  # contents in one query: SQLite before 3.32 takes 999
WAIT = 60.  # seconds that a process waits for others that write
DTYPES = 'float32', 'float16'
# between the features of one picture, then and now, as a share of the largest: a GPU's differ from a CPU's
TOLERANCE = .01


class FeatureStore:
    """The features that one encoder makes of pictures, in one file; `settings` say how it makes them.

    No connection is kept open, so that worker processes of a dataloader can use it. Raises `InputError`
    naming the file where that is damaged, or holds the features of another encoder. Where it can't be
    written, because it lies on a disk for reading only, it is read all the same.
    """
    def __init__(
        self,
        file,  # Made if it isn't there, with its folder
        settings: dict,  # Plain values for json: what the features are made with
        probe: np.ndarray,  # float32 (d,): the encoder's features of a picture that is always the same
        dtype: str = 'float32',  # How numbers are kept: 'float32', or 'float16' in half the space
    ):
        self.file = Path(file)
        self.settings = json.dumps(settings, sort_keys=True)
        self.n_out = len(probe)
        self.dtype = np.dtype(dtype)
        try: self.file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error: raise InputError(f'folder={str(self.file.parent)!r}: {error}') from error
        self._compare(self._about() or self._make(probe), probe)

    def __len__(self):
        with self._connected() as connection:
            return connection.execute('SELECT count(*) FROM features').fetchone()[0]

    def get(
        self,
        contents: list[bytes],  # Hashes of pictures
    ) -> dict:  # Content -> float32 (d,), of those that are there
        "The features of pictures by the hash of their content."
        found = {}
        with self._connected() as connection:
            for start in range(0, len(contents), ASKED_AT_ONCE):
                asked = contents[start:start + ASKED_AT_ONCE]
                marks = ', '.join('?' * len(asked))
                rows = connection.execute(
                    f'SELECT content, vector FROM features WHERE content IN ({marks})', asked)
                found.update((content, self._array(blob)) for content, blob in rows)
        return found

    def put(
        self,
        vectors: dict,  # Content -> float32 (d,)
    ):
        "Keep features, all of them or none; of a content that is there already the first ones stay."
        if not vectors: return
        if self._is_for_reading():
            raise InputError(f'{self.file}: lacks {len(vectors)} pictures and can not be written: copy its '
                             'folder to where it can')
        rows = [(content, vector.astype(self.dtype).tobytes()) for content, vector in vectors.items()]
        with self._connected() as connection, _transaction(connection):
            connection.executemany('INSERT OR IGNORE INTO features VALUES (?, ?)', rows)

    def _array(self, blob):
        "A vector as it was put in."
        n_bytes = self.n_out * self.dtype.itemsize
        if len(blob) != n_bytes:
            raise InputError(f'{self.file}: damaged: holds a vector of {len(blob)} bytes and not {n_bytes}; '
                             'remove the file, and it is made anew')
        return np.frombuffer(blob, self.dtype).astype(np.float32)

    def _about(self):
        "What the file says about its features; None where it says nothing yet."
        if not self.file.exists(): return None
        with self._connected() as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'about'").fetchall()
            return dict(connection.execute('SELECT name, value FROM about')) if tables else None

    def _make(self, probe):
        "Make the tables, where no other process has done so meanwhile; what the file says then."
        about = {'settings': self.settings, 'probe': probe.astype(np.float32).tobytes()}
        with self._connected() as connection:
            _write_ahead(connection)
            with _transaction(connection):
                connection.execute('CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value BLOB)')
                connection.execute('CREATE TABLE IF NOT EXISTS features '
                                   '(content BLOB PRIMARY KEY, vector BLOB NOT NULL)')
                connection.executemany('INSERT OR IGNORE INTO about VALUES (?, ?)', about.items())
        return self._about()

    def _compare(self, about, probe):
        "Raise `InputError` unless the file holds what this encoder makes."
        if about['settings'] != self.settings:
            raise InputError(f'{self.file}: holds features made with {about["settings"]}')
        earlier = np.frombuffer(about['probe'], np.float32)
        difference = np.abs(earlier - probe).max() / max(np.abs(earlier).max(), 1e-9)
        if not difference < TOLERANCE:
            raise InputError(f'{self.file}: holds what these weights made of pictures, and now they make '
                             f'something else of the same one ({difference:.2g} of the largest number): give '
                             'another folder')

    def _is_for_reading(self):
        "Whether the file is there and can't be written."
        if not self.file.exists(): return False
        return not all(os.access(path, os.W_OK) for path in (self.file, self.file.parent))

    @contextmanager
    def _connected(self):
        "A connection whose errors name the file."
        # SQLite writes beside a file even to read it, unless it is told that nobody changes the file
        address = f'{self.file.absolute().as_uri()}{"?immutable=1" if self._is_for_reading() else ""}'
        try:
            with closing(sqlite3.connect(address, WAIT, isolation_level=None, uri=True)) as connection:
                yield connection
        # locked for too long, a full disk
        except sqlite3.OperationalError as error: raise InputError(f'{self.file}: SQLite: {error}') from error
        except sqlite3.DatabaseError as error:
            raise InputError(f'{self.file}: damaged, or no store of features ({error}): remove the file, and '
                             'it is made anew') from error


@contextmanager
def _transaction(connection):
    "Write all that is executed meanwhile, or nothing of it."
    connection.execute('BEGIN IMMEDIATE')
    try: yield
    except BaseException:
        connection.execute('ROLLBACK')
        raise
    connection.execute('COMMIT')


def _write_ahead(connection):
    "Let others read while one writes; SQLite itself doesn't wait for others here."
    give_up_at = time.monotonic() + WAIT
    while True:
        try: return connection.execute('PRAGMA journal_mode=WAL')
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at: raise
            time.sleep(.02)
