"The saved search index: what is read is what a fresh one holds, and what can't be trusted is made anew."
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from fastmatch.catalogue import Catalogue, saved
from fastmatch.catalogue.index import find_pairs, least_similarities
from fastmatch.match import Index, Rule, Tfidf
from tests.catalogue.made import RULES, listings, matcher_of

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = Rule('union', {'image': .9, 'tfidf': .85}, 0., k=100, max_matches=100,
                  join=('phash', 'same_title'))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(saved, 'SAVED_FROM', 1)
    monkeypatch.setattr(saved, 'SEARCHED_OFTEN', 10)


@pytest.fixture
def is_read(monkeypatch):
    "Whether each index that was asked for came from the disk."
    told = []
    read = saved.SavedIndex.read
    monkeypatch.setattr(saved.SavedIndex, 'read', lambda self: (
        index := read(self), told.append(index is not None))[0])
    return told


def found(catalogue, embeddings):
    table = catalogue.match(embeddings)
    return table[['posting_id', 'match', 'group']].values.tolist(), table.score.to_numpy()


def check_alike(file, matcher, embeddings):
    "What is found by the saved index and by one of the record alone."
    with Catalogue(file, matcher) as catalogue:
        by_saved = found(catalogue, embeddings)
        assert catalogue.check() == []
    folder = saved.folder_of(file)
    shutil.copytree(folder, f'{folder}.kept')
    shutil.rmtree(folder)
    with Catalogue(file, matcher) as catalogue: by_record = found(catalogue, embeddings)
    shutil.rmtree(folder)
    Path(f'{folder}.kept').rename(folder)
    assert by_saved[0] == by_record[0] and len(by_saved[0]) > 5
    assert np.allclose(by_saved[1], by_record[1], atol=1e-6)


@pytest.mark.parametrize('rule', [RULES['mean'], EVERYTHING, RULES['agglomerate']])
def test_what_is_read_is_what_was_there(rule, tmp_path, is_read):
    embeddings, matcher, file = listings(60), matcher_of(rule), tmp_path/'shop.db'
    with Catalogue.create(file, matcher) as catalogue: catalogue.add(embeddings.take(np.arange(30)))
    check_alike(file, matcher, embeddings.take(np.arange(40, 60)))
    with Catalogue(file, matcher) as catalogue:
        catalogue.add(embeddings.take(np.arange(30, 40)))
        # listings that went, and one that came again as another
        catalogue.remove(['p003', 'p035'])
        catalogue.add(embeddings.take([5, 35]), on_known='replace')
        catalogue.undo(2)
    check_alike(file, matcher, embeddings.take(np.arange(40, 60)))
    assert is_read == [False, True, False, True, True, False]


def test_events_since_it_was_saved(tmp_path, is_read):
    embeddings, matcher, file = listings(60), matcher_of(RULES['mean']), tmp_path/'shop.db'
    with Catalogue.create(file, matcher) as catalogue: catalogue.add(embeddings.take(np.arange(20)))
    catalogue = Catalogue(file, matcher)
    catalogue.add(embeddings.take(np.arange(20, 30)))
    catalogue.remove('p001')
    # as after a kill: what is in memory is not saved
    catalogue.record.connection.close()
    check_alike(file, matcher, embeddings.take(np.arange(30, 60)))
    assert is_read[:3] == [False, True, True]


def test_one_that_grows_is_saved_before_it_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(saved, 'GROWTH', 10)
    counts = []
    with Catalogue.create(tmp_path/'shop.db', matcher_of(RULES['mean'])) as catalogue:
        for start in range(0, 60, 5):
            catalogue.add(listings(60).take(np.arange(start, start + 5)))
            counts.append(catalogue._saved.count)
        n_parts = len(catalogue._index.parts)
    # 10 more, and half as many again
    assert counts == [0, 10, 10, 20, 20, 30, 30, 30, 45, 45, 45, 45] and catalogue._saved.count == 60
    parts = [entry.name for entry in saved.folder_of(tmp_path/'shop.db').glob('part-*')]
    assert len(parts) == len(set(parts)) == n_parts


def test_approximate_ones_come_back_as_they_were(tmp_path, monkeypatch):
    embeddings, matcher, file = listings(60), matcher_of(RULES['mean']), tmp_path/'shop.db'
    monkeypatch.setattr(saved.SearchIndex.__init__, '__defaults__', (25,))
    with Catalogue.create(file, matcher) as catalogue:
        catalogue.add(embeddings.take(np.arange(10)))
        assert not isinstance(catalogue.index().parts[0].spaces['image'], Index)
        catalogue.add(embeddings.take(np.arange(10, 40)))
        assert type(catalogue.index().parts[0].spaces['image']) is Index
    with Catalogue(file, matcher) as catalogue:
        spaces = catalogue.index().parts[0].spaces
        assert (type(spaces['image']), type(spaces['tfidf'])) == (Index, Tfidf) and len(spaces['image']) == 40
        assert spaces['image'].requested_kind == 'auto'


