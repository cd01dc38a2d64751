"""Labelled items as batches: every view in its place, texts put together, folds with their share of each
class, rows named that can't be used."""
import collections
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.torch_core import TensorCategory, TensorImage
from fastai.vision.augment import Resize

from fastmatch.core import InputError
from fastmatch.data.classify import ClassifyDataLoaders, _file_names, widen
from fastmatch.data.columns import Columns
from fastmatch.data.demo import demo_path
from fastmatch.data.frames import Frames, TensorCount, taken_evenly
from fastmatch.data.image import read_image
from fastmatch.data.title import TensorTitle

IMAGES = demo_path()/'images'


@pytest.fixture(scope='module')
def items():
    """An item is an emoji of which 2 to 4 vendors' drawings are the views; its class is the alphabet's
    half that its name starts in."""
    sample = pd.read_csv(demo_path()/'listings.csv')
    sizes = sample.groupby('label_group').label_group.transform('size')
    groups = sample[sizes >= 2].groupby('label_group')
    rows = [
        dict(
            part=str(group),
            images=' '.join(listings.image.iloc[:4]),
            title=listings.title.iloc[0],
            description=None if number % 3 else listings.title.iloc[1],
            kind='ab'[number % 5 > 2],
            fold=number % 4,
        )
        for number, (group, listings) in enumerate(list(groups)[:60])
    ]
    return pd.DataFrame(rows)


