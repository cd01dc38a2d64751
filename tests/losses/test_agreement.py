"The same loss in another library gives the same number and gradient: pytorch-metric-learning, torchvision, timm, fastai."
import importlib
import math

import pytest
import torch
import torch.nn.functional as F

from fastmatch.layers.heads import CosineHead
from fastmatch.losses import *

# ruff: noqa: F403, F405
N, D, C = 24, 8, 6


def data(seed=0):
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(N, D, generator=gen, dtype=torch.float64), torch.arange(N) % C


def both(ours, theirs, x, **tol):
    "Same value and same gradient at `x`."
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    u, v = ours(a), theirs(b)
    torch.testing.assert_close(u, v, **tol)
    torch.testing.assert_close(torch.autograd.grad(u, a)[0], torch.autograd.grad(v, b)[0], **tol)


@pytest.fixture
def pml():
    res = pytest.importorskip('pytorch_metric_learning', reason='pip install pytorch-metric-learning')
    for o in ('distances', 'losses', 'miners', 'reducers'): importlib.import_module(f'pytorch_metric_learning.{o}')
    return res


@pytest.mark.parametrize('name, theirs, ours, k', [
    ('ArcFaceLoss', dict(margin=math.degrees(.4), scale=16), ArcFace(.4, 16.), 1),
    ('CosFaceLoss', dict(margin=.3, scale=16), CosFace(.3, 16.), 1),
    ('NormalizedSoftmaxLoss', dict(temperature=1 / 16), NormSoftmax(16.), 1),
    ('SphereFaceLoss', dict(margin=3), SphereFace(3), 1),
    ('LargeMarginSoftmaxLoss', dict(margin=3), LargeMarginSoftmax(3), 1),
    ('SubCenterArcFaceLoss', dict(margin=math.degrees(.4), scale=16, sub_centers=3), ArcFace(.4, 16.), 3)])
def test_margins(pml, name, theirs, ours, k):
    x, y = data()
    head = CosineHead(D, C, k).double()
    loss = getattr(pml.losses, name)(num_classes=C, embedding_size=D, **theirs).double()
    with torch.no_grad(): loss.W.copy_(head.weight.t())
    both(lambda v: ours(head(v), y), lambda v: loss(v, y), x, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(torch.autograd.grad(ours(head(x), y), head.weight)[0], torch.autograd.grad(loss(x, y), loss.W)[0].t(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('ours, theirs', [
    (SupCon(.2), lambda p: p.losses.SupConLoss(temperature=.2)),
    (MultiSimilarity(), lambda p: lambda x, y: p.losses.MultiSimilarityLoss(alpha=2, beta=50, base=.5)(x, y, p.miners.MultiSimilarityMiner(epsilon=.1)(x, y))),
    (Triplet(.2, reduction='sum'), lambda p: lambda x, y: p.losses.TripletMarginLoss(margin=.2, reducer=p.reducers.SumReducer())(x, y, p.miners.BatchHardMiner()(x, y)))],
    ids=['SupCon', 'MultiSimilarity', 'Triplet'])
def test_pairs(pml, ours, theirs):
    x, y = data(1)
    both(lambda v: ours(v, y), lambda v: theirs(pml)(v, y), x, rtol=1e-6, atol=1e-8)


def test_ntxent(pml):
    x, _ = data(2)
    y = torch.arange(N) // 2
    both(lambda v: NTXent(.3)(v, y), lambda v: pml.losses.NTXentLoss(temperature=.3)(v, y), x)


def test_contrastive_of_positives_and_negatives(pml):
    "Theirs has the hinge unsquared: equal on squared distances where no negative is within the margin."
    x, _ = data(3)
    y = torch.arange(N) // 2
    near = pml.distances.LpDistance(power=2)
    theirs = pml.losses.ContrastiveLoss(pos_margin=0, neg_margin=0, distance=near, reducer=pml.reducers.SumReducer())
    both(lambda v: 2 * (N - 1) * Contrastive(1e-9, reduction='sum')(v, y), lambda v: theirs(v, y), x)


def test_multi_label_focal_is_torchvisions():
    from torchvision.ops import sigmoid_focal_loss
    x, y = 3 * data()[0], (data(1)[0] > 0).double()
    for gamma, alpha, given in ((2., .25, .25), (1.5, None, -1), (0., .5, .5)):
        both(lambda v, g=gamma, a=alpha: MultiLabelFocalLoss(g, a)(v, y), lambda v, g=gamma, a=given: sigmoid_focal_loss(v, y, a, g, 'mean'), x)


def test_asymmetric_is_timms():
    from timm.loss import AsymmetricLossMultiLabel
    x, y = 3 * data()[0].float(), (data(1)[0] > 0).float()
    for pos, neg, clip in ((1., 4., .05), (0., 2., .2), (0., 0., 0.)):
        theirs = AsymmetricLossMultiLabel(gamma_pos=pos, gamma_neg=neg, clip=clip, reduction='mean')
        both(lambda v, a=(pos, neg, clip): AsymmetricLoss(*a)(v, y), lambda v, t=theirs: t(v, y), x, rtol=1e-4, atol=1e-6)


def test_soft_targets_are_timms():
    from timm.loss import SoftTargetCrossEntropy
    x, p = 3 * data()[0], data(1)[0].softmax(1)
    both(lambda v: SoftTarget()(v, p), lambda v: SoftTargetCrossEntropy()(v, p), x)


def test_focal_and_dice_are_fastais():
    from fastai.losses import DiceLoss, FocalLossFlat
    x, y = 3 * data()[0].float(), torch.arange(N) % D
    both(lambda v: FocalLoss(2.)(v, y), lambda v: FocalLossFlat(gamma=2.)(v, y), x)
    x, y = 3 * data()[0].float().reshape(2, 3, 4, 8), torch.randint(3, (2, 4, 8))
    both(lambda v: SoftDice(.5)(v, y), lambda v: DiceLoss(smooth=.5, reduction='mean')(v, y), x)


def test_unlike_fastais_the_weight_leaves_p_t_alone():
    from fastai.losses import FocalLossFlat
    x, y, w = torch.tensor([[0., 2.75]]), torch.tensor([0]), torch.tensor([10., 1.])
    p = F.softmax(x, 1)[0, 0]
    want = float(10 * (1 - p)**2 * -p.log())
    assert abs(float(FocalLoss(2., w, reduction='sum')(x, y)) - want) < 1e-4 < abs(float(FocalLossFlat(gamma=2., weight=w, reduction='sum')(x, y)) - want)
