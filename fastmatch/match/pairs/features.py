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
        best_scores = candidates.scores[modality][:, 1:].max(1, initial=-np.inf)
        best_scores = best_scores[best_scores > -np.inf]
        if len(best_scores): radii[modality] = np.quantile(best_scores, QUANTILES).astype(np.float32).tolist()
        else: radii[modality] = [0.] * len(QUANTILES)
    return radii


def usable_features(
    titles,  # (n,) strings, or None
) -> list:
    "Some of `FEATURES`: those that can be computed with these titles."
    return [feature for feature in FEATURES if titles is not None or feature not in TITLES]


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
        listing_graph = graph_of(candidates, pairs.rows, pairs.columns)
        features |= pairs.of_both({'pagerank': pairs.n * pagerank(listing_graph)})
    if titles is not None: features |= _title_features(pairs, titles, use)
    arrays = [np.asarray(values, np.float32) for values in features.values()]
    table = np.stack(arrays, 1) if arrays else np.empty((len(pairs.rows), 0), np.float32)
    return pairs.rows, pairs.columns, table, list(features)


def _check(candidates, titles, used_features):
    candidate_ids = candidates.ids
    check_self_first(Neighbors(candidate_ids, candidate_ids), candidates.pool)
    n_listings = len(candidate_ids)
    if candidates.pool not in (None, n_listings):
        raise InputError('pair features look from both sides: give candidates of a self-join, new and known '
                         f'listings together, not {n_listings} rows of {candidates.pool}')
    unknown = set(used_features) - set(FEATURES)
    if unknown: raise InputError(f'use={sorted(unknown)}: choose from {", ".join(FEATURES)}')
    lacking = TITLES & set(used_features)
    if titles is None and lacking: raise InputError(f'{", ".join(sorted(lacking))}: need titles')
    if titles is not None and len(titles) != n_listings:
        raise InputError(f'titles: {len(titles)} for {n_listings} listings')


class _Pairs:
    "The candidate pairs (i,j) of a self-join without those of a listing with itself."
    def __init__(self, candidates):
        candidate_ids = candidates.ids
        self.n = len(candidate_ids)
        self.real = candidate_ids >= 0
        self.real[:, 0] = False
        self.rows, self.columns = np.nonzero(self.real)  # i, and the column of j
        self.others = candidate_ids[self.rows, self.columns]  # j
        # the column at which the row of j names i, -1 where it does not
        row_numbers, columns = np.nonzero(candidate_ids >= 0)
        listed_ids = candidate_ids[row_numbers, columns]
        positions = find_pairs(row_numbers, listed_ids, self.others, self.rows, self.n)
        self.back = np.where(positions >= 0, columns[positions], -1)

    def of_both(self, listing_features):
        "Features of listings, name -> (n,), as features of pairs: those of i and those of j."
        return {f'{feature}{suffix}': listing_values[listing_ids]
                for feature, listing_values in listing_features.items()
                for suffix, listing_ids in (('_i', self.rows), ('_j', self.others))}


def _modality_features(pairs, modality, scores, used_features, radii, n_top):
    features, listing_features = {}, {}
    if 'rank' in used_features:
        ranks = tied_ranks(scores, pairs.real)
        # what is no candidate comes after all candidates
        last_rank = pairs.real.sum(1)[pairs.others] + 1
        features[f'{modality} rank'] = ranks[pairs.rows, pairs.columns]
        ranks_back = np.where(pairs.back >= 0, ranks[pairs.others, pairs.back], last_rank)
        features[f'{modality} rank back'] = ranks_back
    if 'density' in used_features:
        for radius_number, radius in enumerate(radii[modality]):
            listing_features[f'{modality} within {radius_number}'] = (pairs.real & (scores >= radius)).sum(1)
    if 'top' in used_features:
        top_mean, top_deviation = top_moments(scores, pairs.real, n_top)
        listing_features |= {f'{modality} top mean': top_mean, f'{modality} top deviation': top_deviation}
    return features | pairs.of_both(listing_features)


def _title_features(pairs, titles, used_features):
    features = {}
    lower_titles = [str(title).lower() for title in titles]
    if 'length' in used_features:
        lengths = np.array([len(title) for title in lower_titles])
        features |= pairs.of_both({'length': lengths})
    if 'title' in used_features:
        words = words_of(lower_titles)
        features['edit'] = edit_similarity(lower_titles, pairs.rows, pairs.others)
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
    best_first = np.argsort(-scores, axis=1, kind='stable')
    sorted_scores = np.take_along_axis(scores, best_first, 1)
    first_of_equal = np.zeros(scores.shape, np.int64)
    is_lower = sorted_scores[:, 1:] != sorted_scores[:, :-1]
    first_of_equal[:, 1:] = np.where(is_lower, np.arange(1, scores.shape[1]), 0)
    ranks = np.empty_like(first_of_equal)
    np.put_along_axis(ranks, best_first, np.maximum.accumulate(first_of_equal, axis=1) + 1, 1)
    return ranks


def top_moments(
    scores: np.ndarray,  # (n,K)
    real: np.ndarray,  # bool (n,K), which count
    top: int,  # How many of the best
) -> tuple[np.ndarray, np.ndarray]:  # float64 (n,) each; 0 for a row without any
    "Mean and deviation of the `top` best scores of each row, of fewer where it has fewer."
    best_scores = -np.sort(-np.where(real, scores, -np.inf).astype(np.float64), axis=1)[:, :top]
    is_real = best_scores > -np.inf
    counts = np.maximum(is_real.sum(1), 1)
    means = np.where(is_real, best_scores, 0).sum(1) / counts
    return means, np.sqrt((np.where(is_real, best_scores - means[:, None], 0)**2).sum(1) / counts)


def with_scores(
    candidates: Candidates,  # Of a self-join
    **neighbors: Neighbors,  # Name -> neighbors of the same listings: fused, blended or reranked ones
) -> Candidates:
    "The candidates with further scores; a pair that those neighbors do not hold gets their lowest score."
    n_listings = len(candidates.ids)
    all_scores = dict(candidates.scores)
    pair_rows, pair_columns = np.nonzero(candidates.ids >= 0)
    for name, named in neighbors.items():
        if name in all_scores:
            raise InputError(f'{name}: the candidates have scores of that name: {preview(all_scores)}')
        if len(named.ids) != n_listings:
            raise InputError(
                f'{name}: neighbors of {len(named.ids)} listings, candidates of {n_listings}')
        listed_rows, listed_ids, scores = named.pairs()
        pair_ids = candidates.ids[pair_rows, pair_columns]
        positions = find_pairs(listed_rows, listed_ids, pair_rows, pair_ids, n_listings)
        score_grid = np.full(candidates.ids.shape, -np.inf, np.float32)
        score_grid[pair_rows, pair_columns] = np.where(positions >= 0, scores[positions], scores.min())
        all_scores[name] = score_grid
    return replace(candidates, scores=all_scores)
