"""Weights saved to files: one at the end of each cycle of the learning rate, and means and soups of such
files.

`each_weights`, `average_weights` and `greedy_soup` are functions of the learner, and methods of this
package's Learners.
"""
from pathlib import Path

import numpy as np
import torch

from ..core import InputError
from .base import SkippableCallback, in_lr_find, only_validating
from .state import update_bn


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
        rate = float(self.opt.hypers[-1]['lr'])
        # a rise after a fall begins a new cycle; a warm-up rises from the start and does not
        if self._rate is not None and rate > self._rate and self._falling: self._save()
        still_falling = self._falling and rate == self._rate
        self._falling = self._rate is not None and (rate < self._rate or still_falling)
        self._rate = rate

    def _save(self):
        self.files.append(self.learn.save(f'{self.fname}_{len(self.files)}', with_opt=False))

    def after_fit(self):
        if self._rate is not None: self._save()

    def state_dict(self):
        "For a training that is resumed."
        return dict(files=[str(file) for file in self.files], rate=self._rate, fell=self._falling)

    def load_state_dict(self, saved_state):
        "Go on from a saved_state of `state_dict`."
        self.files = [Path(file) for file in saved_state['files']]
        self._rate = saved_state['rate']
        self._falling = saved_state['fell']


def _read_weights(learner, file) -> dict:
    "The model's state dict in a file, which may hold an optimizer's as well."
    state = torch.load(file, map_location=next(learner.model.parameters()).device, weights_only=True)
    return state['model'] if set(state) == {'model', 'opt'} else state


def _mean_weights(states) -> dict:
    "The mean of state dicts, summed in float64; what isn't floating point is taken from the last one."
    n = 0
    total = {}
    for state in states:
        n += 1
        for weight_name, weight in state.items():
            if not weight.is_floating_point(): total[weight_name] = weight
            elif weight_name in total: total[weight_name] = total[weight_name] + weight.double()
            else: total[weight_name] = weight.double()
    if not n: raise InputError('no files to average')
    return {weight_name: (weight / n).to(state[weight_name].dtype) if weight.is_floating_point() else weight
            for weight_name, weight in total.items()}


def each_weights(
    learner,  # fastai `Learner`
    files,  # Files of weights, saved by `learn.save`, `SaveModelCallback` or `Snapshots`
):
    """Iterate over the learner with each file's weights in turn; its own weights are put back at the end.

    A snapshot ensemble: `sum(member.get_preds()[0] for member in learn.each_weights(files)) / len(files)`.
    """
    own = {weight_name: weight.clone() for weight_name, weight in learner.model.state_dict().items()}
    try:
        for file in files:
            learner.model.load_state_dict(_read_weights(learner, file))
            yield learner
    finally: learner.model.load_state_dict(own)


def average_weights(
    learner,  # fastai `Learner`
    files,  # Files of weights, saved by `learn.save`, `SaveModelCallback` or `Snapshots`
):
    "Load the mean of the weights in `files` into the model, and compute BatchNorm's statistics anew for it."
    learner.model.load_state_dict(_mean_weights(_read_weights(learner, file) for file in files))
    update_bn(learner)


def _validated_score(learner, monitor) -> float:
    "The recorded value `monitor` of a validation of the model as it is."
    values = list(learner.validate())
    recorded = learner.recorder.metric_names
    names = [metric for metric in recorded if metric not in ('epoch', 'train_loss', 'time')]
    if monitor not in names: raise InputError(f'monitor={monitor!r}: this Learner records {names}')
    return float(values[names.index(monitor)])


def greedy_soup(
    learner,  # fastai `Learner`
    files,  # Files of weights, saved by `learn.save`, `SaveModelCallback` or `Snapshots`
    monitor: str = 'valid_loss',  # Name of a recorded value of validation
    comp=None,  # `np.less` or `np.greater`, whichever is better; default by its name, as fastai's trackers do
) -> tuple[list, float]:  # (files whose mean is loaded, score of that mean)
    """Load the mean of those files that, added from the best to the worst, don't make the mean worse.

    From https://arxiv.org/abs/2203.05482 (model soups). Files whose score is NaN are left out.
    """
    better = comp or (np.less if 'loss' in monitor or 'error' in monitor else np.greater)
    files = list(files)
    scores = [_validated_score(learner, monitor) for _ in each_weights(learner, files)]
    scored = [i for i, score in enumerate(scores) if not np.isnan(score)]
    if files and not scored: raise InputError(f'{monitor} is NaN with each of {len(files)} files')
    kept = []
    best = None
    for i in sorted(scored, key=scores.__getitem__, reverse=better is np.greater):
        average_weights(learner, [files[j] for j in [*kept, i]])
        score = _validated_score(learner, monitor)
        if best is None or score == best or better(score, best):
            kept.append(i)
            best = score
    average_weights(learner, [files[j] for j in kept])
    return [files[j] for j in kept], best
