"""Pictures as they are after decoding and resizing, kept in a folder: each is decoded once, for all epochs,
trainings and processes.

`pictures.sqlite` says where in which file (`*.pixels`, mapped into memory) the pixels of a picture lie. A
picture is known by the sha256 of its file's content and by how it was resized: files that were renamed,
copied or mounted elsewhere are known again. Of a file with the same path, size and time of change the content
isn't read; as file systems tell time coarsely, that doesn't hold within two seconds after a change.

Pixels are only ever appended, and a picture is there when SQLite has committed where it lies: one whose
writer was killed halfway is in no table, and its place is written anew by the next. A checksum is compared at
each reading, for what a power cut may leave.
"""
import hashlib
import io
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import numpy as np

from ..core import InputError

FORMAT = 1  # raised with every change of what a store holds
WAIT = 60.  # seconds that a process waits for others that write
SEGMENT = 1 << 26  # bytes of a file of pixels; what is deleted at once where space is needed
COARSE = 2.  # seconds after a change within which another one may have the same time
TABLES = """
CREATE TABLE IF NOT EXISTS segments (number INTEGER PRIMARY KEY AUTOINCREMENT, size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS pictures (content BLOB, settings TEXT, segment INTEGER, place INTEGER,
    height INTEGER, width INTEGER, checksum INTEGER, PRIMARY KEY (content, settings)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS in_segment ON pictures (segment);
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, time INTEGER, size INTEGER, content BLOB)
    WITHOUT ROWID"""
PLACE = 'pictures.segment, place, height, width, checksum'
RESIZED = 'resized'  # a picture as it is outside of training
PIXELS = 1  # raised with every change that makes other pixels of the same file
# connections of a process that was forked, left open: closing one would disturb the process that opened it
_inherited = []


