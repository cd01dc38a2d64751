"Batch sizes: gradients accumulated to a larger one, the largest that fits, and the size beyond which more is wasted."
import copy

import torch
from fastai.callback.core import Callback, CancelBatchException, CancelFitException, CancelStepException
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.training import GradientAccumulation as FastaisAccumulation
from fastai.learner import Learner
from fastai.torch_core import apply, find_bs
from fastcore.basics import patch

from ..core import InputError


class GradientAccumulation(FastaisAccumulation):
    "Steps once `n_acc` items were seen and at the epoch's end; each step has the mean gradient of just its items."
    def before_train(self):
        # what an interrupted epoch left over belongs to no step
        if self.count: self.opt.zero_grad()
        self.count = 0

    def after_loss(self): self.learn.loss_grad = self.learn.loss_grad * (find_bs(self.learn.yb) / self.n_acc)

    def before_step(self):
        self.count += find_bs(self.learn.yb)
        # fastai carries the rest over into the next epoch
        if self.count < self.n_acc and self.iter < self.n_iter - 1: raise CancelBatchException
        if self.count != self.n_acc:
            grads = [p.grad for pg in self.opt.param_lists for p in pg if p.grad is not None]
            torch._foreach_mul_(grads, self.n_acc / self.count)
        self.count = 0


def is_out_of_memory(e: Exception) -> bool:
    "Whether the device, or the CPU's allocator, had no room."
    return isinstance(e, torch.OutOfMemoryError) or "can't allocate memory" in str(e) or 'out of memory' in str(e).lower()


class _Sized(Callback):
    "Trains one batch of `n` items, the loader's own repeated, and stops."
    order = -5  # before any callback that works on the batch, after training mode is set
    def __init__(self, n): self.n = n

    def before_batch(self):
        def sized(t): return t[torch.arange(self.n, device=t.device) % len(t)]
        self.learn.xb, self.learn.yb = (tuple(apply(sized, o) for o in b) for b in (self.learn.xb, self.learn.yb))

    def after_batch(self): raise CancelFitException


class _Untouched:
    "Puts the Learner's model, optimizer and random numbers back as they were."
    def __init__(self, learn): self.learn = learn

    def __enter__(self):
        if self.learn.opt is None: self.learn.create_opt()
        # on the CPU, or the copy would take the room that is measured
        self.model = {k: v.detach().cpu().clone() for k, v in self.learn.model.state_dict().items()}
        self.opt = copy.deepcopy(self.learn.opt.state_dict())
        self.fork = torch.random.fork_rng()
        self.fork.__enter__()

    def __exit__(self, *exc):
        self.fork.__exit__(*exc)
        self.learn.opt.zero_grad()
        for p in self.learn.model.parameters(): p.grad = None
        self.learn.model.load_state_dict(self.model)
        self.learn.opt.load_state_dict(self.opt)


@patch
def largest_bs(
    self: Learner,
    start: int = 8,  # First size tried, and the grain of the answer
    stop: int = 4096,  # Largest size tried
) -> int:  # Items a batch
    "The largest batch that trains without running out of memory, found by doubling and halving; the model is left as it was."
    if not 1 <= start <= stop: raise InputError(f'start={start}, stop={stop}: at least 1, and start no more than stop')

    def fits(n):
        try:
            with self.no_logging(), self.no_bar(): self.fit(1, cbs=_Sized(n))
        except (RuntimeError, MemoryError) as e:
            if not (isinstance(e, MemoryError) or is_out_of_memory(e)): raise
            self.remove_cbs(self._grab_cbs(_Sized))
            self._end_cleanup()
            return False
        finally:
            self.opt.zero_grad()
            if torch.cuda.is_available(): torch.cuda.empty_cache()
        return True

    with _Untouched(self):
        # in units of `start`; `bad` didn't fit or is beyond `stop`
        good, bad, most = 0, 1, stop // start
        while bad <= most and fits(bad * start): good, bad = bad, bad * 2
        if good == 0: raise InputError(f'not even {start} items fit in memory: try a smaller start, smaller pictures or a smaller encoder')
        bad = min(bad, most + 1)
        while bad - good > 1:
            mid = (good + bad) // 2
            good, bad = (mid, bad) if fits(mid * start) else (good, mid)
    return good * start


class _Norms(Callback):
    "Takes no step; sums up the batches' gradients and their squared lengths."
    order = MixedPrecision.order + 1  # after gradients are unscaled
    def __init__(self, n): self.n, self.squares, self.total, self.sizes = n, [], None, []

    def before_step(self):
        grads = [p.grad for p in self.learn.model.parameters() if p.grad is not None]
        self.squares.append(sum(float(o)**2 for o in torch._foreach_norm(grads)))
        self.sizes.append(find_bs(self.learn.yb))
        if self.total is None: self.total = [g.clone() for g in grads]
        else: torch._foreach_add_(self.total, grads)
        raise CancelStepException

    def after_batch(self):
        if len(self.squares) >= self.n: raise CancelFitException


@patch
def noise_scale(
    self: Learner,
    n: int = 16,  # Batches to measure, two at least
) -> float:  # Items a batch
    "The batch size at which noise and gradient are alike (`B_simple`, https://arxiv.org/abs/1812.06162): well above it, larger batches hardly help."
    if n < 2: raise InputError(f'n={n}: two batches at least')
    cb = _Norms(n)
    with _Untouched(self), self.no_logging(), self.no_bar():
        epochs = -(-n // max(1, len(self.dls.train)))
        self.fit(epochs, cbs=cb)
    n, b = len(cb.squares), sum(cb.sizes) / len(cb.sizes)
    small, big = sum(cb.squares) / n, sum(float(o)**2 for o in torch._foreach_norm(cb.total)) / n**2
    # the paper's appendix A: both squared lengths are |G|^2 plus noise / size
    gradient, noise = (n * big - small) / (n - 1), (small - big) * b * n / (n - 1)
    # a gradient lost in its noise: the estimate has no upper end
    return noise / gradient if gradient > 0 else float('inf')
