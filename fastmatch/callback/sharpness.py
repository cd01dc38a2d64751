"Training for flat minima: SAM, ASAM, LookSAM and ESAM over one second look at the batch, SAF over earlier outputs (experimental)."
import math

import numpy as np
import torch
import torch.nn.functional as F
from fastai.callback.core import CancelBackwardException
from fastai.callback.mixup import MixHandler
from fastai.torch_core import find_bs

from ..core import HeadOutput, InputError, auto_scale
from ..optim.kernels import chunks
from .second_pass import Moved, SecondLook, base_loss, norm_of, row_losses
from .state import Drawn, Sleeper


class SAM(SecondLook):
    "Steps with the gradient found `rho` uphill, https://arxiv.org/abs/2010.01412"
    def __init__(
        self,
        rho: float = .05,  # How far uphill, in the length of all weights together (the paper's)
    ):
        if not rho >= 0: raise InputError(f'rho={rho}: 0 or above')
        self.rho = rho

    def norm(self, ps, gs) -> float:
        "What `climb` divides by."
        return norm_of(gs)

    def climb(self, ps, gs, by):
        "Move weights `ps` uphill by `by` times their direction."
        torch._foreach_add_(ps, gs, alpha=by)

    def reach(self): return self.rho

    def uphill(self, ps, gs) -> bool:
        "Move to the perturbed weights; False where the gradients aren't finite, which is the scaler's matter, or a guard's."
        with torch.no_grad():
            # both have the loss's scale in them, so that no unscaling is needed here
            if not math.isfinite(norm := self.norm(ps, gs)): return False
            if norm > 0:
                for part in chunks(ps, gs): self.climb(*part, self.reach() / norm)
            return True

    def look(self):
        ps, gs = self.live()
        with Moved(ps):
            if self.uphill(ps, gs): self.second(ps)

    def second(self, ps):
        for p in ps: p.grad = None
        self.again()


class ASAM(SAM):
    "SAM with each weight's share of the way in proportion to its size, so that rescaled layers change nothing, https://arxiv.org/abs/2102.11600"
    def __init__(
        self,
        rho: float = .5,  # How far, in units of the weights (the paper's; about 10 to 40 times SAM's)
        eta: float = .01,  # Added to each weight's size (the paper's); at 0 the invariance is exact
    ):
        super().__init__(rho)
        if not eta >= 0: raise InputError(f'eta={eta}: 0 or above')
        self.eta = eta

    def sizes(self, ps):
        t = torch._foreach_abs(ps)
        torch._foreach_add_(t, self.eta)
        return t

    def norm(self, ps, gs):
        parts = []
        for p, g in chunks(ps, gs):
            t = self.sizes(p)
            torch._foreach_mul_(t, g)
            parts.append(norm_of(t))
        return math.hypot(*parts)

    def climb(self, ps, gs, by):
        t = self.sizes(ps)
        torch._foreach_mul_(t, t)
        torch._foreach_addcmul_(ps, t, gs, value=by)


