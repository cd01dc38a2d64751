"""The threshold of a rule over the size of the pool, found by looking listings up in random parts of it.

Distractors bring wrong matches and nothing else, and they bring them evenly. At a threshold t let R(t) be the
mean row F1 if no wrong listing came above t, and R(t) / (1 + w(t)) what it is with them in the pool as it is.
In a pool of m times as many listings it is about R(t) / (1 + w(t) m^g), with one power g for all thresholds:
g is 1 where wrong matches come to all listings alike, and less where they come to the same ones. w and R are
counted, g is measured in parts of the pool; the best threshold for a larger pool is the best of that curve.
A straight line through the best thresholds of the parts carries worse (`tests/bench/pools.py`): where matches
are right too seldom, the best threshold leaps to a place from which on nothing matches, and no line does.

The curve may say that in a much larger pool nothing is worth matching, and there it is least to be trusted:
identical listings are the same product in any pool. So a predicted threshold leaves a twentieth of the right
matches that were found here, and beyond the largest predicted pool it stays as it is.
"""
from dataclasses import dataclass, replace

import numpy as np
from tqdm.auto import tqdm

from ...core import InputError
from ..neighbors import NEAREST, Neighbors
from ..pools import PoolThresholds, check_pool
from ..rule import HIGHEST, Rule
from ..search.structure import RuleStructure
from ..search.workbench import Workbench
from ..spaces.sources import of_one_source
from ..thresholds.base import BEYOND, ROUNDING
from ..thresholds.sweep import Sweep
from .score import hits
from .setting import Setting

HALVINGS = 3  # of the pool: parts of a half, a quarter, an eighth
ENOUGH_ROWS = 2_000  # looked up in parts of one size: more of them hardly change what is measured
SMALLEST = 30  # listings of a part: fewer say little, and steps need neighbors
DOUBLINGS = 8  # beyond the largest size for which thresholds are predicted; there it stays as it is
LEFT = .05  # share of the right matches that a predicted threshold leaves
POINTS = 4_000  # thresholds that are compared
NEAR_BEST = .05  # row F1 below the best: the power of the pool is measured at thresholds as good as this
# The power in title sets, where it was .8 to 1. What the parts of a small pool say has an error of about .1:
# the
# usual power counts as much as so many wrong matches that say .9, which is an error of .05
USUAL_POWER = .9
USUAL_WEIGHT = 800


def pool_thresholds(
    setting: Setting,  # Where the rule was chosen: its pool is the largest that is measured
    rule,  # `Rule`, or `RuleStructure`: its thresholds are chosen in the whole pool
    sizes: tuple | None = None,  # Of the parts; default a half, a quarter, an eighth, or the rows alone
    draws: int | None = None,  # Parts of each size; default all of one deal, or until 2,000 rows
    seed: int = 0,  # Of the draws
    neighbors=None,  # The rule's fused and refined `Neighbors` in the whole pool, where they are at hand
) -> PoolThresholds:
    """The thresholds of a rule over the size of the pool: measured in parts of it, predicted for larger
    pools.

    Each part is refined and searched anew, as in use. Parts are random groups, of the rows and of the
    distractors alike; the smallest size by default is the rows alone, all of them, where there are
    distractors to leave out. The threshold of the whole pool is the one that the rule has there; a threshold
    of min2 moves with it. Other steps on matches are not regarded.
    """
    rule = _as_rule(setting, rule)
    levels = measured_levels(setting, rule, sizes, draws, seed, neighbors)
    alone = _rows_alone(setting, rule) if sizes is None else []
    shifts = _shifts([*levels, *alone], rule)
    law = WrongMatches.fitted(levels, shifts)
    if alone: levels = [*(level for level in levels if level.pool > alone[0].pool), *alone]
    largest = setting.pool
    beyond = [int(round(largest * 2**(half / 2))) for half in range(1, 2 * DOUBLINGS + 1)]
    smaller = _monotone_best(shifts, [level.curves(shifts).row_f1 for level in levels], -1)
    larger = _monotone_best(shifts, [law.row_f1(pool / largest) for pool in (largest, *beyond)], 1,
                            levels[0].reached_by(LEFT))
    shift_of_pool = dict(zip([level.pool for level in levels], smaller)) | dict(zip(beyond, larger[1:]))
    rising = sorted(shift_of_pool)
    return PoolThresholds(tuple(rising), tuple(rule.threshold + shift_of_pool[pool] for pool in rising),
                          measured=largest)


