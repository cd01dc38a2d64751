"Where studies are kept: in memory, in a file, in a database; opened by name, and refused where the name stands for another study."
import base64
import os
import time
import warnings
import zlib
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np

from ...core import InputError, MissingPackage
from .space import as_space, defaults, plain

SQLITE, JOURNAL = ('.db', '.sqlite', '.sqlite3'), ('.log', '.journal')
EXTRA = 'pip install fastmatch[tune]'


@contextmanager
def quietly():
    "Optuna's notices of each study and trial left out, its warnings kept."
    import optuna
    was = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(was, optuna.logging.WARNING))
    try: yield
    finally: optuna.logging.set_verbosity(was)


def _url(storage):
    "A database's address in full: a file by its path, PostgreSQL by the driver that the extra installs."
    from sqlalchemy.engine import URL
    from sqlalchemy.engine.url import make_url
    from sqlalchemy.exc import ArgumentError
    if '://' not in storage: return URL.create('sqlite', database=str(Path(storage).resolve()))
    try: url = make_url(storage)
    except (ArgumentError, ValueError) as e: raise InputError(f'storage: no address of a database ({e})') from e
    return url.set(drivername='postgresql+psycopg') if url.drivername in ('postgres', 'postgresql') else url


def _database(url):
    "Optuna's storage in a database, or an error that says what its driver says, without the password."
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import IntegrityError, NoSuchModuleError, ProgrammingError, SQLAlchemyError
    shown, kind = url.render_as_string(hide_password=True), url.get_backend_name()
    # several processes write to one file: wait for a turn; a server that doesn't answer should be heard of before long
    kwargs = {'sqlite': {'connect_args': {'timeout': 100}}, 'postgresql': {'connect_args': {'connect_timeout': 10}, 'pool_pre_ping': True}}.get(kind, {})
    for attempt in range(6):
        try: return RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=kwargs)
        except ImportError as e:
            raise MissingPackage(f'storage {shown} needs a driver that is not installed ({e.__cause__ or e}): {EXTRA} for PostgreSQL, or the driver by its name') from e
        except NoSuchModuleError as e: raise InputError(f'storage {shown}: no such kind of database ({e})') from e
        except (IntegrityError, ProgrammingError, StorageInternalError) as e:
            # two processes that make the tables of an empty database at once: one of them finds them half made
            if attempt == 5: raise InputError(f'storage {shown}: {_said(e)}') from e
            time.sleep(.2 * 2**attempt)
        except (SQLAlchemyError, OSError) as e: raise InputError(f'storage {shown} can not be reached: {_said(e)}') from e
        except RuntimeError as e: raise InputError(f'storage {shown}: {_said(e)}') from e  # tables of another version of Optuna


def _said(e):
    "What the driver says, on one line."
    e = getattr(e, 'orig', None) or e.__cause__ or e
    return ' '.join(str(getattr(e, 'orig', None) or e).split()) or type(e).__name__


@contextmanager
def reached(
    name: str,  # Of the study
):
    "Inside it a storage that is lost on the way is an error in words."
    from optuna.exceptions import StorageInternalError
    try: yield
    except StorageInternalError as e:
        raise InputError(f'study {name!r}: its storage can not be read or written any more ({_said(e)}); the same call goes on once it can') from e


def open_storage(
    storage,  # None: memory; a file .db or .sqlite (SQLite), .log or .journal (Optuna's journal); or any database's URL
):  # (an Optuna storage, a lock that its processes share, what to call it)
    "Open a storage; for files with a lock, as SQLite lets two processes take one waiting trial."
    if storage is None: return None, nullcontext(), 'memory'
    storage = str(storage)
    suffix = Path(storage).suffix
    if '://' not in storage and suffix not in SQLITE + JOURNAL:
        raise InputError(f"storage={storage!r}: give a file ending in {', '.join(SQLITE + JOURNAL)}, or a database's URL")
    from filelock import FileLock
    url = None if '://' not in storage and suffix in JOURNAL else _url(storage)
    if url is None or url.get_backend_name() == 'sqlite':
        file = storage if url is None else url.database
        if file in (None, '', ':memory:'): return None, nullcontext(), 'memory'
        file = Path(file).resolve()
        if not file.parent.is_dir(): raise InputError(f'storage {storage}: there is no folder {file.parent}')
        if not os.access(file.parent, os.W_OK): raise InputError(f'storage {storage}: no right to write in {file.parent}')
        try:
            lock = FileLock(f'{file}.claims', timeout=100)  # the journal has a .lock of its own
            with lock: return (_journal(file) if url is None else _database(url)), lock, storage
        except OSError as e: raise InputError(f'storage {storage} can not be written: {e}') from e
    return _database(url), nullcontext(), url.render_as_string(hide_password=True)


