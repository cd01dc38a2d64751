"The page in a browser: no word in the console, no sideways scroll on a phone, every picture decoded."
import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from fastmatch.match import Embeddings, candidates, choose_rule
from fastmatch.report import report_html
from tests.report.made import made_run

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


def browse(page_file, profile_folder):
    "(the page's document after it has run, what was said on the console)."
    command = [BROWSER, *FLAGS, f'--user-data-dir={profile_folder}', page_file.as_uri()]
    finished = subprocess.run(command, timeout=120, capture_output=True, text=True, encoding='utf-8')
    assert finished.returncode == 0, finished.stderr[-2000:]
    return finished.stdout, [line for line in finished.stderr.splitlines() if 'CONSOLE' in line]


def probe(page_html, folder, width):
    "What the page measures of itself in a frame of `width` pixels, without the policy that forbids scripts."
    without_policy, n_policies = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', '', page_html)
    assert n_policies == 1
    (folder/'page.html').write_text(without_policy.replace('</body>', PROBE + '</body>'), encoding='utf-8')
    (folder/'frame.html').write_text(FRAME.replace('WIDTH', str(width)), encoding='utf-8')
    document, console = browse(folder/'frame.html', folder/'profile')
    return json.loads(unescape(re.search(r'<pre id="seen">(.*?)</pre>', document, re.S)[1])), console


@pytest.fixture(scope='module')
def page_html():
    "With the hostile titles, long lists, many columns, and names that nothing breaks."
    made, _, table, image_files = made_run()
    embeddings = Embeddings(
        {'image': made['image'], 'title' * 20: made['title']},
        [f'{"id" * 40}{number}' for number in range(60)], made.titles,
        [f'{"g" * 80}{group}' for group in made.groups])
    rule = choose_rule(candidates(embeddings.spaces(), 8), embeddings.groups)
    reason = 'a long story of why this one is not read ' * 3
    skipped = [{'id': 'x' * 60, 'row': number, 'column': 'image', 'reason': reason} for number in range(3)]
    settings = {'listings': {'train': 7, 'skipped': skipped}, 'seed': 0,
                'versions': {'a-package-with-a-long-name' * 3: '1.2.3' * 9}}
    return report_html(embeddings, rule, {**table, 'untrained_fused': table['title']}, image_files,
                       losses=range(1, 99), monitors={'recall@1': [.4, .5], 'map@r': [.3, .4]},
                       settings=settings)


@pytest.mark.parametrize('width', [360, 1200])
def test_it_fits_and_every_picture_shows(page_html, tmp_path, width):
    measured, console = probe(page_html, tmp_path, width)
    assert measured['width'] == width and measured['scroll'] <= width and measured['wide'] == []
    assert len(measured['images']) == page_html.count('<img ') > 20 and min(measured['images']) > 0
    assert console == [] and measured['scripts'] == 0


def test_the_probe_sees_what_is_wrong(page_html, tmp_path):
    broken = ('<p style="width:500px">wide</p><img src="data:image/webp;base64,AAAA" alt="">'
              '<script>ran = 1; console.log("hey")</script>')
    measured, console = probe(page_html.replace('<nav', broken + '<nav'), tmp_path, 360)
    assert measured['scroll'] > 360 and 'width:500px' in measured['wide'][0] and 0 in measured['images']
    assert measured['scripts'] == 1 and 'hey' in console[0]


def test_as_it_is_opened_from_disk(page_html, tmp_path):
    "With its policy in force nothing is blocked, as nothing is to be blocked; a script that got in would be."
    with_script = page_html.replace('<nav', '<script>document.title = "ran"</script><nav')
    for file_name, content in (('as-is', page_html), ('script', with_script)):
        (tmp_path/f'{file_name}.html').write_text(content, encoding='utf-8')
        document, console = browse(tmp_path/f'{file_name}.html', tmp_path/'profile')
        assert '<title>60 listings matched' in document and (console == []) == (file_name == 'as-is')