def threshold_curves(
    setting: Setting,  # Where the rule is judged
    rule,  # `Rule`, or `RuleStructure`
    # Of the pools, as for `pool_thresholds`; default a whole, a half, ... an eighth
    sizes: tuple | None = None,
    draws: int | None = None,  # Parts of each size
    seed: int = 0,  # Of the draws
    points: int = 200,  # Thresholds of each curve
):  # DataFrame: pool, threshold, row_f1
    "Mean row F1 over the threshold for several sizes of the pool, for a picture."
    import pandas as pd
    rule = _as_rule(setting, rule)
    levels = measured_levels(setting, rule, sizes, draws, seed)
    lowest, highest = _range(levels)
    shifts = np.linspace(lowest, highest + .05 * (highest - lowest), points)
    return pd.concat([
        pd.DataFrame({'pool': level.pool, 'threshold': rule.threshold + shifts,
                      'row_f1': level.curves(shifts).row_f1})
        for level in levels], ignore_index=True)


@dataclass
class Curves:
    "Mean row F1 over shifts of the thresholds."
    row_f1: np.ndarray  # float64 (s,)
    only_right: np.ndarray  # float64 (s,), what it would be if no wrong listing were let in
    n_wrong: np.ndarray  # int (s,), wrong matches of all rows


@dataclass
class Level:
    "What was found in all parts of one size: each pair with what letting it in adds to the sum of row F1."
    pool: int  # Listings of a part, in the mean
    n_rows: int  # That were looked up, in all parts
    alone: float  # Sum of their row F1 if nothing matches
    entries: np.ndarray  # float64 (m,), the shift of the thresholds up to which a pair is let in
    gains: np.ndarray  # float64 (m,)
    right_gains: np.ndarray  # float64 (m,), without wrong listings: 0 for them, and more for right ones

    @classmethod
    def of(
        cls,
        parts: list,  # Levels of one part each
    ) -> 'Level':
        "Parts of about one size taken together."
        joined = {name: np.concatenate([getattr(part, name) for part in parts])
                  for name in ('entries', 'gains', 'right_gains')}
        best_first = np.argsort(-joined['entries'], kind='stable')
        return cls(int(round(np.mean([part.pool for part in parts]))), sum(part.n_rows for part in parts),
                   sum(part.alone for part in parts),
                   **{name: array[best_first] for name, array in joined.items()})

    def reached_by(
        self,
        share: float,  # Of the right matches
    ) -> float:  # Infinite where there is none
        "The shift of the thresholds up to which so many of the right matches are let in."
        right = self.entries[(self.right_gains > 0) & np.isfinite(self.entries)]
        return float(np.quantile(right, 1 - share, method='lower')) if len(right) else np.inf

    def curves(
        self,
        shifts: np.ndarray,  # float (s,), what is added to the thresholds
    ) -> Curves:
        "The mean row F1 at each of the shifts."
        let_in = np.searchsorted(-self.entries, -shifts, side='right')
        row_f1, only_right = ((self.alone + np.append(0., gains.cumsum())[let_in]) / self.n_rows
                              for gains in (self.gains, self.right_gains))
        return Curves(row_f1, only_right, np.append(0, (self.right_gains == 0).cumsum())[let_in])


