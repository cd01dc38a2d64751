"Training at several sizes of picture: another for each batch, or rising over the epochs."
import random

import torch
from fastai.callback.core import Callback

from ..core import InputError
from ..models.views import is_picture, resized

HOWS = 'random', 'rising'
SMALLEST = 8  # pixels


class MultiScale(Callback):
    """Resizes each training batch, on its device, to one of several sizes; validation keeps the given one.

    'random': another size for each batch, so that embeddings depend less on the size of what is shown.
    'rising': from the first size to the last over the epochs, which saves the time of large pictures while a
    model learns what small ones show (https://arxiv.org/abs/2104.00298, without its rising augmentation).
    `dls` are made in the size of validation; a batch has the pictures that its transforms made, and is
    resized before it is mixed. Which size a batch gets depends on `seed`, epoch and batch alone: a resumed
    training and all processes of a shared one get the same. Encoders of a fixed size, such as most ViTs,
    can't be trained so; features of frames have no size.
    """
    # before rows are picked and pictures mixed
    order, run_valid = -8, False

    def __init__(
        self,
        sizes,  # Sizes in pixels: the longer side, the other in proportion, or (height, width)
        how: str = 'random',  # 'random' or 'rising'
        seed: int = 0,  # Of the sizes drawn
    ):
        if how not in HOWS: raise InputError(f'how={how!r}: choose one of {HOWS}')
        self.sizes = [_checked(size, sizes) for size in sizes] if isinstance(sizes, (list, tuple)) else []
        if not self.sizes: raise InputError(f'sizes={sizes!r}: give a list of sizes, [96, 128, 160]')
        self.how = how
        self.seed = seed

    def size_of(
        self,
        epoch: int,  # From 0
        batch: int,  # From 0
        n_epochs: int,  # Of the whole fit
    ) -> int | tuple:
        "The size of a batch."
        if self.how == 'rising': return self.sizes[epoch * len(self.sizes) // n_epochs]
        return random.Random(f'{self.seed}, {epoch}, {batch}').choice(self.sizes)

    def before_batch(self):
        inputs = self.learn.xb
        if not any(map(is_picture, inputs)):
            raise InputError('MultiScale: the batches hold no pictures; titles and features have no size')
        size = self.size_of(self.epoch, self.iter, self.n_epoch)
        self.learn.xb = tuple(_in_size(each, size) if is_picture(each) else each for each in inputs)


def _checked(size, sizes):
    sides = size if isinstance(size, (list, tuple)) else (size,)
    is_whole = [isinstance(side, int) and not isinstance(side, bool) and side >= SMALLEST for side in sides]
    if not all(is_whole) or len(sides) not in (1, 2):
        raise InputError(f'sizes={sizes!r}: {size!r} is no size, give pixels from {SMALLEST} on, or '
                         '(height, width)')
    return size if isinstance(size, int) else tuple(size)


def _in_size(images, size):
    "Pictures of any tensor class (n,3,h,w) in another size."
    if isinstance(size, int):
        longer = max(images.shape[-2:])
        size = tuple(max(1, round(side * size / longer)) for side in images.shape[-2:])
    return resized(images.as_subclass(torch.Tensor), size).as_subclass(type(images))


__all__ = ['MultiScale']
