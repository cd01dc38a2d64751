"The rooms and their one-way doors: a file imports only from rooms to its left, and some never import fastai or torch."
import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent/'fastmatch'
FLOORS = [['core'], ['store'], ['layers', 'losses', 'optim', 'schedule', 'match'], ['data', 'models', 'metrics'], ['callback', 'matcher'],
          ['pretrain', 'semi', 'learner'], ['patches'], ['study', 'report', 'serve'], ['jobs'], ['all'], ['cli']]
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(PACKAGE.rglob('*.py'))
NO_FASTAI = ['core.py', 'store.py', 'layers/', 'matcher/', 'match/', 'models/', 'report/', 'data/read.py', 'data/table.py']


def room(path): return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def imports(path):
    "Every module that `path` imports, at any depth of the file, as dotted names."
    package = ['fastmatch', *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import): yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(package[:len(package) - node.level + 1]) if node.level else ''
            mod = '.'.join(o for o in (base, node.module) if o)
            yield from (f'{mod}.{a.name}' for a in node.names) if mod == 'fastmatch' else [mod]


def wrong_doors(path, names):
    "The imports among `names` that lead from `path` to a room on its right, or to another room of its own floor."
    here = room(path)
    for name in names:
        parts = name.split('.')
        if parts[0] != 'fastmatch' or len(parts) < 2 or parts[1] not in FLOOR: continue
        there = parts[1]
        if there != here and FLOOR[there] >= FLOOR[here]: yield f'{path.relative_to(PACKAGE)} imports {name}'


def test_every_file_has_a_room():
    assert [str(f) for f in FILES if f.name != '__init__.py' and room(f) not in FLOOR] == []


def test_imports_point_left():
    assert [o for f in FILES if room(f) != '__init__' for o in wrong_doors(f, imports(f))] == []


def test_the_check_sees_a_wrong_door():
    assert list(wrong_doors(PACKAGE/'core.py', ['fastmatch.learner'])) == ['core.py imports fastmatch.learner']
    assert list(wrong_doors(PACKAGE/'losses'/'margin.py', ['fastmatch.match.rule'])) != []
    assert list(wrong_doors(PACKAGE/'cli.py', ['fastmatch.learner', 'torch'])) == []


def test_rooms_without_fastai():
    files = [f for f in FILES if any(str(f.relative_to(PACKAGE)).startswith(o) for o in NO_FASTAI)]
    assert files
    assert [f'{f.name}: {o}' for f in files for o in imports(f) if o.split('.')[0] in ('fastai', 'fastcore')] == []


@pytest.mark.parametrize('code, absent', [
    ('import fastmatch', ['torch', 'fastai', 'numpy']),
    ('import fastmatch.match', ['torch', 'fastai', 'faiss', 'sklearn']),
    ('import fastmatch.models', ['fastai', 'timm', 'transformers']),
    ('import fastmatch.cli', ['torch', 'fastai', 'pandas']),
    ('import fastmatch.report', ['torch', 'fastai', 'sklearn', 'faiss', 'matplotlib']),
    ('import fastmatch.study', ['optuna', 'sqlalchemy', 'cmaes']),
    ('import fastmatch.matcher', ['fastai', 'fastcore', 'timm', 'transformers', 'faiss']),
])
def test_light_imports(code, absent):
    res = subprocess.run([sys.executable, '-c', f'import sys; {code}; print([o for o in {absent} if o in sys.modules])'],
                         capture_output=True, text=True, check=True)
    assert res.stdout.strip() == '[]'
