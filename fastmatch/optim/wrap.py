"""PyTorch's and timm's optimizers under fastai: decoupled decay that spares norms and biases, and all of
fastai's schedules."""
import torch
from fastai.optimizer import OptimWrapper

from ..core import InputError, preview
from .kernels import chunks


class Wrapped(OptimWrapper):
    """fastai's `OptimWrapper`, with weight decay that is applied to the weights and not to the gradients,
    and with a momentum `mom` that any schedule may set, also where the optimizer has none."""
    def __init__(
        self,
        params,  # Parameters, or a list of them for each group
        lr: float | slice,  # Learning rate; also fastai's slices, or a list with a rate for each group
        opt,  # Class of a PyTorch optimizer, or a partial of one
        wd: float = 0.,  # Weight decay: weights shrink by lr * wd a step, but not those flagged `do_wd=False`
        mom: float | None = None,  # Momentum or first beta, fixed if 0; None: the optimizer's
        sqr_mom: float | None = None,  # Momentum of the squares; None: the optimizer's
        **kwargs,  # For `opt`
    ):
        # the optimizer wants one rate to begin with; fastai's slices and lists can only be set afterwards
        super().__init__(params, opt=opt, lr=1e-3, weight_decay=0., **kwargs)
        for hyper_name, hyper_value in dict(mom=mom, sqr_mom=sqr_mom).items():
            if hyper_value is None: continue
            if hyper_name not in self.bwd_map:
                raise InputError(f'{hyper_name}={hyper_value}: {type(self.opt).__name__} has only '
                                 f'{preview(self.bwd_map, 20)}')
            self.set_hyper(hyper_name, hyper_value)
        # for each group the hyper-parameters that PyTorch's groups lack, or must not be given
        self.own_hypers = [{'wd': wd} for _ in self.param_lists]
        if not self.hypers[0].get('mom'):
            for group_hypers in self.own_hypers: group_hypers['mom'] = 0.
        self.set_hyper('lr', lr)

    @property
    def hypers(self):
        "A dict for each parameter group, by fastai's names; to be read, `set_hyper` changes them."
        torch_hypers = super().hypers
        own_hypers = getattr(self, 'own_hypers', None) or [{}] * len(torch_hypers)
        return [{**hypers, **group_own} for hypers, group_own in zip(torch_hypers, own_hypers)]

    def _set_hyper(self, hyper_name, group_values):
        own_hypers = getattr(self, 'own_hypers', None)
        if own_hypers and hyper_name in own_hypers[0]:
            for own, value in zip(own_hypers, group_values): own[hyper_name] = value
        elif hyper_name in self.bwd_map:
            plain_values = [float(value) if isinstance(value, float) else value for value in group_values]
            super()._set_hyper(hyper_name, plain_values)
        else:
            raise InputError(f'{type(self.opt).__name__} has no {hyper_name!r}, '
                             f'only {preview(self.hypers[0], 20)}')

    def step(self, closure=None):
        "Decay the weights, then step the optimizer."
        if closure is not None: raise NotImplementedError('fastai optimizers take no closure')
        self._decay()
        self.opt.step()

    @torch.no_grad()
    def _decay(self):
        for group, hypers in zip(self.param_lists, self.hypers):
            if not hypers['wd']: continue
            by_kind = {}
            for parameter in group:
                if parameter.grad is None or not parameter.requires_grad: continue
                if not self.state[parameter].get('do_wd', True): continue
                by_kind.setdefault((parameter.device, parameter.dtype), []).append(parameter)
            kept_share = 1 - float(hypers['lr']) * float(hypers['wd'])
            for parameters in by_kind.values():
                for some_weights, in chunks(parameters): torch._foreach_mul_(some_weights, kept_share)

    def state_dict(self): return {**self.opt.state_dict(), 'own': [dict(own) for own in self.own_hypers]}

    def load_state_dict(self, saved_state):
        "Load a state saved by the same optimizer; the dict is left as it is."
        if 'own' not in saved_state:
            raise InputError(f'the saved optimizer has {sorted(saved_state)}: '
                             'it is none of torch under fastmatch')
        self.opt.load_state_dict({name: value for name, value in saved_state.items() if name != 'own'})
        self.own_hypers = [dict(group_hypers) for group_hypers in saved_state['own']]
