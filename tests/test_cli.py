"The command line as a user meets it: help at once, one-line errors, a demo whose files hold what they say."
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from fastmatch.data.demo import demo_path
from fastmatch.jobs.options import SAMPLE_SIZE, RuleChoice
from fastmatch.models.weights import IMAGE_PACKAGES, TITLE_PACKAGES

HEAVY = ('torch', 'fastai', 'timm', 'transformers', 'pandas', 'scipy', 'PIL', 'sklearn', 'faiss', 'optuna')
weights = [IMAGE_PACKAGES['tf_efficientnet_lite0'], TITLE_PACKAGES['all-MiniLM-L6-v2']]


def command(*args, **kwargs):
    "The installed script, from another folder than the repository, without colors and on a wide terminal."
    script = Path(sys.executable).with_name('fastmatch')
    assert script.exists(), f'{script} is missing: pip install -e .'
    environment = {**os.environ, 'NO_COLOR': '1', 'COLUMNS': '200', 'TERM': 'dumb'}
    return subprocess.run([str(script), *args], capture_output=True, text=True, env=environment,
                          encoding='utf-8', **kwargs)


@pytest.mark.parametrize('args, words', [
    (['--help'], ['demo', 'Match product listings']),
    (['demo', '--help'], ['--out', '--quick', '--seed', 'matches.csv', 'summary.json'])])
