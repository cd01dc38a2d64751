"""Labelled items as batches: every view in its place, texts put together, folds with their share of each
class, rows named that can't be used."""
import collections
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.torch_core import TensorCategory, TensorImage
from fastai.vision.augment import Resize

from fastmatch.core import InputError
from fastmatch.data.classify import ClassifyDataLoaders, widen
from fastmatch.data.demo import demo_path
from fastmatch.data.image import read_image
from fastmatch.data.title import TensorTitle

IMAGES = demo_path()/'images'


@pytest.fixture(scope='module')
def items():
    """An item is an emoji of which 2 to 4 vendors' drawings are the views; its class is the alphabet's
    half that its name starts in."""
    df = pd.read_csv(demo_path()/'listings.csv')
    sizes = df.groupby('label_group').label_group.transform('size')
    groups = df[sizes >= 2].groupby('label_group')
    rows = [
        dict(
            part=str(g),
            images=' '.join(listings.image.iloc[:4]),
            title=listings.title.iloc[0],
            description=None if i % 3 else listings.title.iloc[1],
            kind='ab'[i % 5 > 2],
            fold=i % 4,
        )
        for i, (g, listings) in enumerate(list(groups)[:60])
    ]
    return pd.DataFrame(rows)


def make(df, **kwargs):
    basic = dict(
        path=IMAGES,
        fn_col='images',
        text_col=['title', 'description'],
        label_col='kind',
        id_col='part',
        frames=3,
        fold_col='fold',
        item_tfms=Resize(64),
        bs=8,
        num_workers=0,
    )
    return ClassifyDataLoaders.from_df(df, **{**basic, **kwargs})


def test_a_batch_holds_every_view_the_text_and_the_class(items):
    dls = make(items)
    *views, text, y = dls.train.one_batch()
    assert [type(view) for view in views] == [TensorImage] * 3 and all(
        view.shape == (8, 3, 64, 64) for view in views
    )
    assert isinstance(text, TensorTitle) and isinstance(y, TensorCategory) and list(dls.vocab) == ['a', 'b']
    # the validation loader keeps the table's order: each view, text and class against the file's
    at, df = 0, items[items.fold == 0].reset_index(drop=True)
    for *views, text, y in dls.valid:
        for i in range(len(y)):
            row, names = df.iloc[at + i], df.images[at + i].split()
            for j, v in enumerate(views):
                want = (
                    np.asarray(
                        read_image(IMAGES / names[j % len(names)]).resize((64, 64)), dtype=np.float32
                    )
                    / 255
                )
                assert np.abs(v[i].permute(1, 2, 0).cpu().numpy() - want).max() < 1e-6
            said = str(dls.before_batch.fs[0].decodes(text[i]))
            assert (
                said == (row.title if pd.isna(row.description) else f'{row.title}. {row.description}')
                and 'ab'[y[i]] == row.kind
            )
        at += len(y)
    assert at == len(df) == len(dls.valid_df)


def test_widen_leaves_the_table_and_repeats_views():
    df = pd.DataFrame(
        {'f': ['a b', ['c d', 'e', 'f'], ('g',)], 't': ['x ', None, 'y'], 'u': [None, 'z', ' ']}
    )
    wide, files, text = widen(df, 'f', ['t', 'u'], 2)
    assert files == ['f 1', 'f 2'] and wide[files].values.tolist() == [['a', 'b'], ['c d', 'e'], ['g', 'g']]
    assert wide[text].tolist() == ['x', 'z', 'y'] and list(df) == ['f', 't', 'u']
    # one picture an item: a name may hold a blank
    assert widen(df.iloc[:1], 'f', 't')[1:] == (['f'], 't')


