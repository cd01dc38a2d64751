"""Lookahead over any optimizer, with slow weights that notice when something else than the optimizer
changed the model."""
from operator import is_

import torch
from fastai.optimizer import Optimizer
from fastcore.basics import GetAttr

from ..core import InputError
from .kernels import chunks


class Watch:
    """Notices whether weights are still what they were, from a few entries of each.

    PyTorch's version counters would not do: they count what SAM or a swap of averaged weights does and undoes
    before the next step, and don't count what is written through `parameter.data`.
    """
    def __init__(
        self,
        params: list,  # Weights to watch
        n: int = 16,  # Entries of each, side by side in its middle: one line of the cache
    ):
        self.params = params
        self.n = n
        self.remembered = None
        self._locate()

    def _locate(self):
        "Find where the watched entries are in memory, by device and dtype."
        self.addresses = [parameter.data_ptr() for parameter in self.params]
        self.watched = {}
        for parameter in self.params:
            size = min(self.n, parameter.numel())
            middle = parameter.storage_offset() + (parameter.numel() - size) // 2
            params, entries = self.watched.setdefault((parameter.device, parameter.dtype), ([], []))
            params.append(parameter)
            entries.append(parameter.detach().as_strided((size,), (1,), middle))

    def watches(self, params) -> bool:
        "Whether these are the very weights that it watches."
        return len(params) == len(self.params) and all(map(is_, params, self.params))

    def remember(self):
        "Remember the weights as they are now."
        self.remembered = [torch.cat(entries) for _, entries in self.watched.values()]


    def changed(self) -> list:
        """The weights that differ from what was remembered by more than the rounding of adding and
        subtracting again."""
        if self.remembered is None: return []
        kinds = list(self.watched)
        # after `parameter.data = ...` a weight is somewhere else in memory
        if [parameter.data_ptr() for parameter in self.params] != self.addresses: self._locate()
        if list(self.watched) != kinds: return self.params
        changed = []
        for (params, entries), before in zip(self.watched.values(), self.remembered):
            now = torch.cat(entries)
            if torch.equal(now, before): continue
            tolerance = 16 * torch.finfo(before.dtype).eps
            moved = ~torch.isclose(now, before, rtol=tolerance, atol=tolerance)
            if not moved.any(): continue
            moved_entries = moved.split([len(entry) for entry in entries])
            changed += [parameter for parameter, is_moved in zip(params, moved_entries) if is_moved.any()]
        return changed


class Lookahead(Optimizer, GetAttr):
    """Every `k` steps slow weights move `alpha` of the way to the weights, and the weights go back to them,
    https://arxiv.org/abs/1907.08610

    When weights are loaded or overwritten between two steps, the slow weights start anew from them; fastai's
    Lookahead would pull the model back to the old ones.
    """
    _default = 'opt'

    def __init__(
        self,
        opt,  # fastai `Optimizer` or `OptimWrapper`
        k: int = 6,  # Steps of the optimizer between two moves of the slow weights
        alpha: float = .5,  # Share of the way that slow weights go, 0 to 1
    ):
        if not k >= 1 or not 0 <= alpha <= 1:
            raise InputError(f'k={k}, alpha={alpha}: k is 1 at least, alpha from 0 to 1')
        self.opt = opt
        self.k = k
        self.alpha = alpha
        self.resync()

    # fastai's base class would answer these from attributes of its own: hand them on to the optimizer
    @property
    def param_lists(self): return self.opt.param_lists

    @param_lists.setter
    def param_lists(self, value): self.opt.param_lists = value

    def _set_hyper(self, k, v): self.opt._set_hyper(k, v)
    def zero_grad(self): self.opt.zero_grad()

    def resync(self):
        "Forget the slow weights; at the next step they start from the weights as they are then."
        self.count = 0
        self.slow = {}
        self.watch = None

    @torch.no_grad()
    def step(self, closure=None):
        "One step of the optimizer, and after every `k`-th the move of the slow weights."
        if closure is not None: raise NotImplementedError('fastai optimizers take no closure')
        stepped = [parameter for group in self.param_lists for parameter in group
                   if parameter.requires_grad and parameter.grad is not None]
        if self.watch:
            for parameter in self.watch.changed(): self.slow.pop(parameter, None)
        for parameter in stepped:
            if parameter not in self.slow: self.slow[parameter] = parameter.detach().clone()
        self.opt.step()
        self.count += 1
        if self.count % self.k == 0 and stepped: self._meet()
        if not (self.watch and self.watch.watches(stepped)): self.watch = Watch(stepped)
        self.watch.remember()

    def _meet(self):
        "Move the slow weights, and set the weights to them."
        by_kind = {}
        for parameter, slow_param in self.slow.items():
            # a frozen weight stays where it is, and goes on with its slow weight when it is unfrozen
            if not parameter.requires_grad: continue
            fast, slow = by_kind.setdefault((parameter.device, parameter.dtype), ([], []))
            fast.append(parameter)
            slow.append(slow_param)
        for lists in by_kind.values():
            for fast, slow in chunks(*lists):
                torch._foreach_lerp_(slow, fast, self.alpha)
                torch._foreach_copy_(fast, slow)

    def clear_state(self):
        "Forget the optimizer's state and the slow weights."
        self.opt.clear_state()
        self.resync()

    def state_dict(self):
        """The optimizer's state, with `count` and `slow_weights` (a tensor for each parameter, None where
        there is none yet)."""
        slow_weights = [self.slow[parameter].clone() if parameter in self.slow else None
                        for group in self.param_lists for parameter in group]
        return {**self.opt.state_dict(), 'count': self.count, 'slow_weights': slow_weights}

    def load_state_dict(self, saved_state):
        "Load a state saved by this or by fastai's Lookahead; the dict is left as it is."
        if not {'count', 'slow_weights'} <= set(saved_state):
            raise InputError(f'the saved optimizer has {sorted(saved_state)}: it is none of Lookahead')
        params = [parameter for group in self.param_lists for parameter in group]
        slow_weights = _flat(saved_state['slow_weights'] or [None] * len(params))
        if len(slow_weights) != len(params):
            raise InputError(f'slow weights of {len(slow_weights)} parameters saved, there are {len(params)}')
        inner_state = {key: value for key, value in saved_state.items()
                       if key not in ('count', 'slow_weights')}
        self.opt.load_state_dict(inner_state)
        self.resync()
        self.count = saved_state['count']
        for parameter, saved in zip(params, slow_weights):
            if saved is None: continue
            self.slow[parameter] = torch.empty_like(parameter, requires_grad=False).copy_(saved)


def _flat(slow_weights) -> list:
    "Saved slow weights as one list: fastai's Lookahead saves a list for each parameter group."
    flat = []
    for item in slow_weights:
        # a group's list is fastcore's `L`, which is no `list` but has `items`
        is_group = isinstance(item, (list, tuple)) or hasattr(item, 'items')
        flat += list(item) if is_group else [item]
    return flat
