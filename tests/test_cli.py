"The command line as a user meets it: help at once, one-line errors, and a demo whose files hold what they say."
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from fastmatch.data.sample import demo_path
from fastmatch.models.weights import IMAGE_PACKAGES, TITLE_PACKAGES

HEAVY = ('torch', 'fastai', 'timm', 'transformers', 'pandas', 'scipy', 'PIL', 'sklearn', 'faiss', 'optuna')
weights = [IMAGE_PACKAGES['tf_efficientnet_lite0'], TITLE_PACKAGES['all-MiniLM-L6-v2']]


def command(*args, **kwargs):
    "The installed script, from another folder than the repository, without colours and on a wide terminal."
    script = Path(sys.executable).with_name('fastmatch')
    assert script.exists(), f'{script} is missing: pip install -e .'
    env = {**os.environ, 'NO_COLOR': '1', 'COLUMNS': '200', 'TERM': 'dumb'}
    return subprocess.run([str(script), *args], capture_output=True, text=True, env=env, encoding='utf-8', **kwargs)


@pytest.mark.parametrize('args, words', [
    (['--help'], ['demo', 'Match product listings']), (['demo', '--help'], ['--out', '--quick', '--seed', 'matches.csv', 'summary.json'])])
def test_help_names_what_there_is(tmp_path, args, words):
    res = command(*args, cwd=tmp_path)
    assert res.returncode == 0 and res.stderr == '' and all(o in res.stdout for o in words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('args', [['--help'], ['demo', '--help'], ['tune', '--help']])
def test_help_imports_nothing_heavy(args):
    code = ('import sys; from typer.testing import CliRunner; from fastmatch.cli import app; '
            f'res = CliRunner().invoke(app, {args}); '
            f'print(res.exit_code, [o for o in {HEAVY} if o in sys.modules], "--help" in res.output)')
    res = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert res.stdout.strip() == '0 [] True'


def test_no_command_shows_the_help(tmp_path):
    res = command(cwd=tmp_path)
    assert 'demo' in res.stdout + res.stderr and 'Traceback' not in res.stderr


@pytest.mark.parametrize('args, word', [(['dmeo'], 'dmeo'), (['demo', '--quik'], '--quik'), (['demo', '--seed', 'x'], '--seed')])
def test_wrong_arguments_are_named(tmp_path, args, word):
    res = command(*args, cwd=tmp_path)
    assert res.returncode == 2 and word in res.stderr and 'Traceback' not in res.stderr and res.stdout == ''


def test_out_that_is_a_file_is_one_line(tmp_path):
    file = tmp_path/'out.txt'
    file.write_text('mine')
    res = command('demo', '--quick', '--out', str(file), cwd=tmp_path)
    assert res.returncode == 2 and file.read_text() == 'mine' and list(tmp_path.iterdir()) == [file]
    assert [o for o in res.stderr.splitlines() if o] == [f'fastmatch: out={file}: is a file, not a folder'], res.stderr


@pytest.mark.parametrize('error, code', [('InputError', 2), ('MissingPackage', 2), ('KeyError', 1)])
def test_only_our_errors_are_shortened(tmp_path, monkeypatch, error, code):
    "What the user can mend is a line on stderr; a bug of ours keeps its traceback."
    import fastmatch.core
    import fastmatch.jobs.train
    from fastmatch.cli import app
    kind = getattr(fastmatch.core, error, KeyError)

    def run(*args, **kwargs): raise kind('row 3 is odd')
    monkeypatch.setattr(fastmatch.jobs.train, 'run', run)
    res = CliRunner().invoke(app, ['demo', '--out', str(tmp_path/'out')])
    assert res.exit_code == code
    assert ('fastmatch: row 3 is odd' in res.stderr) == (code == 2) and isinstance(res.exception, KeyError) == (code == 1)


def test_the_options_reach_the_job(tmp_path, monkeypatch):
    import fastmatch.jobs.train
    from fastmatch.cli import app
    calls = []

    def run(df, path, out, **kwargs):
        calls.append((len(df), path, out, kwargs))
        raise fastmatch.core.InputError('enough')
    monkeypatch.setattr(fastmatch.jobs.train, 'run', run)
    CliRunner().invoke(app, ['demo', '--quick', '--seed', '7', '--out', str(tmp_path/'a b')])
    CliRunner().invoke(app, ['demo'])
    (n, path, out, quick), (_, _, where, full) = calls
    assert n == 2100 and path == demo_path()/'images' and out == tmp_path/'a b' and where == Path('fastmatch-demo')
    assert quick['fold_col'] == 'fold' and quick['seed'] == 7 and full['seed'] == 0
    assert {'lr', 'epochs'} <= set(quick) and 'epochs' not in full


def naive_f1(found, labels):
    "Mean over rows of the F1 of the set of matches against the set of the same product's listings."
    truth = {}
    for i, y in labels.items(): truth.setdefault(y, set()).add(i)
    scores = []
    for i, matches in found.items():
        want, have = truth[labels[i]], set(matches)
        scores.append(2 * len(want & have) / (len(want) + len(have)))
    return sum(scores) / len(scores)


def test_the_naive_f1_by_hand():
    labels = {'a': 1, 'b': 1, 'c': 2}
    assert naive_f1({'a': ['a', 'b'], 'b': ['b'], 'c': ['c', 'a']}, labels) == pytest.approx((1 + 2/3 + 2/3) / 3)


KEYS = {'row_f1', 'se', 'recall_at_1', 'map_at_r', 'n'}
ROWS = ['alone', 'image', 'title', 'tfidf', 'fused', 'untrained_image', 'untrained_title', 'untrained_fused']


@pytest.mark.slow
@pytest.mark.skipif(any(o.find() is None for o in weights), reason='the weights packages of the demo are not installed')
def test_the_quick_demo_really_runs(tmp_path):
    res = command('demo', '--quick', '--out', str(tmp_path/'demo'), cwd=tmp_path, timeout=900)
    assert res.returncode == 0, res.stderr[-3000:]
    assert 'Traceback' not in res.stderr and all(o in res.stdout for o in (*ROWS, 'row F1', 'rule: ', 'summary.json'))
    assert {o.name for o in (tmp_path/'demo').iterdir()} >= {'manifest.json', 'matches.csv', 'summary.json', 'report.html'} and len(list(tmp_path.iterdir())) == 1

    s = json.loads((tmp_path/'demo'/'summary.json').read_text(encoding='utf-8'))
    assert {'heldout', 'rule', 'seconds', 'seed', 'versions', 'gain', 'listings'} <= set(s) and s['seed'] == 0
    assert set(s['heldout']) == set(ROWS) and all(KEYS <= set(o) for o in s['heldout'].values())
    assert {'fastmatch', 'fastai', 'torch', 'timm'} <= set(s['versions']) and {'train', 'rule'} <= set(s['seconds'])
    f1 = {k: o['row_f1'] for k, o in s['heldout'].items()}
    assert all(0 < o < 1 for o in f1.values()) and all(0 < o['se'] < .05 for o in s['heldout'].values())
    # two epochs gain little over the untrained encoders (.751 against .733 when this was written): the full demo is for that
    assert f1['fused'] > f1['alone'] + .1
    gain = s['gain']['fused over untrained_fused']
    assert gain['low'] < gain['diff'] < gain['high'] and gain['diff'] == pytest.approx(f1['fused'] - f1['untrained_fused'], abs=2e-5)

    df = pd.read_csv(demo_path()/'listings.csv')
    held = df[df.fold == 0]
    found = pd.read_csv(tmp_path/'demo'/'matches.csv')
    assert list(found.columns) == ['posting_id', 'matches'] and found.posting_id.is_unique
    assert s['listings']['train'] + len(found) == 2100 and {o['n'] for o in s['heldout'].values()} == {len(found)}
    # a picture that two groups share keeps both on one side: those rows, and no others, may differ from the fold column
    assert len(set(found.posting_id) ^ set(held.posting_id)) <= s['listings']['moved']
    rows = dict(zip(found.posting_id, found.matches.str.split(' ')))
    for i, o in rows.items():
        assert o[0] == i and len(set(o)) == len(o) <= 50 and set(o) <= set(found.posting_id)
    labels = df.set_index('posting_id').label_group[found.posting_id].to_dict()
    # the rule is chosen on these very listings: a little above the halvings' estimate, never far from it
    assert naive_f1(rows, labels) == pytest.approx(f1['fused'], abs=.02)
    assert naive_f1(rows, labels) >= f1['alone'] + .1
    assert f1['alone'] == pytest.approx(naive_f1({i: [i] for i in rows}, labels), abs=1e-4)
