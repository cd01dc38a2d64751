"Curation: planted wrong labels come first, chosen items are uncertain and unlike, classes by hand."
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from fastmatch.core import InputError
from fastmatch.semi.curate import class_needs, suspicious_labels, uncertainty, worth_labelling
from tests.semi.made import of, truth, way


def test_by_hand():
    probabilities = np.array([[.6, .4], [.1, .9], [.2, .8], [.7, .3]])
    found = suspicious_labels(of(probabilities, np.array([0, 0, 0, 1]), np.array([0, 1, 0, 1])))
    assert found.id.tolist() == ['item1', 'item2', 'item3']
    np.testing.assert_allclose(found.suspicion, np.log([9, 4, 7 / 3]))
    assert found.given.tolist() == ['class 0', 'class 0', 'class 1']
    assert found.suggested.tolist() == ['class 1', 'class 1', 'class 0']
    assert found.confused.tolist() == [2, 2, 1] and found.p_given.tolist() == [.1, .2, .3]


def test_planted_wrong_labels_come_first():
    targets, folds = truth(600)
    predictions = way(targets, folds, 3.)
    rng = np.random.default_rng(0)
    is_wrong = rng.random(600) < .1
    given = np.where(is_wrong, (targets + rng.integers(1, 4, 600)) % 4, targets)
    found = suspicious_labels(of(predictions.probabilities, given, folds))
    row = found.id.str.removeprefix('item').astype(int)
    scores = np.full(600, -1.)
    scores[row] = found.suspicion
    assert average_precision_score(is_wrong, scores) > .6  # by chance .1
    assert not is_wrong[np.setdiff1d(np.arange(600), row)].mean() > .02


@pytest.mark.parametrize('how', ['margin', 'entropy', 'confidence'])
def test_uncertainty(how):
    found = uncertainty(np.array([[1, 0, 0], [1 / 3] * 3, [.5, .5, 0], [.8, .1, .1]]), how)
    assert found[0] == pytest.approx(0, abs=1e-7) and found[1] == pytest.approx(1)
    assert found[3] < found[2]
    logs = np.log([.8, .1, .1])
    expected = {'margin': .3, 'entropy': -(logs * [.8, .1, .1]).sum() / np.log(3), 'confidence': .3}[how]
    assert found[3] == pytest.approx(expected)


def test_one_of_each_kind_is_worth_labelling():
    # ten copies each of five uncertain items, and many certain ones
    rng = np.random.default_rng(0)
    vectors = np.concatenate([np.repeat(np.eye(6)[:5], 10, 0) + .01 * rng.normal(size=(50, 6)),
                              np.tile(np.eye(6)[5], (200, 1))])
    probabilities = np.concatenate([np.tile([.52, .48], (50, 1)), np.tile([.99, .01], (200, 1))])
    ids = np.arange(250)
    found = worth_labelling(ids, probabilities, 5, vectors)
    assert sorted(found.id.astype(int) // 10) == [0, 1, 2, 3, 4]
    assert worth_labelling(ids, probabilities, 5).id.astype(int).tolist() == [0, 1, 2, 3, 4]
    assert found.equals(worth_labelling(ids, probabilities, 5, vectors))
    # more are wanted than there are different ones: the least certain fill up
    same = worth_labelling(ids[:50], probabilities[:50], 8, np.repeat(np.eye(6)[:5], 10, 0))
    assert len(set(same.id)) == 8
    assert len(worth_labelling(ids, probabilities, 250, vectors)) == 250


def test_what_classes_need():
    # class 0: 100 items, sure; class 1: 20, half found; class 2: 4, all found
    targets = np.repeat([0, 1, 2], [100, 20, 4])
    probabilities = np.full((124, 3), .02)
    probabilities[np.arange(124), targets] = .96
    probabilities[100:110] = [.9, .05, .05]
    found = class_needs(of(probabilities, targets, np.arange(124) % 5)).set_index('class')
    assert found.advice.to_dict() == {'class 0': 'enough', 'class 1': 'more', 'class 2': ''}
    assert found.n.to_dict() == {'class 0': 100, 'class 1': 20, 'class 2': 4}
    assert found.recall['class 1'] == .5 and found.taken_for['class 1'] == 'class 0'
    assert found.precision['class 0'] == pytest.approx(100 / 110) and found.index[0] == 'class 1'
    assert found.sure.to_dict() == {'class 0': 1, 'class 1': .5, 'class 2': 1}


def test_what_is_refused():
    probabilities = np.full((3, 2), .5)
    for args, message in (((range(2), probabilities, 1), 'ids: 2, probabilities: 3'),
                          ((range(3), probabilities, 4), 'n=4: 1 to 3'),
                          ((range(3), probabilities, 1, np.eye(2)), 'vectors: 2 for 3'),
                          ((range(3), probabilities, 1, None, 'variance'), "how='variance'")):
        with pytest.raises(InputError, match=message): worth_labelling(*args)
