"The reported score of a trial is read back as it was stored."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match.judge.heldout import HeldOut
from fastmatch.study import heldout_trial, open_study, search_space, suggest, work
from fastmatch.study.reported import store_test_score

GROUPS = np.array([0, 0, 1, 1, 2])


def scores_of(trial_number): return (np.arange(5) + trial_number).astype(np.float32) / 10


def test_scores_are_read_back():
    space = search_space('margin')
    study = open_study('s', space=space)
    study.set_user_attr('test_groups', GROUPS.tolist())

    def objective(trial):
        suggest(trial, space)
        if trial.number != 1: store_test_score(trial, HeldOut(scores_of(trial.number), GROUPS))
        return float(trial.number)
    work(study, objective, 3)
    np.testing.assert_array_equal(heldout_trial(study, 'default').row_f1, scores_of(0).astype(np.float64))
    np.testing.assert_array_equal(heldout_trial(study).row_f1, scores_of(2).astype(np.float64))
    np.testing.assert_array_equal(heldout_trial(study, 2).clusters, GROUPS)
    assert study.trials[2].user_attrs['test_row_f1'] == .4
    with pytest.raises(InputError, match='no 1 trial was scored on the test listings; those that were: 0, 2'):
        heldout_trial(study, 1)


def test_nothing_to_report_without_a_test():
    study = open_study('s')
    work(study, lambda trial: 1., 1)
    with pytest.raises(InputError, match='no test listings'): heldout_trial(study)
