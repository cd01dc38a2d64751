"""A guard against losses and gradients that aren't finite: it names the cause, or leaves the batch out."""
import torch
from fastai.callback.core import Callback, CancelBatchException, CancelFitException, CancelStepException
from fastai.callback.fp16 import MixedPrecision
from fastai.torch_core import apply

from ..core import InputError, preview
from ..losses.base import Loss
from .base import in_lr_find
from .state import DrawnRows, ModelBuffers, preserved_randomness


class NonFinite(ArithmeticError):
    "A loss or a gradient is NaN or infinite; the message names the batch and the parameter, input or module."


def _is_bad(value) -> bool:
    "Whether `value` is a floating-point tensor with NaN or infinity in it."
    return torch.is_tensor(value) and value.is_floating_point() and not bool(value.isfinite().all())


def _tensors(nested) -> list:
    "The tensors in nested tuples and lists."
    found_tensors = []
    apply(lambda value: found_tensors.append(value) if torch.is_tensor(value) else None, nested)
    return found_tensors


def _bad_input(inputs) -> str | None:
    "Which input of the model isn't finite, and in which rows."
    for input_number, model_input in enumerate(inputs):
        for tensor in _tensors(model_input):
            if not _is_bad(tensor): continue
            bad_rows = torch.nonzero(~tensor.isfinite().reshape(len(tensor), -1).all(1)).flatten().tolist()
            return f'input {input_number} is not finite in rows {preview(bad_rows, 8)} of the batch'
    return None


def _bad_module(model, inputs) -> str | None:
    "The first module whose output isn't finite when `inputs` are passed through the model once more."
    bad_modules = []
    hooks = []
    for module_name, module in model.named_modules():
        if list(module.children()): continue

        def note(module, args, output, module_name=module_name):
            outputs = list(output.values()) if isinstance(output, dict) else output
            if any(map(_is_bad, _tensors(outputs))): bad_modules.append(module_name)
        hooks.append(module.register_forward_hook(note))
    try:
        with torch.no_grad(), preserved_randomness(): model(*inputs)
    finally:
        for hook in hooks: hook.remove()
    return bad_modules[0] if bad_modules else None


