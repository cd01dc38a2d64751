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
        n: int = 16,  # Entries of each, side by side in its middle: one line of the cache, as a rule
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
            same_kind, entries = self.watched.setdefault((parameter.device, parameter.dtype), ([], []))
            same_kind.append(parameter)
            entries.append(_middle_entries(parameter.detach(), self.n))

    def watches(self, params) -> bool:
        "Whether these are the very weights that it watches."
        return len(params) == len(self.params) and all(map(is_, params, self.params))

    def remember(self):
        "Remember the weights as they are now."
        self.remembered = [torch.cat(weight_entries) for _, weight_entries in self.watched.values()]

    def changed(self) -> list:
        """The weights that differ from what was remembered by more than the rounding of adding and
        subtracting again."""
        if self.remembered is None: return []
        known_kinds = list(self.watched)
        # after `parameter.data = ...` a weight is somewhere else in memory
        if [parameter.data_ptr() for parameter in self.params] != self.addresses: self._locate()
        if list(self.watched) != known_kinds: return self.params
        changed_weights = []
        for (same_kind, weight_entries), remembered in zip(self.watched.values(), self.remembered):
            current = torch.cat(weight_entries)
            if torch.equal(current, remembered): continue
            tolerance = 16 * torch.finfo(remembered.dtype).eps
            entry_moved = ~torch.isclose(current, remembered, rtol=tolerance, atol=tolerance)
            if not entry_moved.any(): continue
            moved_entries = entry_moved.split([len(weight_entry) for weight_entry in weight_entries])
            changed_weights += [parameter for parameter, is_moved in zip(same_kind, moved_entries)
                                if is_moved.any()]
        return changed_weights


def _middle_entries(
    values: torch.Tensor,
    n: int,
) -> torch.Tensor:  # (n,) at most, a view
    """Up to `n` entries from the middle of a tensor, along its last dimension, or its longest where that is
    too short.

    They are chosen by their indices and not by where they are in memory, so that they are the same ones when
    a weight is made channels_last.
    """
    if values.ndim == 0 or not values.numel(): return values.reshape(-1)
    dimension = values.ndim - 1
    if values.shape[-1] < n: dimension = max(range(values.ndim), key=lambda i: values.shape[i])
    size = values.shape[dimension]
    for other in reversed(range(values.ndim)):
        if other != dimension: values = values.select(other, values.shape[other] // 2)
    n_entries = min(n, size)
    return values.narrow(0, (size - n_entries) // 2, n_entries)


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

    def _set_hyper(self, hyper_name, group_values): self.opt._set_hyper(hyper_name, group_values)
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
            fast_weights, slow_weights = by_kind.setdefault((parameter.device, parameter.dtype), ([], []))
            fast_weights.append(parameter)
            slow_weights.append(slow_param)
        for both_lists in by_kind.values():
            for fast_weights, slow_weights in chunks(*both_lists):
                torch._foreach_lerp_(slow_weights, fast_weights, self.alpha)
                torch._foreach_copy_(fast_weights, slow_weights)

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
        inner_state = {entry_name: entry_value for entry_name, entry_value in saved_state.items()
                       if entry_name not in ('count', 'slow_weights')}
        self.opt.load_state_dict(inner_state)
        self.resync()
        self.count = saved_state['count']
        for parameter, saved_weight in zip(params, slow_weights):
            if saved_weight is None: continue
            self.slow[parameter] = torch.empty_like(parameter, requires_grad=False).copy_(saved_weight)


def _flat(slow_weights) -> list:
    "Saved slow weights as one list: fastai's Lookahead saves a list for each parameter group."
    flat_weights = []
    for saved_item in slow_weights:
        # a group's list is fastcore's `L`, which is no `list` but has `items`
        is_group = isinstance(saved_item, (list, tuple)) or hasattr(saved_item, 'items')
        flat_weights += list(saved_item) if is_group else [saved_item]
    return flat_weights
