"Boosts and thresholds against their formulas and a brute-force search."
import numpy as np
import pytest
from sklearn.metrics import f1_score, fbeta_score

from fastmatch.core import InputError
from fastmatch.semi.boost import ClassBoost, best_class_thresholds, find_boost, find_class_thresholds
from tests.semi.made import of, truth, way


def test_formulas():
    probabilities, counts = np.array([[.6, .3, .1]]), np.array([100, 10, 0])
    for boost, factors in ((ClassBoost('inverse', 1., counts), np.array([1.1, 2, 11])),
                           (ClassBoost('inverse', .5, counts), np.array([1.1, 2, 11])**.5),
                           (ClassBoost('power', .3, counts), np.array([100, 10, 1])**-.3),
                           (ClassBoost('power', 0., counts), np.ones(3))):
        wanted = probabilities * factors
        np.testing.assert_allclose(boost(probabilities), wanted / wanted.sum())
    with pytest.raises(InputError, match='form='): ClassBoost('squared', 1., counts)


@pytest.mark.parametrize('form, most', [('inverse', 3.), ('power', 1.5)])
def test_the_strength_is_no_worse_than_a_fine_grids(form, most):
    targets, folds = truth(300, 6)
    part = way(targets, folds, 1., n_classes=6)
    # a model that says the frequent classes too often
    skewed = part.probabilities * np.bincount(targets, minlength=6)**1.
    part = of(skewed / skewed.sum(1, keepdims=True), targets, folds)
    found = find_boost(part, form)
    counts = np.bincount(targets)
    scores = [f1_score(targets, ClassBoost(form, strength, counts)(part.probabilities).argmax(1),
                       average='macro', zero_division=0) for strength in np.linspace(0, most, 200)]
    assert found.chosen_on.macro_f1 >= max(scores) - 1e-12 > part.macro_f1
    assert found.heldout.macro_f1 > part.macro_f1 + .02
    # of one fold, by hand
    rows = folds != 2
    alone = find_boost(part.take(rows), form).boost
    np.testing.assert_array_equal(alone.counts, np.bincount(targets[rows]))
    np.testing.assert_allclose(found.heldout.probabilities[~rows], alone(part.probabilities[~rows]))
    with pytest.raises(InputError, match='strongest=0'): find_boost(part, form, 0)


@pytest.mark.parametrize('beta', [1., 2.])
@pytest.mark.parametrize('rounded', [False, True])
def test_thresholds_of_classes_are_the_best_of_all(beta, rounded):
    rng = np.random.default_rng(0)
    targets = rng.random((40, 5)) < [.5, .2, .1, .05, 0]
    targets[0, 3] = True
    probabilities = np.clip(.4 * targets + .6 * rng.random((40, 5)), 0, 1)
    if rounded: probabilities = probabilities.round(1)
    thresholds = best_class_thresholds(probabilities, targets, beta)
    for label in range(4):
        scores = [fbeta_score(targets[:, label], probabilities[:, label] >= threshold, beta=beta,
                              zero_division=0) for threshold in np.unique(probabilities[:, label])]
        found = fbeta_score(targets[:, label], probabilities[:, label] >= thresholds[label], beta=beta)
        assert found == pytest.approx(max(scores))
    assert thresholds[4] == np.inf
    with pytest.raises(InputError, match='differ in shape'): best_class_thresholds(probabilities, targets[:3])


def test_what_is_said_of_a_fold_by_the_others():
    rng = np.random.default_rng(0)
    targets, folds = rng.random((60, 3)) < .3, np.arange(60) % 3
    probabilities = np.clip(.3 * targets + .7 * rng.random((60, 3)), 0, 1)
    found = find_class_thresholds(probabilities, targets, folds)
    for fold in range(3):
        own = folds == fold
        thresholds = best_class_thresholds(probabilities[~own], targets[~own])
        np.testing.assert_array_equal(found.said[own], probabilities[own] >= thresholds)
    np.testing.assert_array_equal(found(probabilities), probabilities >= found.thresholds)
