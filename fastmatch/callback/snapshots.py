"""Weights saved to files: one at the end of each cycle of the learning rate, and means and soups of such
files.

`each_weights`, `average_weights` and `greedy_soup` are functions of the learner, and methods of this
package's Learners.
"""
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

from ..core import InputError
from ..schedule.fit import only_validating
from .base import SkippableCallback, in_lr_find
from .state import update_bn
from .trained_on import copied_weights, joined_records, training_record


class Snapshots(SkippableCallback):
    """Saves the model at the end of each cycle of the learning rate, when the rate is lowest (snapshot
    ensembles).

    From https://arxiv.org/abs/1704.00109; use it with `fit_cycles`. It saves the trained weights; beside
    `EMA` or `SWA` the last file holds the average.
    """
    order, run_valid = 66, False  # after the scheduler has set the rate

    def __init__(
        self,
        fname: str = 'snapshot',  # Files are `fname_0.pth` and so on, where `learn.save` puts them
    ):
        self.fname = fname

    def before_fit(self):
        self.run = not in_lr_find(self.learn) and not only_validating(self.learn)
        if not self.run: return
        self.files = []
        self._rate = None
        self._falling = False

    def before_batch(self):
        current_rate = float(self.opt.hypers[-1]['lr'])
        # a rise after a fall begins a new cycle; a warm-up rises from the start and does not
        if self._rate is not None and current_rate > self._rate and self._falling: self._save()
        still_falling = self._falling and current_rate == self._rate
        self._falling = self._rate is not None and (current_rate < self._rate or still_falling)
        self._rate = current_rate

    def _save(self):
        self.files.append(self.learn.save(f'{self.fname}_{len(self.files)}', with_opt=False))

    def after_fit(self):
        if self._rate is not None: self._save()

    def state_dict(self):
        "For a training that is resumed."
        return dict(files=[str(file) for file in self.files], rate=self._rate, fell=self._falling)

    def load_state_dict(self, saved_state):
        "Go on from what `state_dict` returned."
        self.files = [Path(file) for file in saved_state['files']]
        self._rate = saved_state['rate']
        self._falling = saved_state['fell']


def _read_weights(learner, file) -> dict:
    "The model's state dict in a file, which may hold an optimizer's as well."
    saved_state = torch.load(file, map_location=next(learner.model.parameters()).device, weights_only=True)
    return saved_state['model'] if set(saved_state) == {'model', 'opt'} else saved_state


def _mean_weights(states) -> dict:
    "The mean of state dicts, summed in float64; what isn't floating point is taken from the last one."
    n, records = 0, []
    sums = {}
    for state in states:
        n += 1
        records.append(training_record(state))
        for weight_name, weight in state.items():
            if not weight.is_floating_point(): sums[weight_name] = weight
            elif weight_name in sums: sums[weight_name] = sums[weight_name] + weight.double()
            else: sums[weight_name] = weight.double()
    if not n: raise InputError('no files to average')
    means = OrderedDict(
        (weight_name, (total / n).to(state[weight_name].dtype) if total.is_floating_point() else total)
        for weight_name, total in sums.items())
    means._metadata = joined_records(records)
    return means


def each_weights(
    learner,  # fastai `Learner`
    files,  # Files of weights, saved by `learn.save`, `SaveModelCallback` or `Snapshots`
):
    """Iterate over the learner with each file's weights in turn; its own weights are put back at the end.

    A snapshot ensemble: `sum(member.get_preds()[0] for member in learn.each_weights(files)) / len(files)`.
    """
    own_weights = copied_weights(learner.model)
    try:
        for weight_file in files:
            learner.model.load_state_dict(_read_weights(learner, weight_file))
            yield learner
    finally: learner.model.load_state_dict(own_weights)


def average_weights(
    learner,  # fastai `Learner`
    files,  # Files of weights, saved by `learn.save`, `SaveModelCallback` or `Snapshots`
):
    "Load the mean of the weights in `files` into the model, and compute BatchNorm's statistics anew for it."
    learner.model.load_state_dict(_mean_weights(_read_weights(learner, weight_file) for weight_file in files))
    update_bn(learner)


def _validated_score(learner, monitor) -> float:
    "The recorded value `monitor` of a validation of the model as it is."
    recorded_values = list(learner.validate())
    recorded_names = learner.recorder.metric_names
    names = [name for name in recorded_names if name not in ('epoch', 'train_loss', 'time')]
    if monitor not in names: raise InputError(f'monitor={monitor!r}: this Learner records {names}')
    return float(recorded_values[names.index(monitor)])


def greedy_soup(
    learner,  # fastai `Learner`
    files,  # Files of weights, saved by `learn.save`, `SaveModelCallback` or `Snapshots`
    monitor: str = 'valid_loss',  # Name of a recorded value of validation
    comp=None,  # `np.less` or `np.greater`, whichever is better; default by its name, as fastai's trackers do
) -> tuple[list, float]:  # (files whose mean is loaded, score of that mean)
    """Load the mean of those files that, added from the best to the worst, don't make the mean worse.

    From https://arxiv.org/abs/2203.05482 (model soups). Files whose score is NaN are left out.
    """
    is_better = comp or (np.less if 'loss' in monitor or 'error' in monitor else np.greater)
    files = list(files)
    scores = [_validated_score(learner, monitor) for _ in each_weights(learner, files)]
    scored_numbers = [candidate for candidate, score in enumerate(scores) if not np.isnan(score)]
    if files and not scored_numbers: raise InputError(f'{monitor} is NaN with each of {len(files)} files')
    kept_numbers = []
    best_score = None
    for candidate in sorted(scored_numbers, key=scores.__getitem__, reverse=is_better is np.greater):
        average_weights(learner, [files[file_number] for file_number in [*kept_numbers, candidate]])
        score = _validated_score(learner, monitor)
        if best_score is None or score == best_score or is_better(score, best_score):
            kept_numbers.append(candidate)
            best_score = score
    average_weights(learner, [files[file_number] for file_number in kept_numbers])
    return [files[file_number] for file_number in kept_numbers], best_score
