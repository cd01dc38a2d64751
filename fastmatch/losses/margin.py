"Softmax over cosines with a margin on the target: one hook, `margin`, makes a family."
import math

import torch
import torch.nn.functional as F

from ..core import HeadOutput, InputError
from .base import Loss, upcast

# wide enough to be below 1 in float32, where clamp(-1, 1) would leave acos an infinite slope
EPS = 1e-6


class NormSoftmax(Loss):
    "Cross-entropy over scaled cosines, https://arxiv.org/abs/1704.06369; subclass and give `margin` for your own."
    def __init__(
        self,
        s: float = 30.,  # Scale of the cosines before the softmax (the ArcFace code's for small sets; AdaCos: at least sqrt(2) log(c-1))
        label_smoothing: float = 0.,  # Share of the target spread over all classes, 0 to 1
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        if not s > 0: raise InputError(f's={s}: the scale must be above 0')
        if not 0 <= label_smoothing <= 1: raise InputError(f'label_smoothing={label_smoothing}: choose from 0 to 1')
        self.s, self.label_smoothing = s, label_smoothing

    def margin(
        self,
        cos,  # (n,) cosine of each row with its own class centre, within +-(1-1e-6)
        y,  # int64 (n,) class of each row
    ):
        "The target cosine made harder; here left as it is."
        return cos

    def logits(self, cos, y):
        "Scaled cosines (n,c) with the margin on the target."
        cos = upcast(cos).clamp(-1 + EPS, 1 - EPS)
        y = y[:, None]
        # in float32 throughout; scatter keeps the one changed entry a row differentiable without a one-hot matrix
        return self.s * cos.scatter(1, y, self.margin(cos.gather(1, y).squeeze(1), y.squeeze(1))[:, None])

    def one(self, out, y):
        if not isinstance(out, HeadOutput):
            raise InputError(f"{type(self).__name__} reads a head's cosines; it got {type(out).__name__} "
                             '(in evaluation the model returns embeddings, which have no loss)')
        with torch.autocast(out.cos.device.type, enabled=False):
            return F.cross_entropy(self.logits(out.cos, y), y, reduction='none', label_smoothing=self.label_smoothing)


class ArcFace(NormSoftmax):
    "Additive angular margin: cos(theta + m) for the target, https://arxiv.org/abs/1801.07698"
    def __init__(
        self,
        m: float = .5,  # Margin in radians, 0 to pi (the paper's .5; smaller with few listings a class)
        s: float = 30.,  # Scale
        **kwargs,  # `label_smoothing`, `reduction`, `head_weights`
    ):
        super().__init__(s, **kwargs)
        if not 0 <= m < math.pi: raise InputError(f'm={m}: a margin in radians, at least 0 and below pi')
        self.m = m

    def margin(self, cos, y):
        sin = (1 - cos**2).sqrt()
        hard = cos * math.cos(self.m) - sin * math.sin(self.m)
        # past pi - m the angle would wrap round and the logit rise again: go on in a straight line, as the paper's code does
        return torch.where(cos > math.cos(math.pi - self.m), hard, cos - self.m * math.sin(self.m))
