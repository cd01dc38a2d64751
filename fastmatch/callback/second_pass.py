"Passing a step's batches through the model once more, exactly as they went the first time: what SAM and adversarial training share."
import torch
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.mixup import MixHandler
from fastai.layers import NoneReduce
from fastai.torch_core import apply, find_bs, to_float

from ..core import InputError
from .state import Buffers, random_state, randomness_kept, set_random_state


def wanting_heads(model): return [m for m in model.modules() if getattr(m, 'wants_labels', False)]


def tell_heads(model, labels):
    "Hand `labels` to the heads that want them."
    for head in wanting_heads(model): head.labels = labels


def base_loss(learn):
    "The Learner's loss, or the one that mixing has put a mixed one in the place of."
    return next((o.old_lf for o in learn.cbs if isinstance(o, MixHandler) and learn.loss_func == o.lf), learn.loss_func)


def row_losses(
    loss,  # The batch's
    pred,  # Of the model
    yb: tuple,  # Targets
    base=None,  # The loss that a mixed `loss` mixes
) -> torch.Tensor:  # (n,)
    "The loss of each row of a batch."
    base, n = loss if base is None else base, find_bs(yb)
    if not hasattr(base, 'reduction'): raise InputError(f'{type(base).__name__} has no `reduction`: rows can not be picked by their losses')
    with NoneReduce(base): rows = torch.as_tensor(loss(pred, *yb)).as_subclass(torch.Tensor)
    if rows.numel() % n or rows.ndim == 0: raise InputError(f"{type(base).__name__} gives {rows.numel()} values for {n} rows with reduction='none'")
    return rows.reshape(n, -1).float().mean(1)


class Pass:
    "One forward pass: its inputs, targets and all it depended on besides the weights."
    def __init__(self, args, buffers, device):
        self.xb, self.random, self.buffers = args, random_state(), buffers
        self.autocast = dict(device_type=device, dtype=torch.get_autocast_dtype(device), enabled=torch.is_autocast_enabled(device))

    def told(self, learn):
        "Note what the loss and the heads were told."
        self.yb, self.n = learn.yb, find_bs(learn.yb)
        self.mixed = [(o, o.lam, getattr(o, 'yb1', None)) for o in learn.cbs if isinstance(o, MixHandler) and hasattr(o, 'lam')]
        self.labels = [(o, o.labels) for o in wanting_heads(learn.model)]
        return self

    def tell(self, rows=None):
        "Tell mixing and heads the same again, of some rows only."
        for o, lam, yb1 in self.mixed: o.lam, o.yb1 = self.at(lam, rows), self.at(yb1, rows)
        for o, labels in self.labels: o.labels = self.at(labels, rows)

    def at(self, x, rows):
        # a share for the whole batch has no rows
        return x if rows is None else apply(lambda t: t[rows] if torch.is_tensor(t) and t.ndim and len(t) == self.n else t, x)


