"""Validation on groups that were not trained on: embeddings are gathered, and no loss is computed, as it
would mean nothing there.

Also a learning rate for each parameter group.
"""
import numpy as np
from fastai.callback.core import Callback
from fastai.learner import Recorder
from fastcore.foundation import L

from ..core import InputError
from ..match.spaces.dense import Dense

N_NEIGHBORS = 51  # searched for the metrics: the listing itself and the 50 that the competition allows


class ValidScores(Callback):
    "Gathers embeddings and groups of the validation listings, and searches them once for all metrics."
    order = 11  # right after MixedPrecision has cast predictions back to float32

    def before_validate(self):
        self._parts = []
        self._groups = []
        self._found = {}

    def after_pred(self):
        if self.training or not len(self.yb): return
        self._targets = self.yb
        self._parts.append({modality: embedding.detach().float().cpu().numpy()
                            for modality, embedding in self.pred.items()})
        self._groups.append(self.y.detach().cpu().numpy())
        # without targets the Learner skips the loss: heads have no center for a group that was not trained on
        self.learn.yb = ()

    def after_loss(self):
        if self.training or not getattr(self, '_targets', None): return
        self.learn.yb = self._targets
        self._targets = None

    def result(
        self,
        modality: str | None = None,  # A key of the model's output; None: 'joint', else all side by side
    ):  # (`Neighbors` (n,k) of the validation listings, their groups int64 (n,))
        "The nearest neighbors of each validation listing among the others, and the listings' groups."
        if not self._parts:
            raise InputError('nothing was validated: the dataloaders hold no validation listings')
        if modality not in self._found:
            embeddings = self._embeddings(modality)
            self._found[modality] = Dense(embeddings).search(min(N_NEIGHBORS, len(embeddings)))
        return self._found[modality], np.concatenate(self._groups)

    def _embeddings(self, modality) -> np.ndarray:
        "float32 (n,d) embeddings of one modality, or of all side by side."
        by_modality = {output_name: np.concatenate([batch[output_name] for batch in self._parts])
                       for output_name in self._parts[0]}
        if modality is None: modality = 'joint' if 'joint' in by_modality else None
        if modality is None: return np.concatenate(list(by_modality.values()), 1)
        if modality not in by_modality:
            raise InputError(f'modality={modality!r}: the model gives {list(by_modality)}')
        return by_modality[modality]

    def after_fit(self):
        # the arrays may be large, and an exported Learner shouldn't hold listings
        for attribute in ('_parts', '_groups', '_found'): self.__dict__.pop(attribute, None)


class MatchRecorder(Recorder):
    "fastai's Recorder without `valid_loss`, which means nothing on groups that were not trained on."
    name = 'recorder'

    def before_fit(self):
        super().before_fit()
        if self.train_metrics: return
        self.metric_names = L(metric_name for metric_name in self.metric_names if metric_name != 'valid_loss')

    @property
    def _valid_mets(self):
        none_wanted = getattr(self, 'cancel_valid', False) or not self.valid_metrics
        return L() if none_wanted else self.metrics

    def plot_loss(self, skip_start=5, with_valid=False, **kwargs):
        "fastai's plot of the training loss."
        return super().plot_loss(skip_start, with_valid=False, **kwargs)


class GroupRates(Callback):
    """Gives each parameter group its own multiple of the learning rate that a schedule sets.

    Rates that differ by group already are left as they are.
    """
    order = 65  # after ParamScheduler and every callback that may still change a rate

    def __init__(
        self,
        mults: dict[str, float],  # Name of a parameter group -> factor on the rate; 1 where not named
    ):
        self.mults = dict(mults)

    def before_step(self):
        group_rates = [hypers['lr'] for hypers in self.opt.hypers]
        if len(set(group_rates)) > 1: return
        self._base = group_rates
        group_names = self.learn.model.param_groups()
        new_rates = [rate * self.mults.get(group, 1.) for rate, group in zip(group_rates, group_names)]
        self.opt.set_hyper('lr', new_rates)

    def after_step(self):
        if getattr(self, '_base', None) is not None: self.opt.set_hyper('lr', self._base)
        self._base = None
