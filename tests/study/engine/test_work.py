"A study holds as many trials as were asked for, whoever ran them; what fails is recorded with its reason."
import os
import subprocess
import sys
import threading
import time
from collections import Counter

import optuna
import pytest

from fastmatch.core import InputError
from fastmatch.study import WrongStudy, open_study, spaces, work
from fastmatch.study.engine.work import TRIES, _claim, _mine, _run, _started, is_alive, me, reap

SPACE = spaces('margin')
def draw(t): return t.suggest_float('margin', 0, .8)
def states(s): return Counter(t.state.name for t in s.trials)


@pytest.fixture(params=[None, 'a.db', 'a.log'])
def study(request, tmp_path): return open_study('s', request.param and tmp_path/request.param, space=SPACE)


def abandoned(study, worker, params=True):
    "A trial that a worker took and never finished."
    t = study.ask()
    if worker: t.set_user_attr('worker', worker)
    if params: draw(t)
    return t.number


def dead():
    "A worker on this machine whose process is gone."
    host = me().rsplit(':', 2)[0]
    job = subprocess.Popen([sys.executable, '-c', ''])
    job.wait()
    return f'{host}:{job.pid}:1'


def test_so_many_and_no_more(study):
    work(study, draw, 4)
    work(study, draw, 4)
    assert states(study) == {'COMPLETE': 4}
    work(study, draw, 7)
    assert states(study) == {'COMPLETE': 7} and [t.number for t in study.trials] == list(range(7))


def test_failures_are_recorded_and_dont_count(study):
    def objective(t):
        if t.number == 1: raise KeyError('no such file')
        if t.number == 2: return float('nan')
        if t.number == 3: return None
        if t.number == 4: raise optuna.TrialPruned
        return draw(t)
    work(study, objective, 6)
    assert states(study) == {'COMPLETE': 5, 'PRUNED': 1, 'FAIL': 3}
    assert [study.trials[i].user_attrs['reason'] for i in (1, 2, 3)] == ["KeyError: 'no such file'", 'the objective returned nan', 'the objective returned None']


def test_too_many_failures_stop_the_study(study):
    def objective(t):
        if t.number % 3: raise ValueError(f'bad {t.number}')
        return draw(t)
    with pytest.raises(InputError, match='5 of 8 trials failed') as e: work(study, objective, 20, max_failed=.6)
    assert 'bad 7' in str(e.value) and states(study) == {'FAIL': 5, 'COMPLETE': 3}
    # the cause is mended: earlier failures are forgiven
    work(study, draw, 20)
    assert states(study) == {'FAIL': 5, 'COMPLETE': 20}


def test_what_no_trial_can_mend_stops_at_once(study):
    def objective(t): raise WrongStudy('no such monitor')
    for n in range(1, 6):
        with pytest.raises(WrongStudy, match='no such monitor'): work(study, objective, 20)
        assert states(study)['FAIL'] == n
    # mended, however often it took: the kit as it comes is the first again
    work(study, draw, 2)
    assert study.trials[5].params == {'margin': .3} and study.trials[5].user_attrs['default'] and states(study) == {'FAIL': 5, 'COMPLETE': 2}


def test_an_interrupted_trial_is_tried_again(study):
    seen = []
    def objective(t):
        seen.append(draw(t))
        if len(seen) == 3: raise KeyboardInterrupt
        return seen[-1]
    with pytest.raises(KeyboardInterrupt): work(study, objective, 5)
    assert states(study) == {'COMPLETE': 2, 'FAIL': 1, 'WAITING': 1} and 'interrupted' in study.trials[2].user_attrs['reason']
    work(study, objective, 5)
    assert states(study) == {'COMPLETE': 5, 'FAIL': 1}
    # the next that ran had the same parameters
    assert seen[3] == seen[2] and study.trials[3].user_attrs['retry_of'] == 2 and len(set(seen)) == 5


