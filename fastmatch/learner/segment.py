"A fastai Learner of masks: models from names, Dice in the Recorder, exact thresholds, pictures of masks."
import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.data.transforms import Normalize
from fastai.learner import Learner, Metric
from fastai.torch_core import get_model
from fastai.vision.augment import Resize
from torch import nn

from ..callback.scoring import GroupRates
from ..core import IMAGE_ARCH, InputError, refuse_unknown_options
from ..data.masks import LEVELS, MaskRule, best_mask_rule, image_dice, scores_by_class
from ..data.segment import SegmentDataLoaders
from ..losses import DiceBCE, MaskAndPresence
from ..losses.overlap import Overlap
from ..matcher.segment import Segmenter, class_probabilities, mask_probabilities
from ..models.segment import STRIDE, SegmentNet
from ..optim import adamw
from .base import ListingLearner, groups_splitter

__all__ = ['MaskDice', 'SegmentLearner', 'segment_learner']

LR_MULT = {'encoder': .25}  # factor on one learning rate, as for the encoders of listings


class PlainMasks(Callback):
    "Masks as plain tensors: fastai's own kind of tensor can't be mixed with others in a loss."
    order = -5

    def before_batch(self):
        self.learn.yb = tuple(target.as_subclass(torch.Tensor).long() for target in self.yb)


class MaskDice(Metric):
    """Mean Dice over pictures and classes, the background left out, where each pixel is of its most probable
    class; 1 where a class is rightly not found. It is the mean of `SegmentLearner.image_scores()`."""
    def reset(self): self.values = []

    def accumulate(self, learn):
        probabilities = class_probabilities(learn.pred)
        found, true = probabilities.argmax(1).cpu().numpy(), learn.y.cpu().numpy()
        self.values.append(_dice_of(found, true, probabilities.shape[1]))

    @property
    def value(self): return float(np.concatenate(self.values).mean()) if self.values else None

    @property
    def name(self): return 'dice'


class SegmentLearner(ListingLearner):
    "A `Learner` of masks, validated on pictures that it was not trained on; made by `segment_learner`."
    needs_two_rows = nn.BatchNorm2d

    def check_dls(self, dls):
        if not isinstance(dls, SegmentDataLoaders):
            raise InputError('dls: make them with SegmentDataLoaders.from_df')
        if any(isinstance(each, Normalize) for loader in dls for each in loader.after_batch.fs):
            raise InputError('batch_tfms: leave Normalize out; the model normalizes pictures itself, as its '
                             'encoder was trained')

    def _check_single_rows(self, loader):
        """Raise `InputError` for a batch of one picture whose deepest feature map has one pixel: BatchNorm
        can't find the spread of that."""
        try: super()._check_single_rows(loader)
        except InputError:
            # read where need be alone: reading a batch moves torch's random numbers on
            images, _ = self.dls.valid.one_batch()
            layers = get_model(self.model).encoder.modules()
            if max(images.shape[2:]) <= STRIDE and any(isinstance(each, nn.BatchNorm2d) for each in layers):
                raise

    @torch.inference_mode()
    def probabilities(
        self,
        tta: bool = False,  # Average with what the model makes of the mirror images
    ) -> tuple:  # (uint8 (n,c,h,w), 255 for certain, the background first; int64 (n,h,w) true classes)
        "What the model makes of the held-out pictures, in the size that it reads."
        model = get_model(self.model)
        found, true = [], []
        was_training = model.training
        model.eval()
        try:
            for images, masks in self.dls.valid:
                images = images.as_subclass(torch.Tensor)
                probabilities = mask_probabilities(model, images, tta)
                found.append((probabilities * LEVELS).round().to(torch.uint8).cpu().numpy())
                true.append(masks.as_subclass(torch.Tensor).long().cpu().numpy())
        finally: model.train(was_training)
        return np.concatenate(found), np.concatenate(true)

    def choose_rule(
        self,
        tta: bool = False,  # Average with what the model makes of the mirror images
    ) -> tuple[MaskRule, float]:  # The rule, and the mean Dice of the held-out pictures by it
        "Threshold and smallest area with the best mean Dice on the held-out pictures, see `best_mask_rule`."
        if len(self.dls.classes) != 2: raise InputError(f'{len(self.dls.classes)} classes: a rule is for two')
        probabilities, true = self.probabilities(tta)
        return best_mask_rule(probabilities[:, 1], true == 1)

    def scores(
        self,
        rule: MaskRule | None = None,  # Of two classes; None: the most probable class
        tta: bool = False,  # Average with what the model makes of the mirror images
    ):  # DataFrame, one row a class: class, pixels, dice, iou
        "Dice and intersection over union of each class over the pixels of all held-out pictures."
        found, true = self._found(rule, tta)
        return scores_by_class(found, true, self.dls.classes)

    def image_scores(
        self,
        rule: MaskRule | None = None,  # Of two classes; None: the most probable class
        tta: bool = False,  # Average with what the model makes of the mirror images
    ) -> np.ndarray:  # float64 (n,)
        "Of each held-out picture the mean Dice of its classes, the background left out."
        return _dice_of(*self._found(rule, tta), len(self.dls.classes))

    def _found(self, rule, tta):
        probabilities, true = self.probabilities(tta)
        if rule is None: return probabilities.argmax(1), true
        if len(self.dls.classes) != 2: raise InputError(f'{len(self.dls.classes)} classes: a rule is for two')
        return rule(probabilities[:, 1]).astype(int), true

    def segmenter(
        self,
        rule: MaskRule | None = None,  # As `choose_rule` gives it; None: a half
        tta: bool = False,  # As when the rule was chosen
    ) -> Segmenter:
        "A copy of the trained model that finds the product in pictures and needs no fastai."
        model = SegmentNet.from_spec(self.model.spec())
        model.load_state_dict(self.model.state_dict())
        images, _ = self.dls.valid.one_batch()
        height, width = images.shape[2:]
        self._check_squish((width, height))
        return Segmenter(model, (width, height), rule, tta, str(self.dls.device))

    def _check_squish(self, size):
        "Raise `InputError` unless pictures are resized out of proportion, as `Segmenter` does it."
        resizers = [each for each in self.dls.valid.after_item.fs if isinstance(each, Resize)]
        if len(resizers) == 1 and str(resizers[0].method) == 'squish': return
        raise InputError('item_tfms: a segmenter reads whole pictures; train with '
                         "Resize(size, method='squish')")

    def show_masks(
        self,
        n: int = 6,  # Held-out pictures
        rule: MaskRule | None = None,  # Of two classes; None: the most probable class
    ):  # matplotlib figure
        "Show held-out pictures with the true masks (green) and those that are found (red)."
        return self._draw(np.arange(min(n, len(self.dls.valid_df))), *self._found(rule, False))

    def show_worst(
        self,
        n: int = 6,  # Held-out pictures
        rule: MaskRule | None = None,  # Of two classes; None: the most probable class
    ):  # matplotlib figure
        "Show the held-out pictures with the lowest Dice, the true masks (green) and those found (red)."
        found, true = self._found(rule, False)
        return self._draw(np.argsort(_dice_of(found, true, len(self.dls.classes)), kind='stable')[:n], found,
                          true)

    def _draw(self, rows, found, true):
        import matplotlib.pyplot as plt
        dice = _dice_of(found, true, len(self.dls.classes))
        figure, axes = plt.subplots(1, len(rows), squeeze=False, figsize=(1.8 * len(rows), 2.2),
                                    layout='constrained')
        images = [image for batch, _ in self.dls.valid for image in batch.as_subclass(torch.Tensor).cpu()]
        for ax, row in zip(axes[0], rows):
            ax.imshow(images[row].permute(1, 2, 0).numpy())
            for masks, color in ((true, 'lime'), (found, 'red')):
                if (masks[row] > 0).any() and not (masks[row] > 0).all():
                    ax.contour(masks[row] > 0, [.5], colors=color, linewidths=1.2)
            ax.set_title(f'{self.dls.valid_df[self.dls.columns[0]][row]}'[-24:], fontsize=7)
            ax.set_xlabel(f'Dice {dice[row]:.2f}', fontsize=8)
            ax.set(xticks=[], yticks=[])
        return figure


