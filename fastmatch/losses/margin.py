"""Margin losses over the cosines to class centers: ArcFace and its relatives, each of which changes the
target's cosine."""
import math

import torch

from ..core import InputError
from .base import required_extra, sampled_classes, upcast
from .softmax import NormSoftmax


class Margin(NormSoftmax):
    """Base class of losses with one margin `m`: a number, which `MarginSchedule` may move, or one number
    for each class."""
    # `m` is from `least` to below `top`
    least = 0
    top = math.inf

    def __init__(
        self,
        m,  # Margin, or (c,) a margin for each class (`class_margins`)
        s: float | None = None,  # Scale of the cosines; None: `auto_scale`, AdaCos' rule
        **kwargs,  # `label_smoothing`, `reduction`, `head_weights`
    ):
        super().__init__(s, **kwargs)
        try: self.m = m if isinstance(m, (int, float)) else torch.as_tensor(m, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f'm={m!r}: a margin is a number, or one for each class') from None
        self.check_options()

    def check_options(self):
        super().check_options()
        margins = torch.as_tensor(self.m)
        if margins.ndim <= 1 and bool(((margins >= self.least) & (margins < self.top)).all()): return
        limit_text = ' and below pi (in radians)' if self.top == math.pi else ''
        raise InputError(f'm={self.m}: a margin (or one for each class), at least {self.least}{limit_text}')

    def check_values(self, output, targets):
        super().check_values(output, targets)
        if not self.by_class: return
        classes = sampled_classes(output)
        complete = len(self.m) == output.cos.shape[1] if classes is None else len(self.m) > int(classes[-1])
        if not complete:
            raise InputError(f'm has {len(self.m)} margins, the head {output.cos.shape[1]} classes: '
                             'give one margin, or one for each class')

    @property
    def by_class(self) -> bool:
        "Whether each class has a margin of its own."
        return isinstance(self.m, torch.Tensor) and self.m.ndim == 1

    def margin_of(self, cos, y):
        "The margin of each row (n,), or the one number that all share."
        return self.m.to(cos.device)[y].to(cos.dtype) if self.by_class else self.m


class CosFace(Margin):
    """Additive cosine margin (AM-softmax): cos(theta) - m for the target,
    https://arxiv.org/abs/1801.09414 and https://arxiv.org/abs/1801.05599"""
    def __init__(
        self,
        m=.35,  # Margin (.35 in both papers), or one for each class
        s: float | None = None,  # Scale; None: `auto_scale`, AdaCos' rule (64 and 30 in the papers)
        **kwargs,  # `label_smoothing`, `reduction`, `head_weights`
    ):
        super().__init__(m, s, **kwargs)

    def margin(self, cos, y): return cos - self.margin_of(cos, y)


class ArcFace(Margin):
    """Additive angular margin: cos(theta + m) for the target, https://arxiv.org/abs/1801.07698

    The defaults are for any number of classes: the paper's margin, at a scale that follows their number.
    `match_learner` uses m=.3 and s=20, which was measured on many groups of two or three listings; with three
    classes that scale learned less.
    """
    top = math.pi

    def __init__(
        self,
        m=.5,  # Margin in radians, 0 to pi, or one for each class; .5 in the paper, less for small classes
        s: float | None = None,  # Scale; None: `auto_scale`, AdaCos' rule (64 or 30 in the paper's code)
        easy_margin: bool = False,  # No margin on angles above 90 degrees, the hardest rows
        **kwargs,  # `label_smoothing`, `reduction`, `head_weights`
    ):
        super().__init__(m, s, **kwargs)
        self.easy_margin = easy_margin

    def margin(self, cos, y):
        m = torch.as_tensor(self.margin_of(cos, y), dtype=cos.dtype, device=cos.device)
        hard_cosines = cos * m.cos() - (1 - cos**2).sqrt() * m.sin()
        if self.easy_margin: return torch.where(cos > 0, hard_cosines, cos)
        # beyond pi - m the angle theta + m would pass pi and its cosine rise again: go on in a straight line,
        # as the paper's code does
        return torch.where(cos > -m.cos(), hard_cosines, cos - m * m.sin())


