"The house: rooms with one-way doors, some without fastai or torch, and figures of how easily it all reads."
import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent/'fastmatch'
FLOORS = [['core'], ['store', 'picture', 'processes'], ['layers', 'losses', 'optim', 'schedule', 'match'],
          ['data', 'models', 'metrics'], ['callback', 'matcher'],
          ['pretrain'], ['learner', 'link', 'catalogue'], ['semi'], ['patches'],
          ['study', 'report', 'serve'], ['jobs'], ['all'], ['cli']]
FLOOR = {name: i for i, rooms in enumerate(FLOORS) for name in rooms}
FILES = sorted(PACKAGE.rglob('*.py'))
NO_FASTAI = ['core.py', 'store.py', 'picture.py', 'layers/', 'matcher/', 'match/', 'models/', 'report/',
             'link/', 'catalogue/', 'serve/', 'data/picture_store.py', 'data/read.py', 'data/serialise.py',
             'data/table.py', 'pretrain/base.py', 'pretrain/itc.py', 'pretrain/itm.py', 'pretrain/mfm.py',
             'pretrain/mlm.py',
             'pretrain/momentum.py', 'pretrain/objectives.py']


def room(path): return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def imports(path):
    "Every module that `path` imports, at any depth of the file, as dotted names."
    package = ['fastmatch', *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import): yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(package[:len(package) - node.level + 1]) if node.level else ''
            module = '.'.join(part for part in (base, node.module) if part)
            if module == 'fastmatch': yield from (f'{module}.{alias.name}' for alias in node.names)
            else: yield module


def wrong_doors(path, names):
    "The imports among `names` that lead from `path` to a room on its right, or to another of its own floor."
    here = room(path)
    for name in names:
        parts = name.split('.')
        if parts[0] != 'fastmatch' or len(parts) < 2 or parts[1] not in FLOOR: continue
        there = parts[1]
        if there != here and FLOOR[there] >= FLOOR[here]: yield f'{path.relative_to(PACKAGE)} imports {name}'


def test_every_file_has_a_room():
    assert [str(path) for path in FILES if path.name != '__init__.py' and room(path) not in FLOOR] == []


def test_imports_point_left():
    files = [path for path in FILES if room(path) != '__init__']
    assert [door for path in files for door in wrong_doors(path, imports(path))] == []


def test_the_check_sees_a_wrong_door():
    doors = wrong_doors(PACKAGE/'core.py', ['fastmatch.learner'])
    assert list(doors) == ['core.py imports fastmatch.learner']
    assert list(wrong_doors(PACKAGE/'losses'/'margin.py', ['fastmatch.match.rule'])) != []
    assert list(wrong_doors(PACKAGE/'cli.py', ['fastmatch.learner', 'torch'])) == []


def test_rooms_without_fastai():
    files = [path for path in FILES if str(path.relative_to(PACKAGE)).startswith(tuple(NO_FASTAI))]
    assert files
    assert [f'{path.name}: {name}' for path in files for name in imports(path)
            if name.split('.')[0] in ('fastai', 'fastcore')] == []


@pytest.mark.parametrize('code, absent', [
    ('import fastmatch', ['torch', 'fastai', 'numpy']),
    ('import fastmatch.match', ['torch', 'fastai', 'faiss', 'sklearn']),
    ('import fastmatch.models', ['fastai', 'timm', 'transformers']),
    ('import fastmatch.pretrain', ['fastai', 'timm', 'transformers']),
    ('import fastmatch.cli', ['torch', 'fastai', 'pandas']),
    ('import fastmatch.jobs.options', ['torch', 'fastai', 'pandas']),
    ('import fastmatch.jobs.match', ['fastai', 'fastcore', 'timm', 'transformers', 'faiss']),
    ('import fastmatch.report', ['torch', 'fastai', 'sklearn', 'faiss', 'matplotlib']),
    ('import fastmatch.study', ['optuna', 'sqlalchemy', 'cmaes']),
    ('import fastmatch.serve', ['torch', 'fastai', 'fastapi', 'uvicorn', 'pandas']),
    ('import fastmatch.catalogue', ['torch', 'fastai', 'faiss', 'sklearn']),
    ('import fastmatch.matcher', ['fastai', 'fastcore', 'timm', 'transformers', 'faiss']),
])
def test_light_imports(code, absent):
    loaded = f'import sys; {code}; print([name for name in {absent} if name in sys.modules])'
    finished = subprocess.run([sys.executable, '-c', loaded], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == '[]'


# how easily the package reads
INDICES = set('ijknxyzt_')  # letters that an index or a formula may keep
WIDTH = 110


FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree): return [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]


