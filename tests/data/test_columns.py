"""Columns by any of their keywords: the same roles, clashes and unknown keywords named, defaults where
nobody says."""
import dataclasses
import json

import pytest

from fastmatch.core import InputError
from fastmatch.data.columns import FASTAI_NAMES, Columns, keywords_of_roles, role_of

ROLES = [field.name for field in dataclasses.fields(Columns) if field.name != 'fields']


@pytest.mark.parametrize('fastai_name, role', FASTAI_NAMES.items())
def test_fastais_keywords_mean_the_same(fastai_name, role):
    assert Columns.resolve(None, {fastai_name: 'x'}) == Columns.resolve(None, {f'{role}_col': 'x'})
    assert getattr(Columns.resolve(None, {fastai_name: 'x'}), role) == 'x'


@pytest.mark.parametrize('role', ROLES)
def test_each_role_has_a_keyword_and_changes_nothing_else(role):
    columns = Columns.resolve(None, {f'{role}_col': 'x'})
    assert columns == dataclasses.replace(Columns(), **{role: 'x'})
    assert role_of(f'{role}_col') == role


def test_what_nobody_names_is_the_default():
    assert (
        Columns.resolve(None, {})
        == Columns()
        == Columns('posting_id', 'image', 'title', 'label_group', None, None)
    )
    own_columns = Columns(id='sku', title=None)
    assert Columns.resolve(None, {}, own_columns) == own_columns
    assert Columns.resolve(None, {'fold_col': 'part'}, own_columns) == Columns(
        'sku', 'image', None, 'label_group', 'part'
    )
    # an object says all roles, so that the default says nothing
    assert Columns.resolve(Columns(), {}, own_columns) == Columns()


def test_none_is_a_value():
    assert Columns.resolve(None, {'image_col': None}).image is None
    assert Columns.resolve({'image_col': None}, {}).image is None


def test_keywords_win_over_columns():
    assert Columns.resolve(Columns(image='a'), {'fn_col': 'b'}).image == 'b'
    assert Columns.resolve({'fn_col': 'a', 'title_col': 't'}, {'image_col': 'b'}) == Columns(
        image='b', title='t'
    )


def test_a_dict_is_taken_like_keywords():
    assert Columns.resolve({'fn_col': 'a', 'group_col': 'g'}, {}) == Columns(image='a', group='g')
    assert Columns.resolve(Columns('i', 'm', ['t', 'u'], 'g', 'f', 'p').by_keyword(), {}) == Columns(
        'i', 'm', ['t', 'u'], 'g', 'f', 'p')


def test_two_keywords_of_one_role():
    with pytest.raises(InputError, match="image_col='b': the image column is 'a' already"):
        Columns.resolve(None, {'fn_col': 'a', 'image_col': 'b'})
    with pytest.raises(InputError, match="label_col='b': the group column is 'a' already"):
        Columns.resolve({'group_col': 'a', 'label_col': 'b'}, {})
    assert Columns.resolve(None, {'fn_col': 'a', 'image_col': 'a'}).image == 'a'


@pytest.mark.parametrize(
    'keyword, near',
    [
        ('imge_col', 'image_col'),
        ('titel_col', 'title_col'),
        ('labels_col', 'label_col'),
        ('fold_cols', 'fold_col'),
    ],
)
def test_an_unknown_keyword_is_named_with_the_nearest(keyword, near):
    with pytest.raises(InputError, match=f"{keyword}='x': no option .did you mean {near}"):
        Columns.resolve(None, {keyword: 'x'})
    with pytest.raises(InputError, match=keyword): Columns.resolve({keyword: 'x'}, {})


def test_a_keyword_like_none():
    with pytest.raises(InputError, match=r"zzzz=1: no option$"): Columns.resolve(None, {'zzzz': 1})
    for keyword in ('image', 'col', '_col', 'Image_col', 'price_col'): assert role_of(keyword) is None


@pytest.mark.parametrize('columns', ['image', ['image'], 3])
def test_what_columns_can_not_be(columns):
    with pytest.raises(InputError, match='give a Columns'): Columns.resolve(columns, {})


def test_keywords_are_taken_out_of_a_call():
    arguments = {'fn_col': 'a', 'bs': 3, 'title_col': None, 'drop_last': False}
    assert Columns.take_from(arguments) == {'fn_col': 'a', 'title_col': None}
    assert arguments == {'bs': 3, 'drop_last': False}
    assert Columns.take_from(arguments) == {}


def test_by_keyword_is_plain_and_complete():
    columns = Columns(title=['a', 'b'])
    assert list(columns.by_keyword()) == keywords_of_roles() == [f'{role}_col' for role in ROLES]
    assert Columns.resolve(json.loads(json.dumps(columns.by_keyword())), {}) == columns


def test_columns_can_not_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError): Columns().image = 'x'
