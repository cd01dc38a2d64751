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
from tests.study.engine.postgres import lacking, server
from tests.study.engine.worker import SPACE

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(lacking() is not None, reason=str(lacking()))


@pytest.fixture(scope='module')
def address():
    with server() as url: yield url


def noted(file, word):
    "[(trial's number, process id)] of a file's lines that begin with `word`."
    lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return [(int(number), int(pid)) for first, number, pid, *_ in (line for line in lines if len(line) > 2)
            if first == word]


def test_four_workers_and_a_kill(address, tmp_path):
    n_trials, file = 60, tmp_path/'notes'
    command = [sys.executable, '-m', 'tests.study.engine.worker', address, str(n_trials), str(file), '.3']
    jobs = [subprocess.Popen(command, cwd=ROOT, env={**os.environ, 'OMP_NUM_THREADS': '1'}) for _ in range(4)]

    def is_under_way():
        return len({pid for _, pid in noted(file, 'began')}) == 4 and len(noted(file, 'ended')) >= 12
    try:
        # all four are at it, and the study is under way
        deadline = time.monotonic() + 200
        while not is_under_way() and time.monotonic() < deadline: time.sleep(.02)
        time.sleep(.3 * random.random())
        jobs[0].send_signal(signal.SIGKILL)
        assert jobs[0].wait(10) == -signal.SIGKILL
        assert [job.wait(200) for job in jobs[1:]] == [0, 0, 0]
    finally:
        for job in jobs: job.kill()

    trials = open_study('shared', address, space=SPACE).get_trials()
    states = Counter(trial.state.name for trial in trials)
    complete = [trial for trial in trials if trial.state.name == 'COMPLETE']
    assert len(complete) == n_trials
    assert set(states) <= {'COMPLETE', 'FAIL', 'WAITING'} and states['WAITING'] <= 1
    began = Counter(number for number, _ in noted(file, 'began'))
    ended = {number for number, _ in noted(file, 'ended')}
    # none run twice: by anyone, by their own notes
    assert max(began.values()) == 1 and {trial.number for trial in complete} <= ended
    # none lost: what ended is in the study, but for one that the kill may have hit between note and storage
    killed_pid = jobs[0].pid
    last_of_killed = [number for number, pid in noted(file, 'began') if pid == killed_pid][-1]
    assert ended - {trial.number for trial in complete} <= {last_of_killed}
    assert len({pid for _, pid in noted(file, 'ended')}) == 4
    # four draw, and no two draw alike
    assert len({trial.params['margin'] for trial in complete}) >= n_trials - 1
    check_failures(trials, last_of_killed, killed_pid)


def check_failures(trials, last_of_killed, killed_pid):
    "What died is failed with the reason; what gave way to another's claim says so."
    for trial in trials:
        if trial.state.name == 'FAIL': assert trial.user_attrs['failed'] in ('died', 'surplus'), trial
    died = [trial for trial in trials if trial.user_attrs.get('failed') == 'died']
    # the one that it ran, or was about to begin
    assert len(died) <= 1
    for trial in died:
        worker = trial.user_attrs.get('worker', f':{killed_pid}:')
        assert trial.number >= last_of_killed and worker.split(':')[-2] == str(killed_pid)
    if died and died[0].params.keys() == SPACE.keys():
        retries = [trial.params for trial in trials if trial.user_attrs.get('retry_of') == died[0].number]
        assert retries in ([died[0].params], [{}])


def test_a_wrong_password_or_database(address):
    with pytest.raises(InputError, match='"nowhere" does not exist') as error:
        open_study('s', address.replace('/postgres', '/nowhere'))
    assert 'secret' not in str(error.value)


def test_the_name_stands_for_one_study(address):
    open_study('other', address, space=SPACE)
    with pytest.raises(InputError, match='minimize') as error: open_study('other', address, 'minimize')
    assert 'secret' not in str(error.value)