@dataclass
class WrongMatches:
    "How the row F1 over the threshold changes with the pool."
    here: Curves  # In the largest pool
    wrong: np.ndarray  # float64 (s,), w: row F1 is that of right matches alone, divided by 1 + w
    power: float  # g: m times as many listings make it w m^g
    # float64 (s,), what a doubling of the pool adds to the logarithm of `only_right`: 0, or less where steps
    # on vectors mix in neighbors, of which more are wrong in a larger pool
    drift: np.ndarray

    @classmethod
    def fitted(
        cls,
        levels: list,  # `Level`s, the largest first
        shifts: np.ndarray,  # float (s,), what is added to the thresholds
    ) -> 'WrongMatches':
        """The power of the pool and the drift of right matches, by least squares through the largest pool;
        the fewer wrong matches there are to count, the more the power is the usual one."""
        curves = [level.curves(shifts) for level in levels]
        here = curves[0]
        wrong = [np.maximum(curve.only_right / curve.row_f1 - 1, 0) for curve in curves]
        doublings = np.log2([level.pool / levels[0].pool for level in levels])
        moment = max((doublings**2).sum(), 1e-12)
        is_good = here.row_f1 >= here.row_f1.max() - NEAR_BEST
        sums = np.array([each[is_good].sum() for each in wrong]) + 1e-12
        power = np.clip(doublings @ np.log2(sums / sums[0]) / moment, 0, 1)
        weight = here.n_wrong[is_good].mean() if len(levels) > 1 else 0
        power = float((weight * power + USUAL_WEIGHT * USUAL_POWER) / (weight + USUAL_WEIGHT))
        drift = doublings @ [np.log(curve.only_right / here.only_right) for curve in curves] / moment
        return cls(here, wrong[0], power, np.minimum(drift, 0))

    def row_f1(
        self,
        growth: float,  # Of the pool: 2 for twice as many listings
    ) -> np.ndarray:  # float64 (s,)
        "The mean row F1 at each shift in a pool that is larger by this."
        only_right = self.here.only_right * np.exp(self.drift * np.log2(growth))
        return only_right / (1 + self.wrong * growth**self.power)


def measured_levels(
    setting: Setting,  # Where the rule is judged
    rule: Rule,  # With the threshold for the whole pool
    sizes: tuple | None = None,  # Of the parts; default a half of the pool, a quarter, an eighth
    draws: int | None = None,  # Parts of each size; default all of one deal, or until 2,000 rows
    seed: int = 0,  # Of the draws
    neighbors=None,  # The rule's `Neighbors` in the whole pool, where they are at hand
) -> list:  # `Level`s, the largest first
    "What the rule finds in the whole pool and in random groups of about these numbers of listings."
    sizes = _default_sizes(setting.pool) if sizes is None else _checked_sizes(sizes, setting.pool)
    if draws is not None and (
        isinstance(draws, bool) or not isinstance(draws, (int, np.integer)) or draws < 1
    ):
        raise InputError(f'draws={draws!r}: give a whole number from 1')
    if neighbors is None: neighbors = rule.run(setting.spaces).neighbors
    levels = [Level.of([_found(neighbors, setting, rule)])]
    for size in tqdm(sizes, desc='pools', delay=2, leave=False):
        parts = _dealt_parts(setting, size, draws, seed)
        levels.append(Level.of([_found(_neighbors_in(part, rule), part, rule) for part in parts]))
    # whole groups do not fill every size: sizes that come out equal are one
    levels_by_pool: dict[int, list[Level]] = {}
    for level in levels: levels_by_pool.setdefault(level.pool, []).append(level)
    return [Level.of(levels_by_pool[pool]) for pool in sorted(levels_by_pool, reverse=True)]