def test_help_names_what_there_is(tmp_path, args, words):
    finished = command(*args, cwd=tmp_path)
    assert finished.returncode == 0 and finished.stderr == ''
    assert all(word in finished.stdout for word in words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('args', [['--help'], ['demo', '--help'], ['tune', '--help']])
def test_help_imports_nothing_heavy(args):
    code = ('import sys; from typer.testing import CliRunner; from fastmatch.cli import app; '
            f'result = CliRunner().invoke(app, {args}); '
            f'heavy = [name for name in {HEAVY} if name in sys.modules]; '
            'print(result.exit_code, heavy, "--help" in result.output)')
    finished = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == '0 [] True'


def test_no_command_shows_the_help(tmp_path):
    finished = command(cwd=tmp_path)
    assert 'demo' in finished.stdout + finished.stderr and 'Traceback' not in finished.stderr


@pytest.mark.parametrize('args, word', [
    (['dmeo'], 'dmeo'), (['demo', '--quik'], '--quik'), (['demo', '--seed', 'x'], '--seed')])
def test_wrong_arguments_are_named(tmp_path, args, word):
    finished = command(*args, cwd=tmp_path)
    assert finished.returncode == 2 and word in finished.stderr and finished.stdout == ''
    assert 'Traceback' not in finished.stderr


def test_out_that_is_a_file_is_one_line(tmp_path):
    file = tmp_path/'out.txt'
    file.write_text('mine')
    finished = command('demo', '--quick', '--out', str(file), cwd=tmp_path)
    assert finished.returncode == 2 and file.read_text() == 'mine' and list(tmp_path.iterdir()) == [file]
    lines = [line for line in finished.stderr.splitlines() if line]
    assert lines == [f'fastmatch: out={file}: is a file, not a folder'], finished.stderr


@pytest.mark.parametrize('error, code', [('InputError', 2), ('MissingPackage', 2), ('KeyError', 1)])
def test_only_our_errors_are_shortened(tmp_path, monkeypatch, error, code):
    "What the user can mend is a line on stderr; a bug of ours keeps its traceback."
    import fastmatch.core
    import fastmatch.jobs.train
    from fastmatch.cli import app
    kind = getattr(fastmatch.core, error, KeyError)

    def run(*args, **kwargs): raise kind('row 3 is odd')
    monkeypatch.setattr(fastmatch.jobs.train, 'run', run)
    result = CliRunner().invoke(app, ['demo', '--out', str(tmp_path/'out')])
    assert result.exit_code == code
    assert ('fastmatch: row 3 is odd' in result.stderr) == (code == 2)
    assert isinstance(result.exception, KeyError) == (code == 1)


@pytest.fixture
def calls(monkeypatch):
    "The calls of the main job, which ends before it begins."
    import fastmatch.jobs.train
    found = []

    def run(df, path, out, **kwargs):
        found.append((len(df), path, out, kwargs))
        raise fastmatch.core.InputError('enough')
    monkeypatch.setattr(fastmatch.jobs.train, 'run', run)
    return found


def test_the_demos_options_reach_the_job(tmp_path, calls):
    from fastmatch.cli import app

    CliRunner().invoke(
        app, ['demo', '--quick', '--seed', '7', '--rule', 'plain', '--out', str(tmp_path / 'a b')]
    )
    CliRunner().invoke(app, ['demo'])
    (n, path, out, quick), (_, _, where, full) = calls
    assert n == 2100 and path == demo_path()/'images'
    assert out == tmp_path/'a b' and where == Path('fastmatch-demo')
    assert quick['fold_col'] == 'fold' and quick['seed'] == 7 and full['seed'] == 0
    assert quick['choice'] == RuleChoice('plain', seed=7) and full['choice'] == RuleChoice('ladder', seed=0)
    assert quick['catalogue'] == full['catalogue'] == 'heldout'
    assert quick['size'] == full['size'] == SAMPLE_SIZE
    assert (quick['epochs'], full['epochs']) == (2, 14) and 'lr' in quick and 'lr' not in full


@pytest.mark.parametrize('option', ['--group-col', '--label-col'])
def test_every_option_of_train_reaches_the_job(tmp_path, calls, option):
    "Each under its own name; --label-col is an earlier name of --group-col."
    from fastmatch.cli import app
    from fastmatch.data.columns import Columns
    from fastmatch.jobs.options import Training
    table = tmp_path/'t.csv'
    table.write_text('a,b,c,d,e,f\n1,1.png,tea,g,0,0f\n2,2.png,tea,g,0,1f\n')
    columns = ['--id-col', 'a', '--image-col', 'b', '--title-col', 'c', option, 'd', '--fold-col', 'e',
               '--phash-col', 'f']
    options = ['--image-arch', 'i', '--text-arch', 't', '--epochs', '3', '--lr', '.5', '--bs', '7',
               '--size', '33', '--aug', 'none', '--folds', '4', '--valid-fold', '2', '--on-error', 'skip',
               '--seed', '5', '--workers', '1', '--device', 'cpu', '--rule', 'tune', '--matchless', '.3']
    places = ['--out', str(tmp_path/'out'), '--images', str(tmp_path)]
    result = CliRunner().invoke(app, ['train', str(table), *places, *columns, *options])
    assert result.exit_code == 2 and 'enough' in result.stderr, result.output
    (_, path, out, given), = calls
    assert path == tmp_path and out == tmp_path/'out'
    assert given['columns'] == Columns('a', 'b', 'c', 'd', 'e', 'f')
    assert given['training'] == Training('i', 't', 33, 'none', 3, 7, 4, 5, 'skip', 1, 'cpu')
    assert given['lr'] == .5 and given['valid_fold'] == 2 and given['force'] is False
    assert given['choice'] == RuleChoice('tune', .3, seed=5)


def test_every_option_of_tune_reaches_the_job(tmp_path, monkeypatch):
    import fastmatch.jobs.tune
    from fastmatch.cli import app
    from fastmatch.jobs.options import Search, Training
    calls = []

    def tune_listings(df, path, columns, **kwargs):
        calls.append((path, columns, kwargs))
        raise fastmatch.core.InputError('enough')
    monkeypatch.setattr(fastmatch.jobs.tune, 'tune_listings', tune_listings)
    table = tmp_path/'t.csv'
    table.write_text('id,title,group\n1,tea,g\n2,tea,g\n')
    options = ['--study', 's', '--storage', 'x.db', '--n-trials', '9', '--jobs', '2', '--space', 'lr, wd',
               '--monitor', 'map@r', '--sampler', 'random', '--pruner', 'none', '--epochs', '3',
               '--test-fold', '1', '--size', '33']
    result = CliRunner().invoke(app, ['tune', str(table), *options])
    assert result.exit_code == 2 and 'enough' in result.stderr, result.output
    (path, columns, given), = calls
    assert path == '.' and columns.image is None and columns.title == 'title' and columns.group == 'group'
    assert given['search'] == Search('s', 'x.db', 9, 2, ('lr', 'wd'), 'map@r', 'random', None)
    assert given['training'] == Training(size=33, epochs=3) and given['test_fold'] == 1


def test_an_earlier_name_is_not_shown():
    from fastmatch.cli import app
    for name in ('train', 'tune'):
        shown = CliRunner().invoke(app, [name, '--help'], env={'COLUMNS': '200'}).output
        assert '--group-col' in shown and '--label-col' not in shown
        parameters = typer.main.get_command(app).commands[name].params
        options = {option for each in parameters for option in each.opts}
        columns = ('id', 'image', 'title', 'group', 'fold', 'phash')
        assert {f'--{role}-col' for role in columns} <= options


def naive_f1(found, groups):
    "Mean over rows of the F1 of the set of matches against the set of the same group's listings."
    truth = {}
    for listing, group in groups.items(): truth.setdefault(group, set()).add(listing)
    scores = []
    for listing, matches in found.items():
        want = truth[groups[listing]]
        have = set(matches)
        scores.append(2 * len(want & have) / (len(want) + len(have)))
    return sum(scores) / len(scores)


def test_the_naive_f1_by_hand():
    groups = {'a': 1, 'b': 1, 'c': 2}
    found = {'a': ['a', 'b'], 'b': ['b'], 'c': ['c', 'a']}
    assert naive_f1(found, groups) == pytest.approx((1 + 2/3 + 2/3) / 3)


KEYS = {'row_f1', 'se', 'recall_at_1', 'map_at_r', 'n'}
ROWS = ['alone', 'image', 'title', 'tfidf', 'fused', 'rule', 'untrained_image', 'untrained_title',
        'untrained_fused']


@pytest.fixture(scope='module')
def quick_demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp('quick')
    return folder, command('demo', '--quick', '--out', str(folder/'demo'), cwd=folder, timeout=900)


@pytest.mark.slow
@pytest.mark.skipif(any(package.find() is None for package in weights),
                    reason='the weights packages of the demo are not installed')
def test_the_quick_demo_really_runs(quick_demo):
    folder, finished = quick_demo
    assert finished.returncode == 0, finished.stderr[-3000:]
    words = (*ROWS, 'row F1', 'the rule:', 'summary.json', 'among themselves: 463', 'in the catalogue: 463')
    assert 'Traceback' not in finished.stderr and all(word in finished.stdout for word in words)
    names = {file.name for file in (folder/'demo').iterdir()}
    assert names >= {'manifest.json', 'matches.csv', 'summary.json', 'report.html'}
    assert len(list(folder.iterdir())) == 1

    summary = json.loads((folder/'demo'/'summary.json').read_text(encoding='utf-8'))
    heldout = summary['heldout']
    assert {'heldout', 'rule', 'seconds', 'seed', 'versions', 'gain', 'listings'} <= set(summary)
    assert summary['seed'] == 0
    assert set(heldout) == set(ROWS) and all(KEYS <= set(row) for row in heldout.values())
    assert {'fastmatch', 'fastai', 'torch', 'timm'} <= set(summary['versions'])
    assert {'train', 'rule'} <= set(summary['seconds'])
    f1 = {name: row['row_f1'] for name, row in heldout.items()}
    assert all(0 < value < 1 for value in f1.values())
    assert all(0 < row['se'] < .05 for row in heldout.values())
    # two epochs gain little over the untrained encoders (.751 against .733 when this was written)
    assert f1['fused'] > f1['alone'] + .1
    assert f1['rule'] >= .8 and f1['rule'] > f1['fused']
    assert summary['promised'] == {'setting': 'among themselves', 'pool': 463, **heldout['rule']}
    pools = {name: judged['pool'] for name, judged in summary['judged'].items()}
    assert pools == {'among themselves': 463, 'in the catalogue': 2100}
    assert summary['judged']['among themselves']['rows'] == heldout
    gain = summary['gain']['fused over untrained_fused']
    assert gain['low'] < gain['diff'] < gain['high']
    assert gain['diff'] == pytest.approx(f1['fused'] - f1['untrained_fused'], abs=2e-5)

    df = pd.read_csv(demo_path()/'listings.csv')
    held = df[df.fold == 0]
    found = pd.read_csv(folder/'demo'/'matches.csv')
    assert list(found.columns) == ['posting_id', 'matches'] and found.posting_id.is_unique
    assert summary['listings']['train'] + len(found) == 2100
    assert {row['n'] for row in heldout.values()} == {len(found)}
    # a picture that two groups share keeps both on one side: those rows alone may differ from the fold column
    assert len(set(found.posting_id) ^ set(held.posting_id)) <= summary['listings']['moved']
    matches = dict(zip(found.posting_id, found.matches.str.split(' ')))
    for listing, row in matches.items():
        assert row[0] == listing and len(set(row)) == len(row) <= 50 and set(row) <= set(found.posting_id)
    groups = df.set_index('posting_id').label_group[found.posting_id].to_dict()
    # the rule is chosen on these very listings: a little above the halvings' estimate, never far from it
    assert naive_f1(matches, groups) == pytest.approx(f1['rule'], abs=.03)
    assert naive_f1(matches, groups) >= f1['alone'] + .2
    alone = naive_f1({listing: [listing] for listing in matches}, groups)
    assert f1['alone'] == pytest.approx(alone, abs=1e-4)
