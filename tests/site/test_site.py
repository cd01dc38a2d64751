"""The built site in a browser: every page opens without an error, pictures are there, search answers; and
every link leads to a file and a place in it. Needs `mkdocs build --strict`, which writes build/site."""
import http.server
import json
import re
import shutil
import subprocess
import threading
from functools import partial
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT/'build'/'site'
SHOWN = ROOT/'build'/'pages'/'notebooks'  # the notebooks that the pages were made of
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
BROWSER = next((path for path in map(shutil.which, BROWSERS) if path), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SITE/'index.html').exists(),
                       reason='no site in build/site: mkdocs build --strict')]
in_browser = pytest.mark.skipif(BROWSER is None, reason='neither chromium nor google-chrome is installed')
FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
         '--disable-background-networking', '--disable-component-update', '--disable-sync',
         '--hide-scrollbars', '--enable-logging=stderr']
WIDTHS = (390, 1280)
SECONDS = 300  # for all pages of a width, on a machine that does other things as well
# opens one page after the other in a frame, and sends what it saw to the server
DRIVER = '''<!doctype html><meta charset="utf-8"><title>driver</title><body><script>
const wait = ms => new Promise(done => setTimeout(done, ms))
const visit = async (page, width) => {
  const frame = document.createElement('iframe')
  Object.assign(frame, {src: page, width, height: 2000})
  document.body.append(frame)
  await new Promise(done => frame.onload = done)
  const seen = frame.contentDocument, root = seen.documentElement
  for (const image of seen.images) { image.loading = 'eager'; await image.decode().catch(() => 0) }
  const answer = {page, scroll: root.scrollWidth, title: seen.title, text: seen.body.innerText.length,
    images: [...seen.images].filter(image => image.closest('article')).map(image => image.naturalWidth),
    broken: [...seen.images].filter(image => !image.naturalWidth).map(image => image.src.slice(0, 99))}
  frame.remove()
  return answer
}
const search = async words => {
  const frame = document.createElement('iframe')
  Object.assign(frame, {src: 'index.html?q=' + words, width: 1280, height: 900})
  document.body.append(frame)
  let links = [], nothing = false
  for (let tries = 0; tries < 600 && !links.length && !nothing; tries++) {
    await wait(100)
    nothing = /^No matching/.test(frame.contentDocument.querySelector('.md-search-result__meta')?.innerText)
    links = [...frame.contentDocument.querySelectorAll('.md-search-result__link')].map(link => link.href)
  }
  frame.remove()
  return links
}
(async () => {
  const answers = []
  for (const page of PAGES) answers.push(await visit(page, WIDTH))
  const found = {}
  for (const words of WORDS) found[words] = await search(words)
  await fetch('/answers', {method: 'POST', body: JSON.stringify({answers, found})})
})()</script>'''


def all_pages():
    "Every page by its address."
    return sorted(str(path.relative_to(SITE)) for path in SITE.rglob('*.html') if path.name != '404.html')


class Server(http.server.SimpleHTTPRequestHandler):
    "Serves the site and the driver, and notes what could not be had."
    def __init__(self, *arguments, driver, seen, **options):
        self.driver = driver
        self.seen = seen
        super().__init__(*arguments, directory=str(SITE), **options)

    def do_GET(self):
        if self.path != '/driver.html': return super().do_GET()
        self.send_response(200)
        self.send_header('Content-Type', 'text/html; charset=utf-8')
        self.end_headers()
        self.wfile.write(self.driver.encode())

    def do_POST(self):
        self.seen['answers'] = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        self.send_response(204)
        self.end_headers()
        self.seen['done'].set()

    def log_request(self, code='-', size='-'):
        if int(code) >= 400 and 'favicon' not in self.path: self.seen['missing'].append(self.path)

    def log_message(self, *arguments): pass


def browse(pages, words, width, folder):
    "(what the driver saw, what was said on the console, what the server did not have)."
    driver = (DRIVER.replace('PAGES', json.dumps(pages)).replace('WORDS', json.dumps(words))
              .replace('WIDTH', str(width)))
    seen = {'done': threading.Event(), 'missing': []}
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Server, driver=driver, seen=seen))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f'http://127.0.0.1:{server.server_port}/driver.html'
    with open(folder/'console.txt', 'w') as console:
        browser = subprocess.Popen([BROWSER, *FLAGS, f'--user-data-dir={folder/"profile"}', address],
                                   stdout=subprocess.DEVNULL, stderr=console)
        try: is_done = seen['done'].wait(SECONDS)
        finally:
            browser.terminate()
            browser.wait(30)
            server.shutdown()
    said = (folder/'console.txt').read_text(errors='replace').splitlines()
    said = [line for line in said if 'CONSOLE' in line]
    assert is_done, said
    return seen['answers'], said, seen['missing']


@in_browser
@pytest.mark.parametrize('width', WIDTHS)
def test_every_page_opens(width, tmp_path):
    pages = all_pages()
    assert len(pages) > 50
    # one page of the reference is made as the other: on a phone some are enough
    if width == 390:
        pages = [page for page in pages if 'reference' not in page or re.search('losses|match|data', page)]
    seen, console, missing = browse(pages, ['ArcFace', 'min2'] if width == 1280 else [], width, tmp_path)
    assert console == [] and missing == []
    answers = {answer['page']: answer for answer in seen['answers']}
    assert sorted(answers) == pages
    assert [page for page, answer in answers.items() if answer['broken']] == []
    assert [page for page, answer in answers.items() if answer['text'] < 200] == []
    assert [(page, answer['scroll']) for page, answer in answers.items() if answer['scroll'] > width] == []
    assert len(answers['index.html']['images']) == 3
    for notebook in SHOWN.glob('*.ipynb'):
        n_pictures = sum('image/png' in output.get('data', {})
                         for cell in json.loads(notebook.read_text(encoding='utf-8'))['cells']
                         for output in cell.get('outputs', []))
        assert len(answers[f'notebooks/{notebook.stem}.html']['images']) >= n_pictures
    if width == 1280:
        assert any('reference/losses.html' in link for link in seen['found']['ArcFace'])
        assert any('min2' in link for link in seen['found']['min2'])