class LookSAM(SAM):
    "SAM every `k` steps; between, the part of its gradient that leads to flatness is used again, https://arxiv.org/abs/2203.02714"
    def __init__(
        self,
        rho: float = .05,  # As for `SAM`
        k: int = 5,  # Steps from one second pass to the next (the paper's)
        alpha: float = .7,  # Length of the part used again against the gradient's (the paper's)
    ):
        super().__init__(rho)
        if k < 1: raise InputError(f'k={k}: 1 or more')
        if not alpha >= 0: raise InputError(f'alpha={alpha}: 0 or above')
        self.k, self.alpha = k, alpha

    def before_fit(self):
        super().before_fit()
        self._count, self._part, self._length = 0, {}, 0.

    def look(self):
        ps, gs = self.live()
        if self._count % self.k == 0: self._anew(ps, gs)
        else: self._reuse(ps, gs)

    def _anew(self, ps, gs):
        with Moved(ps):
            if not self.uphill(ps, gs): return
            self.second(ps)
        both = [(p, p.grad, g) for p, g in zip(ps, gs) if p.grad is not None]
        ps, new, old = map(list, zip(*both))
        length, along = norm_of(old), float(torch.stack([(a * b).sum() for a, b in zip(new, old)]).sum())
        # a skipped step is tried again, with the part there was
        if not (math.isfinite(along) and math.isfinite(norm_of(new))): return
        self._count += 1
        if length == 0: return
        torch._foreach_mul_(old, -along / length**2)
        torch._foreach_add_(old, new)
        self._length = norm_of(old)
        # at an angle below this the part is rounding
        self._part = dict(zip(ps, old)) if self._length > 1e-4 * norm_of(new) else {}

    def _reuse(self, ps, gs):
        have = [(g, self._part[p]) for p, g in zip(ps, gs) if p in self._part]
        if have:
            gs, parts = map(list, zip(*have))
            # a step that will be skipped doesn't count
            if not math.isfinite(norm := norm_of(gs)): return
            torch._foreach_add_(gs, parts, alpha=self.alpha * norm / self._length)
        self._count += 1

    def _params(self): return [p for pg in self.opt.param_lists for p in pg]
    def state_dict(self): return dict(count=self._count, length=self._length, part=[self._part.get(p) for p in self._params()])

    def load_state_dict(self, sd):
        self._count, self._length = sd['count'], sd['length']
        self._part = {p: v.to(p.device) for p, v in zip(self._params(), sd['part']) if v is not None}

    def after_fit(self): self._part = {}


class ESAM(SAM):
    "SAM that perturbs a random share of the weights and looks again at the rows that this harms most, https://arxiv.org/abs/2110.03141"
    def __init__(
        self,
        rho: float = .05,  # As for `SAM`
        beta: float = .6,  # Share of the weight tensors that are perturbed (the paper's)
        gamma: float = .5,  # Share of the rows that are looked at again (the paper's); two at least; below 1 with dropout of their own
        seed: int = 0,  # Of the choice of weights
    ):
        super().__init__(rho)
        for k, v in dict(beta=beta, gamma=gamma).items():
            if not 0 < v <= 1: raise InputError(f'{k}={v}: above 0, at most 1')
        # not `beta`: a callback answers names it lacks from the Learner, and warns where both have one
        self.share, self.gamma, self.seed = beta, gamma, seed

    def before_batch(self):
        if self._passes: return
        ps, self._before = [p for pg in self.opt.param_lists for p in pg if p.requires_grad], []
        # by the step's number alone: a resumed run chooses the same, and nobody else's random numbers move
        draw = np.random.default_rng([self.seed, self.learn.train_iter]).random(len(ps))
        self._chosen = [p for p, d in zip(ps, draw) if d <= max(self.share, draw.min())]

    def before_backward(self):
        scaler, loss = getattr(self.learn, 'scaler', None), self.learn.loss_grad
        # without the other weights' gradients the first pass back is cheaper
        torch.autograd.backward(loss if scaler is None else scaler.scale(loss), inputs=self._chosen)
        raise CancelBackwardException

    def after_cancel_backward(self): pass

    def after_loss(self):
        super().after_loss()
        if self.gamma < 1:
            with torch.no_grad(): self._rows = row_losses(self.learn.loss_func, self.learn.pred, self.learn.yb, base_loss(self.learn))

    def after_backward(self):
        super().after_backward()
        if self.gamma < 1: self._before.append(self._rows)

    # the gradient of a share of the weights is shorter than the whole by about the share's root, and the paper divides the perturbation by the share
    def reach(self): return self.rho / math.sqrt(self.share)

    def look(self):
        ps, gs = self.live()
        with Moved(ps):
            if not self.uphill(ps, gs): return
            rows = None
            if self.gamma < 1:
                worse = [b - a for a, b in zip(self._before, self.losses())]
                rows = [o.topk(min(len(o), max(2, round(self.gamma * len(o))))).indices.sort().values for o in worse]
            for p in ps: p.grad = None
            self.again(rows)


