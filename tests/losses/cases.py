"Every loss with what it reads and its naive twin; a loss that is not in the table fails a test."
# ruff: noqa: F403, F405
from dataclasses import dataclass
from functools import partial
from math import cos as cosine
from math import pi, sin

import numpy as np
import torch

from fastmatch.core import HeadOutput
from fastmatch.losses import *
from tests.reference import losses as ref

N, C, D = 24, 7, 5
WEIGHT = [1., .5, 2., 1., .1, 3., 1.]
MARGINS = [.1, .2, .3, .4, .5, .05, .0]
T, S = .25, 6.  # exact in float32


def rand(*shape, seed=0, low=-1., high=1.):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * (high - low) + low


def labels(n=N, c=C, seed=1): return torch.randint(c, (n,), generator=torch.Generator().manual_seed(seed))


class Reads:
    "What a loss reads: the tensors with a gradient (`leaves`), the targets, how they are put together, how the twin takes them."
    def leaves(self): return [3 * rand(N, C)]
    def targets(self): return (labels(),)
    def build(self, x): return x
    def numpy(self, x): return (x.double().detach().numpy(),)

    def extremes(self, value):
        "Leaves as far out as they get: `value` is 1 or -1 throughout, or 'right' or 'wrong': sure of each target, or of all others."
        if isinstance(value, str): return [1e4 * self.sign(value)] if self.sign(value) is not None else self.extremes(1.)
        return [torch.full_like(o, value * 1e4) for o in self.leaves()]

    def sign(self, value): return (2. * torch.nn.functional.one_hot(self.targets()[0], C) - 1) * (1 if value == 'right' else -1)


class Head(Reads):
    "Cosines, embeddings, and all that a head may add."
    norms, centers = rand(C, low=.5, high=2., seed=3), rand(C, D, seed=4)

    def leaves(self):
        cos = rand(N, C, low=-.95, high=.95)
        # the hard corners: the target nearly opposite and nearly alike
        cos[0], cos[1] = -.99, .99
        return [cos, 3 * rand(N, D, seed=2)]

    def build(self, cos, emb):
        keep = torch.float64 if cos.dtype == torch.float64 else torch.float32
        extra = dict(norms=self.norms, centers=self.centers, t=torch.tensor(T), s=torch.tensor(S))
        return HeadOutput(cos, emb, {k: v.to(keep) for k, v in extra.items()})

    def numpy(self, cos, emb): return cos.double().detach().numpy(), emb.double().detach().numpy()
    def extremes(self, value):
        if isinstance(value, str): return [self.sign(value), self.leaves()[1]]
        return [torch.full_like(o, value) for o in self.leaves()]


class Pairs(Reads):
    "Embeddings, with classes of one row, of several, and of very many."
    def leaves(self): return [rand(N, D, seed=5)]
    def targets(self): return (torch.tensor([0, 1, 1, 2, 2, 2, *range(3, 7), *range(3, 7), *([7] * 10)]),)
    def numpy(self, x): return (ref.unit(x.double().detach().numpy()),)
    def extremes(self, value): return [torch.full_like(o, 1. if isinstance(value, str) else value) for o in self.leaves()]


class Lengths(Pairs):
    def numpy(self, x): return (x.double().detach().numpy(),)


class Labels(Reads):
    def sign(self, value): return (2 * self.targets()[0] - 1) * (1 if value == 'right' else -1)
    def targets(self): return ((rand(N, C, seed=6) > .4).double(),)


class Soft(Reads):
    def sign(self, value): return None
    def targets(self): return ((5 * rand(N, C, seed=6)).softmax(1),)


class Teacher(Reads):
    def targets(self): return labels(), 3 * rand(N, C, seed=7)


class Mask(Reads):
    "One channel: half a mask, one pixel, none, all."
    c = 1
    def sign(self, value): return (2. * (self.targets()[0][:, None] == (torch.arange(self.c)[:, None, None] if self.c > 1 else 1)) - 1) * (1 if value == 'right' else -1)
    def leaves(self): return [3 * rand(4, self.c, 3, 5, seed=8)]

    def targets(self):
        y = torch.zeros(4, 3, 5, dtype=torch.long)
        y[0, :2, :3], y[1, 1, 1], y[3] = 1, 1, 1
        return (y,)


class Masks(Mask):
    "Three classes, not all of them in every image."
    c = 3
    def targets(self): return (torch.randint(3, (4, 3, 5), generator=torch.Generator().manual_seed(9)) % torch.tensor([3, 3, 2, 1])[:, None, None],)


@dataclass
class Case:
    loss: Loss
    reads: Reads
    naive: callable  # (*numpy(leaves), *targets) -> (n,) in float64

    @property
    def name(self): return f'{type(self.loss).__name__}-{type(self.reads).__name__}'

    def rows(self, leaves):
        "What the naive twin says, a value per row."
        return self.naive(*self.reads.numpy(*leaves), *(o.numpy() for o in self.reads.targets()))


def margin(s, target, smoothing=0.): return lambda c, e, y: ref.with_target(c, y, s, target, smoothing)
def arc(t, m): return cosine(t + m) if t + m < pi else cosine(t) - m * sin(m)
def on_cos(f, s): return lambda c, e, y: f(s * c, y)
def length(e): return np.sqrt((e**2).sum(1, keepdims=True))


