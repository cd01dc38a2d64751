"A study holds as many trials as were asked for, whoever ran them; what fails is recorded with its reason."
import os
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import optuna
import pytest
import torch

from fastmatch.core import InputError
from fastmatch.study import WrongStudy, open_study, search_space, work
from fastmatch.study.engine.liveness import is_alive, worker_name
from fastmatch.study.engine.work import (
    MAX_TRIES,
    _running_here,
    claim_trial,
    fail_trial,
    find_trial,
    mark_lost_trials,
    requeue_trial,
    run_trial,
)

SPACE = search_space('margin')
def draw_margin(trial): return trial.suggest_float('margin', 0, .8)


def draw_after(seconds):
    def objective(trial):
        time.sleep(seconds)
        return draw_margin(trial)
    return objective


def count_states(study): return Counter(trial.state.name for trial in study.trials)


@pytest.fixture(params=[None, 'a.db', 'a.log'])
def study(request, tmp_path): return open_study('s', request.param and tmp_path/request.param, space=SPACE)


@pytest.fixture
def stored_study(tmp_path): return open_study('s', tmp_path/'a.db', space=SPACE)


def abandon_trial(study, worker, with_params=True):
    "A trial that a worker took and never finished."
    trial = study.ask()
    if worker: trial.set_user_attr('worker', worker)
    if with_params: draw_margin(trial)
    return trial.number


def dead_worker():
    "A worker on this machine whose process is gone."
    machine = worker_name().rsplit(':', 2)[0]
    process = subprocess.Popen([sys.executable, '-c', ''])
    process.wait()
    return f'{machine}:{process.pid}:1'


def test_so_many_and_no_more(study):
    work(study, draw_margin, 4)
    work(study, draw_margin, 4)
    assert count_states(study) == {'COMPLETE': 4}
    work(study, draw_margin, 7)
    assert count_states(study) == {'COMPLETE': 7}
    assert [trial.number for trial in study.trials] == list(range(7))


def test_failures_are_recorded_and_dont_count(study):
    def objective(trial):
        if trial.number == 1: raise KeyError('no such file')
        if trial.number == 2: return float('nan')
        if trial.number == 3: return None
        if trial.number == 4: raise optuna.TrialPruned
        return draw_margin(trial)
    work(study, objective, 6)
    assert count_states(study) == {'COMPLETE': 5, 'PRUNED': 1, 'FAIL': 3}
    assert [study.trials[number].user_attrs['reason'] for number in (1, 2, 3)] == [
        "KeyError: 'no such file'", 'the objective returned nan', 'the objective returned None']


def test_values_of_numpy_and_torch_are_numbers():
    not_a_number = torch.tensor(float('nan'))
    values = [np.float32(.5), np.int64(2), np.array(.25), torch.tensor(3.), not_a_number, '4', 1.]
    study = open_study('s')
    work(study, lambda trial: values[trial.number], 5)
    assert [trial.value for trial in study.trials] == [.5, 2., .25, 3., None, None, 1.]
    assert [study.trials[number].user_attrs['reason'] for number in (4, 5)] == [
        'the objective returned nan', "the objective returned '4'"]


def test_too_many_failures_stop_the_study(study):
    def objective(trial):
        if trial.number % 3: raise ValueError(f'bad {trial.number}')
        return draw_margin(trial)
    with pytest.raises(InputError, match='5 of 8 trials failed') as error:
        work(study, objective, 20, max_failed=.6)
    assert 'bad 7' in str(error.value) and count_states(study) == {'FAIL': 5, 'COMPLETE': 3}
    # the cause is mended: earlier failures are forgiven
    work(study, draw_margin, 20)
    assert count_states(study) == {'FAIL': 5, 'COMPLETE': 20}


