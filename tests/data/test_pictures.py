"Several pictures a listing, from the cell of a table to splits and batches."
import random

import numpy as np
import pandas as pd
import pytest
from fastai.vision.augment import Resize
from PIL import Image

from fastmatch.core import InputError
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.columns import Columns
from fastmatch.data.image import phash
from fastmatch.data.pictures import first_picture, one_a_picture, picture_names, tidy_pictures
from fastmatch.data.read import check_listings
from fastmatch.data.split import components, usable_hashes
from tests.data.made import noise

COLUMNS = dict(image_col='photo', id_col='id')


@pytest.fixture
def folder(tmp_path):
    "Pictures of one brightness each: 'p0.png' is 0, 'p10.png' is 10, ...; and names with odd characters."
    for value in range(0, 250, 10): Image.new('RGB', (8, 8), (value,) * 3).save(tmp_path/f'p{value}.png')
    for seed, name in enumerate(('red, front.png', 'a|b.png', 'x;y.png', 'a', 'b.png')):
        noise(seed=seed).save(tmp_path/name, 'PNG')
    return tmp_path


@pytest.mark.parametrize('cell, names', [
    ('p0.png', ['p0.png']),
    ('p0.png|p10.png', ['p0.png', 'p10.png']),
    (' p0.png ; p10.png;', ['p0.png', 'p10.png']),
    ('red, front.png|p0.png', ['red, front.png', 'p0.png']),
    ('red, front.png', ['red, front.png']),
    ('a|b.png', ['a|b.png']),  # a file of this name
    ('x;y.png', ['x;y.png']),
    ('x;y.png|p0.png', ['x;y.png', 'p0.png']),
    (['a|b.png', 'p0.png', None, ' '], ['a|b.png', 'p0.png']),
    (('p0.png', 'p0.png'), ['p0.png']),
    (np.array(['p0.png', 'p10.png']), ['p0.png', 'p10.png']),
    (7., ['7']), ([7, 8.], ['7', '8']), (None, []), (float('nan'), []), ('', []), ([], []),
])
def test_the_names_in_a_cell(folder, cell, names): assert picture_names(cell, folder) == names


def test_without_a_folder_text_is_taken_apart_where_each_part_has_a_suffix():
    assert picture_names('a.jpg|b.jpg') == ['a.jpg', 'b.jpg']
    assert picture_names('a;1.jpg') == ['a;1.jpg']


def test_cells_of_one_file_stay_as_they_are(folder):
    cells = ['p0.png', 7, 'a|b.png', ' p0.png', None]
    assert all(tidy is cell for tidy, cell in zip(tidy_pictures(cells, folder), cells))
    assert tidy_pictures(['p0.png|p10.png', ['p0.png'], 'p0.png|'], folder) == \
        [('p0.png', 'p10.png'), 'p0.png', 'p0.png']
    assert first_picture('p0.png|p10.png', folder) == (folder/'p0.png', 1)


def table(cells):
    return pd.DataFrame({'id': [f'i{row}' for row in range(len(cells))], 'photo': cells})


def test_every_file_is_checked_and_named_with_row_and_column(folder):
    listings = table(['p0.png|gone.png|p10.png', 'p20.png', 'gone.png;none.png', None])
    with pytest.raises(InputError) as raised: check_listings(listings, folder, **COLUMNS)
    message = str(raised.value)
    for line in ("row 0 (id 'i0'), photo: gone.png: no such file",
                 "row 2 (id 'i2'), photo: gone.png: no such file",
                 "row 2 (id 'i2'), photo: none.png: no such file", 'photo: no file name', '3 unusable rows'):
        assert line in message
    with pytest.warns(UserWarning, match=r"1 picture.*row 0 \(id 'i0'\), photo: gone.png: no such file"):
        checked = check_listings(listings, folder, **COLUMNS, on_error='skip', phash=True)
    assert checked.df.photo.tolist() == [('p0.png', 'p10.png'), 'p20.png']
    assert checked.skipped.row.tolist() == [2, 2, 3]
    assert checked.left_out[['id', 'row', 'column']].values.tolist() == [['i0', 0, 'photo']]
    assert isinstance(checked.phash[0], tuple) and isinstance(checked.phash[1], str)


