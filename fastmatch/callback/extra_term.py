"A term that a callback adds to the loss of each training batch, shown in the Recorder's table."
import torch
from fastai.callback.training import GradientAccumulation
from fastai.learner import ValueMetric
from fastcore.foundation import L

from ..core import InputError
from ..schedule.fit import only_validating
from .base import SkippableCallback, in_lr_find, other_callback
from .second_pass import SecondPass


class ExtraTerm(SkippableCallback):
    """Base of callbacks with a term of their own, which `lr_find` leaves out. A subclass implements `term`,
    and `begin_fit` for what it needs. Raises `InputError` beside what passes a batch forward and backward
    twice, where the term would be left out."""
    # before accumulation and mixed precision scale the loss, and so within the latter's autocast
    order, run_valid = GradientAccumulation.order - 1, False
    term_name = 'term'  # its column in the table

    def begin_fit(self):
        "Called before a fit; raises `InputError` where the training can't go that way."

    def term(self) -> torch.Tensor:  # A number
        "The weighted term of the batch."
        raise NotImplementedError

    def before_fit(self):
        self.run = not in_lr_find(self.learn) and not only_validating(self.learn)
        if not self.run: return
        name = type(self).__name__
        if other_callback(self, type(self)) is not None: raise InputError(f'two of {name}: one at a time')
        second_pass = other_callback(self, SecondPass)
        if second_pass is not None:
            raise InputError(f'{name} and {type(second_pass).__name__}: the second pass would leave the '
                             f'{self.term_name} out: use one of them')
        self.begin_fit()
        self._terms = []
        self._metric = ValueMetric(self.mean_term, self.term_name)
        self.learn.metrics = self.learn.metrics + L(self._metric)

    def before_train(self): self._terms = []

    def after_loss(self):
        term = self.term()
        self._terms.append(term.detach())
        self.learn.loss_grad = self.learn.loss_grad + term
        self.learn.loss = self.learn.loss_grad.clone()

    def mean_term(self) -> float:
        "The mean of the weighted term over the epoch so far."
        return float(torch.stack(self._terms).mean()) if self._terms else 0.

    def after_fit(self):
        self.learn.metrics = L(metric for metric in self.learn.metrics if metric is not self._metric)
