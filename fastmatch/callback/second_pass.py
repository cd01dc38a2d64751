"""A second forward and backward pass over the batches of a step, exactly as they went the first time.

`SecondPass` is the base of SAM and its relatives (`sharpness.py`) and of adversarial training
(`adversarial.py`): they move weights, ask for the gradient there, and put the weights back.
"""
from contextlib import nullcontext

import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.mixup import MixHandler
from fastai.torch_core import apply, find_bs, to_float

from ..core import InputError
from ..processes import mean_of_all, without_sync
from .base import heads_wanting_labels, mixed_precision, other_callback, row_losses, unmixed_loss
from .state import ModelBuffers, preserved_randomness, random_state, set_random_state


class ForwardPass:
    "One forward pass of a training batch: inputs, targets and all it depended on besides the weights."
    def __init__(
        self,
        inputs: tuple,  # Arguments of the model
        buffers: list,  # The model's buffers before the pass, from `ModelBuffers.copy`
        device: str,  # Type of the device: 'cpu', 'cuda', ...
    ):
        self.inputs = inputs
        self.buffers = buffers
        self.random = random_state()
        self.autocast = dict(device_type=device, dtype=torch.get_autocast_dtype(device),
                             enabled=torch.is_autocast_enabled(device))

    def note_targets(self, learner):
        "Note the batch's targets, the shares and partners of mixing, and the labels that heads were given."
        self.targets = learner.yb
        self.n = find_bs(learner.yb)
        mixers = [callback for callback in learner.cbs if isinstance(callback, MixHandler)]
        self.mixed = [(mixer, mixer.lam, getattr(mixer, 'yb1', None))
                      for mixer in mixers if hasattr(mixer, 'lam')]
        self.labels = [(head, head.labels) for head in heads_wanting_labels(learner.model)]

    def restore_targets(
        self,
        rows: torch.Tensor | None = None,  # int64 (k,) rows of the batch that are passed again; None: all
    ):
        "Give mixing callbacks and heads what they had in this pass."
        for callback, share, partners in self.mixed:
            callback.lam = self.select(share, rows)
            callback.yb1 = self.select(partners, rows)
        for head, labels in self.labels: head.labels = self.select(labels, rows)

    def select(
        self,
        values,  # A tensor, or tuples and lists of them
        rows: torch.Tensor | None,  # int64 (k,); None: all
    ):
        "The given rows of tensors that have the batch's rows; other values, such as one share for all, stay."
        def pick(tensor):
            is_by_row = torch.is_tensor(tensor) and tensor.ndim and len(tensor) == self.n
            return tensor[rows] if is_by_row else tensor
        return values if rows is None else apply(pick, values)