def damage(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize('name', [
    'index.json', 'v-*/added.json', 'part-*/index.json', 'part-*/*/numbers', 'part-*/*/tfidf/by_title/data',
    'part-*/image/vectors.safetensors'])
@pytest.mark.parametrize('how', ['changed', 'gone'])
def test_a_damaged_one_is_told_and_made_anew(name, how, tmp_path):
    embeddings, matcher, file = listings(40), matcher_of(RULES['mean']), tmp_path/'shop.db'
    with Catalogue.create(file, matcher) as catalogue:
        catalogue.add(embeddings.take(np.arange(30)))
        wanted = found(catalogue, embeddings.take(np.arange(30, 40)))
    culprit, = saved.folder_of(file).glob(name)
    if how == 'changed': damage(culprit)
    else: culprit.unlink()
    if how == 'gone' and name == 'index.json': warned = warnings.catch_warnings(action='error')
    else: warned = pytest.warns(UserWarning, match='shop.db-index: .*the index is made anew from .*shop.db')
    with Catalogue(file, matcher) as catalogue:
        with warned: again = found(catalogue, embeddings.take(np.arange(30, 40)))
        assert again[0] == wanted[0] and np.allclose(again[1], wanted[1], atol=1e-6)
    # and is whole again
    with Catalogue(file, matcher) as catalogue, warnings.catch_warnings(action='error'): catalogue.index()


def test_one_of_another_file_is_not_taken(tmp_path):
    embeddings, matcher = listings(60), matcher_of(RULES['mean'])
    for name, places in (('one', np.arange(30)), ('other', np.arange(30, 60))):
        with Catalogue.create(tmp_path/f'{name}.db', matcher) as catalogue:
            catalogue.add(embeddings.take(places))
    shutil.rmtree(tmp_path/'one.db-index')
    shutil.copytree(tmp_path/'other.db-index', tmp_path/'one.db-index')
    with Catalogue(tmp_path/'one.db', matcher) as catalogue:
        with pytest.warns(UserWarning, match='is not of this file as it is now'): catalogue.index()
        assert set(catalogue.match(embeddings.take(np.arange(30, 40))).match) <= set(embeddings.ids)
    check_alike(tmp_path/'one.db', matcher, embeddings.take(np.arange(30, 60)))


def test_one_of_another_past_is_not_taken(tmp_path):
    embeddings, matcher, file = listings(60), matcher_of(RULES['mean']), tmp_path/'shop.db'
    with Catalogue.create(file, matcher) as catalogue: catalogue.add(embeddings.take(np.arange(20)))
    shutil.copy(file, tmp_path/'kept.db')
    with Catalogue(file, matcher) as catalogue: catalogue.add(embeddings.take(np.arange(20, 40)))
    # yesterday's copy takes other listings under the same numbers
    shutil.copy(tmp_path/'kept.db', file)
    with Catalogue(file, matcher) as catalogue:
        with pytest.warns(UserWarning, match='is not of this file as it is now'):
            catalogue.add(embeddings.take(np.arange(40, 60)))
    check_alike(file, matcher, embeddings.take(np.arange(20, 40)))


def test_one_of_another_rule_is_not_taken(tmp_path):
    embeddings, file = listings(60), tmp_path/'shop.db'
    with Catalogue.create(file, matcher_of(RULES['mean'])) as catalogue: catalogue.add(embeddings)
    with pytest.warns(UserWarning, match='another encoder or another rule'):
        Catalogue(file, matcher_of(EVERYTHING), new_rule=True).close()
    check_alike(file, matcher_of(EVERYTHING), listings(20, 1))


def test_where_it_can_not_be_saved_the_events_stay(tmp_path):
    file, matcher = tmp_path/'shop.db', matcher_of(RULES['mean'])
    saved.folder_of(file).write_text('in the way')
    catalogue = Catalogue.create(file, matcher)
    catalogue.add(listings(30))
    with pytest.warns(UserWarning, match='shop.db-index: the index was not saved.*a file, not a folder'):
        catalogue.close()
    with Catalogue(file) as again: assert len(again) == 30


def test_a_verdict_needs_no_index(tmp_path, is_read):
    file, matcher = tmp_path/'shop.db', matcher_of(RULES['mean'])
    with Catalogue.create(file, matcher) as catalogue: catalogue.add(listings(30))
    with Catalogue(file, matcher) as catalogue:
        catalogue.verdict('p000', 'p001', False)
        assert is_read == [False]
        catalogue.index()
        catalogue.verdict('p000', 'p001', True)
        assert catalogue._seen == catalogue.last_event and is_read == [False, True]


def test_kills_between_saving_and_saying(tmp_path):
    arguments = [sys.executable, '-m', 'tests.catalogue.kill_job', str(tmp_path/'shop.db'), '8', '3', 'saved']
    finished = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True,
                              env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert '8 kills' in finished.stdout and 'made anew' not in finished.stderr


def test_what_a_search_may_leave_out():
    rng = np.random.default_rng(0)
    rule = Rule('mean', {'image': .7, 'tfidf': .3, 'title': 0.}, .8)
    least = least_similarities(rule)
    assert set(least) == {'image', 'tfidf'}
    image, title = rng.uniform(-1, 1, (2, 100_000))
    matches = .7 * image + .3 * title >= .8
    assert image[matches].min() >= least['image'] and title[matches].min() >= least['tfidf']
    assert least == pytest.approx({'image': 5 / 7, 'tfidf': 1 / 3}, abs=1e-4)
    for other in (RULES['above'], RULES['augment'], RULES['pools'], Rule('mean', {'image': 1.}, 1.01)):
        assert least_similarities(other) == {}


def test_pairs_are_those_of_a_full_search(tmp_path, monkeypatch):
    embeddings, rule = listings(300), Rule('mean', {'tfidf': 1.}, .7, k=400, max_matches=400)
    with Catalogue.create(tmp_path/'shop.db', matcher_of(rule)) as catalogue:
        catalogue.add(embeddings.take(np.arange(200)))
        index = catalogue.index()
        new = index.part_of(np.arange(-100, 0), embeddings.take(np.arange(200, 300)))
        bounded = find_pairs(index, rule, new, {})
        monkeypatch.setattr(Tfidf, 'at_least', lambda self, least: self)
        full = find_pairs(index, rule, new, {})
    columns = ['first', 'second', 'score']
    assert bounded[columns].equals(full[columns]) and len(full) > 100
