"Small classes preferred: a factor on their probabilities; and a threshold for each class of several at once."
from dataclasses import dataclass

import numpy as np

from ..core import InputError
from .blend import check_choice
from .line import best_on_line
from .out_of_fold import OutOfFold, cross_fitted, log_probabilities, normalized

# form -> the logarithm of the factor at strength 1, of a class's number of items
FORMS = {'inverse': lambda counts: np.log(10 / counts + 1), 'power': lambda counts: -np.log(counts)}
STRONGEST = {'inverse': 3., 'power': 1.5}


@dataclass
class ClassBoost:
    """A factor on each class's probability that prefers classes with few items.

    Macro-F1 counts a class of six items as much as one of a hundred, which training doesn't. `inverse`:
    (10 / n + 1) ** strength for a class of n items, with strength 1 as used in the WeChat challenge of 2022;
    `power`: n ** -strength, at strength 1 as if all classes were equally frequent
    (https://arxiv.org/abs/2007.07314).
    """
    form: str  # 'inverse' or 'power'
    strength: float  # 0 changes nothing
    counts: np.ndarray  # int (c,), items of each class; one without any counts as having one

    def __post_init__(self):
        check_choice(self.form, tuple(FORMS), 'form')
        self.counts = np.asarray(self.counts)

    @property
    def log_factors(self) -> np.ndarray:
        "Logarithm of each class's factor, float64 (c,)."
        return self.strength * log_factors(self.form, self.counts)

    def __call__(
        self,
        probabilities: np.ndarray,  # (n,c)
    ) -> np.ndarray:  # float64 (n,c), rows of sum 1
        "The probabilities times their factors, normalized."
        return normalized(log_probabilities(probabilities) + self.log_factors)


def log_factors(
    form: str,  # 'inverse' or 'power'
    counts: np.ndarray,  # int (c,), items of each class
) -> np.ndarray:  # float64 (c,)
    "The logarithm of each class's factor at strength 1."
    return FORMS[form](np.maximum(np.asarray(counts, np.float64), 1))


@dataclass
class FoundBoost:
    "A boost whose strength was chosen, and what that is worth."
    boost: ClassBoost  # Chosen on all rows
    chosen_on: OutOfFold  # Of the rows that it was chosen on: its scores are too good
    heldout: OutOfFold  # Each fold by a strength that was chosen on the others: these scores are honest


def find_boost(
    predictions: OutOfFold,  # Of held-out items
    form: str = 'inverse',  # 'inverse' or 'power', see `ClassBoost`
    strongest: float | None = None,  # Largest strength; default 3 for 'inverse', 1.5 for 'power'
) -> FoundBoost:
    "The strength with the best macro-F1, found exactly, and its honest score."
    check_choice(form, tuple(FORMS), 'form')
    strongest = STRONGEST[form] if strongest is None else strongest
    if not strongest > 0: raise InputError(f'strongest={strongest}: above 0')
    logits, targets = log_probabilities(predictions.probabilities), predictions.targets

    def choose(rows):
        counts = np.bincount(targets[rows], minlength=logits.shape[1])
        step = np.broadcast_to(log_factors(form, counts), logits[rows].shape)
        return ClassBoost(form, best_on_line(logits[rows], step, targets[rows], 0., strongest).place, counts)

    def choose_and_apply(rows, held_out): return choose(rows)(predictions.probabilities[held_out])
    boost = choose(np.arange(len(targets)))
    return FoundBoost(boost, predictions.with_probabilities(boost(predictions.probabilities)),
                      predictions.with_probabilities(cross_fitted(predictions.folds, choose_and_apply)))


# --- several classes at once

def best_class_thresholds(
    probabilities: np.ndarray,  # (n,c), of each class by itself
    targets: np.ndarray,  # bool (n,c), which classes an item has
    beta: float = 1.,  # Recall counts `beta` times as much as precision
) -> np.ndarray:  # float64 (c,): an item is said to have a class whose probability is this or more
    """The threshold of each class with the best F-beta on these very rows, exact.

    A class that no row has gets infinity: it is never said. Thresholds lie midway between two probabilities.
    """
    probabilities, targets = np.asarray(probabilities, np.float64), np.asarray(targets, bool)
    if probabilities.shape != targets.shape:
        raise InputError(f'probabilities {probabilities.shape} and targets {targets.shape} differ in shape')
    thresholds = np.full(probabilities.shape[1], np.inf)
    for label, (scores, truth) in enumerate(zip(probabilities.T, targets.T)):
        if not truth.any(): continue
        order = np.argsort(-scores, kind='stable')
        falling = scores[order]
        hits = np.cumsum(truth[order])
        said = np.arange(1, len(scores) + 1)
        f_beta = (1 + beta**2) * hits / (said + beta**2 * truth.sum())
        # equal probabilities are said together
        is_last = np.append(falling[1:] != falling[:-1], True)
        best = int(np.where(is_last, f_beta, -1).argmax())
        below = falling[best + 1] if best + 1 < len(falling) else 0.
        thresholds[label] = (falling[best] + below) / 2
    return thresholds


@dataclass
class ClassThresholds:
    "A threshold for each of several classes at once, and what their choice is worth."
    thresholds: np.ndarray  # float64 (c,)
    said: np.ndarray  # bool (n,c), of held-out rows by thresholds that were chosen on the other folds

    def __call__(
        self,
        probabilities: np.ndarray,  # (n,c)
    ) -> np.ndarray:  # bool (n,c)
        "Which classes each item is said to have."
        return np.asarray(probabilities) >= self.thresholds


def find_class_thresholds(
    probabilities: np.ndarray,  # (n,c), of held-out items
    targets: np.ndarray,  # bool (n,c)
    folds: np.ndarray,  # (n,) whose model predicted each item
    beta: float = 1.,  # As for `best_class_thresholds`
) -> ClassThresholds:
    """The best thresholds on all rows, and what is said of each fold by thresholds of the others: macro-F1 of
    `said` is the honest score."""
    probabilities, targets = np.asarray(probabilities), np.asarray(targets, bool)
    chosen = best_class_thresholds(probabilities, targets, beta)

    def choose_and_apply(rows, held_out):
        return probabilities[held_out] >= best_class_thresholds(probabilities[rows], targets[rows], beta)
    return ClassThresholds(chosen, cross_fitted(np.asarray(folds), choose_and_apply))