class SecondPass(Callback):
    """Notes the forward passes of each step, so that they can be repeated at other weights.

    Subclasses define `change_gradients`, which is called when a step is about to be taken and its gradients
    are there. With accumulated gradients a step has several forward passes, and all are repeated.
    """
    # after accumulation has decided to step; before gradients are unscaled, checked and clipped: the new ones
    # must be, too
    order, run_valid = MixedPrecision.order - 1, False
    # with several processes: whether the gradients of the first pass, which only lead the way to the second,
    # stay those of this process
    first_pass_is_local = False

    def before_fit(self):
        other_second_pass = other_callback(self, SecondPass)
        if other_second_pass is None: return
        names = f'{type(self).__name__} and {type(other_second_pass).__name__}'
        raise InputError(f'{names} both ask for passes of their own: use one of them')

    def before_train(self):
        # here and not in `before_fit`, after which wrappers for several GPUs are put around the model;
        # what an interrupted epoch left over belongs to no step
        self.after_train()
        self._model_buffers = ModelBuffers(self.learn.model)
        self._passes = []
        self._current = None
        self._replaying = False
        self._hook = self.learn.model.register_forward_pre_hook(self._note_forward)

    def after_train(self):
        # taken off after an epoch that broke, too: an exported Learner holds no hook
        hook = self.__dict__.pop('_hook', None)
        if hook is not None: hook.remove()
        self._end_local_pass()
        for attribute in ('_model_buffers', '_passes', '_current'): self.__dict__.pop(attribute, None)

    def _note_forward(self, module, model_inputs):
        "Forward pre-hook: note what the pass depends on, at the call itself, when autocast has been entered."
        # a hook that is left over from a fit that broke off
        if self.learn is None: return self._hook.remove()
        if self._replaying or not torch.is_grad_enabled(): return
        device_type = next(module.parameters()).device.type
        self._current = ForwardPass(model_inputs, self._model_buffers.copy(), device_type)
        if self.first_pass_is_local:
            self._local = without_sync(module)
            self._local.__enter__()

    def after_loss(self): self._current.note_targets(self.learn)
    def after_cancel_backward(self): self._current = None

    def _end_local_pass(self):
        local = self.__dict__.pop('_local', None)
        if local is not None: local.__exit__(None, None, None)

    def after_backward(self):
        self._end_local_pass()
        if self._current is not None: self._passes.append(self._current)
        self._current = None

    def before_step(self): self.change_gradients()
    def after_step(self): self._passes = []

    def change_gradients(self):
        "Change the gradients of the step about to be taken, with `second_pass` and `recompute_losses`."
        raise NotImplementedError

    def weights_and_gradients(self) -> tuple[list, list]:
        "The weights that this step will change, and their gradients."
        parameters = [parameter for group in self.opt.param_lists for parameter in group]
        with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
        weights = [parameter for parameter in with_gradient if parameter.requires_grad]
        return weights, [weight.grad for weight in weights]

    def _forward(self, forward_pass, rows=None):
        "The model's output for rows of a noted pass, with dropout, buffers, mixing and labels of that pass."
        set_random_state(forward_pass.random)
        self._model_buffers.restore(forward_pass.buffers)
        forward_pass.restore_targets(rows)
        output = self.learn.model(*forward_pass.select(forward_pass.inputs, rows))
        return output if mixed_precision(self.learn) is None else to_float(output)

    def _replay(self, function) -> list:
        "`function` of each noted pass; random numbers, buffers, mixing and labels are afterwards as before."
        buffers = self._model_buffers.copy()
        last_pass = self._passes[-1]
        self._replaying = True
        try:
            with preserved_randomness(): return [function(forward_pass) for forward_pass in self._passes]
        finally:
            self._replaying = False
            self._model_buffers.restore(buffers)
            last_pass.restore_targets()

    def second_pass(
        self,
        rows: list | None = None,  # For each forward pass of the step, the rows int64 (k,) to take; None: all
        of: list | None = None,  # Weights whose gradients are returned; None: those of all go to `.grad`
    ) -> list | None:  # The gradients of the weights in `of`
        """Pass the step's batches forward and backward again, at the weights as they are now.

        Mixing, precision and the loss scale are those of the first pass, and buffers are left alone. So is
        dropout, unless only some rows are taken: fewer random numbers are drawn then.
        """
        n_rows = sum(forward_pass.n for forward_pass in self._passes)
        rows_of = dict(zip(map(id, self._passes), rows or [None] * len(self._passes)))
        scaler = getattr(self.learn, 'scaler', None)

        def pass_again(forward_pass):
            chosen_rows = rows_of[id(forward_pass)]
            model = self.learn.model
            with torch.enable_grad(), nullcontext() if of is None else without_sync(model):
                with torch.autocast(**forward_pass.autocast):
                    output = self._forward(forward_pass, chosen_rows)
                    targets = forward_pass.select(forward_pass.targets, chosen_rows)
                    loss = self.learn.loss_func(output, *targets) * (forward_pass.n / n_rows)
                if scaler is not None: loss = scaler.scale(loss)
                if of is not None: return torch.autograd.grad(loss, of)
                loss.backward()
        gradients = self._replay(pass_again)
        if of is None: return None
        gradients = [sum(weight_gradients) for weight_gradients in zip(*gradients)]
        mean_of_all(gradients)
        return gradients

    def recompute_losses(self) -> list[torch.Tensor]:
        "The loss of each row (n,) of each forward pass at the weights as they are now, without gradients."
        def losses_again(forward_pass):
            with torch.no_grad(), torch.autocast(**forward_pass.autocast):
                output = self._forward(forward_pass)
                loss_func = self.learn.loss_func
                return row_losses(loss_func, output, forward_pass.targets, unmixed_loss(self.learn))
        return self._replay(losses_again)


def joint_norm(
    tensors: list,  # Tensors of any shapes
) -> float:
    "The length of all `tensors` together, as one vector."
    norms = torch._foreach_norm(tensors)
    dtype = torch.float64 if any(norm.dtype == torch.float64 for norm in norms) else torch.float32
    return float(torch.linalg.vector_norm(torch.stack([norm.to(norms[0].device, dtype) for norm in norms])))


class MovedWeights:
    "Context in which weights may be moved: they are put back bit for bit. `start` holds what they were."
    # copied, not moved back by subtraction: rounding would leave the weights a little off
    def __init__(
        self,
        weights: list,  # Parameters
    ):
        self.weights = weights

    def __enter__(self):
        self.start = [weight.detach().clone() for weight in self.weights]
        return self

    def __exit__(self, *exc):
        with torch.no_grad(): torch._foreach_copy_(self.weights, self.start)
