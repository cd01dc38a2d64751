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
    for number in range(6): noise(seed=number).save(tmp_path/f'{number}.png')
    listings = pd.DataFrame(
        dict(
            posting_id=[f'p{number}' for number in range(6)],
            image=[f'{number}.png' for number in range(6)],
            title=[f'tea {number}' for number in range(6)],
            label_group=list('aabbcc'),
            fold=[0, 0, 1, 1, 2, 2],
            extra=range(6),
        ),
        index=range(10, 16),
    )
    return listings, tmp_path


COLUMNS = dict(fn_col='image', text_col='title', label_col='label_group', fold_col='fold')


def broken_files(folder):
    "Write one file of each kind of damage: name -> a word of its reason."
    whole_jpg = folder/'full.jpg'
    noise(200, 200).save(whole_jpg, quality=90)
    content = whole_jpg.read_bytes()
    (folder/'truncated.jpg').write_bytes(content[:len(content)*2//3])
    noise(200, 200).save(folder/'whole.png')
    content = (folder/'whole.png').read_bytes()
    (folder/'truncated.png').write_bytes(content[:len(content)//2])
    flipped = bytes(value ^ 255 for value in content[100:120])
    (folder/'flipped.png').write_bytes(content[:100] + flipped + content[120:])
    (folder/'empty.jpg').write_bytes(b'')
    (folder/'text.png').write_text('<html>404 Not Found</html>')
    (folder/'folder.jpg').mkdir()
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
    listings, folder = shop
    before = listings.copy()
    checked = check_listings(listings, folder, **COLUMNS)
    pd.testing.assert_frame_equal(listings, before)
    pd.testing.assert_frame_equal(checked.df, listings.reset_index(drop=True))
    assert isinstance(checked.df.index, pd.RangeIndex) and len(checked.skipped) == 0
    assert checked.singletons == 0
    assert checked.phash is None
    checked.df.loc[0, 'title'] = 'changed'
    assert listings.title.iloc[0] == 'tea 0'


@pytest.mark.parametrize('phash', [False, True])
def test_every_broken_image_is_listed_at_once(shop, phash):
    listings, folder = shop
    reasons = broken_files(folder)
    broken = pd.DataFrame(
        dict(
            posting_id=[f'bad{number}' for number in range(len(reasons))],
            image=list(reasons),
            title='tea',
            label_group='a',
            fold=0,
        )
    )
    both = pd.concat([listings.iloc[:3], broken, listings.iloc[3:]])
    with pytest.raises(InputError) as raised: check_listings(both, folder, **COLUMNS, phash=phash)
    lines = str(raised.value).splitlines()[1:]
    assert len(lines) == len(reasons)
    for number, (line, (file_name, reason)) in enumerate(zip(lines, reasons.items())):
        assert f"row {3 + number} (posting_id 'bad{number}')" in line and file_name in line and reason in line

    checked = check_listings(both, folder, **COLUMNS, on_error='skip', phash=phash)
    assert checked.df.posting_id.tolist() == listings.posting_id.tolist()
    assert checked.skipped.id.tolist() == broken.posting_id.tolist()
    assert checked.skipped.row.tolist() == list(range(3, 3 + len(reasons)))
    assert set(checked.skipped.column) == {'image'}
    assert checked.skipped.columns.tolist() == ['id', 'row', 'column', 'reason']
    if phash:
        hashes = [str(imagehash.phash(read_image(folder/file_name))) for file_name in listings.image]
        assert checked.phash.tolist() == hashes


def test_decompression_bomb_is_listed(shop, monkeypatch):
    listings, folder = shop
    noise(300, 300).save(folder/'3.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 40_000)
    checked = check_listings(listings, folder, **COLUMNS, on_error='skip')
    assert checked.skipped.id.tolist() == ['p3'] and 'DecompressionBomb' in checked.skipped.reason[0]


def test_a_wrong_folder_is_one_error(shop):
    listings, folder = shop
    (folder/'sub').mkdir()
    for on_error in ('raise', 'skip'):
        with pytest.raises(InputError, match='none of the 6 files.*Is path right'):
            check_listings(listings, folder/'sub', **COLUMNS, on_error=on_error)
    with pytest.raises(InputError, match='not a folder'):
        check_listings(listings, folder/'nowhere', **COLUMNS)


def test_one_file_on_many_rows_is_decoded_once(shop, monkeypatch):
    import fastmatch.data.read as module
    listings, folder = shop
    decoded = []
    def no_fault(image_file, with_hash):
        decoded.append(image_file)
        return None, None
    monkeypatch.setattr(module, '_try_file', no_fault)
    check_listings(listings.assign(image='0.png'), folder, **COLUMNS)
    assert len(decoded) == 1


@pytest.mark.parametrize(
    'column, value, reason',
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
def test_bad_values_are_listed_or_skipped(shop, column, value, reason):
    listings, folder = shop
    listings = listings.astype({column: object})
    listings.iloc[2, listings.columns.get_loc(column)] = value
    listings.iloc[5, listings.columns.get_loc(column)] = value
    with pytest.raises(InputError) as raised: check_listings(listings, folder, **COLUMNS)
    assert 'row 2' in str(raised.value) and 'row 5' in str(raised.value) and reason in str(raised.value)
    assert '2 unusable rows' in str(raised.value)
    checked = check_listings(listings, folder, **COLUMNS, on_error='skip')
    assert checked.skipped.row.tolist() == [2, 5] and set(checked.skipped.column) == {column}
    assert checked.skipped.reason.str.contains(reason, regex=False).all()
    assert checked.df.extra.tolist() == [0, 1, 3, 4] and checked.df.index.tolist() == [0, 1, 2, 3]
    assert checked.singletons == 2 and checked.df.fold.dtype == np.int64


def test_all_faults_of_a_row_are_told(shop):
    listings, folder = shop
    listings = listings.assign(
        title=['tea', None, 'tea', 'tea', 'tea', 'tea'], image=['0.png', 'gone.png', *listings.image[2:]]
    )
    checked = check_listings(listings, folder, **COLUMNS, on_error='skip')
    assert checked.skipped.row.tolist() == [1, 1] and sorted(checked.skipped.column) == ['image', 'title']
    assert len(checked.df) == 5


def test_rows_are_listed_in_order_whatever_their_fault(shop):
    listings, folder = shop
    file_names = ['0.png', 'gone.png', *listings.image[2:]]
    listings = listings.assign(title=['tea']*4 + [None, 'tea'], image=file_names)
    assert check_listings(listings, folder, **COLUMNS, on_error='skip').skipped.row.tolist() == [1, 4]


def test_the_hash_is_of_the_whole_photo(shop):
    listings, folder = shop
    for number in range(6): noise(800, 600, seed=number).save(folder/f'{number}.jpg')
    listings = listings.assign(image=[f'{number}.jpg' for number in range(6)])
    checked = check_listings(listings, folder, **COLUMNS, phash=True)
    hashes = [str(imagehash.phash(Image.open(folder/file_name))) for file_name in listings.image]
    assert checked.phash.tolist() == hashes


def test_folds_may_be_text_or_float(shop):
    listings, folder = shop
    for folds in (
        ['0', '0', '1', '1', '2', '2'],
        [0.0, 0.0, 1.0, 1.0, 2.0, 2.0],
        pd.array([0, 0, 1, 1, 2, 2], dtype='Int64'),
    ):
        checked = check_listings(listings.assign(fold=folds), folder, **COLUMNS)
        assert checked.df.fold.dtype == np.int64 and checked.df.fold.tolist() == [0, 0, 1, 1, 2, 2]


def test_missing_columns_are_named_with_the_nearest(shop):
    listings, folder = shop
    listings = listings.rename(columns=dict(label_group='Label_Groups', title='name'))
    for on_error in ('raise', 'skip'):
        with pytest.raises(InputError) as raised:
            check_listings(listings, folder, **COLUMNS, on_error=on_error)
        message = str(raised.value)
        assert "title_col='title'" in message
        assert "group_col='label_group' (did you mean 'Label_Groups'?)" in message
        assert 'posting_id, image, name, Label_Groups' in message
    twice = pd.concat([shop[0], shop[0][['title']]], axis=1)
    with pytest.raises(InputError, match='more than one column named title'):
        check_listings(twice, folder, **COLUMNS)
    with pytest.raises(InputError, match='is a str'): check_listings('listings.csv', folder)


def test_repeated_ids_always_raise(shop):
    listings, folder = shop
    listings = listings.assign(posting_id=['p0', 'x', 'p2', 'x', 'p4', 'x'])
    for on_error in ('raise', 'skip'):
        with pytest.raises(InputError, match="posting_id must be unique.*'x' on rows 1, 3, 5"):
            check_listings(listings, folder, **COLUMNS, on_error=on_error)
    assert len(check_listings(listings, folder, **COLUMNS, id_col=None).df) == 6


def test_too_few_rows_and_a_single_group_always_raise(shop):
    listings, folder = shop
    for on_error in ('raise', 'skip'):
        with pytest.raises(InputError, match='df has 0 listings'):
            check_listings(listings.iloc[:0], folder, **COLUMNS, on_error=on_error)
        with pytest.raises(InputError, match='df has 1 listing:'):
            check_listings(listings.iloc[:1], folder, **COLUMNS, on_error=on_error)
        with pytest.raises(InputError, match="all 6 listings are in one group.*'a'"):
            check_listings(listings.assign(label_group='a'), folder, **COLUMNS, on_error=on_error)
    assert len(check_listings(listings.iloc[:1], folder, **COLUMNS, min_rows=1).df) == 1
    with pytest.raises(InputError, match='1 listing left of 6'):
        check_listings(listings.assign(title=['tea'] + [None]*5), folder, **COLUMNS, on_error='skip')
    with pytest.raises(InputError, match="choose 'raise' or 'skip'"):
        check_listings(listings, folder, on_error='warn')


def test_singletons_are_counted_not_refused(shop):
    listings, folder = shop
    listings = listings.assign(label_group=['a', 'a', 'b', 'c', 'd', 'd'])
    assert check_listings(listings, folder, **COLUMNS).singletons == 2


def test_a_long_list_is_cut():
    many = pd.DataFrame(dict(posting_id=range(80), title=[None]*80))
    with pytest.raises(InputError, match='80 unusable rows') as raised: check_listings(many, text_col='title')
    assert 'and 30 more' in str(raised.value) and len(str(raised.value).splitlines()) == 52


@given(st.lists(st.sampled_from(['tea', '', ' ', None, float('nan')]), min_size=3, max_size=12))
def test_skip_keeps_exactly_the_good_rows(titles):
    listings = pd.DataFrame(
        dict(posting_id=range(len(titles) + 2), title=pd.Series([*titles, 'tea', 'tea'], dtype=object))
    )
    good_rows = [row for row, title in enumerate(listings.title) if isinstance(title, str) and title.strip()]
    checked = check_listings(listings, text_col='title', on_error='skip')
    assert checked.df.posting_id.tolist() == good_rows
    assert sorted(good_rows + checked.skipped.row.tolist()) == list(range(len(listings)))


def test_the_sample_is_whole():
    folder = demo_path()
    listings = pd.read_csv(folder/'listings.csv')
    checked = check_listings(listings, folder/'images', **COLUMNS)
    assert len(checked.df) == 2100 and checked.df.label_group.nunique() == 751
    assert sorted(listings.image) == sorted(file.name for file in (folder/'images').iterdir())
    notice = (folder/'NOTICE').read_text(encoding='utf-8')
    assert all(f'\n{vendor} ' in notice for vendor in listings.vendor.unique())


def test_reading_needs_no_torch():
    program = ("import sys, fastmatch.data.read, fastmatch.data.split; "
               "print([name for name in ('torch', 'fastai', 'imagehash') if name in sys.modules])")
    assert (
        subprocess.run(
            [sys.executable, '-c', program], capture_output=True, text=True, check=True
        ).stdout.strip()
        == '[]'
    )