def _dice_of(found, true, n_classes):
    "The mean Dice (n,) of each picture's classes."
    return np.mean([image_dice(found == number, true == number) for number in range(1, n_classes)], 0)


def segment_learner(
    dls,  # `SegmentDataLoaders`
    encoder: str = IMAGE_ARCH,  # timm name of a model that gives feature maps of several sizes
    decoder: str = 'unet',  # 'unet' or 'fpn'
    loss_func=None,  # Default `DiceBCE()`; with `dual` that and `MaskAndPresence`
    opt_func=adamw,  # fastai optimizer function
    metrics=None,  # Default `[MaskDice()]`
    cbs=None,  # More callbacks
    wd: float | None = .01,  # Weight decay
    # pretrained, attention, hypercolumn, dual for `SegmentNet`; the rest for fastai's `Learner`
    **kwargs,
) -> SegmentLearner:
    """A Learner that marks the pixels of pictures; for the extra `seg`.

    `segment_learner(dls, attention='scse', dual=True)` is a U-Net that also tells whether there is anything
    to mark. Raises `InputError` for an encoder without a pyramid of feature maps.
    """
    refuse_unknown_options(kwargs, segment_learner, SegmentNet, Learner)
    if not isinstance(dls, SegmentDataLoaders):
        raise InputError('dls: make them with SegmentDataLoaders.from_df')
    options = {name: kwargs.pop(name) for name in ('pretrained', 'attention', 'hypercolumn', 'dual')
               if name in kwargs}
    if options.get('dual') and isinstance(loss_func, Overlap):
        name = type(loss_func).__name__
        raise InputError(f'loss_func: {name} reads masks alone; with dual=True give '
                         f'MaskAndPresence({name}())')
    model = SegmentNet(len(dls.classes), encoder, decoder, **options)
    if loss_func is None: loss_func = MaskAndPresence() if options.get('dual') else DiceBCE()
    learn = SegmentLearner(dls, model, loss_func, opt_func=opt_func, splitter=groups_splitter, wd=wd,
                           metrics=[MaskDice()] if metrics is None else metrics, **kwargs)
    learn.add_cbs([PlainMasks(), GroupRates(LR_MULT)])
    learn.add_cbs(cbs)
    learn.model.to(dls.device)
    return learn
