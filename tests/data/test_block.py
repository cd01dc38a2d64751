"""Listings as batches: what is in them, in which order, with which labels, whatever the sampler, the
workers and the encoders."""
import collections
import inspect
import pickle
import shutil
import unicodedata

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
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.data.image import image_path, read_image
from fastmatch.data.loader import short_titles_first
from fastmatch.data.show import wrap
from fastmatch.data.table import recognise
from fastmatch.data.title import TensorTitle
from tests.data.batches import IMAGES, make_loaders, texts


def rows_of(loaders, loader):
    """Row numbers of a loader's table by the batches that it draws; titles only, so that each row can be
    known again."""
    row_of_title = {title: row for row, title in enumerate(loader.items.title)}
    return [[row_of_title[title] for title in texts(loaders, batch[0])] for batch in loader]


def unique_titles(listings):
    return listings.assign(title=[f'{title} {number}' for number, title in enumerate(listings.title)])


@pytest.mark.parametrize(
    'columns, kinds',
    [
        (dict(text_col=None), [TensorImage]),
        (dict(fn_col=None), [TensorTitle]),
        ({}, [TensorImage, TensorTitle]),
    ],
)
def test_a_batch_is_picture_title_and_group(listings, columns, kinds):
    loaders = make_loaders(listings, **columns)
    for loader, batch_size in ((loaders.train, 8), (loaders.valid, min(16, loaders.is_valid.sum()))):
        *inputs, labels = loader.one_batch()
        assert [type(part) for part in inputs] == kinds and type(labels) is TensorCategory
        assert labels.dtype == torch.int64
        assert labels.shape == (batch_size,)
        for part in inputs:
            if isinstance(part, TensorImage):
                assert part.shape == (batch_size, 3, 32, 32) and part.dtype == torch.float32
                assert 0 <= part.min() < .5 < part.max() <= 1
            else: assert part.ndim == 2 and len(part) == batch_size and part.dtype == torch.int64
    assert len(loaders.valid) == -(-loaders.is_valid.sum() // 16)


def test_pictures_and_titles_are_those_of_the_row(listings):
    """The validation loader keeps the order of `valid_df`: each picture, title and group is compared with
    the file's."""
    loaders = make_loaders(listings, item_tfms=Resize(64), val_bs=7)
    valid_df, row = loaders.valid_df, 0
    for images, titles, labels in loaders.valid:
        for index in range(len(images)):
            expected = np.asarray(read_image(IMAGES/valid_df.image[row]))
            np.testing.assert_allclose(images[index].permute(1, 2, 0) * 255, expected, atol=1e-3)
            assert texts(loaders, titles[index:index + 1]) == [valid_df.title[row]]
            assert loaders.vocab[int(labels[index])] == valid_df.label_group[row]
            row += 1
    assert row == len(valid_df) == loaders.is_valid.sum()


def test_training_labels_are_0_to_c_and_validation_comes_after(listings):
    loaders = make_loaders(listings, fn_col=None, valid_fold=2)
    train_labels = torch.cat([batch[-1] for batch in loaders.test_dl(loaders.train_df, with_labels=True)])
    valid_labels = torch.cat([batch[-1] for batch in loaders.valid])
    assert loaders.n_groups == loaders.train_df.label_group.nunique() == 16
    assert train_labels.unique().tolist() == list(range(16))
    assert valid_labels.unique().tolist() == list(range(16, 20))
    assert [loaders.vocab[label] for label in train_labels] == list(loaders.train_df.label_group)
    assert list(loaders.vocab[:16]) == sorted(loaders.train_df.label_group.unique())


@pytest.mark.parametrize('kind', ['numbers', 'mixed', 'category'])
def test_labels_of_any_kind(listings, kind):
    changed = listings.copy()
    codes = pd.factorize(changed.label_group)[0]
    changed['label_group'] = {
        'numbers': codes * 10,
        'mixed': pd.Series([int(code) if code % 2 else f'g{code}' for code in codes], dtype=object),
        'category': changed.label_group.astype('category'),
    }[kind]
    loaders = make_loaders(changed, fn_col=None)
    labels = torch.cat([batch[-1] for batch in loaders.test_dl(loaders.df, with_labels=True)])
    assert [loaders.vocab[label] for label in labels] == list(loaders.df.label_group)
    assert labels[~loaders.is_valid].max() == loaders.n_groups - 1 == 15


def test_the_table_is_parted(listings):
    loaders = make_loaders(listings.sample(frac=1, random_state=0).set_index(np.arange(len(listings)) * 3))
    assert len(loaders.train_df) + len(loaders.valid_df) == len(listings)
    assert len(listings) == len(loaders.df) == len(loaders.is_valid)
    assert set(loaders.train_df.posting_id) | set(loaders.valid_df.posting_id) == set(listings.posting_id)
    assert set(loaders.valid_df.fold) == {0} and 0 not in set(loaders.train_df.fold)
    assert not set(loaders.train_df.label_group) & set(loaders.valid_df.label_group)
    pd.testing.assert_frame_equal(loaders.train.items.reset_index(drop=True), loaders.train_df)
    assert len(loaders.skipped) == 0 and len(loaders.moved) == 0
    assert list(loaders.moved) == ['id', 'row', 'fold', 'to']


def test_no_fold_trains_on_everything(listings):
    loaders = make_loaders(listings, valid_fold=None, fn_col=None)
    assert len(loaders.train_df) == len(listings) and len(loaders.valid_df) == 0 and loaders.n_groups == 20
    assert len(loaders.valid) == 0
    assert len(loaders.moved) == 0 and list(loaders.moved) == list(make_loaders(listings, fn_col=None).moved)
    assert sum(len(batch[0]) for batch in loaders.train) == len(listings) // 8 * 8


def test_folds_are_made_by_group_and_seed(listings):
    def valid_ids(seed):
        return tuple(
            make_loaders(
                listings.drop(columns='fold'), fn_col=None, fold_col=None, seed=seed, n_folds=3
            ).valid_df.posting_id
        )
    assert valid_ids(0) == valid_ids(0) and len({valid_ids(seed) for seed in range(4)}) > 1
    loaders = make_loaders(listings.drop(columns='fold'), fold_col=None, n_folds=3)
    assert not set(loaders.train_df.label_group) & set(loaders.valid_df.label_group)
    assert abs(loaders.is_valid.mean() - 1/3) < .1


def test_a_shared_picture_wins_over_the_fold_column(listings):
    """A training listing with the bytes of a validation picture moves with its whole group, and `moved`
    says so."""
    changed = listings.copy()
    inside, outside = changed.index[changed.fold == 0], changed.index[changed.fold == 1]
    changed.loc[outside[0], 'image'] = changed.image[inside[0]]
    with pytest.warns(UserWarning, match='share a group or a picture'): loaders = make_loaders(changed)
    linked = changed.label_group.isin([changed.label_group[inside[0]], changed.label_group[outside[0]]])
    assert len(set(loaders.is_valid[linked])) == 1
    moving = changed[linked & (changed.fold != (0 if loaders.is_valid[linked].all() else 1))]
    assert set(loaders.moved.id) == set(moving.posting_id) and set(loaders.moved['to']) == {
        0 if loaders.is_valid[linked].all() else 1
    }
    assert set(changed.posting_id[loaders.is_valid]) == set(loaders.valid_df.posting_id)


def test_equal_hashes_stay_together(tmp_path):
    "The same picture saved at another size has other bytes and the same perceptual hash."
    pytest.importorskip('imagehash')
    rng = np.random.default_rng(0)
    shared_picture = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize(
        (128, 128), Image.Resampling.BICUBIC
    )
    listings = pd.DataFrame(
        [
            (f'p{number}', f'{number}.png', f'tea {number}', f'g{number // 2}', number // 2 % 3)
            for number in range(12)
        ],
        columns=['posting_id', 'image', 'title', 'label_group', 'fold'],
    )
    for number in range(12):
        own_picture = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize(
            (128, 128), Image.Resampling.BICUBIC
        )
        picture = shared_picture if number in (0, 3) else own_picture
        picture.resize((128 + 2 * number,) * 2).save(tmp_path/f'{number}.png')
    with pytest.warns(UserWarning, match='share'):
        with_hash = make_loaders(listings, path=tmp_path, phash=True)
    assert len(set(with_hash.is_valid[[0, 1, 2, 3]])) == 1 and len(with_hash.moved) == 2
    without_hash = make_loaders(listings, path=tmp_path, phash=False)
    assert len(set(without_hash.is_valid[[0, 1, 2, 3]])) == 2 and len(without_hash.moved) == 0


@pytest.mark.parametrize('columns', [dict(text_col=None), dict(fn_col=None), {}])
def test_show_batch_draws_each_listing(listings, columns):
    changed = listings.assign(title=['costs $5 or $6', *listings.title[1:]])
    loaders = make_loaders(changed, **columns, bs=6)
    batch = loaders.test_dl(changed.head(5), with_labels=True).one_batch()
    loaders.show_batch(batch, cols=3)
    figure = plt.gcf()
    shown = [ax for ax in figure.axes if ax.axison]
    assert len(figure.axes) == 6 and len(shown) == 5
    assert [ax.get_xlabel() for ax in shown] == list(changed.label_group[:5])
    assert [len(ax.images) for ax in shown] == [int('fn_col' not in columns)] * 5
    drawn = [ax.get_title() if ax.images else ax.texts[0].get_text() for ax in shown]
    if 'text_col' in columns: assert drawn == [''] * 5
    else: assert drawn == [wrap(title, 6 if 'fn_col' in columns else 3) for title in changed.title[:5]]
    if 'fn_col' not in columns:
        for ax, image in zip(shown, batch[0]):
            np.testing.assert_allclose(ax.images[0].get_array(), image.permute(1, 2, 0), atol=1/254)
    figure.canvas.draw()
    plt.close('all')
    loaders.show_batch(max_n=4)
    assert sum(ax.axison for ax in plt.gcf().axes) == 4
    plt.close('all')


def test_show_batch_undoes_the_normalisation(listings):
    from fastai.data.transforms import Normalize

    loaders = make_loaders(
        listings, batch_tfms=[Normalize.from_stats([0.5] * 3, [0.5] * 3, cuda=False)], item_tfms=Resize(64)
    )
    loaders.valid.show_batch(max_n=3)
    for ax, file_name in zip(plt.gcf().axes, loaders.valid_df.image):
        np.testing.assert_allclose(
            ax.images[0].get_array() * 255, np.asarray(read_image(IMAGES / file_name)), atol=1.01
        )
    plt.close('all')


def epoch_labels(loaders): return [batch[-1].tolist() for batch in loaders.train]


def test_pk_batches_are_groups_of_k(listings):
    loaders = make_loaders(listings, fn_col=None, sampler='pk', k=2, bs=9)
    batches = epoch_labels(loaders)
    assert len(batches) == len(loaders.train) and {len(labels) for labels in batches} == {8}
    assert loaders.train.bs == 8
    for labels in batches: assert sorted(collections.Counter(labels).values()) == [2] * 4
    assert epoch_labels(loaders) != batches, 'another epoch, other batches'
    assert torch.cat([batch[-1] for batch in loaders.valid]).tolist() == [
        loaders.vocab.o2i[group] for group in loaders.valid_df.label_group
    ], 'in order'


def test_weighted_draws_groups_alike(listings):
    unbalanced = unique_titles(listings)
    big_group = unbalanced[unbalanced.fold == 1].label_group.iloc[0]
    in_big_group = unbalanced[unbalanced.label_group == big_group]
    copies = [
        in_big_group.assign(posting_id=in_big_group.posting_id + f'_{number}')
        for number in range(15)
    ]
    unbalanced = pd.concat([unbalanced, *copies], ignore_index=True)
    shares = {}
    for sampler in (None, 'weighted'):
        loaders = make_loaders(unbalanced, fn_col=None, sampler=sampler)
        labels = np.concatenate([np.concatenate(epoch_labels(loaders)) for _ in range(10)])
        shares[sampler] = np.mean(labels == loaders.vocab.o2i[big_group])
    assert shares[None] > .35 and abs(shares['weighted'] - 1/16) < .04


def test_oversampling_fills_small_groups(listings):
    unique = unique_titles(listings)
    loaders = make_loaders(unique, fn_col=None, sampler='oversample', k=6, drop_last=False)
    rows = np.concatenate(rows_of(loaders, loaders.train))
    counts = collections.Counter(loaders.train_df.label_group[rows])
    assert set(rows) == set(range(len(loaders.train_df)))
    sizes = loaders.train_df.label_group.value_counts()
    assert counts == {group: max(6, size) for group, size in sizes.items()}


def test_plain_training_draws_every_row_once(listings):
    unique = unique_titles(listings)
    loaders = make_loaders(unique, fn_col=None, drop_last=False)
    rows = np.concatenate(rows_of(loaders, loaders.train))
    assert sorted(rows) == list(range(len(loaders.train_df))) and list(rows) != sorted(rows)
    assert np.concatenate(rows_of(loaders, loaders.valid)).tolist() == list(range(len(loaders.valid_df)))


@pytest.mark.parametrize('sampler', [None, 'pk'])
def test_same_seed_same_batches_whatever_the_workers(listings, sampler):
    def epoch(seed, num_workers):
        seed_everything(seed)
        resize = Resize(16, method='squish')
        loaders = make_loaders(
            listings, sampler=sampler, seed=seed, num_workers=num_workers, item_tfms=resize
        )
        return [part for batch in loaders.train for part in batch]
    first, again, by_workers, other_seed = epoch(0, 0), epoch(0, 0), epoch(0, 2), epoch(1, 0)
    assert len(first) == len(again) == len(by_workers) > 6
    for part, same, by_worker in zip(first, again, by_workers):
        assert torch.equal(part, same) and torch.equal(part, by_worker)
    assert not all(
        part.shape == other.shape and torch.equal(part, other) for part, other in zip(first, other_seed)
    )


def test_transparency_reaches_the_batch_as_white(listings, tmp_path):
    "Black lies under the transparent pixels, as it does in the sample's own emoji."
    glass = listings.assign(image='glass.png')
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:16], pixels[16:, :16] = (255, 0, 0, 255), (0, 0, 255, 128)
    Image.fromarray(pixels).save(tmp_path/'glass.png')
    image = make_loaders(glass, path=tmp_path, valid_fold=None).one_batch()[0][0]
    np.testing.assert_allclose(image[:, 20, 25], [1, 1, 1])
    np.testing.assert_allclose(image[:, 5, 5], [1, 0, 0])
    np.testing.assert_allclose(image[:, 20, 5], [127/255, 127/255, 1], atol=2/255)


def test_absolute_file_names_are_read(listings, tmp_path):
    absolute = listings.assign(image=[str(IMAGES/name) for name in listings.image])
    loaders = make_loaders(absolute, path=tmp_path)
    assert torch.equal(loaders.valid.one_batch()[0], make_loaders(listings).valid.one_batch()[0])


def test_columns_of_any_name(listings):
    names = {
        'image': 'image file',
        'title': 0,
        'label_group': 'index',
        'posting_id': 'name',
        'fold': 'values',
    }
    loaders = make_loaders(
        listings.rename(columns=names),
        fn_col='image file',
        text_col=0,
        label_col='index',
        id_col='name',
        fold_col='values',
    )
    for part, expected in zip(loaders.valid.one_batch(), make_loaders(listings).valid.one_batch()):
        assert torch.equal(part, expected)


def test_default_size_and_augmentation(listings):
    loaders = make_loaders(listings.head(40), item_tfms=None, valid_fold=None)
    assert loaders.one_batch()[0].shape == (8, 3, 224, 224)
    loaders = make_loaders(listings, batch_tfms=augs('light'))
    first, second = (loaders.test_dl(listings.head(4)).one_batch()[0] for _ in range(2))
    assert torch.equal(first, second), 'listings to embed are not augmented'


def test_listings_to_embed_need_no_label(listings):
    loaders = make_loaders(listings)
    unlabelled = listings.sample(9, random_state=0)[['title', 'image']]
    batch = loaders.test_dl(unlabelled).one_batch()
    assert [type(part) for part in batch] == [TensorImage, TensorTitle]
    assert texts(loaders, batch[1]) == list(unlabelled.title)
    labelled = listings.loc[unlabelled.index]
    assert torch.equal(batch[0], loaders.test_dl(labelled, with_labels=True).one_batch()[0])


def test_an_empty_copy_keeps_the_columns_not_the_listings(listings):
    loaders = make_loaders(listings)
    empty = pickle.loads(pickle.dumps(loaders.new_empty()))
    assert empty.columns == loaders.columns and empty.image_folder == loaders.image_folder == IMAGES
    assert empty.image_columns == loaders.image_columns == ['image']
    assert len(empty.df) == len(empty.train_df) == len(empty.valid_df) == 0
    assert list(empty.df) == list(loaders.df)
    assert empty.n_groups == 16
    first_three = listings.head(3)
    batches = (made.test_dl(first_three).one_batch() for made in (empty, loaders))
    for part, expected in zip(*batches):
        assert torch.equal(part, expected)
    assert listings.posting_id[0].encode() not in pickle.dumps(empty)


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
    with pytest.raises(InputError, match=words): make_loaders(listings, **{'fn_col': None, **change})


def test_from_df_forwards_to_fastai(listings):
    assert 'drop_last' not in inspect.signature(MatchDataLoaders.from_df).parameters
    assert sum(len(batch[0]) for batch in make_loaders(listings, fn_col=None, drop_last=False).train) == len(
        make_loaders(listings).train_df
    )


def test_several_titles_are_put_together(listings):
    described = listings.assign(about=[None if row % 3 else f'no {row}' for row in range(len(listings))])
    loaders = make_loaders(described, fn_col=None, title_col=['title', 'about'])
    expected = [title if row % 3 else f'{title}. no {row}' for row, title in enumerate(listings.title)]
    assert loaders.df[loaders.columns.title].tolist() == expected
    # as the loaders for classification join them
    classes = ClassifyDataLoaders.from_df(described, image_col=None, title_col=['title', 'about'],
                                          id_col='posting_id', label_col='label_group', valid_fold=None)
    assert classes.df[classes.columns.title].tolist() == expected
    assert loaders.table_columns.title == ['title', 'about'] and loaders.columns.title == 'title + about'
    assert make_loaders(listings, fn_col=None, title_col=('title',)).columns.title == 'title'
    with pytest.raises(InputError, match=r"title_col\[1\]='abuot' .did you mean 'about'"):
        make_loaders(described, fn_col=None, title_col=['title', 'abuot'])
    with pytest.raises(InputError, match='3 unusable rows'):
        make_loaders(described.assign(title=[''] * 3 + listings.title.tolist()[3:], about=None), fn_col=None,
                     title_col=['title', 'about'])


@pytest.mark.parametrize('on_disk, asked', [('NFC', 'NFD'), ('NFD', 'NFC')])
def test_names_with_accents_in_another_form(listings, tmp_path, on_disk, asked):
    few = listings.groupby('label_group').head(2).iloc[:12].reset_index(drop=True)
    few['image'] = few.image.map(lambda name: f'café {name}')
    for name in few.image:
        shutil.copy(IMAGES/name.removeprefix('café '), tmp_path/unicodedata.normalize(on_disk, name))
    few['image'] = [unicodedata.normalize(asked, name) for name in few.image]
    few = few.rename(columns={'image': unicodedata.normalize(on_disk, 'été')})
    options = dict(image_col=unicodedata.normalize(asked, 'été'), title_col=None, valid_fold=None,
                   num_workers=0, bs=4)
    loaders = MatchDataLoaders.from_df(few, tmp_path, **options)
    assert len(loaders.train.one_batch()[0]) == 4 and not len(loaders.skipped)
    classes = ClassifyDataLoaders.from_df(few, tmp_path, id_col='posting_id', label_col='label_group',
                                          **options)
    assert len(classes.train.one_batch()[0]) == 4 and len(classes.widen(few)) == len(few)
    path = image_path(tmp_path, few.iloc[0, list(few.columns).index(unicodedata.normalize(on_disk, 'été'))])
    assert path.exists() and recognise(few, image_col=options['image_col']).image in few
    # the name as it is comes first
    (tmp_path/unicodedata.normalize(asked, 'é.png')).touch()
    (tmp_path/unicodedata.normalize(on_disk, 'é.png')).touch()
    name = unicodedata.normalize(asked, 'é.png')
    assert image_path(tmp_path, name) == tmp_path/name


@pytest.mark.parametrize('option, words', [
    ({'after_batch': []}, 'give batch_tfms'), ({'after_item': []}, 'give item_tfms'),
    ({'before_batch': []}, 'set it themselves'), ({'val_bs': 0}, 'val_bs=0')])
def test_options_that_would_displace_what_the_loaders_do(option, words):
    df = pd.read_csv(demo_path()/'listings.csv').head(40)
    with pytest.raises(InputError, match=words):
        MatchDataLoaders.from_df(df, demo_path()/'images', title_col=None, phash=False, **option)


def test_ids_that_are_lists():
    df = pd.read_csv(demo_path()/'listings.csv').head(40)
    df['posting_id'] = [[number] for number in range(len(df))]
    with pytest.raises(InputError, match='an id is a number or a text'):
        MatchDataLoaders.from_df(df, image_col=None, title_col='title')


def unequal_titles(listings):
    "Titles of 1 to 42 words, each of its own, those of a group of about the same length."
    rng = np.random.default_rng(0)
    groups = pd.factorize(listings.label_group)[0]
    n_words = rng.integers(1, 40, groups.max() + 1)[groups] + rng.integers(0, 4, len(listings))
    return listings.assign(title=[f'{number} ' + 'tea ' * words for number, words in enumerate(n_words)])


class WordTokenizer:
    "A token is a word; the tokenizer counts how often it was called."
    pad_token_id = 0
    def __init__(self): self.calls = 0

    def __call__(self, titles, max_length, **kwargs):
        self.calls += 1
        return {'input_ids': [[1] * min(len(title.split()), max_length) for title in titles]}


def with_tokenizer(loaders, tokenizer):
    "The training loader as a learner's `EncoderInputs` makes it."
    from fastmatch.learner.reading import EncoderInputs
    return EncoderInputs(False, tokenizer).fit(loaders).train


@pytest.mark.parametrize('sampler', [None, 'pk', 'weighted', 'oversample'])
def test_titles_of_like_length_share_a_batch(listings, sampler):
    changed = unequal_titles(pd.concat([listings] * 4, ignore_index=True))
    changed['posting_id'] = [f'p{number}' for number in range(len(changed))]
    def tokens(**options):
        loaders = make_loaders(changed, fn_col=None, sampler=sampler, bs=4, **options)
        return sum(batch[0].numel() for _ in range(3) for batch in loaders.train)
    # a few groups that fill many batches leave little choice
    assert tokens(buckets=True) < (.95 if sampler == 'pk' else .8) * tokens(buckets=False)


def test_lengths_are_those_that_the_tokenizer_makes(listings):
    changed = unequal_titles(listings)
    changed.loc[changed.index[5], 'title'] = 'tea ' * 500
    tokenizer = WordTokenizer()
    train = with_tokenizer(make_loaders(changed, fn_col=None, max_len=20, buckets=True), tokenizer)
    lengths = train.item_lengths()
    assert lengths.tolist() == [min(len(title.split()), 20) for title in train.items.title]
    calls = tokenizer.calls
    for _ in range(2): rows = [len(batch[0]) for batch in train]
    # counted once; then a call for each batch
    assert tokenizer.calls == calls + 2 * len(rows)


def test_lengths_of_several_columns_keep_to_their_limits(listings):
    changed = unequal_titles(listings).assign(brand=['a b c d', None] * (len(listings) // 2))
    loaders = ClassifyDataLoaders.from_df(
        changed, image_col=None, title_col=['title', 'brand'], label_col='vendor', fold_col='fold', bs=8,
        num_workers=0, phash=False, max_len={'title': 50, 'brand': 2})
    tokenize = loaders.train.before_batch.fs[0]
    in_table_order = loaders.train.new(shuffle=False, drop_last=False, bs=1)
    widths = [batch[0].shape[1] for batch in in_table_order]
    assert loaders.train.item_lengths().tolist() == widths and len(set(widths)) > 2
    assert tokenize.count(loaders.train.titles(loaders.train_df)).tolist() == widths


def test_other_rows_are_not_read_by_length(listings):
    "Held-out and new listings come in the order of the table, until a learner asks for short titles first."
    loaders = make_loaders(unequal_titles(listings), fn_col=None, val_bs=4)
    def titles(loader): return [title for batch in loader for title in texts(loaders, batch[0])]
    wanted = [title.strip() for title in loaders.valid_df.title]
    new = loaders.test_dl(loaders.valid_df, bs=4)
    with short_titles_first(new, is_on=False): assert [*map(str.strip, titles(new))] == wanted
    for loader in (loaders.valid, new):
        assert [*map(str.strip, titles(loader))] == wanted
        with short_titles_first(loader): sorted_titles = [*map(str.strip, titles(loader))]
        assert sorted_titles == sorted(wanted, key=len) != wanted
        assert [*map(str.strip, titles(loader))] == wanted
    plain = make_loaders(unequal_titles(listings), fn_col=None, val_bs=4, buckets=False)
    with short_titles_first(plain.valid): assert [*map(str.strip, titles(plain.valid))] == wanted


def test_pictures_alone_have_no_lengths(listings):
    assert make_loaders(listings, text_col=None, buckets=True).train.item_lengths() is None


def test_classification_is_in_buckets_and_matching_where_asked(listings):
    def lengths(kind=MatchDataLoaders, **options):
        if kind is ClassifyDataLoaders: options['label_col'] = 'vendor'
        loaders = kind.from_df(listings, image_col=None, fold_col='fold', num_workers=0, phash=False,
                               **options)
        return loaders.train.item_lengths()
    assert lengths() is None and lengths(buckets=True) is not None
    assert lengths(ClassifyDataLoaders) is not None and lengths(ClassifyDataLoaders, buckets=False) is None
