"""Listings as batches: what is in them, in which order, with which labels, whatever the sampler, the
workers and the encoders."""
import collections
import inspect
import pickle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.torch_core import TensorCategory, TensorImage
from fastai.vision.augment import Resize
from PIL import Image

from fastmatch.core import InputError, seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.image import read_image
from fastmatch.data.show import wrap
from fastmatch.data.title import TensorTitle
from tests.data.batches import IMAGES, make, texts


def rows_of(dls, dl):
    """Row numbers of a loader's table by the batches that it draws; titles only, so that each row can be
    known again."""
    number = {t: i for i, t in enumerate(dl.items.title)}
    return [[number[t] for t in texts(dls, b[0])] for b in dl]


def unique_titles(df): return df.assign(title=[f'{title} {i}' for i, title in enumerate(df.title)])


@pytest.mark.parametrize(
    'cols, kinds',
    [
        (dict(text_col=None), [TensorImage]),
        (dict(fn_col=None), [TensorTitle]),
        ({}, [TensorImage, TensorTitle]),
    ],
)
def test_a_batch_is_picture_title_and_group(listings, cols, kinds):
    dls = make(listings, **cols)
    for dl, n in ((dls.train, 8), (dls.valid, min(16, dls.is_valid.sum()))):
        *xs, y = dl.one_batch()
        assert [type(part) for part in xs] == kinds and type(y) is TensorCategory and y.dtype == torch.int64
        assert y.shape == (n,)
        for x in xs:
            if isinstance(x, TensorImage):
                assert x.shape == (n, 3, 32, 32) and x.dtype == torch.float32
                assert 0 <= x.min() < .5 < x.max() <= 1
            else: assert x.ndim == 2 and len(x) == n and x.dtype == torch.int64
    assert len(dls.valid) == -(-dls.is_valid.sum() // 16)


def test_pictures_and_titles_are_those_of_the_row(listings):
    """The validation loader keeps the order of `valid_df`: each picture, title and group is compared with
    the file's."""
    dls = make(listings, item_tfms=Resize(64), val_bs=7)
    df, at = dls.valid_df, 0
    for x, t, y in dls.valid:
        for i in range(len(x)):
            want = np.asarray(read_image(IMAGES/df.image[at]))
            np.testing.assert_allclose(x[i].permute(1, 2, 0) * 255, want, atol=1e-3)
            assert texts(dls, t[i:i + 1]) == [df.title[at]] and dls.vocab[int(y[i])] == df.label_group[at]
            at += 1
    assert at == len(df) == dls.is_valid.sum()


def test_training_labels_are_0_to_c_and_validation_comes_after(listings):
    dls = make(listings, fn_col=None, valid_fold=2)
    train = torch.cat([b[-1] for b in dls.test_dl(dls.train_df, with_labels=True)])
    valid = torch.cat([b[-1] for b in dls.valid])
    assert dls.n_groups == dls.train_df.label_group.nunique() == 16
    assert train.unique().tolist() == list(range(16)) and valid.unique().tolist() == list(range(16, 20))
    assert [dls.vocab[i] for i in train] == list(dls.train_df.label_group)
    assert list(dls.vocab[:16]) == sorted(dls.train_df.label_group.unique())


@pytest.mark.parametrize('labels', ['numbers', 'mixed', 'category'])
def test_labels_of_any_kind(listings, labels):
    df = listings.copy()
    code = pd.factorize(df.label_group)[0]
    df['label_group'] = {
        'numbers': code * 10,
        'mixed': pd.Series([int(c) if c % 2 else f'g{c}' for c in code], dtype=object),
        'category': df.label_group.astype('category'),
    }[labels]
    dls = make(df, fn_col=None)
    y = torch.cat([b[-1] for b in dls.test_dl(dls.df, with_labels=True)])
    assert [dls.vocab[i] for i in y] == list(dls.df.label_group)
    assert y[~dls.is_valid].max() == dls.n_groups - 1 == 15


def test_the_table_is_parted(listings):
    dls = make(listings.sample(frac=1, random_state=0).set_index(np.arange(len(listings)) * 3))
    assert len(dls.train_df) + len(dls.valid_df) == len(listings) == len(dls.df) == len(dls.is_valid)
    assert set(dls.train_df.posting_id) | set(dls.valid_df.posting_id) == set(listings.posting_id)
    assert set(dls.valid_df.fold) == {0} and 0 not in set(dls.train_df.fold)
    assert not set(dls.train_df.label_group) & set(dls.valid_df.label_group)
    pd.testing.assert_frame_equal(dls.train.items.reset_index(drop=True), dls.train_df)
    assert len(dls.skipped) == 0 and len(dls.moved) == 0 and list(dls.moved) == ['id', 'row', 'fold', 'to']


def test_no_fold_trains_on_everything(listings):
    dls = make(listings, valid_fold=None, fn_col=None)
    assert len(dls.train_df) == len(listings) and len(dls.valid_df) == 0 and dls.n_groups == 20
    assert len(dls.valid) == 0
    assert len(dls.moved) == 0 and list(dls.moved) == list(make(listings, fn_col=None).moved)
    assert sum(len(b[0]) for b in dls.train) == len(listings) // 8 * 8


def test_folds_are_made_by_group_and_seed(listings):
    def valid(seed):
        return tuple(
            make(
                listings.drop(columns='fold'), fn_col=None, fold_col=None, seed=seed, n_folds=3
            ).valid_df.posting_id
        )
    assert valid(0) == valid(0) and len({valid(seed) for seed in range(4)}) > 1
    dls = make(listings.drop(columns='fold'), fold_col=None, n_folds=3)
    assert not set(dls.train_df.label_group) & set(dls.valid_df.label_group)
    assert abs(dls.is_valid.mean() - 1/3) < .1


def test_a_shared_picture_wins_over_the_fold_column(listings):
    """A training listing with the bytes of a validation picture moves with its whole group, and `moved`
    says so."""
    df = listings.copy()
    inside, outside = df.index[df.fold == 0], df.index[df.fold == 1]
    df.loc[outside[0], 'image'] = df.image[inside[0]]
    with pytest.warns(UserWarning, match='share a group or a picture'): dls = make(df)
    linked = df.label_group.isin([df.label_group[inside[0]], df.label_group[outside[0]]])
    assert len(set(dls.is_valid[linked])) == 1
    goes = df[linked & (df.fold != (0 if dls.is_valid[linked].all() else 1))]
    assert set(dls.moved.id) == set(goes.posting_id) and set(dls.moved['to']) == {
        0 if dls.is_valid[linked].all() else 1
    }
    assert set(df.posting_id[dls.is_valid]) == set(dls.valid_df.posting_id)


def test_equal_hashes_stay_together(listings, tmp_path):
    "The same picture saved at another size has other bytes and the same perceptual hash."
    pytest.importorskip('imagehash')
    rng = np.random.default_rng(0)
    im = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize(
        (128, 128), Image.Resampling.BICUBIC
    )
    df = pd.DataFrame([(f'p{i}', f'{i}.png', f'tea {i}', f'g{i // 2}', i // 2 % 3) for i in range(12)],
                      columns=['posting_id', 'image', 'title', 'label_group', 'fold'])
    for i in range(12):
        a = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize(
            (128, 128), Image.Resampling.BICUBIC
        )
        (im if i in (0, 3) else a).resize((128 + 2 * i,) * 2).save(tmp_path/f'{i}.png')
    with pytest.warns(UserWarning, match='share'): on = make(df, path=tmp_path, phash=True)
    assert len(set(on.is_valid[[0, 1, 2, 3]])) == 1 and len(on.moved) == 2
    off = make(df, path=tmp_path, phash=False)
    assert len(set(off.is_valid[[0, 1, 2, 3]])) == 2 and len(off.moved) == 0


@pytest.mark.parametrize('cols', [dict(text_col=None), dict(fn_col=None), {}])
def test_show_batch_draws_each_listing(listings, cols):
    df = listings.assign(title=['costs $5 or $6', *listings.title[1:]])
    dls = make(df, **cols, bs=6)
    b = dls.test_dl(df.head(5), with_labels=True).one_batch()
    dls.show_batch(b, cols=3)
    fig = plt.gcf()
    shown = [ax for ax in fig.axes if ax.axison]
    assert len(fig.axes) == 6 and len(shown) == 5
    assert [ax.get_xlabel() for ax in shown] == list(df.label_group[:5])
    assert [len(ax.images) for ax in shown] == [int('fn_col' not in cols)] * 5
    drawn = [ax.get_title() if ax.images else ax.texts[0].get_text() for ax in shown]
    assert drawn == (
        [''] * 5 if 'text_col' in cols else [wrap(t, 6 if 'fn_col' in cols else 3) for t in df.title[:5]]
    )
    if 'fn_col' not in cols:
        for ax, x in zip(shown, b[0]):
            np.testing.assert_allclose(ax.images[0].get_array(), x.permute(1, 2, 0), atol=1/254)
    fig.canvas.draw()
    plt.close('all')
    dls.show_batch(max_n=4)
    assert sum(ax.axison for ax in plt.gcf().axes) == 4
    plt.close('all')


def test_show_batch_undoes_the_normalisation(listings):
    from fastai.data.transforms import Normalize

    dls = make(
        listings, batch_tfms=[Normalize.from_stats([0.5] * 3, [0.5] * 3, cuda=False)], item_tfms=Resize(64)
    )
    dls.valid.show_batch(max_n=3)
    for ax, f in zip(plt.gcf().axes, dls.valid_df.image):
        np.testing.assert_allclose(
            ax.images[0].get_array() * 255, np.asarray(read_image(IMAGES / f)), atol=1.01
        )
    plt.close('all')


def epoch_labels(dls): return [b[-1].tolist() for b in dls.train]


def test_pk_batches_are_groups_of_k(listings):
    dls = make(listings, fn_col=None, sampler='pk', k=2, bs=9)
    got = epoch_labels(dls)
    assert len(got) == len(dls.train) and {len(batch) for batch in got} == {8} and dls.train.bs == 8
    for y in got: assert sorted(collections.Counter(y).values()) == [2] * 4
    assert epoch_labels(dls) != got, 'another epoch, other batches'
    assert torch.cat([b[-1] for b in dls.valid]).tolist() == [
        dls.vocab.o2i[group] for group in dls.valid_df.label_group
    ], 'in order'


def test_weighted_draws_groups_alike(listings):
    df = unique_titles(listings)
    big = df[df.fold == 1].label_group.iloc[0]
    more = [
        df[df.label_group == big].assign(posting_id=lambda rows, i=i: rows.posting_id + f'_{i}')
        for i in range(15)
    ]
    df = pd.concat([df, *more], ignore_index=True)
    share = {}
    for sampler in (None, 'weighted'):
        dls = make(df, fn_col=None, sampler=sampler)
        y = np.concatenate([np.concatenate(epoch_labels(dls)) for _ in range(10)])
        share[sampler] = np.mean(y == dls.vocab.o2i[big])
    assert share[None] > .35 and abs(share['weighted'] - 1/16) < .04


def test_oversampling_fills_small_groups(listings):
    df = unique_titles(listings)
    dls = make(df, fn_col=None, sampler='oversample', k=6, drop_last=False)
    rows = np.concatenate(rows_of(dls, dls.train))
    counts = collections.Counter(dls.train_df.label_group[rows])
    assert set(rows) == set(range(len(dls.train_df)))
    assert counts == {k: max(6, n) for k, n in dls.train_df.label_group.value_counts().items()}


def test_plain_training_draws_every_row_once(listings):
    df = unique_titles(listings)
    dls = make(df, fn_col=None, drop_last=False)
    rows = np.concatenate(rows_of(dls, dls.train))
    assert sorted(rows) == list(range(len(dls.train_df))) and list(rows) != sorted(rows)
    assert np.concatenate(rows_of(dls, dls.valid)).tolist() == list(range(len(dls.valid_df)))


@pytest.mark.parametrize('sampler', [None, 'pk'])
def test_same_seed_same_batches_whatever_the_workers(listings, sampler):
    def epoch(seed, n):
        seed_everything(seed)
        dls = make(listings, sampler=sampler, seed=seed, num_workers=n, item_tfms=Resize(16, method='squish'))
        return [part for b in dls.train for part in b]
    one, two, three, other = epoch(0, 0), epoch(0, 0), epoch(0, 2), epoch(1, 0)
    assert len(one) == len(two) == len(three) > 6
    for a, b, c in zip(one, two, three): assert torch.equal(a, b) and torch.equal(a, c)
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(one, other))


def test_transparency_reaches_the_batch_as_white(listings, tmp_path):
    "Black lies under the transparent pixels, as it does in the sample's own emoji."
    df = listings.assign(image='glass.png')
    a = np.zeros((32, 32, 4), np.uint8)
    a[:16], a[16:, :16] = (255, 0, 0, 255), (0, 0, 255, 128)
    Image.fromarray(a).save(tmp_path/'glass.png')
    x = make(df, path=tmp_path, valid_fold=None).one_batch()[0][0]
    np.testing.assert_allclose(x[:, 20, 25], [1, 1, 1])
    np.testing.assert_allclose(x[:, 5, 5], [1, 0, 0])
    np.testing.assert_allclose(x[:, 20, 5], [127/255, 127/255, 1], atol=2/255)


def test_absolute_file_names_are_read(listings, tmp_path):
    dls = make(listings.assign(image=[str(IMAGES/name) for name in listings.image]), path=tmp_path)
    assert torch.equal(dls.valid.one_batch()[0], make(listings).valid.one_batch()[0])


def test_columns_of_any_name(listings):
    names = {
        'image': 'image file',
        'title': 0,
        'label_group': 'index',
        'posting_id': 'name',
        'fold': 'values',
    }
    dls = make(
        listings.rename(columns=names),
        fn_col='image file',
        text_col=0,
        label_col='index',
        id_col='name',
        fold_col='values',
    )
    for a, b in zip(dls.valid.one_batch(), make(listings).valid.one_batch()): assert torch.equal(a, b)


def test_default_size_and_augmentation(listings):
    assert make(listings.head(40), item_tfms=None, valid_fold=None).one_batch()[0].shape == (8, 3, 224, 224)
    dls = make(listings, batch_tfms=augs('light'))
    a, b = (dls.test_dl(listings.head(4)).one_batch()[0] for _ in range(2))
    assert torch.equal(a, b), 'listings to embed are not augmented'


def test_listings_to_embed_need_no_label(listings):
    dls = make(listings)
    df = listings.sample(9, random_state=0)[['title', 'image']]
    b = dls.test_dl(df).one_batch()
    assert [type(part) for part in b] == [TensorImage, TensorTitle] and texts(dls, b[1]) == list(df.title)
    assert torch.equal(b[0], dls.test_dl(listings.loc[df.index], with_labels=True).one_batch()[0])


def test_an_empty_copy_keeps_the_columns_not_the_listings(listings):
    dls = make(listings)
    new = pickle.loads(pickle.dumps(dls.new_empty()))
    assert new.columns == dls.columns and new.image_folder == dls.image_folder == IMAGES
    assert new.image_columns == dls.image_columns == ['image']
    assert len(new.df) == len(new.train_df) == len(new.valid_df) == 0 and list(new.df) == list(dls.df)
    assert new.n_groups == 16
    for a, b in zip(new.test_dl(listings.head(3)).one_batch(), dls.test_dl(listings.head(3)).one_batch()):
        assert torch.equal(a, b)
    assert listings.posting_id[0].encode() not in pickle.dumps(new)


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(fn_col=None, text_col=None), 'image_col and title_col'),
        (dict(sampler='pk2'), "sampler='pk2'.*'pk', 'weighted', 'oversample'"),
        (dict(sampler='pk', k=0), 'k=0'),
        (dict(sampler='pk', bs=64), 'p=32 groups needs as many, training has 16'),
        (dict(sampler='oversample', k=0), 'min_count=0'),
        (dict(bs=0), 'bs=0'),
    ],
)
def test_wrong_options_are_named(listings, change, words):
    with pytest.raises(InputError, match=words): make(listings, **{'fn_col': None, **change})


def test_from_df_forwards_to_fastai(listings):
    assert 'drop_last' not in inspect.signature(MatchDataLoaders.from_df).parameters
    assert sum(len(b[0]) for b in make(listings, fn_col=None, drop_last=False).train) == len(
        make(listings).train_df
    )