class PictureStore:
    """Decoded and resized pictures in a folder, which several processes may share.

        store = PictureStore('pictures', gigabytes=4)
        dls = MatchDataLoaders.from_df(df, images, store=store)

    Their pixels take `gigabytes` at most: the oldest pictures make room for new ones. A folder that can't be
    written is read all the same. Raises `InputError` naming the file where it is damaged. Of a store that was
    pickled, and whose folder isn't there where it is read, pictures are decoded each time.
    """
    def __init__(
        self,
        folder,  # Made if it isn't there
        gigabytes: float = 10.,  # Most space that it takes, 1e9 bytes each
    ):
        if not gigabytes > 0: raise InputError(f'gigabytes={gigabytes}: give a number above 0')
        self.folder = Path(folder).resolve()
        self.limit = int(gigabytes * 1e9)
        self.segment_size = min(SEGMENT, max(1, self.limit // 4))
        self._forget()
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f'store={str(folder)!r}: is a file, not a folder')
        try: self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error: raise InputError(f'store={str(folder)!r}: {error}') from error
        self.is_for_reading = not os.access(self.folder, os.W_OK)
        if self.is_for_reading and not self.file.is_file():
            raise InputError(f'store={str(folder)!r}: is no store and can not be written')
        if not self.is_for_reading: self._make()
        self._check_format()
        self.is_absent = False

    @property
    def file(self) -> Path:
        "What says where pictures lie."
        return self.folder/'pictures.sqlite'

    def __len__(self):
        "How many pictures it holds."
        return self._ask('SELECT count(*) FROM pictures')[0][0]

    @property
    def n_bytes(self) -> int:
        "How much space their pixels take."
        return self._ask('SELECT coalesce(sum(size), 0) FROM segments')[0][0]

    def __repr__(self): return f'PictureStore({str(self.folder)!r}, gigabytes={self.limit / 1e9:g})'

    def __getstate__(self):
        mine = ('_local', '_maps')
        return {name: value for name, value in self.__dict__.items() if name not in mine}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._forget()
        self.is_absent = not self.file.is_file()
        self.is_for_reading = not os.access(self.folder, os.W_OK)

    def __deepcopy__(self, memo): return self

    def read(
        self,
        path,  # A picture file
        settings: str,  # What `make` depends on besides the file
        make: Callable,  # Open file (`io.BytesIO`) -> uint8 (h,w,3); called where the picture isn't there yet
    ) -> np.ndarray:  # uint8 (h,w,3)
        "What `make` makes of a file, from the store where it is there; raises what reading and `make` raise."
        path = os.path.abspath(path)
        if self.is_absent: return np.asarray(make(io.BytesIO(Path(path).read_bytes())), np.uint8)
        status = os.stat(path)
        seen = path, status.st_mtime_ns, status.st_size
        found = self._ask(f'SELECT {PLACE} FROM files JOIN pictures ON pictures.content = files.content AND '
                          'settings = ? WHERE path = ? AND time = ? AND files.size = ?', (settings, *seen))
        pixels = self._pixels(*found[0]) if found else None
        if pixels is not None: return pixels
        data = Path(path).read_bytes()
        content = hashlib.sha256(data).digest()
        is_settled = time.time() - status.st_mtime > COARSE
        pixels = self._find(content, settings)
        is_new = pixels is None
        if is_new: pixels = np.ascontiguousarray(make(io.BytesIO(data)), np.uint8)
        if self.is_for_reading or not (is_new or is_settled): return pixels
        self._write(content, settings, pixels if is_new else None, seen if is_settled else None)
        return pixels

    def _find(self, content, settings):
        "Pixels by the content of their file; None where they aren't there."
        found = self._ask(f'SELECT {PLACE} FROM pictures WHERE content = ? AND settings = ?',
                          (content, settings))
        return self._pixels(*found[0]) if found else None

    def check_room(
        self,
        n_pictures: int,  # That are going to be read again and again
        n_bytes: int,  # Of each
    ):
        "Raise `InputError` where so many pictures don't fit: none would be there when it is read again."
        needed = n_pictures * n_bytes
        # where segments are deleted as a whole, up to one of them is not in use
        if needed <= self.limit - self.segment_size: return
        raise InputError(f'store: {n_pictures:,} pictures take {needed / 1e9:.3g} GB, and {self.folder} may '
                         f'take {self.limit / 1e9:g}: give store=PictureStore(folder, '
                         f'gigabytes={1.35 * needed / 1e9:.2g})')

    def _pixels(self, segment, place, height, width, checksum):
        "Pixels uint8 (h,w,3) as they were written; None where they are not there any more."
        n_bytes = height * width * 3
        mapped = self._maps.get(segment)
        # files that others have deleted keep their space as long as they are mapped
        if mapped is None and len(self._maps) > self.limit // self.segment_size: self._maps.clear()
        try:
            # it was mapped before more was appended to it
            if mapped is None or len(mapped) < place + n_bytes:
                mapped = self._maps[segment] = np.memmap(self._segment_file(segment), np.uint8, 'r')
        # deleted by another process to make room, or lost
        except (FileNotFoundError, ValueError): return None
        pixels = np.array(mapped[place:place + n_bytes])
        if len(pixels) < n_bytes or zlib.crc32(pixels) != checksum: return None
        return pixels.reshape(height, width, 3)

    def _segment_file(self, number): return self.folder/f'{number:08d}.pixels'

    def _write(self, content, settings, pixels, seen):
        "Keep pixels, and which file had this content when it was `seen`; either may be None."
        connection = self._connection()
        deleted = []
        try:
            # other writers wait here, so that nobody else writes pixels until it is committed
            connection.execute('BEGIN IMMEDIATE')
            try:
                if pixels is not None and self._find(content, settings) is None:
                    deleted = self._append(connection, content, settings, pixels)
                if seen is not None:
                    connection.execute('INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)', (*seen, content))
            except BaseException:
                connection.execute('ROLLBACK')
                raise
            connection.execute('COMMIT')
        except sqlite3.DatabaseError as error: raise self._damaged(error) from error
        # after the commit: whoever is killed in between leaves a file that the next deletion finds
        for file in deleted:
            with suppress(OSError): file.unlink()

    def _append(self, connection, content, settings, pixels):
        "Write pixels behind the others; returns the files of pixels that are not in use any more."
        if pixels.nbytes > self.segment_size:
            raise InputError(f'store: a picture of {pixels.nbytes:,} bytes in {self.folder}, which may take '
                             f'{self.limit:,}: give more gigabytes')
        total, = connection.execute('SELECT coalesce(sum(size), 0) FROM segments').fetchone()
        last = connection.execute(
            'SELECT number, size FROM segments ORDER BY number DESC LIMIT 1').fetchone()
        deleted = []
        if last is None or last[1] + pixels.nbytes > self.segment_size:
            while total + self.segment_size > self.limit:
                number, size = connection.execute(
                    'SELECT number, size FROM segments ORDER BY number LIMIT 1').fetchone()
                connection.execute('DELETE FROM pictures WHERE segment = ?', (number,))
                connection.execute('DELETE FROM segments WHERE number = ?', (number,))
                total -= size
            last = connection.execute('INSERT INTO segments (size) VALUES (0)').lastrowid, 0
            used = {self._segment_file(number)
                    for number, in connection.execute('SELECT number FROM segments')}
            deleted = [file for file in self.folder.glob('*.pixels') if file not in used]
        number, place = last
        descriptor = os.open(self._segment_file(number), os.O_WRONLY | os.O_CREAT, 0o644)
        with os.fdopen(descriptor, 'wb') as stream:
            stream.seek(place)
            stream.write(pixels.data)
        connection.execute('UPDATE segments SET size = ? WHERE number = ?', (place + pixels.nbytes, number))
        connection.execute('INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?)',
                           (content, settings, number, place, *pixels.shape[:2], zlib.crc32(pixels)))
        return deleted

    def _make(self):
        "Make the tables, where no other process has done so meanwhile."
        with closing(self._open()) as connection:
            give_up_at = time.monotonic() + WAIT
            while True:
                try:
                    connection.execute('PRAGMA journal_mode=WAL')
                    break
                # SQLite itself doesn't wait for others here
                except sqlite3.OperationalError as error:
                    is_busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
                    if not is_busy or time.monotonic() > give_up_at: raise self._damaged(error) from error
                    time.sleep(.02)
                except sqlite3.DatabaseError as error: raise self._damaged(error) from error
            connection.execute('BEGIN IMMEDIATE')
            for statement in TABLES.split(';'): connection.execute(statement)
            is_empty = connection.execute('PRAGMA user_version').fetchone() == (0,)
            if is_empty: connection.execute(f'PRAGMA user_version={FORMAT}')
            connection.execute('COMMIT')

    def _check_format(self):
        "Raise `InputError` unless it is a store of this version's format."
        version = self._ask('PRAGMA user_version')[0][0]
        if version == FORMAT: return
        raise InputError(f'{self.file}: holds pictures in format {version}, this version of fastmatch reads '
                         f'{FORMAT}: give another folder')

    def _ask(self, query, values=()):
        "The rows that a query finds."
        try: return self._connection().execute(query, values).fetchall()
        except sqlite3.DatabaseError as error: raise self._damaged(error) from error

    def _damaged(self, error):
        return InputError(f'{self.file}: SQLite: {error}. Where it is damaged remove its folder, and '
                          'pictures are decoded anew')

    def _forget(self):
        "Start without connections and mapped files, as in a new process."
        self._local = threading.local()
        self._maps = {}

    def _connection(self):
        "The connection of this process and thread."
        opened = getattr(self._local, 'opened', None)
        if opened is not None and opened[0] == os.getpid(): return opened[1]
        if opened is not None: _inherited.append(opened)
        self._local.opened = os.getpid(), self._open()
        return self._local.opened[1]

    def _open(self):
        # SQLite writes beside a file even to read it, unless it is told that nobody changes the file
        address = self.file.as_uri() + ('?immutable=1' if self.is_for_reading else '')
        try:
            connection = sqlite3.connect(address, WAIT, isolation_level=None, uri=True)
            # a power cut may cost the last pictures, and never what was there before
            connection.execute('PRAGMA synchronous=NORMAL')
        except sqlite3.DatabaseError as error: raise self._damaged(error) from error
        return connection


def store_of(
    given,  # `PictureStore`, a folder, True for the one of this user, or None
) -> PictureStore | None:
    "The store that `store=` names."
    if given is None or given is False: return None
    if isinstance(given, PictureStore): return given
    if given is not True: return PictureStore(given)
    cache = os.environ.get('XDG_CACHE_HOME') or Path.home()/'.cache'
    return PictureStore(Path(cache)/'fastmatch'/'pictures')


def resized_settings(
    method,  # 'squish', 'crop' or 'pad'
    size,  # (width, height) in pixels
    pad_mode,  # What 'pad' fills the border with, as fastai calls it
    resample,  # PIL's number of the interpolation
    kind: str = RESIZED,  # What is done beside it
) -> str:
    "What a resized picture is kept by beside its file: loaders and matchers that resize alike share it."
    width, height = size
    return f'{kind} {method} {(int(width), int(height))} {pad_mode} {int(resample)} {PIXELS}'
