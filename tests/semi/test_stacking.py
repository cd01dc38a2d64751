"Stacking: nested scores that know nothing of their fold, planted in-fold predictions refused, each model."
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fastmatch.core import InputError
from fastmatch.semi.stacking import MODELS, stack_features, stack_models
from tests.semi.made import of, truth, way

SIMPLE = [LogisticRegression(C=.1), LogisticRegression(C=1.)]


@pytest.mark.parametrize('model', [pytest.param(name, marks=pytest.mark.slow) if name == 'net' else name
                                   for name in MODELS])
def test_each_model_learns_what_no_blend_can(model):
    "One way tells the first two classes apart, but has them the wrong way round."
    targets, folds = truth(150)
    first, second = way(targets, folds, 1.), way(targets, folds, 3., 2)
    swapped = of(second.probabilities[:, [1, 0, 2, 3]], targets, folds)
    found = stack_models([first, swapped], model)
    assert found.heldout.macro_f1 > first.macro_f1 + .1
    np.testing.assert_allclose(found.heldout.probabilities.sum(1), 1)
    new = found([first.probabilities, swapped.probabilities])
    assert (new.argmax(1) == targets).mean() > .8
    with pytest.raises(InputError, match='1 given, the model was fitted to 2'): found([first.probabilities])


def test_the_nested_score_does_not_know_its_own_fold():
    targets, folds = truth(100)
    parts = [way(targets, folds, 1., seed) for seed in range(2)]
    found = stack_models(parts, SIMPLE)
    is_own = folds == 3
    other = np.where(is_own, (targets + 1) % 4, targets)
    relabelled = stack_models([of(part.probabilities, other, folds) for part in parts], SIMPLE)
    own, again = (each.heldout.probabilities[is_own] for each in (found, relabelled))
    np.testing.assert_array_equal(own, again)
    assert np.abs(found.heldout.probabilities - relabelled.heldout.probabilities)[~is_own].max() > .01
    # by hand: the chosen candidate, fitted on the other folds
    features = stack_features([part.probabilities for part in parts])
    model = SIMPLE[found.chosen[3]].fit(features[~is_own], targets[~is_own])
    np.testing.assert_allclose(own, model.predict_proba(features[is_own]), atol=1e-6)
    assert len(found.chosen) == 6


def test_planted_in_fold_predictions_are_refused():
    targets, folds = truth(100)
    part = way(targets, folds)
    trained_on = {**part.trained_on, 1: part.trained_on[1] | {'item6', 'item11'}}
    with pytest.raises(InputError, match='item6, item11'):
        stack_models([part, replace(part, trained_on=trained_on)])


def test_noise_gains_nothing():
    "A large model on ways that know nothing: the score on its own rows is high, the nested one is not."
    targets, folds = truth(120)
    parts = [way(targets, folds, 0., seed) for seed in range(8)]
    found = stack_models(parts, LogisticRegression(C=1e4, max_iter=3000))
    own_rows = of(found([part.probabilities for part in parts]), targets, folds)
    assert own_rows.macro_f1 > .45 and found.heldout.macro_f1 < .35


def test_a_class_of_one_fold_alone():
    targets, folds = truth(100)
    targets = np.where(targets == 3, 2, targets)
    targets[5] = 3
    found = stack_models([way(targets, folds)], SIMPLE)
    assert found.heldout.probabilities[folds == 0, 3].max() < 1e-6 and np.isfinite(found.heldout.log_loss)


@pytest.mark.parametrize('options, message', [
    (dict(model='forest'), "model='forest'"), (dict(model=[3]), 'predict_proba'), (dict(model=[]), 'predict'),
    (dict(metric='f1'), "metric='f1'")])
def test_nonsense(options, message):
    with pytest.raises(InputError, match=message): stack_models([way(*truth(20))], **options)
