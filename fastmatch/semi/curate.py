"Which labels look wrong, which items are worth labelling next, and which classes have enough of them."
import numpy as np
import pandas as pd

from ..core import InputError
from ..match.cells import texts_of
from .out_of_fold import OutOfFold, log_probabilities
from .share import wilson

UNCERTAINTIES = 'margin', 'entropy', 'confidence'
POOL = 10  # times as many of the least certain items as are wanted, among which diversity decides
SURE = .9  # probability of the own class from which on an item is told surely
HARD = .5  # share of a class's items that are found, below which it wants more


def suspicious_labels(
    predictions: OutOfFold,  # Of labelled items, by models that held them out
) -> pd.DataFrame:  # One row an item whose label is not the likeliest class, the most suspicious first
    """The items whose label a model that didn't see it doubts: `id`, `given`, `suggested` (the likeliest
    class), `suspicion`, the natural logarithm of how many times likelier that is, the probabilities
    `p_given` and `p_suggested`, and `confused`, how many items of the one class are taken for the other.

    It is a list to look through, not to believe: an item of a hard class is doubted too. With 5% and 20% of
    the labels of two sets of some 700 items exchanged at random (titles alone, three seeds) this order, the
    best of eight tried on these sets, had an average precision of .39 and .41, .64 and .66; that by the
    plain probability of the label, which is cleanlab's self-confidence unadjusted, .37 and .41, .64 and .66;
    cleanlab's adjusted scores and its entropy .15 to .28, .36 to .59. So it isn't needed here.
    """
    rows = np.arange(len(predictions))
    logits = log_probabilities(predictions.probabilities)
    predicted, targets = predictions.predicted, predictions.targets
    suspicion = logits[rows, predicted] - logits[rows, targets]
    n_classes = len(predictions.classes)
    confused = np.bincount(targets * n_classes + predicted, minlength=n_classes**2)
    names = np.array(predictions.classes, dtype=object)
    table = pd.DataFrame({
        'id': predictions.ids, 'given': names[targets], 'suggested': names[predicted], 'suspicion': suspicion,
        'p_given': predictions.probabilities[rows, targets],
        'p_suggested': predictions.probabilities[rows, predicted],
        'confused': confused[targets * n_classes + predicted]})
    is_doubted = np.flatnonzero(predicted != targets)
    return table.iloc[is_doubted[np.argsort(-suspicion[is_doubted], kind='stable')]].reset_index(drop=True)


def uncertainty(
    probabilities: np.ndarray,  # float (n,c), rows of sum 1
    how: str = 'margin',  # 'margin' between the two likeliest, 'entropy', or 'confidence' in the likeliest
) -> np.ndarray:  # float64 (n,), 0 (certain) to 1 (all classes alike)
    "How little a model knows of each item."
    if how not in UNCERTAINTIES: raise InputError(f'how={how!r}: choose one of {UNCERTAINTIES}')
    probabilities = np.asarray(probabilities, np.float64)
    n_classes = probabilities.shape[1]
    if how == 'entropy': return -(probabilities * log_probabilities(probabilities)).sum(1) / np.log(n_classes)
    second, first = np.partition(probabilities, n_classes - 2, 1)[:, -2:].T
    return 1 - (first - second) if how == 'margin' else (1 - first) * n_classes / (n_classes - 1)


