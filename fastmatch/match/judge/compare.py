"Is one way better than another: the same thing done with several seeds, and paired differences with an interval and a plain sentence."
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ...core import InputError, preview
from .heldout import HeldOut, cluster_standard_error

FLIPS = 9999  # sign flips drawn; where there are no more than this in all, every one is tried


@dataclass
class Repeated:
    "One figure of a configuration under several seeds."
    values: np.ndarray  # float64 (s,), one a seed
    seeds: tuple  # (s,)
    parts: tuple = ()  # The `HeldOut` of each seed, where there are such

    @property
    def mean(self) -> float: return float(self.values.mean())

    @property
    def se(self) -> float: return float(stats.sem(self.values)) if len(self.values) > 1 else float('nan')  # of the mean, over seeds

    def __repr__(self): return f'{self.mean:.4f} (s.e. {self.se:.4f}, {len(self.values)} seeds: {" ".join(f"{o:.4f}" for o in self.values)})'


def repeat(
    config,  # seed -> number, `HeldOut`, or {name: number or `HeldOut`}
    seeds=5,  # So many, from 0; or the seeds themselves
) -> Repeated | dict:  # {name: `Repeated`} where `config` gives several figures
    "Run `config` once a seed: mean and standard error."
    seeds = tuple(range(seeds)) if isinstance(seeds, (int, np.integer)) else tuple(seeds)
    if len(set(seeds)) < max(1, len(seeds)): raise InputError(f'seeds={list(seeds)}: give one at least, each once')
    got = [config(o) for o in seeds]
    if not all(isinstance(o, dict) for o in got): return _repeated(got, seeds, 'config')
    if any(o.keys() != got[0].keys() for o in got): raise InputError(f'config gave different figures: {[sorted(o) for o in got]}')
    return {k: _repeated([o[k] for o in got], seeds, k) for k in got[0]}


def _repeated(got, seeds, name):
    parts = tuple(got) if all(isinstance(o, HeldOut) for o in got) else ()
    try: values = np.array([_value(o) for o in got], np.float64)
    except (TypeError, ValueError) as e: raise InputError(f'{name} gave {preview(type(o).__name__ for o in got)}: give a number or a HeldOut') from e
    if (bad := ~np.isfinite(values)).any(): raise InputError(f'{name} gave {values[bad][0]} with seed {preview(np.array(seeds)[bad])}')
    return Repeated(values, seeds, parts)


def _value(o): return o.mean if isinstance(o, HeldOut) else float(o)


@dataclass
class Comparison:
    "The paired difference a - b."
    diff: float  # Its mean
    se: float  # Standard error: products and, with several seeds, the luck of seeds
    low: float  # Of the interval
    high: float
    p: float  # Two-sided, signs flipped: of products where there are per-listing scores (with several seeds, whose luck is added), otherwise of seeds
    seeds: int  # Pairs of runs
    listings: int = 0  # Scored in each; 0 where only their means are known
    level: float = .95  # Of the interval

    @property
    def sentence(self) -> str:
        "What that says, plainly."
        span = f'{self.diff:+.4f} ({self.level:.0%} interval {self.low:+.4f} to {self.high:+.4f}, permutation p {self.p:.2g})'
        over = f'{self.seeds} seed{"s" * (self.seeds > 1)}' + (f' on {self.listings} listings' if self.listings else '')
        alone = '' if self.seeds > 1 else ' One seed: how much another would have changed is not in the interval.'
        if self.low <= 0 <= self.high: return f'No difference that {over} could show: {span}.{alone}'
        return f'The first is {"better" if self.diff > 0 else "worse"}: {span}, {over}.{alone}'

    def __repr__(self): return self.sentence
    def to_dict(self) -> dict: return {k: round(float(v), 5) for k, v in vars(self).items()}


def compare(
    a,  # `Repeated`, `HeldOut`, a list of `HeldOut`s (one a seed), {(seed, fold): `HeldOut`}, or numbers, one a seed
    b,  # The same of the other way: same seeds, same listings
    level: float = .95,  # Of the interval
    seed: int = 0,  # Of the flips, where not all can be tried
) -> Comparison:
    "The mean difference a - b, paired by seed, fold and listing."
    if not 0 < level < 1: raise InputError(f'level={level}: between 0 and 1')
    a, b = (_runs(o, name) for o, name in ((a, 'a'), (b, 'b')))
    for runs, name in ((a, 'a'), (b, 'b')):
        if bad := [k for k, o in runs.items() if not np.isfinite(o.row_f1 if isinstance(o, HeldOut) else o).all()]:
            raise InputError(f'{name}: seed {bad[0][0]}, fold {bad[0][1]} has scores that are not finite')
    if a.keys() != b.keys(): raise InputError(f'a and b are not of the same runs: {preview(a)} and {preview(b)}')
    if all(isinstance(o, HeldOut) for o in (*a.values(), *b.values())): return _by_listing(a, b, level, seed)
    return _by_seed(np.array([_value(a[k]) - _value(b[k]) for k in a]), level, seed)


