"The held-out protocol: a rule is chosen on half of the groups and scored on the other half, several times."
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from ...core import InputError, preview
from ..matches import MAX_MATCHES
from ..neighbors import Neighbors, refuse_trained_on
from ..thresholds.base import ThresholdSearch
from ..thresholds.sweep import Sweep
from .groups import Groups
from .score import alone, recall_and_precision

# the two parts of `dependence_factor`: of ties between groups, and of the choice of a rule on few groups
TIES, CHOICE = 1.1, 2.2


@dataclass
class HeldOut:
    "What each listing scored under rules that were chosen on other groups."
    row_f1: np.ndarray  # float64 (n,), mean over the halvings
    clusters: np.ndarray  # int (n,), from 0: listings whose errors hang together, mostly groups
    recall_at_1: np.ndarray | None = None  # float64 (n,), NaN for a listing without a mate
    # float64 (n,), NaN for a listing without a mate; all NaN where groups are larger than what was searched
    map_at_r: np.ndarray | None = None
    picks: list = field(default_factory=list)  # (option, threshold) chosen on each half
    # Whether the score of a listing hangs on its own group alone; not so where it is matched with others, by
    # a rule that was chosen on others
    independent: bool = False

    @property
    def mean(self) -> float:
        "Mean row F1."
        return float(self.row_f1.mean())

    @property
    def se(self) -> float:
        "Standard error of the mean row F1, as another draw of groups and of halvings would show it."
        standard_error = cluster_standard_error(self.row_f1, self.clusters)
        return standard_error if self.independent else standard_error * dependence_factor(self.clusters)

    def summary(self) -> dict:
        "The means, the standard error and the number of listings, as plain numbers."
        return {
            'row_f1': round(self.mean, 5),
            'se': round(self.se, 5),
            'recall_at_1': _rounded_mean(self.recall_at_1),
            'map_at_r': _rounded_mean(self.map_at_r),
            'n': len(self.row_f1)}

    def __repr__(self):
        figures = f'row F1 {self.mean:.3f} (s.e. {self.se:.3f}, n={len(self.row_f1)})'
        if not self.picks: return figures
        [(option, _)] = Counter(str(option) for option, _ in self.picks).most_common(1)
        return f'{figures}, mostly {option}'


def _rounded_mean(values):
    "The mean of what is not NaN; None where all is."
    if values is None or np.isnan(values).all(): return None
    return round(float(np.nanmean(values)), 5)


def cluster_standard_error(
    values: np.ndarray,  # float (n,)
    clusters: np.ndarray,  # int (n,), from 0
) -> float:
    """Standard error of the mean of `values` whose errors hang together within `clusters`.

    The mean as a regression on a constant with clustered errors (Cameron and Miller 2015,
    https://doi.org/10.3368/jhr.50.2.317).
    """
    cluster_sums = np.bincount(clusters, weights=values - values.mean())
    n_clusters = (np.bincount(clusters) > 0).sum()
    return float(np.sqrt((cluster_sums**2).sum() * n_clusters / max(1, n_clusters - 1)) / len(values))


def dependence_factor(
    clusters: np.ndarray,  # int (n,), from 0
) -> float:
    """How many times as large the standard error of held-out scores is as one that takes clusters for
    independent.

    They are not: a wrong match ties two groups together, whatever their number, and the rule that scores all
    of them was chosen on few. Both were found by drawing listings anew, many times, and choosing and scoring
    anew, for 20 to 400 groups; with this factor 95% intervals held what is true in 93 to 97%.
    """
    n_clusters = (np.bincount(clusters) > 0).sum()
    return float(TIES * np.sqrt(1 + CHOICE / np.sqrt(n_clusters)))


