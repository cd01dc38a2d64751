"The page in a browser: a picture is dropped, groups are read, a pair is rejected and stays so."
import base64
import re
import shutil
from importlib.resources import files

import pytest

from fastmatch.catalogue import Catalogue
from tests.serve.running import running

sync_api = pytest.importorskip('playwright.sync_api')
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
BROWSER = next((path for path in map(shutil.which, BROWSERS) if path), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason='neither chromium nor google-chrome is installed')
# what is wider than the window, outside of what scrolls by itself
TOO_WIDE = '''() => [...document.querySelectorAll('body *')].filter(node =>
  !node.closest('nav, .skip') && node.getBoundingClientRect().right > innerWidth + 1).map(
  node => node.outerHTML)'''
UNNAMED = '''() => [...document.querySelectorAll('button, input')].filter(node => !(node.innerText ||
  node.ariaLabel || (node.labels && node.labels.length))).map(node => node.outerHTML)'''
DROP = '''([content, name]) => {
  const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0))
  const data = new DataTransfer()
  data.items.add(new File([bytes], name, { type: 'image/png' }))
  const place = document.querySelector('.drop')
  place.dispatchEvent(new DragEvent('dragover', { dataTransfer: data, bubbles: true, cancelable: true }))
  place.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true })) }'''


@pytest.fixture(scope='module')
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture(scope='module')
def looked_at(shop, tmp_path_factory):
    own = shop.copy(tmp_path_factory.mktemp('looked_at'))
    with running(own) as (_, port): yield own, f'http://127.0.0.1:{port}/'