def test_what_no_trial_can_mend_stops_at_once(study):
    def objective(trial): raise WrongStudy('no such monitor')
    for n_failed in range(1, 6):
        with pytest.raises(WrongStudy, match='no such monitor'): work(study, objective, 20)
        assert count_states(study)['FAIL'] == n_failed
    # mended, however often it took: the kit as it comes is the first again
    work(study, draw_margin, 2)
    assert study.trials[5].params == {'margin': .3} and study.trials[5].user_attrs['default']
    assert count_states(study) == {'FAIL': 5, 'COMPLETE': 2}


def test_an_interrupted_trial_is_tried_again(study):
    drawn_margins = []

    def objective(trial):
        drawn_margins.append(draw_margin(trial))
        if len(drawn_margins) == 3: raise KeyboardInterrupt
        return drawn_margins[-1]
    with pytest.raises(KeyboardInterrupt): work(study, objective, 5)
    assert count_states(study) == {'COMPLETE': 2, 'FAIL': 1, 'WAITING': 1}
    assert 'interrupted' in study.trials[2].user_attrs['reason']
    work(study, objective, 5)
    assert count_states(study) == {'COMPLETE': 5, 'FAIL': 1}
    # the next that ran had the same parameters
    assert drawn_margins[3] == drawn_margins[2] and len(set(drawn_margins)) == 5
    assert study.trials[3].user_attrs['retry_of'] == 2


def test_a_dead_workers_trial_is_tried_again(stored_study):
    work(stored_study, draw_margin, 2)
    lost_number = abandon_trial(stored_study, dead_worker())
    assert stored_study.trials[lost_number].state.name == 'RUNNING'
    work(stored_study, draw_margin, 4)
    assert count_states(stored_study) == {'COMPLETE': 4, 'FAIL': 1}
    assert 'died' in stored_study.trials[lost_number].user_attrs['reason']
    assert stored_study.trials[lost_number + 1].params == stored_study.trials[lost_number].params


def test_the_first_trial_is_tried_again_even_if_it_drew_nothing(stored_study):
    for worker in (dead_worker(), None): abandon_trial(stored_study, worker, with_params=False)
    work(stored_study, draw_margin, 2)
    complete_trials = [trial for trial in stored_study.trials if trial.state.name == 'COMPLETE']
    assert complete_trials[0].params == {'margin': .3}
    assert count_states(stored_study) == {'FAIL': 2, 'COMPLETE': 2}
    assert stored_study.trials[2].user_attrs['default']


def test_parameters_that_kill_are_given_up(stored_study):
    for _ in range(MAX_TRIES):
        abandon_trial(stored_study, dead_worker())
        mark_lost_trials(stored_study)
    assert count_states(stored_study) == {'FAIL': MAX_TRIES}
    assert len({trial.params['margin'] for trial in stored_study.trials}) == 1


@pytest.mark.parametrize('has_worker', [True, False])
def test_a_kill_between_failing_and_queueing(has_worker, stored_study):
    lost_number = abandon_trial(stored_study, dead_worker() if has_worker else None)
    fail_trial(stored_study, stored_study.trials[lost_number], 'its worker died', 'died')
    for _ in range(2): mark_lost_trials(stored_study)
    assert count_states(stored_study) == {'FAIL': 1, 'WAITING': 1}
    work(stored_study, draw_margin, 2)
    assert count_states(stored_study) == {'FAIL': 1, 'COMPLETE': 2}
    assert stored_study.trials[lost_number + 1].params == stored_study.trials[lost_number].params
    # the worker that is about to queue it lives
    living_number = abandon_trial(stored_study, worker_name())
    fail_trial(stored_study, stored_study.trials[living_number], 'interrupted', 'died')
    mark_lost_trials(stored_study)
    assert count_states(stored_study) == {'FAIL': 2, 'COMPLETE': 2}


