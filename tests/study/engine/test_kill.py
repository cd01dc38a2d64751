"SIGKILL at random moments: no finished trial is lost or counted twice, and the study ends with the number asked for."
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import timm
from safetensors.torch import save_file
from typer.testing import CliRunner

from fastmatch.cli import app
from fastmatch.core import seed_everything
from fastmatch.data.sample import demo_path
from fastmatch.study import open_study
from fastmatch.study.engine.work import TRIES
from tests.study.engine.worker import SPACE

ROOT = Path(__file__).parents[3]
ENV = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'}


def finished(study): return {t.number: (t.params, t.value, t.intermediate_values, t.datetime_complete) for t in study.trials if t.state.name in ('COMPLETE', 'PRUNED')}


def killed_again_and_again(start, look, n_kills, n_trials, ready, seed=0):
    "Start, kill at a random moment after `ready`, look whether what was finished still is; at last let it end."
    rng, before = random.Random(seed), {}
    for _ in range(n_kills):
        job = start()
        ready(job)
        time.sleep(2 * rng.random())
        alive = job.poll() is None
        job.send_signal(signal.SIGKILL)
        job.wait(20)
        now = finished(look())
        # nothing finished was lost, changed, or is more than asked
        assert {k: now[k] for k in before} == before and len(now) <= n_trials
        assert alive, 'it was through before the kill: give it more to do'
        before = now
    job = start()
    assert job.wait(300) == 0, job.stderr and job.stderr.read()
    now = finished(look())
    assert {k: now[k] for k in before} == before and len(now) == n_trials
    return look()


def check(study, n_kills):
    states = Counter(t.state.name for t in study.trials)
    died = [t for t in study.trials if t.state.name == 'FAIL']
    assert set(states) <= {'COMPLETE', 'PRUNED', 'FAIL'} and len(died) <= n_kills
    assert all('died' in t.user_attrs['reason'] for t in died)
    # what died is there again, unless the kill came before it had drawn, or it was the last of its tries
    for t in died:
        if not t.params: continue
        if t.user_attrs.get('tries', 1) == TRIES:
            first = t.user_attrs['retry_of']
            assert sum(first in (o.number, o.user_attrs.get('retry_of')) for o in died) == TRIES, (t.number, t.user_attrs)
            continue
        again = [o for o in study.trials if o.number > t.number and all(o.params.get(k) == v for k, v in t.params.items())]
        assert again, (t.number, t.user_attrs)
    return died


@pytest.mark.slow
@pytest.mark.parametrize('file, n_kills', [('a.log', 2), ('a.db', 10)])
def test_workers_killed(file, n_kills, tmp_path):
    n = 12 * n_kills
    def start(): return subprocess.Popen([sys.executable, '-m', 'tests.study.engine.worker', str(tmp_path/file), str(n), str(tmp_path/'notes'), '.2'], cwd=ROOT, env=ENV)
    def notes(): return [o.split() for o in (tmp_path/'notes').read_text().splitlines()] if (tmp_path/'notes').exists() else []
    def ready(job):
        while not any(o[0] == 'up' and int(o[1]) == job.pid for o in notes()):
            assert job.poll() is None
            time.sleep(.02)
    s = killed_again_and_again(start, lambda: open_study('shared', tmp_path/file, space=SPACE), n_kills, n, ready)
    died = check(s, n_kills)
    began = Counter(int(o[1]) for o in notes() if o[0] == 'began')
    assert max(began.values()) == 1 and set(began) >= set(finished(s)) and (died or n_kills < 5)


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
    "A small table and an encoder's weights file."
    folder = tmp_path_factory.mktemp('shop')
    df = pd.read_csv(demo_path()/'listings.csv')
    keep = df.groupby('fold').label_group.transform(lambda o: o.isin(sorted(o.unique())[:6]))
    df[keep].to_csv(folder/'listings.csv', index=False)
    seed_everything(0)
    save_file(timm.create_model('test_efficientnet').state_dict(), folder/'test_efficientnet.safetensors')
    return folder


