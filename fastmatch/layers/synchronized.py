"""BatchNorm over the batches of all processes together, for layers that stay as they are otherwise.

torch's `SyncBatchNorm` replaces a layer, works on GPUs only, and drops what subclasses add: timm's
`BatchNormAct2d` would lose its activation. Here the layer's forward pass is replaced for the time of a
training.
"""
from types import MethodType

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..processes import sum_of_all


def synchronize(
    model: nn.Module,
) -> list:  # The layers, for `desynchronize`
    "Let the BatchNorm layers of a model norm by the rows of all processes, in training."
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for layer in layers: layer.forward = MethodType(_forward, layer)
    return layers


def desynchronize(
    layers: list,  # From `synchronize`
):
    "Give the layers their own forward pass again."
    for layer in layers: layer.__dict__.pop('forward', None)


def _forward(layer, values):
    "What stands for the layer's own `forward`: the same, by the statistics of all rows."
    # frozen layers and validation use the running statistics
    if not layer.training: return type(layer).forward(layer, values)
    normed = _normed(layer, values)
    # timm's layers are followed by dropout and an activation of their own
    for name in ('drop', 'act'):
        if hasattr(layer, name): normed = getattr(layer, name)(normed)
    return normed


def _normed(layer, values):
    "Values (n,c,...) normed by mean and variance over the rows of all processes; running statistics move."
    with torch.autocast(values.device.type, enabled=False):
        x = values if values.dtype == torch.float64 else values.float()
        dims = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        n = sum_of_all(x.new_tensor(float(x.numel() // x.shape[1])))
        mean = sum_of_all(x.sum(dims)) / n
        # of the differences and not of the squares, which lose digits where the mean is large
        centered = x - mean.view(shape)
        variance = sum_of_all(centered.square().sum(dims)) / n
        _move_statistics(layer, mean.detach(), variance.detach() * n / (n - 1).clamp(min=1))
        normed = centered * (variance + layer.eps).rsqrt().view(shape)
        if layer.weight is not None: normed = normed * layer.weight.view(shape)
        if layer.bias is not None: normed = normed + layer.bias.view(shape)
        return normed.to(values.dtype)


@torch.no_grad()
def _move_statistics(layer, mean, variance):
    "Move the running statistics as BatchNorm does."
    if layer.running_mean is None: return
    layer.num_batches_tracked.add_(1)
    # without a momentum the plain mean over all batches
    share = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), share)
    layer.running_var.lerp_(variance.to(layer.running_var.dtype), share)
