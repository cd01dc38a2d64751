"What is handed over: a source distribution and a wheel, built and tried as somebody would who has no clone."
import configparser
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import fastmatch

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT/'fastmatch'
NOT_COPIED = shutil.ignore_patterns('.git', '.venv', 'build', 'dist', '*.egg-info', '__pycache__', '.*_cache',
                                    'fastmatch-demo')


def config():
    parser = configparser.ConfigParser()
    parser.read(ROOT/'setup.cfg', encoding='utf-8')
    return parser


def test_the_version_is_said_once():
    assert config()['metadata']['version'] == 'attr: fastmatch.__version__'
    said = [path for path in (*ROOT.glob('*.*'), *PACKAGE.rglob('*.py'))
            if path.is_file() and f'"{fastmatch.__version__}"' in path.read_text(encoding='utf-8')]
    assert said == [PACKAGE/'__init__.py']
    assert f'## {fastmatch.__version__}' in (ROOT/'CHANGELOG.md').read_text(encoding='utf-8')


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "(sdist, wheel), built of a copy: what earlier builds left in the folder does not get in."
    pytest.importorskip('build')
    folder = tmp_path_factory.mktemp('built')
    shutil.copytree(ROOT, folder/'source', ignore=NOT_COPIED)
    finished = subprocess.run([sys.executable, '-m', 'build', '--outdir', folder/'dist', folder/'source'],
                              capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    sdist, = (folder/'dist').glob('*.tar.gz')
    wheel, = (folder/'dist').glob('*.whl')
    return sdist, wheel


def data_files():
    "Every file of the package that is no source, by its path in it."
    return {str(path.relative_to(ROOT)) for path in PACKAGE.rglob('*')
            if path.is_file() and path.suffix not in ('.py', '.pyc')}


@pytest.mark.slow
def test_what_is_in_the_wheel(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
        metadata_file = next(name for name in names if name.endswith('METADATA'))
        metadata = Parser().parsestr(wheel.read(metadata_file).decode())
    sources = {str(path.relative_to(ROOT)) for path in PACKAGE.rglob('*.py')}
    assert sources | data_files() <= names
    assert {'fastmatch/py.typed', 'fastmatch/data/demo/listings.csv', 'fastmatch/data/demo/NOTICE',
            'fastmatch/report/templates/page.html', 'fastmatch/report/templates/style.css'} <= names
    info = f'fastmatch-{fastmatch.__version__}.dist-info'
    assert {name.split('/')[0] for name in names} == {'fastmatch', info}
    licences = {name.split('/')[-1] for name in names if name.startswith(f'{info}/licenses')}
    assert licences == {'LICENSE', 'NOTICE'}
    assert metadata['Version'] == fastmatch.__version__ and metadata['Requires-Python'] == '>=3.11'
    classifiers = metadata.get_all('Classifier')
    assert all(f'Programming Language :: Python :: 3.{minor}' in classifiers for minor in (11, 12, 13))
    assert 'Which of these listings are the same product?' in metadata.get_payload()


@pytest.mark.slow
def test_what_is_in_the_source_distribution(built):
    with tarfile.open(built[0]) as sdist: names = {name.partition('/')[2] for name in sdist.getnames()}
    assert data_files() | {'pyproject.toml', 'setup.cfg', 'README.md', 'LICENSE'} <= names


TRIED = '''
import sys
from pathlib import Path
import fastmatch, fastmatch.all as fm
from fastmatch.report.render import page
here = Path(sys.argv[1])
assert here in Path(fastmatch.__file__).parents, fastmatch.__file__
listings = fm.read_table(fm.demo_path()/'listings.csv')
assert len(listings) == 2100 and all((fm.demo_path()/'images'/name).exists() for name in listings.image)
assert '<h1>tried</h1>' in page('tried', '', [])
assert (Path(fastmatch.__file__).parent/'py.typed').exists()
print(fastmatch.__version__)
'''


@pytest.mark.slow
def test_the_wheel_works(built, tmp_path):
    "Installed into a folder of its own and imported from there; what it needs is this environment's."
    target = tmp_path/'installed'
    install = [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--target', target]
    subprocess.run([*install, built[1]], check=True)

    def run(*command):
        return subprocess.run(command, cwd=tmp_path, env={'PYTHONPATH': str(target), 'PATH': '/usr/bin:/bin'},
                              capture_output=True, text=True)
    tried = run(sys.executable, '-W', 'ignore', '-c', TRIED, str(target.resolve()))
    assert tried.returncode == 0 and tried.stdout.strip() == fastmatch.__version__, tried.stderr
    helped = run(sys.executable, target/'bin'/'fastmatch', '--help')
    assert helped.returncode == 0 and 'demo' in helped.stdout, helped.stderr
