"What a pair of listings looks like: similarities, ranks both ways, how crowded it is around both, titles."
from dataclasses import replace

import numpy as np

from ...core import InputError, preview
from ..arrays import find_pairs
from ..candidates import Candidates
from ..neighbors import Neighbors, check_self_first
from .graph import graph_of, pagerank
from .titles import edit_similarity, overlap, with_digits, words_of

FEATURES = ['score', 'rank', 'density', 'top', 'pagerank', 'title', 'length']
TITLES = {'title', 'length'}  # features that read titles
QUANTILES = (.25, .5, .75)  # of the nearest others' scores: the radii that neighbors are counted within


def radii_of(
    candidates: Candidates,  # Of a self-join
) -> dict:  # Modality -> floats
    "Radii (scores) to count neighbors within: quantiles of the scores of each listing's nearest other."
    radii = {}
    for modality in _modalities(candidates):
        best = candidates.scores[modality][:, 1:].max(1, initial=-np.inf)
        best = best[best > -np.inf]
        if len(best): radii[modality] = np.quantile(best, QUANTILES).astype(np.float32).tolist()
        else: radii[modality] = [0.] * len(QUANTILES)
    return radii


def usable_features(
    titles,  # (n,) strings, or None
) -> list:
    "Some of `FEATURES`: those that can be had with these titles."
    return [name for name in FEATURES if titles is not None or name not in TITLES]


