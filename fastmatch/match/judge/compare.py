"Is one way better than another? Paired differences over seeds and listings, with an interval in words."
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ...core import InputError, preview
from .heldout import HeldOut, cluster_standard_error, dependence_factor
from .repeat import Repeated, value_of

FLIPS = 9999  # sign flips drawn; where there are no more than this in all, every one is tried
CELLS = 4_000_000  # signs drawn at a time


@dataclass
class Comparison:
    "The paired difference a - b."
    diff: float  # Its mean
    se: float  # Standard error: over groups and, with several seeds, also over seeds
    low: float  # Lower end of the interval
    high: float  # Upper end
    p: float  # Two-sided, by flipped signs: of groups where there are scores of listings, otherwise of seeds
    seeds: int  # Pairs of runs
    listings: int = 0  # Scored in each run; 0 where only their means are known
    level: float = .95  # Of the interval

    @property
    def sentence(self) -> str:
        "The comparison in plain words."
        interval = f'{self.level:.0%} interval {self.low:+.4f} to {self.high:+.4f}'
        figures = f'{self.diff:+.4f} ({interval}, permutation p {self.p:.2g})'
        measured_on = f'{self.seeds} seed{"s" * (self.seeds > 1)}'
        if self.listings: measured_on += f' on {self.listings} listings'
        one_seed = ' One seed: how much another would have changed is not in the interval.'
        ending = '.' if self.seeds > 1 else f'.{one_seed}'
        if self.low <= 0 <= self.high:
            return f'No difference that {measured_on} could show: {figures}{ending}'
        return f'The first is {"better" if self.diff > 0 else "worse"}: {figures}, {measured_on}{ending}'

    def __repr__(self): return self.sentence

    def to_dict(self) -> dict:
        "The figures as plain numbers."
        return {field_name: round(float(value), 5) for field_name, value in vars(self).items()}


@dataclass
class SeedError:
    "How much the sum of the differences varies with the seeds, as a Student's t distribution."
    scale: float  # Standard error of the sum
    degrees: float  # Degrees of freedom


def compare(
    a,  # `HeldOut`, `Repeated`, a list of `HeldOut`s or numbers (one a seed), or {(seed, fold): `HeldOut`}
    b,  # The same of the other way: same seeds, same listings
    level: float = .95,  # Of the interval
    seed: int = 0,  # Of the sign flips, where not all can be tried
) -> Comparison:
    "The mean difference a - b, paired by seed, fold and listing."
    if not 0 < level < 1: raise InputError(f'level={level}: between 0 and 1')
    a, b = _runs(a, 'a'), _runs(b, 'b')
    _check_finite(a, 'a')
    _check_finite(b, 'b')
    if a.keys() != b.keys():
        raise InputError(f'a and b are not of the same runs: {preview(a)} and {preview(b)}')
    if all(isinstance(run, HeldOut) for run in (*a.values(), *b.values())):
        return _by_listing(a, b, level, seed)
    differences = [value_of(a[seed_and_fold]) - value_of(b[seed_and_fold]) for seed_and_fold in a]
    return _by_seed(np.array(differences), level, seed)


def _runs(given, name):
    "What was given as {(seed, fold): HeldOut or number}."
    if isinstance(given, HeldOut): return {(0, 0): given}
    if isinstance(given, Repeated):
        return {(seed, 0): run for seed, run in zip(given.seeds, given.parts or given.values)}
    if isinstance(given, dict) and given:
        if all(_is_fold(seed_and_fold, run) for seed_and_fold, run in given.items()): return given
    if isinstance(given, (list, tuple, np.ndarray)) and len(given):
        if all(isinstance(run, (HeldOut, int, float, np.number)) for run in given):
            return {(position, 0): run for position, run in enumerate(given)}
    raise InputError(f'{name}: {type(given).__name__}: give Repeated, HeldOut, a list of HeldOuts or '
                     'numbers, or {(seed, fold): HeldOut}')


def _is_fold(seed_and_fold, run):
    return isinstance(seed_and_fold, tuple) and len(seed_and_fold) == 2 and isinstance(run, HeldOut)


def _check_finite(runs, argument):
    for (seed, fold), run in runs.items():
        if not np.isfinite(run.row_f1 if isinstance(run, HeldOut) else run).all():
            raise InputError(f'{argument}: seed {seed}, fold {fold} has scores that are not finite')


def _by_seed(differences, level, seed):
    n_seeds = len(differences)
    if n_seeds < 2:
        raise InputError('one pair of numbers: two seeds at least, '
                         'or HeldOuts, whose listings can be compared')
    standard_error = float(stats.sem(differences))
    low, high = _interval(differences.mean(), standard_error, n_seeds - 1, level)
    p_value = _share_of_flips(differences, seed)
    return Comparison(float(differences.mean()), standard_error, low, high, p_value, n_seeds, 0, level)