def worth_labelling(
    ids,  # (n,) of items without a label
    probabilities: np.ndarray,  # float (n,c) of their classes
    n: int,  # How many are wanted
    # float (n,d), embeddings of the items; None: uncertainty alone decides
    vectors: np.ndarray | None = None,
    how: str = 'margin',  # As for `uncertainty`
    seed: int = 0,  # Of the clusters
) -> pd.DataFrame:  # `id` and `uncertainty`, the least certain first
    """The items that are worth a label next: uncertain, and different from each other.

    Of the `10 n` least certain, in `n` clusters of their unit vectors weighted by uncertainty, the one next
    to each center (https://arxiv.org/abs/1901.05954). Without vectors, the `n` least certain, of which some
    may be the same item twice.
    """
    ids, probabilities = texts_of(ids), np.asarray(probabilities, np.float64)
    if not len(ids) == len(probabilities):
        raise InputError(f'ids: {len(ids)}, probabilities: {len(probabilities)}')
    if not 1 <= n <= len(ids): raise InputError(f'n={n}: 1 to {len(ids)}, the items that there are')
    scores = uncertainty(probabilities, how)
    order = np.argsort(-scores, kind='stable')
    chosen = order[:n]
    if vectors is not None:
        vectors = np.asarray(vectors, np.float64)
        if len(vectors) != len(ids): raise InputError(f'vectors: {len(vectors)} for {len(ids)} ids')
        pool = order[:POOL * n]
        chosen = pool[_one_of_each_cluster(vectors[pool], scores[pool], n, seed)]
    chosen = chosen[np.argsort(-scores[chosen], kind='stable')]
    return pd.DataFrame({'id': ids[chosen], 'uncertainty': scores[chosen]})


def _one_of_each_cluster(vectors, weights, n, seed):
    "Rows (n,): of each cluster the one next to its center; where clusters coincide, the heaviest others."
    from sklearn.cluster import KMeans
    if len(vectors) == n: return np.arange(n)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.where(lengths > 0, lengths, 1)
    n_clusters = min(n, len(np.unique(units, axis=0)))
    model = KMeans(n_clusters, n_init=3, random_state=seed).fit(units, sample_weight=weights + 1e-9)
    distances = model.transform(units)
    in_cluster = [np.flatnonzero(model.labels_ == cluster) for cluster in range(n_clusters)]
    chosen = [rows[distances[rows, cluster].argmin()] for cluster, rows in enumerate(in_cluster) if len(rows)]
    others = np.setdiff1d(np.arange(len(vectors)), chosen)
    heaviest = others[np.argsort(-weights[others], kind='stable')]
    return np.concatenate([chosen, heaviest[:n - len(chosen)]]).astype(np.int64)


def class_needs(
    predictions: OutOfFold,  # Of labelled items, by models that held them out
) -> pd.DataFrame:  # One row a class, those that want most first
    """What each class has, and whether it wants more: items `n`, `recall` with its Wilson interval (`low`,
    `high`), `precision`, `sure` (share of its items that are told with probability .9 or more), `taken_for`
    (the class that its others are most often taken for), and `advice`.

    'more': less than half are found, or so few are there that it can't be said whether it is more. 'enough':
    more items than the median class, at least .9 of them sure: further ones would teach little, and where
    labelling, or memory, is short, these can be left out first. It is a hint; only a training without them
    shows it.
    """
    names = predictions.classes
    targets, predicted = predictions.targets, predictions.predicted
    own = predictions.probabilities[np.arange(len(predictions)), targets]
    rows = []
    for label, name in enumerate(names):
        is_own = targets == label
        n_items, n_found = int(is_own.sum()), int((predicted[is_own] == label).sum())
        n_said = int((predicted == label).sum())
        low, high = wilson(n_found, n_items)
        taken = pd.Series(predicted[is_own & (predicted != label)]).value_counts()
        rows.append({'class': name, 'n': n_items, 'recall': n_found / n_items if n_items else np.nan,
                     'low': low, 'high': high, 'precision': n_found / n_said if n_said else np.nan,
                     'sure': float((own[is_own] >= SURE).mean()) if n_items else np.nan,
                     'taken_for': names[taken.index[0]] if len(taken) else None})
    table = pd.DataFrame(rows)
    is_enough = (table.n > table.n.median()) & (table.sure >= SURE)
    table['advice'] = np.select([table.low < HARD, is_enough], ['more', 'enough'], '')
    return table.sort_values(['low', 'n'], kind='stable', ignore_index=True)


__all__ = ['class_needs', 'suspicious_labels', 'uncertainty', 'worth_labelling']
