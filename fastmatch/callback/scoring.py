"""Validation on groups that were not trained on: embeddings are gathered, and no loss is computed, as it
would mean nothing there.

Also a learning rate for each parameter group.
"""
import numpy as np
from fastai.callback.core import Callback
from fastai.callback.tracker import ReduceLROnPlateau, TrackerCallback
from fastai.learner import Recorder
from fastai.torch_core import get_model
from fastcore.foundation import L

from ..core import InputError
from ..match.judge.groups import Groups
from ..match.neighbors import Neighbors
from ..match.spaces.dense import Dense
from ..optim.wrap import LiveHypers
from ..processes import n_joined
from ..schedule.fit import Plateau, check_monitor
from ..schedule.rates import is_one_rate, rate_factors
from ..schedule.torch_schedule import scheduled_hypers
from .base import in_lr_find

MOST_CELLS = 1 << 22  # neighbors of deep metrics that are held at a time
N_NEIGHBORS = 51  # searched for any metric: the listing itself and the 50 that the competition allows


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
        # in a training of several processes each has a part of the listings
        def held(rows): return self.learn.to_detach(rows, gather=n_joined() > 1).numpy()
        self._parts.append({modality: held(embedding.float()) for modality, embedding in self.pred.items()})
        self._groups.append(held(self.y))
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

    def deep_parts(
        self,
        depth: int,  # Neighbors to search, the listing itself included; no more than there are listings
        modality: str | None = None,  # As for `result`
    ):  # (`Neighbors` (b,depth) of b listings, `Groups` of all, these b first)
        """Yield the neighbors of some listings after the other, for metrics that look far: all at once would
        take the square of a giant group."""
        space, groups = Dense(self._embeddings(modality)), np.concatenate(self._groups)
        n_listings = len(groups)
        for part in np.array_split(np.arange(n_listings), -(-n_listings * depth // MOST_CELLS)):
            ids, scores = space.search(min(depth + 1, n_listings), queries=space.take(part))
            # each listing itself to the front, the others in their order
            others = np.argsort(ids == part[:, None], axis=1, kind='stable')[:, :depth - 1]
            ids, scores = (np.take_along_axis(array, others, 1) for array in (ids, scores))
            order = np.concatenate([part, np.delete(np.arange(n_listings), part)])
            new_number = np.argsort(order)
            own_scores = np.maximum(scores.max(1, initial=-np.inf), 1)[:, None]
            neighbors = Neighbors(np.concatenate([np.arange(len(part))[:, None], new_number[ids]], 1),
                                  np.concatenate([own_scores, scores], 1).astype(np.float32))
            yield neighbors, Groups(groups[order], rows=len(part))

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


class CheckedTrackers(Callback):
    """Refuses, before training, fastai's trackers that would fail or do nothing: a monitor that isn't
    recorded, and a `ReduceLROnPlateau` whose rates don't reach the optimizer."""
    order = TrackerCallback.order - 1  # after the Recorder, which then knows what it records

    def before_fit(self):
        for tracker in self.learn.cbs:
            if not isinstance(tracker, TrackerCallback): continue
            name = type(tracker).__name__
            check_monitor(self.learn, tracker.monitor, name)
            is_of_training = tracker.monitor.startswith('train')
            if not is_of_training and not len(self.dls.valid):
                raise InputError(f'{name}: monitor={tracker.monitor!r} is of validation, and the dataloaders '
                                 'hold no listings for it')
            changes_rates = isinstance(tracker, ReduceLROnPlateau) and not in_lr_find(self.learn)
            if changes_rates: self._check_rates(tracker)

    def after_cancel_epoch(self):
        # an epoch that is passed over (`start_epoch`) or given up has no scores to look at
        self._resting = [tracker for tracker in self.learn.cbs if isinstance(tracker, TrackerCallback)
                         and tracker.run]
        for tracker in self._resting: tracker.run = False

    def _wake_trackers(self):
        for tracker in self.__dict__.pop('_resting', []): tracker.run = True

    def before_epoch(self): self._wake_trackers()
    def after_fit(self): self._wake_trackers()

    def _check_rates(self, tracker):
        name = type(tracker).__name__
        if any('lr' in scheduled_hypers(callback) for callback in self.learn.cbs):
            raise InputError(f'{name}: the schedule of this fit sets the rate in each batch, and what {name} '
                             'sets is lost; use learn.fit or learn.fit_plateau')
        hypers = self.opt.hypers[0]
        keeps_what_is_written = isinstance(hypers, LiveHypers) or hypers is self.opt.hypers[0]
        if not keeps_what_is_written and not isinstance(tracker, Plateau):
            raise InputError(f'{name} can not set the rate of {type(self.opt).__name__}: use Plateau')


class GroupRates(Callback):
    """Gives each parameter group its own multiple of the learning rate that a schedule sets.

    Only one number is spread. Rates that were given for each group (a list, a slice, a dict by name) are left
    as they are, equal ones too; in a Learner that isn't made by this package, whose `fit` and `fit_one_cycle`
    don't tell in which form they got the rate, only those that differ.
    """
    order = 65  # after ParamScheduler and every callback that may still change a rate

    def __init__(
        self,
        # Name of a parameter group -> factor on the rate; 1 where not named. A name that no group has raises
        # `InputError` in the fit
        mults: dict[str, float],
    ):
        self.mults = dict(mults)

    def before_fit(self): self._factors = rate_factors(get_model(self.learn.model), self.mults)

    def before_step(self):
        given_rates = getattr(self.learn, 'given_rates', None)
        # lr_find looks for one rate, whatever the learner's own are
        is_one = given_rates is None or is_one_rate(given_rates) or in_lr_find(self.learn)
        group_rates = [hypers['lr'] for hypers in self.opt.hypers]
        if not is_one or len(set(group_rates)) > 1: return
        self._base = group_rates
        self.opt.set_hyper('lr', [rate * factor for rate, factor in zip(group_rates, self._factors)])

    def after_step(self):
        if getattr(self, '_base', None) is not None: self.opt.set_hyper('lr', self._base)
        self._base = None