def _journal(file):
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    try: return JournalStorage(JournalFileBackend(str(file)))
    except (ValueError, KeyError, TypeError) as e: raise InputError(f'storage {file}: no journal of Optuna\'s ({e})') from e


def open_study(
    name: str,  # Of the study
    storage=None,  # As for `open_storage`; the same name and storage again go on with the study
    direction: str | None = 'maximize',  # Or 'minimize'; None: the study's own
    space: dict | None = None,  # Of `spaces`: kept with the study, its defaults are the first trial ('default', where each name has one); None: whatever the objective asks for
    sampler='tpe',  # 'tpe', 'cmaes', 'gp', 'random', or an Optuna sampler
    pruner=None,  # None, 'hyperband', 'asha', 'median', or an Optuna pruner
    seed: int = 0,  # Of the sampler
    epochs: int | None = None,  # Of a whole trial, for Hyperband
    about: dict | None = None,  # More that must stay as it was, plain values as json gives them back: monitor, epochs, data
):
    "Open an Optuna study: a new one, or the one of that name, if it is the same."
    import optuna

    from .sampler import make_pruner, make_sampler
    if direction not in (None, 'maximize', 'minimize'): raise InputError(f"direction={direction!r}: choose 'maximize' or 'minimize'")
    space = None if space is None else as_space(space)
    sampler, pruner = make_sampler(sampler, seed), make_pruner(pruner, epochs)
    kept, lock, shown = open_storage(storage)
    with quietly(), reached(name), lock:
        # whoever creates it queues the defaults; in a database two may come at once, and the name is given to one
        try: study, new = optuna.create_study(study_name=name, storage=kept, direction=direction or 'maximize', sampler=sampler, pruner=pruner), True
        except optuna.exceptions.DuplicatedStudyError:
            study, new = optuna.load_study(study_name=name, storage=kept, sampler=sampler, pruner=pruner), False
        study.claiming = lock
        if not new: _same(study, shown, direction)
        wait = 0 if new or not isinstance(lock, nullcontext) else 25
        while wait and 'kept' not in study.user_attrs:
            time.sleep(.2)
            wait -= 1
        now = {**({} if space is None else {'space': plain(space)}), **(about or {})}
        # no mark: new, or whoever created it was killed before it was done; no trials: somebody looked whether there is such a study
        if 'kept' not in study.user_attrs or not study.get_trials(deepcopy=False):
            if space is not None and (first := defaults(space)):
                with warnings.catch_warnings():
                    warnings.simplefilter('ignore', optuna.exceptions.ExperimentalWarning)
                    # one that has to draw what its space leaves open isn't the kit as it comes
                    study.enqueue_trial(first, user_attrs={'given': first, **({'default': True} if first.keys() == space.keys() else {})}, skip_if_exists=True)
            study.set_user_attr('kept', {**study.user_attrs.get('kept', {}), **now})
        else: _same(study, shown, direction, now)
    return study


def _same(study, shown, direction, now=None):
    "Raise `InputError` where the study of this name is another one."
    if len(study.directions) > 1: raise InputError(f'study {study.study_name!r} in {shown} has {len(study.directions)} objectives, here a trial has one value: give another name')
    was = study.direction.name.lower()
    if direction not in (None, was): raise InputError(f'study {study.study_name!r} in {shown} is to {was}, this call is to {direction}: give another name')
    for k, v in (now or {}).items():
        old = study.user_attrs['kept'].get(k)
        if old != v and not (k == 'vectors' and old and _nearest(old, v)): raise InputError(f'study {study.study_name!r} in {shown} was begun with {k} {old}; this call says {v}: give another name')


def likeness(
    vectors: dict,  # Modality -> (n,d) unit rows, two at least
) -> dict:  # For `about`, as 'vectors'
    "By what a study knows its embeddings again: mean and spread of the cosines of each listing and the next."
    near = {k: np.einsum('nd,nd->n', x[1:], x[:-1], dtype=np.float64) for k, x in vectors.items()}
    return {k: [round(float(o.mean()), 5), round(float(o.std()), 5)] for k, o in near.items()}


# an encoder that gives them once more may round them in another way
def _nearest(a, b): return a.keys() == b.keys() and all(np.allclose(a[k], b[k], rtol=0, atol=1e-4) for k in a)


def packed(x) -> str:
    "Numbers of each listing as text, to be kept with a trial: float32."
    return base64.b64encode(zlib.compress(np.asarray(x, '<f4').tobytes())).decode()


def unpacked(s) -> np.ndarray:  # float64
    "What `packed` was given."
    return np.frombuffer(zlib.decompress(base64.b64decode(s)), '<f4').astype(np.float64)
