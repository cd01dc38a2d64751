"The same thing done with several seeds: the mean, and how much it depends on the seed."
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ...core import InputError, preview
from .heldout import HeldOut


@dataclass
class Repeated:
    "One figure of a configuration under several seeds."
    values: np.ndarray  # float64 (s,), one a seed
    seeds: tuple  # (s,)
    parts: tuple = ()  # The `HeldOut` of each seed, where there are such

    @property
    def mean(self) -> float:
        "The mean over the seeds."
        return float(self.values.mean())

    @property
    def se(self) -> float:
        "Standard error of the mean, over the seeds; NaN with one."
        return float(stats.sem(self.values)) if len(self.values) > 1 else float('nan')

    def __repr__(self):
        values = ' '.join(f'{value:.4f}' for value in self.values)
        return f'{self.mean:.4f} (s.e. {self.se:.4f}, {len(self.values)} seeds: {values})'


def repeat(
    config,  # seed -> number, `HeldOut`, or {name: number or `HeldOut`}
    seeds=5,  # How many, from 0; or the seeds themselves
) -> Repeated | dict:  # {name: `Repeated`} where `config` gives several figures
    "Run `config` once for each seed: its figures with mean and standard error."
    seeds = tuple(range(seeds)) if isinstance(seeds, (int, np.integer)) else tuple(seeds)
    if len(set(seeds)) < max(1, len(seeds)):
        raise InputError(f'seeds={list(seeds)}: give one at least, each once')
    results = [config(seed) for seed in seeds]
    if not all(isinstance(result, dict) for result in results): return _repeated(results, seeds, 'config')
    if any(result.keys() != results[0].keys() for result in results):
        raise InputError(f'config gave different figures: {[sorted(result) for result in results]}')
    return {figure: _repeated([result[figure] for result in results], seeds, figure) for figure in results[0]}


def _repeated(results, seeds, figure):
    parts = tuple(results) if all(isinstance(result, HeldOut) for result in results) else ()
    try: values = np.array([value_of(result) for result in results], np.float64)
    except (TypeError, ValueError) as conversion_error:
        type_names = preview(type(result).__name__ for result in results)
        raise InputError(f'{figure} gave {type_names}: give a number or a HeldOut') from conversion_error
    not_finite = ~np.isfinite(values)
    if not_finite.any():
        bad_seeds = preview(np.array(seeds)[not_finite])
        raise InputError(f'{figure} gave {values[not_finite][0]} with seed {bad_seeds}')
    return Repeated(values, seeds, parts)


def value_of(
    result,  # A number, or `HeldOut`
) -> float:
    "A result as one number: of `HeldOut` the mean row F1."
    return result.mean if isinstance(result, HeldOut) else float(result)
