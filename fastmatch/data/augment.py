"Named augmentation presets as fastai `batch_tfms`, for images down to 32 px."
from functools import partial

import numpy as np
import torch
from fastai.vision.augment import RandTransform, aug_transforms
from fastai.vision.core import TensorImage
from PIL import Image

from ..core import InputError


def _at_least_a_bit(level, hparams, level_fn): return (max(1, level_fn(level, hparams)[0]),)


class RandAugment(RandTransform):
    "timm's RandAugment on each image of a batch, https://arxiv.org/abs/1909.13719"
    split_idx, order = 0, 5  # training only, and before IntToFloat: timm draws on 8-bit images

    def __init__(
        self,
        magnitude: int = 7,  # Strength, 0 to 10: a whole number
        num_layers: int = 2,  # Operations an image
        p: float = 1.,  # Share of batches that get it
    ):
        super().__init__(p=p)
        # timm would cut off the decimals, or fail on them without a word about the option
        if magnitude != int(magnitude) or not 0 <= magnitude <= 10: raise InputError(f'magnitude={magnitude}: a whole number, 0 to 10')
        from timm.data.auto_augment import rand_augment_transform
        # white fill: listings stand on white far more often than on timm's grey
        self.tfm = rand_augment_transform(f'rand-m{int(magnitude)}-n{num_layers}-mstd0.5', dict(img_mean=(255, 255, 255)))
        # at low strengths timm keeps no bit of a pixel, which Pillow refuses
        for o in self.tfm.ops:
            if o.name.startswith('Posterize'): o.level_fn = partial(_at_least_a_bit, level_fn=o.level_fn)

    def encodes(self, x: TensorImage):
        out = [np.asarray(self.tfm(Image.fromarray(o.permute(1, 2, 0).cpu().numpy()))) for o in x]
        return TensorImage(torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).to(x.device))


class Colour(RandTransform):
    "Turn the hue and scale the saturation of each image of a batch, by one 3x3 matrix an image."
    split_idx, order = 0, 90  # training only; before Normalize, on values 0..1

    # fastai's Hue and Saturation go through HSV: on a CPU they take longer than the training step they feed
    to_yiq = torch.tensor([[.299, .587, .114], [.596, -.274, -.322], [.211, -.523, .312]])

    def __init__(
        self,
        max_hue: float = .05,  # Largest turn, as a share of the full circle
        max_saturation: float = .3,  # Largest change of the saturation, as a factor 1 +- this
        p: float = .75,  # Share of the images that get it
    ):
        super().__init__(p=1.)
        self.max_hue, self.max_saturation, self.share = max_hue, max_saturation, p

    def encodes(self, x: TensorImage):
        n = len(x)
        on = (torch.rand(n) < self.share).float()
        angle = on * (torch.rand(n) * 2 - 1) * self.max_hue * 2 * torch.pi
        sat = 1 + on * (torch.rand(n) * 2 - 1) * self.max_saturation
        turn = torch.zeros(n, 3, 3)
        turn[:, 0, 0] = 1
        turn[:, 1, 1] = turn[:, 2, 2] = sat * angle.cos()
        turn[:, 1, 2], turn[:, 2, 1] = -sat * angle.sin(), sat * angle.sin()
        m = (torch.linalg.inv(self.to_yiq) @ turn @ self.to_yiq).to(x.device, x.dtype)
        return TensorImage(torch.einsum('nij,njhw->nihw', m, x.as_subclass(torch.Tensor)).clamp_(0, 1))


class Erase(RandTransform):
    "timm's random erasing: a grey box on some images of a batch, another on each, https://arxiv.org/abs/1708.04896"
    split_idx, order = 0, 100  # training only, and after Normalize, whose middle is 0

    def __init__(
        self,
        p: float = .3,  # Share of the images that get it
        max_area: float = .15,  # Largest box, as a share of the image
    ):
        super().__init__(p=1.)
        from timm.data.random_erasing import RandomErasing
        # fastai's own erases one box in all images of a batch alike
        self.tfm = RandomErasing(p, max_area=max_area, mode='const', device='cpu')

    def encodes(self, x: TensorImage):
        out = x.as_subclass(torch.Tensor).clone()
        self.tfm.device = out.device
        return TensorImage(self.tfm(out))


def _geometry(max_zoom, max_rotate=0., max_warp=0., max_lighting=0., xtra_tfms=None):
    # a zoom into a random place is a crop-resize drawn anew for each image; fastai's RandomResizedCropGPU cuts a whole batch alike
    return aug_transforms(max_zoom=max_zoom, max_rotate=max_rotate, max_warp=max_warp, max_lighting=max_lighting, p_affine=.9,
                          xtra_tfms=xtra_tfms)


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
    name: str = 'colour',  # 'none', 'flip', 'light', 'colour', 'recolour' (colour tells nothing), 'strong', 'randaugment'
) -> list:  # For `batch_tfms`
    "The augmentation preset `name`: flips, crop-resize, lighting, colour, erasing, RandAugment; for images of any size."
    if name not in PRESETS: raise InputError(f'aug={name!r}: choose one of {", ".join(PRESETS)}')
    return list(PRESETS[name]())


__all__ = ['Colour', 'Erase', 'RandAugment', 'augs', 'list_augs']
