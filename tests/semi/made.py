"Predictions of held-out items by made-up ways of known quality."
import numpy as np

from fastmatch.semi.out_of_fold import OutOfFold, normalized


def truth(n_items=200, n_classes=4, seed=0):
    "Classes of falling size and five folds, each item in one."
    rng = np.random.default_rng(seed)
    shares = 1 / np.arange(1, n_classes + 1)
    return rng.choice(n_classes, n_items, p=shares / shares.sum()), np.arange(n_items) % 5


def way(targets, folds, strength=2., seed=1, n_classes=4):
    "A way whose logits are the truth times `strength`, with noise."
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(targets), n_classes))
    logits[np.arange(len(targets)), targets] += strength
    return of(normalized(logits), targets, folds)


def of(probabilities, targets, folds):
    "Probabilities as of models that were trained on the other folds."
    ids = np.array([f'item{number}' for number in range(len(targets))])
    trained_on = {fold: set(ids[folds != fold]) for fold in np.unique(folds)}
    classes = [f'class {label}' for label in range(probabilities.shape[1])]
    return OutOfFold(ids, probabilities, classes, targets, folds, trained_on)
