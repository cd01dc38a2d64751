"The held-out protocol: a rule is chosen on half of the groups and scored on the other half, over and over."
import itertools
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from ...core import InputError, preview
from ..candidates import Candidates
from ..fuse import fuse
from ..matches import MAX_MATCHES
from ..neighbors import Neighbors, group_codes
from ..rule import Rule
from ..thresholds.sweep import Sweep
from .score import alone, map_at_r, recall_at


@dataclass
class HeldOut:
    "What each listing scored under rules that were chosen on other groups."
    row_f1: np.ndarray  # float64 (n,), mean over the halvings
    clusters: np.ndarray  # int (n,), by which errors hang together
    recall_at_1: np.ndarray | None = None  # float64 (n,), NaN for a listing without a mate
    map_at_r: np.ndarray | None = None  # float64 (n,), NaN for a listing without a mate
    picks: list = field(default_factory=list)  # (option, threshold) chosen on each half

    @property
    def mean(self) -> float: return float(self.row_f1.mean())

    @property
    def se(self) -> float: return cluster_standard_error(self.row_f1, self.clusters)

    def summary(self) -> dict:
        "The means, the standard error and the number of listings, as plain numbers."
        def mean(x): return None if x is None or np.isnan(x).all() else round(float(np.nanmean(x)), 5)
        return {'row_f1': round(self.mean, 5), 'se': round(self.se, 5), 'recall_at_1': mean(self.recall_at_1), 'map_at_r': mean(self.map_at_r),
                'n': len(self.row_f1)}

    def __repr__(self):
        pick = Counter(str(o) for o, _ in self.picks).most_common(1)
        return f'row F1 {self.mean:.3f} (s.e. {self.se:.3f}, n={len(self.row_f1)})' + (f', mostly {pick[0][0]}' if len(pick) and len(self.picks) else '')


def cluster_standard_error(x, clusters):
    "Standard error of the mean of `x` whose errors hang together within `clusters`."
    sums = np.bincount(clusters, weights=x - x.mean())
    g = (np.bincount(clusters) > 0).sum()
    return float(np.sqrt((sums**2).sum() * g / max(1, g - 1)) / len(x))


