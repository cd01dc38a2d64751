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
    return torch.stack([torch.tensor(np.asarray(read_image(f))).permute(2, 0, 1) for f in files])


@pytest.fixture(scope='module')
def listings():
    df = pd.read_csv(demo_path()/'listings.csv')
    few = df.groupby('fold').label_group.transform(lambda groups: groups.isin(sorted(groups.unique())[:3]))
    return df[few].reset_index(drop=True)


def sized(photos, size):
    images = [Image.fromarray(photo.permute(1, 2, 0).numpy()).resize((size, size)) for photo in photos]
    return torch.stack([torch.tensor(np.asarray(image)).permute(2, 0, 1) for image in images])


def apply(tfms, x, split_idx=0, seed=0, erase=False):
    "A uint8 batch through a preset as a DataLoader does it, by default up to where Normalize would come."
    seed_everything(seed)
    tfms = [tfm for tfm in tfms if erase or not isinstance(tfm, Erase)]
    return Pipeline([IntToFloatTensor(), *tfms], split_idx=split_idx)(TensorImage(x.clone()))


@pytest.mark.parametrize('size', [32, 64, 224])
@pytest.mark.parametrize('name', list_augs())
def test_shape_type_and_range_stay(photos, name, size):
    x = sized(photos[:4], size)
    for seed in range(3):
        out = apply(augs(name), x, seed=seed)
        assert type(out) is TensorImage and out.shape == x.shape and out.dtype == torch.float32
        assert torch.isfinite(out).all() and out.min() >= -1e-5 and out.max() <= 1 + 1e-5 and out.std() > .05


