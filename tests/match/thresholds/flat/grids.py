"Random candidates with groups, the sweeps over the whole grid, and the example of the docstrings."
import numpy as np

from fastmatch.match import Candidates, RankSweep, Sweep
from fastmatch.match.thresholds.flat import Flat
from fastmatch.match.thresholds.flat.level import Level
from fastmatch.match.thresholds.flat.ordered import OrderedPairs


def random_grid(n, width, seed, modalities=2, levels=None, fill=1.):
    "Random candidates, as `candidates` lays them out, and groups; mates score higher."
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, max(1, n // 3), n)
    ids = np.full((n, width), -1, np.int64)
    for i in range(n):
        others = rng.permutation(np.delete(np.arange(n), i))[:min(width - 1, int((n - 1) * fill))]
        mates = np.flatnonzero((groups == groups[i]) & (np.arange(n) != i))
        ids[i, 0] = i
        row_ids = np.unique(np.concatenate([mates, others]))[:width - 1]
        ids[i, 1:1 + len(row_ids)] = row_ids
    same_group = groups[ids] == groups[:, None]
    all_scores = {}
    for modality in 'abc'[:modalities]:
        scores = np.where(same_group, .7, .35) + rng.normal(0, .2, ids.shape)
        if levels: scores = np.round(scores * levels) / levels
        all_scores[modality] = np.where(ids >= 0, np.clip(scores, -1, 1), -np.inf).astype(np.float32)
    return Candidates(ids, all_scores, width), groups


def random_weights(candidates, how, rng):
    modalities = [modality for modality in candidates.scores if modality not in candidates.join]
    if how in ('union', 'above'): return {modality: float(rng.uniform(-.3, .6)) for modality in modalities}
    if how == 'power': return {modality: float(rng.uniform(.3, 1)) for modality in modalities}
    weights = {modality: float(rng.choice([0, .3, 1, 2.5])) for modality in modalities}
    return weights if any(weights.values()) else dict.fromkeys(modalities, 1.)


def full_sweep(neighbors, groups, ranks, max_matches=50):
    if ranks == 1: return Sweep(neighbors, groups, max_matches)
    return RankSweep(neighbors, groups, 2, max_matches)


def example_of_three():
    "The three rows that the docstrings of the flat search work through."
    ids = np.array([[0, 1, 2], [1, 0, 2], [2, 0, 1]])
    first = np.array([[1, .9, .3], [1, .9, .4], [1, .3, .4]], np.float32)
    second = np.array([[1, .2, .1], [1, .2, .8], [1, .1, .8]], np.float32)
    return Flat(Candidates(ids, {'a': first, 'b': second}, 3), ['x', 'y', 'y'])


# the mean of each pair that a level of two pairs of each modality keeps
SCORES_OF_THREE = np.array([.55, .55, .6, .2, .6], np.float32)


def pairs_of_three(ranks=1):
    "The four highest pairs of the example, in order."
    flat = example_of_three()
    return OrderedPairs(flat, Level.of(flat, 2), SCORES_OF_THREE, .3, False, ranks, 50)