def _default_sizes(pool):
    return [pool // 2**halving for halving in range(1, HALVINGS + 1) if pool // 2**halving >= SMALLEST]


def _dealt_parts(setting, size, draws, seed):
    "Settings of random groups: of one deal as many as hold `ENOUGH_ROWS`, or as many as are asked for."
    seeds = np.random.default_rng([seed, size])
    parts = setting.dealt(size, int(seeds.integers(2**31)))
    if not parts: raise InputError(f'sizes: of {size} listings, none is one that is looked up')
    if draws is None:
        rows_so_far = np.cumsum([len(part) for part in parts])
        return parts[:int(np.searchsorted(rows_so_far, ENOUGH_ROWS)) + 1]
    while len(parts) < draws: parts += setting.dealt(size, int(seeds.integers(2**31)))
    return parts[:draws]


def _rows_alone(setting, rule):
    "The `Level` of the rows without any distractor, in a list; empty where there is none to leave out."
    if not SMALLEST <= setting.needed <= setting.pool / 2**.5: return []
    part = setting.part(setting.needed)
    return [Level.of([_found(_neighbors_in(part, rule), part, rule)])]


def _neighbors_in(part, rule):
    "What the rule finds in a part: nothing where chance has put listings of one source there."
    if rule.apart is not None and of_one_source(part.spaces[rule.apart]):
        return Neighbors.from_pairs([], [], [], len(part), pool=part.pool)
    return rule.run(part.spaces).neighbors


def _as_rule(setting, rule):
    "A rule with the threshold for the whole pool of the setting, and none for others."
    if isinstance(rule, Rule): return replace(rule.at(setting.pool), pools=None)
    if not isinstance(rule, RuleStructure):
        raise InputError(f'rule of type {type(rule).__name__}: give a Rule or a RuleStructure')
    workbench = Workbench(setting, NEAREST)
    thresholds, _ = workbench.threshold_search(rule).best()
    return workbench.rule(rule, thresholds)


def _checked_sizes(sizes, pool):
    sizes = list(sizes)
    for size in sizes:
        check_pool(size)
        if size > pool:
            raise InputError(f'sizes={sizes}: the pool has {pool} listings, give smaller parts of it')
    return sorted({int(size) for size in sizes if size < pool}, reverse=True)


def _found(neighbors, setting, rule):
    "What the rule found in one part, as a `Level`."
    sweep = Sweep(neighbors, setting.groups, rule.max_matches)
    is_right = hits(neighbors.top(rule.max_matches), setting.groups.codes)
    right_f1 = 2 * (1 + is_right.cumsum(1)) / (1 + is_right.cumsum(1) + setting.groups.sizes[:, None])
    right_gains = np.diff(np.hstack([sweep.f1[:, :1], right_f1]), axis=1)
    entries = sweep.scores - rule.threshold
    if entries.shape[1]: entries[:, 0] = sweep.scores[:, 0] - _nearest_threshold(rule)
    is_pair = sweep.scores > -np.inf
    return Level(setting.pool, len(setting), sweep.f1[:, 0].sum(), entries[is_pair], sweep.gains[is_pair],
                 right_gains[is_pair])


def _nearest_threshold(rule):
    "The threshold for the nearest listing: that of min2, where the rule has one for every listing."
    for step in rule.steps:
        if step.do != 'min2' or step.params.get('mutual') or step.params.get('gap') is not None: continue
        least = step.params.get('threshold')
        return -np.inf if least is None else min(least, rule.threshold)
    return rule.threshold


def _range(levels):
    "The least and greatest shift at which a pair comes in; nothing below the last right one is worth it."
    right = np.concatenate([level.entries[level.right_gains > 0] for level in levels])
    entries = np.concatenate([level.entries for level in levels])
    entries, right = entries[np.isfinite(entries)], right[np.isfinite(right)]
    if not len(entries): return 0., 0.
    return right.min() if len(right) else entries.max(), entries.max()


def _shifts(levels, rule):
    """Shifts to compare: midway between any two scores of few, even steps of many; with the last of them
    nothing matches in any pool."""
    lowest, highest = _range(levels)
    entries = np.unique(np.concatenate([level.entries for level in levels]))
    entries = entries[(entries >= lowest) & (entries <= highest)]
    if len(entries) > POINTS: entries = np.linspace(lowest, highest, POINTS)
    # among more listings there are higher scores than here
    above_all = highest + BEYOND + .05 * (highest - lowest)
    if rule.scores_end_at_one: above_all = HIGHEST - rule.threshold
    shifts = np.unique([lowest - BEYOND, *(entries[1:] + entries[:-1]) / 2, 0., above_all])
    return shifts[shifts <= above_all]


def _monotone_best(shifts, curves, sign, highest=np.inf):
    """The best shift of each curve, less that of the first; where the one before is as good as any, it stays.

    Each is sought on one side of the one before, above it or (-1) below: the best threshold rises with the
    pool, all else is chance. The first is the pool that the rule was chosen in, so its shift is none, unless
    another is better there. None of the others is above `highest`, unless the first is.
    """
    chosen = [0.]
    for row_f1 in curves:
        allowed = np.ones(len(shifts), bool)
        if len(chosen) > 1:
            allowed = (sign * shifts >= sign * chosen[-1]) & (shifts <= max(highest, chosen[1]))
        is_best = allowed & (row_f1 >= row_f1[allowed].max() - ROUNDING)
        # of equally good ones the highest, as everywhere
        chosen.append(chosen[-1] if is_best[shifts == chosen[-1]].any() else shifts[is_best][-1])
    return [float(shift - chosen[1]) for shift in chosen[1:]]
