"What goes wrong in training and when it was best: losses and gradients that aren't finite, and training to the best epoch."
import torch
from fastai.callback.core import Callback, CancelBatchException, CancelFitException, CancelStepException
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.tracker import EarlyStoppingCallback, TrackerCallback
from fastai.learner import Learner
from fastai.torch_core import apply
from fastcore.basics import patch
from fastcore.foundation import L

from ..core import InputError, preview
from .state import Buffers, Drawn, learner_state, randomness_kept, set_learner_state


class NonFinite(ArithmeticError):
    "A loss or a gradient is NaN or infinite; the message names the batch and the parameter, input or module."


def _bad(t): return torch.is_tensor(t) and t.is_floating_point() and not bool(t.isfinite().all())


def _tensors(x):
    found = []
    apply(lambda t: found.append(t) if torch.is_tensor(t) else None, x)
    return found


class Guard(Callback):
    "Stops training, or leaves the batch out, where loss or gradients aren't finite, and says whose. A loss scaler's own skips are let pass."
    order, run_valid = MixedPrecision.order + .5, False  # unscaled, not yet clipped: clipping makes all gradients NaN

    def __init__(
        self,
        skip: int = 0,  # Batches in a row that are left out before training stops; 0 stops at the first
        scaler_skip: int = 20,  # Steps in a row that a loss scaler may skip
    ):
        if min(skip, scaler_skip) < 0: raise InputError(f'skip={skip}, scaler_skip={scaler_skip}: 0 or more')
        self.skip, self.scaler_skip = skip, scaler_skip

    def before_fit(self): self.bad, self._row, self._skipped, self._loss = [], 0, 0, None

    # for a training that is resumed
    def state_dict(self): return dict(bad=list(self.bad), row=self._row, skipped=self._skipped, loss=None if self._loss is None else self._loss.detach())
    def load_state_dict(self, sd): self.bad, self._row, self._skipped, self._loss = list(map(tuple, sd['bad'])), sd['row'], sd['skipped'], sd['loss']

    def before_train(self):
        self.after_train()
        self._drawn = Drawn(self.learn.dls.train)
        if self.skip: self._stats = Buffers(self.learn.model)
        self.after_batch()

    def after_batch(self):
        if self.skip: self._kept = self._stats.take()

    def after_train(self):
        if drawn := self.__dict__.pop('_drawn', None): drawn.close()
        for o in ('_stats', '_kept'): self.__dict__.pop(o, None)

    def _scaled(self): return getattr(self.learn, 'scaler', None) is not None and self.learn.scaler.is_enabled()

    def _where(self):
        rows = self._drawn.rows(self.iter)
        return f'epoch {self.epoch}, batch {self.iter}' + (f' (rows {preview(rows, 8)} of the training data)' if rows else '')

    def _culprit(self):
        "The first of inputs, weights and modules that isn't finite."
        for i, x in enumerate(self.xb):
            for t in _tensors(x):
                if _bad(t): return f'input {i} is not finite in rows {preview(torch.nonzero(~t.isfinite().reshape(len(t), -1).all(1)).flatten().tolist(), 8)} of the batch'
        if names := [k for k, p in self.learn.model.named_parameters() if _bad(p.detach())]: return f'parameters that are not finite: {preview(names)}'
        found, hooks = [], []
        for k, m in self.learn.model.named_modules():
            def note(m, args, out, k=k):
                if any(map(_bad, _tensors(list(out.values()) if isinstance(out, dict) else out))): found.append(k)
            if not list(m.children()): hooks.append(m.register_forward_hook(note))
        try:
            with torch.no_grad(), randomness_kept(): self.learn.model(*self.xb)
        finally:
            for o in hooks: o.remove()
        return f'the first module whose output is not finite: {found[0]}' if found else 'inputs, parameters and outputs are finite: it is the loss itself'

    def _leave(self, what, cancel):
        message = f'{self._where()}: {what}'
        self.bad.append((self.epoch, self.iter, message))
        self._row += 1
        if self._row > self.skip: raise NonFinite(message)
        # one NaN would stay in BatchNorm's running statistics for good as well
        self._stats.put(self._kept)
        raise cancel

    def after_loss(self):
        if self._scaled(): return
        loss = self.learn.loss_grad.detach()
        if bool(loss.isfinite().all()):
            self._loss = self.learn.loss
            return
        what = f'the loss is {float(loss.mean())}; {self._culprit()}'
        # one NaN would stay in the Recorder's moving average for good
        if self._loss is not None: self.learn.loss = self._loss
        self._leave(what, CancelBatchException)

    def before_step(self):
        named = [(k, p.grad) for k, p in self.learn.model.named_parameters() if p.grad is not None]
        self._skipped = 0
        if not named or bool(torch.stack([o.float() for o in torch._foreach_norm([g for _, g in named])]).isfinite().all()): self._row = 0
        else: self._leave(self._gradients(), CancelStepException)

    def _gradients(self):
        return f'gradients that are not finite: {preview(k for k, p in self.learn.model.named_parameters() if p.grad is not None and _bad(p.grad))}'

    def after_cancel_step(self):
        if not self._scaled(): return
        self._skipped += 1
        if self._skipped > self.scaler_skip:
            raise NonFinite(f'{self._where()}: the loss scaler has skipped {self._skipped} steps in a row, its scale is {self.learn.scaler.get_scale():g}; {self._gradients()}')


class _Best(TrackerCallback):
    "Notes the epoch of the best score."
    at = None

    def after_epoch(self):
        super().after_epoch()
        if self.new_best: self.at = self.epoch

    # for a training that is resumed
    def state_dict(self): return dict(best=float(self.best), at=self.at)
    def load_state_dict(self, sd): self.best, self.at = sd['best'], sd['at']


class _StopAfter(Callback):
    order = 70  # after trackers
    def __init__(self, epoch): self.last = epoch
    def after_epoch(self):
        if self.epoch >= self.last: raise CancelFitException
    def state_dict(self): return dict(last=self.last)
    def load_state_dict(self, sd): self.last = sd['last']


@patch
def fit_to_best(
    self: Learner,
    n_epoch: int,  # Epochs of the first training, and of the schedule of both
    lr=None,  # As for `fit`
    monitor: str = 'valid_loss',  # A recorded value
    comp=None,  # `np.less` or `np.greater`; default by the name, as fastai's trackers
    patience: int | None = None,  # Stop the first training after so many epochs without a gain
    fit: str = 'fit_flat_cos',  # Method that trains
    dls=None,  # What to train on the second time, all listings for one; default the same again
    cbs=None,  # More callbacks, for both
    **kwargs,  # For the method
) -> int:  # The best epoch, from 0
    "Train, then train again from the start to the end of the epoch that was best."
    cbs = L(cbs)
    if self.opt is None: self.create_opt()
    start = learner_state(self)
    best = _Best(monitor, comp)
    stop = [] if patience is None else [EarlyStoppingCallback(monitor, comp, patience=patience)]
    getattr(self, fit)(n_epoch, lr, cbs=[*cbs, best, *stop], **kwargs)
    # without any score the second training was under way when the process was killed: its state knows where to stop
    if best.at is None and self.recorder.values: raise InputError(f'{monitor} was never better than nothing: {[o[best.idx] for o in self.recorder.values]}')
    own, stop = self.dls, _StopAfter(best.at)
    set_learner_state(self, start)
    if dls is not None: self.dls = dls
    try: getattr(self, fit)(n_epoch, lr, cbs=[*cbs, stop], **kwargs)
    finally: self.dls = own
    return stop.last
