"Named augmentation presets as fastai `batch_tfms`, for images down to 32 px; and changes of titles."
import random
from functools import partial

import numpy as np
import torch
from fastai.vision.augment import RandTransform, aug_transforms
from fastai.vision.core import TensorImage
from PIL import Image

from ..core import InputError
from .serialise import without_fields, without_span
from .title import Title


def _keep_a_bit(level, hparams, level_fn):
    "timm's number of bits that Posterize keeps, but at least one."
    return (max(1, level_fn(level, hparams)[0]),)


class RandAugment(RandTransform):
    "timm's RandAugment on each image of a batch, https://arxiv.org/abs/1909.13719"
    split_idx, order = 0, 5  # training only, and before IntToFloat: timm works on 8-bit images

    def __init__(
        self,
        magnitude: int = 7,  # Strength, a whole number from 0 to 10
        num_layers: int = 2,  # Operations on each image
        p: float = 1.,  # Share of the batches that are augmented
    ):
        super().__init__(p=p)
        # timm drops decimals, or fails with a message that doesn't name the option
        if magnitude != int(magnitude) or not 0 <= magnitude <= 10:
            raise InputError(f'magnitude={magnitude}: a whole number, 0 to 10')
        from timm.data.auto_augment import rand_augment_transform
        # white fill: the background of listings is white far more often than timm's gray
        config = f'rand-m{int(magnitude)}-n{num_layers}-mstd0.5'
        self.tfm = rand_augment_transform(config, dict(img_mean=(255, 255, 255)))
        # at low strengths timm keeps no bit of a pixel, which Pillow refuses
        for operation in self.tfm.ops:
            if operation.name.startswith('Posterize'):
                operation.level_fn = partial(_keep_a_bit, level_fn=operation.level_fn)

    def encodes(self, x: TensorImage):
        images = [Image.fromarray(image.permute(1, 2, 0).cpu().numpy()) for image in x]
        augmented = np.stack([np.asarray(self.tfm(image)) for image in images])
        return TensorImage(torch.from_numpy(augmented).permute(0, 3, 1, 2).to(x.device))


class Colour(RandTransform):
    "Turn the hue and scale the saturation of each image of a batch, by one 3x3 matrix for each image."
    split_idx, order = 0, 90  # training only; before Normalize, on values 0..1

    # fastai's Hue and Saturation go through HSV: on a CPU they take longer than the training step they feed
    to_yiq = torch.tensor([[.299, .587, .114], [.596, -.274, -.322], [.211, -.523, .312]])

    def __init__(
        self,
        max_hue: float = .05,  # Largest turn of the hue either way, as a share of the full circle
        max_saturation: float = .3,  # Largest change of the saturation: a factor from 1 - this to 1 + this
        p: float = .75,  # Share of the images that are changed
    ):
        super().__init__(p=1.)
        self.max_hue = max_hue
        self.max_saturation = max_saturation
        self.share = p

    def encodes(self, x: TensorImage):
        n_images = len(x)
        chosen = (torch.rand(n_images) < self.share).float()
        angle = chosen * (torch.rand(n_images) * 2 - 1) * self.max_hue * 2 * torch.pi
        saturation = 1 + chosen * (torch.rand(n_images) * 2 - 1) * self.max_saturation
        # in YIQ the first coordinate is luma, which is kept; the others' angle is the hue, their length
        # the saturation
        yiq_matrix = torch.zeros(n_images, 3, 3)
        yiq_matrix[:, 0, 0] = 1
        yiq_matrix[:, 1, 1] = yiq_matrix[:, 2, 2] = saturation * angle.cos()
        yiq_matrix[:, 1, 2] = -saturation * angle.sin()
        yiq_matrix[:, 2, 1] = saturation * angle.sin()
        rgb_matrix = (torch.linalg.inv(self.to_yiq) @ yiq_matrix @ self.to_yiq).to(x.device, x.dtype)
        recolored = torch.einsum('nij,njhw->nihw', rgb_matrix, x.as_subclass(torch.Tensor))
        return TensorImage(recolored.clamp_(0, 1))


