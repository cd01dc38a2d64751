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
from tests.report.made import HOSTILE, made_run
from tests.report.reader import ELEMENTS, SECTIONS, Reader, table_of


def test_sections_stand_in_order(page_html):
    reader = Reader(page_html)
    assert reader.texts('h2') == SECTIONS
    assert reader.texts('h1') == ['60 listings matched by image, title and tfidf']
    links = [link['href'] for link in reader.elements('a')]
    assert links == [f'#{section["id"]}' for section in reader.elements('section')]
    ids = [attributes['id'] for _, attributes in reader.tags if 'id' in attributes]
    assert len(ids) == len(set(ids))


def test_titles_stay_text():
    "Every hostile title, id and group is shown as it is, and none becomes an element."
    embeddings, rule, table, image_files = made_run()
    titles = [HOSTILE[number % len(HOSTILE)] for number in range(60)]
    hostile = Embeddings(dict(embeddings), [f'<q>{number}</q>" onload="x' for number in range(60)], titles,
                         [f'{group}"><u>' for group in embeddings.groups])
    settings = {'<hr>': {'<em>': '<a href=x>'}, 'x': '<s>', 'skipped': [{'<del>': '<ins>'}],
                'names': ['<kbd>']}
    image_rule = Rule('mean', {'image': 1.}, rule.threshold)
    reader = Reader(report_html(hostile, image_rule, table, image_files, settings=settings))
    assert {tag for tag, _ in reader.tags} <= set(ELEMENTS)
    assert not any(name.startswith('on') for _, attributes in reader.tags for name in attributes)
    assert all(link['href'].startswith('#s') for link in reader.elements('a'))
    assert all(image['src'].startswith('data:image/webp;base64,') for image in reader.elements('img'))
    shown = reader.texts('p')
    assert set(HOSTILE) - set(shown) == set() and any('<hr>' in heading for heading in reader.texts('h3'))
    shown_titles = [paragraph for paragraph in reader.elements('p') if paragraph.get('class') == 'title']
    assert all(paragraph['dir'] == 'auto' for paragraph in shown_titles)


def test_half_an_emoji_can_be_written():
    embeddings, table = made_run().embeddings, made_run().table
    cut = Embeddings(dict(embeddings), embeddings.ids, ['cut \ud83d'] * 60, embeddings.groups)
    page_html = report_html(cut, Rule('mean', {'image': 1.}, .5), table)
    assert 'cut ?' in page_html and page_html.encode()


def test_nothing_is_loaded(page_html):
    reader = Reader(page_html)
    assert 'http' not in page_html.replace('http-equiv', '')
    assert 'url(' not in page_html and '@import' not in page_html
    loading = {'script', 'link', 'base', 'iframe', 'object', 'embed'}
    assert {tag for tag, _ in reader.tags}.isdisjoint(loading)
    policy = next(meta['content'] for meta in reader.elements('meta') if 'http-equiv' in meta)
    assert "default-src 'none'" in policy and 'script-src' not in policy
    images = reader.elements('img')
    assert images and all(image['src'].startswith('data:image/webp;base64,') for image in images)
    assert all(image['alt'] for image in images)
    assert len(page_html.encode()) < 400_000


@pytest.mark.parametrize('modalities, titles', [
    (('image',), False), (('title',), True), (('image', 'title'), False)])
def test_runs_without_images_titles_or_training(modalities, titles):
    embeddings, rule, table, image_files = made_run(modalities, titles)
    images = image_files if 'image' in modalities else None
    reader = Reader(report_html(embeddings, rule, table, images))
    assert reader.texts('h2') == [section for section in SECTIONS if section != 'Training']
    assert bool(reader.elements('img')) == (images is not None)
    assert any(paragraph.get('class') == 'title' for paragraph in reader.elements('p')) == titles
    assert 'id="gain"' not in report_html(embeddings, rule, table, images)


def test_equal_pictures_match_in_the_report_as_in_the_rule():
    "Twelve listings that nothing but equal perceptual hashes ties together."
    groups = np.repeat(np.arange(6), 2)
    embeddings = Embeddings({'image': np.eye(12)}, [f'p{number}' for number in range(12)], groups=groups,
                            phash=[f'hash {group}' for group in groups])
    rule = Rule('mean', {'image': 1.}, .9, 12, join=('phash',))
    matches = rule.apply(embeddings.spaces())
    assert len(matches.ids) - len(matches) == 12 and row_f1(matches, groups).mean() == 1
    reader = Reader(report_html(embeddings, rule, {'fused': HeldOut(row_f1(matches, groups), groups)}))
    assert reader.texts('h1') == ['12 listings matched by image and phash']
    assert reader.by_id['exact'] == reader.by_id['precision'] == reader.by_id['recall'] == '100%'
    assert reader.by_id['at-threshold'] == '1.00000'


