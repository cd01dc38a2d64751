"MixUp and CutMix for listings: pictures are mixed, titles stay, and the loss has two targets."
import random

import torch
from fastai.callback.mixup import MixHandler

from ..core import InputError


class MixImages(MixHandler):
    "Mixes the batch's pictures by `mix(x, x1)`, which returns them and sets `lam`; the title kept is the larger share's."
    def before_fit(self):
        # the second would mix pictures whose targets are two already
        if others := [o for o in self.learn.cbs if isinstance(o, MixHandler) and o is not self]:
            raise InputError(f'{type(self).__name__} and {type(others[0]).__name__} would both mix the batch: use one of them')

    def before_batch(self):
        x, *rest = self.xb
        if x.ndim != 4: raise InputError(f'{type(self).__name__} mixes pictures: the first input of this batch has shape {tuple(x.shape)}')
        shuffle = torch.randperm(len(x), device=x.device)
        self.yb1 = tuple(o[shuffle] for o in self.yb)
        self.learn.xb = (self.mix(x, x[shuffle]), *rest)

    def mix(self, x, x1):
        "`x` mixed with `x1`; sets `self.lam`, the share of `x`, a half at least."
        raise NotImplementedError


class MixUp(MixImages):
    "Blend each picture with another's, https://arxiv.org/abs/1710.09412"
    def __init__(
        self,
        alpha: float = .4,  # Of the Beta distribution the shares are drawn from
    ):
        super().__init__(alpha)

    def mix(self, x, x1):
        lam = self.distrib.sample((len(x),)).to(x.device)
        self.lam = torch.maximum(lam, 1 - lam)
        return torch.lerp(x1, x, self.lam.to(x.dtype)[:, None, None, None])


class CutMix(MixImages):
    "Paste a box of another picture into each, https://arxiv.org/abs/1905.04899"
    def __init__(
        self,
        alpha: float = 1.,  # Of the Beta distribution the share is drawn from
    ):
        super().__init__(alpha)

    def mix(self, x, x1):
        h, w = x.shape[-2:]
        lam = float(self.distrib.sample())
        # a half at least, so that the picture goes with the title
        side = (1 - max(lam, 1 - lam))**.5
        cy, cx = random.randrange(h), random.randrange(w)
        rows = slice(max(0, int(cy - side * h / 2)), int(cy + side * h / 2))
        cols = slice(max(0, int(cx - side * w / 2)), int(cx + side * w / 2))
        box = torch.zeros(h, w, dtype=torch.bool, device=x.device)
        box[rows, cols] = True
        # the share that was really pasted: a box at the rim is cut off
        self.lam = 1 - box.float().mean()
        return torch.where(box, x1, x)
