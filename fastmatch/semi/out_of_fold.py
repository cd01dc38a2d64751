"Predictions of items by models that were never trained on them, and what is chosen on them scored honestly."
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from sklearn.metrics import f1_score, log_loss

from ..core import InputError, preview
from ..match.cells import is_among, texts_of

LEAST = 1e-9  # a probability below is taken for this where its logarithm is needed


def log_probabilities(
    probabilities: np.ndarray,  # (n,c), 0..1
) -> np.ndarray:  # float64 (n,c)
    "The logarithms of probabilities, those below 1e-9 taken for 1e-9."
    return np.log(np.maximum(np.asarray(probabilities, np.float64), LEAST))


def normalized(
    logits: np.ndarray,  # float (n,c), each row up to a constant
) -> np.ndarray:  # float64 (n,c), rows of sum 1
    "Softmax of each row."
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


@dataclass
class OutOfFold:
    """Class probabilities of n items, each by a model of the fold that held the item out.

    Raises `InputError`, naming the ids, where a model was trained on an item that it predicts: such
    probabilities are too sure, and whatever is chosen on them is wrong for new items.
    """
    ids: np.ndarray  # (n,) what names each item, text or numbers
    probabilities: np.ndarray  # float (n,c), rows of sum 1
    classes: list  # c names, in the order of the columns
    targets: np.ndarray  # int (n,), the true class of each item as a column
    folds: np.ndarray  # (n,) the fold whose model predicted each item
    trained_on: dict  # Fold -> ids of the items that its model was trained on

    def __post_init__(self):
        self.ids = texts_of(self.ids).astype(str)
        self.probabilities = np.asarray(self.probabilities)
        self.classes = list(self.classes)
        self.targets, self.folds = np.asarray(self.targets), np.asarray(self.folds)
        n_items = len(self.ids)
        if self.probabilities.shape != (n_items, len(self.classes)):
            raise InputError(f'probabilities {self.probabilities.shape} for {n_items} ids and '
                             f'{len(self.classes)} classes')
        for name, column in (('targets', self.targets), ('folds', self.folds)):
            if len(column) != n_items: raise InputError(f'{name}: {len(column)} for {n_items} ids')
        if not np.isfinite(self.probabilities).all() or (self.probabilities < 0).any():
            raise InputError('probabilities: some are negative or no numbers')
        _check_once(self.ids)
        self._check_held_out()

    def _check_held_out(self):
        for fold in np.unique(self.folds):
            if fold not in self.trained_on:
                raise InputError(f'trained_on: nothing is said of fold {fold}')
            own_ids = self.ids[self.folds == fold]
            seen = own_ids[is_among(own_ids, self.trained_on[fold])]
            if len(seen):
                raise InputError(f'fold {fold}: its model was trained on {len(seen)} of the items that it '
                                 f'predicts ({preview(seen)}): predictions of held-out items are needed')

    def __len__(self): return len(self.ids)

    def take(
        self,
        rows,  # Row numbers or bool (n,)
    ) -> 'OutOfFold':
        "Some of the items, in the order of `rows`."
        return replace(self, ids=self.ids[rows], probabilities=self.probabilities[rows],
                       targets=self.targets[rows], folds=self.folds[rows])

    def with_probabilities(
        self,
        probabilities: np.ndarray,  # float (n,c)
    ) -> 'OutOfFold':
        "The same items with other probabilities."
        return replace(self, probabilities=probabilities)

    @property
    def predicted(self) -> np.ndarray:
        "The likeliest class of each item, int (n,)."
        return self.probabilities.argmax(1)

    @property
    def macro_f1(self) -> float:
        "The plain mean of the classes' F1, over the classes that items have or are predicted to have."
        return float(f1_score(self.targets, self.predicted, average='macro', zero_division=0))

    @property
    def accuracy(self) -> float:
        "Share of items whose likeliest class is the true one."
        return float((self.predicted == self.targets).mean())

    @property
    def log_loss(self) -> float:
        "Mean negative logarithm of the true class's probability."
        return float(log_loss(self.targets, normalized(log_probabilities(self.probabilities)),
                              labels=range(len(self.classes))))


def _check_once(ids):
    names, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any(): raise InputError(f'ids given twice: {preview(names[counts > 1])}')


def aligned(
    parts: list,  # `OutOfFold`s of the same items
) -> list[OutOfFold]:
    """The predictions of several ways in the order of the first one's ids and classes.

    Raises `InputError` where they are of other items or classes, or where an item has another class or fold.
    """
    parts = list(parts)
    if not parts: raise InputError('no predictions are given')
    first, found = parts[0], []
    for number, part in enumerate(parts):
        if set(part.ids) != set(first.ids):
            apart = sorted(set(part.ids) ^ set(first.ids))
            raise InputError(f'predictions {number} are of other items than predictions 0: {preview(apart)}')
        if set(part.classes) != set(first.classes) or len(part.classes) != len(first.classes):
            apart = sorted(map(str, set(part.classes) ^ set(first.classes)))
            raise InputError(f'predictions {number} have other classes than predictions 0: {preview(apart)}')
        row_of = {name: row for row, name in enumerate(part.ids)}
        columns = [part.classes.index(name) for name in first.classes]
        part = part.take([row_of[name] for name in first.ids])
        new_code = np.argsort(columns)
        part = replace(part, probabilities=part.probabilities[:, columns], classes=list(first.classes),
                       targets=new_code[part.targets])
        for what in ('targets', 'folds'):
            differs = getattr(part, what) != getattr(first, what)
            if not differs.any(): continue
            advice = ': deal the folds once, in a column of the table' if what == 'folds' else ''
            raise InputError(f'{what} of {preview(first.ids[differs])} differ between predictions 0 and '
                             f'{number}{advice}')
        found.append(part)
    return found


def cross_fitted(
    folds: np.ndarray,  # (n,)
    # (rows to choose on, rows to apply to; both int) -> what comes out for the latter, an array a row
    choose_and_apply: Callable,
) -> np.ndarray:  # (n,...)
    """What is chosen on the other folds, applied to each fold: the honest counterpart of choosing on all.

    Raises `InputError` where there is one fold only.

    One thing remains: the models of the other folds were trained on this fold's labels. What is chosen with
    few numbers (weights, a strength) can't make use of that; a large second-level model could a little.
    """
    names = np.unique(folds)
    if len(names) < 2: raise InputError('one fold only: what is chosen on it can not be judged')
    outcome = None
    for fold in names:
        held_out = np.flatnonzero(folds == fold)
        found = np.asarray(choose_and_apply(np.flatnonzero(folds != fold), held_out))
        if outcome is None: outcome = np.zeros((len(folds), *found.shape[1:]), found.dtype)
        outcome[held_out] = found
    return outcome
