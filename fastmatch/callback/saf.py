"""SAF: training for flat minima without a second pass, from the outputs of earlier epochs (experimental)."""
import torch
import torch.nn.functional as F
from fastai.callback.mixup import MixHandler
from fastai.torch_core import find_bs

from ..core import HeadOutput, InputError, auto_scale
from .base import SkippableCallback, in_lr_find, loss_of_labels, other_callback
from .state import DrawnRows


def _logits(prediction, loss):
    "The logits (n,c) of each head of a model's output; cosines are scaled as `loss` scales them."
    others = getattr(loss, 'objective_weights', ())
    loss = loss_of_labels(loss)
    outputs = prediction if isinstance(prediction, dict) else {None: prediction}
    for head_output in (output for name, output in outputs.items() if name not in others):
        if not isinstance(head_output, HeadOutput): yield head_output
        elif 'classes' in head_output.extra:
            raise InputError('SAF compares outputs over all classes: '
                             'a head that samples class centers gives those of some classes only')
        else: yield head_output.cos * (getattr(loss, 's', None) or auto_scale(head_output.cos.shape[1]))


class SAF(SkippableCallback):
    """Experimental: holds the outputs of each row near those of `back` epochs ago, by a divergence added to
    the loss.

    From https://arxiv.org/abs/2205.14083 (sharpness-aware training for free). On handwritten digits it did
    not flatten the minimum: the Hessian's largest eigenvalue was 1.01 to 1.06 times that of plain training.
    """
    # measured with weights .3, 1 and 3, three seeds each
    order, run_valid = 5, False  # before gradient accumulation weighs the loss

    def __init__(
        self,
        weight: float = .3,  # Factor on the added term (the paper's lambda)
        temp: float = 5.,  # Temperature of the softmax (the paper's tau)
        back: int = 3,  # How many epochs ago (the paper's value)
        start: int | None = None,  # First epoch, from 0, with the term (the paper's: 5); default `back`
    ):
        if back < 1: raise InputError(f'back={back}: 1 or more')
        if not weight >= 0 or not temp > 0:
            raise InputError(f'weight={weight}, temp={temp}: 0 or above, and above 0')
        self.weight = weight
        self.temp = temp
        self.back = back
        self.start = max(back, start or 0)

    def before_fit(self):
        self.run = not in_lr_find(self.learn)
        mixing = other_callback(self, MixHandler)
        if mixing is not None:
            raise InputError('SAF compares a row with itself in an earlier epoch, '
                             f'and {type(mixing).__name__} makes other rows each time: use one of them')
        # before other callbacks put their own in its place
        self._loss = self.learn.loss_func
        self._outputs = {}

    def before_train(self):
        self.after_train()
        if self.n_epoch <= self.start:
            raise InputError(f'SAF starts at epoch {self.start}, counted from 0; this fit has {self.n_epoch}')
        self._drawn = DrawnRows(self.learn.dls.train)

    def after_train(self):
        drawn_rows = self.__dict__.pop('_drawn', None)
        if drawn_rows is None: return
        drawn_rows.close()
        oldest_epoch = self.epoch - self.back
        self._outputs = {epoch: outputs for epoch, outputs in self._outputs.items() if epoch > oldest_epoch}

    def rows(self) -> torch.Tensor:  # int64 (n,)
        "The dataset's row of each row of the batch."
        n_rows = find_bs(self.learn.yb)
        drawn_rows = self._drawn.rows(self.iter)
        if drawn_rows is None or len(drawn_rows) != n_rows:
            raise InputError(f'SAF: the batch has {n_rows} rows, {len(drawn_rows or [])} were drawn for it; '
                             'a filter of rows can not go with it')
        return torch.as_tensor(drawn_rows)

    def after_loss(self):
        # in float32: half precision can't hold small divergences
        with torch.autocast(self.learn.yb[0].device.type, enabled=False):
            row_numbers = self.rows().tolist()
            all_logits = [head_logits.float() for head_logits in _logits(self.learn.pred, self._loss)]
            self._keep_outputs(row_numbers, all_logits)
            self._add_divergence(row_numbers, all_logits)

    def _keep_outputs(self, row_numbers, all_logits):
        "Keep the batch's finite outputs of each head by the dataset's row, for a later epoch."
        kept_outputs = self._outputs.setdefault(self.epoch, [{} for _ in all_logits])
        for head_logits, kept_of_head in zip(all_logits, kept_outputs):
            # half precision is enough for a softmax at this temperature
            outputs = head_logits.detach().to('cpu', torch.float16)
            finite_rows = head_logits.isfinite().all(1).tolist()
            for row_number, output, is_finite in zip(row_numbers, outputs, finite_rows):
                if is_finite: kept_of_head[row_number] = output

    def _add_divergence(self, row_numbers, all_logits):
        "Add to the loss how far outputs have moved since `back` epochs ago, for rows that were drawn then."
        earlier = self._outputs.get(self.epoch - self.back)
        if self.epoch < self.start or earlier is None: return
        positions = [position for position, row in enumerate(row_numbers)
                     if all(row in known for known in earlier)]
        if not positions: return
        for head_logits, known in zip(all_logits, earlier):
            earlier_logits = torch.stack([known[row_numbers[position]] for position in positions])
            earlier_logits = earlier_logits.to(head_logits.device, torch.float32)
            log_p = F.log_softmax(head_logits[positions] / self.temp, 1)
            earlier_log_p = F.log_softmax(earlier_logits / self.temp, 1)
            divergence = F.kl_div(log_p, earlier_log_p, reduction='sum', log_target=True)
            self.learn.loss_grad = self.learn.loss_grad + self.weight / len(row_numbers) * divergence

    def state_dict(self): return {'seen': self._outputs}
    def load_state_dict(self, saved_state): self._outputs = saved_state['seen']
    def after_fit(self): self._outputs = {}