def _logits(pred, loss):
    "Logits (n,c) of each head of the model's output."
    outs = list(pred.values()) if isinstance(pred, dict) else [pred]
    for o in outs:
        if not isinstance(o, HeadOutput): yield o
        elif 'classes' in o.extra: raise InputError('SAF compares outputs over all classes: a head that looks at some centres only has none')
        else: yield o.cos * (getattr(loss, 's', None) or auto_scale(o.cos.shape[1]))


class SAF(Sleeper):
    "Experimental: holds outputs near those of `back` epochs ago, https://arxiv.org/abs/2205.14083; on handwritten digits it did not flatten (largest eigenvalue 1.01 to 1.06 of the base's)."
    # weights .3, 1 and 3, three seeds each
    order, run_valid = 5, False  # before accumulation weighs the loss

    def __init__(
        self,
        weight: float = .3,  # Of the term (the paper's lambda)
        temp: float = 5.,  # Temperature of the softmax (the paper's tau)
        back: int = 3,  # How many epochs ago (the paper's)
        start: int | None = None,  # First epoch, from 0, with the term; default `back`, the first that can have it (the paper's: 5)
    ):
        if back < 1: raise InputError(f'back={back}: 1 or more')
        if not weight >= 0 or not temp > 0: raise InputError(f'weight={weight}, temp={temp}: 0 or above, and above 0')
        self.weight, self.temp, self.back, self.start = weight, temp, back, max(back, start or 0)

    def before_fit(self):
        self.run = not hasattr(self.learn, 'lr_finder')
        if mixing := next((o for o in self.learn.cbs if isinstance(o, MixHandler)), None):
            raise InputError(f'SAF compares a row with itself in an earlier epoch, and {type(mixing).__name__} makes other rows each time: use one of them')
        self._loss, self._seen = self.learn.loss_func, {}

    def before_train(self):
        self.after_train()
        if self.n_epoch <= self.start: raise InputError(f'SAF starts at epoch {self.start}, counted from 0; this fit has {self.n_epoch}')
        self._drawn = Drawn(self.learn.dls.train)

    def after_train(self):
        if (drawn := self.__dict__.pop('_drawn', None)) is None: return
        drawn.close()
        self._seen = {k: v for k, v in self._seen.items() if k > self.epoch - self.back}

    def rows(self) -> torch.Tensor:  # int64 (n,)
        "The dataset's row of each row of the batch."
        n, res = find_bs(self.learn.yb), self._drawn.rows(self.iter)
        if res is None or len(res) != n:
            raise InputError(f'SAF: the batch has {n} rows, {len(res or [])} were drawn for it; a filter of rows can not go with it')
        return torch.as_tensor(res)

    def after_loss(self):
        # in float32: half precision has no small divergences
        with torch.autocast(self.learn.yb[0].device.type, enabled=False): self._hold(self.rows(), [o.float() for o in _logits(self.learn.pred, self._loss)])

    def _hold(self, rows, heads):
        store = self._seen.setdefault(self.epoch, [{} for _ in heads])
        # half is enough to keep for a softmax at this temperature
        for o, s in zip(heads, store): s.update((r, v) for r, v, ok in zip(rows.tolist(), o.detach().to('cpu', torch.float16), o.isfinite().all(1).tolist()) if ok)
        old = self._seen.get(self.epoch - self.back)
        if self.epoch < self.start or old is None: return
        # a row that was not drawn then has nothing to be held near
        at = [i for i, r in enumerate(rows.tolist()) if all(r in s for s in old)]
        for o, s in zip(heads, old if at else ()):
            was = torch.stack([s[int(rows[i])] for i in at]).to(o.device, torch.float32)
            kl = F.kl_div(F.log_softmax(o[at] / self.temp, 1), F.log_softmax(was / self.temp, 1), reduction='sum', log_target=True)
            self.learn.loss_grad = self.learn.loss_grad + self.weight / len(rows) * kl

    def state_dict(self): return {'seen': self._seen}
    def load_state_dict(self, sd): self._seen = sd['seen']
    def after_fit(self): self._seen = {}
