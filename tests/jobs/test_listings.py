"Tables as the commands are given them: columns by their usual names or as named, 'none' to leave one out."
import pandas as pd
import pytest

from fastmatch.core import InputError
from fastmatch.data.columns import Columns
from fastmatch.jobs.listings import columns_of, training_listings

ROLES = ('id_col', 'image_col', 'title_col', 'group_col', 'fold_col', 'phash_col')
NOTHING = dict.fromkeys(ROLES)


@pytest.fixture
def table_file(tmp_path):
    table_file = tmp_path/'shop.csv'
    rows = [r'a,1.png,caf\xc3\xa9,1,0f', 'b,2.png,tea,1,1f']
    table_file.write_text('\n'.join(['SKU,photo,Product Name,group,image_phash', *rows]) + '\n')
    return table_file


def test_found_by_their_usual_names(table_file):
    lines = []
    listings, columns = training_listings(table_file, 'utf-8', 'images', NOTHING, lines.append)
    assert columns == Columns('SKU', 'photo', 'Product Name', 'group', None, 'image_phash')
    assert listings['Product Name'].tolist() == ['café', 'tea']
    assert lines == [f'2 listings in {table_file}; id: SKU, image: photo, title: Product Name, group: group, '
                     'phash: image_phash']


def test_without_a_folder_of_images_it_is_titles(table_file):
    assert training_listings(table_file, 'utf-8', None, NOTHING, print)[1].image is None
    with pytest.raises(InputError, match='nothing to train on.*--images'):
        training_listings(table_file, 'utf-8', None, {**NOTHING, 'title_col': 'none'}, print)


def test_a_folder_of_images_wants_their_column(table_file):
    table_file.write_text('SKU,title,group\na,tea,1\nb,tea,1\n')
    with pytest.raises(InputError, match='--image-col'):
        training_listings(table_file, 'utf-8', 'images', NOTHING, print)


def test_left_out_and_named():
    listings = pd.DataFrame({'id': ['a'], 'title': ['x' * 20_000], 'short': ['tea'], 'group': ['g']})
    columns = columns_of(listings, {**NOTHING, 'title_col': 'short', 'phash_col': 'none'}, ('id', 'group'))
    assert columns.title == 'short' and columns.phash is None
    with pytest.raises(InputError, match='20000 characters'): columns_of(listings, NOTHING, ('id',))
    assert columns_of(listings, {**NOTHING, 'title_col': 'none'}, ('id',)).title is None
    # a column that is called so is one like any other
    oddly_named = pd.DataFrame({'id': ['a'], 'none': ['tea']})
    assert columns_of(oddly_named, {**NOTHING, 'title_col': 'none'}, ('id',)).title == 'none'
    with pytest.raises(InputError, match='titel'):
        columns_of(listings, {**NOTHING, 'title_col': 'titel'}, ('id',))