@pytest.mark.parametrize('change, message', [
    (dict(emb='trained'), '3 of 60 listings were trained on'), (dict(emb='ungrouped'), 'no groups'),
    (dict(table={}), "row 'fused'"), (dict(table='short'), 'scores of 59 listings'),
    (dict(images=[]), '0 for 60'),
    (dict(images='missing'), r'row \d+ \(emoji'), (dict(rule=Rule('mean', {'sound': 1.}, .5)), 'sound')])
def test_what_can_not_be_reported_is_named(tmp_path, change, message):
    embeddings, rule, table, image_files = made_run()
    arguments = dict(emb=embeddings, rule=rule, table=table, images=image_files) | change
    if arguments['emb'] == 'trained':
        arguments['emb'] = Embeddings(dict(embeddings), embeddings.ids, embeddings.titles, embeddings.groups,
                                      np.arange(60) < 3)
    if arguments['emb'] == 'ungrouped':
        arguments['emb'] = Embeddings(dict(embeddings), embeddings.ids, embeddings.titles)
    if arguments['table'] == 'short': arguments['table'] = made_run(n_listings=59).table
    if arguments['images'] == 'missing':
        arguments['images'] = [tmp_path/f'{number}.png' for number in range(60)]
    with pytest.raises(InputError, match=message): report_html(**arguments)


def test_written_whole_or_not_at_all(tmp_path):
    page_file = tmp_path/'a.html'
    write_atomically(page_file, 'old')
    # a lone surrogate can't be written as UTF-8
    with pytest.raises(UnicodeEncodeError): write_atomically(page_file, 'new \ud800')
    assert page_file.read_text() == 'old' and list(tmp_path.iterdir()) == [page_file]
    write_atomically(page_file, 'ü')
    assert page_file.read_text(encoding='utf-8') == 'ü'


@pytest.fixture(scope='module')
def outcome(tmp_path_factory):
    "A real run on 120 listings at 64 px: an epoch of timm's smallest model, random weights on disk."
    weights_file = tmp_path_factory.mktemp('weights')/'test_efficientnet.pth'
    torch.manual_seed(0)
    torch.save(timm.create_model('test_efficientnet', pretrained=False).state_dict(), weights_file)
    listings = pd.read_csv(demo_path()/'listings.csv')
    listings = listings[listings.fold.isin([0, 1])].groupby('fold').head(60).reset_index(drop=True)
    return train_and_judge(listings, demo_path()/'images', fold_col='fold', text_col=None,
                           image_arch=str(weights_file), size=64, epochs=1, bs=16, echo=lambda line: None)


def test_a_real_run(outcome, tmp_path):
    page_file = write_report(outcome, tmp_path/'new'/'report.html')
    assert list(page_file.parent.iterdir()) == [page_file] == [tmp_path/'new'/'report.html']
    with pytest.raises(InputError, match='is a folder'): write_report(outcome, str(page_file.parent))
    page_html = page_file.read_text(encoding='utf-8')
    reader = Reader(page_html)
    summary = outcome.summary()
    judged = summary['judged']
    assert list(judged) == ['in the catalogue', 'among themselves'] == list(outcome.tables)
    assert reader.texts('h2') == SECTIONS and reader.by_id['f1'] == f'{summary["promised"]["row_f1"]:.3f}'
    assert reader.by_id['gain'] == f'{summary["gain"]["fused over untrained_fused"]["diff"]:+.3f}'
    setting = outcome.judgement.setting
    if not outcome.rule.steps or outcome.rule.steps[-1].do == 'min2':
        in_use = row_f1(outcome.rule.apply(setting.spaces), setting.groups)
        assert reader.by_id['at-threshold'] == f'{in_use.mean():.5f}'
    assert all(sentence in reader.texts('li') for sentence in summary['rule_in_words'])
    expected = [[name, f'{scores["row_f1"]:.3f}', f'{scores["se"]:.3f}']
                for of_setting in judged.values() for name, scores in of_setting['rows'].items()]
    assert [row[:3] for row in table_of(page_html)] == expected
    words = ('recall@1', 'map@r', 'row_f1_max', 'training loss', summary['versions']['torch'])
    assert all(word in page_html for word in words)
    # one epoch: a dot for each monitor
    assert len(reader.elements('circle')) >= 3
    assert reader.elements('img') and len(page_html) < 1_000_000


def test_a_report_that_fails_leaves_the_old_one(outcome, tmp_path, monkeypatch):
    page_file = tmp_path/'report.html'
    page_file.write_text('old')
    monkeypatch.setattr(outcome.learn.dls, 'image_folder', tmp_path)
    with pytest.raises(InputError, match='can not be read'): write_report(outcome, page_file)
    assert page_file.read_text() == 'old' and [file.name for file in tmp_path.iterdir()] == ['report.html']
