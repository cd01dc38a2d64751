"""Training on the rows of each batch that the model finds hard."""
import math
from contextlib import nullcontext

import torch
from fastai.callback.core import Callback
from fastai.torch_core import apply, find_bs, to_float

from ..core import InputError
from .base import give_labels_to_heads, mixed_precision, refuse_comparing_loss, row_losses
from .state import ModelBuffers, preserved_randomness


def _plain(values):
    "The same tuple with fastai's tensors as torch's own; fastai casts a batch itself only later on."
    return tuple(value.as_subclass(torch.Tensor) if torch.is_tensor(value) else value for value in values)


class HardMining(Callback):
    """Passes each batch through the model once without gradients, and trains on the rows with the highest
    loss.

    From https://arxiv.org/abs/1910.00762. BatchNorm's statistics are those of all rows. The loss must give a
    value for each row by `reduction='none'`; losses that compare rows with each other, such as pair losses,
    are refused before training (`HardRows` picks rows after they were compared).
    """
    # before labels are handed out and pictures mixed: both then see only the rows that are left
    order, run_valid = -5, False

    def __init__(
        self,
        share: float = .5,  # Share of the rows, or of the batch's loss, that is kept
        by: str = 'rows',  # 'rows': a share of the rows; 'loss': the fewest rows with that share of the loss
        at_least: int = 2,  # Rows that are kept in any case (all, where there are fewer); a norm needs two
        start: int = 0,  # First epoch, from 0, in which rows are left out
    ):
        if not 0 < share <= 1: raise InputError(f'share={share}: above 0, at most 1')
        if by not in ('rows', 'loss'): raise InputError(f"by={by!r}: choose 'rows' or 'loss'")
        if at_least < 1: raise InputError(f'at_least={at_least}: 1 or more')
        self.share = share
        self.by = by
        self.at_least = at_least
        self.start = start

    def before_fit(self):
        keeps_all = self.share == 1 and self.by == 'rows'
        if not keeps_all: refuse_comparing_loss(self, 'HardRows around such a loss picks rows after that')
        if getattr(self.learn.loss_func, 'n_targets', 1) > 1:
            raise InputError('HardMining measures losses before a teacher is asked: take HardRows(Distill()) '
                             'as the loss')
        # before mixing puts its own in the loss's place
        self._loss = self.learn.loss_func

    def before_train(self):
        self._model_buffers = ModelBuffers(self.learn.model)
        self._buffers_of_all = None

    @torch.no_grad()
    def _measure_losses(self) -> torch.Tensor:
        "The loss (n,) of each row of the batch; running statistics move here, by all rows."
        inputs = _plain(self.xb)
        targets = _plain(self.yb)
        give_labels_to_heads(self.learn.model, targets[0])
        precision = mixed_precision(self.learn)
        with preserved_randomness(), nullcontext() if precision is None else precision.autocast:
            output = self.learn.model(*inputs)
            return row_losses(self._loss, output if precision is None else to_float(output), targets)

    def rows_to_keep(
        self,
        losses: torch.Tensor,  # (n,) loss of each row
    ) -> torch.Tensor:  # int64 (k,), in the batch's order
        "The rows with the highest loss, as many as the options say."
        falling_losses, by_loss = losses.sort(descending=True)
        n_rows = len(losses)
        if self.by == 'rows': n_kept = math.ceil(self.share * n_rows - 1e-9)
        else:
            # losses that are all 0, or NaN, have no share: one row is kept
            loss_sums = falling_losses.double().cumsum(0)
            wanted_sum = self.share * falling_losses.double().sum()
            n_kept = int((loss_sums < wanted_sum * (1 - 1e-12)).sum()) + 1
        return by_loss[:min(n_rows, max(n_kept, self.at_least))].sort().values

    def before_batch(self):
        if self.epoch < self.start: return
        n_rows = find_bs(self.yb)
        kept_rows = self.rows_to_keep(self._measure_losses())
        self._buffers_of_all = self._model_buffers.copy()

        def pick(tensor):
            is_by_row = torch.is_tensor(tensor) and tensor.ndim and len(tensor) == n_rows
            return tensor[kept_rows] if is_by_row else tensor
        self.learn.xb = apply(pick, self.xb)
        self.learn.yb = apply(pick, self.yb)

    def after_backward(self):
        # validation is on all kinds of rows, so the running statistics must not be those of the hard ones
        if self._buffers_of_all is not None: self._model_buffers.restore(self._buffers_of_all)
        self._buffers_of_all = None

    def after_fit(self): self.__dict__.pop('_model_buffers', None)
