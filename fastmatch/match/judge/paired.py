"The difference between two ways on the same listings, with its interval; and held-out figures as a table."
from dataclasses import dataclass

import numpy as np

from ...core import InputError
from .heldout import HeldOut, cluster_standard_error, dependence_factor

CELLS = 4_000_000  # numbers drawn at a time


@dataclass
class Paired:
    "A paired difference of per-row scores with its interval."
    diff: float  # Mean of a - b
    se: float  # Standard error, clustered by group
    low: float  # Lower end of the interval
    high: float  # Upper end

    def to_dict(self) -> dict:
        "The figures as plain numbers."
        return {field_name: round(float(value), 5) for field_name, value in vars(self).items()}


def paired(
    a: HeldOut,  # Scores of one way
    b: HeldOut,  # Scores of the other, of the same listings
    level: float = .95,  # Of the interval
    n_boot: int = 10_000,  # Resamples of the groups
    seed: int = 0,  # Of the resamples
) -> Paired:
    """The mean difference a - b in row F1 with an interval from a bootstrap over groups, made wider by
    `dependence_factor`."""
    if len(a.row_f1) != len(b.row_f1) or not np.array_equal(a.clusters, b.clusters):
        raise InputError('a and b are scores of different listings')
    if not 0 < level < 1: raise InputError(f'level={level}: between 0 and 1')
    differences = a.row_f1 - b.row_f1
    cluster_sums = np.bincount(a.clusters, weights=differences)
    cluster_sizes = np.bincount(a.clusters)
    n_clusters = len(cluster_sums)
    rng = np.random.default_rng(seed)
    drawn_means = []
    for resamples in np.array_split(np.arange(n_boot), max(1, n_boot * n_clusters // CELLS)):
        drawn_counts = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=len(resamples))
        drawn_means.append(drawn_counts @ cluster_sums / (drawn_counts @ cluster_sizes))
    ends = np.quantile(np.concatenate(drawn_means), [(1 - level) / 2, (1 + level) / 2])
    factor = 1. if a.independent and b.independent else dependence_factor(a.clusters)
    mean = differences.mean()
    low, high = mean + factor * (ends - mean)
    standard_error = factor * cluster_standard_error(differences, a.clusters)
    return Paired(float(mean), standard_error, float(low), float(high))


def summary_table(
    # 'judged': setting -> {'pool', 'rows': row -> `HeldOut.summary`}, or, as earlier versions have it,
    # 'heldout': row -> `HeldOut.summary`; 'gain': name -> `Paired.to_dict`
    summary: dict,
) -> str:
    "The held-out figures as a table for each setting, 'alone' first, and what is worth how much more."
    lines = []
    for setting, judged in summary.get('judged', {}).items():
        lines += [setting_words(setting, judged), *_table_lines(judged['rows']), '']
    if not lines: lines = [*_table_lines(summary['heldout']), '']
    for figure, gain in summary['gain'].items():
        interval = f'{gain["low"]:+.3f} to {gain["high"]:+.3f}'
        lines.append(f'{figure}: {gain["diff"]:+.3f} row F1, 95% interval {interval}: {gain_words(gain)}')
    return '\n'.join(lines)


def gain_words(
    gain: dict,  # As `Paired.to_dict` gives it
) -> str:
    "What a difference with its interval says in a word or two."
    if gain['low'] > 0: return 'it helps'
    return 'it does harm' if gain['high'] < 0 else 'not clear'


def setting_words(
    setting: str,  # Its name
    judged: dict,  # As in a summary: 'pool' and 'rows'
) -> str:
    "'in the catalogue: 463 listings, each looked up among 2,100'."
    n_listings = judged['rows']['alone']['n']
    return f'{setting}: {n_listings:,} listings, each looked up among {judged["pool"]:,}'


def _table_lines(rows):
    lines = [f'{"":>16}  row F1   (s.e.)  recall@1   mAP@R    n']
    for row_name, figures in rows.items():
        row_f1, standard_error, recall, precision = (
            '  -  ' if figures[figure] is None else f'{figures[figure]:.3f}'
            for figure in ('row_f1', 'se', 'recall_at_1', 'map_at_r'))
        lines.append(
            f'{row_name:>16}   {row_f1}   ({standard_error})   {recall}     {precision}  {figures["n"]}')
    return lines
