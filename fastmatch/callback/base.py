"""What several callbacks of this folder share.

Sitting a fit out, finding each other, handing labels to heads, and the loss of each row of a batch.
"""
import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.mixup import MixHandler
from fastai.layers import NoneReduce
from fastai.torch_core import find_bs

from ..core import InputError


class SkippableCallback(Callback):
    """A callback that may sit one fit out, by setting `self.run = False` in `before_fit`.

    fastai sets `run` back to True only at the end of a fit, which a fit that broke off never reaches; this
    class does so at the start of the next one as well.
    """
    def __call__(self, event_name):
        if event_name == 'before_fit': self.run = True
        return super().__call__(event_name)


def in_lr_find(learner) -> bool:
    "Whether the fit that is under way is that of `lr_find`, which puts the weights back."
    return hasattr(learner, 'lr_finder')


def other_callback(
    callback: Callback,  # A callback that a learner has
    kind: type,  # Class to look for
) -> Callback | None:  # None if there is no other one
    "Another callback of the same learner that is of class `kind`."
    for candidate in callback.learn.cbs:
        if isinstance(candidate, kind) and candidate is not callback: return candidate
    return None


def mixed_precision(learner) -> MixedPrecision | None:
    "The learner's callback for mixed precision, if it has one."
    return next((callback for callback in learner.cbs if isinstance(callback, MixedPrecision)), None)


def leave_autocast(learner):
    """Leave the autocast that mixed precision has entered for a batch, where the batch is given up before its
    loss is there; what comes after would go on in half precision."""
    precision = mixed_precision(learner)
    context = getattr(precision, 'autocast', None)
    if context is not None and torch.is_autocast_enabled(context.device): context.__exit__(None, None, None)


def mixing_callback(learner) -> MixHandler | None:
    "The mixing callback (`MixUp`, `CutMix`) whose loss of two targets is the learner's now, if there is one."
    for callback in learner.cbs:
        if isinstance(callback, MixHandler) and learner.loss_func == callback.lf: return callback
    return None


def unmixed_loss(learner):
    "The learner's loss, or where mixing has put its own in the place of it, the loss that this one mixes."
    mixing = mixing_callback(learner)
    return learner.loss_func if mixing is None else mixing.old_lf


def loss_of_labels(loss):
    "The loss that reads the labels: the one inside, where objectives of pretraining go on beside it."
    return loss.loss if hasattr(loss, 'objective_weights') else loss


def refuse_comparing_loss(
    callback: Callback,  # Callback that trains on some rows of each batch
    instead: str,  # What to do instead, for the message
):
    """Raise `InputError` where the learner's loss compares the rows of a batch with each other: rows that are
    picked one by one need not hold a pair, and then there is nothing to train on."""
    loss = callback.learn.loss_func
    if not getattr(loss, 'compares_rows', False): return
    inner_losses = loss.modules() if isinstance(loss, torch.nn.Module) else [loss]
    names = dict.fromkeys(type(inner).__name__ for inner in inner_losses
                          if getattr(inner, 'compares_rows', False) and not list(inner.children()))
    raise InputError(f'{type(callback).__name__} trains on some rows of each batch, and '
                     f'{" and ".join(names)} compares the rows of a batch with each other: {instead}')


def heads_wanting_labels(model) -> list:
    "The heads in `model` that need the batch's labels in their forward pass (`SampledHead`, `TrackedHead`)."
    return [module for module in model.modules() if getattr(module, 'wants_labels', False)]


def give_labels_to_heads(
    model,  # `nn.Module`
    labels: torch.Tensor | None,  # int64 (n,) class of each row of the batch; None takes the last ones away
):
    "Set the labels that heads read in their forward pass."
    for head in heads_wanting_labels(model): head.labels = labels


def row_losses(
    loss,  # The batch's loss; it may be the one of a mixing callback
    output,  # Output of the model
    targets: tuple,  # The batch's targets
    base_loss=None,  # The loss with a `reduction`, where `loss` is one that mixes it; see `unmixed_loss`
) -> torch.Tensor:  # float32 (n,)
    "The loss of each row of a batch; `InputError` if the loss can't be asked for it by `reduction='none'`."
    base_loss = loss if base_loss is None else base_loss
    name = type(base_loss).__name__
    if not hasattr(base_loss, 'reduction'):
        raise InputError(f'{name} has no `reduction`: rows can not be picked by their losses')
    n_rows = find_bs(targets)
    if not n_rows: raise InputError('a batch of 0 rows has no losses to choose by')
    with NoneReduce(base_loss): values = torch.as_tensor(loss(output, *targets)).as_subclass(torch.Tensor)
    if values.numel() % n_rows or values.ndim == 0:
        raise InputError(f"{name} gives {values.numel()} values for {n_rows} rows with reduction='none'")
    return values.reshape(n_rows, -1).float().mean(1)
