"Samplers and pruners by name; every trial draws from a seed of its own, so that a study resumed, or shared out, doesn't draw the same again."
import warnings

import numpy as np
import optuna
from optuna import pruners, samplers

from ...core import InputError, require_package


def _tpe(seed): return samplers.TPESampler(seed=seed, constant_liar=True)  # trials that run elsewhere count as bad, so that workers spread


def _cmaes(seed):
    require_package('cmaes', "sampler='cmaes'", 'fastmatch[tune]')
    return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)


def _gp(seed): return samplers.GPSampler(seed=seed)


SAMPLERS = {'tpe': _tpe, 'cmaes': _cmaes, 'gp': _gp, 'random': lambda seed: samplers.RandomSampler(seed=seed)}


class Seeded(samplers.BaseSampler):
    "A sampler made anew for each trial, seeded by the study's seed and the trial's number: what was learnt is in the study, not in it."
    def __init__(
        self,
        make,  # seed -> sampler
        seed: int,  # Of the study
    ):
        self.make, self.seed, self.inner = make, seed, make(seed)

    def before_trial(self, study, trial):
        with warnings.catch_warnings():
            # "experimental": some of Optuna's options were, in its fourth version
            warnings.simplefilter('ignore', optuna.exceptions.ExperimentalWarning)
            self.inner = self.make(int(np.random.SeedSequence([self.seed, trial.number]).generate_state(1)[0]))
        self.inner.before_trial(study, trial)

    def infer_relative_search_space(self, study, trial): return self.inner.infer_relative_search_space(study, trial)
    def sample_relative(self, study, trial, search_space): return self.inner.sample_relative(study, trial, search_space)
    def sample_independent(self, study, trial, name, dist): return self.inner.sample_independent(study, trial, name, dist)
    def after_trial(self, study, trial, state, values): self.inner.after_trial(study, trial, state, values)


def make_sampler(
    sampler,  # 'tpe', 'cmaes', 'gp', 'random', or an Optuna sampler, which is then taken as it is
    seed: int = 0,  # Of the study
):
    "An Optuna sampler by name."
    if isinstance(sampler, samplers.BaseSampler): return sampler
    if sampler not in SAMPLERS: raise InputError(f'sampler={sampler!r}: choose from {list(SAMPLERS)}, or give one of optuna.samplers')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', optuna.exceptions.ExperimentalWarning)
        return Seeded(SAMPLERS[sampler], seed)


def make_pruner(
    pruner,  # None, 'hyperband', 'asha', 'median', or an Optuna pruner
    epochs: int | None = None,  # Of a whole trial; Hyperband's brackets follow from it
):
    "An Optuna pruner by name, its resource an epoch."
    if isinstance(pruner, pruners.BasePruner): return pruner
    if pruner is None: return pruners.NopPruner()
    if pruner == 'hyperband':
        if epochs is None: raise InputError("pruner='hyperband' shares out epochs: say how many a whole trial has (epochs=)")
        return pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
    if pruner == 'asha': return pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    if pruner == 'median': return pruners.MedianPruner(n_startup_trials=5)
    raise InputError(f"pruner={pruner!r}: choose None, 'hyperband', 'asha' or 'median', or give one of optuna.pruners")
