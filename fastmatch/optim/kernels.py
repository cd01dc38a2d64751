"""Optimizer steps over lists of tensors, with PyTorch's fused and foreach kernels; the same code for the CPU
and the GPU.

A kernel gets the lists as `AdamTensors` and the numbers as `AdamStep`, and changes the tensors in place.
"""
import math
from typing import NamedTuple

import torch

# On the CPU a foreach call is one sweep through memory after another. Lists are divided so that a part stays
# in the cache through all sweeps of a step (float32 entries of the weights, which are one of five tensors;
# 2**16 to 2**18 took the same time, the whole list at once 1.6 times as long).
CHUNK_SIZE = 2**18
# The momentum that Adam's kernel is called with in AdaBelief's step; any value well inside (0, 1) will do,
# see `belief_`.
KERNEL_MOMENTUM = 15 / 16


class AdamTensors(NamedTuple):
    """What a step reads and changes: lists of one length, an entry for each weight, all on one device and
    of one dtype."""
    params: list  # weights
    grads: list  # gradients
    averages: list  # running averages of the gradients (Adam's m)
    squares: list  # running averages of their squares (Adam's v)


class AdamStep(NamedTuple):
    "The numbers of one step, the same for all tensors of the lists."
    step: int  # how many steps the weights have taken with this one, from 1
    lr: float
    mom: float  # momentum of the averages
    sqr_mom: float  # momentum of the squares
    eps: float  # added to the root of the squares
    wd: float  # decoupled weight decay: weights shrink by lr * wd
    rate: float | None = 1.  # `rectification`: scales the step but not the decay; None: squares aren't used
    belief: bool = False  # AdaBelief: squares of the gradients' distances from their averages
    beta: float = 0.  # softplus with this sharpness in the place of the root; 0: none


def chunks(
    *lists: list,  # Lists of one length; the first holds tensors
):
    """Divide the lists at the same positions, so that the first list's tensors in a part have up to
    `CHUNK_SIZE` entries together (a larger tensor is a part by itself); yields each part's tuple of lists.

    Off the CPU the lists stay whole: there each launch of a kernel costs.
    """
    if lists[0][0].device.type != 'cpu':
        yield lists
        return
    start = n_entries = 0
    for position, tensor in enumerate(lists[0]):
        if n_entries and n_entries + tensor.numel() > CHUNK_SIZE:
            yield tuple(one_list[start:position] for one_list in lists)
            start, n_entries = position, 0
        n_entries += tensor.numel()
    yield tuple(one_list[start:] for one_list in lists)


def rectification(
    step: int,  # From 1
    sqr_mom: float,  # Momentum of the squares
) -> float | None:  # Factor on the learning rate, 0 to 1; None while the variance can't be estimated
    """How far the running average of the squares can be trusted after `step` steps (RAdam),
    https://arxiv.org/abs/1908.03265

    The limit below which it can't be, rho = 5, is PyTorch's and fastai's.
    """
    rho_inf = 2 / (1 - sqr_mom) - 1
    rho = rho_inf - 2 * step * sqr_mom**step / (1 - sqr_mom**step)
    if rho <= 5: return None
    return math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))


def centralize_(
    grads: list,  # Gradients of more than one dimension
):
    """Take the mean of each output (each entry of the first dimension) off its gradient,
    https://arxiv.org/abs/2004.01461"""
    # no foreach kernel broadcasts; in place it costs half of what new tensors do, and a sum saves the sweep
    # in which a mean divides
    for gradient in grads:
        gradient_sums = gradient.sum(tuple(range(1, gradient.ndim)), keepdim=True)
        gradient.sub_(gradient_sums, alpha=len(gradient) / gradient.numel())


def adam_(tensors: AdamTensors, update: AdamStep):
    "A step of AdamW, or of RAdam with `update.rate`, in one sweep of PyTorch's fused kernel."
    params, grads, averages, squares = tensors
    count = torch.full((), float(update.step), device=params[0].device)
    # the kernel decays by lr * weight_decay, but `rate` must not scale the decay
    torch._fused_adamw_(params, grads, averages, squares, [], [count] * len(params),
                        lr=update.lr * update.rate, beta1=update.mom, beta2=update.sqr_mom,
                        weight_decay=update.wd / update.rate, eps=update.eps, amsgrad=False, maximize=False)


def belief_(tensors: AdamTensors, update: AdamStep):
    """A step of AdaBelief by Adam's kernel: with squares of `grads - averages`, and `eps` in the squares as
    well as beside their root, as in https://arxiv.org/abs/2010.07468

    Adam's kernel averages and squares the same gradient; AdaBelief averages gradients and squares
    differences. So the averages are worked out here, the kernel is handed the differences, and the averages
    are first moved back so far that the kernel's own averaging, with `KERNEL_MOMENTUM`, brings them to where
    they belong.
    """
    torch._foreach_lerp_(tensors.averages, tensors.grads, 1 - update.mom)
    differences = torch._foreach_sub(tensors.grads, tensors.averages)
    torch._foreach_lerp_(tensors.averages, differences, 1 - 1 / KERNEL_MOMENTUM)
    torch._foreach_add_(tensors.squares, update.eps / update.sqr_mom)
    # the kernel takes the start's bias off the averages by its own momentum: put back the right one
    kernel_rate = update.rate * (1 - KERNEL_MOMENTUM**update.step) / (1 - update.mom**update.step)
    adam_(tensors._replace(grads=differences), update._replace(mom=KERNEL_MOMENTUM, rate=kernel_rate))


def foreach_(tensors: AdamTensors, update: AdamStep):
    """The steps of `adam_` and `belief_` without the fused kernel, in several sweeps.

    For the first steps of a rectified optimizer (`rate` None), for softplus (`beta`), and for tensors of
    unusual strides.
    """
    params, grads, averages, squares = tensors
    if update.wd: torch._foreach_mul_(params, 1 - update.lr * update.wd)
    torch._foreach_lerp_(averages, grads, 1 - update.mom)
    squared_part = torch._foreach_sub(grads, averages) if update.belief else grads
    torch._foreach_mul_(squares, update.sqr_mom)
    torch._foreach_addcmul_(squares, squared_part, squared_part, 1 - update.sqr_mom)
    if update.belief: torch._foreach_add_(squares, update.eps)
    unbiased_rate = update.lr / (1 - update.mom**update.step)
    if update.rate is None:
        torch._foreach_add_(params, averages, alpha=-unbiased_rate)
        return
    denominators = torch._foreach_sqrt(squares)
    torch._foreach_div_(denominators, math.sqrt(1 - update.sqr_mom**update.step))
    torch._foreach_add_(denominators, update.eps)
    if update.beta: softplus_(denominators, update.beta)
    torch._foreach_addcdiv_(params, averages, denominators, -unbiased_rate * update.rate)


def softplus_(
    tensors: list,  # Of numbers at least 0
    beta: float,  # Sharpness
):
    "log(1 + exp(beta x)) / beta of each number x, in place, https://arxiv.org/abs/1908.00700 (SAdam)"
    # as x + log(1 + exp(-beta x)) / beta, which can't overflow
    tails = torch._foreach_mul(tensors, -beta)
    torch._foreach_exp_(tails)
    torch._foreach_log1p_(tails)
    torch._foreach_add_(tensors, tails, alpha=1 / beta)
