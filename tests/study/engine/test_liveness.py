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
    job = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)
    yield job
    job.kill()
    job.wait()


def machine(): return worker_name().rsplit(':', 2)[0]


def test_this_process_and_another(process):
    worker = worker_name(process.pid)
    assert is_alive(worker) and is_alive(worker_name()) and worker != worker_name()
    # an id that was given to another process since
    assert is_alive(f'{machine()}:{process.pid}:1') is False
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
    for pid in (os.getpid(), process.pid):
        ticks = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]
        assert worker_name(pid).split(':')[1:] == [str(pid), ticks]


def test_setting_the_clock_kills_nobody(process, monkeypatch):
    worker = worker_name(process.pid)
    boot_time = psutil.boot_time
    monkeypatch.setattr(psutil, 'boot_time', lambda: boot_time() + 1)
    assert is_alive(worker)


def test_what_cant_be_told(process, monkeypatch):
    assert is_alive('elsewhere:7:9') is None
    # a name made where the system did not tell the start
    assert is_alive(f'{machine()}:{process.pid}:0') is None

    def refuse(pid): raise psutil.AccessDenied(pid)
    worker = worker_name(process.pid)
    monkeypatch.setattr(liveness.psutil, 'Process', refuse)
    assert is_alive(worker) is None and worker_name().endswith(f':{os.getpid()}:0')


def test_silence_is_a_heartbeat_that_stands_still(monkeypatch):
    now = [0.]
    monkeypatch.setattr(liveness.time, 'monotonic', lambda: now[0])
    watch = SilenceWatch(patience=10.)
    beating, silent = (SimpleNamespace(number=number, user_attrs={'beat': 5}) for number in range(2))
    for second in range(0, 40, 4):
        now[0] = float(second)
        beating.user_attrs['beat'] += 1
        assert not watch.is_silent(beating)
        assert watch.is_silent(silent) == (second > 10)
    silent.user_attrs['beat'] += 1
    assert not watch.is_silent(silent)


def test_a_heartbeat_counts_until_it_is_stopped():
    beats = []
    trial = SimpleNamespace(set_user_attr=lambda key, value: beats.append((key, value)))
    with Heartbeat(trial, .01): time.sleep(.2)
    n_beats = len(beats)
    time.sleep(.05)
    assert n_beats > 3 and len(beats) == n_beats and beats[:2] == [('beat', 1), ('beat', 2)]
