"Soft labels: rows that can't be used are named, splits go by the likeliest class, targets are the cells."
import pickle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.augment import Resize

from fastmatch.core import InputError
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.data.columns import Columns
from fastmatch.data.demo import demo_path
from fastmatch.data.read import check_listings
from fastmatch.losses import class_counts, class_weights

CLASSES = ['zebra', 'cat', 'dog']


def items(n=40, seed=0):
    sample = pd.read_csv(demo_path()/'listings.csv').drop_duplicates('title').head(n)
    probabilities = np.random.default_rng(seed).dirichlet([.4] * 3, len(sample))
    return pd.concat([sample.reset_index(drop=True), pd.DataFrame(probabilities, columns=CLASSES)], axis=1)


def make(table, **kwargs):
    options = dict(path=demo_path()/'images', text_col=None, label_col=CLASSES, item_tfms=Resize(32), bs=8,
                   num_workers=0, n_folds=3)
    return ClassifyDataLoaders.from_df(table, **{**options, **kwargs})


def test_targets_are_the_cells_in_the_order_of_the_columns():
    table = items()
    dls = make(table)
    assert list(dls.vocab) == CLASSES and dls.is_soft and dls.c == 3
    targets = torch.cat([batch[-1] for batch in dls.valid])
    expected = dls.valid_df.merge(table, on='posting_id', suffixes=('_of_dls', ''))[CLASSES]
    np.testing.assert_allclose(targets.numpy(), expected.to_numpy(), atol=1e-7)
    assert dls.columns.group == 'likeliest class' and dls.table_columns.group == CLASSES
    likeliest = dls.df[CLASSES].to_numpy().argmax(1)
    assert dls.df['likeliest class'].tolist() == [CLASSES[place] for place in likeliest]
    # the table that was handed in is left alone
    assert 'likeliest class' not in table


def test_class_weights_go_by_the_expected_rows_of_each_class():
    dls = make(items())
    expected = [0.] * 3
    for _, row in dls.train_df.iterrows():
        for place, label in enumerate(CLASSES): expected[place] += row[label]
    counts = class_counts(dls)
    np.testing.assert_allclose(counts, expected, rtol=1e-6)
    assert float(counts.sum()) == pytest.approx(len(dls.train_df)) and counts.dtype == torch.float64
    assert (counts % 1 > .01).any()
    np.testing.assert_allclose(class_weights(dls, 'inverse'), [1 / size for size in expected], rtol=1e-6)
    roots = [(min(expected) / size)**.5 for size in expected]
    np.testing.assert_allclose(class_weights(dls), roots, rtol=1e-6)
    effective = [(1 - .9) / (1 - .9**size) for size in expected]
    np.testing.assert_allclose(class_weights(dls, 'effective', .9), effective, rtol=1e-6)


def test_certain_probabilities_weigh_as_classes_do():
    table = items()
    likeliest = table[CLASSES].to_numpy().argmax(1)
    table[CLASSES] = np.eye(3)[likeliest]
    dls = make(table)
    assert class_counts(dls).tolist() == [(dls.train_df[label] == 1).sum() for label in CLASSES]


def test_the_split_is_stratified_by_the_likeliest_class():
    table = items(60)
    held_out = []
    for valid_fold in range(3):
        dls = make(table, valid_fold=valid_fold)
        sizes = table[CLASSES].idxmax(1).value_counts()
        shares = dls.valid_df['likeliest class'].value_counts()
        for label in CLASSES: assert abs(shares[label] - sizes[label] / 3) <= 1.5, (label, shares, sizes)
        held_out += dls.valid_df.posting_id.tolist()
    assert sorted(held_out) == sorted(table.posting_id)


def test_a_sampler_goes_by_the_likeliest_class():
    table = items(40)
    dls = make(table, sampler='weighted', valid_fold=None)
    drawn = torch.cat([dls.train.one_batch()[-1].argmax(1) for _ in range(30)])
    shares = torch.bincount(drawn, minlength=3) / len(drawn)
    assert float((shares - 1 / 3).abs().max()) < .12


