"""Averages of the weights kept during training: EMA over steps, SWA over epochs.

The average is in the model while it is validated, and stays there when the fit ends; the next fit goes on
from the weights that were trained. Averages of saved files are in `snapshots.py`.
"""
import torch

from ..core import InputError
from ..optim.lookahead import Watch
from ..schedule.fit import only_validating
from .base import SkippableCallback, in_lr_find, other_callback
from .state import batch_norms, update_bn


class Averaged(SkippableCallback):
    """Base of `EMA` and `SWA`: keeps an average beside the weights, and swaps the two.

    The average covers parameters and floating-point buffers. It is in the model in validation and from the
    end of a fit until the next fit begins. Subclasses call `_move_average` when the weights as they are now
    count.
    """
    order = 40  # before trackers, which save and load

    # `_set_aside`: what is not in the model, the trained weights while `_average_inside`, else the average.
    # `_n_averaged`: how many states of the weights are in the average.

    def before_fit(self):
        other_average = other_callback(self, Averaged)
        if other_average is not None:
            names = f'{type(self).__name__} and {type(other_average).__name__}'
            raise InputError(f'{names} would both be in the model for validation: use one of them')
        self.run = not in_lr_find(self.learn)
        # the last fit broke off with the live weights in the model, and they may have been changed since
        broke_off = not self.__dict__.get('_average_inside', True)
        if self.run and broke_off and not only_validating(self.learn): self._restart()

    def _restart(self):
        "Begin a new average from the weights as they are."
        self._set_aside = [tensor.detach().clone() for tensor in self._model_tensors()]
        self._average_inside = False
        self._n_averaged = 0
        self._watch = None

    def _model_tensors(self) -> list:
        "What is averaged: the model's parameters and floating-point buffers."
        buffers = [buffer for buffer in self.learn.model.buffers() if buffer.is_floating_point()]
        return [*self.learn.model.parameters(), *buffers]

    def average_by_name(self) -> dict:  # Name -> tensor, not copied
        "The averaged parameters and floating-point buffers while training goes on; the model has the others."
        if '_set_aside' not in self.__dict__ or self._average_inside:
            raise InputError(f'{type(self).__name__}: no training is going on')
        buffers = [name for name, buffer in self.learn.model.named_buffers() if buffer.is_floating_point()]
        names = [*(name for name, _ in self.learn.model.named_parameters()), *buffers]
        return dict(zip(names, self._set_aside, strict=True))

    def before_train(self):
        tensors = self._model_tensors()
        has_average = '_set_aside' in self.__dict__
        if not has_average or self._shapes(self._set_aside) != self._shapes(tensors): self._restart()
        # other weights were loaded into the model, those of the best epoch for one
        elif self._average_inside and self._watch is not None and self._watch.changed(): self._restart()
        self._set_aside = [aside.to(tensor.device) for aside, tensor in zip(self._set_aside, tensors)]
        if self._average_inside: self._swap()
        self._skipped = False
        self._stepped = False

    @staticmethod
    def _shapes(tensors): return [tensor.shape for tensor in tensors]

    @torch.no_grad()
    def _swap(self):
        "Exchange what is in the model with what is set aside."
        for tensor, aside in zip(self._model_tensors(), self._set_aside, strict=True):
            from_model = tensor.clone()
            tensor.copy_(aside)
            aside.copy_(from_model)
        self._average_inside = not self._average_inside

    def _put_average_in(self):
        "Put the average into the model, if there is one and it is not there yet."
        if '_set_aside' not in self.__dict__ or self._average_inside or not self._n_averaged: return
        self._swap()
        self._watch_weights()

    def _watch_weights(self):
        "Remember the weights, to notice when others are loaded in their place."
        self._watch = Watch(list(self.learn.model.parameters()))
        self._watch.remember()

    def after_cancel_step(self): self._skipped = True
    def before_validate(self): self._put_average_in()
    def after_fit(self): self._put_average_in()

    @torch.no_grad()
    def _move_average(self, share):
        "Move the average by `share` of the way to the weights as they are."
        tensors = self._model_tensors()
        if {tensor.dtype for tensor in tensors} == {torch.float32}:
            torch._foreach_lerp_(self._set_aside, tensors, share)
            return
        for aside, tensor in zip(self._set_aside, tensors): aside.lerp_(tensor, share)

    def state_dict(self):
        "For a training that is resumed."
        if '_set_aside' not in self.__dict__: return {}
        set_aside = [tensor.clone() for tensor in self._set_aside]
        return dict(other=set_aside, inside=self._average_inside, n=self._n_averaged)

    def load_state_dict(self, saved_state):
        "Go on from what `state_dict` returned."
        if not saved_state: return
        self._set_aside = [tensor.clone() for tensor in saved_state['other']]
        self._average_inside = saved_state['inside']
        self._n_averaged = saved_state['n']
        self._watch_weights()


class EMA(Averaged):
    """Exponential moving average of the weights and of BatchNorm's statistics, moved after every step.

    Steps that are skipped (by a loss scaler, say) don't count. Costs one sweep over the weights in each step.
    """
    def __init__(
        self,
        decay: float = .99,  # Share of the average kept at each step, so that it spans 1 / (1 - decay) steps
        warmup: bool = True,  # Keep less at first, (1 + t) / (10 + t) in step t, to forget the first weights
    ):
        if not 0 <= decay < 1: raise InputError(f'decay={decay}: 0 or above, below 1')
        self.decay = decay
        self.warmup = warmup

    def after_step(self):
        was_skipped = self._skipped
        self._skipped = False
        if was_skipped: return
        self._n_averaged += 1
        largest_decay = (1 + self._n_averaged) / (10 + self._n_averaged) if self.warmup else 1.
        self._move_average(1 - min(self.decay, largest_decay))


class SWA(Averaged):
    """Stochastic weight averaging: the mean of the weights at the ends of the last epochs.

    From https://arxiv.org/abs/1803.05407. The mean is validated after the last epoch only, with BatchNorm's
    statistics computed anew for it in one more pass over the training data.
    """
    def __init__(
        self,
        start: float = .75,  # Share of training after which epochs count
    ):
        if not 0 <= start < 1: raise InputError(f'start={start}: 0 or above, below 1')
        self.start = start

    def before_fit(self):
        super().before_fit()
        # each fit has a mean of its own
        if not self.run or only_validating(self.learn): return
        if '_set_aside' in self.__dict__: self._n_averaged = 0

    def after_step(self):
        self._stepped = self._stepped or not self._skipped
        self._skipped = False

    def after_train(self):
        # norms that are kept still keep their statistics
        self._norms = [batch_norm for batch_norm in batch_norms(self.learn.model) if batch_norm.training]
        if not self._stepped or (self.epoch + 1) / self.n_epoch <= self.start: return
        self._stepped = False
        self._n_averaged += 1
        self._move_average(1 / self._n_averaged)

    def before_validate(self):
        # earlier the mean is no better than the weights, and its statistics would cost a pass each time
        if self.epoch == self.n_epoch - 1 and not only_validating(self.learn): self._put_average_in()

    def _put_average_in(self):
        was_inside = self.__dict__.get('_average_inside', True)
        super()._put_average_in()
        if not was_inside and self._average_inside: update_bn(self.learn, self.__dict__.get('_norms'))

    def after_fit(self):
        super().after_fit()
        self.__dict__.pop('_norms', None)
