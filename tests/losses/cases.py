"""Every loss with what it reads and its naive twin from `tests/reference`; a loss that is not in the
table fails a test."""
# ruff: noqa: F403, F405
import copy
from dataclasses import dataclass
from functools import partial
from math import cos, pi, sin

import numpy as np
import torch
import torch.nn.functional as F

from fastmatch.core import HeadOutput
from fastmatch.losses import *
from tests.reference import losses as reference

N, C, D = 24, 7, 5  # rows, classes, width of an embedding
WEIGHT = [1., .5, 2., 1., .1, 3., 1.]
MARGINS = [.1, .2, .3, .4, .5, .05, .0]
T, S = .25, 6.  # what a `TrackedHead` returns; exact in float32


def rand(*shape, seed=0, low=-1., high=1.):
    "Float64, uniform from `low` to `high`."
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * (high - low) + low


def labels(n=N, n_classes=C, seed=1):
    "Random classes (n,)."
    return torch.randint(n_classes, (n,), generator=torch.Generator().manual_seed(seed))


class LogitInputs:
    """What a loss reads: the tensors with a gradient (`leaves`), the targets, how the leaves are put
    together to the model's output (`build`), and how the naive twin takes them (`numpy`). Here logits."""
    def leaves(self): return [3 * rand(N, C)]
    def targets(self): return (labels(),)
    def build(self, logits): return logits
    def numpy(self, logits): return (logits.double().detach().numpy(),)

    def extremes(self, value):
        """Leaves as far out as they get: `value` is 1 or -1 throughout, or 'right' or 'wrong': sure of
        each target, or of all others."""
        if not isinstance(value, str): return [torch.full_like(leaf, value * 1e4) for leaf in self.leaves()]
        signs = self.signs(value)
        return self.extremes(1.) if signs is None else [1e4 * signs]

    def signs(self, value):
        """1 at each target and -1 elsewhere where `value` is 'right', the reverse where it is 'wrong';
        None: there is no such."""
        return (2. * F.one_hot(self.targets()[0], C) - 1) * (1 if value == 'right' else -1)


class HeadInputs(LogitInputs):
    "Cosines, embeddings, and all that a head may add."
    norms = rand(C, low=.5, high=2., seed=3)
    centers = rand(C, D, seed=4)

    def leaves(self):
        cosines = rand(N, C, low=-.95, high=.95)
        # the hard corners: the target nearly opposite and nearly alike
        cosines[0] = -.99
        cosines[1] = .99
        return [cosines, 3 * rand(N, D, seed=2)]

    def build(self, cosines, embeddings):
        dtype = torch.float64 if cosines.dtype == torch.float64 else torch.float32
        extra = dict(norms=self.norms, centers=self.centers, t=torch.tensor(T), s=torch.tensor(S))
        return HeadOutput(cosines, embeddings, {name: value.to(dtype) for name, value in extra.items()})

    def numpy(self, cosines, embeddings):
        return cosines.double().detach().numpy(), embeddings.double().detach().numpy()

    def extremes(self, value):
        if isinstance(value, str): return [self.signs(value), self.leaves()[1]]
        return [torch.full_like(leaf, value) for leaf in self.leaves()]


class PairInputs(LogitInputs):
    "Embeddings, with classes of one row, of several, and of very many."
    def leaves(self): return [rand(N, D, seed=5)]

    def targets(self):
        return (torch.tensor([0, 1, 1, 2, 2, 2, *range(3, 7), *range(3, 7), *([7] * 10)]),)

    def numpy(self, embeddings): return (reference.unit(embeddings.double().detach().numpy()),)

    def extremes(self, value):
        return [torch.full_like(leaf, 1. if isinstance(value, str) else value) for leaf in self.leaves()]


class PairInputsOfAnyLength(PairInputs):
    "For losses that take embeddings as they are and not at unit length."
    def numpy(self, embeddings): return (embeddings.double().detach().numpy(),)


class LabelInputs(LogitInputs):
    "Logits, and several labels a row."
    def signs(self, value): return (2 * self.targets()[0] - 1) * (1 if value == 'right' else -1)
    def targets(self): return ((rand(N, C, seed=6) > .4).double(),)


class ProbabilityInputs(LogitInputs):
    "Logits, and probabilities as targets."
    def signs(self, value): return None
    def targets(self): return ((5 * rand(N, C, seed=6)).softmax(1),)


class TeacherInputs(LogitInputs):
    "Logits, classes, and a teacher's logits."
    def targets(self): return labels(), 3 * rand(N, C, seed=7)