def falling_cos(
    theta,  # Angles in radians, 0 or more
):
    """cos(theta) up to pi, and falling on beyond: (-1)^k cos(theta) - 2k for theta from k pi to (k+1) pi.

    It is the psi of https://arxiv.org/abs/1612.02295; it keeps a margin from turning back for large angles.
    """
    k = (theta / math.pi).floor().detach()
    return (1 - 2 * (k % 2)) * theta.cos() - 2 * k


class CombinedMargin(NormSoftmax):
    """All three margins together: cos(m1 theta + m2) - m3 for the target, https://arxiv.org/abs/1801.07698

    Beyond pi it goes on falling, as in `falling_cos`.
    """
    def __init__(
        self,
        m1: float = 1.,  # Factor on the angle (SphereFace's margin), at least 1
        m2: float = .3,  # Added to the angle, in radians (ArcFace's margin); 1, .3 and .2 are the paper's
        m3: float = .2,  # Taken off the cosine (CosFace's margin)
        s: float | None = None,  # Scale; None: `auto_scale`, AdaCos' rule
        **kwargs,  # `label_smoothing`, `reduction`, `head_weights`
    ):
        super().__init__(s, **kwargs)
        self.m1 = m1
        self.m2 = m2
        self.m3 = m3
        self.check_options()

    def check_options(self):
        super().check_options()
        if not (1 <= self.m1 < math.inf and 0 <= self.m2 < math.pi and 0 <= self.m3 < math.inf):
            raise InputError(f'm1={self.m1}, m2={self.m2}, m3={self.m3}: '
                             'm1 is at least 1, m2 from 0 to pi, m3 at least 0')

    def margin(self, cos, y): return falling_cos(self.m1 * cos.acos() + self.m2) - self.m3


class SphereFace(Margin):
    """Multiplied angle: cos(m theta) for the target, scaled by the embedding's length,
    https://arxiv.org/abs/1704.08063"""
    least = 1

    def __init__(
        self,
        m: float = 1.35,  # Factor on the angle, at least 1; the paper's 4 wants a `MarginSchedule` up to it
        s: float | None = None,  # Scale; None: the embedding's own length, as in the paper
        **kwargs,  # `label_smoothing`, `reduction`, `head_weights`
    ):
        super().__init__(m, s, **kwargs)

    def margin(self, cos, y): return falling_cos(self.margin_of(cos, y) * cos.acos())
    def scale(self, output): return upcast(output.emb).norm(dim=1, keepdim=True) if self.s is None else self.s


class LargeMarginSoftmax(SphereFace):
    """L-Softmax: cos(m theta) for the target, scaled by the lengths of the embedding and of the class center,
    https://arxiv.org/abs/1612.02295"""
    def scale(self, output):
        return super().scale(output) * required_extra(self, output, 'norms', 'CosineHead')


class CurricularFace(ArcFace):
    """ArcFace that gives hard negatives more weight as training goes on, https://arxiv.org/abs/2004.00288

    How far training is, the mean target cosine t, a `TrackedHead` keeps track of.
    """
    def other_cosines(self, cosines, hard_cosines, output):
        t = required_extra(self, output, 't', 'TrackedHead')
        return torch.where(cosines > hard_cosines, (t + cosines) * cosines, cosines)

    def other_cosines_slope(self, cosines, hard_cosines, output):
        return torch.where(cosines > hard_cosines, torch.add(output.extra['t'], cosines, alpha=2), 1.)


def class_margins(
    counts,  # (c,) rows of each class (`class_counts(dls)`)
    m: float = .5,  # Margin of the smallest class
    p: float = .1,  # How fast the margin falls with the size (.1 and .2 did well on Shopee); 0: not at all
) -> torch.Tensor:  # float64 (c,)
    """Margins for `ArcFace(m=...)` that are smaller for larger classes, by n^-p of their sizes n,
    https://arxiv.org/abs/2010.05350"""
    class_sizes = torch.as_tensor(counts, dtype=torch.float64)
    if class_sizes.ndim != 1 or not len(class_sizes) or not bool((class_sizes > 0).all()):
        raise InputError('counts: one number above 0 for each class')
    return m * (class_sizes / class_sizes.min())**-p