class Erase(RandTransform):
    "timm's random erasing, a gray box of its own on some of the images, https://arxiv.org/abs/1708.04896"
    split_idx, order = 0, 100  # training only, and after Normalize, whose middle is 0

    def __init__(
        self,
        p: float = .3,  # Share of the images that get a box
        max_area: float = .15,  # Largest box, as a share of the image
    ):
        super().__init__(p=1.)
        from timm.data.random_erasing import RandomErasing
        # fastai's own RandomErasing takes the same box for all images of a batch
        self.tfm = RandomErasing(p, max_area=max_area, mode='const', device='cpu')

    def encodes(self, x: TensorImage):
        erased = x.as_subclass(torch.Tensor).clone()
        self.tfm.device = erased.device
        return TensorImage(self.tfm(erased))


class DropFields(RandTransform):
    """Leave out fields of serialised titles in training, each but the first with probability `p`: shops do
    not fill in every column. Ditto's `drop_col`, https://arxiv.org/abs/2004.00584"""
    split_idx = 0  # training only

    def __init__(
        self,
        p: float = .2,  # Probability of each field
    ):
        super().__init__(p=1.)
        if not 0 <= p <= 1: raise InputError(f'p={p}: give a probability, 0 to 1')
        self.share = p

    # fastai seeds `random` in each of its processes
    def encodes(self, x: Title): return Title(without_fields(x, self.share, random))


class DropSpan(RandTransform):
    """Leave out some words in a row of a title in training; one of the field always stays. Ditto's `del`,
    https://arxiv.org/abs/2004.00584"""
    split_idx = 0  # training only

    def __init__(
        self,
        p: float = .5,  # Share of the titles that lose a span
        most: int = 3,  # Words of the longest span
    ):
        if not 0 <= p <= 1: raise InputError(f'p={p}: give a probability, 0 to 1')
        if most < 1: raise InputError(f'most={most}: give 1 or more')
        super().__init__(p=p)
        self.most = most

    def encodes(self, x: Title): return Title(without_span(x, self.most, random))


class TextChanges:
    "The same changes for a text and a generator of random numbers, as `CrossEncoder.fit(augment=...)` takes."
    def __init__(
        self,
        fields: float = .2,  # Probability of each field but the first to be left out
        span: float = .5,  # Share of the texts that lose a span
        most: int = 3,  # Words of the longest span
    ):
        for option, value in (('fields', fields), ('span', span)):
            if not 0 <= value <= 1: raise InputError(f'{option}={value}: give a probability, 0 to 1')
        if most < 1: raise InputError(f'most={most}: give 1 or more')
        self.fields = fields
        self.span = span
        self.most = most

    def __call__(self, text, rng):
        changed = without_fields(text, self.fields, rng)
        return without_span(changed, self.most, rng) if rng.random() < self.span else changed


def _geometry(max_zoom, max_rotate=0., max_warp=0., max_lighting=0., xtra_tfms=None):
    "fastai's flips, zooms, rotations, warps and lighting, drawn anew for each image."
    # a zoom into a random place is a random crop; fastai's RandomResizedCropGPU crops a whole batch alike
    return aug_transforms(max_zoom=max_zoom, max_rotate=max_rotate, max_warp=max_warp,
                          max_lighting=max_lighting, p_affine=.9, xtra_tfms=xtra_tfms)


PRESETS = {
    'none': lambda: [],
    'flip': lambda: _geometry(1.),
    'light': lambda: _geometry(1.3, max_lighting=.2),
    'colour': lambda: _geometry(1.3, max_lighting=.3, xtra_tfms=[Colour(.05, .3)]),
    'recolour': lambda: _geometry(1.3, max_lighting=.3, xtra_tfms=[Colour(.5, .8, p=.9)]),
    'strong': lambda: _geometry(1.5, 15., .1, .4, [Colour(.1, .5), Erase(.3)]),
    'randaugment': lambda: [RandAugment(), *_geometry(1.3, xtra_tfms=[Erase(.25)])]}


def list_augs() -> list[str]:
    "Names of the augmentation presets."
    return list(PRESETS)


def augs(
    name: str = 'colour',  # 'none', 'flip', 'light', 'colour', 'recolour', 'strong' or 'randaugment'
) -> list:  # For `batch_tfms`
    """The augmentation preset `name`, for images of any size.

    'light' is flips, zooms and lighting; 'colour' also turns the color a little, 'recolour' to any other, for
    goods that come in every color; 'strong' adds rotation, warp and erased boxes; 'randaugment' is timm's.
    """
    if name not in PRESETS: raise InputError(f'aug={name!r}: choose one of {", ".join(PRESETS)}')
    return list(PRESETS[name]())


__all__ = ['Colour', 'DropFields', 'DropSpan', 'Erase', 'RandAugment', 'TextChanges', 'augs', 'list_augs']