def pair_features(
    candidates: Candidates,  # Of a self-join
    titles=None,  # (n,) strings; needed for 'title' and 'length'
    use: list | None = None,  # Some of `FEATURES`; default all that can be had
    radii: dict | None = None,  # Modality -> radii; default `radii_of`
    top: int = 5,  # Nearest others whose mean and deviation say how crowded it is around a listing
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:  # (rows, columns, features, names)
    """The features of each candidate pair (i,j), row by row; a listing with itself is left out.

    `rows` and `columns`, int (m,), say where the pair is in the candidates; `features` is float32 (m,f).
    Features of one listing alone are named `_i` and `_j`. Raises `InputError` for candidates in a
    catalogue, unknown features and missing titles.
    """
    use = usable_features(titles) if use is None else list(use)
    _check(candidates, titles, use)
    pairs = _Pairs(candidates)
    features = {}
    if 'density' in use: radii = radii or radii_of(candidates)
    for modality, scores in candidates.scores.items():
        if 'score' in use: features[modality] = scores[pairs.rows, pairs.columns]
        if modality in candidates.join: continue
        features |= _modality_features(pairs, modality, scores, use, radii, top)
    if 'pagerank' in use:
        graph = graph_of(candidates, pairs.rows, pairs.columns)
        features |= pairs.of_both({'pagerank': pairs.n * pagerank(graph)})
    if titles is not None: features |= _title_features(pairs, titles, use)
    arrays = [np.asarray(values, np.float32) for values in features.values()]
    table = np.stack(arrays, 1) if arrays else np.empty((len(pairs.rows), 0), np.float32)
    return pairs.rows, pairs.columns, table, list(features)


def _check(candidates, titles, use):
    ids = candidates.ids
    check_self_first(Neighbors(ids, ids), candidates.pool)
    n = len(ids)
    if candidates.pool not in (None, n):
        raise InputError('pair features look from both sides: give candidates of a self-join, new and known '
                         f'listings together, not {n} rows of {candidates.pool}')
    unknown = set(use) - set(FEATURES)
    if unknown: raise InputError(f'use={sorted(unknown)}: choose from {", ".join(FEATURES)}')
    lacking = TITLES & set(use)
    if titles is None and lacking: raise InputError(f'{", ".join(sorted(lacking))}: need titles')
    if titles is not None and len(titles) != n: raise InputError(f'titles: {len(titles)} for {n} listings')


class _Pairs:
    "The candidate pairs (i,j) of a self-join without those of a listing with itself."
    def __init__(self, candidates):
        ids = candidates.ids
        self.n = len(ids)
        self.real = ids >= 0
        self.real[:, 0] = False
        self.rows, self.columns = np.nonzero(self.real)  # i, and the column of j
        self.others = ids[self.rows, self.columns]  # j
        # the column at which the row of j names i, -1 where it does not
        rows, columns = np.nonzero(ids >= 0)
        found = find_pairs(rows, ids[rows, columns], self.others, self.rows, self.n)
        self.back = np.where(found >= 0, columns[found], -1)

    def of_both(self, values):
        "Features of listings, name -> (n,), as features of pairs: those of i and those of j."
        return {f'{name}{side}': of_listing[ends] for name, of_listing in values.items()
                for side, ends in (('_i', self.rows), ('_j', self.others))}


def _modality_features(pairs, modality, scores, use, radii, top):
    features, of_listing = {}, {}
    if 'rank' in use:
        ranks = tied_ranks(scores, pairs.real)
        # what is no candidate comes after all candidates
        last_rank = pairs.real.sum(1)[pairs.others] + 1
        features[f'{modality} rank'] = ranks[pairs.rows, pairs.columns]
        back = np.where(pairs.back >= 0, ranks[pairs.others, pairs.back], last_rank)
        features[f'{modality} rank back'] = back
    if 'density' in use:
        for number, radius in enumerate(radii[modality]):
            of_listing[f'{modality} within {number}'] = (pairs.real & (scores >= radius)).sum(1)
    if 'top' in use:
        top_mean, top_deviation = top_moments(scores, pairs.real, top)
        of_listing |= {f'{modality} top mean': top_mean, f'{modality} top deviation': top_deviation}
    return features | pairs.of_both(of_listing)


def _title_features(pairs, titles, use):
    features = {}
    text = [str(title).lower() for title in titles]
    if 'length' in use: features |= pairs.of_both({'length': np.array([len(title) for title in text])})
    if 'title' in use:
        words = words_of(text)
        features['edit'] = edit_similarity(text, pairs.rows, pairs.others)
        features['words'] = overlap(words, pairs.rows, pairs.others)
        features['codes'] = overlap(with_digits(words), pairs.rows, pairs.others)
    return features


def _modalities(candidates):
    return [modality for modality in candidates.scores if modality not in candidates.join]


def tied_ranks(
    scores: np.ndarray,  # (n,K)
    real: np.ndarray,  # bool (n,K), which count
) -> np.ndarray:  # int (n,K)
    "1 + the number of better ones in the row: equal scores share the better rank."
    scores = np.where(real, scores, -np.inf)
    order = np.argsort(-scores, axis=1, kind='stable')
    falling = np.take_along_axis(scores, order, 1)
    first_of_equal = np.zeros(scores.shape, np.int64)
    first_of_equal[:, 1:] = np.where(falling[:, 1:] != falling[:, :-1], np.arange(1, scores.shape[1]), 0)
    ranks = np.empty_like(first_of_equal)
    np.put_along_axis(ranks, order, np.maximum.accumulate(first_of_equal, axis=1) + 1, 1)
    return ranks


def top_moments(
    scores: np.ndarray,  # (n,K)
    real: np.ndarray,  # bool (n,K), which count
    top: int,  # How many of the best
) -> tuple[np.ndarray, np.ndarray]:  # float64 (n,) each; 0 for a row without any
    "Mean and deviation of the `top` best scores of each row, of fewer where it has fewer."
    best = -np.sort(-np.where(real, scores, -np.inf).astype(np.float64), axis=1)[:, :top]
    have = best > -np.inf
    count = np.maximum(have.sum(1), 1)
    mean = np.where(have, best, 0).sum(1) / count
    return mean, np.sqrt((np.where(have, best - mean[:, None], 0)**2).sum(1) / count)


def with_scores(
    candidates: Candidates,  # Of a self-join
    **neighbors: Neighbors,  # Name -> neighbors of the same listings: fused, blended or reranked ones
) -> Candidates:
    "The candidates with further scores; a pair that those neighbors do not hold gets their lowest score."
    n = len(candidates.ids)
    all_scores = dict(candidates.scores)
    pair_rows, pair_columns = np.nonzero(candidates.ids >= 0)
    for name, found in neighbors.items():
        if name in all_scores:
            raise InputError(f'{name}: the candidates have scores of that name: {preview(all_scores)}')
        if len(found.ids) != n:
            raise InputError(f'{name}: neighbors of {len(found.ids)} listings, candidates of {n}')
        known_rows, known_ids, scores = found.pairs()
        positions = find_pairs(known_rows, known_ids, pair_rows, candidates.ids[pair_rows, pair_columns], n)
        score_grid = np.full(candidates.ids.shape, -np.inf, np.float32)
        score_grid[pair_rows, pair_columns] = np.where(positions >= 0, scores[positions], scores.min())
        all_scores[name] = score_grid
    return replace(candidates, scores=all_scores)
