"""Training encoders in less memory: what a layer computed is thrown away, and computed again where gradients
need it (gradient checkpointing, https://arxiv.org/abs/1604.06174). The same gradients for about a third more
time, and several times the batch on a GPU."""
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..core import InputError


def checkpoint_layers(
    encoder: nn.Module,  # Image or text encoder
    option: str = 'checkpointing=True',  # For messages
):
    """Let an encoder compute its layers again in training, instead of keeping what they computed.

    Its own library does it, timm or transformers; raises `InputError` for an encoder that can't. BatchNorm's
    running statistics see each batch once.
    """
    if not any(_switched_on(module) for module in encoder.modules()):
        raise InputError(f'{option}: {type(encoder).__name__} can not compute its layers again, as most '
                         'models of timm and transformers can')
    for module in encoder.modules():
        if not isinstance(module, _BatchNorm): continue
        module.register_forward_pre_hook(_hold_statistics)
        # torch leaves the last of the layers by an exception, as soon as it has what it needs
        module.register_forward_hook(_release_statistics, always_call=True)


def _switched_on(module):
    "Whether a module is a model that computes its layers again from now on."
    if getattr(module, 'supports_gradient_checkpointing', False):
        module.gradient_checkpointing_enable({'use_reentrant': False})
        return True
    if not hasattr(module, 'set_grad_checkpointing'): return False
    # timm's models without it say so by an assertion
    try: module.set_grad_checkpointing(True)
    except AssertionError: return False
    return True


def _is_second_time():
    "Whether a forward pass is made within a backward pass, for the gradients of a layer."
    return torch._C._current_graph_task_id() != -1


def _hold_statistics(module, inputs):
    is_held = hasattr(module, 'momentum_of_first_time')
    if is_held or not (module.training and module.track_running_stats and _is_second_time()): return
    module.momentum_of_first_time = module.momentum
    module.momentum = 0.


def _release_statistics(module, inputs, output):
    if not hasattr(module, 'momentum_of_first_time'): return
    module.momentum = module.momentum_of_first_time
    del module.momentum_of_first_time
    if module.num_batches_tracked is not None: module.num_batches_tracked -= 1
