"What the README and the pages of the site say is run as it stands."
import importlib
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

matplotlib.use('Agg')
ROOT = Path(__file__).parent.parent
PAGES = {path: path.read_text(encoding='utf-8')
         for path in (*sorted(ROOT.glob('*.md')), *sorted((ROOT/'docs').glob('*.md')))}
TEXT = PAGES[ROOT/'README.md']
RECIPE_TESTS = (ROOT/'tests'/'recipes'/'test_pages.py').read_text(encoding='utf-8')
# a block may stand on several pages
BLOCKS = list(dict.fromkeys(block for text in PAGES.values()
                            for block in re.findall(r'<!-- code -->\n```python\n(.+?)```', text, re.S)))
LONG = [block for block in BLOCKS if 'lr_find' in block]
TRAINED = [block for block in BLOCKS if 'fit_flat_cos' in block and block not in LONG]


def command(name): return re.search(rf'<!-- {name} -->\n```bash\n(.+?)\n```', TEXT, re.S)[1]


def run_block(code, cwd, **kwargs):
    head = 'import matplotlib; matplotlib.use("Agg")\n'
    return subprocess.run([sys.executable, '-W', 'ignore', '-c', head + code], cwd=cwd, capture_output=True,
                          text=True, **kwargs)


@pytest.fixture
def competition(tmp_path):
    "What a submission starts from: the test table, a folder of images, and a matcher of titles."
    from fastmatch.match import Embeddings, Rule
    from fastmatch.matcher import Matcher
    known = Embeddings({}, ['train_1', 'train_2'], ['red bag \u2764', 'a lamp'])
    Matcher(Rule('mean', {'tfidf': 1.}, .5), known).save(tmp_path/'shop')
    (tmp_path/'test_images').mkdir()
    rows = [r'test_1,1.jpg,00,red bag \xe2\x9d\xa4', 'test_2,2.jpg,01,bag red', 'test_3,3.jpg,02,a lamp']
    (tmp_path/'test.csv').write_text('\n'.join(['posting_id,image,image_phash,title', *rows]) + '\n')
    return tmp_path


def test_the_submission_block_runs(competition):
    code = next(block for block in BLOCKS if 'test.csv' in block)
    finished = run_block(code, competition)
    assert finished.returncode == 0, finished.stderr
    words = (competition/'submission.csv').read_text().split()
    rows = ['test_1,test_1 test_2', 'test_2,test_2 test_1', 'test_3,test_3']
    assert words == 'posting_id,matches'.split() + ' '.join(rows).split()


@pytest.mark.parametrize('code', [
    pytest.param(block, marks=[pytest.mark.slow] * (block in TRAINED))
    for block in BLOCKS if block not in LONG and 'test.csv' not in block])
def test_code_blocks_run(code, tmp_path):
    finished = run_block(code, tmp_path)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.slow
@pytest.mark.parametrize('code', LONG)
def test_the_training_block_runs(code, tmp_path):
    finished = run_block(code, tmp_path)
    assert finished.returncode == 0, finished.stderr
    lines = (tmp_path/'matches.csv').read_text().splitlines()
    assert lines[0] == 'posting_id,matches' and len(lines) == 464


def test_every_python_block_is_run():
    assert len(LONG) == 1 and len(TRAINED) == 3 and len(BLOCKS) >= 8
    for text in PAGES.values():
        recipes = re.findall(r'<!-- recipe: (\w+) -->\n```python', text)
        assert text.count('```python') == text.count('<!-- code -->\n```python') + len(recipes)
        # tests/recipes/test_pages.py runs these, and looks at what they make
        for name in recipes: assert f"run_recipe('{name}'" in RECIPE_TESTS


def test_ci_calls_the_readmes_test_command():
    script = (ROOT/'.ci'/'run').read_text()
    assert 'README.md' in script and 'eval "$test_command"' in script
    assert command('test').endswith('python -m pytest -n 2 --dist loadfile')
    assert command('demo').endswith('fastmatch demo')


def test_links_lead_somewhere():
    links = [(path, link) for path, text in PAGES.items() for link in re.findall(r'\]\(([^)#]+)[^)]*\)', text)
             if not link.startswith('http')]
    assert len(links) > 60
    assert [(path.name, link) for path, link in links if not (path.parent/link).exists()] == []


# word that `fastmatch.all` leaves out -> the module that it is imported from
ROOMS = {'recognise': 'fastmatch.data.table', 'unescape': 'fastmatch.data.table',
         'components': 'fastmatch.data.split', 'submission': 'fastmatch.matcher',
         'judge': 'fastmatch.jobs.judge'}


def exists(name):
    """Whether a name of the table of parts is there: in a notebook, bare or behind a module, in the room that
    the page names, or as a method of a Learner or a matcher."""
    import fastmatch.all as fm
    if hasattr(fm, name): return True
    if name in ROOMS: return hasattr(importlib.import_module(ROOMS[name]), name)
    module, _, word = name.partition('.')
    if module in ('match', 'schedule'): return hasattr(getattr(fm, module), word)
    if name.startswith('learn.'):
        learners = fm.MatchLearner, fm.ClassifyLearner
        return any(hasattr(learner, name.removeprefix('learn.')) for learner in learners)
    return name.startswith('matcher.') and hasattr(fm.Matcher, name.removeprefix('matcher.'))


def test_names_in_the_table_exist():
    rows = re.findall(r'^\|.+\|$', PAGES[ROOT/'docs'/'parts.md'], re.M)[2:]
    names = [name for row in rows for name in re.findall(r'`([A-Za-z_.0-9]+)`', row.split('|')[2])]
    assert len(names) > 30 and [name for name in names if not exists(name)] == []