@pytest.mark.parametrize('name', CHANGES)
def test_training_batches_change_and_seeds_repeat(photos, name):
    a, b, c = (apply(augs(name), photos, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c) and (a - photos / 255).abs().mean() > .01
    assert len({float(change) for change in (a - photos / 255).abs().mean((1, 2, 3))}) > 2, (
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

    def make(tfms):
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
            batch_tfms=[*tfms, Normalize.from_stats([0.5] * 3, [0.5] * 3, cuda=False)],
        )
    dls, plain = make(augs(name)), make([])
    torch.testing.assert_close(dls.valid.one_batch()[0], plain.valid.one_batch()[0], atol=4e-5, rtol=0)
    a, b = dls.train.one_batch(), plain.train.one_batch()
    assert torch.equal(a[1], b[1]) and (a[0] - b[0]).abs().mean() > .01
    kinds = [type(tfm).__name__ for tfm in dls.after_batch.fs]
    assert 'Erase' not in kinds or kinds.index('Erase') > kinds.index('Normalize')
    assert 'RandAugment' not in kinds or kinds.index('RandAugment') < kinds.index('IntToFloatTensor')
    assert 'Colour' not in kinds or kinds.index('Colour') < kinds.index('Normalize')


def naive_turn(x, angle, sat):
    "Hue turned and saturation scaled pixel by pixel in YIQ, float64."
    def yiq(r, g, b): return (.299*r + .587*g + .114*b, .596*r - .274*g - .322*b, .211*r - .523*g + .312*b)
    back = np.linalg.inv(np.array([yiq(*unit) for unit in np.eye(3)]).T)
    out = np.empty(x.shape)
    for h in range(x.shape[1]):
        for w in range(x.shape[2]):
            y, i, q = yiq(*x[:, h, w])
            chroma = complex(i, q) * sat * np.exp(1j * angle)
            out[:, h, w] = back @ [y, chroma.real, chroma.imag]
    return out.clip(0, 1)


@pytest.mark.parametrize(
    'hue, sat, p', [(0.05, 0.3, 1.0), (0.5, 0.8, 1.0), (0.5, 0.0, 1.0), (0.0, 0.8, 1.0), (0.5, 0.8, 0.5)]
)
def test_colour_equals_a_pixelwise_turn(hue, sat, p):
    x = torch.rand(12, 3, 5, 4, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(3)
    out = Colour(hue, sat, p).encodes(TensorImage(x.clone()))
    torch.manual_seed(3)
    on, angle, scale = (torch.rand(12).double() for _ in range(3))
    on = (on < p).double()
    assert p == 1 or 0 < on.sum() < 12
    for i in range(12):
        turn, factor = (
            float(on[i] * (angle[i] * 2 - 1) * hue * 2 * np.pi),
            float(1 + on[i] * (scale[i] * 2 - 1) * sat),
        )
        want = naive_turn(x[i].double().numpy(), turn, factor)
        np.testing.assert_allclose(out[i], want, atol=3e-6)
        if not on[i]: np.testing.assert_allclose(out[i], x[i], atol=2e-6)


def test_colour_of_no_strength_changes_nothing(photos):
    x = TensorImage(photos / 255)
    for tfm in (Colour(0., 0., 1.), Colour(.5, .8, 0.)):
        torch.testing.assert_close(tfm(x, split_idx=0), x, atol=2e-6, rtol=0)
    assert torch.equal(Colour(.5, .8, 1.)(x, split_idx=1), x), 'nor does it in validation'
    assert (Colour(.5, .8, 1.)(x, split_idx=0) - x).abs().max() > .1


def test_grey_stays_grey_and_luma_stays():
    grey = torch.rand(8, 1, 6, 6).expand(-1, 3, -1, -1).contiguous()
    # the textbook's three digits of YIQ leave grey a thousandth of chroma at most
    torch.testing.assert_close(
        Colour(0.5, 0.8, 1.0)(TensorImage(grey), split_idx=0), TensorImage(grey), atol=2e-3, rtol=0
    )
    x = .5 + .05 * torch.rand(8, 3, 6, 6)  # far from the walls: nothing is clipped
    luma = torch.tensor([.299, .587, .114])[:, None, None]
    out = Colour(.5, .8, 1.).encodes(TensorImage(x)).as_subclass(torch.Tensor)
    assert (out - x).abs().max() > .01
    torch.testing.assert_close((out * luma).sum(1), (x * luma).sum(1), atol=1e-5, rtol=0)


def hue_of(x): return colorsys.rgb_to_hsv(*x.mean((1, 2)).tolist())[0]


def test_recolour_turns_the_hue_and_colour_hardly_does():
    """A dull red (so that nothing is clipped) ends all around the circle under 'recolour', and stays red
    under 'colour'."""
    x = (torch.tensor([.6, .4, .4])[None, :, None, None].expand(200, 3, 32, 32) * 255).to(torch.uint8)
    turned = {
        k: np.array([hue_of(image) for image in apply(augs(k), x)]) for k in ('recolour', 'colour', 'light')
    }
    away = {k: np.minimum(v, 1 - v) for k, v in turned.items()}
    assert away['light'].max() < .02 and away['colour'].max() < .12 and .01 < away['colour'].mean()
    assert (away['recolour'] > .2).mean() > .35 and np.histogram(turned['recolour'], 6, (0, 1))[0].min() > 10


def test_share_and_strength_of_colour():
    x = torch.tensor([.6, .4, .4])[None, :, None, None].expand(2000, 3, 2, 2)
    torch.manual_seed(0)
    changed = (
        ((Colour(0.5, 0.8, 0.6)(TensorImage(x), split_idx=0) - x).abs().amax((1, 2, 3)) > 1e-4)
        .float()
        .mean()
    )
    assert abs(changed - .6) < .04


def test_flip_only_mirrors(photos):
    out, x = apply(augs('flip'), photos), photos / 255
    same, mirrored = ((out - other).abs().amax((1, 2, 3)) < 2e-3 for other in (x, x.flip(-1)))
    assert (same | mirrored).all() and 0 < mirrored.sum() < 16


def test_randaugment_works_on_bytes(photos):
    seed_everything(0)
    tfm = RandAugment()
    out = tfm(TensorImage(photos), split_idx=0)
    assert type(out) is TensorImage and out.dtype == torch.uint8 and out.shape == photos.shape
    assert ((out != photos).float().mean((1, 2, 3)) > .01).float().mean() > .5
    for transform, split_idx in ((tfm, 1), (RandAugment(p=0.), 0)):
        assert torch.equal(transform(TensorImage(photos), split_idx=split_idx), photos)


def test_randaugment_at_every_strength(photos):
    """Posterize at low strengths asks for no bits at all, which Pillow refuses: it must be drawn here, and
    pass."""
    many = TensorImage(photos.repeat(4, 1, 1, 1))
    for m in (0, 1, 4, 10):
        tfm = RandAugment(m, 4)
        out = tfm(many, split_idx=0)
        assert out.shape == many.shape and out.float().std() > 20
    op = next(operation for operation in RandAugment(1).tfm.ops if operation.name == 'Posterize')
    op.prob = 1.
    assert len(np.unique(np.asarray(op(Image.fromarray(photos[0].permute(1, 2, 0).numpy()))))) == 2
    pickle.loads(pickle.dumps(RandAugment(7)))


@pytest.mark.parametrize('m', [7.5, -1, 11])
def test_a_wrong_magnitude_is_named(m):
    with pytest.raises(InputError, match=f'magnitude={m}'): RandAugment(m)


def test_what_moves_in_is_white():
    "RandAugment's shears and shifts fill with white, what shops stand their goods on."
    seed_everything(0)
    x = torch.full((300, 3, 32, 32), 255, dtype=torch.uint8)
    geometric = [
        operation
        for operation in RandAugment(10).tfm.ops
        if any(w in operation.name for w in ('Shear', 'Translate', 'Rotate'))
    ]
    assert len(geometric) >= 4
    im = Image.fromarray(x[0].permute(1, 2, 0).numpy())
    for op in geometric:
        op.prob = 1.
        assert (np.asarray(op(im)) == 255).all(), op.name


def test_an_unknown_preset_is_named_with_the_list():
    words = "aug='colors': choose one of none, flip, light, colour, recolour, strong, randaugment"
    with pytest.raises(InputError, match=words): augs('colors')
    assert list_augs() == ['none', 'flip', 'light', 'colour', 'recolour', 'strong', 'randaugment']
    a, b = augs('colour'), augs('colour')
    assert a is not b and not {id(transform) for transform in a} & {id(transform) for transform in b}, (
        'transforms hold state: two loaders must not share one'
    )


def test_erase_draws_a_box_for_each_image():
    "Boxes differ within a batch, about a share `p` of images has one, and none is larger than asked."
    random.seed(0)
    x = TensorImage(torch.rand(400, 3, 32, 32) + .5)
    out = Erase(p=.4, max_area=.15)(x, split_idx=0)
    removed = (out == 0).all(1)
    area = removed.float().mean((1, 2))
    assert .3 < (area > 0).float().mean() < .5 and area.max() < .2
    assert len({tuple(box.flatten().tolist()) for box in removed[area > 0]}) > 100
    assert torch.equal(
        out.as_subclass(torch.Tensor)[~removed[:, None].expand(-1, 3, -1, -1)],
        x.as_subclass(torch.Tensor)[~removed[:, None].expand(-1, 3, -1, -1)],
    )
    assert (x > 0).all(), 'the batch handed in is left alone'