def make_loaders(items, **kwargs):
    options = dict(
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
    return ClassifyDataLoaders.from_df(items, **{**options, **kwargs})


def test_a_batch_holds_every_view_the_text_and_the_class(items):
    loaders = make_loaders(items)
    *views, counts, token_ids, labels = loaders.train.one_batch()
    assert isinstance(counts, TensorCount)
    assert [type(view) for view in views] == [TensorImage] * 3 and all(
        view.shape == (8, 3, 64, 64) for view in views
    )
    assert isinstance(token_ids, TensorTitle) and isinstance(labels, TensorCategory)
    assert list(loaders.vocab) == ['a', 'b']
    # the validation loader keeps the table's order: each view, text and class against the file's
    start, valid_items = 0, items[items.fold == 0].reset_index(drop=True)
    for *views, counts, token_ids, labels in loaders.valid:
        for index in range(len(labels)):
            row, file_names = valid_items.iloc[start + index], valid_items.images[start + index].split()
            assert counts[index] == min(len(file_names), 3)
            for view, file_name in zip(views, taken_evenly(file_names, 3)):
                picture = read_image(IMAGES / file_name).resize((64, 64))
                expected = np.asarray(picture, dtype=np.float32) / 255
                assert np.abs(view[index].permute(1, 2, 0).cpu().numpy() - expected).max() < 1e-6
            decoded = str(loaders.before_batch.fs[0].decodes(token_ids[index]))
            assert (
                decoded == (row.title if pd.isna(row.description) else f'{row.title}. {row.description}')
                and 'ab'[labels[index]] == row.kind
            )
        start += len(labels)
    assert start == len(valid_items) == len(loaders.valid_df)


def test_widen_leaves_the_table_and_repeats_views():
    table = pd.DataFrame(
        {'f': ['a b', ['c d', 'e', 'f'], ('g',)], 't': ['x ', None, 'y'], 'u': [None, 'z', ' ']}
    )
    reading = Frames('f', 2, _file_names, Path('.'))
    widened, image_columns, columns = widen(table, Columns(image='f', title=['t', 'u']), reading)
    assert image_columns == ['f 1', 'f 2'] and widened['f (frames)'].tolist() == [2, 2, 1]
    assert widened[image_columns].values.tolist() == [['a', 'b'], ['c d', 'f'], ['g', 'g']]
    assert widened[columns.title].tolist() == ['x', 'z', 'y'] and list(table) == ['f', 't', 'u']
    # one picture an item: a name may hold a blank
    single = Columns(image='f', title='t')
    assert widen(table.iloc[:1], single)[1:] == (['f'], single)


def test_folds_have_their_share_and_keep_equal_pictures_together(items):
    # two items with the same pictures in another order, under a class each
    changed = items.assign(kind=np.where(np.arange(len(items)) % 4 == 0, 'rare', 'usual'))
    changed.loc[8, 'images'] = ' '.join(reversed(changed.images[9].split()))
    changed.loc[8, 'kind'] = changed.loc[9, 'kind'] = 'usual'
    seen, kept_together = [], []
    for fold in range(4):
        loaders = make_loaders(changed, fold_col=None, n_folds=4, valid_fold=fold, text_col='title', frames=4)
        counts = collections.Counter(loaders.valid_df.kind)
        assert 2 <= counts['rare'] <= 5 and 10 <= counts['usual'] <= 14, counts
        seen += list(loaders.valid_df.part)
        kept_together.append(
            set(changed.part[[8, 9]]) <= set(loaders.valid_df.part)
            or not set(changed.part[[8, 9]]) & set(loaders.valid_df.part)
        )
    assert sorted(seen) == sorted(changed.part) and all(kept_together)
    same = make_loaders(changed, fold_col=None, n_folds=4, valid_fold=0, text_col='title', frames=4)
    again = make_loaders(changed, fold_col=None, n_folds=4, valid_fold=0, text_col='title', frames=4)
    assert list(same.valid_df.part) == list(again.valid_df.part)
    with pytest.warns(UserWarning, match='move there'):
        given_folds = [0 if row == 8 else 1 + row % 3 for row in range(len(changed))]
        moved = make_loaders(changed.assign(fold=given_folds), valid_fold=1, frames=4).moved
    assert set(moved.id) <= set(changed.part[[8, 9]]) and len(moved) == 1


def test_samplers_even_out_the_classes(items):
    changed = items.assign(kind=np.where(np.arange(len(items)) % 10 == 0, 'rare', 'usual'))
    labels = torch.cat(
        [
            make_loaders(changed, fn_col=None, sampler='weighted', valid_fold=None).train.one_batch()[-1]
            for _ in range(12)
        ]
    )
    assert .3 < float((labels == 0).float().mean()) < .7


def test_rows_that_cannot_be_used_are_named(items):
    broken = items.copy()
    broken.loc[3, 'images'] = 'gone.png ' + broken.images[3]
    # an item may lack its text or its pictures, but not both
    broken.loc[7, ['images', 'title', 'description']] = [None, ' ', None]
    broken.loc[8, ['title', 'description']] = [' ', None]
    broken.loc[11, 'kind'] = None  # without a class: no fault, but kept aside
    broken.loc[12, 'images'] = None
    with pytest.raises(InputError) as raised: make_loaders(broken)
    message = str(raised.value)
    for part in ('row 3', 'gone.png', 'row 7', 'neither picture nor text', repr(broken.part[3])):
        assert part in message, part
    with pytest.warns(UserWarning, match='1 listings without a group'):
        loaders = make_loaders(broken, on_error='skip')
    assert len(loaders.df) == len(broken) - 3 and sorted(loaders.skipped.row) == [3, 7]
    assert set(loaders.skipped.id) == set(broken.part[[3, 7]])
    assert loaders.lacking == {'image': 1, 'title': 1}
    assert list(loaders.unlabelled.part) == [broken.part[11]]
    assert not set(loaders.df.part) & set(broken.part[[3, 7, 11]])


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
    with pytest.raises(InputError, match=message): make_loaders(items, **change)


def test_one_class_and_a_class_that_is_only_held_out(items):
    with pytest.raises(InputError, match='in one group|one value'): make_loaders(items.assign(kind='a'))
    with pytest.warns(UserWarning, match='new'):
        make_loaders(items.assign(kind=np.where(items.fold == 0, 'new', items.kind)))


def test_what_is_exported_holds_no_items(items):
    loaders = pickle.loads(pickle.dumps(make_loaders(items, fn_col=None).new_empty()))
    assert len(loaders.df) == 0 and loaders.frames == 3 and list(loaders.vocab) == ['a', 'b']
    assert loaders.text_columns == ['title', 'description']


def test_several_classes_of_an_item_are_told(items):
    several = items.assign(kind=[['a', 'b'] if row in (3, 7) else 'a' for row in range(len(items))])
    with pytest.raises(InputError, match=r"'kind': 2 rows hold a list, not one class \(rows 3, 7\)"):
        make_loaders(several)
