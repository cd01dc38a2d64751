"""MixUp and CutMix for listings: pictures are mixed, titles stay, and the loss has two targets."""
import random
from inspect import signature

import torch
from fastai.callback.mixup import MixHandler
from fastai.layers import NoneReduce

from ..core import InputError
from ..losses.base import Loss
from .base import other_callback


def mixed_loss(
    loss,  # A loss of `fastmatch.losses`, or another with a `reduction`
    output,  # Output of the model for mixed rows
    targets: tuple,  # The rows' own targets
    partners: tuple,  # The targets of what was mixed in
    share,  # Share of the own targets: a number or (n,)
):
    """The loss of mixed rows: the losses for both targets of each row by their shares, reduced as the loss
    itself reduces them, so that with a share of 1 it is the plain loss."""
    if isinstance(loss, Loss): return loss(output, *targets, partners=partners, share=share)
    return _part_of_loss(loss, output, targets, share) + _part_of_loss(loss, output, partners, 1 - share)


def _part_of_loss(loss, output, targets, share):
    """The loss of a batch with each row counted by its share. What a mean divides by may be the number of
    rows, the sum of their class weights, or the number of those that are not ignored."""
    with NoneReduce(loss) as by_row: values = torch.as_tensor(by_row(output, *targets))
    # fastai's losses have a value for each label or pixel, in the order of the rows
    shares = torch.as_tensor(share, device=values.device).reshape(-1, 1)
    shared = (shares * values.reshape(len(targets[0]), -1)).reshape(values.shape)
    reduction = getattr(loss, 'reduction', 'mean')
    if reduction != 'mean': return shared.sum() if reduction == 'sum' else shared
    total, mean = values.detach().sum(), loss(output, *targets).detach()
    return shared.sum() / torch.where(mean == 0, torch.full_like(total, values.numel()), total / mean)


class MixImages(MixHandler):
    """Base of `MixUp` and `CutMix`: mixes each picture of a batch with another's.

    The first input must be pictures (n,c,h,w). Of items with several pictures all are mixed with those of the
    same other item, each in its place, by the same share or box. Other inputs, such as titles, stay those of
    the item with the larger share. Subclasses define `mix`. The loss is that of `mixed_loss`: both targets of
    each item count, weighted by `lam`.
    """
    def before_fit(self):
        # the second one would mix pictures that have two targets already
        other_mixer = other_callback(self, MixHandler)
        if other_mixer is None: return
        names = f'{type(self).__name__} and {type(other_mixer).__name__}'
        raise InputError(f'{names} would both mix the batch: use one of them')

    def before_train(self):
        # fastai's mixes the targets themselves where a loss doesn't say `y_int`; classes can't be mixed, and
        # two targets are right for every loss. A fit that broke off has left the mixing loss in its place
        self.stack_y = True
        if self.learn.loss_func != self.lf: self.old_lf = self.learn.loss_func
        by_row = hasattr(self.old_lf, 'reduction') or 'reduction' in signature(self.old_lf).parameters
        if not by_row:
            raise InputError(f'{type(self).__name__} needs the loss of each row: '
                             'give the Learner a loss that has a `reduction`')
        self.learn.loss_func = self.lf

    def lf(self, pred, *yb):
        "The loss of a batch: of a mixed one in training, the plain one in validation."
        if not self.training: return self.old_lf(pred, *yb)
        return mixed_loss(self.old_lf, pred, yb, self.yb1, self.lam)

    def before_batch(self):
        first = self.xb[0]
        if first.ndim != 4:
            raise InputError(f'{type(self).__name__} mixes pictures: '
                             f'the first input of this batch has shape {tuple(first.shape)}')
        partners = torch.randperm(len(first), device=first.device)
        self.yb1 = tuple(target[partners] for target in self.yb)
        pictures = [model_input for model_input in self.xb if model_input.ndim == 4]
        mixed = iter(self._mix_all(pictures, partners))
        self.learn.xb = tuple(next(mixed) if model_input.ndim == 4 else model_input
                              for model_input in self.xb)

    def _mix_all(self, pictures: list, partners) -> list:
        "The pictures of each item mixed with those of its partner, with one share or box for all of an item."
        if len(pictures) == 1: return [self.mix(pictures[0], pictures[0][partners])]
        sizes = {tuple(picture.shape[-2:]) for picture in pictures}
        if len(sizes) > 1:
            raise InputError(f'{type(self).__name__}: the pictures of an item have the sizes '
                             f'{sorted(sizes)}; to be mixed alike they need one size')
        # one picture with the channels of all: what `mix` draws then goes for each of them
        together = torch.cat(pictures, 1)
        return list(self.mix(together, together[partners]).split([each.shape[1] for each in pictures], 1))

    def mix(
        self,
        x: torch.Tensor,  # float (n,c,h,w) pictures; of several pictures an item, the channels of all
        x1: torch.Tensor,  # Of the same shape, the pictures to mix in
    ) -> torch.Tensor:  # float (n,c,h,w)
        "`x` mixed with `x1`; sets `self.lam`, the share of `x` (a number or (n,)), one half at least."
        raise NotImplementedError


class MixUp(MixImages):
    "Blends each picture with another of the batch (https://arxiv.org/abs/1710.09412)."
    def __init__(
        self,
        alpha: float = .4,  # Both parameters of the Beta distribution that the shares are drawn from
    ):
        super().__init__(alpha)

    def mix(self, x, x1):
        drawn_shares = self.distrib.sample((len(x),)).to(x.device)
        self.lam = torch.maximum(drawn_shares, 1 - drawn_shares)
        return torch.lerp(x1, x, self.lam.to(x.dtype)[:, None, None, None])


class CutMix(MixImages):
    "Pastes a box of another picture of the batch into each (https://arxiv.org/abs/1905.04899)."
    def __init__(
        self,
        alpha: float = 1.,  # Both parameters of the Beta distribution that the share is drawn from
    ):
        super().__init__(alpha)

    def mix(self, x, x1):
        height, width = x.shape[-2:]
        drawn_share = float(self.distrib.sample())
        # the picture's own share is one half at least, so that it goes with the title
        side = (1 - max(drawn_share, 1 - drawn_share))**.5
        center_y = random.randrange(height)
        center_x = random.randrange(width)
        box_rows = slice(max(0, int(center_y - side * height / 2)), int(center_y + side * height / 2))
        box_columns = slice(max(0, int(center_x - side * width / 2)), int(center_x + side * width / 2))
        in_box = torch.zeros(height, width, dtype=torch.bool, device=x.device)
        in_box[box_rows, box_columns] = True
        # the share that really stays: a box at the rim is cut off
        self.lam = 1 - in_box.float().mean()
        return torch.where(in_box, x1, x)
