"Stored pictures in dataloaders: the pixels of fastai's own `Resize`, and what is random goes on."
import pickle

import numpy as np
import pytest
import torch
from fastai.vision.augment import RandomResizedCrop, Resize
from PIL import Image

from fastmatch.core import InputError, seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.block import ListingImage, MatchDataLoaders
from fastmatch.data.picture_store import PictureStore, store_of
from fastmatch.data.stored import resize_alone
from tests.data.made import noise


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    "Pictures of several shapes and modes, and a table of them."
    import pandas as pd
    folder = tmp_path_factory.mktemp('pictures')
    shapes = [(40, 40), (60, 31), (33, 90), (20, 20)] * 4
    for number, shape in enumerate(shapes): noise(*shape, number).save(folder/f'{number}.png')
    return pd.DataFrame({'posting_id': range(16), 'image': [f'{number}.png' for number in range(16)],
                         'label_group': [number // 2 for number in range(16)],
                         'fold': [number // 2 % 2 for number in range(16)]}), folder


def loaders(pictures, store=None, resize=None, **kwargs):
    df, folder = pictures
    seed_everything(0)
    options = dict(title_col=None, fold_col='fold', bs=8, num_workers=0, phash=False)
    return MatchDataLoaders.from_df(df, folder, item_tfms=Resize(32) if resize is None else resize,
                                    store=store, **{**options, **kwargs})


def epochs(loader, n=2): return [torch.cat([batch[0] for batch in loader]).clone() for _ in range(n)]


RESIZES = [Resize(32), Resize((24, 40)), Resize(32, 'squish'), Resize(32, 'pad'),
           Resize(70, resamples=(3, 0))]


@pytest.mark.parametrize('resize', RESIZES, ids=lambda resize: f'{resize.method} {tuple(resize.size)}')
def test_validation_reads_exactly_what_resize_makes(pictures, resize, tmp_path):
    store = PictureStore(tmp_path)
    plain, stored = loaders(pictures, None, resize), loaders(pictures, store, resize)
    [expected] = epochs(plain.valid, 1)
    [first] = epochs(stored.valid, 1)
    n_stored = len(store)
    for epoch in (first, *epochs(stored.valid)): assert torch.equal(epoch, expected)
    assert len(store) == n_stored >= len(plain.valid_df)
    # another process, and other loaders of the same folder
    assert torch.equal(epochs(loaders(pictures, str(tmp_path), resize).valid, 1)[0], expected)
    assert torch.equal(epochs(stored.test_dl(stored.valid_df), 1)[0], expected)


def test_training_with_squish_is_the_same_and_decodes_once(pictures, tmp_path, monkeypatch):
    import fastmatch.data.stored as stored_module
    tfms = augs('colour')
    plain = loaders(pictures, None, Resize(32, 'squish'), batch_tfms=tfms)
    expected = epochs(plain.train)
    stored = loaders(pictures, tmp_path, Resize(32, 'squish'), batch_tfms=tfms)
    for epoch, wanted in zip(epochs(stored.train), expected): assert torch.equal(epoch, wanted)
    assert not torch.equal(*expected), 'flips and colors are drawn anew'
    monkeypatch.setattr(stored_module, 'read_image', None)
    again = loaders(pictures, tmp_path, Resize(32, 'squish'), batch_tfms=tfms)
    for epoch, wanted in zip(epochs(again.train), expected): assert torch.equal(epoch, wanted)


@pytest.mark.parametrize('method', ['crop', 'pad'])
def test_training_takes_its_place_at_random_of_the_whole_picture(pictures, method, tmp_path):
    df, folder = pictures
    # a vertical picture: a crop takes a place of its height, a border leaves a place of the width
    shades = np.linspace(0, 255, 90).astype(np.uint8)[:, None] if method == 'crop' else np.arange(0, 231, 7)
    gradient = np.broadcast_to(np.uint8(shades), (90, 33))
    for number in range(16): Image.fromarray(gradient).save(tmp_path/f'{number}.png')
    store = PictureStore(tmp_path/'store')
    def places(store):
        loader = loaders((df, tmp_path), store, Resize(33, method), valid_fold=None).train
        return torch.cat(epochs(loader, 12))[:, 0, 0, 16]
    stored, plain = places(store), places(None)
    assert len(stored.unique()) > 10
    # the same places as without a store, up to a pixel or two
    assert (stored - plain).abs().max() < (3/90 if method == 'crop' else .16)
    assert len(store) <= 2, 'the same picture under 16 names'


def test_what_is_drawn_does_not_depend_on_what_is_stored(pictures, tmp_path):
    fresh = epochs(loaders(pictures, tmp_path/'a').train)
    again = epochs(loaders(pictures, tmp_path/'a').train)
    by_workers = epochs(loaders(pictures, tmp_path/'b', Resize(32, 'squish'), num_workers=2).train)
    alone = epochs(loaders(pictures, tmp_path/'c', Resize(32, 'squish')).train)
    for one, other in zip(fresh, again): assert torch.equal(one, other)
    for one, other in zip(by_workers, alone): assert torch.equal(one, other)


def test_only_one_resize_can_be_stored(pictures, tmp_path):
    for tfms in (RandomResizedCrop(32), [Resize(64), RandomResizedCrop(32)]):
        with pytest.raises(InputError, match='holds what one Resize makes .*RandomResizedCrop'):
            loaders(pictures, tmp_path, tfms)
    given = Resize(16)
    assert resize_alone([given]) is not given
    with pytest.raises(InputError, match='item_tfms are none'): resize_alone([])
    with pytest.raises(InputError, match='16 pictures take .* give store=PictureStore'):
        loaders(pictures, PictureStore(tmp_path, gigabytes=1e-6))


def test_a_store_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert store_of(True).folder == tmp_path/'fastmatch'/'pictures'
    assert store_of(str(tmp_path/'a')).folder == tmp_path/'a'
    assert store_of(None) is store_of(False) is None


def test_dataloaders_with_a_store_are_pickled(pictures, tmp_path):
    "As an exported learner's: read without a store where its folder isn't."
    import shutil
    stored = loaders(pictures, tmp_path/'store')
    expected = epochs(stored.valid, 1)[0]
    data = pickle.dumps(stored)
    assert torch.equal(epochs(pickle.loads(data).valid, 1)[0], expected)
    shutil.rmtree(tmp_path/'store')
    assert torch.equal(epochs(pickle.loads(data).valid, 1)[0], expected)
    assert not (tmp_path/'store').exists()


def test_frames_from_a_store(pictures, tmp_path):
    "Several pictures of an item, and blank ones where it has none."
    import pandas as pd

    from fastmatch.data.classify import ClassifyDataLoaders
    _, folder = pictures
    df = pd.DataFrame({'posting_id': range(8), 'title': ['a bag', 'shoe'] * 4, 'label': ['bag', 'shoe'] * 4,
                       'image': ['0.png 1.png', '2.png', None, '3.png 1.png'] * 2, 'fold': [0] * 4 + [1] * 4})
    def made(store):
        return ClassifyDataLoaders.from_df(df, folder, fold_col='fold', frames=2, bs=4, num_workers=0,
                                           item_tfms=Resize(24), phash=False, store=store)
    for expected, batch in zip(made(None).valid, made(tmp_path).valid, strict=True):
        assert all(map(torch.equal, expected, batch))
    assert len(PictureStore(tmp_path)) >= 4


def test_a_listings_picture_stays_one(pictures, tmp_path):
    image = loaders(pictures, tmp_path).valid_ds[0][0]
    assert type(image) is ListingImage and image.size == (32, 32)