class MaskInputs(LogitInputs):
    "One channel: half a mask, one pixel, none, all."
    n_classes = 1

    def leaves(self): return [3 * rand(4, self.n_classes, 3, 5, seed=8)]

    def targets(self):
        mask = torch.zeros(4, 3, 5, dtype=torch.long)
        mask[0, :2, :3] = 1
        mask[1, 1, 1] = 1
        mask[3] = 1
        return (mask,)

    def signs(self, value):
        classes = torch.arange(self.n_classes)[:, None, None] if self.n_classes > 1 else 1
        planes = self.targets()[0][:, None] == classes
        return (2. * planes - 1) * (1 if value == 'right' else -1)


class ClassMaskInputs(MaskInputs):
    "Three classes, not all of them in every image."
    n_classes = 3

    def targets(self):
        classes = torch.randint(3, (4, 3, 5), generator=torch.Generator().manual_seed(9))
        return (classes % torch.tensor([3, 3, 2, 1])[:, None, None],)


@dataclass
class Case:
    loss: Loss
    inputs: LogitInputs
    naive: callable  # (*numpy(leaves), *targets) -> (n,) in float64

    @property
    def name(self): return f'{type(self.loss).__name__}-{type(self.inputs).__name__}'

    def rows(self, leaves):
        "What the naive twin says, a value for each row."
        targets = (target.numpy() for target in self.inputs.targets())
        return self.naive(*self.inputs.numpy(*leaves), *targets)


def naive_margin(scale, margin, smoothing=0.):
    "The twin of a margin loss: `margin(theta, class)` in the target's place."
    def rows(cosines, embeddings, targets):
        return reference.with_target(cosines, targets, scale, margin, smoothing)
    return rows


def naive_by_length(margin, with_centers):
    """The twin of SphereFace and L-Softmax: the scale is the length of the embedding, or of embedding and
    center."""
    def rows(cosines, embeddings, targets):
        lengths = np.sqrt((embeddings**2).sum(1, keepdims=True))
        scale = lengths * HeadInputs.norms.numpy() if with_centers else lengths
        psi = lambda theta, target: reference.psi(theta, margin)
        return reference.with_target(cosines, targets, scale, psi)
    return rows


def naive_on_cosines(naive, scale):
    "The twin of a loss that takes scaled cosines for logits."
    return lambda cosines, embeddings, targets: naive(scale * cosines, targets)


def naive_center(cosines, embeddings, targets):
    return reference.center(embeddings, targets, HeadInputs.centers.numpy())


def naive_sum(cosines, embeddings, targets):
    cosface = naive_margin(9., lambda theta, target: cos(theta) - .35)(cosines, embeddings, targets)
    return cosface + .1 * naive_center(cosines, embeddings, targets)


def naive_hard_rows(logits, targets):
    "The 8 hardest of the 24 rows, 0 for the others."
    rows = reference.cross_entropy(logits, targets)
    return np.where(rows >= np.sort(rows)[-8], rows, 0)


def naive_soft_target(logits, probabilities):
    return sum(probabilities[:, target] * reference.cross_entropy(logits, np.full(len(logits), target))
               for target in range(C))


def arc(theta, margin):
    return cos(theta + margin) if theta + margin < pi else cos(theta) - margin * sin(margin)


