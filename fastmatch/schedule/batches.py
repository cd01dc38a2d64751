"""Batch sizes: gradients accumulated to a larger batch, the largest that fits, the size that is enough."""
import copy

import torch
from fastai.callback.core import Callback, CancelBatchException, CancelFitException, CancelStepException
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.training import GradientAccumulation as FastaiGradientAccumulation
from fastai.torch_core import apply, find_bs

from ..core import InputError


class GradientAccumulation(FastaiGradientAccumulation):
    """Takes a step once `n_acc` items have been seen, and at the end of each epoch.

    Each step uses the mean gradient of exactly its own items. fastai's callback of the same name carries what
    is left over at the end of an epoch into the next one.
    """
    def before_train(self):
        # what an interrupted epoch left over belongs to no step
        if self.count: self.opt.zero_grad()
        self.count = 0

    def after_loss(self):
        self.learn.loss_grad = self.learn.loss_grad * (find_bs(self.learn.yb) / self.n_acc)

    def before_step(self):
        self.count += find_bs(self.learn.yb)
        last_batch = self.iter == self.n_iter - 1
        if self.count < self.n_acc and not last_batch: raise CancelBatchException
        if self.count != self.n_acc:
            parameters = [parameter for group in self.opt.param_lists for parameter in group]
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            torch._foreach_mul_(gradients, self.n_acc / self.count)
        self.count = 0


def is_out_of_memory(
    error: Exception,  # What a forward or backward pass raised
) -> bool:
    "Whether the device, or the CPU's allocator, had too little memory."
    message = str(error)
    if isinstance(error, torch.OutOfMemoryError): return True
    return "can't allocate memory" in message or 'out of memory' in message.lower()


class _OneBatch(Callback):
    "Trains one batch of `n` items, made of those of the loader's first batch, and stops."
    order = -5  # before any callback that works on the batch, after training mode is set

    def __init__(self, n_items): self.n = n_items

    def before_batch(self):
        def resize(tensor):
            rows = torch.arange(self.n) % len(tensor)
            # from both ends, where batches of a few rows of each group hold pairs of one and of two groups
            if self.n < len(tensor): rows[self.n // 2:] += len(tensor) - self.n
            return tensor[rows.to(tensor.device)]
        self.learn.xb = tuple(apply(resize, batch_part) for batch_part in self.learn.xb)
        self.learn.yb = tuple(apply(resize, batch_part) for batch_part in self.learn.yb)

    def after_batch(self): raise CancelFitException


class _RestoredLearner:
    "Context in which a learner may train: its model, optimizer and random numbers are as before afterwards."
    def __init__(self, learner): self.learner = learner

    def __enter__(self):
        if self.learner.opt is None: self.learner.create_opt()
        # on the CPU, or the copy would take the memory that is being measured
        self.model_state = self.learner.model.state_dict()
        # replaced in place: a state dict's metadata stays with it
        for weight_name, weight in self.model_state.items():
            self.model_state[weight_name] = weight.detach().cpu().clone()
        self.opt_state = copy.deepcopy(self.learner.opt.state_dict())
        self.random_fork = torch.random.fork_rng()
        self.random_fork.__enter__()

    def __exit__(self, *exc):
        self.random_fork.__exit__(*exc)
        self.learner.opt.zero_grad()
        for parameter in self.learner.model.parameters(): parameter.grad = None
        self.learner.model.load_state_dict(self.model_state)
        self.learner.opt.load_state_dict(self.opt_state)


def _fits_in_memory(learner, n_items) -> bool:
    "Whether the learner can train a batch of `n_items` items."
    try:
        with learner.no_logging(), learner.no_bar(): learner.fit(1, cbs=_OneBatch(n_items))
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or is_out_of_memory(error)): raise
        learner.remove_cbs(learner._grab_cbs(_OneBatch))
        learner._end_cleanup()
        return False
    finally:
        learner.opt.zero_grad()
        if torch.cuda.is_available(): torch.cuda.empty_cache()
    return True


def largest_bs(
    learner,  # fastai `Learner`; its model, optimizer and random numbers are left as they were
    start: int = 8,  # First size tried; the answer is a multiple of it
    stop: int = 4096,  # Largest size tried
) -> int:  # Items in a batch
    "The largest batch that trains without running out of memory, found by doubling and then bisection."
    if not 1 <= start <= stop:
        raise InputError(f'start={start}, stop={stop}: at least 1, and start no more than stop')
    with _RestoredLearner(learner):
        # in units of `start`: `fits` is known to fit; `fails` does not fit or is beyond `stop`
        n_units = stop // start
        fits, fails = 0, 1
        while fails <= n_units and _fits_in_memory(learner, fails * start): fits, fails = fails, fails * 2
        if fits == 0:
            raise InputError(f'not even {start} items fit in memory: '
                             'try a smaller start, smaller pictures or a smaller encoder')
        fails = min(fails, n_units + 1)
        while fails - fits > 1:
            middle = (fits + fails) // 2
            if _fits_in_memory(learner, middle * start): fits = middle
            else: fails = middle
    return fits * start


class _GradientNorms(Callback):
    "Takes no step; sums up the gradients of `n` batches, and notes their squared lengths and batch sizes."
    order = MixedPrecision.order + 1  # after gradients are unscaled

    def __init__(self, n_batches):
        self.n = n_batches
        self.squares = []
        self.total = None
        self.sizes = []

    def before_step(self):
        parameters = self.learn.model.parameters()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        self.squares.append(_squared_length(gradients))
        self.sizes.append(find_bs(self.learn.yb))
        if self.total is None: self.total = [gradient.clone() for gradient in gradients]
        else: torch._foreach_add_(self.total, gradients)
        raise CancelStepException

    def after_batch(self):
        if len(self.squares) >= self.n: raise CancelFitException


def _squared_length(tensors) -> float:
    "The squared length of all tensors as one vector."
    return sum(float(tensor_norm)**2 for tensor_norm in torch._foreach_norm(tensors))


def noise_scale(
    learner,  # fastai `Learner`; its model, optimizer and random numbers are left as they were
    n: int = 16,  # Batches to measure, two at least
) -> float:  # Items in a batch; infinite where the gradient is lost in its noise
    """The batch size at which the gradient's noise is as large as the gradient itself.

    Well above it, larger batches hardly speed training up. It is `B_simple` of
    https://arxiv.org/abs/1812.06162.
    """
    if n < 2: raise InputError(f'n={n}: two batches at least')
    gradient_norms = _GradientNorms(n)
    with _RestoredLearner(learner), learner.no_logging(), learner.no_bar():
        n_epochs = -(-n // max(1, len(learner.dls.train)))
        learner.fit(n_epochs, cbs=gradient_norms)
    n = len(gradient_norms.squares)
    mean_size = sum(gradient_norms.sizes) / len(gradient_norms.sizes)
    # the paper's appendix A: the squared length of a mean gradient is |G|^2 + noise / batch size, here of one
    # batch and of all together
    square_of_one = sum(gradient_norms.squares) / n
    square_of_all = _squared_length(gradient_norms.total) / n**2
    gradient_square = (n * square_of_all - square_of_one) / (n - 1)
    noise = (square_of_one - square_of_all) * mean_size * n / (n - 1)
    return noise / gradient_square if gradient_square > 0 else float('inf')
