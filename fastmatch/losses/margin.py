"Softmax over cosines with a margin on the target: one hook, `margin`, makes a family."
import math

import torch
import torch.nn.functional as F

from ..core import InputError, auto_scale
from .base import Loss, check_scale, check_smoothing, columns, read_cosines, read_extra, upcast
from .classify import CrossEntropy
from .rows import EPS, MarginRows


class NormSoftmax(Loss):
    "Cross-entropy over scaled cosines (NormFace), https://arxiv.org/abs/1704.06369; subclass and give `margin` for your own."
    def __init__(
        self,
        s: float | None = None,  # Scale of the cosines before the softmax; None: AdaCos' rule for the number of classes, `auto_scale`
        label_smoothing: float = 0.,  # Share of the target spread over all classes, 0 to 1
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(**kwargs)
        self.s, self.label_smoothing = check_scale(s), check_smoothing(label_smoothing)

    def check_options(self):
        "Raise `InputError` for a margin or scale out of range: when made, and for all that a `MarginSchedule` is going to set."
        check_scale(self.s)

    def margin(
        self,
        cos,  # (n,) cosine of each row with its own class centre, within +-(1-1e-6)
        y,  # int64 (n,) class of each row
    ):
        "The target cosine made harder; here left as it is."
        return cos

    def others(
        self,
        cos,  # (n,c) all cosines
        hard,  # (n,1) the target's with its margin
        out,  # `HeadOutput`
    ):
        "The other classes' cosines (n,c); here left as they are. What stands in the target's place doesn't count; gradients go to cosines alone."
        return cos

    def others_slope(self, cos, hard, out):
        "How `others` rises with the cosines (n,c), where it depends on nothing else that is trained; None: autograd works it out."

    @property
    def others_alone(self): return type(self).others is NormSoftmax.others

    def scale(self, out):
        "What the cosines are multiplied with: a number, or a tensor that broadcasts over (n,c)."
        return auto_scale(out.cos.shape[1]) if self.s is None else self.s

    def logits(self, out, y):
        "Scaled cosines (n,c) with the margin on the target."
        cos, at = upcast(out.cos), columns(out, y)[:, None]
        hard = self.margin(cos.gather(1, at).squeeze(1).clamp(-1 + EPS, 1 - EPS), y)[:, None]
        # scatter keeps the one changed entry a row differentiable without a one-hot matrix
        return self.scale(out) * self.others(cos, hard, out).scatter(1, at, hard)

    def one(self, out, y):
        read_cosines(self, out)
        # in float32 throughout: a half-precision cosine can't hold a margin
        with torch.autocast(out.cos.device.type, enabled=False):
            s = self.scale(out)
            # a scale that is trained, or one for each row, takes the long way
            if not isinstance(s, torch.Tensor) or (s.ndim == 0 and not s.requires_grad):
                extra = {k: v.detach() for k, v in out.extra.items()}
                return MarginRows.apply(upcast(out.cos), self, s, y, columns(out, y), out.emb.detach(), extra)
            return F.cross_entropy(self.logits(out, y), columns(out, y), reduction='none', label_smoothing=self.label_smoothing)

    activation, decodes = CrossEntropy.activation, CrossEntropy.decodes


class Margin(NormSoftmax):
    "A `NormSoftmax` with a margin `m`: one number, which a callback may move, or one for each class."
    least, top = 0, math.inf  # `m` is from `least` to below `top`

    def __init__(
        self,
        m,  # Margin, or (c,) a margin for each class (`class_margins`)
        s: float | None = None,  # Scale; None: AdaCos' rule
        **kwargs,  # `label_smoothing`, `reduction`, `head_weights`
    ):
        super().__init__(s, **kwargs)
        self.m = m if isinstance(m, (int, float)) else torch.as_tensor(m, dtype=torch.float64)
        self.check_options()

    def check_options(self):
        super().check_options()
        ms = torch.as_tensor(self.m)
        if ms.ndim > 1 or not bool(((ms >= self.least) & (ms < self.top)).all()):
            raise InputError(f'm={self.m}: a margin (or one for each class), at least {self.least}' + (' and below pi (in radians)' if self.top == math.pi else ''))

    def check_values(self, out, y):
        super().check_values(out, y)
        if self.by_class and not (len(self.m) > int(out.extra['classes'][-1]) if 'classes' in out.extra else len(self.m) == out.cos.shape[1]):
            raise InputError(f'm has {len(self.m)} margins, the head {out.cos.shape[1]} classes: give one margin, or one for each class')

    @property
    def by_class(self): return isinstance(self.m, torch.Tensor) and self.m.ndim == 1

    def m_of(self, cos, y):
        "The margin of each row (n,), or the one number there is."
        return self.m.to(cos.device)[y].to(cos.dtype) if self.by_class else self.m


class CosFace(Margin):
    "Additive cosine margin (AM-softmax): cos(theta) - m for the target, https://arxiv.org/abs/1801.09414 https://arxiv.org/abs/1801.05599"
    def __init__(
        self,
        m=.35,  # Margin (both papers' .35), or one for each class
        s: float | None = None,  # Scale; None: AdaCos' rule (the papers': 64 and 30)
        **kwargs,  # `label_smoothing`, `reduction`, `head_weights`
    ):
        super().__init__(m, s, **kwargs)

    def margin(self, cos, y): return cos - self.m_of(cos, y)


class ArcFace(Margin):
    "Additive angular margin: cos(theta + m) for the target, https://arxiv.org/abs/1801.07698"
    top = math.pi

    def __init__(
        self,
        m=.5,  # Margin in radians, 0 to pi (the paper's .5; smaller with few listings a class), or one for each class
        s: float | None = None,  # Scale; None: AdaCos' rule (the paper's 64; its code 30 for small sets)
        easy_margin: bool = False,  # Margin only below 90 degrees; off: beyond, where it is needed most, the target would jump up to no margin
        **kwargs,  # `label_smoothing`, `reduction`, `head_weights`
    ):
        super().__init__(m, s, **kwargs)
        self.easy_margin = easy_margin

    def margin(self, cos, y):
        m = torch.as_tensor(self.m_of(cos, y), dtype=cos.dtype, device=cos.device)
        hard = cos * m.cos() - (1 - cos**2).sqrt() * m.sin()
        if self.easy_margin: return torch.where(cos > 0, hard, cos)
        # past pi - m the angle would wrap round and the logit rise again: go on in a straight line, as the paper's code does
        return torch.where(cos > -m.cos(), hard, cos - m * m.sin())


def falling_cos(theta):
    "cos(theta) up to pi, and falling on beyond: (-1)^k cos(theta) - 2k for theta from k pi to (k+1) pi, https://arxiv.org/abs/1612.02295"
    k = (theta / math.pi).floor().detach()
    return (1 - 2 * (k % 2)) * theta.cos() - 2 * k


class CombinedMargin(NormSoftmax):
    "cos(m1 theta + m2) - m3 for the target, https://arxiv.org/abs/1801.07698; falls on past pi."
    def __init__(
        self,
        m1: float = 1.,  # Times the angle (SphereFace's margin), 1 at least
        m2: float = .3,  # Added to the angle, in radians (ArcFace's margin); 1, .3, .2 are the paper's
        m3: float = .2,  # Taken from the cosine (CosFace's margin)
        s: float | None = None,  # Scale; None: AdaCos' rule
        **kwargs,  # `label_smoothing`, `reduction`, `head_weights`
    ):
        super().__init__(s, **kwargs)
        self.m1, self.m2, self.m3 = m1, m2, m3
        self.check_options()

    def check_options(self):
        super().check_options()
        if not (1 <= self.m1 < math.inf and 0 <= self.m2 < math.pi and 0 <= self.m3 < math.inf):
            raise InputError(f'm1={self.m1}, m2={self.m2}, m3={self.m3}: m1 is at least 1, m2 from 0 to pi, m3 at least 0')

    def margin(self, cos, y): return falling_cos(self.m1 * cos.acos() + self.m2) - self.m3


class SphereFace(Margin):
    "Multiplied angle: cos(m theta) for the target, scaled by the embedding's length, https://arxiv.org/abs/1704.08063"
    least = 1

    def __init__(
        self,
        m: float = 4,  # Times the angle, 1 at least (the paper's 4, which wants a `MarginSchedule` that starts near 1)
        s: float | None = None,  # Scale; None: the embedding's own length, as in the paper
        **kwargs,  # `label_smoothing`, `reduction`, `head_weights`
    ):
        super().__init__(m, s, **kwargs)

    def margin(self, cos, y): return falling_cos(self.m_of(cos, y) * cos.acos())
    def scale(self, out): return upcast(out.emb).norm(dim=1, keepdim=True) if self.s is None else self.s


class LargeMarginSoftmax(SphereFace):
    "L-Softmax: cos(m theta) for the target, scaled by the lengths of embedding and centre, https://arxiv.org/abs/1612.02295"
    def scale(self, out): return super().scale(out) * read_extra(self, out, 'norms', 'CosineHead')


class AdaCos(NormSoftmax):
    "Cosines scaled by what the batch needs, which the head keeps track of, https://arxiv.org/abs/1905.00292; the fixed scale is `NormSoftmax()`."
    def __init__(
        self,
        label_smoothing: float = 0.,  # Share of the target spread over all classes, 0 to 1
        **kwargs,  # `reduction`, `head_weights`
    ):
        super().__init__(None, label_smoothing, **kwargs)

    def scale(self, out): return read_extra(self, out, 's', 'TrackedHead')


class CurricularFace(ArcFace):
    "ArcFace that turns to hard negatives as training goes on, https://arxiv.org/abs/2004.00288; how far it is, the head keeps track of."
    def others(self, cos, hard, out):
        t = read_extra(self, out, 't', 'TrackedHead')
        return torch.where(cos > hard, cos * (t + cos), cos)

    def others_slope(self, cos, hard, out): return torch.where(cos > hard, out.extra['t'] + 2 * cos, 1.)


def class_margins(
    counts,  # (c,) listings of each class (`class_counts(dls)`)
    m: float = .5,  # Margin of the smallest class
    p: float = .1,  # How fast it falls with the size (.1 and .2 did well on Shopee; 0: the same for all)
) -> torch.Tensor:  # (c,)
    "Margins that fall with the size n of a class as n^-p, https://arxiv.org/abs/2010.05350"
    n = torch.as_tensor(counts, dtype=torch.float64)
    if n.ndim != 1 or not len(n) or not bool((n > 0).all()): raise InputError('counts: one number above 0 for each class')
    return m * (n / n.min())**-p