@in_browser
def test_the_driver_sees_what_is_wrong(tmp_path):
    broken = SITE/'broken for a test.html'
    broken.write_text('<title>x</title><article style="width:2000px"><img src="nowhere.png"></article>'
                      '<script>console.error("hey")</script>')
    try: seen, console, missing = browse([broken.name], ['xyzzyplugh'], 390, tmp_path)
    finally: broken.unlink()
    answer, = seen['answers']
    assert answer['scroll'] >= 2000 and answer['images'] == [0] and len(answer['broken']) == 1
    assert any('hey' in line for line in console) and any('nowhere.png' in path for path in missing)
    assert seen['found']['xyzzyplugh'] == []


@in_browser
def test_search_answers_from_disk(tmp_path):
    command = [BROWSER, *FLAGS, f'--user-data-dir={tmp_path/"profile"}', '--virtual-time-budget=20000',
               '--dump-dom', f'{(SITE/"index.html").as_uri()}?q=ArcFace']
    finished = subprocess.run(command, timeout=SECONDS, capture_output=True, text=True, encoding='utf-8')
    assert 'CONSOLE' not in finished.stderr
    found = re.findall(r'href="([^"]*)" class="md-search-result__link"', finished.stdout)
    assert any('reference/losses.html' in unescape(link) for link in found)


class Links(HTMLParser):
    "The links, sources and anchors of a page."
    def __init__(self, text):
        super().__init__()
        self.links, self.anchors, self.loaded = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if values.get('id'): self.anchors.add(values['id'])
        if tag == 'a' and values.get('name'): self.anchors.add(values['name'])
        if tag == 'a' and values.get('href'): self.links.append(values['href'])
        if tag in ('script', 'img', 'iframe') and values.get('src'): self.loaded.append(values['src'])
        if tag == 'link' and values.get('rel') in ('stylesheet', 'icon', 'preconnect'):
            self.loaded.append(values['href'])


@pytest.fixture(scope='module')
def read_pages(): return {page: Links((SITE/page).read_text(encoding='utf-8')) for page in all_pages()}


def wrong_link(page, link, pages):
    "What is wrong with a link of a page, or None."
    parts = urlsplit(link)
    if parts.scheme or parts.netloc: return None
    file = (SITE/page).parent/unquote(parts.path) if parts.path else SITE/page
    if not file.exists(): return 'no such file'
    there = pages.get(str(file.resolve().relative_to(SITE)))
    anchor = unquote(parts.fragment)
    # the theme's own: 'skip to content' and the tabs of the menu
    if there is None or not anchor or anchor.startswith('__'): return None
    return None if anchor in there.anchors else 'no such place'


def test_every_link_leads_somewhere(read_pages):
    wrong = {(page, link): wrong_link(page, link, read_pages)
             for page, read in read_pages.items() for link in read.links}
    assert len(wrong) > 1000 and {place: reason for place, reason in wrong.items() if reason} == {}
    assert wrong_link('index.html', 'nowhere.html', read_pages) == 'no such file'
    assert wrong_link('index.html', 'install.html#nowhere', read_pages) == 'no such place'


def test_nothing_is_fetched_from_elsewhere(read_pages):
    elsewhere = {link for read in read_pages.values() for link in read.loaded if urlsplit(link).netloc}
    assert elsewhere == set() and sum(len(read.loaded) for read in read_pages.values()) > 100


def test_every_public_name_has_its_place(read_pages):
    "Functions and classes of the package, found by import and not by the build's own walk of the sources."
    import fastmatch.all as everything
    anchors = set().union(*(read.anchors for page, read in read_pages.items() if 'reference/' in page))
    ours = {name: thing for name, thing in [*vars(everything).items(), *vars(everything.match).items()]
            if not name.startswith('_') and getattr(thing, '__module__', '').startswith('fastmatch.')
            and getattr(thing, '__qualname__', None) == name}
    assert len(ours) > 200
    assert [name for name, thing in ours.items() if f'{thing.__module__}.{name}' not in anchors] == []


def test_comments_of_parameters_are_told():
    page = (SITE/'reference'/'match.html').read_text(encoding='utf-8')
    assert 'Most matches of a row, the listing itself included' in page
    assert 'Of a self-join, or of new listings in a' in page


def test_notebooks_were_run():
    books = {path.stem: json.loads(path.read_text(encoding='utf-8')) for path in SHOWN.glob('*.ipynb')}
    code = {name: [cell for cell in book['cells'] if cell['cell_type'] == 'code']
            for name, book in books.items()}
    if not any(cell['outputs'] for cells in code.values() for cell in cells):
        pytest.skip('the site was built without running the notebooks')
    assert set(code) == {path.stem for path in (ROOT/'nbs').glob('*.ipynb')}
    left_out = {name: [cell for cell in cells if cell['source'] and cell['execution_count'] is None]
                for name, cells in code.items()}
    assert [name for name, cells in left_out.items()
            if any('takes long' not in ''.join(cell['source']) for cell in cells)] == []
    assert [name for name, cells in code.items()
            if any(output['output_type'] == 'error' for cell in cells for output in cell['outputs'])] == []
