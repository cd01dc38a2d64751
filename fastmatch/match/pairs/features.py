"What a pair of listings looks like: similarities, ranks both ways, how crowded it is around both, titles."
from dataclasses import replace

import numpy as np

from ...core import InputError, preview
from ..arrays import find_pairs
from ..candidates import Candidates
from ..fields.base import filled
from ..neighbors import Neighbors, check_self_first
from .surroundings import Surroundings, radii_of
from .title_pairs import TITLE_FEATURES, TitlePairs

TITLES = {'length', *TITLE_FEATURES}  # features that read titles
FEATURES = ['score', 'rank', 'density', 'top', 'pagerank', 'title', 'length', 'rarity', 'number', 'code',
            'ratio', 'field']


def usable_features(
    titles,  # (n,) strings, or None
    fields=None,  # Name -> space with `pair_features`, or None
) -> list:
    "Some of `FEATURES`: those that can be computed with these titles and fields."
    return [feature for feature in FEATURES if (titles is not None or feature not in TITLES)
            and (fields or feature != 'field')]


def pair_features(
    candidates: Candidates,  # Of a self-join
    titles=None,  # (n,) strings; needed for `TITLES`
    use: list | None = None,  # Some of `FEATURES`; default all that can be had
    radii: dict | None = None,  # Modality -> radii; default `radii_of`
    top: int = 5,  # Nearest others whose mean and deviation say how crowded it is around a listing
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:  # (rows, columns, features, names)
    """The features of each candidate pair (i,j), row by row; a listing with itself is left out.

    `rows` and `columns`, int (m,), say where the pair is in the candidates; `features` is float32 (m,f).
    Features of one listing alone are named `_i` and `_j`. Raises `InputError` for candidates in a
    catalogue, unknown features and missing titles.
    """
    return PairFeatures(candidates, titles, use, radii, top).of()


class PairFeatures:
    """The features of candidate pairs, for some rows at a time: what is looked up on both sides of a pair is
    made once for all listings."""
    def __init__(
        self,
        candidates: Candidates,  # Of a self-join
        titles=None,  # (n,) strings; needed for `TITLES`
        use: list | None = None,  # Some of `FEATURES`; default all that can be had
        radii: dict | None = None,  # Modality -> radii; default `radii_of`
        top: int = 5,  # Nearest others whose mean and deviation say how crowded it is around a listing
        fields: dict | None = None,  # Name -> space of the listings, for 'field': its `pair_features`
    ):
        self.use = usable_features(titles, fields) if use is None else list(use)
        self.fields = fields or {}
        _check(candidates, titles, self.use)
        self.candidates = candidates
        if 'density' in self.use: radii = radii or radii_of(candidates)
        self.title_pairs = None if titles is None else TitlePairs(titles)
        self.surroundings = Surroundings(candidates, self.use, radii, top)

    def of(
        self,
        rows=None,  # int (r,), rows whose pairs are wanted, each once; default all
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:  # (rows, columns, features, names)
        "The features of the pairs of some rows, as `pair_features` gives them."
        pairs = _Pairs(self.candidates, self.surroundings, rows)
        features = {}
        for modality, scores in self.candidates.scores.items():
            if 'score' in self.use: features[modality] = filled(scores[pairs.rows, pairs.columns])
            if modality in self.surroundings.by_modality: features |= pairs.of_modality(modality)
        if 'field' in self.use:
            for space in self.fields.values(): features |= space.pair_features(pairs.rows, pairs.others)
        features |= pairs.of_both(self.surroundings.overall)
        if self.title_pairs is not None:
            of_titles = self.title_pairs.of(self.use, pairs.rows, pairs.others)
            if 'length' in self.use: features |= pairs.of_both({'length': self.title_pairs.lengths})
            taken = set(features) & set(of_titles)
            if taken: raise InputError(f'pair features: {preview(sorted(taken))}: modalities and features of '
                                       'titles have one name: name the modality otherwise')
            features |= of_titles
        table = np.empty((len(pairs.rows), len(features)), np.float32)
        for column, values in enumerate(features.values()): table[:, column] = values
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
    "The candidate pairs (i,j) of some rows of a self-join without those of a listing with itself."
    def __init__(self, candidates, surroundings, rows):
        candidate_ids = candidates.ids
        self.surroundings = surroundings
        rows = np.arange(len(candidate_ids)) if rows is None else np.asarray(rows, np.int64)
        row_places, self.columns = np.nonzero(surroundings.real[rows])
        self.rows = rows[row_places]  # i; `columns` is that of j
        self.others = candidate_ids[self.rows, self.columns]  # j
        # the column at which the row of j names i, -1 where it does not
        named = np.unique(self.others)
        places, columns = np.nonzero(candidate_ids[named] >= 0)
        positions = find_pairs(named[places], candidate_ids[named[places], columns], self.others, self.rows,
                               len(candidate_ids))
        self.back = np.where(positions >= 0, columns[positions], -1)

    def of_both(self, listing_features):
        "Features of listings, name -> (n,), as features of pairs: those of i and those of j."
        return {f'{feature}{suffix}': np.asarray(listing_values, np.float32)[listing_ids]
                for feature, listing_values in listing_features.items()
                for suffix, listing_ids in (('_i', self.rows), ('_j', self.others))}

    def of_modality(self, modality):
        "Ranks both ways, and what it looks like around both listings."
        features = {}
        ranks = self.surroundings.ranks.get(modality)
        if ranks is not None:
            # what is no candidate comes after all candidates
            last_rank = self.surroundings.counts[self.others] + 1
            features[f'{modality} rank'] = ranks[self.rows, self.columns]
            ranks_back = np.where(self.back >= 0, ranks[self.others, self.back], last_rank)
            features[f'{modality} rank back'] = ranks_back.astype(np.int32)
        return features | self.of_both(self.surroundings.by_modality[modality])


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
