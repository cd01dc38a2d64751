"SIGKILL at random moments: no finished trial is lost or counted twice, and the study ends as asked for."
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
from fastmatch.data.demo import demo_path
from fastmatch.study import open_study
from fastmatch.study.engine.work import MAX_TRIES
from tests.study.engine.worker import SPACE

ROOT = Path(__file__).parents[3]
PYTHONPATH = f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'
ENV = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': PYTHONPATH}


def finished(study):
    return {trial.number: (trial.params, trial.value, trial.intermediate_values, trial.datetime_complete)
            for trial in study.trials if trial.state.name in ('COMPLETE', 'PRUNED')}


def killed_again_and_again(start, look, n_kills, n_trials, ready, seed=0):
    "Start, kill at a random moment after `ready`, look whether finished trials still are; then let it end."
    rng = random.Random(seed)
    before = {}
    for _ in range(n_kills):
        job = start()
        ready(job)
        time.sleep(2 * rng.random())
        alive = job.poll() is None
        job.send_signal(signal.SIGKILL)
        job.wait(20)
        now = finished(look())
        # nothing finished was lost, changed, or is more than asked
        assert {number: now[number] for number in before} == before and len(now) <= n_trials
        assert alive, 'it was through before the kill: give it more to do'
        before = now
    job = start()
    assert job.wait(300) == 0, job.stderr and job.stderr.read()
    now = finished(look())
    assert {number: now[number] for number in before} == before and len(now) == n_trials
    return look()


def check(study, n_kills):
    states = Counter(trial.state.name for trial in study.trials)
    died = [trial for trial in study.trials if trial.state.name == 'FAIL']
    assert set(states) <= {'COMPLETE', 'PRUNED', 'FAIL'} and len(died) <= n_kills
    assert all('died' in trial.user_attrs['reason'] for trial in died)
    # what died is there again, unless the kill came before it had drawn, or it was the last of its tries
    for trial in died:
        if not trial.params: continue
        if trial.user_attrs.get('tries', 1) == MAX_TRIES:
            first = trial.user_attrs['retry_of']
            tries = [other for other in died if first in (other.number, other.user_attrs.get('retry_of'))]
            assert len(tries) == MAX_TRIES, (trial.number, trial.user_attrs)
            continue
        later = [other.params for other in study.trials if other.number > trial.number]
        is_retried = any(trial.params.items() <= params.items() for params in later)
        assert is_retried, (trial.number, trial.user_attrs)
    return died


@pytest.mark.slow
@pytest.mark.parametrize('file, n_kills', [('a.log', 2), ('a.db', 10)])
def test_workers_killed(file, n_kills, tmp_path):
    n_trials, file_of_notes = 12 * n_kills, tmp_path/'notes'
    arguments = [str(tmp_path/file), str(n_trials), str(file_of_notes), '.2']
    command = [sys.executable, '-m', 'tests.study.engine.worker', *arguments]
    def start(): return subprocess.Popen(command, cwd=ROOT, env=ENV)
    def look(): return open_study('shared', tmp_path/file, space=SPACE)

    def notes(word):
        lines = file_of_notes.read_text().splitlines() if file_of_notes.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == word]

    def ready(job):
        while job.pid not in notes('up'):
            assert job.poll() is None
            time.sleep(.02)
    study = killed_again_and_again(start, look, n_kills, n_trials, ready)
    died = check(study, n_kills)
    began = Counter(notes('began'))
    assert max(began.values()) == 1 and set(began) >= set(finished(study)) and (died or n_kills < 5)


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
    "A small table and an encoder's weights file."
    folder = tmp_path_factory.mktemp('shop')
    df = pd.read_csv(demo_path()/'listings.csv')
    keep = df.groupby('fold').label_group.transform(lambda groups: groups.isin(sorted(groups.unique())[:6]))
    df[keep].to_csv(folder/'listings.csv', index=False)
    seed_everything(0)
    save_file(timm.create_model('test_efficientnet').state_dict(), folder/'test_efficientnet.safetensors')
    return folder


def call_of(shop, storage):
    return ['tune', str(shop/'listings.csv'), '--images', str(demo_path()/'images'), '--title-col', 'none',
            '--image-arch', str(shop/'test_efficientnet.safetensors'), '--size', '32', '--bs', '16',
            '--epochs', '2', '--study', 's', '--storage', str(storage), '--pruner', 'asha']


def command(shop, cwd, *args, n_trials=6, **keywords):
    "`fastmatch tune` as a process."
    start = [sys.executable, '-c', 'from fastmatch.cli import app; app()']
    call = [*call_of(shop, 'studies.db'), '--n-trials', str(n_trials), *args]
    return subprocess.Popen([*start, *call], cwd=cwd, env={**ENV, 'NO_COLOR': '1'}, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, **keywords)


@pytest.mark.slow
@pytest.mark.parametrize('jobs, n_kills', [(1, 10), (2, 4)])
def test_the_command_killed(shop, jobs, n_kills, tmp_path):
    n_trials = 6 * n_kills

    def ready(job):
        for line in job.stdout:
            if 'put aside' in line: return
        raise AssertionError(job.stderr.read())
    def look(): return open_study('s', tmp_path/'studies.db')
    def start(): return command(shop, tmp_path, '--jobs', str(jobs), n_trials=n_trials)
    study = killed_again_and_again(start, look, n_kills, n_trials, ready)
    check(study, jobs * n_kills)
    assert len({trial.params['lr'] for trial in study.trials if trial.state.name != 'FAIL'}) == n_trials


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
    study = open_study('s', tmp_path/'studies.db')
    assert len(finished(study)) == 6 and len({trial.user_attrs['worker'] for trial in study.trials}) == 2
    verdict = 'no trial was better' if study.best_trial.number == 0 else '95% interval'
    assert verdict in out and (verdict == 'no trial was better' or 'default, trial 0' in out)
    again = command(shop, tmp_path, '--out', 'page', *longer)
    out, err = again.communicate(timeout=200)
    assert again.returncode == 0 and not re.findall(r'^trial \d', out, re.M), err
    page = (tmp_path/'page'/'report.html').read_text(encoding='utf-8')
    assert page.count('data:image/png;base64,') >= 2 and verdict in page and '<script' not in page
    assert len(pd.read_csv(tmp_path/'page'/'trials.csv')) == 6
    # trained otherwise, its trials are no others' peers
    other = command(shop, tmp_path, *longer, '--size', '48', '--bs', '16')
    assert 'begun with size 32' in other.communicate(timeout=200)[1] and other.returncode == 2


@pytest.mark.parametrize('args, word', [
    (['--space', 'margin,zest'], 'zest'), (['--space', ''], 'empty'), (['--monitor', 'zest'], 'zest'),
    (['--monitor', 'recall@7'], 'recall@7'), (['--jobs', '0'], 'jobs=0'),
    (['--storage', 'postgresql://a:secret@127.0.0.1:1/x'], 'refused'), (['--folds', '2'], 'n_folds=2')])
def test_the_command_refuses_in_a_line(shop, args, word, tmp_path):
    result = CliRunner().invoke(app, [*call_of(shop, tmp_path/'studies.db'), '--n-trials', '2', *args])
    assert result.exit_code == 2 and result.stderr.startswith('fastmatch: ')
    assert len(result.stderr.splitlines()) == 1 and word in result.stderr
    assert 'secret' not in result.output and 'trial 0: recall' not in result.output
