"Who is alive: by machine, process id and start, whichever way the name was made."
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from fastmatch.study.engine import liveness
from fastmatch.study.engine.liveness import Heartbeat, SilenceWatch, is_alive, worker_name


@pytest.fixture
def process():
    child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)
    yield child
    child.kill()
    child.wait()


def this_machine(): return worker_name().rsplit(':', 2)[0]


def test_this_process_and_another(process):
    worker = worker_name(process.pid)
    assert is_alive(worker) and is_alive(worker_name()) and worker != worker_name()
    # an id that was given to another process since
    assert is_alive(f'{this_machine()}:{process.pid}:1') is False
    process.kill()
    for _ in range(200):
        if not is_alive(worker): break
        time.sleep(.02)
    # killed, and its parent has not noticed: that is dead too
    assert process.returncode is None and is_alive(worker) is False
    process.wait()
    assert is_alive(worker) is False


@pytest.mark.skipif(not psutil.LINUX, reason='reads /proc')
def test_names_are_those_of_stored_studies(process):
    "Earlier versions read the start from /proc, in clock ticks since boot: their workers are judged as ours."
    for process_id in (os.getpid(), process.pid):
        start_ticks = Path(f'/proc/{process_id}/stat').read_text().rpartition(')')[2].split()[19]
        assert worker_name(process_id).split(':')[1:] == [str(process_id), start_ticks]


def test_setting_the_clock_kills_nobody(process, monkeypatch):
    worker = worker_name(process.pid)
    true_boot_time = psutil.boot_time
    monkeypatch.setattr(psutil, 'boot_time', lambda: true_boot_time() + 1)
    assert is_alive(worker)


def test_what_cant_be_told(process, monkeypatch):
    assert is_alive('elsewhere:7:9') is None
    # a name made where the system did not tell the start
    assert is_alive(f'{this_machine()}:{process.pid}:0') is None

    def refuse(process_id): raise psutil.AccessDenied(process_id)
    worker = worker_name(process.pid)
    monkeypatch.setattr(liveness.psutil, 'Process', refuse)
    assert is_alive(worker) is None and worker_name().endswith(f':{os.getpid()}:0')


def test_silence_is_a_heartbeat_that_stands_still(monkeypatch):
    clock = [0.]
    monkeypatch.setattr(liveness.time, 'monotonic', lambda: clock[0])
    watch = SilenceWatch(patience=10.)
    beating_trial = SimpleNamespace(number=0, user_attrs={'beat': 5})
    silent_trial = SimpleNamespace(number=1, user_attrs={'beat': 5})
    for second in range(0, 40, 4):
        clock[0] = float(second)
        beating_trial.user_attrs['beat'] += 1
        assert not watch.is_silent(beating_trial)
        assert watch.is_silent(silent_trial) == (second > 10)
    silent_trial.user_attrs['beat'] += 1
    assert not watch.is_silent(silent_trial)


def test_a_heartbeat_counts_until_it_is_stopped():
    attributes_set = []
    trial = SimpleNamespace(set_user_attr=lambda name, value: attributes_set.append((name, value)))
    with Heartbeat(trial, .01): time.sleep(.2)
    n_beats = len(attributes_set)
    time.sleep(.05)
    assert n_beats > 3 and len(attributes_set) == n_beats and attributes_set[:2] == [('beat', 1), ('beat', 2)]
