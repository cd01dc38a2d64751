"What the README says is run as it stands."
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

matplotlib.use('Agg')
TEXT = (Path(__file__).parent.parent/'README.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'<!-- code -->\n```python\n(.+?)```', TEXT, re.S)
LONG = [o for o in BLOCKS if 'fit_flat_cos' in o]


def command(name): return re.search(rf'<!-- {name} -->\n```bash\n(.+?)\n```', TEXT, re.S)[1]


def run_block(code, cwd, **kwargs):
    head = 'import matplotlib; matplotlib.use("Agg")\n'
    return subprocess.run([sys.executable, '-W', 'ignore', '-c', head + code], cwd=cwd, capture_output=True, text=True, **kwargs)


@pytest.fixture
def competition(tmp_path):
    "What a submission starts from: the competition's test table, a folder of images, and a saved matcher (of titles alone)."
    from fastmatch.match import Embeddings, Rule
    from fastmatch.matcher import Matcher
    Matcher(Rule('mean', {'tfidf': 1.}, .5), Embeddings({}, ['train_1', 'train_2'], ['red bag \u2764', 'a lamp'])).save(tmp_path/'shop')
    (tmp_path/'test_images').mkdir()
    rows = [r'test_1,1.jpg,00,red bag \xe2\x9d\xa4', 'test_2,2.jpg,01,bag red', 'test_3,3.jpg,02,a lamp']
    (tmp_path/'test.csv').write_text('\n'.join(['posting_id,image,image_phash,title', *rows]) + '\n')
    return tmp_path


def test_the_submission_block_runs(competition):
    code = next(o for o in BLOCKS if 'test.csv' in o)
    res = run_block(code, competition)
    assert res.returncode == 0, res.stderr
    assert (competition/'submission.csv').read_text().split() == ['posting_id,matches', 'test_1,test_1', 'test_2', 'test_2,test_2', 'test_1', 'test_3,test_3']


@pytest.mark.parametrize('code', [o for o in BLOCKS if o not in LONG and 'test.csv' not in o])
def test_code_blocks_run(code, tmp_path):
    res = run_block(code, tmp_path)
    assert res.returncode == 0, res.stderr


@pytest.mark.slow
@pytest.mark.parametrize('code', LONG)
def test_the_training_block_runs(code, tmp_path):
    res = run_block(code, tmp_path)
    assert res.returncode == 0, res.stderr
    lines = (tmp_path/'matches.csv').read_text().splitlines()
    assert lines[0] == 'posting_id,matches' and len(lines) == 464


def test_every_python_block_is_run():
    assert len(LONG) == 1 and len(BLOCKS) == TEXT.count('```python')


def test_ci_calls_the_readmes_test_command():
    script = (Path(__file__).parent.parent/'.ci'/'run').read_text()
    assert 'README.md' in script and 'eval "$test_command"' in script
    assert command('test').endswith('python -m pytest') and command('demo').endswith('fastmatch demo')


def test_links_lead_somewhere():
    root = Path(__file__).parent.parent
    links = [o for o in re.findall(r'\]\(([^)]+)\)', TEXT) if not o.startswith('http')]
    assert links and [o for o in links if not (root/o).exists()] == []


def test_names_in_the_table_exist():
    import fastmatch.all as fm
    rows = re.findall(r'^\|.+\|$', TEXT[TEXT.index('## What is inside'):TEXT.index('## Extras')], re.M)[2:]
    names = [n for row in rows for n in re.findall(r'`([A-Za-z_.]+)`', row.split('|')[2])]
    missing = [n for n in names if not (hasattr(fm, n) or (n.startswith('learn.') and any(hasattr(o, n[6:]) for o in (fm.MatchLearner, fm.ClassifyLearner)))
               or (n.startswith('matcher.') and hasattr(fm.Matcher, n[8:])))]
    assert len(names) > 30 and missing == []