def test_a_dead_workers_trial_is_tried_again(tmp_path):
    s = open_study('s', tmp_path/'a.db', space=SPACE)
    work(s, draw, 2)
    lost = abandoned(s, dead())
    assert s.trials[lost].state.name == 'RUNNING'
    work(s, draw, 4)
    assert states(s) == {'COMPLETE': 4, 'FAIL': 1} and 'died' in s.trials[lost].user_attrs['reason']
    assert s.trials[lost + 1].params == s.trials[lost].params


def test_the_first_trial_is_tried_again_even_if_it_drew_nothing(tmp_path):
    s = open_study('s', tmp_path/'a.db', space=SPACE)
    for worker in (dead(), None): abandoned(s, worker, params=False)
    work(s, draw, 2)
    assert [t.params for t in s.trials if t.state.name == 'COMPLETE'][0] == {'margin': .3} and states(s) == {'FAIL': 2, 'COMPLETE': 2}
    assert s.trials[2].user_attrs['default']


def test_parameters_that_kill_are_given_up(tmp_path):
    s = open_study('s', tmp_path/'a.db', space=SPACE)
    for _ in range(TRIES):
        abandoned(s, dead())
        reap(s)
    assert states(s) == {'FAIL': TRIES} and len({t.params['margin'] for t in s.trials}) == 1


def test_the_living_are_left_alone(tmp_path):
    s = open_study('s', tmp_path/'a.db', space=SPACE)
    other = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)
    try:
        worker = f'{me().rsplit(":", 2)[0]}:{other.pid}:{_started(other.pid)}'
        assert is_alive(worker) and is_alive(me())
        # an id that was given to another process since
        assert is_alive(f'{worker.rsplit(":", 1)[0]}:1') is False
        abandoned(s, worker)
        assert reap(s) == [] and states(s) == {'RUNNING': 1}
        other.kill()
        for _ in range(200):
            if not is_alive(worker): break
            time.sleep(.02)
        # killed and not buried: that is dead too
        assert other.returncode is None and reap(s) == [0]
    finally:
        other.kill()
        other.wait()


def test_a_trial_of_this_process_that_nobody_runs_is_dead(tmp_path):
    s = open_study('s', tmp_path/'a.db', space=SPACE)
    abandoned(s, me())
    assert reap(s) == [0]
    found = []
    work(s, lambda t: (found.append(reap(s)), draw(t))[1], 2)
    assert found == [[], []]


def test_another_machines_worker_is_dead_when_it_is_silent(tmp_path):
    s = open_study('s', tmp_path/'a.db', space=SPACE)
    t, lost = s.ask(), abandoned(s, 'elsewhere:7:9')
    t.set_user_attr('worker', 'elsewhere:8:9')
    assert is_alive('elsewhere:7:9') is None and reap(s) == []
    said, n = [], [0]
    def echo(o):
        said.append(o)
        # one of them goes on giving signs, until the other is taken for dead
    stop = threading.Event()
    def beats():
        while not stop.wait(.05):
            n[0] += 1
            t.set_user_attr('beat', n[0])
    thread = threading.Thread(target=beats)
    thread.start()
    try: work(s, draw, 3, timeout=3, echo=echo, beat=.1)
    finally:
        stop.set()
        thread.join()
    assert s.trials[lost].state.name == 'FAIL' and s.trials[t.number].state.name == 'RUNNING' and n[0] > 5
    assert states(s) == {'RUNNING': 1, 'FAIL': 1, 'COMPLETE': 2} and any('waiting' in o for o in said if isinstance(o, str))


def test_a_worker_gives_signs_of_life(tmp_path):
    s = open_study('s', tmp_path/'a.db', space=SPACE)
    work(s, lambda t: (time.sleep(.4), draw(t))[1], 1, beat=.05)
    assert s.trials[0].user_attrs['beat'] >= 3 and s.trials[0].user_attrs['worker'] == me()


def test_one_taken_for_dead_while_asleep_is_not_counted_twice(tmp_path):
    s = open_study('s', tmp_path/'a.db', space=SPACE)
    def objective(t):
        if t.number == 1:
            draw(t)
            from fastmatch.study.engine.work import _again, _fail
            frozen = s.trials[1]
            assert _fail(s, frozen, 'silent', 'died') and not _fail(s, frozen, 'silent', 'died')
            _again(s, frozen)
        return draw(t) if t.number != 1 else .5
    work(s, objective, 4)
    assert states(s) == {'COMPLETE': 4, 'FAIL': 1} and s.trials[1].value is None and s.trials[2].params == s.trials[1].params


