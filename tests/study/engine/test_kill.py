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


def finished_trials(study):
    return {trial.number: (trial.params, trial.value, trial.intermediate_values, trial.datetime_complete)
            for trial in study.trials if trial.state.name in ('COMPLETE', 'PRUNED')}


def killed_again_and_again(start_process, read_study, n_kills, n_trials, wait_until_ready, seed=0):
    "Start, kill at a random moment once ready, look whether finished trials still are; then let it end."
    rng = random.Random(seed)
    finished_before = {}
    for _ in range(n_kills):
        process = start_process()
        wait_until_ready(process)
        time.sleep(2 * rng.random())
        was_running = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        finished_now = finished_trials(read_study())
        # nothing finished was lost, changed, or is more than asked
        assert {number: finished_now[number] for number in finished_before} == finished_before
        assert len(finished_now) <= n_trials
        assert was_running, 'it was through before the kill: give it more to do'
        finished_before = finished_now
    process = start_process()
    assert process.wait(300) == 0, process.stderr and process.stderr.read()
    finished_now = finished_trials(read_study())
    assert {number: finished_now[number] for number in finished_before} == finished_before
    assert len(finished_now) == n_trials
    return read_study()


def check_failed_trials(study, n_kills):
    state_counts = Counter(trial.state.name for trial in study.trials)
    dead_trials = [trial for trial in study.trials if trial.state.name == 'FAIL']
    assert set(state_counts) <= {'COMPLETE', 'PRUNED', 'FAIL'} and len(dead_trials) <= n_kills
    assert all('died' in trial.user_attrs['reason'] for trial in dead_trials)
    # what died is there again, unless the kill came before it had drawn, or it was the last of its tries
    for trial in dead_trials:
        if not trial.params: continue
        if trial.user_attrs.get('tries', 1) == MAX_TRIES:
            first_number = trial.user_attrs['retry_of']
            attempts = [other for other in dead_trials
                        if first_number in (other.number, other.user_attrs.get('retry_of'))]
            assert len(attempts) == MAX_TRIES, (trial.number, trial.user_attrs)
            continue
        later_params = [other.params for other in study.trials if other.number > trial.number]
        is_retried = any(trial.params.items() <= params.items() for params in later_params)
        assert is_retried, (trial.number, trial.user_attrs)
    return dead_trials


@pytest.mark.slow
@pytest.mark.parametrize('file_name, n_kills', [('a.log', 2), ('a.db', 10)])
def test_workers_killed(file_name, n_kills, tmp_path):
    n_trials, notes_file = 12 * n_kills, tmp_path/'notes'
    arguments = [str(tmp_path/file_name), str(n_trials), str(notes_file), '.2']
    command = [sys.executable, '-m', 'tests.study.engine.worker', *arguments]
    def start_process(): return subprocess.Popen(command, cwd=ROOT, env=ENV)
    def read_study(): return open_study('shared', tmp_path/file_name, space=SPACE)

    def noted_numbers(event):
        lines = notes_file.read_text().splitlines() if notes_file.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == event]

    def wait_until_ready(process):
        n_begun = len(noted_numbers('began'))
        # on a busy machine a worker may need longer to its first trial than a kill waits
        while process.pid not in noted_numbers('up') or len(noted_numbers('began')) == n_begun:
            assert process.poll() is None
            time.sleep(.02)
    study = killed_again_and_again(start_process, read_study, n_kills, n_trials, wait_until_ready)
    dead_trials = check_failed_trials(study, n_kills)
    began_counts = Counter(noted_numbers('began'))
    assert max(began_counts.values()) == 1 and set(began_counts) >= set(finished_trials(study))
    assert dead_trials or n_kills < 5


@pytest.fixture(scope='module')
def shop(tmp_path_factory):
    "A small table and an encoder's weights file."
    folder = tmp_path_factory.mktemp('shop')
    df = pd.read_csv(demo_path()/'listings.csv')
    by_fold = df.groupby('fold').label_group
    is_kept = by_fold.transform(lambda groups: groups.isin(sorted(groups.unique())[:6]))
    df[is_kept].to_csv(folder/'listings.csv', index=False)
    seed_everything(0)
    save_file(timm.create_model('test_efficientnet').state_dict(), folder/'test_efficientnet.safetensors')
    return folder


