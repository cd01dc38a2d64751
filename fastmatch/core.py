"What every part of the package uses: errors, late imports, seeds, a head's output, rows in blocks."
import importlib
import importlib.metadata
import math
import random
from collections import namedtuple
from difflib import get_close_matches
from functools import wraps
from inspect import signature

import numpy as np

# How many numbers of a matrix are worked on together on a CPU, so that they stay in its cache from one sweep
# to the next (2**17 to 2**20 took about the same time).
BLOCK_SIZE = 2**19

# Defaults that learners, dataloaders, studies and jobs share.
IMAGE_ARCH = 'tf_efficientnet_lite0'  # image encoder: timm's name
TEXT_ARCH = 'all-MiniLM-L6-v2'  # title encoder: Hugging Face's name
PICTURE_SIZE = 224  # pixels: what most image encoders were trained at; smaller is faster and less sharp


class InputError(ValueError):
    "Something given to the package can't be used; the message names the row, file, column or option."


class MissingPackage(ImportError):
    "An option needs a package or a weights file that isn't installed; the message says how to get it."


class HeadOutput(namedtuple('HeadOutput', 'cos emb extra')):
    """What a head of class centers returns in training, and what losses read.

    `cos` (n,c) are the cosines between each embedding and the class centers, `emb` (n,d) is the embedding
    before it is scaled to unit length, `extra` is a dict of what only some losses need: 'classes' (c,), the
    class of each column where `cos` has columns for some of the classes only; 'norms' (c,), the lengths of
    the centers' weights; 't', 's' and 'centers' of the heads that have them.
    """
    # fastai rebuilds a tuple as `type(x)([a, b, c])` when it detaches or casts one: an iterable is taken too
    def __new__(cls, cos, emb=None, extra=None):
        if emb is None: cos, emb, extra = cos
        return super().__new__(cls, cos, emb, extra or {})


def auto_scale(
    n_classes: int,  # Number of classes that the softmax runs over
) -> float:
    """The smallest sensible factor on cosines before a softmax: sqrt(2) log(n_classes - 1), and at least 1.

    It is the fixed scale of AdaCos, https://arxiv.org/abs/1905.00292.
    """
    return max(1., math.sqrt(2) * math.log(max(n_classes - 1, 1)))


def row_blocks(
    n_rows: int,
    matrix,  # Tensor (_, d): whose device and width count
    block_size: int | None = None,  # Numbers of the matrix in a block; None: `BLOCK_SIZE`
) -> list[slice]:
    "Slices over `n_rows` rows: on a CPU blocks of `block_size` numbers, elsewhere all rows at once."
    block_rows = n_rows
    if matrix.device.type == 'cpu': block_rows = max(1, (block_size or BLOCK_SIZE) // matrix.shape[1])
    return [slice(start, min(start + block_rows, n_rows)) for start in range(0, n_rows, block_rows)]


def unknown_option(
    keyword: str,  # Option that was given
    value,  # What was given for it
    known,  # Names of the options that there are
    owner: str = '',  # Function that has no such option, for the message
) -> InputError:
    "The error for an option that nobody reads, with the nearest name among the known ones."
    # a role without the ending that columns have: 'fold' for 'fold_col'
    nearest = [f'{keyword}_col'] if f'{keyword}_col' in known else get_close_matches(str(keyword), known, n=1)
    suggestion = f' (did you mean {nearest[0]}?)' if nearest else ''
    return InputError(f'{keyword}={value!r}: no option{f" of {owner}" if owner else ""}{suggestion}')


def refuse_unknown_options(
    keywords: dict,  # Of a call
    called,  # The function or class that was called
    *readers,  # Functions and classes that its keywords are handed on to
):
    "Raise `InputError` for a keyword that neither `called` nor a reader has, with the nearest known one."
    parameters = [each for reader in (called, *readers) for each in signature(reader).parameters.values()]
    known = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    for keyword, value in keywords.items():
        if keyword in known: continue
        owner = called.__qualname__.removesuffix('.__init__').split('.')[-1]
        raise unknown_option(keyword, value, known, owner)


def checks_options(
    *readers,  # Functions and classes that the function hands its `**kwargs` on to
):
    "A decorator: a keyword that nobody reads raises `InputError` with the nearest known one."
    def decorate(function):
        @wraps(function)
        def checked(*args, **keywords):
            refuse_unknown_options(keywords, function, *readers)
            return function(*args, **keywords)
        return checked
    return decorate


def require_package(
    module: str,  # Name to import, e.g. 'faiss'
    why: str,  # What needs it, for the message
    install: str | None = None,  # Name for `pip install`, where it isn't the module's
):
    "Import and return `module`; raises `MissingPackage` with the command that installs it."
    try: return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # a module that is missing inside an installed package is another fault
        if error.name != module.split('.')[0]: raise
        command = f'pip install {install or module}'
        raise MissingPackage(f"{why} needs the package {module!r}: {command}") from error


def preview(
    items,  # Any iterable
    n: int = 5,  # How many to write out
) -> str:
    "The first `n` items as text and the number of the others, for messages: 'a, b and 7 more'."
    items = [str(item) for item in items]
    return ', '.join(items[:n]) + (f' and {len(items) - n} more' if len(items) > n else '')


def package_version(
    package: str,  # Name on the package index, e.g. 'faiss-cpu'
) -> str:
    "The version of an installed package, or '' where no package of that name is installed."
    try: return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError: return ''


def check_device(
    device,  # 'cpu', 'cuda', 'cuda:1', ...
):
    "Raise `InputError` where torch can't use `device`."
    import torch
    # torch raises RuntimeError for an unknown name, AssertionError for a CUDA it was built without
    try: torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise InputError(f"device={device!r}: torch can't use it ({str(error).splitlines()[0]})") from error


def seed_everything(
    seed: int,  # From 0 to 2**32 - 1
    reproducible: bool = True,  # Also make cuDNN choose deterministic kernels; the CPU has no such choice
):
    "Seed python, numpy and torch: the same calls give the same numbers, with the same number of threads."
    import torch
    if not 0 <= seed < 2**32: raise InputError(f'seed={seed}: give an integer from 0 to 2**32-1')
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if reproducible and torch.cuda.is_available():
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
