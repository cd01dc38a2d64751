"Losses over masks that judge the overlap of prediction and mask as a whole: Dice and Lovasz."
import torch
import torch.nn.functional as F

from ..core import InputError
from .base import Loss, check_range, upcast


class Overlap(Loss):
    """Base class of losses over masks; a subclass implements `per_image`.

    Either one channel, logits (n,1,h,w) and targets of 0 and 1 (n,h,w) or (n,1,h,w), or several, logits
    (n,c,h,w) and classes (n,h,w).
    """
    def check(self, output, targets):
        shapes_fit = (output.ndim >= 3 and len(targets) == len(output)
                      and targets.numel() * output.shape[1] == output.numel())
        if not shapes_fit:
            raise InputError(f'logits {tuple(output.shape)} and masks {tuple(targets.shape)}: '
                             'give (n,c,h,w) and (n,h,w)')

    def check_values(self, output, targets):
        if targets.numel(): check_range(targets, max(2, output.shape[1]), 'masks')

    def per_row(self, output, targets):
        logits = upcast(output).flatten(2)
        n_classes = logits.shape[1]
        classes = targets.reshape(len(logits), 1, -1)
        # one plane for each class, 1 where the mask has that class; of one channel, 1 where the mask has
        # anything
        if n_classes == 1: planes = classes
        else: planes = classes == torch.arange(n_classes, device=targets.device)[:, None]
        with torch.autocast(logits.device.type, enabled=False):
            return self.per_image(logits, planes.to(logits))

    def per_image(
        self,
        logits,  # (n,c,p), with p pixels
        planes,  # (n,c,p) of 0 and 1, of the logits' dtype
    ):  # (n,)
        "The loss of each image."
        raise NotImplementedError

    def activation(self, output): return output.sigmoid() if output.shape[1] == 1 else output.softmax(1)

    def decodes(self, output):
        return (output > .5).squeeze(1).long() if output.shape[1] == 1 else output.argmax(1)


class SoftDice(Overlap):
    """1 minus Dice with probabilities in place of decisions, the mean over an image's classes,
    https://arxiv.org/abs/1606.04797"""
    def __init__(
        self,
        smooth: float = 1.,  # Pixels added above and below the fraction, for masks that are nearly empty
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if not smooth > 0: raise InputError(f'smooth={smooth}: above 0')
        self.smooth = smooth

    def dice_loss(self, logits, planes):
        "1 minus Dice of each plane (n,c)."
        p = self.activation(logits)
        return 1 - (2 * (p * planes).sum(2) + self.smooth) / (p.sum(2) + planes.sum(2) + self.smooth)

    def per_image(self, logits, planes): return self.dice_loss(logits, planes).mean(1)


class DiceBCE(SoftDice):
    """Dice on the planes that hold something, binary cross-entropy on the empty ones, which have nothing
    to overlap with; for data in which many masks are empty."""
    def per_image(self, logits, planes):
        dice = self.dice_loss(logits, planes)
        # -log(1 - p) of each pixel, from the logits
        wrongly_found = F.softplus(logits) if logits.shape[1] == 1 else -_log_one_minus_softmax(logits)
        return torch.where(planes.any(2), dice, wrongly_found.mean(2)).mean(1)


class MaskAndPresence(Loss):
    """A loss over masks, and beside it binary cross-entropy of whether each class is in the picture at all:
    for the two outputs of `SegmentNet(dual=True)`."""
    def __init__(
        self,
        mask_loss: Overlap | None = None,  # Loss of the masks; None: `DiceBCE()`
        weight: float = .5,  # Of the second part
        reduction: str = 'mean',  # 'mean', 'sum' or 'none'
        **unknown,  # Options that the loss doesn't have
    ):
        if 'head_weights' in unknown: raise InputError('head_weights: `weight` is that of the second part')
        if not weight >= 0: raise InputError(f'weight={weight}: 0 or above')
        super().__init__(reduction, **unknown)
        self.mask_loss = DiceBCE() if mask_loss is None else mask_loss
        self.mask_loss.reduction = 'none'
        self.weight = weight

    def forward(self, output, targets, **mixing):
        "The loss of a batch; the presence of a class is read from the masks."
        if mixing: raise InputError('MaskAndPresence: masks of mixed pictures are not known')
        if not isinstance(output, dict) or set(output) != {'mask', 'presence'}:
            raise InputError('MaskAndPresence reads masks and presence: take SegmentNet(dual=True)')
        presence = upcast(output['presence'])
        classes = torch.arange(1, presence.shape[1] + 1, device=targets.device)[:, None]
        is_there = (targets.reshape(len(targets), 1, -1) == classes).any(2).to(presence)
        of_presence = F.binary_cross_entropy_with_logits(presence, is_there, reduction='none').mean(1)
        return self.reduce(self.mask_loss(output['mask'], targets) + self.weight * of_presence, targets)

    def activation(self, output): return self.mask_loss.activation(output['mask'])
    def decodes(self, output): return self.mask_loss.decodes(output)


def _log_one_minus_softmax(logits):
    """log(1 - softmax(logits)) over dimension 1: what the other classes have together, finite where one
    class has it all."""
    n_classes = logits.shape[1]
    itself = torch.eye(n_classes, dtype=torch.bool, device=logits.device)[..., None]
    others = logits[:, None].expand(-1, n_classes, -1, -1).masked_fill(itself, -torch.inf)
    return others.logsumexp(2) - logits.logsumexp(1, keepdim=True)


def lovasz_extension(
    errors,  # (..., p) error of each pixel
    targets,  # (..., p) of 0 and 1
):  # (...)
    """The Lovasz extension of the Jaccard loss (1 minus intersection over union),
    https://arxiv.org/abs/1705.08790

    Pixels are taken in falling order of their errors, and each error is multiplied by how much the Jaccard
    loss rises when its pixel becomes wrong too.
    """
    errors, by_error = errors.sort(-1, descending=True)
    targets = targets.gather(-1, by_error)
    intersection = targets.sum(-1, keepdim=True) - targets.cumsum(-1)
    union = targets.sum(-1, keepdim=True) + (1 - targets).cumsum(-1)
    jaccard = 1 - intersection / union
    rises = torch.cat([jaccard[..., :1], jaccard.diff(dim=-1)], -1)
    return (errors * rises).sum(-1)


class Lovasz(Overlap):
    """A convex substitute for 1 minus intersection over union, https://arxiv.org/abs/1705.08790

    One channel uses the hinge errors, several the softmax errors of the classes that the image has.
    """
    def per_image(self, logits, planes):
        if logits.shape[1] == 1:
            hinge_errors = (1 - logits * (2 * planes - 1)).relu()
            return lovasz_extension(hinge_errors, planes).squeeze(1)
        per_class = lovasz_extension((planes - logits.softmax(1)).abs(), planes)
        present = planes.any(2)
        return (per_class * present).sum(1) / present.sum(1)
