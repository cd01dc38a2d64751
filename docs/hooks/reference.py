"""The reference: a page for each room of the package with every public name in it, commands, names."""
import ast
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT/'fastmatch'
HERE = 'reference/'  # the entry of `nav` in mkdocs.yml that the pages take the place of
# from the first to the last that may import another, as tests/test_house.py has them
ORDER = ['data', 'models', 'layers', 'losses', 'optim', 'schedule', 'callback', 'metrics', 'learner',
         'pretrain', 'semi', 'match', 'matcher', 'catalogue', 'link', 'study', 'report', 'jobs', 'core',
         'store', 'picture', 'processes', 'patches']
WITHOUT_PAGE = {'cli', 'all'}  # these have pages of their own: commands, names


def rooms():
    "Folders and single files of the package by dotted name: those of ORDER first, folders in folders behind."
    folders = [path.parent for path in PACKAGE.rglob('__init__.py') if path.parent != PACKAGE]
    files = [path for path in PACKAGE.glob('*.py') if path.name != '__init__.py']
    names = ['.'.join(path.relative_to(PACKAGE).with_suffix('').parts) for path in (*folders, *files)]
    place = {name: number for number, name in enumerate(ORDER)}
    names = [name for name in names if name not in WITHOUT_PAGE]
    return sorted(names, key=lambda name: (place.get(name.split('.')[0], len(place)), name))


def sources(room):
    "The files whose names belong to a room."
    path = PACKAGE.joinpath(*room.split('.'))
    return sorted(path.glob('*.py')) if path.is_dir() else [path.with_suffix('.py')]


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def public_names(path):
    "Functions and classes that a file defines for others, by the tree of its source."
    return [node.name for node in ast.parse(path.read_text(encoding='utf-8')).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith('_')]


def page(room):
    "The Markdown of a room: what it says of itself, then each file with what it defines."
    head, *others = sorted(sources(room), key=lambda path: path.name != '__init__.py')
    alone = '    options:\n      heading_level: 1\n      members: false\n      show_root_toc_entry: false\n'
    if head.name != '__init__.py' or public_names(head): alone = '    options:\n      heading_level: 1\n'
    files = [f'::: {module_of(path)}\n    options:\n      heading_level: 2\n' for path in others
             if public_names(path)]
    return '\n'.join([f'::: {module_of(head)}\n{alone}', *files])


def names():
    "The Markdown of what `from fastmatch.all import *` brings of this package: each name, and what it is."
    import fastmatch.all as everything
    lines = ['# Names', '',
             '`from fastmatch.all import *` brings fastai\'s vision namespace and these names.', '',
             '| name | what it is |', '|---|---|']
    for name in sorted(vars(everything), key=str.lower):
        thing = getattr(everything, name)
        is_ours = (getattr(thing, '__module__', None) or '').startswith('fastmatch.')
        if name.startswith('_') or not is_ours or getattr(thing, '__name__', None) != name: continue
        said = re.split(r'(?<=[.:;])\s|\n\n', (thing.__doc__ or '').strip(), maxsplit=1)[0]
        said = ' '.join(said.rstrip(':;').replace('|', '\\|').split())
        lines.append(f'| `{name}` | {said} |')
    return '\n'.join(lines) + '\n'


def commands():
    "What `fastmatch --help` says, of every command."
    import typer
    from typer.cli import get_docs_for_click

    from fastmatch.cli import app
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name='fastmatch')
    text = get_docs_for_click(obj=command, ctx=context, name='fastmatch')
    return text.replace('# `fastmatch`', '# The command line', 1)


def on_config(config):
    "Puts the pages where the navigation says."
    pages = [{'Commands': f'{HERE}commands.md'}, {'Names': f'{HERE}names.md'}]
    pages += [{room: f'{HERE}{room}.md'} for room in rooms()]
    for entry in config.nav:
        for title, where in entry.items():
            if where == HERE: entry[title] = pages
    return config


def on_files(files, config):
    texts = {room: page(room) for room in rooms()}
    for name, text in {**texts, 'commands': commands(), 'names': names()}.items():
        files.append(File.generated(config, f'{HERE}{name}.md', content=text))
    return files
