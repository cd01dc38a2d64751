"Columns of a table through dataloaders and Learner: checked at the door, in the embeddings, in the matcher."
import pickle

import numpy as np
import pandas as pd
import pytest

from fastmatch.core import InputError
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.data.columns import Columns
from fastmatch.data.read import check_listings
from fastmatch.learner import match_learner
from fastmatch.match import Rule
from fastmatch.match.judge.setting import among_themselves
from tests.jobs.made import make_shop, put, tiny_weights

FIELDS = {'price': 'number', 'ean': 'code'}
COLUMNS = Columns(title=None, fold='fold', source='shop', fields=FIELDS)


@pytest.fixture
def listings(tmp_path):
    table, folder = make_shop(tmp_path)
    return table.assign(price=[None if row % 5 == 0 else f'{row} EUR' for row in range(40)],
                        ean=[f'AB{row // 2:03d}' for row in range(40)],
                        shop=[f'shop {row % 2}' for row in range(40)]), folder


def loaders(listings, columns=COLUMNS, **kwargs):
    return MatchDataLoaders.from_df(*listings, columns, bs=8, num_workers=0, device='cpu', **kwargs)


def test_embeddings_and_matcher_carry_the_columns(listings, tmp_path):
    table, folder = put(listings, 7, 'label_group', ' ')
    with pytest.warns(UserWarning, match='1 listings without a group'): dls = loaders((table, folder))
    learn = match_learner(dls, image_arch=tiny_weights(tmp_path))
    embeddings = learn.embeddings()
    valid = dls.valid_df
    assert embeddings.fields['price'].cells.tolist() == valid.price.tolist()
    assert embeddings.fields['ean'].field.kind == 'code'
    assert embeddings.source.tolist() == valid.shop.tolist()
    setting = among_themselves(embeddings)
    assert setting.fields == ('price', 'ean') and setting.apart == 'source'
    # without a column there is nothing to say of it
    with pytest.raises(InputError, match="'price'"): learn.embeddings(table.drop(columns='price'))
    everything = learn.embeddings(dls.all_df)
    assert everything.groups[-1] is None and everything.ids[-1] == 'p7' and len(everything) == 40
    assert not everything.trained_on[-1]
    rule = Rule('mean', {'image': .5, 'ean': .5}, .9, k=10, apart='source')
    matcher = learn.matcher(rule=rule)
    assert set(matcher.ids) == set(table.posting_id) and set(matcher.spaces) == {'image', 'ean', 'source'}
    found = matcher.match(table.iloc[:4].assign(posting_id=list('abcd')), folder).to_frame()
    assert all(f'p{row ^ 1}' in matches.split() for row, matches in enumerate(found.matches))


def test_columns_are_checked_at_the_door(listings):
    with pytest.raises(InputError, match=r"row 3 \(posting_id 'p3'\), price: 'cheap' holds no number"):
        loaders(put(listings, 3, 'price', 'cheap'))
    dls = loaders(put(listings, 3, 'price', 'cheap'), on_error='skip')
    assert list(dls.skipped.id) == ['p3'] and list(dls.skipped.column) == ['price']
    with pytest.raises(InputError, match='did you mean .price'):
        loaders(listings, Columns(title=None, fields={'prices': 'number'}))
    with pytest.raises(InputError, match="row 5 .*shop: no source"): loaders(put(listings, 5, 'shop', None))


def test_training_is_the_same_with_columns(listings):
    plain, fielded = loaders(listings, Columns(title=None, fold='fold')), loaders(listings)
    assert plain.train_df.equals(fielded.train_df) and plain.vocab.items == fielded.vocab.items
    assert len(plain.unlabelled) == 0 and plain.all_df is plain.df


def test_groups_keep_their_type(listings):
    table, folder = listings
    numbers = pd.Series([None, *np.arange(1, 40) // 2], dtype=float)
    with pytest.warns(UserWarning): dls = loaders((table.assign(label_group=numbers), folder))
    assert dls.df.label_group.dtype == np.int64 and list(dls.unlabelled.posting_id) == ['p0']
    # what is trained on nowhere needs no fold
    no_fold = table.assign(label_group=numbers).astype({'fold': object})
    no_fold.loc[0, 'fold'] = None
    with pytest.warns(UserWarning): assert len(loaders((no_fold, folder)).df) == 39
    with pytest.raises(InputError, match='no label'):
        check_listings(table.assign(label_group=numbers), folder, COLUMNS)


def test_nothing_but_unlabelled_rows_is_said(listings):
    table, folder = listings
    with pytest.raises(InputError), pytest.warns(UserWarning):
        loaders((table.assign(label_group=None), folder), valid_fold=None)


def test_items_without_a_class_are_kept_aside(listings):
    table, folder = listings
    table = table.assign(label=[None if row < 3 else 'ab'[row % 2] for row in range(40)])
    with pytest.warns(UserWarning, match='3 listings without a group'):
        dls = ClassifyDataLoaders.from_df(table, folder, title_col=None, bs=8, n_folds=3, num_workers=0,
                                          device='cpu')
    assert len(dls.df) == 37 and list(dls.unlabelled.posting_id) == ['p0', 'p1', 'p2']


def test_columns_of_an_earlier_version_are_read():
    columns = Columns()
    state = {name: value for name, value in columns.__dict__.items() if name != 'fields'}
    earlier = Columns.__new__(Columns)
    earlier.__setstate__(state)
    assert earlier == columns and pickle.loads(pickle.dumps(COLUMNS)) == COLUMNS
