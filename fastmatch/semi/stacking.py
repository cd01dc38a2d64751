"A second model that learns from the predictions of several first ones for held-out items: stacking."
import warnings
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from ..core import InputError, require_package
from .blend import METRICS, check_choice
from .out_of_fold import LEAST, OutOfFold, aligned, cross_fitted, log_probabilities

RIDGES = .0003, .001, .003, .01, .03, .1  # C of the logistic regression, the smaller the simpler
DECAYS = 1., 10., 100.  # alpha of the net, the larger the simpler
TREES = 20, 60  # rounds of boosting


def _logistic():
    from sklearn.linear_model import LogisticRegression
    return [_scaled(LogisticRegression(C=ridge, max_iter=1000)) for ridge in RIDGES]


def _net():
    from sklearn.neural_network import MLPClassifier
    return [_scaled(MLPClassifier((64,), alpha=decay, max_iter=200, random_state=0)) for decay in DECAYS]


def _lightgbm():
    lightgbm = require_package('lightgbm', "stack_models(model='lightgbm')")
    return [lightgbm.LGBMClassifier(n_estimators=rounds, num_leaves=7, min_child_samples=5, learning_rate=.1,
                                    colsample_bytree=.5, n_jobs=1, random_state=0, verbosity=-1)
            for rounds in TREES]


MODELS = {'logistic': _logistic, 'lightgbm': _lightgbm, 'net': _net}


def _scaled(model):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    return make_pipeline(StandardScaler(), model)


def stack_features(
    parts: list,  # Of each way: probabilities (n,c)
) -> np.ndarray:  # float32 (n, ways * c)
    "What the second model reads: the logarithms of all probabilities, each way's centered in each row."
    logits = [log_probabilities(part) for part in parts]
    return np.concatenate([each - each.mean(1, keepdims=True) for each in logits], 1).astype(np.float32)


def _fitted(model, features, targets):
    from sklearn.base import clone
    with warnings.catch_warnings():
        # a class with fewer rows than a solver likes, or rounds that end before it has settled: the inner
        # folds judge what comes out
        warnings.filterwarnings('ignore', category=UserWarning)
        return clone(model).fit(features, targets)


def _probabilities(model, features, n_classes):
    "The model's probabilities with a column for each class; one that it never saw gets the least there is."
    found = np.full((len(features), n_classes), LEAST)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='X does not have valid feature names')
        found[:, model.classes_] = model.predict_proba(features)
    return found / found.sum(1, keepdims=True)


@dataclass
class Stack:
    "A second model fitted to predictions of held-out items, and what it is worth."
    model: object  # scikit-learn classifier, fitted on all rows
    n_ways: int  # How many ways' probabilities it reads
    n_classes: int
    chosen: list  # Number of the candidate chosen on the other folds, for each fold in turn, then on all
    heldout: OutOfFold  # Each fold by a model chosen and fitted on the others: these scores are honest

    def __call__(
        self,
        parts: list,  # Of each way, in the order of the fit: probabilities (n,c) of new items
    ) -> np.ndarray:  # float64 (n,c)
        "The second model's probabilities of new items."
        if len(parts) != self.n_ways:
            raise InputError(f'parts: {len(parts)} given, the model was fitted to {self.n_ways} ways')
        return _probabilities(self.model, stack_features(parts), self.n_classes)


def stack_models(
    parts: list,  # `OutOfFold`s of the same items, one a way
    # 'logistic', 'lightgbm', 'net', a scikit-learn classifier, or a list of them to choose from
    model='logistic',
    metric: str = 'log_loss',  # What the choice among candidates goes by: 'log_loss' or 'macro_f1'
) -> Stack:
    """Fit a second model to the predictions of several ways.

    Scores are those of nested cross-validation: for each fold the candidate (how strongly it is regularized)
    is chosen by cross-validation among the other folds, fitted on them, and applied to this one. In-fold
    predictions are refused by `OutOfFold` already.

    It wants many items: with 687 of 47 classes and six ways it did worse than equal weights (macro-F1 .562
    and .598, one seed; `tests/bench/few_labels.py`).
    """
    check_choice(metric, METRICS, 'metric')
    parts = aligned(parts)
    first, candidates = parts[0], _candidates(model)
    features = stack_features([part.probabilities for part in parts])
    n_classes, n_folds = len(first.classes), len(np.unique(first.folds))
    chosen = []
    inner = n_folds * (n_folds - 1) * len(candidates) if len(candidates) > 1 else 0
    with tqdm(total=2 * inner + n_folds + 1, desc='stacking', delay=2, leave=False) as progress_bar:
        def choose(rows):
            scores = [_inner_score(candidate, features[rows], first.take(rows), metric, progress_bar)
                      for candidate in candidates] if len(candidates) > 1 else [0.]
            chosen.append(int(np.argmax(scores)))
            progress_bar.update()
            return _fitted(candidates[chosen[-1]], features[rows], first.targets[rows])

        def choose_and_apply(rows, held_out):
            return _probabilities(choose(rows), features[held_out], n_classes)
        heldout = first.with_probabilities(cross_fitted(first.folds, choose_and_apply))
        return Stack(choose(np.arange(len(first))), len(parts), n_classes, chosen, heldout)


def _candidates(model):
    if isinstance(model, str):
        check_choice(model, tuple(MODELS), 'model')
        return MODELS[model]()
    candidates = list(model) if isinstance(model, (list, tuple)) else [model]
    wrong = [type(each).__name__ for each in candidates if not hasattr(each, 'predict_proba')]
    if wrong or not candidates:
        raise InputError(f'model={wrong or candidates}: {tuple(MODELS)}, or scikit-learn classifiers with '
                         'predict_proba')
    return candidates


def _inner_score(candidate, features, rows, metric, progress_bar):
    "The cross-validated score of a candidate over the folds among some rows, the higher the better."
    def fit_and_apply(fitted_rows, held_out):
        model = _fitted(candidate, features[fitted_rows], rows.targets[fitted_rows])
        progress_bar.update()
        return _probabilities(model, features[held_out], len(rows.classes))
    found = rows.with_probabilities(cross_fitted(rows.folds, fit_and_apply))
    return found.macro_f1 if metric == 'macro_f1' else -found.log_loss