class SecondLook(Callback):
    "Notes each forward pass of a step, for `again`; subclasses give `look`, called where a step is to be taken and its gradients are there."
    # after accumulation has decided to step, before the second gradients are unscaled, checked and clipped like any others
    order, run_valid = MixedPrecision.order - 1, False

    def before_fit(self):
        if others := [o for o in self.learn.cbs if isinstance(o, SecondLook) and o is not self]:
            raise InputError(f'{type(self).__name__} and {type(others[0]).__name__} both ask for passes of their own: use one of them')

    def before_train(self):
        # wrappers (for several GPUs) are put around the model after `before_fit`; what an interrupted epoch left over belongs to no step
        self.after_train()
        self._kept, self._passes, self._now, self._replaying = Buffers(self.learn.model), [], None, False
        self._hook = self.learn.model.register_forward_pre_hook(self._note)

    def after_train(self):
        # taken off even after an epoch that broke: an exported Learner holds no hook
        if hook := self.__dict__.pop('_hook', None): hook.remove()
        for o in ('_kept', '_passes', '_now'): self.__dict__.pop(o, None)

    def _note(self, module, args):
        # at the call itself: whatever draws random numbers or enters autocast before it has done so
        if self.learn is None: return self._hook.remove()  # of a fit that broke off
        if self._replaying or not torch.is_grad_enabled(): return
        self._now = Pass(args, self._kept.take(), next(module.parameters()).device.type)

    def after_loss(self): self._now.told(self.learn)
    def after_cancel_backward(self): self._now = None

    def after_backward(self):
        if self._now is not None: self._passes.append(self._now)
        self._now = None

    def before_step(self): self.look()
    def after_step(self): self._passes = []

    def look(self):
        "Change the gradients of the step."
        raise NotImplementedError

    def live(self) -> tuple[list, list]:
        "The weights of this step and their gradients."
        ps = [p for pg in self.opt.param_lists for p in pg if p.grad is not None and p.requires_grad]
        return ps, [p.grad for p in ps]

    def _forward(self, o, rows=None):
        set_random_state(o.random)
        self._kept.put(o.buffers)
        o.tell(rows)
        pred = self.learn.model(*o.at(o.xb, rows))
        return to_float(pred) if any(isinstance(cb, MixedPrecision) for cb in self.learn.cbs) else pred

    def _each(self, f):
        "`f` of each pass, as it was; then random numbers, buffers and what was told are as they are now."
        now, last = self._kept.take(), self._passes[-1]
        self._replaying = self.learn.looking_again = True
        try:
            with randomness_kept(): return [f(o) for o in self._passes]
        finally:
            self._replaying = self.learn.looking_again = False
            self._kept.put(now)
            last.tell()

    def again(
        self,
        rows: list | None = None,  # Rows (k,) to take of each batch; None: all
        of: list | None = None,  # Weights whose gradients are returned; None: all gradients are added to those there are
    ):
        "Forward and backward once more at the weights as they are now; with the same mixing, precision and loss scale, and buffers left alone."
        # the same dropout too; of a share of the rows as many draws are made as there are, so that theirs is another
        total = sum(o.n for o in self._passes)
        rows = dict(zip(map(id, self._passes), rows or [None] * len(self._passes)))
        scaler = getattr(self.learn, 'scaler', None)

        def once(o):
            with torch.enable_grad():
                with torch.autocast(**o.autocast):
                    pred = self._forward(o, rows[id(o)])
                    loss = self.learn.loss_func(pred, *o.at(o.yb, rows[id(o)])) * (o.n / total)
                if scaler is not None: loss = scaler.scale(loss)
                if of is None: loss.backward()
                else: return torch.autograd.grad(loss, of)
        parts = self._each(once)
        return None if of is None else [sum(o) for o in zip(*parts)]

    def losses(self) -> list:
        "The loss of each row (n,) of each batch at the weights as they are now, without gradients."
        def once(o):
            with torch.no_grad(), torch.autocast(**o.autocast): return row_losses(self.learn.loss_func, self._forward(o), o.yb, base_loss(self.learn))
        return self._each(once)


def norm_of(
    tensors: list,
) -> float:
    "The length of all `tensors` as one vector."
    norms = torch._foreach_norm(tensors)
    wide = torch.float64 if any(o.dtype == torch.float64 for o in norms) else torch.float32
    return float(torch.linalg.vector_norm(torch.stack([o.to(norms[0].device, wide) for o in norms])))


class Moved:
    "Weights that may be moved inside and are bit for bit where they were afterwards."
    # copied and not added and taken off again: rounding would leave them beside where they were
    def __init__(self, params): self.params = params
    def __enter__(self):
        self.kept = [p.detach().clone() for p in self.params]
        return self

    def __exit__(self, *exc):
        with torch.no_grad(): torch._foreach_copy_(self.params, self.kept)
