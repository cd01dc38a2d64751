"What every room uses: errors that name the culprit, lazy imports that say what to install, seeds, a head's output and scale, files written whole."
import importlib
import importlib.metadata
import math
import os
import random
import shutil
import tempfile
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

import numpy as np


class InputError(ValueError):
    "What was handed in can't be used; the message names the row, file, column or option."


class MissingPackage(ImportError):
    "A package or weights file that an option asks for isn't installed; the message says how to get it."


class HeadOutput(namedtuple('HeadOutput', 'cos emb extra')):
    "What a head returns in training: `cos` (n,c) cosines to the class centres, `emb` (n,d) the embedding with its norm, `extra` what some losses read."
    # extra: 'classes' (c,) the class of each column where `cos` holds some only, 'norms' (c,) of the centres' weights, 't', 's', 'centers'
    # fastai rebuilds tuples as `type(x)([a, b, c])` when it detaches or casts them, so one iterable must do as well
    def __new__(cls, cos, emb=None, extra=None):
        if emb is None: cos, emb, extra = cos
        return super().__new__(cls, cos, emb, extra or {})


def auto_scale(
    c: int,  # Number of classes the softmax runs over
) -> float:
    "The scale a softmax over `c` cosines needs at least: sqrt(2) log(c-1), https://arxiv.org/abs/1905.00292; not below 1."
    return max(1., math.sqrt(2) * math.log(max(c - 1, 1)))


def require_package(
    module: str,  # Name to import, e.g. 'faiss'
    why: str,  # What needs it, for the message
    install: str | None = None,  # What to hand to `pip install`; defaults to `module`
):
    "Import `module` where it is used, or raise `MissingPackage` with the command that installs it."
    try: return importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name != module.split('.')[0]: raise
        raise MissingPackage(f"{why} needs the package {module!r}: pip install {install or module}") from e


def preview(
    items,  # Anything iterable
    n: int = 5,  # How many to spell out
) -> str:
    "The first `n` of `items` as text, with a count of the rest: for messages that list culprits."
    items = [str(o) for o in items]
    return ', '.join(items[:n]) + (f' and {len(items) - n} more' if len(items) > n else '')


def write_atomically(
    path: Path,  # File to write
    data: str | bytes,  # Its content
):
    "Write `path` so that it is there whole or not at all: a kill leaves the old file or the new one."
    path = Path(path)
    tmp = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        with open(tmp, 'wb') as f:
            f.write(data.encode() if isinstance(data, str) else data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(tmp, path)
    finally: tmp.unlink(missing_ok=True)


def check_new_folder(
    path: Path,  # Folder that a long job is going to write
    ours=lambda name: False,  # Says of a name in it whether such a job wrote it
    force: bool = False,  # A folder that holds nothing else may be replaced
):
    "Raise `InputError` where `path` can't be written: to be asked before the work."
    path = Path(path).resolve()
    there = next(o for o in (path, *path.parents) if o.exists())
    if not there.is_dir(): raise InputError(f'out={path}: is a file, not a folder' if there == path else f'out={path}: {there} is a file, not a folder')
    # it is made beside its place and takes it by a rename
    if os.path.ismount(path): raise InputError(f'out={path}: is a mount point, give a folder inside it')
    if not os.access(path.parent if there == path else there, os.W_OK): raise InputError(f'out={path}: no right to write in {path.parent if there == path else there}')
    names = sorted(o.name for o in path.iterdir()) if path.is_dir() else []
    if other := [o for o in names if not ours(o)]: raise InputError(f'out={path}: is there already and holds something else ({preview(other)}): give a new folder')
    if names and not force: raise InputError(f'out={path}: holds an earlier result: give a new folder, or --force to replace it')


@contextmanager
def atomic_folder(
    path: Path,  # Folder to write; one that is there is replaced
):
    "A folder beside `path` to write into, which takes its place when all is written; where anything fails, `path` stays as it was."
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = Path(tempfile.mkdtemp(prefix=f'.{path.name}.', dir=path.parent))
    old = tmp.with_name(f'{tmp.name}.old')
    try:
        yield tmp
        tmp.chmod(0o755)
        if path.exists():
            path.rename(old)
            try: tmp.rename(path)
            except BaseException:
                old.rename(path)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else: tmp.rename(path)
    finally: shutil.rmtree(tmp, ignore_errors=True)


def package_version(
    package: str,  # As `pip` calls it
) -> str:
    "The version of an installed package; '' where none of this name is (faiss has several)."
    try: return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError: return ''


def check_device(
    device,  # 'cpu', 'cuda', 'cuda:1', ...
):
    "Raise `InputError` unless torch can use `device`."
    import torch
    # torch raises RuntimeError for an unknown name, AssertionError for a CUDA it was built without
    try: torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as e: raise InputError(f"device={device!r}: torch can't use it ({str(e).splitlines()[0]})") from e


def seed_everything(
    seed: int,  # Any non-negative integer below 2**32
    reproducible: bool = True,  # Also ask cuDNN for deterministic kernels (no effect on the CPU)
):
    "Seed python, numpy and torch: with the same thread count, the same call gives the same numbers."
    import torch
    if not 0 <= seed < 2**32: raise InputError(f'seed={seed}: give an integer from 0 to 2**32-1')
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if reproducible and torch.cuda.is_available():
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
