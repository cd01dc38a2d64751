"""The notebooks of `nbs/` as pages: each is run once, and its outputs are kept under `build/notebooks/`.

A notebook is run again when it, the package, the benches or a table beside it has changed. A cell that fails
stops the build. `SITE_NOTEBOOKS=stored` runs nothing: a page has the newest outputs that were kept, or none.
"""
import hashlib
import os
import re
import time
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority, get_plugin_logger
from mkdocs.structure.files import File

from fastmatch.store import write_text

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT/'nbs'
KEPT = ROOT/'build'/'notebooks'  # with all their outputs
PAGES = ROOT/'build'/'pages'  # as they are shown
SLOW = '# takes long: not run for this page'
CELL_SECONDS = 1800  # a cell that takes longer has gone wrong
log = get_plugin_logger('notebooks')


def digest(notebook):
    "What the outputs of a notebook depend on, as 16 hex digits."
    folders = (ROOT/'fastmatch').rglob('*.py'), (ROOT/'tests'/'bench').glob('*.py'), NOTEBOOKS.glob('*.csv')
    found = hashlib.sha256()
    for path in (notebook, *sorted(path for folder in folders for path in folder)):
        found.update(str(path.relative_to(ROOT)).encode() + b'\0' + path.read_bytes() + b'\0')
    return found.hexdigest()[:16]


def has_flag(cell, flag):
    "Whether a cell begins with the line `#| flag`, as nbdev reads it."
    return re.search(rf'^#\s*\|\s*{flag}\b', cell.source, re.M) is not None


def run(notebook):
    "A notebook with its outputs. Cells flagged as slow are not run, as `nbdev-test` leaves them out."
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    book = nbformat.read(notebook, as_version=4)
    for cell in book.cells:
        if has_flag(cell, 'slow'): cell.metadata['tags'] = ['slow']
    client = NotebookClient(book, timeout=CELL_SECONDS, kernel_name='python3', skip_cells_with_tag='slow',
                            resources={'metadata': {'path': str(notebook.parent)}})
    try: client.execute()
    except CellExecutionError as error: raise PluginError(f'{notebook.name}: {error}') from error
    return book


def for_reading(book):
    """Without the cells that nbdev hides, and without warnings and progress bars of other packages, which go
    to stderr; a slow cell says that it was not run."""
    book.cells = [cell for cell in book.cells if not has_flag(cell, 'hide')]
    for cell in book.cells:
        if cell.cell_type == 'code':
            cell.outputs = [output for output in cell.outputs if output.get('name') != 'stderr']
        cell.source = re.sub(r'^#\s*\|\s*slow\b', SLOW, cell.source, flags=re.M)
        cell.metadata.pop('tags', None)
    return book


def kept(notebook, may_run):
    "The file of a notebook with its outputs, run now where none were kept; without them if it may not run."
    import nbformat
    path = KEPT/f'{notebook.stem}.{digest(notebook)}.ipynb'
    if path.exists(): return path
    if not may_run:
        earlier = sorted(KEPT.glob(f'{notebook.stem}.*.ipynb'), key=lambda each: each.stat().st_mtime)
        if earlier: return earlier[-1]
        return notebook
    started = time.time()
    log.info(f'Running {notebook.name}')
    book = run(notebook)
    log.info(f'{notebook.name} took {time.time() - started:.0f} s')
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, nbformat.writes(book))
    return path


@event_priority(50)  # before mkdocs-jupyter, which makes pages of them
def on_files(files, config):
    "The notebooks, and the tables that they speak of, as files of the site."
    import nbformat
    may_run = os.environ.get('SITE_NOTEBOOKS') != 'stored'
    (PAGES/'notebooks').mkdir(parents=True, exist_ok=True)
    for notebook in sorted(NOTEBOOKS.glob('*.ipynb')):
        book = for_reading(nbformat.read(kept(notebook, may_run), as_version=4))
        write_text(PAGES/'notebooks'/notebook.name, nbformat.writes(book))
        # mkdocs-jupyter takes no file that is only in memory
        files.append(File(f'notebooks/{notebook.name}', str(PAGES), config.site_dir,
                          config.use_directory_urls))
    for table in sorted(NOTEBOOKS.glob('*.csv')):
        files.append(File.generated(config, f'notebooks/{table.name}', abs_src_path=str(table)))
    return files
