"What every room uses: errors that name the culprit, lazy imports that say what to install, seeds, a head's output and scale, files written whole."
import importlib
import math
import os
import random
import shutil
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


def need(
    module: str,  # Name to import, e.g. 'faiss'
    why: str,  # What needs it, for the message
    install: str | None = None,  # What to hand to `pip install`; defaults to `module`
):
    "Import `module` where it is used, or raise `MissingPackage` with the command that installs it."
    try: return importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name != module.split('.')[0]: raise
        raise MissingPackage(f"{why} needs the package {module!r}: pip install {install or module}") from e


def some(
    items,  # Anything iterable
    n: int = 5,  # How many to spell out
) -> str:
    "The first `n` of `items` as text, with a count of the rest: for messages that list culprits."
    items = [str(o) for o in items]
    return ', '.join(items[:n]) + (f' and {len(items) - n} more' if len(items) > n else '')


def write_whole(
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
    mark: str,  # A file in it that says such a job wrote it
    force: bool = False,  # Such a folder may be replaced
):
    "Raise `InputError` where `path` can't be written: to be asked before the work."
    path = Path(path)
    if path.exists() and not path.is_dir(): raise InputError(f'out={path}: is a file, not a folder')
    there = next(o for o in (path.absolute(), *path.absolute().parents) if o.exists())
    if not there.is_dir(): raise InputError(f'out={path}: {there} is a file, not a folder')
    if not os.access(there, os.W_OK): raise InputError(f'out={path}: no right to write in {there}')
    if not path.is_dir() or not any(path.iterdir()): return
    if not (path/mark).is_file(): raise InputError(f'out={path}: is there already and holds something else: give a new folder')
    if not force: raise InputError(f'out={path}: holds an earlier result: give a new folder, or --force to replace it')


@contextmanager
def whole_folder(
    path: Path,  # Folder to write; one that is there is replaced
):
    "A folder beside `path` to write into, which takes its place when all is written: `path` is there whole or not at all."
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp, old = (path.with_name(f'.{path.name}.{o}{os.getpid()}') for o in ('', 'old'))
    tmp.mkdir()
    try:
        yield tmp
        if path.exists(): path.rename(old)
        tmp.rename(path)
    finally:
        for o in (tmp, old): shutil.rmtree(o, ignore_errors=True)


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
