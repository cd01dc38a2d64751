"""Training in several processes, one for each GPU: what a batch of one process needs of the others.

A step is joined while `fastmatch.callback.distributed` trains: `rows_of_all` and `sum_of_all` then ask every
process, and each must call them as often, in the same order. Elsewhere they return what they were given.
"""
from contextlib import nullcontext

import torch

_joined = False


def join_steps(
    joined: bool,  # Whether the steps from now on are those of all processes together
):
    "Say whether this process takes its steps together with the others."
    global _joined
    _joined = joined


def process_number() -> int:
    "The number of this process among those that were started together, from 0."
    is_one_of_several = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_rank() if is_one_of_several else 0


def n_joined() -> int:
    "How many processes take a step together; 1 outside such a training."
    return torch.distributed.get_world_size() if _joined else 1


def own_rows(
    n_rows: int,  # Rows of this process, as many as each other has
) -> slice:
    "Where the rows of this process are among those of all."
    first = torch.distributed.get_rank() * n_rows if _joined else 0
    return slice(first, first + n_rows)


def rows_of_all(
    tensor: torch.Tensor,  # (n,...) of this process; the others' have the same shape
) -> torch.Tensor:  # (n * processes,...)
    """The rows of all processes, one process after the other; gradients go back to the process that a row
    is of."""
    return tensor if n_joined() == 1 else _Rows.apply(tensor)


def sum_of_all(
    tensor: torch.Tensor,  # Of this process; the others' have the same shape
) -> torch.Tensor:
    "The sum over all processes; gradients go back to each."
    return tensor if n_joined() == 1 else _Sum.apply(tensor)


def mean_of_all(
    tensors: list,  # Of this process
):
    "Replace tensors by their means over all processes, in place."
    if n_joined() == 1: return
    for tensor in tensors:
        torch.distributed.all_reduce(tensor)
        tensor.div_(n_joined())


def for_all(
    condition: bool,
    device='cpu',  # Where the processes exchange it: a GPU's group can't exchange on the CPU
) -> bool:
    "Whether a condition holds in every process."
    if n_joined() == 1: return condition
    count = torch.tensor(float(condition), device=device)
    torch.distributed.all_reduce(count)
    return bool(count == n_joined())


def without_sync(
    model,  # A model, as it is or wrapped for several processes
):
    "Context in which the gradients of a pass stay those of this process."
    return model.no_sync() if hasattr(model, 'no_sync') else nullcontext()


class _Rows(torch.autograd.Function):
    "Rows of all processes; the gradient of a row is the sum of what all processes find for it."
    @staticmethod
    def forward(ctx, tensor):
        ctx.own = own_rows(len(tensor))
        parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(n_joined())]
        torch.distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(gradient)
        return gradient[ctx.own]


class _Sum(torch.autograd.Function):
    "A sum over processes; what one process reads of it is part of the gradient of all."
    @staticmethod
    def forward(ctx, tensor):
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(gradient)
        return gradient
