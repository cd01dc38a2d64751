"""Samplers and pruners by name.

Each trial draws with a seed of its own, so that a study that is resumed, or shared between processes, never
repeats its draws."""
import warnings

import numpy as np
import optuna
from optuna import pruners, samplers

from ...core import InputError, require_package


# constant_liar: trials that run elsewhere count as bad until they end, which makes workers spread out
def _tpe(seed): return samplers.TPESampler(seed=seed, constant_liar=True)


def _cmaes(seed):
    require_package('cmaes', "sampler='cmaes'", 'fastmatch[tune]')
    return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)


def _gp(seed): return samplers.GPSampler(seed=seed)


def _random(seed): return samplers.RandomSampler(seed=seed)


SAMPLERS = {'tpe': _tpe, 'cmaes': _cmaes, 'gp': _gp, 'random': _random}


class SeededSampler(samplers.BaseSampler):
    """A sampler that is made anew for each trial, with a seed made of the study's seed and the trial's
    number.

    What a sampler learns it reads from the study's trials, so nothing is lost when a new one takes over."""
    def __init__(
        self,
        make,  # seed -> Optuna sampler
        seed: int,  # Of the study
    ):
        self.make, self.seed = make, seed
        self.current = make(seed)

    def before_trial(self, study, trial):
        trial_seed = int(np.random.SeedSequence([self.seed, trial.number]).generate_state(1)[0])
        with warnings.catch_warnings():
            # some of Optuna's options were experimental in its fourth version
            warnings.simplefilter('ignore', optuna.exceptions.ExperimentalWarning)
            self.current = self.make(trial_seed)
        self.current.before_trial(study, trial)

    def infer_relative_search_space(self, study, trial):
        return self.current.infer_relative_search_space(study, trial)

    def sample_relative(self, study, trial, search_space):
        return self.current.sample_relative(study, trial, search_space)

    def sample_independent(self, study, trial, param_name, param_distribution):
        return self.current.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study, trial, state, values): self.current.after_trial(study, trial, state, values)


def make_sampler(
    sampler,  # 'tpe', 'cmaes', 'gp', 'random', or an Optuna sampler, which is then used as it is
    seed: int = 0,  # Of the study
):  # Optuna sampler
    "An Optuna sampler by name; an unknown name raises `InputError`."
    if isinstance(sampler, samplers.BaseSampler): return sampler
    if sampler not in SAMPLERS:
        raise InputError(f'sampler={sampler!r}: choose from {list(SAMPLERS)}, or give one of optuna.samplers')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', optuna.exceptions.ExperimentalWarning)
        return SeededSampler(SAMPLERS[sampler], seed)


def make_pruner(
    pruner,  # None, 'hyperband', 'asha', 'median', or an Optuna pruner
    epochs: int | None = None,  # Of a whole trial; Hyperband's brackets follow from it
):  # Optuna pruner
    "An Optuna pruner by name, whose steps are epochs; an unknown name raises `InputError`."
    if isinstance(pruner, pruners.BasePruner): return pruner
    if pruner is None: return pruners.NopPruner()
    if pruner == 'hyperband':
        if epochs is None:
            raise InputError("pruner='hyperband' shares out epochs: say how many a whole trial has (epochs=)")
        return pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
    if pruner == 'asha': return pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    if pruner == 'median': return pruners.MedianPruner(n_startup_trials=5)
    raise InputError(f"pruner={pruner!r}: choose None, 'hyperband', 'asha' or 'median', "
                     'or give one of optuna.pruners')