def test_whoever_comes_too_late_gives_way(tmp_path):
    "Two workers without a common lock see the last place free at once: the later number gives up."
    s = open_study('s', tmp_path/'a.db', space=SPACE)
    work(s, draw, 2)
    a, b = _claim(s, 3), _claim(s, 3)
    assert a is not None and b is None and s.trials[3].user_attrs['reason'] == 'more than asked'
    _run(s, a, draw, 1.)


def test_a_trial_taken_and_not_yet_begun_is_alive(tmp_path):
    "Another thread of this process comes between the claim and the start."
    s = open_study('s', tmp_path/'a.db', space=SPACE)
    trial = _claim(s, 2)
    assert reap(s) == [] and _run(s, trial, draw, 1.).state.name == 'COMPLETE'
    # given up or through, it is nobody's
    assert _claim(s, 1) is None and not _mine


def test_threads_share_a_study(study):
    jobs, wrong = [], []
    def go():
        try: work(study, draw, 24)
        except BaseException as e: wrong.append(e)
    for _ in range(3):
        jobs.append(threading.Thread(target=go))
        jobs[-1].start()
    for o in jobs: o.join()
    assert not wrong and states(study)['COMPLETE'] == 24 and {t.user_attrs['failed'] for t in study.trials if t.state.name == 'FAIL'} <= {'surplus'}


def test_a_storage_lost_on_the_way_is_said_in_words(tmp_path):
    s = open_study('s', tmp_path/'a.db', space=SPACE)
    def objective(t):
        if t.number == 2: (tmp_path/'a.db').write_bytes(b'x' * 5000)
        return draw(t)
    with pytest.raises(InputError, match="'s': its storage can not be read or written any more.*not a database"): work(s, objective, 5)


def test_timeout_begins_no_more(study):
    work(study, lambda t: (time.sleep(.2), draw(t))[1], 50, timeout=.5)
    assert 2 <= len(study.trials) <= 6 and set(states(study)) == {'COMPLETE'}


@pytest.mark.parametrize('kw', [dict(n_trials=0), dict(n_trials=2, max_failed=2), dict(n_trials=2, max_failed=1)])
def test_bad_options(kw):
    with pytest.raises(InputError, match=next(k for k in reversed(kw))): work(open_study('s'), draw, **kw)


def test_queued_trials_beyond_the_number_wait(study):
    for i in range(5): study.enqueue_trial({'margin': i / 10})
    work(study, draw, 3)
    assert states(study) == {'COMPLETE': 3, 'WAITING': 3}
    work(study, draw, 6)
    assert [t.params['margin'] for t in study.trials] == [.3, 0, .1, .2, .3, .4]


@pytest.mark.slow
def test_processes_share_a_study(tmp_path):
    "Two at once: exactly so many trials, all different, each run by one."
    code = ('import sys; from fastmatch.study import open_study, spaces, work; import os, time\n'
            'def f(t):\n    time.sleep(.01); open(sys.argv[2], "a").write(f"{t.number} {os.getpid()}\\n"); return t.suggest_float("margin", 0, .8)\n'
            'work(open_study("s", sys.argv[1], space=spaces("margin"), sampler="random"), f, 40)')
    for name in ('a.db', 'a.log'):
        jobs = [subprocess.Popen([sys.executable, '-c', code, str(tmp_path/name), str(tmp_path/f'{name}.ran')], env={**os.environ, 'OMP_NUM_THREADS': '1'})
                for _ in range(2)]
        assert [o.wait(120) for o in jobs] == [0, 0]
        s = open_study('s', tmp_path/name, space=SPACE)
        ran = [o.split() for o in (tmp_path/f'{name}.ran').read_text().splitlines()]
        assert states(s) == {'COMPLETE': 40} and sorted(int(o) for o, _ in ran) == list(range(40))
        assert len({t.params['margin'] for t in s.trials}) == 40