def call_of(shop, storage):
    return ['tune', str(shop/'listings.csv'), '--images', str(demo_path()/'images'), '--title-col', 'none', '--image-arch', str(shop/'test_efficientnet.safetensors'),
            '--size', '32', '--bs', '16', '--epochs', '2', '--study', 's', '--storage', str(storage), '--pruner', 'asha']


def command(shop, cwd, *args, n_trials=6, **kwargs):
    "`fastmatch tune` as a process."
    return subprocess.Popen([sys.executable, '-c', 'from fastmatch.cli import app; app()', *call_of(shop, 'studies.db'), '--n-trials', str(n_trials), *args], cwd=cwd,
                            env={**ENV, 'NO_COLOR': '1'}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


@pytest.mark.parametrize('jobs, n_kills', [pytest.param(1, 10, marks=pytest.mark.slow), pytest.param(2, 4, marks=pytest.mark.slow)])
def test_the_command_killed(shop, jobs, n_kills, tmp_path):
    n = 6 * n_kills
    def ready(job):
        while 'put aside' not in (line := job.stdout.readline()): assert line, job.stderr.read()
    def look(): return open_study('s', tmp_path/'studies.db')
    s = killed_again_and_again(lambda: command(shop, tmp_path, '--jobs', str(jobs), n_trials=n), look, n_kills, n, ready)
    check(s, jobs * n_kills)
    assert len({t.params['lr'] for t in s.trials if t.state.name != 'FAIL'}) == n


@pytest.mark.slow
def test_the_command_says_what_it_was_worth(shop, tmp_path):
    "Two processes; then the same call again has nothing to do, and a page to write."
    # long enough for the second to be up in time
    longer = '--epochs', '12', '--pruner', 'none'
    job = command(shop, tmp_path, '--jobs', '2', *longer)
    out, err = job.communicate(timeout=200)
    assert job.returncode == 0, err
    assert len(re.findall(r'^trial \d+: recall@1', out, re.M)) == 6 and 'put aside' in out
    # both had a part in it
    s = open_study('s', tmp_path/'studies.db')
    assert len(finished(s)) == 6 and len({t.user_attrs['worker'] for t in s.trials}) == 2
    said = 'no trial was better' if s.best_trial.number == 0 else '95% interval'
    assert said in out and (said == 'no trial was better' or 'default, trial 0' in out)
    again = command(shop, tmp_path, '--out', 'page', *longer)
    out, err = again.communicate(timeout=200)
    assert again.returncode == 0 and not re.findall(r'^trial \d', out, re.M), err
    page = (tmp_path/'page'/'report.html').read_text(encoding='utf-8')
    assert page.count('data:image/png;base64,') >= 2 and said in page and '<script' not in page
    assert len(pd.read_csv(tmp_path/'page'/'trials.csv')) == 6
    # trained otherwise, its trials are no others' peers
    other = command(shop, tmp_path, *longer, '--size', '48', '--bs', '16')
    assert 'begun with size 32' in other.communicate(timeout=200)[1] and other.returncode == 2


@pytest.mark.parametrize('args, word', [(['--space', 'margin,zest'], 'zest'), (['--space', ''], 'empty'), (['--monitor', 'zest'], 'zest'), (['--monitor', 'recall@7'], 'recall@7'),
                                        (['--jobs', '0'], 'jobs=0'), (['--storage', 'postgresql://a:secret@127.0.0.1:1/x'], 'refused'), (['--folds', '2'], 'n_folds=2')])
def test_the_command_refuses_in_a_line(shop, args, word, tmp_path):
    res = CliRunner().invoke(app, [*call_of(shop, tmp_path/'studies.db'), '--n-trials', '2', *args])
    assert res.exit_code == 2 and res.stderr.startswith('fastmatch: ') and len(res.stderr.splitlines()) == 1 and word in res.stderr and 'secret' not in res.output and 'trial 0: recall' not in res.output
