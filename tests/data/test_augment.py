"Presets: what they may change, what they must not, and the colour turn against a computation pixel by pixel."
import colorsys
import pickle
import random

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.data.transforms import IntToFloatTensor
from fastai.vision.augment import Resize
from fastai.vision.core import TensorImage
from fasttransform import Pipeline
from PIL import Image

from fastmatch.core import InputError, seed_everything
from fastmatch.data.augment import Colour, Erase, RandAugment, augs, list_augs
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.data.image import read_image

CHANGES = [name for name in list_augs() if name != 'none']


@pytest.fixture(scope='module')
def photos():
    "Sixteen pictures of the sample, uint8 (16,3,64,64)."
    files = sorted((demo_path()/'images').glob('*.png'))[::130][:16]
    return torch.stack([torch.tensor(np.asarray(read_image(file))).permute(2, 0, 1) for file in files])


@pytest.fixture(scope='module')
def listings():
    sample = pd.read_csv(demo_path()/'listings.csv')
    groups_of_folds = sample.groupby('fold').label_group
    is_first = groups_of_folds.transform(lambda groups: groups.isin(sorted(groups.unique())[:3]))
    return sample[is_first].reset_index(drop=True)


def sized(photos, size):
    images = [Image.fromarray(photo.permute(1, 2, 0).numpy()).resize((size, size)) for photo in photos]
    return torch.stack([torch.tensor(np.asarray(image)).permute(2, 0, 1) for image in images])


def apply(transforms, images, split_idx=0, seed=0, erase=False):
    "A uint8 batch through a preset as a DataLoader does it, by default up to where Normalize would come."
    seed_everything(seed)
    transforms = [transform for transform in transforms if erase or not isinstance(transform, Erase)]
    return Pipeline([IntToFloatTensor(), *transforms], split_idx=split_idx)(TensorImage(images.clone()))


@pytest.mark.parametrize('size', [32, 64, 224])
@pytest.mark.parametrize('name', list_augs())
def test_shape_type_and_range_stay(photos, name, size):
    images = sized(photos[:4], size)
    for seed in range(3):
        augmented = apply(augs(name), images, seed=seed)
        assert type(augmented) is TensorImage and augmented.shape == images.shape
        assert augmented.dtype == torch.float32
        assert torch.isfinite(augmented).all() and augmented.min() >= -1e-5 and augmented.max() <= 1 + 1e-5
        assert augmented.std() > .05


