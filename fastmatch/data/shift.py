"What tells the items of one table from those of another: adversarial validation, with intervals."
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from tqdm.auto import tqdm

from ..core import InputError
from ..match.cells import codes_of
from .columns import Columns
from .item_statistics import item_statistics

SHUFFLES = 3  # times that a feature's values are shuffled in each held-out fold
FEWEST = 20  # items of a table
SHOWN = 3  # features that the sentence names


@dataclass
class Shift:
    "How well the items of two tables can be told apart, and by what."
    auc: float  # Chance that a test item looks more like one than a training item does: .5 none, 1 always
    low: float  # Lower end of its interval
    high: float  # Upper end
    # By feature, what tells most first: `auc` (above .5: larger on test), `low`, `high`, medians `train` and
    # `test`, and `worth`: how much the model's own AUC falls without it
    features: pd.DataFrame
    probabilities: np.ndarray  # float64 (n,), each item's of being from test, by a model that held it out
    n_train: int  # Items of the first table that were looked at, the first rows of `probabilities`
    n_test: int
    level: float = .95  # Of the intervals

    @property
    def sentence(self) -> str:
        "The finding in plain words."
        figures = (f'AUC {self.auc:.3f}, {self.level:.0%} interval {self.low:.3f} to {self.high:.3f}, '
                   f'{self.n_train} and {self.n_test} items')
        if self.low <= .5: return f'Nothing that was looked at tells train from test ({figures}).'
        different = self.features[(self.features.low > .5) | (self.features.high < .5)]
        told = [f'{name} (median {row.train:.3g} and {row.test:.3g})'
                for name, row in different[:SHOWN].iterrows()]
        by = f' by {", ".join(told)}' if told else ' by features together, not by any of them alone'
        return f'Train and test can be told apart{by} ({figures}).'

    def __repr__(self): return self.sentence


def adversarial_validation(
    train: pd.DataFrame,  # One row an item
    test: pd.DataFrame,  # One row an item, with the same columns; its group may be missing
    # Folder of the images of both, or a tuple: (of train, of test); None: pictures are not looked at
    path=None,
    *,
    # `Embeddings` of the same rows, or {name: (n,d)}: a tuple (of train, of test); None: none are looked at
    embeddings: tuple | None = None,
    directions: int = 5,  # Principal components of each kind of embedding
    numbers: list = (),  # Columns of numbers that are looked at too
    columns: Columns | None = None,  # Columns of title, image and group; None: those named by keyword
    most: int = 5000,  # Items of each table that are looked at, drawn at random where there are more
    n_folds: int = 5,
    seed: int = 0,
    **column_names,  # `title_col`, `image_col`, `group_col`, which win over `columns`
) -> Shift:
    """Whether items of two tables look different, by a classifier's cross-validated AUC.

    The features are figures of titles and pictures (see `item_statistics`), numbers, and principal components
    of embeddings of both tables. Items of a group are held out together: otherwise a group's other items
    would tell where it is from; of items without a group, near duplicates still may.

    An AUC of .5 doesn't show that classes or prices of mistakes are the same, only that these figures are.
    """
    columns = Columns.resolve(columns, column_names)
    tables, kept = [train, test], [_drawn(len(table), most, seed) for table in (train, test)]
    for name, rows in zip(('train', 'test'), kept):
        if len(rows) < FEWEST: raise InputError(f'{name}: {len(rows)} items, {FEWEST} at least')
    folders = path if isinstance(path, tuple) else (path, path)
    parts = [item_statistics(table.iloc[rows], folder, numbers=numbers, columns=columns)
             for table, rows, folder in zip(tables, kept, folders)]
    features = pd.concat(parts, ignore_index=True)
    if embeddings is not None: features = features.join(_directions(embeddings, tables, kept, directions))
    groups = np.concatenate([_groups(table.iloc[rows], columns.group) for table, rows in zip(tables, kept)])
    clusters = _clusters(groups)
    is_test = np.repeat([False, True], [len(rows) for rows in kept])
    probabilities, folds, worth = _cross_validated(features, is_test, clusters, n_folds, seed)
    auc, low, high = auc_interval(probabilities, is_test, clusters, folds)
    table = _by_feature(features, is_test, clusters, worth)
    return Shift(auc, low, high, table, probabilities, *map(len, kept))


def _drawn(n_items, most, seed):
    if n_items <= most: return np.arange(n_items)
    return np.sort(np.random.default_rng(seed).choice(n_items, most, replace=False))


def _groups(df, group_column):
    if group_column is None or group_column not in df: return np.full(len(df), None, object)
    return df[group_column].to_numpy(object)


def _clusters(groups):
    "Numbers of the groups from 0; an item without one is a cluster of its own."
    codes = codes_of(groups)
    alone = codes < 0
    return np.where(alone, codes.max(initial=-1) + np.cumsum(alone), codes)


