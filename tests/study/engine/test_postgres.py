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


def lines(file): return [o.split() for o in file.read_text().splitlines()] if file.exists() else []


def test_four_workers_and_a_kill(address, tmp_path):
    n, file = 60, tmp_path/'notes'
    env = {**os.environ, 'OMP_NUM_THREADS': '1'}
    jobs = [subprocess.Popen([sys.executable, '-m', 'tests.study.engine.worker', address, str(n), str(file), '.3'], cwd=ROOT, env=env) for _ in range(4)]
    try:
        # all four are at it, and the study is under way
        deadline = time.monotonic() + 200
        while (len({o[2] for o in lines(file) if o[0] == 'began'}) < 4 or sum(o[0] == 'ended' for o in lines(file)) < 12) and time.monotonic() < deadline: time.sleep(.02)
        time.sleep(.3 * random.random())
        jobs[0].send_signal(signal.SIGKILL)
        assert jobs[0].wait(10) == -signal.SIGKILL
        assert [o.wait(200) for o in jobs[1:]] == [0, 0, 0]
    finally:
        for o in jobs: o.kill()

    s = open_study('shared', address, space=SPACE)
    trials = s.get_trials()
    states = Counter(t.state.name for t in trials)
    done = [t for t in trials if t.state.name == 'COMPLETE']
    assert len(done) == n and set(states) <= {'COMPLETE', 'FAIL', 'WAITING'} and states['WAITING'] <= 1
    began = Counter(int(o[1]) for o in lines(file) if o[0] == 'began')
    ended = Counter(int(o[1]) for o in lines(file) if o[0] == 'ended')
    # none run twice: by anyone, by their own notes
    assert max(began.values()) == 1 and {t.number for t in done} <= set(ended)
    # none lost: what came to its end is in the study, but for one that the kill may have hit between note and storage
    killed = [int(o[1]) for o in lines(file) if o[0] == 'began' and int(o[2]) == jobs[0].pid]
    assert set(ended) - {t.number for t in done} <= {killed[-1]}
    assert len({o[2] for o in lines(file) if o[0] == 'ended'}) == 4
    # four draw, and no two draw alike
    assert len({t.params['margin'] for t in done}) >= n - 1
    # what died is failed with the reason; what gave way to another's claim says so
    for t in trials:
        if t.state.name == 'FAIL': assert t.user_attrs['failed'] in ('died', 'surplus'), t
    died = [t for t in trials if t.user_attrs.get('failed') == 'died']
    # the one that it ran, or was about to begin
    assert len(died) <= 1 and all(t.number >= killed[-1] and t.user_attrs.get('worker', f':{jobs[0].pid}:').split(':')[-2] == str(jobs[0].pid) for t in died)
    if died and died[0].params.keys() == SPACE.keys(): assert [t.params for t in trials if t.user_attrs.get('retry_of') == died[0].number] in ([died[0].params], [{}])


def test_a_wrong_password_or_database(address):
    with pytest.raises(InputError, match='"nowhere" does not exist') as e: open_study('s', address.replace('/postgres', '/nowhere'))
    assert 'secret' not in str(e.value)


def test_the_name_stands_for_one_study(address):
    open_study('other', address, space=SPACE)
    with pytest.raises(InputError, match='minimize') as e: open_study('other', address, 'minimize')
    assert 'secret' not in str(e.value)