def test_the_living_are_left_alone(stored_study):
    other_process = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)
    try:
        worker = worker_name(other_process.pid)
        abandon_trial(stored_study, worker)
        assert mark_lost_trials(stored_study) == [] and count_states(stored_study) == {'RUNNING': 1}
        other_process.kill()
        for _ in range(200):
            if not is_alive(worker): break
            time.sleep(.02)
        # killed, and its parent has not noticed: that is dead too
        assert other_process.returncode is None and mark_lost_trials(stored_study) == [0]
    finally:
        other_process.kill()
        other_process.wait()


def test_a_trial_of_this_process_that_nobody_runs_is_dead(stored_study):
    abandon_trial(stored_study, worker_name())
    assert mark_lost_trials(stored_study) == [0]
    lost_trials = []

    def objective(trial):
        lost_trials.append(mark_lost_trials(stored_study))
        return draw_margin(trial)
    work(stored_study, objective, 2)
    assert lost_trials == [[], []]


def test_another_machines_worker_is_dead_when_it_is_silent(stored_study):
    beating_trial, lost_number = stored_study.ask(), abandon_trial(stored_study, 'elsewhere:7:9')
    beating_trial.set_user_attr('worker', 'elsewhere:8:9')
    assert is_alive('elsewhere:7:9') is None and mark_lost_trials(stored_study) == []
    messages, n_beats = [], [0]
    # one of them goes on giving signs, until the other is taken for dead
    stop_beating = threading.Event()

    def beat():
        while not stop_beating.wait(.05):
            n_beats[0] += 1
            beating_trial.set_user_attr('beat', n_beats[0])
    beating_thread = threading.Thread(target=beat)
    beating_thread.start()
    try: work(stored_study, draw_margin, 3, timeout=3, echo=messages.append, beat=.1)
    finally:
        stop_beating.set()
        beating_thread.join()
    assert stored_study.trials[lost_number].state.name == 'FAIL'
    assert stored_study.trials[beating_trial.number].state.name == 'RUNNING' and n_beats[0] > 5
    assert count_states(stored_study) == {'RUNNING': 1, 'FAIL': 1, 'COMPLETE': 2}
    assert any('waiting' in message for message in messages if isinstance(message, str))


def test_a_worker_gives_signs_of_life(stored_study):
    work(stored_study, draw_after(.4), 1, beat=.05)
    first_trial = stored_study.trials[0]
    assert first_trial.user_attrs['beat'] >= 3 and first_trial.user_attrs['worker'] == worker_name()


def test_one_taken_for_dead_while_asleep_is_not_counted_twice(stored_study):
    def objective(trial):
        margin = draw_margin(trial)
        if trial.number != 1: return margin
        frozen_trial = find_trial(stored_study, 1)
        assert fail_trial(stored_study, frozen_trial, 'silent', 'died')
        assert not fail_trial(stored_study, frozen_trial, 'silent', 'died')
        requeue_trial(stored_study, frozen_trial)
        return .5
    work(stored_study, objective, 4)
    assert count_states(stored_study) == {'COMPLETE': 4, 'FAIL': 1} and stored_study.trials[1].value is None
    assert stored_study.trials[2].params == stored_study.trials[1].params


def test_one_process_alone_fails_a_trial(tmp_path):
    "The other finds it ended, wherever it was when that happened."
    study, other_study = (open_study('s', tmp_path/'a.db', space=SPACE) for _ in range(2))
    study.ask()
    frozen_trial = find_trial(study, 0)
    assert fail_trial(other_study, frozen_trial, 'lost', 'died')
    assert not fail_trial(study, frozen_trial, 'lost too', 'died')
    assert find_trial(study, 0).user_attrs['reason'] == 'lost'

    # it ended between the note of the reason and that of the state
    class EndedMeanwhile:
        def __init__(self, study): self.study = study
        def __getattr__(self, name): return getattr(self.study, name)

        def tell(self, number, state):
            other_study.tell(number, 1.)
            return self.study.tell(number, state=state)
    study.ask()
    assert not fail_trial(EndedMeanwhile(study), find_trial(study, 1), 'lost', 'died')
    assert find_trial(study, 1).value == 1.


