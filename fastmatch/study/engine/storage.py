"Where studies are kept: in memory, in a file, in a database; errors name the place, never a password."
import base64
import os
import time
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...core import InputError, MissingPackage

SQLITE_SUFFIXES = ('.db', '.sqlite', '.sqlite3')
JOURNAL_SUFFIXES = ('.log', '.journal')
INSTALL_DRIVER = 'pip install fastmatch[tune]'
CONNECT_ATTEMPTS = 6


class OpenedStorage(NamedTuple):
    "A storage that is open."
    storage: Any  # Optuna storage; None: in memory
    lock: Any  # `FileLock` that all processes on this file share; None where the storage needs none
    address: str  # What to call it in messages, without a password


def open_storage(
    storage,  # A file .db or .sqlite (SQLite), .log or .journal (Optuna's); a database's URL; None: memory
) -> OpenedStorage:
    """Open a storage, making the file or its tables where there are none.

    Files come with a lock, because SQLite lets two processes take one waiting trial. What can't be opened
    raises `InputError`, a driver that is not installed `MissingPackage`."""
    if storage is None: return OpenedStorage(None, None, 'memory')
    storage = str(storage)
    suffix = Path(storage).suffix
    is_url = '://' in storage
    if not is_url and suffix not in SQLITE_SUFFIXES + JOURNAL_SUFFIXES:
        suffixes = ', '.join(SQLITE_SUFFIXES + JOURNAL_SUFFIXES)
        raise InputError(f"storage={storage!r}: give a file ending in {suffixes}, or a database's URL")
    if not is_url and suffix in JOURNAL_SUFFIXES: return _open_file(storage, storage, _open_journal)
    database_url = _database_url(storage)
    if database_url.get_backend_name() == 'sqlite':
        return _open_file(storage, database_url.database, lambda database_file: _open_database(database_url))
    address = database_url.render_as_string(hide_password=True)
    return OpenedStorage(_open_database(database_url), None, address)


@contextmanager
def explain_storage_errors(
    study_name: str,  # For the message
):
    "A context in which a storage that fails during a study raises `InputError` with what to do."
    from optuna.exceptions import StorageInternalError
    try: yield
    except StorageInternalError as error:
        raise InputError(f'study {study_name!r}: its storage can not be read or written any more '
                         f'({_driver_message(error)}); the same call goes on once it can') from error


@contextmanager
def hide_optuna_notices():
    "A context in which Optuna's notices of each study and trial are left out; its warnings are kept."
    import optuna
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
    try: yield
    finally: optuna.logging.set_verbosity(verbosity)


def pack_array(
    numbers,  # (n,) numbers, a score of each listing for example; kept as float32
) -> str:
    "Numbers as a short text (compressed, base64), to be stored with a trial as a user attribute."
    return base64.b64encode(zlib.compress(np.asarray(numbers, '<f4').tobytes())).decode()


def unpack_array(
    text: str,  # Of `pack_array`
) -> np.ndarray:  # float64 (n,)
    "The numbers that `pack_array` was given, to the precision of float32."
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), '<f4').astype(np.float64)


def _open_file(storage, storage_file, open_it_as_storage):
    "An SQLite file or a journal, opened under the lock that all its processes share."
    from filelock import FileLock
    if storage_file in (None, '', ':memory:'): return OpenedStorage(None, None, 'memory')
    storage_file = Path(storage_file).resolve()
    if not storage_file.parent.is_dir():
        raise InputError(f'storage {storage}: there is no folder {storage_file.parent}')
    if not os.access(storage_file.parent, os.W_OK):
        raise InputError(f'storage {storage}: no right to write in {storage_file.parent}')
    try:
        claims_lock = FileLock(f'{storage_file}.claims', timeout=100)  # the journal has a .lock of its own
        with claims_lock: return OpenedStorage(open_it_as_storage(storage_file), claims_lock, storage)
    except OSError as error: raise InputError(f'storage {storage} can not be written: {error}') from error


def _open_journal(journal_file):
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    try: return JournalStorage(JournalFileBackend(str(journal_file)))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"storage {journal_file}: no journal of Optuna's ({error})") from error


def _database_url(storage):
    "SQLAlchemy's URL of a database: files by full path, PostgreSQL with the driver that the extra installs."
    from sqlalchemy.engine import URL
    from sqlalchemy.engine.url import make_url
    from sqlalchemy.exc import ArgumentError
    if '://' not in storage: return URL.create('sqlite', database=str(Path(storage).resolve()))
    try: url = make_url(storage)
    except (ArgumentError, ValueError) as error:
        raise InputError(f'storage: no address of a database ({error})') from error
    return url.set(drivername='postgresql+psycopg') if url.drivername in ('postgres', 'postgresql') else url


def _open_database(database_url):
    "Optuna's storage in a database, or an error in the words of the database's driver, without the password."
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import IntegrityError, NoSuchModuleError, ProgrammingError, SQLAlchemyError
    address = database_url.render_as_string(hide_password=True)
    address_with_password = database_url.render_as_string(hide_password=False)
    for attempt in range(CONNECT_ATTEMPTS):
        try: return RDBStorage(address_with_password, engine_kwargs=_engine_options(database_url))
        except ImportError as error:
            raise MissingPackage(f'storage {address} needs a driver that is not installed '
                                 f'({error.__cause__ or error}): {INSTALL_DRIVER} for PostgreSQL, '
                                 'or the driver by its name') from error
        except NoSuchModuleError as error:
            raise InputError(f'storage {address}: no such kind of database ({error})') from error
        except (IntegrityError, ProgrammingError, StorageInternalError) as error:
            # of two processes that make the tables of an empty database at once, one finds them half made
            if attempt == CONNECT_ATTEMPTS - 1:
                raise InputError(f'storage {address}: {_driver_message(error)}') from error
            time.sleep(.2 * 2**attempt)
        except (SQLAlchemyError, OSError) as error:
            raise InputError(f'storage {address} can not be reached: {_driver_message(error)}') from error
        # tables of another version of Optuna
        except RuntimeError as error:
            raise InputError(f'storage {address}: {_driver_message(error)}') from error


def _engine_options(database_url):
    "SQLAlchemy's options: who writes to a file waits for a turn, a server's silence is an error after 10 s."
    backend = database_url.get_backend_name()
    if backend == 'sqlite': return {'connect_args': {'timeout': 100}}
    if backend == 'postgresql': return {'connect_args': {'connect_timeout': 10}, 'pool_pre_ping': True}
    return {}


def _driver_message(error):
    "The message of the database's driver, on one line."
    error = getattr(error, 'orig', None) or error.__cause__ or error
    return ' '.join(str(getattr(error, 'orig', None) or error).split()) or type(error).__name__
