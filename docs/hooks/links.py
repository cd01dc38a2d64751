"""Links: pages are written as files of the repository, so that their links hold on a forge; here they are
turned into the site's. A public name in the text leads to its place in the reference.
"""
import os
import re
from functools import cache
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
# files of the repository's root that are pages of the site
ROOT_PAGES = {'README.md': 'index.md', 'CHANGELOG.md': 'changes.md', 'CONTRIBUTING.md': 'contributing.md'}
FOLDERS = {'docs': '', 'nbs': 'notebooks'}


def place(path):
    "Where a file of the repository is in the site; None where it is not a part of it."
    if str(path) in ROOT_PAGES: return ROOT_PAGES[str(path)]
    folder, *rest = path.parts
    return os.path.join(FOLDERS[folder], *rest) if folder in FOLDERS and rest else None


def in_site(text, written_at, shown_at):
    "`text` with the links of file `written_at` of the repository, as page `shown_at` of the site."
    def turned(found):
        label, target, anchor = found['label'], found['target'], found['anchor'] or ''
        path = Path(os.path.normpath(os.path.join(os.path.dirname(written_at), target)))
        if re.match(r'\w+:', target) or not (ROOT/path).exists(): return found[0]
        there = place(path)
        # a file that is no part of the site is named only
        if there is None: return label
        return f'[{label}]({os.path.relpath(there, os.path.dirname(shown_at) or ".")}{anchor})'
    return re.sub(r'(?<!!)\[(?P<label>[^\]]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)]*)?\)', turned, text)


@cache
def anchors():
    "Where each name stands that a text may mention: `ArcFace`, `match.decide`, `learn.embeddings`."
    import fastmatch.all as everything

    def own(holder, prefix=''):
        for name in dir(holder):
            thing = getattr(holder, name)
            module = getattr(thing, '__module__', None) or ''
            if name.startswith('_') or not module.startswith('fastmatch.'): continue
            yield prefix + name, f'{module}.{getattr(thing, "__qualname__", name)}'
    learners = everything.ClassifyLearner, everything.MatchLearner
    found = [*own(everything), *own(everything.match, 'match.'), *own(everything.schedule, 'schedule.'),
             *(each for learner in learners for each in own(learner, 'learn.')),
             *own(everything.Matcher, 'matcher.')]
    return dict(found)


def with_names(html):
    "Code that is a public name, outside of links, headings and blocks of code, as a reference to it."
    def linked(found):
        name = found['name'] or ''
        anchor = name if name.startswith('fastmatch.') else anchors().get(name)
        if anchor is None: return found[0]
        return f'<autoref optional identifier="{anchor}"><code>{name}</code></autoref>'
    pattern = r'<(?P<tag>a|pre|h\d|autoref)\b.*?</(?P=tag)>|<code>(?P<name>[A-Za-z_][\w.]*)(?:\(\))?</code>'
    return re.sub(pattern, linked, html, flags=re.S)


def on_files(files, config):
    "The pages that are kept in the root of the repository."
    for name, shown_at in ROOT_PAGES.items():
        if name == 'README.md' or not (ROOT/name).exists(): continue
        text = in_site((ROOT/name).read_text(encoding='utf-8'), name, shown_at)
        files.append(File.generated(config, shown_at, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    if page.file.generated_by or not page.file.src_uri.endswith('.md'): return markdown
    return in_site(markdown, f'docs/{page.file.src_uri}', page.file.src_uri)


def without_scripts_from_elsewhere(html):
    "A page without the scripts for formulas and diagrams, which would be fetched and which no page needs."
    def kept(found): return '' if 'MathJax' in found[0] or 'mermaid' in found[0] else found[0]
    return re.sub(r'<script\b.*?</script>', kept, html, flags=re.S)


def on_page_content(html, page, config, files):
    return with_names(without_scripts_from_elsewhere(html))
