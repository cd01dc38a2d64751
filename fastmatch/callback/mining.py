"Training on the rows of each batch that the model finds hard."
import math
from contextlib import nullcontext

import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.torch_core import apply, find_bs, to_float

from ..core import InputError
from .second_pass import row_losses, tell_heads
from .state import Buffers, randomness_kept


class HardMining(Callback):
    "Looks at each batch once without gradients and trains on its hardest rows, https://arxiv.org/abs/1910.00762"
    order, run_valid = -5, False  # before labels are handed out and pictures mixed: both then know the rows that are left

    def __init__(
        self,
        share: float = .5,  # Of the rows, or of the batch's loss
        by: str = 'rows',  # 'rows': that share of them; 'loss': the fewest that have that share of the batch's loss
        at_least: int = 2,  # Rows that stay in any case (all, where there are fewer); a norm needs two
        start: int = 0,  # First epoch, from 0, in which rows are left out
    ):
        if not 0 < share <= 1: raise InputError(f'share={share}: above 0, at most 1')
        if by not in ('rows', 'loss'): raise InputError(f"by={by!r}: choose 'rows' or 'loss'")
        if at_least < 1: raise InputError(f'at_least={at_least}: 1 or more')
        self.share, self.by, self.at_least, self.start = share, by, at_least, start

    # before mixing puts its own in the loss's place
    def before_fit(self): self._loss = self.learn.loss_func
    def before_train(self): self._stats, self._full = Buffers(self.learn.model), None

    @torch.no_grad()
    def _look(self):
        "The loss of each row. Running statistics move here, by all rows."
        # fastai casts a batch to plain tensors later on
        xb, yb = (tuple(t.as_subclass(torch.Tensor) if torch.is_tensor(t) else t for t in o) for o in (self.xb, self.yb))
        tell_heads(self.learn.model, yb[0])
        mixed = next((o for o in self.learn.cbs if isinstance(o, MixedPrecision)), None)
        with randomness_kept(), nullcontext() if mixed is None else mixed.autocast:
            pred = self.learn.model(*xb)
            return row_losses(self._loss, pred if mixed is None else to_float(pred), yb)

    def keep(
        self,
        losses: torch.Tensor,  # (n,)
    ) -> torch.Tensor:  # int64 (k,), in the batch's order
        "The rows that stay."
        n, (top, order) = len(losses), losses.sort(descending=True)
        # rows without loss, and NaN, make no share
        k = math.ceil(self.share * n - 1e-9) if self.by == 'rows' else int((top.double().cumsum(0) < self.share * top.double().sum() * (1 - 1e-12)).sum()) + 1
        return order[:min(n, max(k, self.at_least))].sort().values

    def before_batch(self):
        if self.epoch < self.start: return
        rows, n = self.keep(self._look()), find_bs(self.yb)
        self._full = self._stats.take()
        def pick(t): return t[rows] if torch.is_tensor(t) and t.ndim and len(t) == n else t
        self.learn.xb, self.learn.yb = (apply(pick, o) for o in (self.xb, self.yb))

    def after_backward(self):
        # validation is on all kinds of rows, so that the running statistics are not those of the hard ones
        if self._full is not None: self._stats.put(self._full)
        self._full = None

    def after_fit(self): self.__dict__.pop('_stats', None)
