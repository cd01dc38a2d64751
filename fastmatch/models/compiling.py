"""How torch runs encoders: compiled (`torch.compile`), with the channels of pictures last in memory or first.

Neither changes what an encoder computes but for rounding, and neither is part of what is saved. On one core
of a CPU, channels last took .76 of the time of a training step of tf_efficientnet_lite0 (.69 to .84 with 5
pairs of runs) and as much time with resnet18 (.99, .89 to 1.1): it is on for timm's models. What compiling is
worth is not measured yet, and it is off; tests/bench/bench_layout.py measures both.
"""
from contextlib import nullcontext
from functools import cache

import torch
from torch import nn

from ..core import InputError


@cache
def check_compiler(
    device_type: str,  # 'cpu' or 'cuda'
):
    "Raise `InputError` where torch can compile nothing: on a CPU it needs a C++ compiler."
    try: torch.compile(lambda numbers: numbers * 2 + 1)(torch.ones(4, device=device_type))
    # torch wraps what its backends raise, and each has its own errors
    except Exception as error:
        needed = 'a C++ compiler (g++)' if device_type == 'cpu' else 'triton and a C compiler'
        reason = (str(error).strip() or 'no message').splitlines()[0][:200]
        raise InputError(f'compile=True: torch can compile nothing here, for which it needs {needed} '
                         f'({type(error).__name__}: {reason})') from error


def compile_encoder(
    encoder: nn.Module,  # Image or text encoder
    any_length: bool,  # Whether batches differ in a length beside the number of rows, as titles do
):
    "Let torch compile an encoder at its first batch; copies and what is saved are as they were before."
    encoder.compile(dynamic=True if any_length else None)


def is_compiled(
    encoder: nn.Module | None,  # Image or text encoder
) -> bool:
    "Whether an encoder is one that torch compiles."
    return getattr(encoder, '_compiled_call_impl', None) is not None


def not_compiled():
    "A context in which compiled encoders run as they are written: for a try on two rows."
    # newer than the oldest torch that is supported; there the try compiles
    set_stance = getattr(torch.compiler, 'set_stance', None)
    return nullcontext() if set_stance is None else set_stance('force_eager')


def set_channels_last(
    encoder: nn.Module,  # Image encoder
    channels_last: bool,  # False: color channel by color channel
):
    "How the weights and pictures of an image encoder lie in memory."
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    # a convolution takes the layout of its weights; `ImageEncoder` brings pictures to it as well
    encoder.to(memory_format=memory_format)
    if hasattr(encoder, 'memory_format'): encoder.memory_format = memory_format


def plain(
    batch: torch.Tensor,  # May be one of fastai's tensors, which know what they hold
) -> torch.Tensor:
    "The same numbers as torch's own class, which torch can compile, and which costs nothing layer by layer."
    return batch if type(batch) is torch.Tensor else batch.as_subclass(torch.Tensor)