AUTO = 2**.5 * np.log(C - 1)  # AdaCos' rule
HEAD_CASES = [
    (NormSoftmax(), naive_margin(AUTO, lambda theta, target: cos(theta))),
    (NormSoftmax(s=12., label_smoothing=.1), naive_margin(12., lambda theta, target: cos(theta), .1)),
    (ArcFace(m=.5, s=30.), lambda cosines, embeddings, targets: reference.arcface(cosines, targets, .5, 30.)),
    (ArcFace(m=.8, s=16., label_smoothing=.1),
     lambda cosines, embeddings, targets: reference.arcface(cosines, targets, .8, 16., .1)),
    (ArcFace(m=MARGINS, s=16.), naive_margin(16., lambda theta, target: arc(theta, MARGINS[target]))),
    (ArcFace(m=.5, s=16., easy_margin=True),
     naive_margin(16., lambda theta, target: cos(theta + .5) if theta < pi / 2 else cos(theta))),
    (CosFace(s=30.), naive_margin(30., lambda theta, target: cos(theta) - .35)),
    (CosFace(m=MARGINS, label_smoothing=.2),
     naive_margin(AUTO, lambda theta, target: cos(theta) - MARGINS[target], .2)),
    (CombinedMargin(s=16.), naive_margin(16., lambda theta, target: reference.psi(theta + .3, 1) - .2)),
    (CombinedMargin(1.4, .5, .1, s=9., label_smoothing=.1),
     naive_margin(9., lambda theta, target: reference.psi(1.4 * theta + .5, 1) - .1, .1)),
    (SphereFace(m=4), naive_by_length(4, with_centers=False)),
    (SphereFace(m=1.35, s=12.), naive_margin(12., lambda theta, target: reference.psi(theta, 1.35))),
    (LargeMarginSoftmax(m=3), naive_by_length(3, with_centers=True)),
    (AdaCos(label_smoothing=.1), naive_margin(S, lambda theta, target: cos(theta), .1)),
    (CurricularFace(m=.5, s=16.),
     lambda cosines, embeddings, targets: reference.curricular(cosines, targets, .5, 16., T)),
    (CenterLoss(), naive_center),
    (CrossEntropy(), naive_on_cosines(reference.cross_entropy, AUTO)),
    (CrossEntropy(WEIGHT, s=8., label_smoothing=.1),
     naive_on_cosines(partial(reference.cross_entropy, weight=WEIGHT, smoothing=.1), 8.)),
    (FocalLoss(2., s=8.), naive_on_cosines(partial(reference.focal, gamma=2.), 8.)),
    (FocalLoss(.5, WEIGHT, s=8.), naive_on_cosines(partial(reference.focal, gamma=.5, weight=WEIGHT), 8.)),
    (SumLoss({'a': CosFace(s=9.), 'b': CenterLoss()}, {'b': .1}), naive_sum),
]
OTHER_CASES = [
    (CrossEntropy(), LogitInputs(), reference.cross_entropy),
    (FocalLoss(.6), LogitInputs(), partial(reference.focal, gamma=.6)),
    (HardRows(CrossEntropy(), .3), LogitInputs(), naive_hard_rows),
    (Triplet(.2), PairInputs(), partial(reference.batch_hard, m=.2)),
    (Triplet(None, normalize=False), PairInputsOfAnyLength(), partial(reference.batch_hard, m=None)),
    (Triplet(.3, 'semihard'), PairInputs(), partial(reference.semi_hard, m=.3)),
    (Contrastive(1.2), PairInputs(), partial(reference.contrastive, m=1.2)),
    (Contrastive(1., normalize=False), PairInputsOfAnyLength(), partial(reference.contrastive, m=1.)),
    (SupCon(.2), PairInputs(), partial(reference.supcon, t=.2)),
    (NTXent(.2), PairInputs(), partial(reference.nt_xent, t=.2)),
    (MultiSimilarity(), PairInputs(),
     partial(reference.multi_similarity, alpha=2., beta=50., base=.5, eps=.1)),
    (MultiLabelFocalLoss(1.5, .3), LabelInputs(), partial(reference.multi_label_focal, gamma=1.5, alpha=.3)),
    (AsymmetricLoss(), LabelInputs(), partial(reference.asymmetric, gamma_pos=1., gamma_neg=4., clip=.05)),
    (AsymmetricLoss(.5, 2., 0.), LabelInputs(),
     partial(reference.asymmetric, gamma_pos=.5, gamma_neg=2., clip=0.)),
    (AsymmetricLoss(.6, .6, .1), LabelInputs(),
     partial(reference.asymmetric, gamma_pos=.6, gamma_neg=.6, clip=.1)),
    (SoftFBeta(2.), LabelInputs(), partial(reference.soft_f_beta, beta=2.)),
    (SoftTarget(), ProbabilityInputs(), naive_soft_target),
    (Distill(3., .7, label_smoothing=.1), TeacherInputs(),
     partial(reference.distill, t=3., alpha=.7, smoothing=.1)),
    (SoftDice(), MaskInputs(), partial(reference.dice, smooth=1.)),
    (SoftDice(.5), ClassMaskInputs(), partial(reference.dice, smooth=.5)),
    (DiceBCE(), MaskInputs(), partial(reference.dice, smooth=1., empties=True)),
    (DiceBCE(), ClassMaskInputs(), partial(reference.dice, smooth=1., empties=True)),
    (Lovasz(), MaskInputs(), reference.lovasz),
    (Lovasz(), ClassMaskInputs(), reference.lovasz),
]
CASES = [*(Case(loss, HeadInputs(), naive) for loss, naive in HEAD_CASES),
         *(Case(loss, inputs, naive) for loss, inputs, naive in OTHER_CASES)]
IDS = [f'{case.name}-{i}' for i, case in enumerate(CASES)]
LOGITS, TARGETS = torch.zeros(2, 3), torch.tensor([0, 1])


def class_name(loss): return type(loss).__name__


def with_reduction(loss, reduction):
    loss = copy.deepcopy(loss)
    loss.reduction = reduction
    return loss


def head_output(cosines, classes=None):
    "A head's output with these cosines and embeddings of zeros."
    embeddings = torch.zeros(len(cosines), 2, dtype=cosines.dtype)
    return HeadOutput(cosines, embeddings, {} if classes is None else {'classes': torch.tensor(classes)})
