"""PyTorch's and timm's optimizers under fastai: decoupled decay that spares norms and biases, and all of
fastai's schedules."""
from functools import partial

import torch
from fastai.optimizer import OptimWrapper, set_item_pg

from ..core import InputError, preview
from .kernels import chunks


class LiveHypers(dict):
    """The hyper-parameters of a parameter group, by fastai's names. What is written into it reaches the
    optimizer, as with fastai's own optimizers: `ReduceLROnPlateau` for one sets rates in this way."""
    def __init__(
        self,
        values: dict,
        write,  # (name, value) -> None: sets a value of the optimizer's group
    ):
        super().__init__(values)
        self.write = write

    def __setitem__(self, name, value):
        self.write(name, value)
        super().__setitem__(name, value)

    def update(self, *arguments, **values):
        "Set several values; the arguments are those of `dict.update`."
        for name, value in dict(*arguments, **values).items(): self[name] = value

    # a copy, and what is pickled, are values alone
    def __reduce__(self): return dict, (dict(self),)


def live_hypers(
    optimizer: OptimWrapper,
) -> list[LiveHypers]:
    "What fastai's `OptimWrapper.hypers` returns, a dict for each parameter group, but tied to the optimizer."
    def write(torch_group, name, value): set_item_pg(torch_group, optimizer.bwd_map[name], value)
    return [LiveHypers(values, partial(write, torch_group))
            for values, torch_group in zip(_hypers_of_wrapper(optimizer), optimizer.opt.param_groups)]


_hypers_of_wrapper = OptimWrapper.hypers.fget


class Wrapped(OptimWrapper):
    """fastai's `OptimWrapper`, with weight decay that as a rule is applied to the weights and not to the
    gradients, and with a momentum `mom` that any schedule may set, also where the optimizer has none."""
    def __init__(
        self,
        params,  # Parameters, or a list of them for each group
        lr: float | slice,  # Learning rate; also fastai's slices, or a list with a rate for each group
        opt,  # Class of a PyTorch optimizer, or a partial of one
        wd: float = 0.,  # Weight decay: weights shrink by lr * wd a step, but not those flagged `do_wd=False`
        mom: float | None = None,  # Momentum or first beta, fixed if 0; None: the optimizer's
        sqr_mom: float | None = None,  # Momentum of the squares; None: the optimizer's
        decouple_wd: bool = True,  # Decay the weights; False: the gradients, as L2 regularization does
        **kwargs,  # For `opt`
    ):
        # the optimizer wants one rate to begin with; fastai's slices and lists can only be set afterwards
        super().__init__(params, opt=opt, lr=1e-3, weight_decay=0., **kwargs)
        self.decouple_wd = decouple_wd
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
        "A dict for each parameter group, by fastai's names; what is written into one is set."
        torch_hypers = _hypers_of_wrapper(self)
        own_hypers = getattr(self, 'own_hypers', None) or [{}] * len(torch_hypers)
        return [LiveHypers({**hypers, **group_own}, partial(self._set_in_group, number))
                for number, (hypers, group_own) in enumerate(zip(torch_hypers, own_hypers))]

    def _set_hyper(self, hyper_name, group_values):
        for number, value in enumerate(group_values): self._set_in_group(number, hyper_name, value)

    def _set_in_group(self, number, hyper_name, value):
        "Set a hyper-parameter of one parameter group."
        own_hypers = getattr(self, 'own_hypers', None)
        if own_hypers and hyper_name in own_hypers[number]: own_hypers[number][hyper_name] = value
        elif hyper_name in self.bwd_map:
            # numpy's floats as python's
            plain_value = float(value) if isinstance(value, float) else value
            set_item_pg(self.opt.param_groups[number], self.bwd_map[hyper_name], plain_value)
        else:
            raise InputError(f'{type(self.opt).__name__} has no {hyper_name!r}, '
                             f'only {preview(self.hypers[0], 20)}')

    def step(self, closure=None):
        "Decay the weights, or add the decay to the gradients, then step the optimizer."
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
            decay = float(hypers['wd'])
            for parameters in by_kind.values():
                for some_weights, in chunks(parameters):
                    if self.decouple_wd: torch._foreach_mul_(some_weights, 1 - float(hypers['lr']) * decay)
                    else:
                        gradients = [parameter.grad for parameter in some_weights]
                        torch._foreach_add_(gradients, some_weights, alpha=decay)

    def state_dict(self): return {**self.opt.state_dict(), 'own': [dict(own) for own in self.own_hypers]}

    def load_state_dict(self, saved_state):
        "Load a state saved by the same optimizer; the dict is left as it is."
        if 'own' not in saved_state:
            raise InputError(f'the saved optimizer has {sorted(saved_state)}: '
                             'it is none of torch under fastmatch')
        self.opt.load_state_dict({name: value for name, value in saved_state.items() if name != 'own'})
        self.own_hypers = [dict(group_hypers) for group_hypers in saved_state['own']]