def _directions(embeddings, tables, kept, n_directions):
    "The principal components of both tables' embeddings, a column each."
    from sklearn.decomposition import PCA
    of_train, of_test = embeddings
    found = {}
    for name in of_train:
        arrays = [np.asarray(part[name], np.float64) for part in (of_train, of_test)]
        for array, table, which in zip(arrays, tables, ('train', 'test')):
            if len(array) == len(table): continue
            raise InputError(f'embeddings: {len(array)} of {name!r} for {len(table)} rows of {which}')
        both = np.concatenate([array[rows] for array, rows in zip(arrays, kept)])
        components = PCA(min(n_directions, *both.shape), random_state=0).fit_transform(both)
        found |= {f'{name} direction {number}': column for number, column in enumerate(components.T, 1)}
    return pd.DataFrame(found)


def _cross_validated(features, is_test, clusters, n_folds, seed):
    "Probabilities of items by models that held them out, the folds, and what the AUC loses by each feature."
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedGroupKFold
    values = features.to_numpy(np.float64)
    probabilities, folds = np.zeros(len(values)), np.zeros(len(values), np.int64)
    shuffled = np.zeros((values.shape[1], SHUFFLES, len(values)))
    rng = np.random.default_rng(seed)
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    splits = list(splitter.split(values, is_test, clusters))
    progress_bar = tqdm(splits, desc='adversarial validation', delay=2, leave=False)
    for fold, (rows, held_out) in enumerate(progress_bar):
        if len(set(is_test[rows])) < 2 or len(set(is_test[held_out])) < 2:
            raise InputError(f'n_folds={n_folds}: too few groups of items for it')
        model = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=8, random_state=seed)
        model.fit(values[rows], is_test[rows])
        folds[held_out] = fold
        probabilities[held_out] = model.predict_proba(values[held_out])[:, 1]
        for column in range(values.shape[1]):
            for time in range(SHUFFLES):
                changed = values[held_out].copy()
                changed[:, column] = rng.permutation(changed[:, column])
                shuffled[column, time, held_out] = model.predict_proba(changed)[:, 1]
    whole = auc_interval(probabilities, is_test, clusters, folds)[0]
    worth = [whole - np.mean([auc_interval(scores, is_test, clusters, folds)[0] for scores in of_column])
             for of_column in shuffled]
    return probabilities, folds, worth


def _by_feature(features, is_test, clusters, worth):
    rows = []
    for (name, values), loss in zip(features.items(), worth):
        is_there = values.notna().to_numpy()
        told = {'auc': np.nan, 'low': np.nan, 'high': np.nan}
        if len(set(is_test[is_there])) == 2:
            told = dict(zip(told, auc_interval(values[is_there].to_numpy(), is_test[is_there],
                                               clusters[is_there])))
        rows.append({'feature': name, **told, 'train': values[~is_test].median(),
                     'test': values[is_test].median(), 'worth': float(loss)})
    table = pd.DataFrame(rows).set_index('feature')
    return table.iloc[np.argsort(-(table.auc - .5).abs().fillna(0).to_numpy(), kind='stable')]


# --- the area under the ROC curve

def auc_interval(
    scores: np.ndarray,  # float (n,)
    is_positive: np.ndarray,  # bool (n,)
    clusters: np.ndarray,  # int (n,), from 0: items that hang together
    folds: np.ndarray | None = None,  # (n,): only pairs of one fold are compared, by one model; None: all
    level: float = .95,  # Of the interval
) -> tuple[float, float, float]:  # AUC, lower and upper end; NaN where there is no pair
    """The share of pairs in which the positive one has the higher score (equals: half), with its interval.

    The variance is that of DeLong (https://doi.org/10.2307/2531595) with clusters in place of items, as by
    Obuchowski (https://doi.org/10.2307/2533958).
    """
    won, met = pairs_won(scores, is_positive, folds)
    pairs = met[is_positive].sum()
    if not pairs: return (float('nan'),) * 3
    auc = won[is_positive].sum() / pairs
    # what each item, and then each cluster, adds to the error
    errors = np.bincount(clusters, (won - auc * met) / pairs)
    n_clusters = len(np.unique(clusters))
    standard_error = np.sqrt((errors**2).sum() * n_clusters / max(1, n_clusters - 1))
    half_width = stats.norm.ppf((1 + level) / 2) * standard_error
    return float(auc), float(max(0, auc - half_width)), float(min(1, auc + half_width))


def pairs_won(
    scores: np.ndarray,  # float (n,)
    is_positive: np.ndarray,  # bool (n,)
    folds: np.ndarray | None = None,  # As for `auc_interval`
) -> tuple[np.ndarray, np.ndarray]:  # float (n,): pairs of each item that are in the right order; all of them
    "In how many pairs of each item with one of the other kind the positive one is higher; equals count half."
    folds = np.zeros(len(scores), np.int64) if folds is None else folds
    won, met = np.zeros(len(scores)), np.zeros(len(scores))
    for fold in np.unique(folds):
        own = np.flatnonzero(folds == fold)
        distinct, code = np.unique(scores[own], return_inverse=True)
        positives = np.bincount(code, is_positive[own], len(distinct))
        negatives = np.bincount(code, ~is_positive[own], len(distinct))
        negatives_below = np.cumsum(negatives) - negatives / 2
        positives_above = positives.sum() - np.cumsum(positives) + positives / 2
        won[own] = np.where(is_positive[own], negatives_below[code], positives_above[code])
        met[own] = np.where(is_positive[own], negatives.sum(), positives.sum())
    return won, met


__all__ = ['Shift', 'adversarial_validation', 'auc_interval', 'pairs_won']