def random_halves(
    clusters: np.ndarray,  # int (n,), from 0
    halvings: int = 10,  # How often
    seed: int = 0,  # Of the draws
):
    "Masks (bool (n,)) that put half of the groups on one side."
    rng, g = np.random.default_rng(seed), int(clusters.max()) + 1
    for _ in range(halvings):
        side = np.zeros(g, bool)
        side[rng.permutation(g)[:g // 2]] = True
        yield side[clusters]


def heldout(
    options,  # One `Neighbors` (or a sweep over cuts), or rules to choose from: {name: `Neighbors`} or an iterable of such pairs, held one at a time
    groups,  # (n,) groups: listings of one are the same product
    clusters=None,  # (n,) what is halved and clustered by; default `groups`
    halvings: int = 10,  # Random halvings, each half scored once under the other's rule
    seed: int = 0,  # Of the halvings
    max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
) -> HeldOut:
    "Choose option and threshold on half of the groups, score the other half, swap; the mean over random halvings."
    if halvings < 1: raise InputError(f'halvings={halvings}: 1 or more')
    if isinstance(options, Neighbors) or hasattr(options, 'best'): options = {'': options}
    runs = None
    # one option at a time: a grid over a large table would not fit in memory all at once
    for name, o in options.items() if isinstance(options, dict) else options:
        # what finds its own cuts is asked for them: `best(rows)` and `at(cuts)`
        sweep = o if hasattr(o, 'best') else Sweep(o, groups, max_matches)
        nb = sweep.neighbors
        if runs is None:
            g = group_codes(groups, len(nb.ids)) if clusters is None else group_codes(clusters, len(nb.ids), 'groups')
            if g.max() < 1: raise InputError('one group only: a rule is chosen on some groups and scored on others')
            _whole(group_codes(groups, len(nb.ids)), g)
            runs = [_Half(*o) for side in random_halves(g, halvings, seed) for o in ((side, ~side), (~side, side))]
        found = recall_at(nb, groups), map_at_r(nb, groups)
        for run in runs: run.offer(name, sweep, found)
    if runs is None: raise InputError('options: give one at least')
    f1, r1, ap = np.zeros((3, len(g)))
    for run in runs:
        for total, part in zip((f1, r1, ap), run.scores): total[run.scored] += part
    return HeldOut(f1 / halvings, g, r1 / halvings, ap / halvings, [(o.name, o.threshold) for o in runs])


class _Half:
    "The best option so far on the rows `chosen_on`, and what it scores on the others."
    def __init__(self, chosen_on, scored): self.chosen_on, self.scored, self.value = chosen_on, scored, -np.inf

    def offer(self, name, sweep, found):
        threshold, value = sweep.best(self.chosen_on)
        # of equal options the first stays: a grid starts with its plainest
        if value <= self.value: return
        self.name, self.threshold, self.value = name, threshold, value
        self.scores = [o[self.scored] for o in (sweep.at(threshold), *found)]


def _whole(y, clusters):
    "Raise `InputError` where listings of one label are in different groups: the rule would see what it is scored on."
    first = np.full(y.max() + 1, -1)
    first[y[::-1]] = clusters[::-1]
    if (bad := np.flatnonzero(first[y] != clusters)).size: raise InputError(f'groups cut through a label in rows {preview(bad)}')


def alone_heldout(
    groups,  # (n,) groups
) -> HeldOut:
    "Every listing matched with itself alone: the floor that every table prints."
    y = group_codes(groups, len(groups))
    return HeldOut(alone(groups), y)


def fusion_grid(
    names,  # Modalities
    hows=('mean', 'prob_or'),  # Also 'square', 'joint' (as 'mean'), 'power'
) -> list[tuple]:  # (how, weights), or (how, weights, options), the plainest first
    "Fusions to choose from: weighted means in tenths, probability-or over powers, power sums over thresholds (their ratios: the cut is free)."
    names = list(names)
    if unknown := set(hows) - {'mean', 'square', 'joint', 'prob_or', 'power'}: raise InputError(f'hows: no grid for {sorted(unknown)}')
    if len(names) == 1: return [('mean', {names[0]: 1.})]
    steps = [o for o in itertools.product(range(11), repeat=len(names)) if sum(o) == 10]
    # the equal-most first, so that ties end at the plainest
    steps.sort(key=lambda o: max(o) - min(o))
    # a modality of weight 0 still brings candidates: left out, the rule would be applied to fewer than it was chosen on
    means = [(how, {k: w / 10 for k, w in zip(names, o)}) for how in hows if how in ('mean', 'square', 'joint') for o in steps]
    powers = [('prob_or', dict(zip(names, map(float, o)))) for o in itertools.product((1, 2, 4), repeat=len(names)) if 'prob_or' in hows]
    cuts = itertools.product((2., 6.), *[(.6, .75, .9)] * len(names)) if 'power' in hows else ()
    sums = [('power', dict(zip(names, o)), {'power': p}) for p, *o in cuts]
    return means + powers + sums


def _fused(cand, grid):
    grid = fusion_grid([k for k in cand.scores if k not in cand.join]) if grid is None else grid
    return (((how, tuple(w.items()), *map(_frozen, more)), fuse(cand, how, w, **dict(*more))) for how, w, *more in grid)


def _frozen(options): return tuple(options.items())


def heldout_fused(
    cand: Candidates,  # Candidates of the modalities
    groups,  # (n,) groups
    grid: list | None = None,  # (how, weights) or (how, weights, options) to choose from; default `fusion_grid`
    **kwargs,  # For `heldout`
) -> HeldOut:
    "The held-out protocol over ways to fuse the modalities."
    return heldout(_fused(cand, grid), groups, **kwargs)


def choose_rule(
    cand: Candidates,  # Candidates of the modalities
    groups,  # (n,) groups
    grid: list | None = None,  # (how, weights) or (how, weights, options) to choose from; default `fusion_grid`
    max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
) -> Rule:
    "The fusion and the threshold with the best mean row F1 on all these listings."
    best = {key: Sweep(o, groups, max_matches).best() for key, o in _fused(cand, grid)}
    how, weights, *more = key = max(best, key=lambda o: best[o][1])
    threshold, f1 = best[key]
    return Rule(how, dict(weights), threshold, cand.k, max_matches, {'row_f1_chosen_on': round(f1, 5)}, cand.join, options=dict(*more), made_with=cand.made_with)


@dataclass
class Paired:
    "A paired difference of per-row scores with its interval."
    diff: float  # Mean of a - b
    se: float  # Standard error, clustered by group
    low: float  # Lower end of the interval
    high: float  # Upper end

    def to_dict(self) -> dict: return {k: round(float(v), 5) for k, v in vars(self).items()}


def paired(
    a: HeldOut,  # Scores of one way
    b: HeldOut,  # Scores of the other, same listings
    level: float = .95,  # Of the interval
    n_boot: int = 10_000,  # Resamples of the groups
    seed: int = 0,  # Of the resamples
) -> Paired:
    "The mean difference a - b in row F1 with a bootstrap interval over groups."
    if len(a.row_f1) != len(b.row_f1) or not np.array_equal(a.clusters, b.clusters): raise InputError('a and b are scores of different listings')
    if not 0 < level < 1: raise InputError(f'level={level}: between 0 and 1')
    d = a.row_f1 - b.row_f1
    sums, counts = np.bincount(a.clusters, weights=d), np.bincount(a.clusters)
    rng, boot = np.random.default_rng(seed), []
    for part in np.array_split(np.arange(n_boot), max(1, n_boot * len(sums) // 4_000_000)):
        draw = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=len(part))
        boot.append(draw @ sums / (draw @ counts))
    low, high = np.quantile(np.concatenate(boot), [(1 - level) / 2, (1 + level) / 2])
    return Paired(float(d.mean()), cluster_standard_error(d, a.clusters), float(low), float(high))


def summary_table(
    summary: dict,  # `heldout` (row -> `HeldOut.summary`) and `gain` (name -> `Paired.to_dict`), as in summary.json
) -> str:
    "The held-out figures as a table, 'alone' first, and the gain over the untrained encoders."
    lines = [f'{"":>16}  row F1   (s.e.)  recall@1   mAP@R    n']
    for name, r in summary['heldout'].items():
        num = [f'{r[k]:.3f}' if r[k] is not None else '  -  ' for k in ('row_f1', 'se', 'recall_at_1', 'map_at_r')]
        lines.append(f'{name:>16}   {num[0]}   ({num[1]})   {num[2]}     {num[3]}  {r["n"]}')
    for name, g in summary['gain'].items(): lines.append(f'{name}: {g["diff"]:+.3f} row F1, 95% interval {g["low"]:+.3f} to {g["high"]:+.3f}')
    return '\n'.join(lines)
