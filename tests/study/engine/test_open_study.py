"Opening studies: the same again is continued, another of the name is refused."
import threading

import numpy as np
import optuna
import pytest

from fastmatch.core import InputError
from fastmatch.study import open_study, search_space, work
from fastmatch.study.engine.open_study import claim_lock, fingerprint_vectors

SPACE = search_space('margin', lr=(1e-4, 1e-2, 'log'))


@pytest.fixture(params=['a.db', 'a.sqlite', 'a.log', 'url'])
def storage(request, tmp_path):
    return f'sqlite:///{tmp_path}/b.db' if request.param == 'url' else tmp_path/request.param


def test_the_same_call_continues(storage):
    study = open_study('s', storage, space=SPACE)
    work(study, lambda trial: trial.suggest_float('margin', 0, .8), 3)
    study_again = open_study('s', storage, space=SPACE)
    assert [trial.value for trial in study_again.trials] == [trial.value for trial in study.trials]
    assert len(study_again.trials) == 3
    # the first is the kit as it comes, and was queued once
    first_trial = study_again.trials[0]
    assert first_trial.params == {'margin': .3} and first_trial.user_attrs['default']
    assert first_trial.user_attrs['given'] == {'margin': .3, 'lr': 2e-3}
    # another name is another study; a name alone opens what there is
    assert len(open_study('t', storage, space=SPACE).trials) == 1
    assert open_study('s', storage, None).direction.name == 'MAXIMIZE'


@pytest.mark.parametrize('changed_options, message_parts', [
    (dict(direction='minimize'), ['to maximize', 'to minimize']),
    (dict(space=search_space('margin')), ["'lr'", '0.0001 to 0.01 log', 'space']),
    (dict(space=search_space('margin', lr=(1e-4, 1e-1, 'log'))), ['0.0001 to 0.1 log', '0.0001 to 0.01 log']),
    (dict(about={'monitor': 'map@r'}), ['recall@1', 'map@r'])])
def test_another_study_of_the_name_is_refused(storage, changed_options, message_parts):
    options = dict(space=SPACE, about={'monitor': 'recall@1'})
    open_study('s', storage, **options)
    with pytest.raises(InputError) as error: open_study('s', storage, **{**options, **changed_options})
    assert all(part in str(error.value) for part in ["'s'", *message_parts])


def test_a_first_trial_that_draws_is_not_the_kit_as_it_comes():
    study = open_study('s', space=search_space('margin', lr=(1e-2, 1e-1, 'log')))
    assert study.trials[0].user_attrs == {'given': {'margin': .3}}
    assert open_study('s', space=search_space('margin', 'image_pool')).trials[0].user_attrs['default']


def test_a_study_half_made_is_completed(tmp_path):
    "Whoever made it was killed before it queued its first trial, or right after."
    default_params = {'margin': .3, 'lr': 2e-3}
    cases = ('a.db', False, False), ('b.db', True, False), ('c.db', True, True)
    for file_name, is_queued, is_read in cases:
        address = f'sqlite:///{tmp_path}/{file_name}'
        half_made_study = optuna.create_study(study_name='s', storage=address, direction='maximize')
        if is_queued: half_made_study.enqueue_trial(default_params, user_attrs={'given': {}, 'default': True})
        # somebody may look before it goes on
        if is_read: open_study('s', tmp_path/file_name)
        study = open_study('s', tmp_path/file_name, space=SPACE)
        assert [trial.system_attrs['fixed_params'] for trial in study.trials] == [default_params]
        assert study.user_attrs['kept']['space']


def test_a_study_of_several_objectives_is_refused(tmp_path):
    address = f'sqlite:///{tmp_path}/a.db'
    optuna.create_study(study_name='s', storage=address, directions=['minimize', 'maximize'])
    with pytest.raises(InputError, match='2 objectives'): open_study('s', tmp_path/'a.db', space=SPACE)


def test_who_only_looks_leaves_nothing_behind(storage):
    assert open_study('s', storage).trials == []
    assert len(open_study('s', storage, space=SPACE, about={'monitor': 'map@r'}).trials) == 1
    study = open_study('s', storage)
    assert study.user_attrs['kept']['monitor'] == 'map@r' and len(study.trials) == 1
    with pytest.raises(InputError, match='space'): open_study('s', storage, space=search_space('lr'))


def test_many_open_at_once(tmp_path):
    "One of them makes the study and queues the first trial."
    studies, errors = [], []

    def open_it():
        try: studies.append(open_study('s', tmp_path/'a.db', space=SPACE))
        except Exception as error: errors.append(error)
    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert not errors and len(studies) == 6 and len(studies[0].trials) == 1


def test_memory_is_a_study_each():
    first_study, second_study = open_study('s', space=SPACE), open_study('s', space=SPACE)
    work(first_study, lambda trial: 1., 2)
    assert len(first_study.trials) == 2 and len(second_study.trials) == 1


def test_files_have_a_lock(tmp_path):
    assert claim_lock(open_study('s')) is None and claim_lock(optuna.create_study()) is None
    first_lock, second_lock = (claim_lock(open_study('s', tmp_path/'a.db')) for _ in range(2))
    assert first_lock.lock_file == second_lock.lock_file == str(tmp_path/'a.db.claims')


def test_vectors_are_recognized_but_for_rounding(tmp_path):
    vectors = {'image': np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)}

    def open_with(vectors):
        return open_study('s', tmp_path/'a.db', about={'vectors': fingerprint_vectors(vectors)})
    # a trial, without which there is nothing yet that could be another question
    open_with(vectors).enqueue_trial({'x': 1})
    open_with({'image': vectors['image'] + np.float32(1e-6)})
    for other_vectors in ({'image': vectors['image'] + np.float32(.01)}, {'title': vectors['image']}):
        with pytest.raises(InputError, match='begun with vectors'): open_with(other_vectors)


@pytest.mark.parametrize('options, message', [
    (dict(sampler='tpee'), 'tpee'), (dict(pruner='axe'), 'axe'), (dict(pruner='hyperband'), 'epochs'),
    (dict(direction='up'), 'up'), (dict(space={}), 'empty')])
def test_options_that_cant_be(options, message):
    with pytest.raises(InputError, match=message): open_study('s', **options)