@pytest.mark.parametrize('name', CHANGES)
def test_training_batches_change_and_seeds_repeat(photos, name):
    first, again, other_seed = (apply(augs(name), photos, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other_seed)
    assert (first - photos / 255).abs().mean() > .01
    assert len({float(change) for change in (first - photos / 255).abs().mean((1, 2, 3))}) > 2, (
        'each image is drawn anew'
    )


def test_none_is_none(photos):
    assert augs('none') == [] and torch.equal(apply([], photos), TensorImage(photos / 255))


@pytest.mark.parametrize('name', CHANGES)
def test_validation_is_left_alone(photos, name):
    # fastai resamples on an unmoved grid: rounding, far below a step of 1/255
    torch.testing.assert_close(
        apply(augs(name), photos, split_idx=1, erase=True), TensorImage(photos / 255), atol=2e-5, rtol=0
    )


@pytest.mark.parametrize('name', CHANGES)
def test_through_the_dataloaders(listings, name):
    """Normalised as in training: validation untouched, training changed, and erased patches come last, as
    noise."""
    from fastai.data.transforms import Normalize

    def loaders_with(presets):
        seed_everything(0)
        return MatchDataLoaders.from_df(
            listings,
            demo_path() / 'images',
            text_col=None,
            fold_col='fold',
            num_workers=0,
            bs=16,
            item_tfms=Resize(32),
            phash=False,
            batch_tfms=[*presets, Normalize.from_stats([0.5] * 3, [0.5] * 3, cuda=False)],
        )
    loaders, plain_loaders = loaders_with(augs(name)), loaders_with([])
    valid_images, plain_images = (made.valid.one_batch()[0] for made in (loaders, plain_loaders))
    torch.testing.assert_close(valid_images, plain_images, atol=4e-5, rtol=0)
    augmented, unchanged = loaders.train.one_batch(), plain_loaders.train.one_batch()
    assert torch.equal(augmented[1], unchanged[1]) and (augmented[0] - unchanged[0]).abs().mean() > .01
    kinds = [type(transform).__name__ for transform in loaders.after_batch.fs]
    assert 'Erase' not in kinds or kinds.index('Erase') > kinds.index('Normalize')
    assert 'RandAugment' not in kinds or kinds.index('RandAugment') < kinds.index('IntToFloatTensor')
    assert 'Colour' not in kinds or kinds.index('Colour') < kinds.index('Normalize')


def naive_turn(image, angle, saturation):
    "Hue turned and saturation scaled pixel by pixel in YIQ, float64."
    def yiq(red, green, blue):
        luma = .299*red + .587*green + .114*blue
        chroma_i = .596*red - .274*green - .322*blue
        chroma_q = .211*red - .523*green + .312*blue
        return luma, chroma_i, chroma_q
    to_rgb = np.linalg.inv(np.array([yiq(*unit) for unit in np.eye(3)]).T)
    turned = np.empty(image.shape)
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            luma, chroma_i, chroma_q = yiq(*image[:, row, column])
            chroma = complex(chroma_i, chroma_q) * saturation * np.exp(1j * angle)
            turned[:, row, column] = to_rgb @ [luma, chroma.real, chroma.imag]
    return turned.clip(0, 1)


@pytest.mark.parametrize(
    'max_hue, max_saturation, share',
    [(0.05, 0.3, 1.0), (0.5, 0.8, 1.0), (0.5, 0.0, 1.0), (0.0, 0.8, 1.0), (0.5, 0.8, 0.5)],
)
def test_colour_equals_a_pixelwise_turn(max_hue, max_saturation, share):
    images = torch.rand(12, 3, 5, 4, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(3)
    turned = Colour(max_hue, max_saturation, share).encodes(TensorImage(images.clone()))
    torch.manual_seed(3)
    chosen, angle, scale = (torch.rand(12).double() for _ in range(3))
    chosen = (chosen < share).double()
    assert share == 1 or 0 < chosen.sum() < 12
    for index in range(12):
        turn, factor = (
            float(chosen[index] * (angle[index] * 2 - 1) * max_hue * 2 * np.pi),
            float(1 + chosen[index] * (scale[index] * 2 - 1) * max_saturation),
        )
        expected = naive_turn(images[index].double().numpy(), turn, factor)
        np.testing.assert_allclose(turned[index], expected, atol=3e-6)
        if not chosen[index]: np.testing.assert_allclose(turned[index], images[index], atol=2e-6)


def test_colour_of_no_strength_changes_nothing(photos):
    images = TensorImage(photos / 255)
    for no_change in (Colour(0., 0., 1.), Colour(.5, .8, 0.)):
        torch.testing.assert_close(no_change(images, split_idx=0), images, atol=2e-6, rtol=0)
    assert torch.equal(Colour(.5, .8, 1.)(images, split_idx=1), images), 'nor does it in validation'
    assert (Colour(.5, .8, 1.)(images, split_idx=0) - images).abs().max() > .1


def test_grey_stays_grey_and_luma_stays():
    grey = torch.rand(8, 1, 6, 6).expand(-1, 3, -1, -1).contiguous()
    # the textbook's three digits of YIQ leave grey a thousandth of chroma at most
    torch.testing.assert_close(
        Colour(0.5, 0.8, 1.0)(TensorImage(grey), split_idx=0), TensorImage(grey), atol=2e-3, rtol=0
    )
    muted = .5 + .05 * torch.rand(8, 3, 6, 6)  # far from the walls: nothing is clipped
    luma = torch.tensor([.299, .587, .114])[:, None, None]
    turned = Colour(.5, .8, 1.).encodes(TensorImage(muted)).as_subclass(torch.Tensor)
    assert (turned - muted).abs().max() > .01
    torch.testing.assert_close((turned * luma).sum(1), (muted * luma).sum(1), atol=1e-5, rtol=0)


def hue_of(image): return colorsys.rgb_to_hsv(*image.mean((1, 2)).tolist())[0]


def test_recolour_turns_the_hue_and_colour_hardly_does():
    """A dull red (so that nothing is clipped) ends all around the circle under 'recolour', and stays red
    under 'colour'."""
    reds = (torch.tensor([.6, .4, .4])[None, :, None, None].expand(200, 3, 32, 32) * 255).to(torch.uint8)
    hues_by_preset = {
        preset: np.array([hue_of(image) for image in apply(augs(preset), reds)])
        for preset in ('recolour', 'colour', 'light')
    }
    away = {preset: np.minimum(hues, 1 - hues) for preset, hues in hues_by_preset.items()}
    assert away['light'].max() < .02 and away['colour'].max() < .12 and .01 < away['colour'].mean()
    assert (away['recolour'] > .2).mean() > .35
    assert np.histogram(hues_by_preset['recolour'], 6, (0, 1))[0].min() > 10


def test_share_and_strength_of_colour():
    images = torch.tensor([.6, .4, .4])[None, :, None, None].expand(2000, 3, 2, 2)
    torch.manual_seed(0)
    changed = (
        ((Colour(0.5, 0.8, 0.6)(TensorImage(images), split_idx=0) - images).abs().amax((1, 2, 3)) > 1e-4)
        .float()
        .mean()
    )
    assert abs(changed - .6) < .04


def test_flip_only_mirrors(photos):
    flipped, images = apply(augs('flip'), photos), photos / 255
    same, mirrored = ((flipped - other).abs().amax((1, 2, 3)) < 2e-3 for other in (images, images.flip(-1)))
    assert (same | mirrored).all() and 0 < mirrored.sum() < 16


def test_randaugment_works_on_bytes(photos):
    seed_everything(0)
    randaugment = RandAugment()
    augmented = randaugment(TensorImage(photos), split_idx=0)
    assert type(augmented) is TensorImage and augmented.dtype == torch.uint8
    assert augmented.shape == photos.shape
    assert ((augmented != photos).float().mean((1, 2, 3)) > .01).float().mean() > .5
    for transform, split_idx in ((randaugment, 1), (RandAugment(p=0.), 0)):
        assert torch.equal(transform(TensorImage(photos), split_idx=split_idx), photos)


def test_randaugment_at_every_strength(photos):
    """Posterize at low strengths asks for no bits at all, which Pillow refuses: it must be drawn here, and
    pass."""
    images = TensorImage(photos.repeat(4, 1, 1, 1))
    for magnitude in (0, 1, 4, 10):
        randaugment = RandAugment(magnitude, 4)
        augmented = randaugment(images, split_idx=0)
        assert augmented.shape == images.shape and augmented.float().std() > 20
    posterize = next(operation for operation in RandAugment(1).tfm.ops if operation.name == 'Posterize')
    posterize.prob = 1.
    assert len(np.unique(np.asarray(posterize(Image.fromarray(photos[0].permute(1, 2, 0).numpy()))))) == 2
    pickle.loads(pickle.dumps(RandAugment(7)))


@pytest.mark.parametrize('magnitude', [7.5, -1, 11])
def test_a_wrong_magnitude_is_named(magnitude):
    with pytest.raises(InputError, match=f'magnitude={magnitude}'): RandAugment(magnitude)


def test_what_moves_in_is_white():
    "RandAugment's shears and shifts fill with white, what shops stand their goods on."
    seed_everything(0)
    white_images = torch.full((300, 3, 32, 32), 255, dtype=torch.uint8)
    geometric = [
        operation
        for operation in RandAugment(10).tfm.ops
        if any(kind in operation.name for kind in ('Shear', 'Translate', 'Rotate'))
    ]
    assert len(geometric) >= 4
    image = Image.fromarray(white_images[0].permute(1, 2, 0).numpy())
    for operation in geometric:
        operation.prob = 1.
        assert (np.asarray(operation(image)) == 255).all(), operation.name


def test_an_unknown_preset_is_named_with_the_list():
    words = "aug='colors': choose one of none, flip, light, colour, recolour, strong, randaugment"
    with pytest.raises(InputError, match=words): augs('colors')
    assert list_augs() == ['none', 'flip', 'light', 'colour', 'recolour', 'strong', 'randaugment']
    first, second = augs('colour'), augs('colour')
    assert first is not second
    shared = {id(transform) for transform in first} & {id(transform) for transform in second}
    assert not shared, 'transforms hold state: two loaders must not share one'


def test_erase_draws_a_box_for_each_image():
    "Boxes differ within a batch, about a share `p` of images has one, and none is larger than asked."
    random.seed(0)
    images = TensorImage(torch.rand(400, 3, 32, 32) + .5)
    erased = Erase(p=.4, max_area=.15)(images, split_idx=0)
    removed = (erased == 0).all(1)
    area = removed.float().mean((1, 2))
    assert .3 < (area > 0).float().mean() < .5 and area.max() < .2
    assert len({tuple(box.flatten().tolist()) for box in removed[area > 0]}) > 100
    assert torch.equal(
        erased.as_subclass(torch.Tensor)[~removed[:, None].expand(-1, 3, -1, -1)],
        images.as_subclass(torch.Tensor)[~removed[:, None].expand(-1, 3, -1, -1)],
    )
    assert (images > 0).all(), 'the batch handed in is left alone'
