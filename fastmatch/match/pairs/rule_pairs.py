"""The candidate pairs of a rule as its pair model sees them: refined scores, plain ones and the fused one."""
from functools import cached_property

import numpy as np
from tqdm import tqdm

from ...core import InputError
from ..candidates import Candidates
from ..fuse import sorted_neighbors
from ..judge.groups import Groups
from ..judge.setting import READ_ONLY
from ..neighbors import Neighbors, check_self_first
from ..spaces.pool import holds_keys
from ..thresholds.base import row_mask
from .features import PairFeatures
from .learning import KnownPairs, random_parts
from .model import PairModel
from .surroundings import radii_of

FUSED = 'fused'  # the fused score, among the modalities that a pair model reads
PLAIN = 'plain '  # before the name of a modality: as it was before the steps on vectors
BLOCK_PAIRS = 1 << 19  # pairs whose features are made at a time


class RulePairs:
    """The candidate pairs of the first n listings, in the pool of all listings, with what a pair model reads
    of them; `fit` one here, or score by a model that was fitted before.

    Of all listings of the pool the neighbors are needed, since a pair is looked at from both sides.
    """
    def __init__(
        self,
        neighbors: Neighbors,  # Fused, of all listings of the pool
        # Name -> space of all listings after the steps on vectors, 'titles' too
        spaces: dict,
        *,
        plain: dict | None = None,  # Name -> space before the steps on vectors; default without steps
        modalities=None,  # Those that are fused; default all spaces with similarities
        join=None,  # Exact keys that match by themselves; default all keys in `spaces`
        n_rows: int | None = None,  # Listings whose pairs are wanted, the first ones; default all
        # What is fitted, or reads exactly these scores where it was fitted before; default `PairModel()`
        model: PairModel | None = None,
    ):
        check_self_first(neighbors)
        self.n_rows = len(neighbors.ids) if n_rows is None else n_rows
        if not 0 <= self.n_rows <= len(neighbors.ids):
            raise InputError(f'n_rows={n_rows}: the neighbors are of {len(neighbors.ids)} listings')
        self.model = model or PairModel()
        if join is None: join = [name for name, space in spaces.items()
                                 if holds_keys(space) and name not in READ_ONLY]
        if modalities is None: modalities = [name for name in spaces if name not in (*join, *READ_ONLY)]
        plain = spaces if plain is None else plain
        if self.model.names is None: names = _all_scores(modalities, join, spaces, plain)
        else: names = scores_read(self.model, modalities, join)
        self.candidates = _candidates(neighbors, names, spaces, plain, join)
        # as they were before the steps on vectors
        fields = {name: plain[name] for name in modalities if _is_read(plain[name], self.model)}
        reads_titles = 'titles' in spaces and (self.model.use is None or self.model.reads_titles)
        self.titles = spaces['titles'].titles if reads_titles else None
        self.radii = self.model.radii or radii_of(_first(self.candidates, self.n_rows))
        self._looked_up = PairFeatures(self.candidates, self.titles, self.model.use, self.radii,
                                       self.model.top, fields)
        is_pair = self._looked_up.surroundings.real[:self.n_rows]
        self.rows, self.columns = np.nonzero(is_pair)  # int (m,)
        self.ids = self.candidates.ids[self.rows, self.columns]  # int (m,), in the pool

    def __len__(self): return len(self.rows)

    @property
    def used(self) -> list[str]:
        "The features that are read, some of `FEATURES`."
        return self._looked_up.use

    @cached_property
    def names(self) -> list[str]:
        "The names of the features."
        return self._looked_up.of([])[3]

    @cached_property
    def features(self) -> np.ndarray:  # float32 (m,f)
        "The features of all pairs, row by row."
        table = np.empty((len(self), len(self.names)), np.float32)
        for pairs, block in self._blocks(): table[pairs] = block
        return table

    def features_at(
        self,
        places: np.ndarray,  # int (s,), some of the pairs
    ) -> np.ndarray:  # float32 (s,f)
        "The features of some pairs; only those of their listings are made."
        if 'features' in self.__dict__: return self.features[places]
        rows = np.unique(self.rows[places])
        table = self._looked_up.of(rows)[2]
        # the pairs of these listings stand in the same order in both
        of_rows = np.flatnonzero(np.isin(self.rows, rows))
        return table[np.searchsorted(of_rows, places)]

    def same(
        self,
        groups,  # (p,) groups of the pool, or `Groups`
    ) -> np.ndarray:  # bool (m,)
        "Whether each pair is of one group."
        codes = self._groups(groups).codes
        return codes[self.rows] == codes[self.ids]

    def fit(
        self,
        groups,  # (p,) groups of the pool, or `Groups`
        on_rows=None,  # bool (n,) or row numbers: the listings to learn from, whole groups; default all
    ) -> PairModel:
        """A model fitted to the pairs of some listings; of a group that has listings among the others nothing
        is learned, from neither end of a pair."""
        pairs = KnownPairs(self.rows, self.ids, self.features, self._groups(groups))
        fitted = pairs.fit(self.model.unfitted(), self._mask(on_rows))
        fitted.names, fitted.radii, fitted.use = self.names, self.radii, list(self._looked_up.use)
        return fitted

    def unseen_probabilities(
        self,
        groups,  # (p,) groups of the pool, or `Groups`
        on_rows=None,  # bool (n,) or row numbers: the listings to learn from and to score; default all
        folds: int = 3,  # Parts of their groups
        seed: int = 0,  # Of the parts
    ) -> np.ndarray:  # float32 (m,), NaN for pairs of other rows
        "The probability of each pair of some listings, by a model that saw neither end's group."
        groups, on_rows = self._groups(groups), self._mask(on_rows)
        parts = np.full(self.n_rows, -1)
        codes = np.unique(groups.row_codes[on_rows], return_inverse=True)[1]
        parts[on_rows] = random_parts(codes, folds, seed)
        pairs = KnownPairs(self.rows, self.ids, self.features, groups)
        return pairs.unseen(self.model.unfitted(), on_rows, parts)

    def crossed(
        self,
        groups,  # (p,) groups of the pool, or `Groups`
        on_rows=None,  # bool (n,) or row numbers: the listings to learn from, whole groups; default all
        folds: int = 3,  # Parts of their groups
        seed: int = 0,  # Of the parts
    ) -> tuple[PairModel, Neighbors]:
        """A model fitted to some listings, and neighbors scored by models that did not see them: those of the
        listings that were fitted to by one fitted on other parts, those of all others by the model itself.

        A threshold that is chosen on the first is worth on the others what it promises.
        """
        on_rows = self._mask(on_rows)
        fitted = self.fit(groups, on_rows)
        probabilities = self.unseen_probabilities(groups, on_rows, folds, seed)
        of_others = ~on_rows[self.rows]
        probabilities[of_others] = fitted.probabilities(self.features[of_others])
        return fitted, self.neighbors(probabilities)

    def probabilities(
        self,
        model: PairModel,  # Fitted to these features
    ) -> np.ndarray:  # float32 (m,)
        "The probability of each pair, its features made a block at a time where they are not there yet."
        model.check_names(self.names)
        if 'features' in self.__dict__: return model.probabilities(self.features)
        probabilities = np.empty(len(self), np.float32)
        for pairs, features in self._blocks(): probabilities[pairs] = model.probabilities(features)
        return probabilities

    def neighbors(
        self,
        probabilities: np.ndarray,  # float32 (m,)
    ) -> Neighbors:  # (n,K), the same candidates
        "The candidates sorted by probability; pairs of an equal key come first, with 1."
        scores = np.full((self.n_rows, self.candidates.ids.shape[1]), -np.inf, np.float32)
        scores[self.rows, self.columns] = probabilities
        for modality in self.candidates.join:
            has_equal_key = self.candidates.scores[modality][self.rows, self.columns] == 1
            scores[self.rows[has_equal_key], self.columns[has_equal_key]] = 1
        scores[:, 0] = 1
        return sorted_neighbors(self.candidates.ids[:self.n_rows], scores)

    def of_row(
        self,
        row: int,  # One of the first n listings
    ) -> tuple[np.ndarray, np.ndarray]:  # int (c,), its candidates in the pool; float32 (c,f)
        "The pairs of one listing with their features."
        rows, columns, features, _ = self._looked_up.of([row])
        return self.candidates.ids[rows, columns], features

    def _blocks(self):
        "(slice of the pairs, their features), some rows at a time."
        block_rows = max(1, BLOCK_PAIRS // self.candidates.ids.shape[1])
        place = 0
        for start in tqdm(range(0, self.n_rows, block_rows), desc='pairs', delay=2, leave=False):
            features = self._looked_up.of(np.arange(start, min(start + block_rows, self.n_rows)))[2]
            yield slice(place, place + len(features)), features
            place += len(features)

    def _mask(self, on_rows):
        return np.ones(self.n_rows, bool) if on_rows is None else row_mask(on_rows, self.n_rows)

    def _groups(self, groups):
        if not isinstance(groups, Groups): groups = Groups(groups, rows=self.n_rows)
        if (len(groups), groups.pool) != (self.n_rows, len(self.candidates.ids)):
            raise InputError(f'groups of {len(groups)} listings in a pool of {groups.pool}, '
                             f'pairs of {self.n_rows} in {len(self.candidates.ids)}')
        return groups


def pair_model(
    neighbors: Neighbors,  # Fused, of all listings of the pool
    model: PairModel,  # Fitted
    pairs: RulePairs,  # The pairs of these neighbors, with what the model reads of them
) -> Neighbors:  # Of the listings that `pairs` are of
    """The same candidates with the probability of being the same product as their score.

    Kaggle Shopee's 2nd and 3rd places decided so. The model weighs the scores of all modalities, refined and
    as they were, against how crowded it is around both listings and against their titles.
    """
    return pairs.neighbors(pairs.probabilities(model))


def scores_read(
    model: PairModel,  # Fitted
    modalities,  # Names that a rule fuses
    join,  # Names of exact keys
) -> list:  # Names: of modalities, with `PLAIN` before them, `FUSED`, of keys
    """The scores that a fitted model reads, in its order; raises `InputError` where a rule lacks their
    modalities."""
    lacking = [name for name in model.radii
               if name != FUSED and name.removeprefix(PLAIN) not in modalities]
    if lacking:
        raise InputError(f'pair model: reads the scores of {lacking}; the modalities are {list(modalities)}')
    given = {*model.radii, *join, *modalities}
    in_order = [name for name in model.names if name in given]
    # models that read no scores themselves, but ranks, name none of them
    return list(dict.fromkeys([*in_order, *model.radii]))


def _all_scores(modalities, join, spaces, plain):
    "The scores that a model is fitted to: plain ones beside those that steps changed."
    if FUSED in modalities:
        raise InputError("pair model: a modality named 'fused' can't be told from the fusion")
    names = []
    for modality in modalities:
        names.append(modality)
        if plain[modality] is not spaces[modality]: names.append(f'{PLAIN}{modality}')
    return [*names, FUSED, *join]


def _candidates(neighbors, names, spaces, plain, join):
    "The neighbors as candidates with these scores, their ids rising."
    behind_all = neighbors.ids.max() + 1
    other_ids = np.where(neighbors.ids[:, 1:] < 0, behind_all, neighbors.ids[:, 1:])
    rising = np.concatenate([np.zeros((len(other_ids), 1), np.int64), 1 + np.argsort(other_ids, axis=1)], 1)
    ids = np.take_along_axis(neighbors.ids, rising, 1)
    row_numbers = np.arange(len(ids))[:, None]
    scores = {}
    for name in names:
        if name == FUSED: scores[name] = np.take_along_axis(neighbors.scores, rising, 1)
        elif name in spaces: scores[name] = spaces[name].scores(row_numbers, ids)
        else: scores[name] = plain[name.removeprefix(PLAIN)].scores(row_numbers, ids)
    fields = tuple(name for name in names if name in spaces and spaces[name].is_field)
    return Candidates(ids, scores, join=tuple(name for name in names if name in join), fields=fields)


def _is_read(space, model):
    """Whether a model reads what a space says of pairs: one that was fitted to listings of one picture each
    reads their similarity alone, also where some have several now."""
    if model.names is None: return True
    none = np.zeros(0, np.int64)
    return bool(set(space.pair_features(none, none)) & set(model.names))


def _first(candidates, n):
    "The candidates of the first n listings."
    return Candidates(candidates.ids[:n], {name: scores[:n] for name, scores in candidates.scores.items()},
                      join=candidates.join, fields=candidates.fields)
