"""What is used of Optuna's private attributes is there and does what is relied on.

Where a test fails after an update of Optuna, `study/engine/optuna_private.py` is the one file to change."""
import ast
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

import fastmatch.study
from fastmatch.study.engine.optuna_private import set_attribute_of_any_trial

FOLDER = Path(fastmatch.study.__file__).parent
PRIVATE = {'_storage', '_trial_id', '_study_id', '_thread_local', '_pop_waiting_trial_id'}


@pytest.fixture(params=['memory', 'database', 'journal'])
def storage(request, tmp_path):
    if request.param == 'memory': return optuna.storages.InMemoryStorage()
    if request.param == 'database': return optuna.storages.RDBStorage(f'sqlite:///{tmp_path}/a.db')
    journal_file = optuna.storages.journal.JournalFileBackend(str(tmp_path/'a.log'))
    return optuna.storages.JournalStorage(journal_file)


def test_the_attributes_exist(storage):
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    assert callable(study._storage.set_trial_user_attr)
    assert isinstance(trial._trial_id, int) and study.trials[0]._trial_id == trial._trial_id


def test_an_attribute_is_set_by_who_does_not_run_the_trial(storage):
    running_study = optuna.create_study(study_name='s', storage=storage)
    # ids of trials are not their numbers where a storage holds several studies
    optuna.create_study(study_name='other', storage=storage).ask()
    for _ in range(2): running_study.ask()
    loaded_study = optuna.load_study(study_name='s', storage=storage)
    set_attribute_of_any_trial(loaded_study, loaded_study.trials[1], 'reason', 'lost')
    assert [trial.user_attrs for trial in running_study.trials] == [{}, {'reason': 'lost'}]
    assert running_study.trials[1].state == TrialState.RUNNING


def test_a_trial_that_has_ended_takes_none(storage):
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    running_trial = study.trials[0]
    study.tell(trial, 1.)
    with pytest.raises(UpdateFinishedTrialError):
        set_attribute_of_any_trial(study, running_trial, 'reason', 'lost')
    # by the public way, which says it in another error
    with pytest.raises(ValueError, match='Cannot tell a COMPLETE trial'): study.tell(0, state=TrialState.FAIL)


def test_no_other_file_uses_them():
    files_using_them = set()
    for source_file in FOLDER.rglob('*.py'):
        nodes = ast.walk(ast.parse(source_file.read_text(encoding='utf-8')))
        if PRIVATE & {node.attr for node in nodes if isinstance(node, ast.Attribute)}:
            files_using_them.add(source_file.name)
    assert files_using_them == {'optuna_private.py'}