def test_rows_that_cannot_be_used_are_named():
    table = items(30).astype({label: object for label in CLASSES})
    table.loc[3, 'cat'] = None
    table.loc[5, CLASSES] = [-.1, .6, .5]
    table.loc[7, CLASSES] = [.5, .3, .1]
    table.loc[9, 'dog'] = 'often'
    table.loc[11, 'dog'] = [.5]
    table.loc[13, CLASSES] = [np.inf, 0, 0]
    # thirds as they are rounded
    table.loc[15, CLASSES] = [.33, .33, .33]
    table.loc[17, CLASSES] = ['0.5', '0.25', '0.25']
    with pytest.raises(InputError) as told: make(table)
    message = str(told.value)
    for part in ('row 3', repr(table.posting_id[3]), 'no probability', 'row 5', '-0.1', 'row 7',
                 'add up to 0.9', 'row 9', "'often' is not a number", 'row 11', 'row 13', 'of inf'):
        assert part in message, part
    assert 'row 15' not in message and 'row 17' not in message
    dls = make(table, on_error='skip')
    assert dls.skipped.row.tolist() == [3, 5, 7, 9, 11, 13] and len(dls.df) == 24
    assert dls.skipped.id.tolist() == table.posting_id[dls.skipped.row].tolist()
    np.testing.assert_allclose(dls.df[CLASSES].sum(1), 1, atol=1e-12)
    by_id = dls.df.set_index('posting_id')
    np.testing.assert_allclose(by_id.loc[table.posting_id[15], CLASSES].astype(float), 1 / 3)
    assert by_id.loc[table.posting_id[15], 'likeliest class'] == 'zebra'
    # a row that can't be used for its picture too is listed for both
    broken = table.assign(image=table.image.where(table.index != 3, 'gone.png'))
    skipped = make(broken, on_error='skip').skipped
    assert skipped.row.tolist() == [3, 3, 5, 7, 9, 11, 13] and len(skipped.id.unique()) == 6


def test_columns_that_are_no_classes_are_refused():
    table = items(20)
    for label_col in (['cat'], ['cat', 'cat', 'dog'], []):
        with pytest.raises(InputError, match='two or more different'): make(table, label_col=label_col)
    with pytest.raises(InputError, match=r"label_col\[2\]='dgo' .did you mean 'dog'"):
        make(table, label_col=['cat', 'zebra', 'dgo'])
    for call in (lambda: MatchDataLoaders.from_df(table, demo_path()/'images', label_col=CLASSES),
                 lambda: check_listings(table, columns=Columns(image=None, title=None, group=CLASSES))):
        with pytest.raises(InputError, match='name one column'): call()


def test_numbers_and_booleans_for_columns():
    table = items(30)
    one_hot = pd.get_dummies(pd.Series(np.arange(30) % 3))
    dls = make(pd.concat([table.drop(columns=CLASSES), one_hot], axis=1), label_col=[0, 1, 2])
    assert list(dls.vocab) == [0, 1, 2]
    assert torch.cat([batch[-1] for batch in dls.valid]).sum(1).eq(1).all()


def test_a_class_that_no_training_row_has_is_warned_of():
    table = items(30)
    table['zebra'] = 0.
    table[['cat', 'dog']] = [.4, .6]
    table['fold'] = np.arange(30) % 3
    table.loc[table.fold == 0, CLASSES] = [.2, .3, .5]
    with pytest.warns(UserWarning, match='no model can learn them: zebra'): make(table, fold_col='fold')
    # one that no row has at all is no news, and one likeliest class for all rows is something to learn from
    table[CLASSES] = [0., .4, .6]
    assert len(make(table, fold_col='fold').train_df) == 20


def test_a_batch_is_shown_with_its_likeliest_classes():
    dls = make(items(20).assign(zebra=.7, cat=.3, dog=0.))
    dls.show_batch(max_n=2)
    notes = [ax.get_xlabel() for ax in plt.gcf().axes if ax.get_xlabel()]
    plt.close('all')
    assert notes == ['zebra 0.70, cat 0.30'] * 2


def test_what_is_exported_holds_no_items_and_takes_new_ones():
    table = items(20)
    dls = pickle.loads(pickle.dumps(make(table).new_empty()))
    assert len(dls.df) == 0 and dls.label_columns == CLASSES and list(dls.vocab) == CLASSES
    unlabelled = dls.widen(table.drop(columns=CLASSES))
    loader = dls.test_dl(unlabelled)
    assert len(loader.one_batch()) == 1 and loader.n == 20
