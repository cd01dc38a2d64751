"What every part of the package uses: errors, late imports, seeds, a head's output, rows in blocks."
import importlib
import importlib.metadata
import math
import random
from collections import namedtuple
from difflib import get_close_matches

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
) -> list[slice]:
    "Slices over `n_rows` rows: on a CPU blocks of `BLOCK_SIZE` numbers, elsewhere all rows at once."
    block_rows = max(1, BLOCK_SIZE // matrix.shape[1]) if matrix.device.type == 'cpu' else n_rows
    return [slice(start, min(start + block_rows, n_rows)) for start in range(0, n_rows, block_rows)]


def id_as_text(
    listing_id,  # Text, or a number as pandas reads it
) -> str:
    "An id or a file's name as text, the same whether its column is read as text, as whole numbers or as 7.0."
    is_whole = isinstance(listing_id, (float, np.floating)) and float(listing_id).is_integer()
    return str(int(listing_id)) if is_whole else str(listing_id)


def unknown_option(
    keyword: str,  # Option that was given
    value,  # What was given for it
    known,  # Names of the options that there are
    owner: str = '',  # Function that has no such option, for the message
) -> InputError:
    "The error for an option that nobody reads, with the nearest name among the known ones."
    nearest = get_close_matches(str(keyword), known, n=1)
    suggestion = f' (did you mean {nearest[0]}?)' if nearest else ''
    return InputError(f'{keyword}={value!r}: no option{f" of {owner}" if owner else ""}{suggestion}')


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
