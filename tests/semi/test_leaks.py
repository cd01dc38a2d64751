"Planted leaks: an item that is held out, and its twins by file, by picture, by title and through others."
import shutil

import pandas as pd
import pytest
from PIL import Image

from fastmatch.core import InputError
from fastmatch.semi.leaks import HeldOut
from tests.data.made import noise
from tests.semi.small import make_dls


@pytest.fixture
def planted(tmp_path):
    "(table, folder): items a to l with labels, of which e is held out, and unlabelled ones, some its twins."
    for number, name in enumerate('abcdefghijkluvwxyz'): noise(64, 64, number).save(tmp_path/f'{name}.png')
    shutil.copy(tmp_path/'e.png', tmp_path/'u.png')
    # the same picture with other bytes
    Image.open(tmp_path/'e.png').resize((60, 60)).save(tmp_path/'v.png')
    shutil.copy(tmp_path/'v.png', tmp_path/'x.png')
    titles = {'e': 'Red  shoe', 'w': 'red SHOE', 'y': 'red shoes'}
    rows = [{'posting_id': name, 'image': f'{name}.png', 'title': titles.get(name, f'title {name}'),
             'vendor': None if name in 'uvwxyz' else 'one' if name in 'ace' else 'two',
             'fold': 0 if name in 'ef' else 1} for name in 'abcdefghijkluvwxyz']
    return pd.DataFrame(rows), tmp_path


def test_twins_are_found(planted):
    table, folder = planted
    dls = make_dls(table, folder, text_col='title')
    assert set(dls.valid_df.posting_id) == {'e', 'f'}
    leaks = HeldOut(dls).leaks(dls.unlabelled)
    assert dict(zip(leaks['id'], leaks['why'])) == {
        'u': 'same picture', 'v': 'same perceptual hash', 'w': 'same title', 'x': 'same perceptual hash'}
    assert set(leaks.held_out) == {'e'} and leaks['row'].tolist() == [0, 1, 2, 3]
    # without hashes the copy of a copy has no link to e
    assert HeldOut(dls, phash=False).leaks(dls.unlabelled)['id'].tolist() == ['u', 'w']
    # through another item: z has the picture of y, and y is held out by a table of its own
    shutil.copy(folder/'y.png', folder/'z.png')
    more = pd.DataFrame({'posting_id': ['t'], 'image': ['a.png'], 'title': ['Red shoes']})
    leaks = HeldOut(dls, more, phash=False).leaks(dls.unlabelled)
    assert leaks.set_index('id').loc[['y', 'z'], ['why', 'held_out']].to_numpy().tolist() == [
        ['same title', 't'], ['twin of a twin', 't']]


def test_they_are_refused_by_name(planted):
    table, folder = planted
    dls = make_dls(table, folder, text_col='title')
    held_out = HeldOut(dls)
    with pytest.raises(InputError, match=r'4 of 6 items are held out, .*: u \(same picture of e\), v '):
        held_out.refuse(dls.unlabelled)
    held_out.refuse(dls.unlabelled.iloc[4:])
    with pytest.raises(InputError, match=r'1 of 1 items .*: e \(same id of e\)'):
        held_out.refuse(dls.valid_df.iloc[:1])


def test_a_picture_on_many_items_makes_no_twins(planted):
    table, folder = planted
    dls = make_dls(table, folder, text_col='title')
    more = pd.DataFrame({'posting_id': range(55), 'image': 'u.png',
                         'title': [f'more {n}' for n in range(55)]})
    assert 'u' in HeldOut(dls, more.iloc[:40], phash=False).leaks(dls.unlabelled)['id'].tolist()
    with pytest.warns(UserWarning, match='picture.* on more than 50 groups'):
        leaks = HeldOut(dls, more, phash=False).leaks(dls.unlabelled)
    assert leaks['id'].tolist() == ['w']
