"Losses over masks that look at the overlap as a whole: Dice and Lovasz."
import torch
import torch.nn.functional as F

from ..core import InputError
from .base import Loss, check_range, upcast


class Overlap(Loss):
    "A loss over masks: logits (n,1,h,w) with targets of 0 and 1 (n,h,w) or (n,1,h,w), or logits (n,c,h,w) with classes (n,h,w)."
    def check(self, out, y):
        if out.ndim < 3 or y.numel() * out.shape[1] != out.numel() or len(y) != len(out):
            raise InputError(f'logits {tuple(out.shape)} and masks {tuple(y.shape)}: give (n,c,h,w) and (n,h,w)')

    def check_values(self, out, y):
        if y.numel(): check_range(y, max(2, out.shape[1]), 'masks')

    def one(self, out, y):
        x = upcast(out).flatten(2)
        # plane k of a mask is where class k is; of one channel, where there is anything
        y = y.reshape(len(x), 1, -1)
        hot = y if x.shape[1] == 1 else y == torch.arange(x.shape[1], device=y.device)[:, None]
        with torch.autocast(x.device.type, enabled=False): return self.planes(x, hot.to(x))

    def planes(
        self,
        x,  # (n,c,p) logits
        y,  # (n,c,p) of 0 and 1
    ):  # (n,)
        "The loss of each image."
        raise NotImplementedError

    def activation(self, out): return out.sigmoid() if out.shape[1] == 1 else out.softmax(1)
    def decodes(self, out): return (out > .5).squeeze(1).long() if out.shape[1] == 1 else out.argmax(1)


class SoftDice(Overlap):
    "1 minus Dice with probabilities in place of decisions, the mean of an image's classes, https://arxiv.org/abs/1606.04797"
    def __init__(
        self,
        smooth: float = 1.,  # Pixels added above and below: an empty mask then costs little when little is predicted
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if not smooth > 0: raise InputError(f'smooth={smooth}: above 0')
        self.smooth = smooth

    def planes(self, x, y):
        p = self.activation(x)
        return (1 - (2 * (p * y).sum(2) + self.smooth) / (p.sum(2) + y.sum(2) + self.smooth)).mean(1)


class DiceBCE(SoftDice):
    "Dice on the planes that hold something, binary cross-entropy on the empty ones, where Dice has nothing to overlap with."
    def planes(self, x, y):
        p = self.activation(x)
        dice = 1 - (2 * (p * y).sum(2) + self.smooth) / (p.sum(2) + y.sum(2) + self.smooth)
        # -log(1-p) of a softmax from logits: the log of what the other classes have together
        empty = (F.softplus(x) if x.shape[1] == 1 else -_log_others(x)).mean(2)
        return torch.where(y.any(2), dice, empty).mean(1)


def _log_others(x):
    "log(1 - softmax(x)) over dimension 1, finite where one class has it all."
    c = x.shape[1]
    rest = x[:, None].expand(-1, c, -1, -1).masked_fill(torch.eye(c, dtype=torch.bool, device=x.device)[..., None], -torch.inf)
    return rest.logsumexp(2) - x.logsumexp(1, keepdim=True)


def lovasz_extension(
    errors,  # (..., p) error of each pixel
    y,  # (..., p) 0 or 1
):  # (...)
    "The Jaccard loss's Lovasz extension, https://arxiv.org/abs/1705.08790: errors in falling order times what each adds to the loss."
    errors, order = errors.sort(-1, descending=True)
    y = y.gather(-1, order)
    jaccard = 1 - (y.sum(-1, keepdim=True) - y.cumsum(-1)) / (y.sum(-1, keepdim=True) + (1 - y).cumsum(-1))
    return (errors * torch.cat([jaccard[..., :1], jaccard.diff(dim=-1)], -1)).sum(-1)


class Lovasz(Overlap):
    "A convex stand-in for 1 minus intersection over union: hinge of one channel, softmax of several (classes present), https://arxiv.org/abs/1705.08790"
    def planes(self, x, y):
        if x.shape[1] == 1: return lovasz_extension((1 - x * (2 * y - 1)).relu(), y).squeeze(1)
        loss, there = lovasz_extension((y - x.softmax(1)).abs(), y), y.any(2)
        return (loss * there).sum(1) / there.sum(1)