def _runs(o, name):
    "{(seed, fold): HeldOut or number}"
    if isinstance(o, HeldOut): return {(0, 0): o}
    if isinstance(o, Repeated): return {(s, 0): v for s, v in zip(o.seeds, o.parts or o.values)}
    if isinstance(o, dict) and o and all(isinstance(k, tuple) and len(k) == 2 and isinstance(v, HeldOut) for k, v in o.items()): return o
    if isinstance(o, (list, tuple, np.ndarray)) and len(o) and all(isinstance(v, (HeldOut, int, float, np.number)) for v in o): return {(i, 0): v for i, v in enumerate(o)}
    raise InputError(f'{name}: {type(o).__name__}: give Repeated, HeldOut, a list of HeldOuts or numbers, or {{(seed, fold): HeldOut}}')


def _by_seed(d, level, seed):
    if len(d) < 2: raise InputError('one pair of numbers: two seeds at least, or HeldOuts, whose listings can be compared')
    return _comparison(float(d.mean()), stats.sem(d), len(d) - 1, d, len(d), 0, level, seed)


def _by_listing(a, b, level, seed):
    seeds, folds = (list(dict.fromkeys(o)) for o in zip(*a))
    if len(a) != len(seeds) * len(folds): raise InputError(f'{len(a)} runs of {len(seeds)} seeds and {len(folds)} folds: each seed needs each fold')
    first, start, d, clusters = a[seeds[0], folds[0]], 0, [], []
    for fold in folds:
        first = a[seeds[0], fold]
        for k in seeds:
            for o in (a[k, fold], b[k, fold]):
                if not np.array_equal(o.clusters, first.clusters): raise InputError(f'seed {k}, fold {fold}: a and b are scores of different listings')
        d.append(np.stack([a[k, fold].row_f1 - b[k, fold].row_f1 for k in seeds]))
        clusters.append(first.clusters + start)
        start += int(first.clusters.max()) + 1
    d, clusters = np.concatenate(d, 1), np.concatenate(clusters)
    mean, n_groups = d.mean(0), len(np.unique(clusters))
    if n_groups < 2: raise InputError('all listings are of one group: two at least, how much products differ can not be told from one')
    # products are drawn and seeds are drawn: the two variances add up (what is neither's alone is counted in both: on the safe side)
    parts = [(cluster_standard_error(mean, clusters)**2, n_groups - 1)] + ([(stats.sem(d.mean(1))**2, len(seeds) - 1)] if len(seeds) > 1 else [])
    var = sum(v for v, _ in parts)
    # Satterthwaite's degrees of freedom
    dof = var**2 / sum(v**2 / max(n, 1) for v, n in parts if v > 0) if var > 0 else 1
    luck = (np.sqrt(parts[1][0]) * len(mean), parts[1][1]) if len(seeds) > 1 else None
    return _comparison(float(mean.mean()), np.sqrt(var), dof, np.bincount(clusters, mean), len(seeds), len(mean), level, seed, luck)


def _comparison(diff, se, dof, units, seeds, listings, level, seed, luck=None):
    wide = float(stats.t.ppf((1 + level) / 2, dof) * se) if se > 0 else 0.
    return Comparison(diff, float(se), diff - wide, diff + wide, _flipped(units, seed, luck), seeds, listings, level)


def _flipped(
    units: np.ndarray,  # (u,) sums of differences, each of a product or a seed
    seed: int,  # Of the flips
    luck: tuple | None = None,  # (standard error, degrees of freedom) of what the sum owes to seeds, drawn as Student's t beside the flips
):
    "The share of sign flips whose sum is as far from 0 as that of `units`."
    units = units[units != 0]  # a flip changes nothing there
    u, far, count = len(units), abs(units.sum()) - 1e-9 * np.abs(units).sum(), 0
    def beyond(sums):
        if luck is None or luck[0] == 0: return np.abs(sums) >= far
        return np.minimum(stats.t.sf((far - sums) / luck[0], luck[1]) + stats.t.sf((far + sums) / luck[0], luck[1]), 1)
    if u < 60 and 2**u <= FLIPS + 1:
        signs = (np.arange(2**u)[:, None] >> np.arange(u)) & 1
        return float(beyond((1 - 2 * signs) @ units).mean())
    rng = np.random.default_rng(seed)
    for part in np.array_split(np.arange(FLIPS), 1 + FLIPS * u // 4_000_000):
        count += beyond(units.sum() - 2 * (rng.integers(0, 2, (len(part), u), np.int8) @ units)).sum()
    # the sum as it is counts as one of them
    return float((1 + count) / (1 + FLIPS))