def random_halves(
    clusters: np.ndarray,  # int (n,), from 0
    halvings: int = 10,  # How many
    seed: int = 0,  # Of the draws
):
    "Yield masks, bool (n,), each with a random half of the clusters on one side; a cluster is never divided."
    rng = np.random.default_rng(seed)
    n_clusters = int(clusters.max()) + 1
    for _ in range(halvings):
        chosen_clusters = np.zeros(n_clusters, bool)
        chosen_clusters[rng.permutation(n_clusters)[:n_clusters // 2]] = True
        yield chosen_clusters[clusters]


def heldout(
    # `Neighbors` or a `ThresholdSearch`; or several: {name: one of these}, or an iterable of pairs (name, one
    # of these), which is read one at a time
    options,
    groups,  # (n,) groups, or `Groups`: listings of one group are the same product
    clusters=None,  # (n,) larger groups, kept on one side and counted as one; default `groups`
    halvings: int = 10,  # Random halvings, each half scored once under the rule chosen on the other
    seed: int = 0,  # Of the halvings
    max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
) -> HeldOut:
    """Choose option and threshold on half of the groups, score the other half, swap: the mean of all
    halvings.

    Raises `InputError` for listings that an encoder was trained on, where the neighbors know of it: those
    that `fuse` makes of the candidates of `Embeddings.spaces`.
    """
    if halvings < 1: raise InputError(f'halvings={halvings}: 1 or more')
    if isinstance(options, (Neighbors, ThresholdSearch)): options = {'': options}
    halves = None
    # one option at a time: all of a grid over a large table would not fit in memory
    for option_name, option in options.items() if isinstance(options, dict) else options:
        neighbors = option.neighbors if isinstance(option, ThresholdSearch) else option
        if not isinstance(neighbors, Neighbors):
            raise InputError(f'option {option_name!r} is of type {type(option).__name__}: give Neighbors')
        refuse_trained_on(neighbors.trained_on, 'judging a rule')
        groups = Groups.of(groups, len(neighbors.ids))
        search = Sweep(neighbors, groups, max_matches) if option is neighbors else option
        if halves is None:
            clusters = clusters_of(groups, clusters)
            halves = [half for on_side in random_halves(clusters, halvings, seed)
                      for half in (_Half(on_side, ~on_side), _Half(~on_side, on_side))]
        figures = recall_and_precision(neighbors, groups)
        for half in halves: half.offer(option_name, search, figures)
    if halves is None: raise InputError('options: give one at least')
    totals = np.zeros((3, len(clusters)))
    for half in halves:
        for row_totals, scores in zip(totals, half.scores): row_totals[half.scored] += scores
    return HeldOut(totals[0] / halvings, clusters, totals[1] / halvings, totals[2] / halvings,
                   [(half.name, half.threshold) for half in halves])


class _Half:
    "The best option so far on the rows `chosen_on`, and what it scores on the others."
    def __init__(self, chosen_on, scored):
        self.chosen_on = chosen_on
        self.scored = scored
        self.value = -np.inf

    def offer(self, option_name, search, figures):
        """Take an option if its best threshold is worth more than the best so far.

        `figures`: its recall@1 and map@r for each listing, (n,) each.
        """
        threshold, mean_f1 = search.best(self.chosen_on)
        # of equal options the first stays: a grid starts with its plainest
        if mean_f1 <= self.value: return
        self.name = option_name
        self.threshold = threshold
        self.value = mean_f1
        self.scores = [scores[self.scored] for scores in (search.at(threshold), *figures)]


def clusters_of(
    groups: Groups,
    clusters=None,  # (n,) larger groups, or `Groups`; default `groups`
) -> np.ndarray:  # int32 (n,), from 0
    "What stays on one side of a halving; raises `InputError` for one cluster, or a group in two of them."
    cluster_codes = (
        groups.row_codes if clusters is None else Groups.of(clusters, len(groups), 'clusters').codes
    )
    if cluster_codes.max() < 1:
        raise InputError('one group only: a rule is chosen on some groups and scored on others')
    # the rule would see what it is scored on
    first_cluster = np.full(groups.count, -1)
    first_cluster[groups.row_codes[::-1]] = cluster_codes[::-1]
    divided_rows = np.flatnonzero(first_cluster[groups.row_codes] != cluster_codes)
    if divided_rows.size: raise InputError(f'clusters cut through a group in rows {preview(divided_rows)}')
    return cluster_codes


def alone_heldout(
    groups,  # (n,) groups, or `Groups`
) -> HeldOut:
    "Every listing matched with itself alone: the baseline that every table prints."
    groups = Groups.of(groups)
    return HeldOut(alone(groups), groups.row_codes, independent=True)
