"The whole page: its order, what sellers may write into it, runs that lack a part, and a real run."
import numpy as np
import pandas as pd
import pytest
import timm
import torch

from fastmatch.core import InputError
from fastmatch.data.demo import demo_path
from fastmatch.jobs.train import train_and_judge
from fastmatch.match import Embeddings, HeldOut, Rule, row_f1
from fastmatch.report import report_html, write_report
from fastmatch.store import write_atomically
from tests.report.made import HOSTILE, run
from tests.report.reader import ELEMENTS, SECTIONS, Reader, table_of


def test_sections_stand_in_order(html):
    page = Reader(html)
    assert page.words('h2') == SECTIONS
    assert page.words('h1') == ['60 listings matched by image, title and tfidf']
    assert [link['href'] for link in page.of('a')] == [f'#{section["id"]}' for section in page.of('section')]
    ids = [attributes['id'] for _, attributes in page.tags if 'id' in attributes]
    assert len(ids) == len(set(ids))


def test_titles_stay_text():
    "Every hostile title, id and group is shown as it is, and none becomes an element."
    embeddings, rule, table, files = run()
    titles = [HOSTILE[i % len(HOSTILE)] for i in range(60)]
    other = Embeddings(dict(embeddings), [f'<q>{i}</q>" onload="x' for i in range(60)], titles,
                       [f'{group}"><u>' for group in embeddings.groups])
    settings = {'<hr>': {'<em>': '<a href=x>'}, 'x': '<s>', 'skipped': [{'<del>': '<ins>'}],
                'names': ['<kbd>']}
    plain = Rule('mean', {'image': 1.}, rule.threshold)
    page = Reader(report_html(other, plain, table, files, settings=settings))
    assert {tag for tag, _ in page.tags} <= set(ELEMENTS)
    assert not any(name.startswith('on') for _, attributes in page.tags for name in attributes)
    assert all(link['href'].startswith('#s') for link in page.of('a'))
    assert all(image['src'].startswith('data:image/webp;base64,') for image in page.of('img'))
    shown = page.words('p')
    assert set(HOSTILE) - set(shown) == set() and any('<hr>' in heading for heading in page.words('h3'))
    assert all(p['dir'] == 'auto' for p in page.of('p') if p.get('class') == 'title')


def test_half_an_emoji_can_be_written():
    embeddings, _, table, _ = run()
    other = Embeddings(dict(embeddings), embeddings.ids, ['cut \ud83d'] * 60, embeddings.groups)
    page = report_html(other, Rule('mean', {'image': 1.}, .5), table)
    assert 'cut ?' in page and page.encode()


def test_nothing_is_loaded(html):
    page = Reader(html)
    assert 'http' not in html.replace('http-equiv', '') and 'url(' not in html and '@import' not in html
    loading = {'script', 'link', 'base', 'iframe', 'object', 'embed'}
    assert {tag for tag, _ in page.tags}.isdisjoint(loading)
    policy = next(meta['content'] for meta in page.of('meta') if 'http-equiv' in meta)
    assert "default-src 'none'" in policy and 'script-src' not in policy
    images = page.of('img')
    assert images and all(image['src'].startswith('data:image/webp;base64,') for image in images)
    assert all(image['alt'] for image in images)
    assert len(html.encode()) < 400_000


@pytest.mark.parametrize('modalities, titles', [
    (('image',), False), (('title',), True), (('image', 'title'), False)])
def test_runs_without_images_titles_or_training(modalities, titles):
    embeddings, rule, table, files = run(modalities, titles)
    images = files if 'image' in modalities else None
    page = Reader(report_html(embeddings, rule, table, images))
    assert page.words('h2') == [section for section in SECTIONS if section != 'Training']
    assert bool(page.of('img')) == (images is not None)
    assert any(p.get('class') == 'title' for p in page.of('p')) == titles
    assert 'id="gain"' not in report_html(embeddings, rule, table, images)


def test_equal_pictures_match_in_the_report_as_in_the_rule():
    "Twelve listings that nothing but equal perceptual hashes ties together."
    groups = np.repeat(np.arange(6), 2)
    embeddings = Embeddings({'image': np.eye(12)}, [f'p{i}' for i in range(12)], groups=groups,
                            phash=[f'hash {group}' for group in groups])
    rule = Rule('mean', {'image': 1.}, .9, 12, join=('phash',))
    matches = rule.apply(embeddings.spaces())
    assert len(matches.ids) - len(matches) == 12 and row_f1(matches, groups).mean() == 1
    page = Reader(report_html(embeddings, rule, {'fused': HeldOut(row_f1(matches, groups), groups)}))
    assert page.words('h1') == ['12 listings matched by image and phash']
    assert page.by_id['exact'] == page.by_id['precision'] == page.by_id['recall'] == '100%'
    assert page.by_id['at-threshold'] == '1.00000'


