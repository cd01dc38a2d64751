"The page in a browser: no word in the console, no sideways scroll on a phone, every picture decoded."
import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from fastmatch.match import Embeddings, candidates, choose_rule
from fastmatch.report import report_html
from tests.report.made import run

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
BROWSER = next((path for path in map(shutil.which, BROWSERS) if path), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason='neither chromium nor google-chrome is installed')
FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
         '--disable-background-networking', '--disable-component-update', '--disable-sync',
         '--hide-scrollbars',
         '--enable-logging=stderr', '--virtual-time-budget=5000', '--dump-dom']
# what is too wide, outside of the boxes that scroll by themselves
PROBE = '''<script>addEventListener('load', () => {
  const d = document.documentElement, all = [...document.querySelectorAll('body *')]
  const out = all.filter(o => !o.closest('.scroll, pre, svg') &&
    o.getBoundingClientRect().right > d.clientWidth + 1)
  parent.postMessage({width: d.clientWidth, scroll: d.scrollWidth,
    images: [...document.images].map(o => o.naturalWidth),
    wide: out.map(o => o.outerHTML.slice(0, 80)),
    scripts: window.ran || 0}, '*') })</script>'''
FRAME = '''<!doctype html><title>frame</title><pre id="seen"></pre><script>
onmessage = e => { document.getElementById('seen').textContent = JSON.stringify(e.data) }</script>
<iframe src="page.html" style="border:0;width:WIDTHpx;height:3000px"></iframe>'''


def browse(page, profile):
    "(the page's document after it has run, what was said on the console)."
    finished = subprocess.run([BROWSER, *FLAGS, f'--user-data-dir={profile}', page.as_uri()], timeout=120,
                         capture_output=True, text=True, encoding='utf-8')
    assert finished.returncode == 0, finished.stderr[-2000:]
    return finished.stdout, [line for line in finished.stderr.splitlines() if 'CONSOLE' in line]


def probe(html, folder, width):
    "What the page measures of itself in a frame of `width` pixels, without the policy that forbids scripts."
    bare, n = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', '', html)
    assert n == 1
    (folder/'page.html').write_text(bare.replace('</body>', PROBE + '</body>'), encoding='utf-8')
    (folder/'frame.html').write_text(FRAME.replace('WIDTH', str(width)), encoding='utf-8')
    dom, said = browse(folder/'frame.html', folder/'profile')
    return json.loads(unescape(re.search(r'<pre id="seen">(.*?)</pre>', dom, re.S)[1])), said


@pytest.fixture(scope='module')
def html():
    "With the hostile titles, long lists, many columns, and names that nothing breaks."
    short, _, table, files = run()
    embeddings = Embeddings(
        {'image': short['image'], 'title' * 20: short['title']}, [f'{"id" * 40}{i}' for i in range(60)],
        short.titles, [f'{"g" * 80}{group}' for group in short.groups])
    rule = choose_rule(candidates(embeddings.spaces(), 8), embeddings.groups)
    reason = 'a long story of why this one is not read ' * 3
    skipped = [{'id': 'x' * 60, 'row': i, 'column': 'image', 'reason': reason} for i in range(3)]
    settings = {'listings': {'train': 7, 'skipped': skipped}, 'seed': 0,
                'versions': {'a-package-with-a-long-name' * 3: '1.2.3' * 9}}
    return report_html(embeddings, rule, {**table, 'untrained_fused': table['title']}, files,
                       losses=range(1, 99), monitors={'recall@1': [.4, .5], 'map@r': [.3, .4]},
                       settings=settings)


@pytest.mark.parametrize('width', [360, 1200])
def test_it_fits_and_every_picture_shows(html, tmp_path, width):
    seen, said = probe(html, tmp_path, width)
    assert seen['width'] == width and seen['scroll'] <= width and seen['wide'] == []
    assert len(seen['images']) == html.count('<img ') > 20 and min(seen['images']) > 0
    assert said == [] and seen['scripts'] == 0


def test_the_probe_sees_what_is_wrong(html, tmp_path):
    broken = ('<p style="width:500px">wide</p><img src="data:image/webp;base64,AAAA" alt="">'
              '<script>ran = 1; console.log("hey")</script>')
    seen, said = probe(html.replace('<nav', broken + '<nav'), tmp_path, 360)
    assert seen['scroll'] > 360 and 'width:500px' in seen['wide'][0] and 0 in seen['images']
    assert seen['scripts'] == 1 and 'hey' in said[0]


def test_as_it_is_opened_from_disk(html, tmp_path):
    "With its policy in force nothing is blocked, as nothing is to be blocked; a script that got in would be."
    with_script = html.replace('<nav', '<script>document.title = "ran"</script><nav')
    for name, text in (('as-is', html), ('script', with_script)):
        (tmp_path/f'{name}.html').write_text(text, encoding='utf-8')
        dom, said = browse(tmp_path/f'{name}.html', tmp_path/'profile')
        assert '<title>60 listings matched' in dom and (said == []) == (name == 'as-is')