def test_a_column_of_single_files_is_what_it_was(folder):
    listings = table(['p0.png', 'a|b.png', 'x;y.png'])
    checked = check_listings(listings, folder, **COLUMNS, phash=True)
    pd.testing.assert_frame_equal(checked.df, listings)
    assert checked.phash.tolist() == [phash(Image.open(folder/name).convert('RGB'))
                                      for name in listings.photo]
    assert not len(checked.left_out)
    same, rows = one_a_picture(listings, 'photo', folder)
    assert same is listings and rows.tolist() == [0, 1, 2]


def test_one_equal_file_or_hash_links_two_listings(folder):
    listings = table(['p0.png|p10.png', 'p20.png|p10.png', 'p30.png', ('p20.png', 'a|b.png'), 'a|b.png'])
    for path in (folder, None):
        assert components(listings, image_col='photo', path=path).tolist() == [0, 0, 1, 0, 0]
    hashes = ['f0' * 8, ['0f' * 8, 'aa' * 8], None, 'cc' * 8 + ';' + '0f' * 8, 'cc' * 8]
    assert components(listings, phash=hashes).tolist() == [0, 1, 2, 1, 1]
    # of plain pictures nothing is linked
    assert usable_hashes(['0' * 16, ('0' * 16, 'aa' * 8), ('0' * 16, '1' + '0' * 15)]).tolist() == \
        [None, 'aa' * 8, None]


def loaders(folder, **kwargs):
    cells = [f'p{10 * row}.png|p{10 * row + 80}.png|p{10 * row + 160}.png' if row % 2 else f'p{10 * row}.png'
             for row in range(8)]
    listings = table(cells).assign(group=[0, 0, 1, 1, 2, 2, 3, 3], fold=[0, 0, 0, 0, 1, 1, 1, 1])
    return MatchDataLoaders.from_df(
        listings, folder, Columns(id='id', image='photo', title=None, group='group', fold='fold'), 1,
        item_tfms=Resize(8), bs=4, num_workers=0, phash=False, **kwargs)


def drawn(loader):
    "The brightness of each picture of an epoch, by its listing's row."
    values = torch_values(loader)
    return tuple(sorted(values, key=lambda value: value % 80))


def torch_values(loader): return [round(float(image.mean()) * 255) for batch in loader for image in batch[0]]


def test_training_draws_a_picture_in_each_epoch_anew_and_validation_takes_the_first(folder):
    dls = loaders(folder)
    assert dls.df.photo.tolist()[1] == ('p10.png', 'p90.png', 'p170.png')
    dls.train.rng = random.Random(0)
    epochs = [drawn(dls.train) for _ in range(30)]
    assert {epoch[0] for epoch in epochs} == {0} and {epoch[2] for epoch in epochs} == {20}
    for place, first in ((1, 10), (3, 30)):
        assert {epoch[place] for epoch in epochs} == {first, first + 80, first + 160}
    assert len(set(epochs)) > 5
    dls.train.rng = random.Random(0)
    assert [drawn(dls.train) for _ in range(30)] == epochs
    assert sorted(torch_values(dls.valid)) == [40, 50, 60, 70]
    assert sorted(torch_values(dls.train.new(shuffle=False))) == [0, 10, 20, 30]
    assert sorted(torch_values(dls.test_dl(dls.df.iloc[:3]))) == [0, 10, 20]


def test_workers_draw_the_same(folder):
    dls = loaders(folder)
    found = []
    for num_workers in (0, 2):
        loader = dls.train.new(num_workers=num_workers)
        loader.rng = random.Random(3)
        found.append([torch_values(loader) for _ in range(3)])
    assert found[0] == found[1]


def test_a_sampler_draws_pictures_too(folder):
    dls = loaders(folder, sampler='pk', k=2)
    assert len({drawn(dls.train) for _ in range(20)}) > 2
    dls.show_batch()


def test_shuffling_of_single_pictures_is_what_it_was(folder):
    dls = loaders(folder)
    dls.df = dls.df.assign(photo=[f'p{10 * row}.png' for row in range(8)])
    shuffled = []
    for draw in (dls.train.draw, None):
        loader = dls.train.new(draw=draw)
        loader.rng = random.Random(5)
        shuffled.append([value % 80 for value in torch_values(loader)])
    assert shuffled[0] == shuffled[1]
