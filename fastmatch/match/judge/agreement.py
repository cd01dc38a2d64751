"Does a better score in validation mean a better one on the test set? Their rank correlation, in words."
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ...core import InputError

DRAWS = 2000  # bootstrap samples
FEWEST = 4  # pairs of scores: of three, six orders in all, no interval can be told


@dataclass
class Agreement:
    "Spearman's rank correlation of validation and test scores."
    rho: float  # -1 (the other way round) to 1 (the same order); NaN where one of the two is constant
    low: float  # Lower end of the bootstrap interval
    high: float  # Upper end
    n: int  # Pairs of scores
    units: int  # What was drawn in the bootstrap: pairs, or whole runs
    regret: float  # Best test score minus that of the pair which validation would choose
    rank: int  # Place of the chosen pair on the test set, from 1; of equals the best
    level: float = .95  # Of the interval

    @property
    def sentence(self) -> str:
        "The agreement in plain words."
        figures = (f'rank correlation {self.rho:+.2f}, {self.level:.0%} interval {self.low:+.2f} to '
                   f'{self.high:+.2f}, {self.n} pairs of scores')
        if self.units < self.n: figures += f' of {self.units} runs'
        if np.isnan(self.rho): told = 'Validation and test can not be compared, one of them never changes'
        elif self.low > 0: told = f'Validation tells of test ({figures})'
        elif self.high < 0: told = f'What is better in validation is worse on test ({figures})'
        else: told = f'It can not be said that validation tells of test ({figures})'
        choice = f'number {self.rank} of {self.n} on test, {self.regret:.4g} below the best'
        return f'{told}. Its choice is {choice}.'

    def __repr__(self): return self.sentence


def validation_agreement(
    valid_scores,  # (n,) of n trials or epochs
    test_scores,  # (n,) of the same on the test set, such as a leaderboard's
    *,
    runs=None,  # (n,) the run of each score: epochs of one run are alike, and are drawn together
    lower_is_better: bool = False,  # Of both: losses
    level: float = .95,  # Of the interval
    seed: int = 0,  # Of the bootstrap
) -> Agreement:
    """How far the order of some ways in validation is their order on the test set.

    The interval is the percentile bootstrap's over pairs, or over whole `runs`. Trials that differ little in
    truth have a low correlation however good the split is: noise orders them.
    """
    valid, test = _checked(valid_scores, 'valid_scores'), _checked(test_scores, 'test_scores')
    if len(valid) != len(test):
        raise InputError(f'valid_scores: {len(valid)}, test_scores: {len(test)}: give them in pairs')
    if not 0 < level < 1: raise InputError(f'level={level}: between 0 and 1')
    if lower_is_better: valid, test = -valid, -test
    members = _members(runs, len(valid))
    if len(members) < FEWEST: raise InputError(f'{len(members)} pairs or runs: {FEWEST} at least')
    chosen = int(valid.argmax())
    rho = rank_correlation(valid, test)
    low, high = _interval(valid, test, members, level, seed)
    return Agreement(rho, low, high, len(valid), len(members), float(test.max() - test[chosen]),
                     1 + int((test > test[chosen]).sum()), level)


def rank_correlation(
    a: np.ndarray,  # float (n,)
    b: np.ndarray,  # float (n,)
) -> float:
    "Spearman's: the correlation of ranks, equals sharing theirs; NaN where one of the two is constant."
    ranks = np.stack([stats.rankdata(a), stats.rankdata(b)])
    ranks -= ranks.mean(1, keepdims=True)
    lengths = np.sqrt((ranks**2).sum(1))
    return float(ranks[0] @ ranks[1] / lengths.prod()) if lengths.all() else float('nan')


def _checked(scores, name):
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1: raise InputError(f'{name}: shape {scores.shape}, give one number a trial')
    if not np.isfinite(scores).all():
        places = np.flatnonzero(~np.isfinite(scores))[:5].tolist()
        raise InputError(f'{name}: those at {places} are not finite')
    return scores


def _members(runs, n_pairs):
    "The rows of each unit that the bootstrap draws."
    if runs is None: return [np.array([row]) for row in range(n_pairs)]
    runs = np.asarray(runs)
    if len(runs) != n_pairs: raise InputError(f'runs: {len(runs)} for {n_pairs} pairs of scores')
    return [np.flatnonzero(runs == run) for run in np.unique(runs)]


def _interval(valid, test, members, level, seed):
    rng = np.random.default_rng(seed)
    drawn_units = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), DRAWS)
    unit_of = np.empty(len(valid), np.int64)
    for unit, rows in enumerate(members): unit_of[rows] = unit
    drawn = _weighted_correlations(valid, test, drawn_units[:, unit_of].astype(np.float64))
    # of a sample in which one of the two is constant there is none
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn): return float('nan'), float('nan')
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _weighted_correlations(a, b, times):
    "`rank_correlation` of samples in which row j stands `times[i, j]` times, float64 (draws,)."
    centered = []
    for values in (a, b):
        distinct, code = np.unique(values, return_inverse=True)
        of_value = times @ np.eye(len(distinct))[code]
        ranks = (np.cumsum(of_value, 1) - of_value / 2)[:, code]
        centered.append(ranks - (times * ranks).sum(1, keepdims=True) / times.sum(1, keepdims=True))
    products = [(times * one * other).sum(1) for one, other in
                ((centered[0], centered[1]), (centered[0], centered[0]), (centered[1], centered[1]))]
    with np.errstate(divide='ignore', invalid='ignore'):
        correlations = products[0] / np.sqrt(products[1] * products[2])
    return np.where(products[1] * products[2] > 1e-9, correlations, np.nan)


__all__ = ['Agreement', 'rank_correlation', 'validation_agreement']
