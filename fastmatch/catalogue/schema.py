"""A catalogue's file: SQLite's tables, their version, and every way in which a file can fail, in words.

The write-ahead log lets any number of processes read while one writes; a process that is killed leaves the
file as it was after the last finished event.
"""
import os
import socket
import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path

from ..core import InputError
from ..store import write_text

APPLICATION = 0x666d6361  # SQLite's application_id of a catalogue: 'fmca'
WAIT = 30.  # seconds that a writer waits for another one
PAGE_SIZE = 8192  # bytes; a vector of 384 numbers takes 1,536, and five lie on a page

# one list of statements for each version: a file of version n lacks those from n on
MIGRATIONS = [[
    "create table setting (name text primary key, content text not null) without rowid",
    """create table event (
        number integer primary key autoincrement, kind text not null, time text not null, who text not null,
        reason text not null, detail text not null, undone integer)""",
    """create table listing (
        number integer primary key autoincrement, id text not null, title text, pictures text, phash text,
        source text, fields text, added integer not null, removed integer, grp integer not null)""",
    "create unique index listing_present on listing (id) where removed is null",
    "create index listing_id on listing (id)",
    "create index listing_group on listing (grp) where removed is null",
    "create index listing_removed on listing (removed) where removed is not null",
    """create table vector (
        encoder text not null, modality text not null, listing integer not null, numbers blob not null)""",
    "create unique index vector_of on vector (listing, encoder, modality)",
    "create table key (kind text not null, content text not null, listing integer not null)",
    "create index key_content on key (kind, content)",
    "create index key_listing on key (listing)",
    """create table edge (
        first integer not null, second integer not null, score real not null, scores text not null,
        reason text not null, stands integer not null, primary key (first, second)) without rowid""",
    "create index edge_second on edge (second)",
    "create index edge_score on edge (score) where stands = 0",
    """create table verdict (
        number integer primary key autoincrement, event integer not null, first text not null,
        second text not null, same integer not null, withdrawn integer, restored integer)""",
    "create index verdict_pair on verdict (first, second)",
    "create index verdict_second on verdict (second)",
    """create table grp (
        number integer primary key autoincrement, opened integer not null, merged integer, closed integer)""",
    "create index grp_merged on grp (merged) where merged is not null",
    "create table change (event integer not null, listing integer not null, before integer, after integer)",
    "create index change_event on change (event)",
    "create index change_listing on change (listing)",
    "create index change_before on change (before)",
    "create index change_after on change (after)",
]]
VERSION = len(MIGRATIONS)


def connect(
    file,  # Of the catalogue
    create: bool = False,  # Make the file, which must not be there
    wait: float = WAIT,  # Seconds to wait for another writer
) -> sqlite3.Connection:
    """A connection in autocommit mode; a file of an earlier version is brought up to date, one that can't be
    written is opened for reading. Raises `InputError` for a file that is no catalogue, or of a later version.
    """
    file = Path(file)
    if create and file.exists(): raise InputError(f'{file}: is there already: open it, or give another file')
    if not create and not file.is_file(): raise InputError(f'{file}: no such catalogue; make it first')
    if create and not file.parent.is_dir(): raise InputError(f'{file}: there is no folder {file.parent}')
    with in_words(file):
        connection = sqlite3.connect(file, timeout=wait, isolation_level=None, check_same_thread=False)
        try:
            if create: connection.execute(f'pragma page_size = {PAGE_SIZE}')
            _prepare(connection, file, create)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(connection, file, create):
    version = connection.execute('pragma user_version').fetchone()[0]
    application = connection.execute('pragma application_id').fetchone()[0]
    if not create and application != APPLICATION:
        raise InputError(f'{file}: is no catalogue of fastmatch')
    if version > VERSION:
        raise InputError(f'{file}: a catalogue of version {version}, this fastmatch reads up to {VERSION}: '
                         'install a newer one')
    if version < VERSION: _migrate(connection)
    if is_writable(file) and connection.execute('pragma journal_mode').fetchone()[0] != 'wal':
        connection.execute('pragma journal_mode = wal')
    # what was reported as done survives a power cut too
    connection.execute('pragma synchronous = full')
    connection.execute('pragma cache_size = -65536')


def _migrate(connection):
    connection.execute('begin immediate')
    try:
        # another process may have done it meanwhile
        version = connection.execute('pragma user_version').fetchone()[0]
        for statements in MIGRATIONS[version:]:
            for statement in statements: connection.execute(statement)
        connection.execute(f'pragma application_id = {APPLICATION}')
        connection.execute(f'pragma user_version = {VERSION}')
        connection.execute('commit')
    except BaseException:
        if connection.in_transaction: connection.execute('rollback')
        raise


def is_writable(
    file,  # Of a catalogue
) -> bool:
    "Whether this process may write the file and beside it."
    return os.access(file, os.W_OK) and os.access(Path(file).absolute().parent, os.W_OK)


@contextmanager
def in_words(
    file,  # Of the catalogue that is read or written inside the `with`
):
    "SQLite's errors as `InputError`, with the file and what can be done."
    try: yield
    except sqlite3.DatabaseError as error:
        said = str(error)
        reasons = {
            'full': 'the disk is full; nothing of this was kept, what was there stays',
            'disk I/O error': 'the disk does not take it (full, or at a limit); nothing of this was kept, '
                              'what was there stays',
            'readonly': 'can only be read here: no right to write it',
            'read-only': 'can only be read here: no right to write it',
            'locked': f'is being written by {writer_of(file)}; try again later',
            'unable to open': 'can not be opened: no right to read it or to write beside it',
            'not a database': 'is no catalogue, or its first page is damaged',
            'malformed': 'is damaged; restore a copy'}
        reason = next((words for part, words in reasons.items() if part in said), None)
        if reason is None: raise
        raise InputError(f'{file}: {reason} ({said})') from error


@contextmanager
def snapshot(
    connection: sqlite3.Connection,
    file,  # Of the catalogue
):
    "Several questions answered from one state of the file, whatever is written meanwhile."
    with in_words(file):
        if connection.in_transaction:
            yield
            return
        connection.execute('begin')
        try: yield
        finally:
            if connection.in_transaction: connection.execute('rollback')


@contextmanager
def writing(
    connection: sqlite3.Connection,
    file,  # Of the catalogue
    dry_run: bool = False,  # Take everything back at the end
):
    "One event, whole or not at all; waits while another process writes, then raises `InputError` naming it."
    with in_words(file):
        connection.execute('begin immediate')
        note = _note_of(file)
        try:
            _sign(note)
            yield
            connection.execute('rollback' if dry_run else 'commit')
        except BaseException:
            if connection.in_transaction: connection.execute('rollback')
            raise
        finally: note.unlink(missing_ok=True)


def _note_of(file): return Path(f'{file}-writer')


def _sign(note):
    "Say beside the file who writes; a disk that is too full for it is going to say so itself."
    text = f'process {os.getpid()} on {socket.gethostname()}, since {time.strftime("%H:%M:%S")}'
    try: write_text(note, text)
    except OSError: return


def writer_of(
    file,  # Of a catalogue
) -> str:
    "Who writes it, as far as that is known."
    try: return _note_of(file).read_text(encoding='utf-8') or 'another process'
    except OSError: return 'another process'