@pytest.mark.parametrize('change, match', [
    (dict(emb='trained'), '3 of 60 listings were trained on'), (dict(emb='ungrouped'), 'no groups'),
    (dict(table={}), "row 'fused'"), (dict(table='short'), 'scores of 59 listings'),
    (dict(images=[]), '0 for 60'),
    (dict(images='missing'), r'row \d+ \(emoji'), (dict(rule=Rule('mean', {'sound': 1.}, .5)), 'sound')])
def test_what_can_not_be_reported_is_named(tmp_path, change, match):
    embeddings, rule, table, files = run()
    given = dict(emb=embeddings, rule=rule, table=table, images=files) | change
    if given['emb'] == 'trained':
        given['emb'] = Embeddings(dict(embeddings), embeddings.ids, embeddings.titles, embeddings.groups,
                                  np.arange(60) < 3)
    if given['emb'] == 'ungrouped':
        given['emb'] = Embeddings(dict(embeddings), embeddings.ids, embeddings.titles)
    if given['table'] == 'short': given['table'] = run(n=59)[2]
    if given['images'] == 'missing': given['images'] = [tmp_path/f'{i}.png' for i in range(60)]
    with pytest.raises(InputError, match=match): report_html(**given)


def test_written_whole_or_not_at_all(tmp_path):
    file = tmp_path/'a.html'
    write_atomically(file, 'old')
    # a lone surrogate can't be written as UTF-8
    with pytest.raises(UnicodeEncodeError): write_atomically(file, 'new \ud800')
    assert file.read_text() == 'old' and list(tmp_path.iterdir()) == [file]
    write_atomically(file, 'ü')
    assert file.read_text(encoding='utf-8') == 'ü'


@pytest.fixture(scope='module')
def outcome(tmp_path_factory):
    "A real run on 120 listings at 64 px: an epoch of timm's smallest model, random weights on disk."
    file = tmp_path_factory.mktemp('weights')/'test_efficientnet.pth'
    torch.manual_seed(0)
    torch.save(timm.create_model('test_efficientnet', pretrained=False).state_dict(), file)
    df = pd.read_csv(demo_path()/'listings.csv')
    df = df[df.fold.isin([0, 1])].groupby('fold').head(60).reset_index(drop=True)
    return train_and_judge(df, demo_path()/'images', fold_col='fold', text_col=None, image_arch=str(file),
                           size=64, epochs=1, bs=16, echo=lambda line: None)


def test_a_real_run(outcome, tmp_path):
    path = write_report(outcome, tmp_path/'new'/'report.html')
    assert list(path.parent.iterdir()) == [path] == [tmp_path/'new'/'report.html']
    with pytest.raises(InputError, match='is a folder'): write_report(outcome, str(path.parent))
    html = path.read_text(encoding='utf-8')
    page = Reader(html)
    summary = outcome.summary()
    heldout = summary['heldout']
    assert page.words('h2') == SECTIONS and page.by_id['f1'] == f'{heldout["fused"]["row_f1"]:.3f}'
    assert page.by_id['gain'] == f'{summary["gain"]["fused over untrained_fused"]["diff"]:+.3f}'
    at_threshold = page.by_id['at-threshold']
    assert at_threshold == f'{row_f1(outcome.matches, outcome.emb.groups).mean():.5f}'
    want = [[name, f'{scores["row_f1"]:.3f}', f'{scores["se"]:.3f}'] for name, scores in heldout.items()]
    assert [row[:3] for row in table_of(html)] == want
    words = ('recall@1', 'map@r', 'row_f1_max', 'training loss', summary['versions']['torch'])
    assert all(word in html for word in words)
    # one epoch: a dot for each monitor
    assert len(page.of('circle')) >= 3
    assert page.of('img') and len(html) < 1_000_000


def test_a_report_that_fails_leaves_the_old_one(outcome, tmp_path, monkeypatch):
    path = tmp_path/'report.html'
    path.write_text('old')
    monkeypatch.setattr(outcome.learn.dls, 'image_folder', tmp_path)
    with pytest.raises(InputError, match='can not be read'): write_report(outcome, path)
    assert path.read_text() == 'old' and [file.name for file in tmp_path.iterdir()] == ['report.html']
