"A matcher resizes pictures as the Learner's dataloaders do in validation, pixel by pixel."
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.augment import (
    Flip,
    RandomResizedCrop,
    RandomResizedCropGPU,
    Resize,
    ResizeMethod,
    aug_transforms,
)
from PIL import Image

from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.data.image import read_image
from fastmatch.jobs.describe import describe_matcher
from fastmatch.learner import match_learner
from fastmatch.learner.matcher import picture_of
from fastmatch.match import Rule
from fastmatch.matcher import load_matcher
from fastmatch.matcher.encode import Picture


@pytest.fixture(scope='module')
def listings():
    sample = pd.read_csv(demo_path()/'listings.csv')
    return sample[sample.fold < 2].groupby('label_group').head(2).head(24).reset_index(drop=True)


@pytest.fixture(scope='module')
def folder(listings, tmp_path_factory):
    "The pictures in other proportions, each its own."
    folder = tmp_path_factory.mktemp('pictures')
    for row, file in enumerate(listings.image):
        image = Image.open(demo_path()/'images'/file).resize((60 + 7 * (row % 5), 90 - 9 * (row % 4)))
        image.save(folder/file)
    return folder


def loaders(listings, folder, item_tfms, batch_tfms):
    return MatchDataLoaders.from_df(listings, folder, text_col=None, fold_col='fold', phash=False,
                                    num_workers=0, bs=8, item_tfms=item_tfms, batch_tfms=batch_tfms)


SMALL = dict(size=32, mode='nearest', pad_mode='zeros', align_corners=False)


@pytest.mark.parametrize('item_tfms, batch_tfms, sizes', [
    (Resize(64), lambda: aug_transforms(size=48), [(64, 64), (48, 48)]),
    (Resize(64), lambda: aug_transforms(), [(64, 64), (64, 64)]),
    (Resize((40, 56)), lambda: aug_transforms(size=(24, 32)), [(56, 40), (32, 24)]),
    (Resize(64, ResizeMethod.Pad), lambda: aug_transforms(size=20), [(64, 64), (20, 20)]),
    (Resize(64), lambda: aug_transforms(size=(60, 20)), [(64, 64), (20, 60)]),
    (Resize(40), lambda: aug_transforms(size=64, align_corners=False), [(40, 40), (64, 64)]),
    (Resize(64), lambda: aug_transforms(**SMALL), [(64, 64), (32, 32)]),
    (Resize(64), lambda: [Flip(size=48)], [(64, 64), (48, 48)]),
    (Resize(64), lambda: aug_transforms(size=48, min_scale=.5), [(64, 64), (48, 48)]),
    (Resize((48, 80)), lambda: [RandomResizedCropGPU(32, valid_scale=.8)], [(80, 48), (32, 32)]),
    (RandomResizedCrop(48, min_scale=.35), lambda: aug_transforms(), [(56, 56), (48, 48)]),
    (RandomResizedCrop((32, 48), val_xtra=0.), lambda: [], [(48, 32), (48, 32)]),
    (RandomResizedCrop(64), lambda: aug_transforms(size=40), [(80, 80), (40, 40)])])
def test_pixels_are_those_of_the_dataloaders(listings, folder, item_tfms, batch_tfms, sizes):
    dls = loaders(listings, folder, item_tfms, batch_tfms())
    state = torch.get_rng_state()
    picture = picture_of(dls)
    assert torch.equal(torch.get_rng_state(), state)
    assert [picture.size, picture.input_size] == sizes
    expected = dls.test_dl(listings, bs=len(listings)).one_batch()[0].cpu().as_subclass(torch.Tensor)
    resized = np.stack([picture(read_image(folder/file)) for file in listings.image])
    again = Picture(**picture.spec())
    for each in (picture, again):
        torch.testing.assert_close(each.normalize(torch.from_numpy(resized)), expected, atol=1e-5, rtol=0)
    assert ('batch_resizes' in picture.spec()) == (sizes[0] != sizes[1])


def test_a_presized_learner_gives_a_matcher(listings, folder, tmp_path):
    learner = match_learner(loaders(listings, folder, Resize(64), aug_transforms(size=48)), 'test_resnet',
                            pretrained=False)
    learner.matcher(rule=Rule('mean', {'image': 1.}, .9)).save(tmp_path/'matcher')
    assert 'pictures: 64x64, then 48x48' in describe_matcher(tmp_path/'matcher')
    embedded, _ = load_matcher(tmp_path/'matcher').embed(learner.dls.valid_df, folder)
    own = learner.embeddings()
    np.testing.assert_allclose(embedded['image'], own['image'], atol=1e-5)
    assert own.made_with == embedded.made_with == {'tta': False, 'size': [48, 48], 'presize': [64, 64]}