AUTO = 2**.5 * np.log(C - 1)
NORMS = Head.norms.numpy()
CASES = [Case(*o) for o in [
    (NormSoftmax(), Head(), margin(AUTO, lambda t, k: cosine(t))),
    (NormSoftmax(s=12., label_smoothing=.1), Head(), margin(12., lambda t, k: cosine(t), .1)),
    (ArcFace(m=.5, s=30.), Head(), lambda c, e, y: ref.arcface(c, y, .5, 30.)),
    (ArcFace(m=.8, s=16., label_smoothing=.1), Head(), lambda c, e, y: ref.arcface(c, y, .8, 16., .1)),
    (ArcFace(m=MARGINS, s=16.), Head(), margin(16., lambda t, k: arc(t, MARGINS[k]))),
    (ArcFace(m=.5, s=16., easy_margin=True), Head(), margin(16., lambda t, k: cosine(t + .5) if t < pi / 2 else cosine(t))),
    (CosFace(s=30.), Head(), margin(30., lambda t, k: cosine(t) - .35)),
    (CosFace(m=MARGINS, label_smoothing=.2), Head(), margin(AUTO, lambda t, k: cosine(t) - MARGINS[k], .2)),
    (CombinedMargin(s=16.), Head(), margin(16., lambda t, k: ref.psi(t + .3, 1) - .2)),
    (CombinedMargin(1.4, .5, .1, s=9., label_smoothing=.1), Head(), margin(9., lambda t, k: ref.psi(1.4 * t + .5, 1) - .1, .1)),
    (SphereFace(m=4), Head(), lambda c, e, y: ref.with_target(c, y, length(e), lambda t, k: ref.psi(t, 4))),
    (SphereFace(m=1.35, s=12.), Head(), margin(12., lambda t, k: ref.psi(t, 1.35))),
    (LargeMarginSoftmax(m=3), Head(), lambda c, e, y: ref.with_target(c, y, length(e) * NORMS, lambda t, k: ref.psi(t, 3))),
    (AdaCos(label_smoothing=.1), Head(), margin(S, lambda t, k: cosine(t), .1)),
    (CurricularFace(m=.5, s=16.), Head(), lambda c, e, y: ref.curricular(c, y, .5, 16., T)),
    (CenterLoss(), Head(), lambda c, e, y: ref.center(e, y, Head.centers.numpy())),
    (CrossEntropy(), Head(), on_cos(ref.cross_entropy, AUTO)),
    (CrossEntropy(WEIGHT, s=8., label_smoothing=.1), Head(), on_cos(partial(ref.cross_entropy, weight=WEIGHT, smoothing=.1), 8.)),
    (FocalLoss(2., s=8.), Head(), on_cos(partial(ref.focal, gamma=2.), 8.)),
    (FocalLoss(.5, WEIGHT, s=8.), Head(), on_cos(partial(ref.focal, gamma=.5, weight=WEIGHT), 8.)),
    (SumLoss({'a': CosFace(s=9.), 'b': CenterLoss()}, {'b': .1}), Head(),
     lambda c, e, y: margin(9., lambda t, k: cosine(t) - .35)(c, e, y) + .1 * ref.center(e, y, Head.centers.numpy())),
    (CrossEntropy(), Reads(), ref.cross_entropy),
    (FocalLoss(.6), Reads(), partial(ref.focal, gamma=.6)),
    (HardRows(CrossEntropy(), .3), Reads(), lambda x, y: (lambda r: np.where(r >= np.sort(r)[-8], r, 0))(ref.cross_entropy(x, y))),
    (Triplet(.2), Pairs(), partial(ref.batch_hard, m=.2)),
    (Triplet(None, normalize=False), Lengths(), partial(ref.batch_hard, m=None)),
    (Triplet(.3, 'semihard'), Pairs(), partial(ref.semi_hard, m=.3)),
    (Contrastive(1.2), Pairs(), partial(ref.contrastive, m=1.2)),
    (Contrastive(1., normalize=False), Lengths(), partial(ref.contrastive, m=1.)),
    (SupCon(.2), Pairs(), partial(ref.supcon, t=.2)),
    (NTXent(.2), Pairs(), partial(ref.nt_xent, t=.2)),
    (MultiSimilarity(), Pairs(), partial(ref.multi_similarity, alpha=2., beta=50., base=.5, eps=.1)),
    (MultiLabelFocalLoss(1.5, .3), Labels(), partial(ref.multi_label_focal, gamma=1.5, alpha=.3)),
    (AsymmetricLoss(), Labels(), partial(ref.asymmetric, gamma_pos=1., gamma_neg=4., clip=.05)),
    (AsymmetricLoss(.5, 2., 0.), Labels(), partial(ref.asymmetric, gamma_pos=.5, gamma_neg=2., clip=0.)),
    (AsymmetricLoss(.6, .6, .1), Labels(), partial(ref.asymmetric, gamma_pos=.6, gamma_neg=.6, clip=.1)),
    (SoftFBeta(2.), Labels(), partial(ref.soft_f_beta, beta=2.)),
    (SoftTarget(), Soft(), lambda x, p: sum(p[:, k] * ref.cross_entropy(x, np.full(len(x), k)) for k in range(C))),
    (Distill(3., .7, label_smoothing=.1), Teacher(), partial(ref.distill, t=3., alpha=.7, smoothing=.1)),
    (SoftDice(), Mask(), partial(ref.dice, smooth=1.)),
    (SoftDice(.5), Masks(), partial(ref.dice, smooth=.5)),
    (DiceBCE(), Mask(), partial(ref.dice, smooth=1., empties=True)),
    (DiceBCE(), Masks(), partial(ref.dice, smooth=1., empties=True)),
    (Lovasz(), Mask(), ref.lovasz),
    (Lovasz(), Masks(), ref.lovasz),
]]
IDS = [f'{o.name}-{i}' for i, o in enumerate(CASES)]
