"torch's and timm's optimizers under fastai: decoupled decay that spares norms and biases, and every schedule."
import torch
from fastai.optimizer import OptimWrapper

from ..core import InputError, preview
from .kernels import chunks


class Wrapped(OptimWrapper):
    "fastai's `OptimWrapper` with weight decay of its own, apart from the gradient, and a `mom` that any schedule may set."
    def __init__(
        self,
        params,  # Parameters, or a list of them for each group
        lr: float | slice,  # Learning rate; fastai's slices and lists by group
        opt,  # A torch optimizer's class or partial
        wd: float = 0.,  # Weight decay: weights shrink by lr * wd a step, except those flagged `do_wd=False`
        mom: float | None = None,  # Momentum or first beta; default the optimizer's. At 0 the schedules' `mom` has no effect
        sqr_mom: float | None = None,  # Momentum of the squares; default the optimizer's
        **kwargs,  # For `opt`
    ):
        # a rate is asked for here, but fastai's forms of it (slices, lists) can only be set afterwards
        super().__init__(params, opt=opt, lr=1e-3, weight_decay=0., **kwargs)
        for k, v in dict(mom=mom, sqr_mom=sqr_mom).items():
            if v is None: continue
            if k not in self.bwd_map: raise InputError(f'{k}={v}: {type(self.opt).__name__} has only {preview(self.bwd_map, 20)}')
            self.set_hyper(k, v)
        # what torch's groups don't hold or mustn't be given
        self.own = [{'wd': wd} for _ in self.param_lists]
        if not self.hypers[0].get('mom'):
            for o in self.own: o['mom'] = 0.
        self.set_hyper('lr', lr)

    @property
    def hypers(self): return [{**h, **o} for h, o in zip(super().hypers, getattr(self, 'own', None) or [{}] * len(self.opt.param_groups))]

    def _set_hyper(self, k, v):
        own = getattr(self, 'own', None)
        if own and k in own[0]:
            for o, x in zip(own, v): o[k] = x
        elif k in self.bwd_map: super()._set_hyper(k, [float(x) if isinstance(x, float) else x for x in v])
        else: raise InputError(f'{type(self.opt).__name__} has no {k!r}, only {preview(self.hypers[0], 20)}')

    def step(self, closure=None):
        if closure is not None: raise NotImplementedError('fastai optimizers take no closure')
        self._decay()
        self.opt.step()

    @torch.no_grad()
    def _decay(self):
        for pg, h in zip(self.param_lists, self.hypers):
            if not h['wd']: continue
            kinds = {}
            for p in pg:
                if p.grad is None or not p.requires_grad or not self.state[p].get('do_wd', True): continue
                kinds.setdefault((p.device, p.dtype), []).append(p)
            for ps in kinds.values():
                for part, in chunks(ps): torch._foreach_mul_(part, 1 - float(h['lr']) * float(h['wd']))

    def state_dict(self): return {**self.opt.state_dict(), 'own': [dict(o) for o in self.own]}

    def load_state_dict(self, sd):
        "Load a state saved by the same optimizer; the dict is left as it is."
        if 'own' not in sd: raise InputError(f'the saved optimizer has {sorted(sd)}: it is none of torch under fastmatch')
        self.opt.load_state_dict({k: v for k, v in sd.items() if k != 'own'})
        self.own = [dict(o) for o in sd['own']]