class Guard(Callback):
    """Stops training with `NonFinite` where a loss or gradient isn't finite, and says what caused it; or
    leaves the batch out.

    A batch that is left out changes nothing, BatchNorm's statistics included. Under mixed precision the loss
    scaler skips such steps itself; the guard lets it, up to `scaler_skip` in a row. Batches left out are
    listed in `bad` as (epoch, batch, message).

    The losses of this package raise `NotANumber` for a NaN themselves; in training under a guard they return
    it, and leave to the guard what follows. `lr_find`, which raises the rate until the loss is lost, ends
    there.
    """
    # after gradients are unscaled, before they are clipped: clipping makes all gradients NaN
    order, run_valid = MixedPrecision.order + .5, False

    def __init__(
        self,
        skip: int = 0,  # Batches in a row that are left out before training stops; 0 stops at the first
        scaler_skip: int = 20,  # Steps in a row that a loss scaler may skip
    ):
        if min(skip, scaler_skip) < 0: raise InputError(f'skip={skip}, scaler_skip={scaler_skip}: 0 or more')
        self.skip = skip
        self.scaler_skip = scaler_skip

    def before_fit(self):
        self._release_loss()
        modules = self.learn.loss_func.modules() if isinstance(self.learn.loss_func, torch.nn.Module) else []
        self._watched = [(module, module.register_forward_pre_hook(self._take_over))
                         for module in modules if isinstance(module, Loss)]
        self.bad = []
        self._in_a_row = 0
        self._scaler_skipped = 0
        self._last_loss = None

    def _take_over(self, loss, args):
        "Forward pre-hook of a loss: told at each call whether this guard looks at the result."
        # the hook may be left over from a fit that broke off, and the guard have left the learner
        if self.learn is None: self._release_loss()
        else: loss.returns_nan = self.learn.model.training

    def _release_loss(self):
        for loss, hook in self.__dict__.pop('_watched', []):
            hook.remove()
            loss.returns_nan = False

    def after_fit(self): self._release_loss()

    def state_dict(self):
        "For a training that is resumed."
        last_loss = None if self._last_loss is None else self._last_loss.detach()
        return dict(bad=list(self.bad), row=self._in_a_row, skipped=self._scaler_skipped, loss=last_loss)

    def load_state_dict(self, saved_state):
        "Go on from what `state_dict` returned."
        self.bad = list(map(tuple, saved_state['bad']))
        self._in_a_row = saved_state['row']
        self._scaler_skipped = saved_state['skipped']
        self._last_loss = saved_state['loss']

    def before_train(self):
        self.after_train()
        self._drawn = DrawnRows(self.learn.dls.train)
        if self.skip: self._model_buffers = ModelBuffers(self.learn.model)
        self.after_batch()

    def after_batch(self):
        if self.skip: self._buffer_copies = self._model_buffers.copy()

    def after_train(self):
        drawn_rows = self.__dict__.pop('_drawn', None)
        if drawn_rows: drawn_rows.close()
        for attribute in ('_model_buffers', '_buffer_copies'): self.__dict__.pop(attribute, None)

    def _loss_is_scaled(self) -> bool:
        scaler = getattr(self.learn, 'scaler', None)
        return scaler is not None and scaler.is_enabled()

    def _where(self) -> str:
        "Epoch and batch, and the rows of the training data where they are known."
        row_numbers = self._drawn.rows(self.iter)
        place = f'epoch {self.epoch}, batch {self.iter}'
        return f'{place} (rows {preview(row_numbers, 8)} of the training data)' if row_numbers else place

    def _cause(self) -> str:
        "The first of inputs, weights and modules that isn't finite."
        model = self.learn.model
        bad_input = _bad_input(self.xb)
        if bad_input: return bad_input
        bad_params = [name for name, parameter in model.named_parameters() if _is_bad(parameter.detach())]
        if bad_params: return f'parameters that are not finite: {preview(bad_params)}'
        bad_module = _bad_module(model, self.xb)
        if bad_module: return f'the first module whose output is not finite: {bad_module}'
        return 'inputs, parameters and outputs are finite: it is the loss itself'

    def _leave_out(self, reason, cancellation):
        "Record the batch and raise `cancellation`, or `NonFinite` if there were too many in a row."
        # it puts the weights back
        if in_lr_find(self.learn): raise CancelFitException
        message = f'{self._where()}: {reason}'
        self.bad.append((self.epoch, self.iter, message))
        self._in_a_row += 1
        if self._in_a_row > self.skip: raise NonFinite(message)
        # one NaN would stay in BatchNorm's running statistics for good
        self._model_buffers.restore(self._buffer_copies)
        raise cancellation

    def after_loss(self):
        if self._loss_is_scaled(): return
        loss = self.learn.loss_grad.detach()
        if bool(loss.isfinite().all()):
            self._last_loss = self.learn.loss
            return
        reason = f'the loss is {float(loss.mean())}; {self._cause()}'
        # one NaN would stay in the Recorder's moving average for good
        if self._last_loss is not None: self.learn.loss = self._last_loss
        self._leave_out(reason, CancelBatchException)

    def before_step(self):
        parameters = self.learn.model.parameters()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        self._scaler_skipped = 0
        norms = [norm.float() for norm in torch._foreach_norm(gradients)] if gradients else []
        if not norms or bool(torch.stack(norms).isfinite().all()): self._in_a_row = 0
        else: self._leave_out(self._bad_gradients(), CancelStepException)

    def _bad_gradients(self) -> str:
        parameters = self.learn.model.named_parameters()
        bad_names = [weight_name for weight_name, parameter in parameters if _is_bad(parameter.grad)]
        return f'gradients that are not finite: {preview(bad_names)}'

    def after_cancel_step(self):
        if not self._loss_is_scaled(): return
        self._scaler_skipped += 1
        if self._scaler_skipped <= self.scaler_skip: return
        if in_lr_find(self.learn): raise CancelFitException
        scale = self.learn.scaler.get_scale()
        message = f'the loss scaler has skipped {self._scaler_skipped} steps in a row, its scale is {scale:g}'
        raise NonFinite(f'{self._where()}: {message}; {self._bad_gradients()}')