def tune_arguments(shop, storage):
    return ['tune', str(shop/'listings.csv'), '--images', str(demo_path()/'images'), '--title-col', 'none',
            '--image-arch', str(shop/'test_efficientnet.safetensors'), '--size', '32', '--bs', '16',
            '--epochs', '2', '--study', 's', '--storage', str(storage), '--pruner', 'asha']


def start_tune(shop, folder, *options, n_trials=6, **keywords):
    "`fastmatch tune` as a process."
    program = [sys.executable, '-c', 'from fastmatch.cli import app; app()']
    arguments = [*tune_arguments(shop, 'studies.db'), '--n-trials', str(n_trials), *options]
    return subprocess.Popen([*program, *arguments], cwd=folder, env={**ENV, 'NO_COLOR': '1'},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keywords)


@pytest.mark.slow
@pytest.mark.parametrize('n_jobs, n_kills', [(1, 10), (2, 4)])
def test_the_command_killed(shop, n_jobs, n_kills, tmp_path):
    n_trials = 6 * n_kills

    def wait_until_ready(process):
        for line in process.stdout:
            if 'put aside' in line: return
        raise AssertionError(process.stderr.read())
    def read_study(): return open_study('s', tmp_path/'studies.db')
    def start_process(): return start_tune(shop, tmp_path, '--jobs', str(n_jobs), n_trials=n_trials)
    study = killed_again_and_again(start_process, read_study, n_kills, n_trials, wait_until_ready)
    check_failed_trials(study, n_jobs * n_kills)
    assert len({trial.params['lr'] for trial in study.trials if trial.state.name != 'FAIL'}) == n_trials


@pytest.mark.slow
def test_the_command_says_what_it_was_worth(shop, tmp_path):
    "Two processes; then the same call again has nothing to do, and a page to write."
    # long enough for the second to be up in time
    longer_options = '--epochs', '12', '--pruner', 'none'
    process = start_tune(shop, tmp_path, '--jobs', '2', *longer_options)
    output, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert len(re.findall(r'^trial \d+: recall@1', output, re.M)) == 6 and 'put aside' in output
    # both had a part in it
    study = open_study('s', tmp_path/'studies.db')
    assert len(finished_trials(study)) == 6
    assert len({trial.user_attrs['worker'] for trial in study.trials}) == 2
    verdict = 'no trial was better' if study.best_trial.number == 0 else '95% interval'
    assert verdict in output and (verdict == 'no trial was better' or 'default, trial 0' in output)
    second_process = start_tune(shop, tmp_path, '--out', 'page', *longer_options)
    output, errors = second_process.communicate(timeout=200)
    assert second_process.returncode == 0 and not re.findall(r'^trial \d', output, re.M), errors
    report = (tmp_path/'page'/'report.html').read_text(encoding='utf-8')
    assert report.count('data:image/png;base64,') >= 2 and verdict in report and '<script' not in report
    assert len(pd.read_csv(tmp_path/'page'/'trials.csv')) == 6
    # trained otherwise, its trials are no others' peers
    other_process = start_tune(shop, tmp_path, *longer_options, '--size', '48', '--bs', '16')
    assert 'begun with size 32' in other_process.communicate(timeout=200)[1] and other_process.returncode == 2


@pytest.mark.parametrize('options, message', [
    (['--space', 'margin,zest'], 'zest'), (['--space', ''], 'empty'), (['--monitor', 'zest'], 'zest'),
    (['--monitor', 'recall@7'], 'recall@7'), (['--jobs', '0'], 'jobs=0'),
    (['--storage', 'postgresql://a:secret@127.0.0.1:1/x'], 'refused'), (['--folds', '2'], 'n_folds=2')])
def test_the_command_refuses_in_a_line(shop, options, message, tmp_path):
    arguments = [*tune_arguments(shop, tmp_path/'studies.db'), '--n-trials', '2', *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and result.stderr.startswith('fastmatch: ')
    assert len(result.stderr.splitlines()) == 1 and message in result.stderr
    assert 'secret' not in result.output and 'trial 0: recall' not in result.output