def test_whoever_comes_too_late_gives_way(stored_study):
    "Two workers without a common lock see the last place free at once: the later number gives up."
    work(stored_study, draw_margin, 2)
    first_claim, second_claim = claim_trial(stored_study, 3), claim_trial(stored_study, 3)
    assert first_claim is not None and second_claim is None
    assert stored_study.trials[3].user_attrs['reason'] == 'more than asked'
    run_trial(stored_study, first_claim, draw_margin, 1.)


def test_a_trial_taken_and_not_yet_begun_is_alive(stored_study):
    "Another thread of this process comes between the claim and the start."
    trial = claim_trial(stored_study, 2)
    assert mark_lost_trials(stored_study) == []
    assert run_trial(stored_study, trial, draw_margin, 1.).state.name == 'COMPLETE'
    # given up or through, it is nobody's
    assert claim_trial(stored_study, 1) is None and not _running_here


def test_threads_share_a_study(study):
    errors = []

    def work_in_thread():
        try: work(study, draw_margin, 24)
        except BaseException as error: errors.append(error)
    threads = [threading.Thread(target=work_in_thread) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert not errors and count_states(study)['COMPLETE'] == 24
    assert {trial.user_attrs['failed'] for trial in study.trials if trial.state.name == 'FAIL'} <= {'surplus'}


def test_a_storage_lost_on_the_way_is_said_in_words(stored_study, tmp_path):
    def objective(trial):
        if trial.number == 2: (tmp_path/'a.db').write_bytes(b'x' * 5000)
        return draw_margin(trial)
    message = "'s': its storage can not be read or written any more.*not a database"
    with pytest.raises(InputError, match=message): work(stored_study, objective, 5)


def test_timeout_begins_no_more(study):
    work(study, draw_after(.2), 50, timeout=.5)
    # three on an idle machine; on a busy one storage alone may take the time
    assert 1 <= len(study.trials) <= 6 and set(count_states(study)) == {'COMPLETE'}


@pytest.mark.parametrize('options', [
    dict(n_trials=0), dict(n_trials=2, max_failed=2), dict(n_trials=2, max_failed=1)])
def test_bad_options(options):
    with pytest.raises(InputError, match=next(reversed(options))):
        work(open_study('s'), draw_margin, **options)


def test_queued_trials_beyond_the_number_wait(study):
    for i in range(5): study.enqueue_trial({'margin': i / 10})
    work(study, draw_margin, 3)
    assert count_states(study) == {'COMPLETE': 3, 'WAITING': 3}
    work(study, draw_margin, 6)
    assert [trial.params['margin'] for trial in study.trials] == [.3, 0, .1, .2, .3, .4]


CODE = '''
import os, sys, time
from fastmatch.study import open_study, search_space, work

def objective(trial):
    time.sleep(.01)
    open(sys.argv[2], 'a').write(f'{trial.number} {os.getpid()}\\n')
    return trial.suggest_float('margin', 0, .8)

work(open_study('s', sys.argv[1], space=search_space('margin'), sampler='random'), objective, 40)
'''


@pytest.mark.slow
def test_processes_share_a_study(tmp_path):
    "Two at once: exactly so many trials, all different, each run by one."
    for file_name in ('a.db', 'a.log'):
        command = [sys.executable, '-c', CODE, str(tmp_path/file_name), str(tmp_path/f'{file_name}.ran')]
        processes = [subprocess.Popen(command, env={**os.environ, 'OMP_NUM_THREADS': '1'}) for _ in range(2)]
        assert [process.wait(120) for process in processes] == [0, 0]
        study = open_study('s', tmp_path/file_name, space=SPACE)
        noted_trials = [line.split() for line in (tmp_path/f'{file_name}.ran').read_text().splitlines()]
        assert count_states(study) == {'COMPLETE': 40}
        assert sorted(int(number) for number, _ in noted_trials) == list(range(40))
        assert len({trial.params['margin'] for trial in study.trials}) == 40