@pytest.fixture
def opened(browser, looked_at):
    "Function of a width and an address: a page, whose console has to stay silent."
    said, contexts = [], []

    def open_page(address='', width=1200, **options):
        context = browser.new_context(viewport={'width': width, 'height': 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on('console', lambda message: said.append(message.text))
        page.on('pageerror', lambda error: said.append(str(error)))
        page.goto(looked_at[1] + address)
        return page
    yield open_page
    for context in contexts: context.close()
    assert said == []


@needs_browser
def test_a_picture_is_dropped(opened, looked_at):
    shop, _ = looked_at
    page = opened('#search')
    page.fill('#text', shop.listings.title[52])
    page.evaluate(DROP, [base64.b64encode(shop.picture(52)).decode(), 'any.png'])
    page.wait_for_selector('.match')
    shown = page.locator('.match bdi').all_inner_texts()
    with Catalogue(shop.file, shop.matcher) as catalogue:
        found = catalogue.match(shop.listings.iloc[[52]].assign(posting_id='new'), shop.images)
        threshold = catalogue.threshold
    assert shown == found['match'].tolist() and shown
    text = page.locator('.match').first.inner_text()
    for words in (f'{found.score[0]:.3f}', f'{threshold:.3f}', f'group {found.group[0]}'):
        assert words in text
    assert page.locator('.drop img').evaluate('node => node.naturalWidth') > 0
    # by title alone
    page.get_by_role('button', name='Without a picture').click()
    page.fill('#text', shop.listings.title[7])
    page.get_by_role('button', name='Search').click()
    page.wait_for_selector('.members')
    assert 'emoji_0007' in page.locator('#view bdi').all_inner_texts()


@needs_browser
def test_groups_are_read_and_a_pair_is_rejected_for_good(opened, looked_at):
    shop, _ = looked_at
    page = opened('#groups')
    page.wait_for_selector('.group')
    with Catalogue(shop.file) as reader: group, size = reader.largest_groups(1).iloc[0].tolist()
    card = page.locator(f'[data-group="{group}"]')
    names = card.locator('bdi').all_inner_texts()
    with Catalogue(shop.file) as reader: assert names == reader.members(group) and len(names) == size
    page.wait_for_function('() => [...document.querySelector(".group").querySelectorAll("img")].every('
                           'node => node.complete && node.naturalWidth > 0)')
    page.fill('#who', 'ana')
    for name in names[:2]: card.locator(f'[data-id="{name}"]').click()
    card.get_by_role('button', name='Why these two?').click()
    page.wait_for_selector('dialog[open] .pair')
    with Catalogue(shop.file) as reader: sentence = reader.why(*names[:2]).sentence
    assert page.locator('#why-body > p').first.inner_text() == sentence
    page.keyboard.press('Escape')
    card.get_by_role('button', name='Not the same').click()
    page.wait_for_selector('#said:has-text("Not the same product: kept")')
    page.wait_for_function('names => ![...document.querySelectorAll("[data-group]")].some(card => '
                           'names.every(name => card.querySelector(`[data-id="${name}"]`)))', arg=names[:2])
    page.reload()
    page.wait_for_selector('.group')
    cards = [set(card.locator('bdi').all_inner_texts()) for card in page.locator('.group').all()]
    assert cards and not any(set(names[:2]) <= card for card in cards)
    assert page.input_value('#who') == 'ana'
    with Catalogue(shop.file) as reader:
        assert reader.group_of(names[0]) != reader.group_of(names[1])
        assert reader.verdicts().who.tolist() == ['ana']
    # and back, by what the page calls the last change
    page.goto(page.url.split('#')[0] + '#changes')
    page.get_by_role('button', name='Undo').first.click()
    page.wait_for_selector('#said:has-text("is taken back")')
    with Catalogue(shop.file) as reader: assert reader.members(group) == names


@needs_browser
def test_close_calls_come_first_and_by_keys_alone(opened, looked_at):
    shop, _ = looked_at
    with Catalogue(shop.file) as reader: calls = reader.close_calls(3)
    page = opened()
    page.wait_for_selector('.judge')
    assert page.locator('.queue bdi').all_inner_texts() == [calls['first'][0], calls['second'][0]]
    page.keyboard.press('n')
    page.wait_for_selector(f'.queue bdi:has-text("{calls["second"][1]}")')
    assert page.locator('.queue bdi').all_inner_texts() == [calls['first'][1], calls['second'][1]]
    with page.expect_response('**/api/verdict') as answer: page.keyboard.press('d')
    assert answer.value.status == 200
    with Catalogue(shop.file) as reader:
        said = reader.verdicts().iloc[-1]
        assert {said['first'], said['second']} == {calls['first'][1], calls['second'][1]} and not said.same
    page.reload()
    page.wait_for_selector('.judge')
    assert page.locator('.queue bdi').all_inner_texts() == [calls['first'][0], calls['second'][0]]
    # from the first tab stop on: the content, the views, the buttons
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.className') == 'skip'
    page.keyboard.press('Enter')
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.innerText').startswith('The same')


@needs_browser
@pytest.mark.parametrize('width', [360, 390, 1200])
def test_it_fits(opened, width):
    page = opened(width=width, color_scheme='dark' if width == 390 else 'light')
    for name in ('close-calls', 'search', 'groups', 'changes'):
        page.goto(page.url.split('#')[0] + f'#{name}')
        page.wait_for_load_state('networkidle')
        assert page.evaluate(TOO_WIDE) == [], name
        assert page.evaluate('document.documentElement.scrollWidth') <= width
        assert page.evaluate(UNNAMED) == [] and page.locator('h1').count() == 1


@needs_browser
def test_what_a_title_holds_is_text(opened, looked_at):
    shop, _ = looked_at
    hostile = '<img src=x onerror="document.title=1"><script>document.title=1</script>'
    with Catalogue(shop.file, shop.matcher) as catalogue:
        catalogue.add(shop.listings.iloc[[58]].assign(posting_id='hostile', title=hostile), shop.images)
    page = opened('#search')
    page.fill('#text', 'onerror')
    page.get_by_role('button', name='Search').click()
    page.wait_for_selector('.members')
    assert page.locator('.members .title').inner_text() == hostile and page.title() == 'fastmatch'


def test_its_colours_are_the_reports():
    def tokens(package, name):
        style = (files(package)/'templates'/name).read_text(encoding='utf-8')
        blocks = re.findall(r':root {(.*?)}', style, re.S)
        return [dict(re.findall(r'--(\w+): (#\w+)', block)) for block in blocks]
    own_style, other_style = tokens('fastmatch.serve', 'page.css'), tokens('fastmatch.report', 'style.css')
    for own, other in zip(own_style, other_style, strict=True):
        assert {name: own[name] for name in other} == other and len(other) == 8
