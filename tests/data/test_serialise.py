"Columns as one text: names as words, missing fields left out, taken apart again; changes in training only."
import random

import numpy as np
import pandas as pd
import pytest

from fastmatch.core import InputError
from fastmatch.data.augment import DropFields, DropSpan, TextChanges
from fastmatch.data.columns import Columns
from fastmatch.data.read import join_titles
from fastmatch.data.serialise import (
    BETWEEN,
    cell_in_words,
    fields_in,
    name_in_words,
    with_serialised_title,
    without_fields,
    without_span,
)
from fastmatch.data.title import Title
from fastmatch.match.fields.field import Field
from tests.data.batches import make_loaders, texts

TABLE = pd.DataFrame({'title': ['sony tv', 'lg | monitor', 'desk'], 'brandName': ['Sony', None, ' '],
                      'price': [399., np.nan, '45.50 EUR'], 'code': [[1, 'b'], None, 'x']})
FIELDS = {'title': 'text', 'brandName': 'category', 'price': 'number:USD', 'code': 'code'}
TEXTS = ['title: sony tv | brand name: Sony | price: 399 USD | code: 1, b', 'title: lg/monitor',
         'title: desk | price: 45.50 EUR | code: x']
LONG = 'title: a b c d e f | brand: sony | price: 399 USD | note: one two three'


def serialised(table, columns):
    df, joined = join_titles(table, columns)
    return df[joined.title].tolist()


def test_columns_become_one_text():
    columns = Columns(title=FIELDS)
    assert serialised(TABLE, columns) == TEXTS
    assert serialised(TABLE[['code', 'price', 'title', 'brandName']], columns) == TEXTS
    assert serialised(TABLE.iloc[:0], columns) == []
    assert 'title | brandName | price | code' not in TABLE


def test_names_and_cells_in_words():
    assert [name_in_words(name) for name in ('list_price', 'brandName', 'A:b|c', '_')] == [
        'list price', 'brand name', 'a b c', 'field']
    kilos = Field('number', unit='kg')
    assert [cell_in_words(kilos, cell) for cell in (2, 2.5, '500 g', '$3', 'free', None, np.nan, '')] == [
        '2 kg', '2.5 kg', '500 g', '$3', 'free', None, None, None]


def test_a_text_taken_apart_is_the_same_text():
    for text in (*TEXTS, LONG, 'plain words: with a colon', ''):
        assert BETWEEN.join(name + held for name, held in fields_in(text)) == text
    assert fields_in(TEXTS[2])[1] == ('price: ', '45.50 EUR')


def test_the_title_comes_first_then_the_order_of_the_table():
    columns = Columns(fields={'code': 'code', 'cost': Field('number', column='price', unit='USD')})
    made = with_serialised_title(columns, list(TABLE))
    assert list(made.title) == ['title', 'cost', 'code']
    assert serialised(TABLE, made)[0] == 'title: sony tv | cost: 399 USD | code: 1, b'
    assert with_serialised_title(made, list(TABLE)) is made


def test_plain_values_survive_json():
    import json
    columns = Columns(title=FIELDS)
    assert Columns(title=json.loads(json.dumps(columns.title))) == columns


def test_what_can_not_be_serialised_is_named():
    with pytest.raises(InputError, match='brand'): join_titles(TABLE, Columns(title={'brand': 'category'}))
    with pytest.raises(InputError, match='kind'): Columns(title={'title': 'words'})
    with pytest.raises(InputError, match='title_col'): Columns(title={})
    with pytest.raises(InputError, match='serialise'): with_serialised_title(Columns(title=None), [])


def test_fields_are_dropped_as_drawn():
    first, *others = LONG.split(BETWEEN)
    for seed in range(20):
        rng, copy = random.Random(seed), random.Random(seed)
        expected = [first, *(field for field in others if copy.random() >= .5)]
        assert without_fields(LONG, .5, rng) == BETWEEN.join(expected)
    assert without_fields(LONG, 1., random) == first and without_fields(LONG, 0., random) == LONG


@pytest.mark.parametrize('text', [LONG, 'a b c', 'one', 'title: x | brand: y'])
def test_a_span_is_of_one_field_and_never_all_of_it(text):
    names = [name for name, _ in fields_in(text)]
    for seed in range(50):
        left = without_span(text, 3, random.Random(seed))
        assert left == without_span(text, 3, random.Random(seed))
        assert [name for name, _ in fields_in(left)] == names
        assert all(held.split() for _, held in fields_in(left))
        assert 0 <= len(text.split()) - len(left.split()) <= 3
        # what is left stands in its order
        words = iter(text.split())
        assert all(word in words for word in left.split())


def test_changes_repeat_and_leave_something():
    change = TextChanges(fields=.9, span=1., most=50)
    for seed in range(50):
        changed = change(LONG, random.Random(seed))
        assert changed == change(LONG, random.Random(seed)) and changed.startswith('title: ')
    assert TextChanges(0, 0)(LONG, random) == LONG
    for wrong in ({'fields': 2}, {'span': -1}, {'most': 0}):
        with pytest.raises(InputError, match=next(iter(wrong))): TextChanges(**wrong)
    with pytest.raises(InputError, match='p=2'): DropFields(2)
    with pytest.raises(InputError, match='most=0'): DropSpan(most=0)


def test_transforms_work_in_training_only():
    for transform in (DropFields(1.), DropSpan(1.)):
        assert transform(Title(LONG), split_idx=1) == LONG
        random.seed(0)
        changed = transform(Title(LONG), split_idx=0)
        random.seed(0)
        assert transform(Title(LONG), split_idx=0) == changed != LONG and isinstance(changed, Title)


def test_loaders_serialise_and_change_titles(listings):
    table = listings.assign(price=np.arange(len(listings)) + 1.)
    columns = Columns(image=None, fields={'price': 'number:USD'}, fold='fold')
    plain, changed = (make_loaders(table, columns=columns, fn_col=None, serialise=True, title_tfms=changes)
                      for changes in (None, [DropFields(1.)]))
    assert plain.table_columns.title == changed.serialised
    assert plain.df[plain.columns.title][0] == f'title: {table.title[0]} | price: 1 USD'
    assert ' | price: ' in texts(plain, plain.train.one_batch()[0])[0]
    assert not any('|' in text for text in texts(changed, changed.train.one_batch()[0]))
    assert all('|' in text for text in texts(changed, changed.valid.one_batch()[0]))
