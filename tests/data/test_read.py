"Every kind of unusable row is found, named and, if asked, left out."
import subprocess
import sys

import imagehash
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fastmatch.core import InputError
from fastmatch.data.demo import demo_path
from fastmatch.data.image import read_image
from fastmatch.data.read import check_listings
from tests.data.made import noise


@pytest.fixture
def shop(tmp_path):
    "Six good listings of three groups, and their folder."
    for i in range(6): noise(seed=i).save(tmp_path/f'{i}.png')
    df = pd.DataFrame(
        dict(
            posting_id=[f'p{i}' for i in range(6)],
            image=[f'{i}.png' for i in range(6)],
            title=[f'tea {i}' for i in range(6)],
            label_group=list('aabbcc'),
            fold=[0, 0, 1, 1, 2, 2],
            extra=range(6),
        ),
        index=range(10, 16),
    )
    return df, tmp_path


COLS = dict(fn_col='image', text_col='title', label_col='label_group', fold_col='fold')


def broken_files(path):
    "Write one file of each kind of damage: name -> a word of its reason."
    full = path/'full.jpg'
    noise(200, 200).save(full, quality=90)
    data = full.read_bytes()
    (path/'truncated.jpg').write_bytes(data[:len(data)*2//3])
    noise(200, 200).save(path/'whole.png')
    data = (path/'whole.png').read_bytes()
    (path/'truncated.png').write_bytes(data[:len(data)//2])
    (path/'flipped.png').write_bytes(data[:100] + bytes(byte ^ 255 for byte in data[100:120]) + data[120:])
    (path/'empty.jpg').write_bytes(b'')
    (path/'text.png').write_text('<html>404 Not Found</html>')
    (path/'folder.jpg').mkdir()
    return {
        'truncated.jpg': 'truncated',
        'truncated.png': 'truncated',
        'flipped.png': 'broken',
        'empty.jpg': '0 bytes',
        'text.png': 'not an image',
        'folder.jpg': 'folder',
        'gone.png': 'no such file',
    }


def test_good_listings_pass_unchanged(shop):
    df, path = shop
    before = df.copy()
    res = check_listings(df, path, **COLS)
    pd.testing.assert_frame_equal(df, before)
    pd.testing.assert_frame_equal(res.df, df.reset_index(drop=True))
    assert isinstance(res.df.index, pd.RangeIndex) and len(res.skipped) == 0 and res.singletons == 0
    assert res.phash is None
    res.df.loc[0, 'title'] = 'changed'
    assert df.title.iloc[0] == 'tea 0'


@pytest.mark.parametrize('phash', [False, True])
def test_every_broken_image_is_listed_at_once(shop, phash):
    df, path = shop
    reasons = broken_files(path)
    bad = pd.DataFrame(
        dict(
            posting_id=[f'bad{i}' for i in range(len(reasons))],
            image=list(reasons),
            title='tea',
            label_group='a',
            fold=0,
        )
    )
    both = pd.concat([df.iloc[:3], bad, df.iloc[3:]])
    with pytest.raises(InputError) as e: check_listings(both, path, **COLS, phash=phash)
    lines = str(e.value).splitlines()[1:]
    assert len(lines) == len(reasons)
    for i, (line, (name, reason)) in enumerate(zip(lines, reasons.items())):
        assert f"row {3 + i} (posting_id 'bad{i}')" in line and name in line and reason in line

    res = check_listings(both, path, **COLS, on_error='skip', phash=phash)
    assert res.df.posting_id.tolist() == df.posting_id.tolist()
    assert res.skipped.id.tolist() == bad.posting_id.tolist()
    assert res.skipped.row.tolist() == list(range(3, 3 + len(reasons)))
    assert set(res.skipped.column) == {'image'}
    assert res.skipped.columns.tolist() == ['id', 'row', 'column', 'reason']
    if phash: assert res.phash.tolist() == [str(imagehash.phash(read_image(path/name))) for name in df.image]


def test_decompression_bomb_is_listed(shop, monkeypatch):
    df, path = shop
    noise(300, 300).save(path/'3.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 40_000)
    res = check_listings(df, path, **COLS, on_error='skip')
    assert res.skipped.id.tolist() == ['p3'] and 'DecompressionBomb' in res.skipped.reason[0]


def test_a_wrong_folder_is_one_error(shop):
    df, path = shop
    (path/'sub').mkdir()
    for on_error in ('raise', 'skip'):
        with pytest.raises(InputError, match='none of the 6 files.*Is path right'):
            check_listings(df, path/'sub', **COLS, on_error=on_error)
    with pytest.raises(InputError, match='not a folder'): check_listings(df, path/'nowhere', **COLS)


def test_one_file_on_many_rows_is_decoded_once(shop, monkeypatch):
    import fastmatch.data.read as module
    df, path = shop
    seen = []
    monkeypatch.setattr(module, '_try_file', lambda f, phash: (seen.append(f), (None, None))[1])
    check_listings(df.assign(image='0.png'), path, **COLS)
    assert len(seen) == 1


@pytest.mark.parametrize(
    'col, value, word',
    [
        ('title', None, 'blank title'),
        ('title', float('nan'), 'blank title'),
        ('title', ' \t', 'blank title'),
        ('title', 3.5, '3.5 is not text'),
        ('label_group', None, 'no label'),
        ('label_group', '', 'no label'),
        ('posting_id', None, 'no id'),
        ('image', None, 'no file name'),
        ('fold', None, 'no fold'),
        ('fold', 1.5, '1.5 is not a whole number'),
        ('fold', 'two', "'two' is not a whole number"),
        ('fold', float('inf'), 'not a whole number'),
    ],
)
def test_bad_values_are_listed_or_skipped(shop, col, value, word):
    df, path = shop
    df = df.astype({col: object})
    df.iloc[2, df.columns.get_loc(col)] = value
    df.iloc[5, df.columns.get_loc(col)] = value
    with pytest.raises(InputError) as e: check_listings(df, path, **COLS)
    assert 'row 2' in str(e.value) and 'row 5' in str(e.value) and word in str(e.value)
    assert '2 unusable rows' in str(e.value)
    res = check_listings(df, path, **COLS, on_error='skip')
    assert res.skipped.row.tolist() == [2, 5] and set(res.skipped.column) == {col}
    assert res.skipped.reason.str.contains(word, regex=False).all()
    assert res.df.extra.tolist() == [0, 1, 3, 4] and res.df.index.tolist() == [0, 1, 2, 3]
    assert res.singletons == 2 and res.df.fold.dtype == np.int64


def test_all_faults_of_a_row_are_told(shop):
    df, path = shop
    df = df.assign(
        title=['tea', None, 'tea', 'tea', 'tea', 'tea'], image=['0.png', 'gone.png', *df.image[2:]]
    )
    res = check_listings(df, path, **COLS, on_error='skip')
    assert res.skipped.row.tolist() == [1, 1] and sorted(res.skipped.column) == ['image', 'title']
    assert len(res.df) == 5


def test_rows_are_listed_in_order_whatever_their_fault(shop):
    df, path = shop
    df = df.assign(title=['tea']*4 + [None, 'tea'], image=['0.png', 'gone.png', *df.image[2:]])
    assert check_listings(df, path, **COLS, on_error='skip').skipped.row.tolist() == [1, 4]


def test_the_hash_is_of_the_whole_photo(shop):
    df, path = shop
    for i in range(6): noise(800, 600, seed=i).save(path/f'{i}.jpg')
    df = df.assign(image=[f'{i}.jpg' for i in range(6)])
    res = check_listings(df, path, **COLS, phash=True)
    assert res.phash.tolist() == [str(imagehash.phash(Image.open(path/name))) for name in df.image]


def test_folds_may_be_text_or_float(shop):
    df, path = shop
    for folds in (
        ['0', '0', '1', '1', '2', '2'],
        [0.0, 0.0, 1.0, 1.0, 2.0, 2.0],
        pd.array([0, 0, 1, 1, 2, 2], dtype='Int64'),
    ):
        res = check_listings(df.assign(fold=folds), path, **COLS)
        assert res.df.fold.dtype == np.int64 and res.df.fold.tolist() == [0, 0, 1, 1, 2, 2]


def test_missing_columns_are_named_with_the_nearest(shop):
    df, path = shop
    df = df.rename(columns=dict(label_group='Label_Groups', title='name'))
    for on_error in ('raise', 'skip'):
        with pytest.raises(InputError) as e: check_listings(df, path, **COLS, on_error=on_error)
        msg = str(e.value)
        assert "title_col='title'" in msg and "group_col='label_group' (did you mean 'Label_Groups'?)" in msg
        assert 'posting_id, image, name, Label_Groups' in msg
    twice = pd.concat([shop[0], shop[0][['title']]], axis=1)
    with pytest.raises(InputError, match='more than one column named title'):
        check_listings(twice, path, **COLS)
    with pytest.raises(InputError, match='is a str'): check_listings('listings.csv', path)


def test_repeated_ids_always_raise(shop):
    df, path = shop
    df = df.assign(posting_id=['p0', 'x', 'p2', 'x', 'p4', 'x'])
    for on_error in ('raise', 'skip'):
        with pytest.raises(InputError, match="posting_id must be unique.*'x' on rows 1, 3, 5"):
            check_listings(df, path, **COLS, on_error=on_error)
    assert len(check_listings(df, path, **COLS, id_col=None).df) == 6


def test_too_few_rows_and_a_single_group_always_raise(shop):
    df, path = shop
    for on_error in ('raise', 'skip'):
        with pytest.raises(InputError, match='df has 0 listings'):
            check_listings(df.iloc[:0], path, **COLS, on_error=on_error)
        with pytest.raises(InputError, match='df has 1 listing:'):
            check_listings(df.iloc[:1], path, **COLS, on_error=on_error)
        with pytest.raises(InputError, match="all 6 listings are in one group.*'a'"):
            check_listings(df.assign(label_group='a'), path, **COLS, on_error=on_error)
    assert len(check_listings(df.iloc[:1], path, **COLS, min_rows=1).df) == 1
    with pytest.raises(InputError, match='1 listing left of 6'):
        check_listings(df.assign(title=['tea'] + [None]*5), path, **COLS, on_error='skip')
    with pytest.raises(InputError, match="choose 'raise' or 'skip'"):
        check_listings(df, path, on_error='warn')


def test_singletons_are_counted_not_refused(shop):
    df, path = shop
    assert check_listings(df.assign(label_group=['a', 'a', 'b', 'c', 'd', 'd']), path, **COLS).singletons == 2


def test_a_long_list_is_cut():
    many = pd.DataFrame(dict(posting_id=range(80), title=[None]*80))
    with pytest.raises(InputError, match='80 unusable rows') as e: check_listings(many, text_col='title')
    assert 'and 30 more' in str(e.value) and len(str(e.value).splitlines()) == 52


@given(st.lists(st.sampled_from(['tea', '', ' ', None, float('nan')]), min_size=3, max_size=12))
def test_skip_keeps_exactly_the_good_rows(titles):
    df = pd.DataFrame(
        dict(posting_id=range(len(titles) + 2), title=pd.Series([*titles, 'tea', 'tea'], dtype=object))
    )
    good = [i for i, title in enumerate(df.title) if isinstance(title, str) and title.strip()]
    res = check_listings(df, text_col='title', on_error='skip')
    assert res.df.posting_id.tolist() == good
    assert sorted(good + res.skipped.row.tolist()) == list(range(len(df)))


def test_the_sample_is_whole():
    path = demo_path()
    df = pd.read_csv(path/'listings.csv')
    res = check_listings(df, path/'images', **COLS)
    assert len(res.df) == 2100 and res.df.label_group.nunique() == 751
    assert sorted(df.image) == sorted(f.name for f in (path/'images').iterdir())
    notice = (path/'NOTICE').read_text(encoding='utf-8')
    assert all(f'\n{vendor} ' in notice for vendor in df.vendor.unique())


def test_reading_needs_no_torch():
    code = ("import sys, fastmatch.data.read, fastmatch.data.split; "
            "print([name for name in ('torch', 'fastai', 'imagehash') if name in sys.modules])")
    assert (
        subprocess.run(
            [sys.executable, '-c', code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == '[]'
    )
