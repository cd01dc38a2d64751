"In-fold predictions are refused by name, ways are put in one order, cross-fitting never sees its own fold."
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from fastmatch.core import InputError
from fastmatch.semi.out_of_fold import OutOfFold, aligned, cross_fitted
from tests.semi.made import truth, way


def test_in_fold_predictions_are_refused_with_their_ids():
    targets, folds = truth()
    part = way(targets, folds)
    planted = {fold: set(ids) for fold, ids in part.trained_on.items()}
    planted[2] |= {'item7', 'item12'}
    with pytest.raises(InputError, match='fold 2: its model was trained on 2 of .*item7, item12'):
        replace(part, trained_on=planted)
    # numbers as ids are the same as their text
    with pytest.raises(InputError, match=r'fold 0.*\(2\)'):
        OutOfFold([1, 2], np.full((2, 2), .5), ['a', 'b'], [0, 1], [0, 0], {0: {'2'}})
    with pytest.raises(InputError, match='nothing is said of fold 4'):
        replace(part, trained_on={fold: planted[fold] for fold in (0, 1, 3)} | {2: set()})


def test_scores_are_scikit_learns():
    targets, folds = truth()
    part = way(targets, folds, 1.)
    assert part.macro_f1 == f1_score(targets, part.predicted, average='macro', zero_division=0)
    assert part.accuracy == np.mean(part.probabilities.argmax(1) == targets)
    own = part.probabilities[range(len(targets)), targets]
    assert part.log_loss == pytest.approx(-np.log(own).mean(), rel=1e-6)


def test_parts_are_put_in_one_order():
    targets, folds = truth()
    part, order = way(targets, folds), np.random.default_rng(0).permutation(len(targets))
    columns = [2, 0, 3, 1]
    code = np.argsort(columns)
    mixed = OutOfFold(part.ids[order], part.probabilities[order][:, columns],
                      [part.classes[column] for column in columns], code[targets[order]], folds[order],
                      part.trained_on)
    first, second = aligned([part, mixed])
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    np.testing.assert_array_equal(second.targets, targets)
    assert second.classes == part.classes and second.macro_f1 == part.macro_f1 == mixed.macro_f1
    with pytest.raises(InputError, match='other items.*item0'): aligned([part, part.take(slice(1, None))])
    with pytest.raises(InputError, match='other classes.*x'):
        aligned([part, replace(part, classes=['x', *part.classes[1:]])])
    with pytest.raises(InputError, match='targets of item0 differ'):
        aligned([part, replace(part, targets=np.append((targets[0] + 1) % 4, targets[1:]))])
    moved = replace(part, folds=np.full(len(targets), 9), trained_on={9: set()})
    with pytest.raises(InputError, match='folds of .*deal the folds once'): aligned([part, moved])


@pytest.mark.parametrize('change, message', [
    (dict(probabilities=np.ones((3, 4))), 'probabilities'), (dict(targets=[1]), 'targets: 1'),
    (dict(ids=['a'] * 200), 'given twice: a'), (dict(probabilities=np.full((200, 4), np.nan)), 'no numbers')])
def test_nonsense(change, message):
    with pytest.raises(InputError, match=message): replace(way(*truth()), **change)


def test_cross_fitting_sees_the_other_folds_alone():
    folds = np.array([3, 1, 1, 2, 3, 3])
    seen = []

    def choose_and_apply(rows, held_out):
        seen.append((rows.tolist(), held_out.tolist()))
        return held_out * 10
    assert cross_fitted(folds, choose_and_apply).tolist() == [0, 10, 20, 30, 40, 50]
    assert seen == [([0, 3, 4, 5], [1, 2]), ([0, 1, 2, 4, 5], [3]), ([1, 2, 3], [0, 4, 5])]
    with pytest.raises(InputError, match='one fold only'): cross_fitted(np.zeros(3), choose_and_apply)
