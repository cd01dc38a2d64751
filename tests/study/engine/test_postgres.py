"Four workers on one study in a real PostgreSQL, one of them killed on the way: none run twice, none lost."
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from fastmatch.core import InputError
from fastmatch.study import open_study
from tests.study.engine.postgres import server, why_no_server
from tests.study.engine.worker import SPACE

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(why_no_server() is not None, reason=str(why_no_server()))


@pytest.fixture(scope='module')
def address():
    with server() as server_address: yield server_address


def noted(notes_file, event):
    "[(trial's number, process id)] of a file's lines that begin with `event`."
    lines = [line.split() for line in notes_file.read_text().splitlines()] if notes_file.exists() else []
    return [(int(number), int(process_id))
            for noted_event, number, process_id, *_ in (line for line in lines if len(line) > 2)
            if noted_event == event]


@pytest.mark.slow
def test_four_workers_and_a_kill(address, tmp_path):
    n_trials, notes_file = 60, tmp_path/'notes'
    arguments = [address, str(n_trials), str(notes_file), '.3']
    command = [sys.executable, '-m', 'tests.study.engine.worker', *arguments]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    processes = [subprocess.Popen(command, cwd=ROOT, env=environment) for _ in range(4)]

    def is_under_way():
        workers = {process_id for _, process_id in noted(notes_file, 'began')}
        return len(workers) == 4 and len(noted(notes_file, 'ended')) >= 12
    try:
        # all four are at it, and the study is under way
        deadline = time.monotonic() + 200
        while not is_under_way() and time.monotonic() < deadline: time.sleep(.02)
        time.sleep(.3 * random.random())
        processes[0].send_signal(signal.SIGKILL)
        assert processes[0].wait(10) == -signal.SIGKILL
        assert [process.wait(200) for process in processes[1:]] == [0, 0, 0]
    finally:
        for process in processes: process.kill()

    trials = open_study('shared', address, space=SPACE).get_trials()
    state_counts = Counter(trial.state.name for trial in trials)
    complete_trials = [trial for trial in trials if trial.state.name == 'COMPLETE']
    assert len(complete_trials) == n_trials
    assert set(state_counts) <= {'COMPLETE', 'FAIL', 'WAITING'} and state_counts['WAITING'] <= 1
    began_counts = Counter(number for number, _ in noted(notes_file, 'began'))
    ended_numbers = {number for number, _ in noted(notes_file, 'ended')}
    # none run twice: by anyone, by their own notes
    assert max(began_counts.values()) == 1 and {trial.number for trial in complete_trials} <= ended_numbers
    # none lost: what ended is in the study, but for one that the kill may have hit between note and storage
    killed_process_id = processes[0].pid
    begun_by_killed = [number for number, process_id in noted(notes_file, 'began')
                       if process_id == killed_process_id]
    last_of_killed = begun_by_killed[-1]
    assert ended_numbers - {trial.number for trial in complete_trials} <= {last_of_killed}
    assert len({process_id for _, process_id in noted(notes_file, 'ended')}) == 4
    # four draw, and no two draw alike
    assert len({trial.params['margin'] for trial in complete_trials}) >= n_trials - 1
    check_failures(trials, last_of_killed, killed_process_id)


def check_failures(trials, last_of_killed, killed_process_id):
    "What died is failed with the reason; what gave way to another's claim says so."
    for trial in trials:
        if trial.state.name == 'FAIL': assert trial.user_attrs['failed'] in ('died', 'surplus'), trial
    dead_trials = [trial for trial in trials if trial.user_attrs.get('failed') == 'died']
    # the one that it ran, or was about to begin
    assert len(dead_trials) <= 1
    for trial in dead_trials:
        worker = trial.user_attrs.get('worker', f':{killed_process_id}:')
        assert trial.number >= last_of_killed and worker.split(':')[-2] == str(killed_process_id)
    if dead_trials and dead_trials[0].params.keys() == SPACE.keys():
        retried_params = [trial.params for trial in trials
                          if trial.user_attrs.get('retry_of') == dead_trials[0].number]
        assert retried_params in ([dead_trials[0].params], [{}])


def test_a_wrong_password_or_database(address):
    with pytest.raises(InputError, match='"nowhere" does not exist') as error:
        open_study('s', address.replace('/postgres', '/nowhere'))
    assert 'secret' not in str(error.value)


def test_the_name_stands_for_one_study(address):
    open_study('other', address, space=SPACE)
    with pytest.raises(InputError, match='minimize') as error: open_study('other', address, 'minimize')
    assert 'secret' not in str(error.value)