def test_folds_have_their_share_and_keep_equal_pictures_together(items):
    # two items with the same pictures in another order, under a class each
    df = items.assign(kind=np.where(np.arange(len(items)) % 4 == 0, 'rare', 'usual'))
    df.loc[8, 'images'] = ' '.join(reversed(df.images[9].split()))
    df.loc[8, 'kind'] = df.loc[9, 'kind'] = 'usual'
    seen, sides = [], []
    for fold in range(4):
        dls = make(df, fold_col=None, n_folds=4, valid_fold=fold, text_col='title', frames=4)
        counts = collections.Counter(dls.valid_df.kind)
        assert 2 <= counts['rare'] <= 5 and 10 <= counts['usual'] <= 14, counts
        seen += list(dls.valid_df.part)
        sides.append(
            set(df.part[[8, 9]]) <= set(dls.valid_df.part)
            or not set(df.part[[8, 9]]) & set(dls.valid_df.part)
        )
    assert sorted(seen) == sorted(df.part) and all(sides)
    same = make(df, fold_col=None, n_folds=4, valid_fold=0, text_col='title', frames=4)
    again = make(df, fold_col=None, n_folds=4, valid_fold=0, text_col='title', frames=4)
    assert list(same.valid_df.part) == list(again.valid_df.part)
    with pytest.warns(UserWarning, match='move there'):
        moved = make(
            df.assign(fold=[0 if i == 8 else 1 + i % 3 for i in range(len(df))]), valid_fold=1, frames=4
        ).moved
    assert set(moved.id) <= set(df.part[[8, 9]]) and len(moved) == 1


def test_samplers_even_out_the_classes(items):
    df = items.assign(kind=np.where(np.arange(len(items)) % 10 == 0, 'rare', 'usual'))
    y = torch.cat(
        [
            make(df, fn_col=None, sampler='weighted', valid_fold=None).train.one_batch()[-1]
            for _ in range(12)
        ]
    )
    assert .3 < float((y == 0).float().mean()) < .7


def test_rows_that_cannot_be_used_are_named(items):
    df = items.copy()
    df.loc[3, 'images'] = 'gone.png ' + df.images[3]
    df.loc[7, ['title', 'description']] = [' ', None]
    df.loc[11, 'kind'] = None
    df.loc[12, 'images'] = None
    with pytest.raises(InputError) as e: make(df)
    text = str(e.value)
    for part in ('row 3', 'gone.png', 'row 7', 'row 11', 'row 12', repr(df.part[3])):
        assert part in text, part
    dls = make(df, on_error='skip')
    assert len(dls.df) == len(df) - 4 and sorted(dls.skipped.row) == [3, 7, 11, 12]
    assert set(dls.skipped.id) == set(df.part[[3, 7, 11, 12]])
    assert not set(dls.df.part) & set(df.part[[3, 7, 11, 12]])


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(frames=0), 'frames=0'),
        (dict(text_col=[]), 'name a column'),
        (dict(text_col=['title', 'descr']), 'descr.*did you mean'),
        (dict(fn_col=None, text_col=None), 'both None'),
        (dict(label_col='knd'), 'group_col'),
        (dict(valid_fold=9), 'valid_fold=9'),
        (dict(fold_col=None, valid_fold=5), 'valid_fold=5'),
        (dict(fold_col=None, n_folds=40), 'n_folds=40'),
        (dict(bs=0), 'bs=0'),
    ],
)
def test_options_out_of_range(items, change, message):
    with pytest.raises(InputError, match=message): make(items, **change)


def test_one_class_and_a_class_that_is_only_held_out(items):
    with pytest.raises(InputError, match='in one group|one value'): make(items.assign(kind='a'))
    with pytest.warns(UserWarning, match='new'):
        make(items.assign(kind=np.where(items.fold == 0, 'new', items.kind)))


def test_what_is_exported_holds_no_items(items):
    dls = pickle.loads(pickle.dumps(make(items, fn_col=None).new_empty()))
    assert len(dls.df) == 0 and dls.frames == 3 and list(dls.vocab) == ['a', 'b']
    assert dls.text_columns == ['title', 'description']