def _by_listing(a, b, level, seed):
    seeds, folds = (list(dict.fromkeys(numbers)) for numbers in zip(*a))
    if len(a) != len(seeds) * len(folds):
        raise InputError(f'{len(a)} runs of {len(seeds)} seeds and {len(folds)} folds: '
                         'each seed needs each fold')
    differences, clusters = _side_by_side(a, b, seeds, folds)
    listing_means = differences.mean(0)
    n_groups = len(np.unique(clusters))
    if n_groups < 2:
        raise InputError('all listings are of one group: give two at least, '
                         'how much groups differ can not be told from one')
    # Groups are drawn and seeds are drawn, so the two variances add up. What is due to both together is
    # counted in either: on the safe side.
    # and groups are not independent of each other
    is_independent = all(run.independent for run in (*a.values(), *b.values()))
    factor = 1. if is_independent else dependence_factor(clusters)
    variances = [(factor * cluster_standard_error(listing_means, clusters))**2]
    degrees = [n_groups - 1]
    seed_error = None
    if len(seeds) > 1:
        variances.append(stats.sem(differences.mean(1))**2)
        degrees.append(len(seeds) - 1)
        seed_error = SeedError(np.sqrt(variances[1]) * len(listing_means), degrees[1])
    variance = sum(variances)
    standard_error = float(np.sqrt(variance))
    low, high = _interval(listing_means.mean(), standard_error, _satterthwaite(variances, degrees), level)
    p_value = _share_of_flips(np.bincount(clusters, listing_means), seed, seed_error, factor)
    return Comparison(float(listing_means.mean()), standard_error, low, high, p_value, len(seeds),
                      len(listing_means), level)


def _side_by_side(a, b, seeds, folds):
    "Of all folds together: the differences, float64 (seeds, n), and the clusters of the listings, int (n,)."
    differences, clusters, next_cluster = [], [], 0
    for fold in folds:
        first_run = a[seeds[0], fold]
        for seed in seeds:
            for run in (a[seed, fold], b[seed, fold]):
                if not np.array_equal(run.clusters, first_run.clusters):
                    raise InputError(f'seed {seed}, fold {fold}: a and b are scores of different listings')
        differences.append(np.stack([a[seed, fold].row_f1 - b[seed, fold].row_f1 for seed in seeds]))
        clusters.append(first_run.clusters + next_cluster)
        next_cluster += int(first_run.clusters.max()) + 1
    return np.concatenate(differences, 1), np.concatenate(clusters)


def _satterthwaite(variances, degrees):
    "The degrees of freedom of a sum of variances, https://doi.org/10.2307/3002019"
    variance_sum = sum(variances)
    if not variance_sum > 0: return 1
    terms = [variance**2 / max(freedom, 1) for variance, freedom in zip(variances, degrees) if variance > 0]
    return variance_sum**2 / sum(terms)


def _interval(mean, standard_error, degrees, level):
    half_width = float(stats.t.ppf((1 + level) / 2, degrees) * standard_error) if standard_error > 0 else 0.
    return float(mean) - half_width, float(mean) + half_width


def _share_of_flips(
    sums: np.ndarray,  # float64 (u,), sums of differences, each of a group or a seed
    seed: int,  # Of the flips
    seed_error: SeedError | None = None,  # Drawn beside the flips, where several seeds add to the sum
    factor: float = 1.,  # How many times as far as flips say the total varies
) -> float:
    "The share of sign flips whose total is as far from 0 as that of `sums`: p of a permutation test."
    sums = sums[sums != 0]  # a flip changes nothing there
    n_sums = len(sums)
    distance = abs(sums.sum()) - 1e-9 * np.abs(sums).sum()
    flipped_sums = factor * sums
    if n_sums < 60 and 2**n_sums <= FLIPS + 1:
        is_flipped = (np.arange(2**n_sums)[:, None] >> np.arange(n_sums)) & 1
        return float(_as_far((1 - 2 * is_flipped) @ flipped_sums, distance, seed_error).mean())
    rng = np.random.default_rng(seed)
    as_far_count = 0
    for drawn_flips in np.array_split(np.arange(FLIPS), 1 + FLIPS * n_sums // CELLS):
        is_flipped = rng.integers(0, 2, (len(drawn_flips), n_sums), np.int8)
        totals = flipped_sums.sum() - 2 * (is_flipped @ flipped_sums)
        as_far_count += _as_far(totals, distance, seed_error).sum()
    # the sum as it is counts as one of them
    return float((1 + as_far_count) / (1 + FLIPS))


def _as_far(totals, distance, seed_error):
    "For each total, whether it is as far from 0 as `distance`; with the seeds' error, the chance that it is."
    if seed_error is None or seed_error.scale == 0: return np.abs(totals) >= distance
    share_above = stats.t.sf((distance - totals) / seed_error.scale, seed_error.degrees)
    share_below = stats.t.sf((distance + totals) / seed_error.scale, seed_error.degrees)
    return np.minimum(share_above + share_below, 1)
