"Lookahead over any optimizer, with slow weights that notice when somebody else wrote to the model."
from operator import is_

import torch
from fastai.optimizer import Optimizer
from fastcore.basics import GetAttr

from ..core import InputError
from .kernels import chunks


class Watch:
    "A few entries of each weight, to tell whether they are still as they were left."
    # Version counters would take for a load what SAM or a swap of averages does and undoes before the next step, and `p.data` doesn't raise them.
    def __init__(
        self,
        params: list,  # Weights to watch
        n: int = 16,  # Entries of each, side by side from its middle: one line of the cache
    ):
        self.params, self.n, self.left = params, n, None
        self._look()

    def _look(self):
        self.at, self.parts = [p.data_ptr() for p in self.params], {}
        for p in self.params:
            k = min(self.n, p.numel())
            ps, views = self.parts.setdefault((p.device, p.dtype), ([], []))
            ps.append(p)
            views.append(p.detach().as_strided((k,), (1,), p.storage_offset() + (p.numel() - k) // 2))

    def sees(self, params) -> bool:
        "Whether it watches just these weights."
        return len(params) == len(self.params) and all(map(is_, params, self.params))

    def leave(self):
        "Remember the weights as they are."
        self.left = [torch.cat(views) for _, views in self.parts.values()]

    def changed(self) -> list:
        "The weights that aren't as they were left, by more than adding and taking off again explains."
        if self.left is None: return []
        kinds = list(self.parts)
        # `p.data = ...` puts a weight elsewhere: look for it there
        if [p.data_ptr() for p in self.params] != self.at: self._look()
        if list(self.parts) != kinds: return self.params
        res = []
        for (ps, views), left in zip(self.parts.values(), self.left):
            now, tol = torch.cat(views), 16 * torch.finfo(left.dtype).eps
            if torch.equal(now, left): continue
            moved = ~torch.isclose(now, left, rtol=tol, atol=tol)
            if moved.any(): res += [p for p, o in zip(ps, moved.split([len(v) for v in views])) if o.any()]
        return res


class Lookahead(Optimizer, GetAttr):
    "Every `k` steps the weights go back to slow weights moved `alpha` of the way, https://arxiv.org/abs/1907.08610"
    _default = 'opt'

    def __init__(
        self,
        opt,  # fastai `Optimizer` or `OptimWrapper`
        k: int = 6,  # Steps between two meetings of fast and slow weights
        alpha: float = .5,  # Share of the way that slow weights go, 0 to 1
    ):
        if not k >= 1 or not 0 <= alpha <= 1: raise InputError(f'k={k}, alpha={alpha}: k is 1 at least, alpha from 0 to 1')
        self.opt, self.k, self.alpha = opt, k, alpha
        self.resync()

    # what fastai's base class would answer from its own attributes
    @property
    def param_lists(self): return self.opt.param_lists
    @param_lists.setter
    def param_lists(self, v): self.opt.param_lists = v
    def _set_hyper(self, k, v): self.opt._set_hyper(k, v)
    def zero_grad(self): self.opt.zero_grad()

    def resync(self):
        "Start slow weights anew from the weights as they are at the next step."
        self.count, self.slow, self.watch = 0, {}, None

    @torch.no_grad()
    def step(self, closure=None):
        if closure is not None: raise NotImplementedError('fastai optimizers take no closure')
        live = [p for pg in self.param_lists for p in pg if p.requires_grad and p.grad is not None]
        for p in self.watch.changed() if self.watch else (): self.slow.pop(p, None)
        for p in live:
            if p not in self.slow: self.slow[p] = p.detach().clone()
        self.opt.step()
        self.count += 1
        if self.count % self.k == 0 and live: self._meet()
        if not (self.watch and self.watch.sees(live)): self.watch = Watch(live)
        self.watch.leave()

    def _meet(self):
        by_kind = {}
        for p, slow in self.slow.items():
            # a frozen weight stays where it is, and goes on with its slow one when it is thawed
            if not p.requires_grad: continue
            fasts, slows = by_kind.setdefault((p.device, p.dtype), ([], []))
            fasts.append(p)
            slows.append(slow)
        for lists in by_kind.values():
            for fast, slow in chunks(*lists):
                torch._foreach_lerp_(slow, fast, self.alpha)
                torch._foreach_copy_(fast, slow)

    def clear_state(self):
        self.opt.clear_state()
        self.resync()

    def state_dict(self):
        slow = [self.slow[p].clone() if p in self.slow else None for pg in self.param_lists for p in pg]
        return {**self.opt.state_dict(), 'count': self.count, 'slow_weights': slow}

    def load_state_dict(self, sd):
        "Load a state saved by this or by fastai's Lookahead; the dict is left as it is."
        if not {'count', 'slow_weights'} <= set(sd): raise InputError(f'the saved optimizer has {sorted(sd)}: it is none of Lookahead')
        params = [p for pg in self.param_lists for p in pg]
        # fastai keeps a list for each group, or None before the first step
        slow = [o for x in sd['slow_weights'] or [None] * len(params) for o in (x if isinstance(x, (list, tuple)) or hasattr(x, 'items') else [x])]
        if len(slow) != len(params): raise InputError(f'slow weights of {len(slow)} parameters saved, there are {len(params)}')
        self.opt.load_state_dict({k: v for k, v in sd.items() if k not in ('count', 'slow_weights')})
        self.resync()
        self.count = sd['count']
        self.slow = {p: torch.empty_like(p, requires_grad=False).copy_(o) for p, o in zip(params, slow) if o is not None}
