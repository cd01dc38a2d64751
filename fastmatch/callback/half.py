"Training in bfloat16 on processors that calculate in it, as fastai's `to_bf16` does on a GPU."
import warnings

import torch
from fastai.callback.fp16 import AMPMode, MixedPrecision
from fastcore.foundation import L

from ..core import InputError


def has_bfloat16() -> bool:
    """Whether this processor calculates in bfloat16 (AVX512-BF16 or AMX), as far as torch can tell; others
    emulate it, which is slower."""
    return has_matrix_units() or _supports('_is_avx512_bf16_supported')


def has_matrix_units() -> bool:
    "Whether this processor has units for products of matrices in bfloat16 (AMX), as far as torch can tell."
    return _supports('_is_amx_tile_supported')


def _supports(name):
    # older versions of torch don't have all of these
    return getattr(torch.cpu, name, bool)()


class CPUMixedPrecision(MixedPrecision):
    """fastai's `MixedPrecision` in bfloat16 on a CPU, where fastai's own asks for a GPU.

    Matrix products are calculated in bfloat16, weights, losses and the optimizer stay in float32. With AMX a
    text encoder trained nearly three times as fast; with AVX512-BF16 alone MiniLM took one and a half times
    as long as in float32, EfficientNet-Lite0 nearly twice, and a warning says so. Raises `InputError` when a
    fit begins on a processor that has no bfloat16.
    """
    def __init__(self): super().__init__(amp_mode=AMPMode.BF16)

    def before_fit(self):
        if not has_bfloat16():
            raise InputError('to_bf16: this processor has no bfloat16 (AVX512-BF16 or AMX) that torch knows '
                             'of, and would be slower with it: leave it out')
        if not has_matrix_units():
            warnings.warn('to_bf16: this processor has bfloat16 without AMX, where training took 1.5 to 1.8 '
                          'times as long as in float32', stacklevel=2)
        self.autocast = torch.autocast('cpu', dtype=torch.bfloat16)
        # bfloat16 has the range of float32: gradients need no scaling
        self.learn.scaler = torch.amp.GradScaler('cpu', enabled=False)
        self.scales = L()