def assigned_names(function):
    "The names that a function assigns, its parameters included, each once."
    arguments = function.args
    names = {each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    names -= {'self', 'cls'}
    body = function.body if isinstance(function.body, list) else [function.body]
    inside = [node for statement in body for node in ast.walk(statement)]
    return names | {node.id for node in inside
                    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def is_cramped(node):
    "Whether a statement assigns three or more values at once."
    return (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple)
            and isinstance(node.value, ast.Tuple) and len(node.targets[0].elts) >= 3)


def measure(sources):
    "Figures over {name: source}."
    trees = {name: ast.parse(source) for name, source in sources.items()}
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    closures = [node for node in nodes if isinstance(node, FUNCTIONS | ast.Lambda)]
    names = [name for function in closures for name in assigned_names(function)]
    letters = [name for name in names if len(name) == 1]
    defined = [(file, function) for file, tree in trees.items() for function in functions(tree)]
    public = [(file, node) for file, tree in trees.items() for node in tree.body
              if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith('_')]
    return {
        'mean name': statistics.mean(map(len, names)) if names else 0,
        'letters': len(letters) / max(1, len(names)),
        'odd letters': sum(name not in INDICES for name in letters) / max(1, len(names)),
        'walruses': sum(isinstance(node, ast.NamedExpr) for node in nodes),
        'three at once': sum(map(is_cramped, nodes)),
        'wide': [f'{file}:{i}' for file, source in sources.items()
                 for i, line in enumerate(source.split('\n'), 1)
                 if len(line) > WIDTH],
        'undocumented': [f'{file}: {node.name}' for file, node in public if not ast.get_docstring(node)],
        'long': [f'{file}: {node.name}' for file, node in defined if node.end_lineno - node.lineno > 60],
        'many arguments': [f'{file}: {node.name}' for file, node in defined
                           if len(node.args.args) + len(node.args.kwonlyargs) >= 12]}


def test_the_house_reads_well():
    sources = {str(path.relative_to(PACKAGE)): path.read_text(encoding='utf-8') for path in FILES}
    figures = measure(sources)
    assert figures['mean name'] >= 6.5
    assert figures['letters'] <= .12 and figures['odd letters'] <= .03
    assert figures['walruses'] <= 25 and figures['three at once'] <= 15
    assert figures['wide'] == [] and figures['undocumented'] == [] and figures['long'] == []
    assert len(figures['many arguments']) <= 6, figures['many arguments']


def test_the_figures_by_hand():
    source = '''
def f(self, ab, q):
    "Told."
    for i in ab: x, y, z = 1, 2, 3
    return (lambda name: (n := name))(q)


class Untold:
    def many(self, {}): pass


def _private():
    {}
'''.format(', '.join(f'a{i}' for i in range(11)), '\n    '.join(['pass'] * 61) + '  # ' + 'x' * 110)
    figures = measure({'one': source})
    # f: ab q i x y z n (the lambda's), the lambda: name n, many: a0 to a10
    assert figures['mean name'] == (2 + 6 + 4 + 1 + 10 * 2 + 3) / 20
    assert (figures['letters'], figures['odd letters']) == (7 / 20, 1 / 20)
    assert figures['walruses'] == figures['three at once'] == 1
    assert figures['undocumented'] == ['one: Untold'] and figures['long'] == ['one: _private']
    assert figures['many arguments'] == ['one: many'] and len(figures['wide']) == 1
