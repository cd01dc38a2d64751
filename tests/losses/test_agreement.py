"""The same loss in another library gives the same number and gradient: pytorch-metric-learning,
torchvision, timm, fastai."""
# ruff: noqa: F403, F405
import importlib
import math

import pytest
import torch
import torch.nn.functional as F

from fastmatch.layers.heads import CosineHead
from fastmatch.losses import *

N, D, C = 24, 8, 6


def rows(seed=0):
    return torch.randn(N, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TARGETS = torch.arange(N) % C
PAIRS = torch.arange(N) // 2  # two rows of each class


def assert_same(ours, theirs, inputs, **tolerance):
    "Same value and same gradient at `inputs`."
    our_inputs, their_inputs = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    our_loss, their_loss = ours(our_inputs), theirs(their_inputs)
    torch.testing.assert_close(our_loss, their_loss, **tolerance)
    our_grad, = torch.autograd.grad(our_loss, our_inputs)
    their_grad, = torch.autograd.grad(their_loss, their_inputs)
    torch.testing.assert_close(our_grad, their_grad, **tolerance)


@pytest.fixture
def metric_learning():
    package = pytest.importorskip('pytorch_metric_learning', reason='pip install pytorch-metric-learning')
    for name in ('distances', 'losses', 'miners', 'reducers'):
        importlib.import_module(f'{package.__name__}.{name}')
    return package


@pytest.mark.parametrize('name, options, ours, k', [
    ('ArcFaceLoss', dict(margin=math.degrees(.4), scale=16), ArcFace(.4, 16.), 1),
    ('CosFaceLoss', dict(margin=.3, scale=16), CosFace(.3, 16.), 1),
    ('NormalizedSoftmaxLoss', dict(temperature=1 / 16), NormSoftmax(16.), 1),
    ('SphereFaceLoss', dict(margin=3), SphereFace(3), 1),
    ('LargeMarginSoftmaxLoss', dict(margin=3), LargeMarginSoftmax(3), 1),
    ('SubCenterArcFaceLoss', dict(margin=math.degrees(.4), scale=16, sub_centers=3), ArcFace(.4, 16.), 3)])
def test_margins(metric_learning, name, options, ours, k):
    embeddings = rows()
    head = CosineHead(D, C, k).double()
    theirs = getattr(metric_learning.losses, name)(num_classes=C, embedding_size=D, **options).double()
    with torch.no_grad(): theirs.W.copy_(head.weight.t())
    assert_same(lambda inputs: ours(head(inputs), TARGETS), lambda inputs: theirs(inputs, TARGETS),
                embeddings, rtol=1e-6, atol=1e-8)
    our_grad, = torch.autograd.grad(ours(head(embeddings), TARGETS), head.weight)
    their_grad, = torch.autograd.grad(theirs(embeddings, TARGETS), theirs.W)
    torch.testing.assert_close(our_grad, their_grad.t(), rtol=1e-6, atol=1e-7)


def their_supcon(package, embeddings): return package.losses.SupConLoss(temperature=.2)(embeddings, TARGETS)


def their_multi_similarity(package, embeddings):
    mined_pairs = package.miners.MultiSimilarityMiner(epsilon=.1)(embeddings, TARGETS)
    return package.losses.MultiSimilarityLoss(alpha=2, beta=50, base=.5)(embeddings, TARGETS, mined_pairs)


def their_triplet(package, embeddings):
    loss = package.losses.TripletMarginLoss(margin=.2, reducer=package.reducers.SumReducer())
    return loss(embeddings, TARGETS, package.miners.BatchHardMiner()(embeddings, TARGETS))


@pytest.mark.parametrize('ours, theirs', [
    (SupCon(.2), their_supcon),
    (MultiSimilarity(), their_multi_similarity),
    (Triplet(.2, reduction='sum'), their_triplet)],
    ids=['SupCon', 'MultiSimilarity', 'Triplet'])
def test_pairs(metric_learning, ours, theirs):
    assert_same(lambda inputs: ours(inputs, TARGETS), lambda inputs: theirs(metric_learning, inputs),
                rows(1), rtol=1e-6, atol=1e-8)


def test_ntxent(metric_learning):
    theirs = metric_learning.losses.NTXentLoss(temperature=.3)
    assert_same(lambda inputs: NTXent(.3)(inputs, PAIRS), lambda inputs: theirs(inputs, PAIRS), rows(2))


def test_contrastive_of_positives_and_negatives(metric_learning):
    "Theirs has the hinge unsquared: equal on squared distances where no negative is within the margin."
    theirs = metric_learning.losses.ContrastiveLoss(pos_margin=0, neg_margin=0,
                                                    distance=metric_learning.distances.LpDistance(power=2),
                                                    reducer=metric_learning.reducers.SumReducer())
    ours = Contrastive(1e-9, reduction='sum')
    assert_same(lambda inputs: 2 * (N - 1) * ours(inputs, PAIRS), lambda inputs: theirs(inputs, PAIRS),
                rows(3))


@pytest.mark.parametrize('gamma, alpha, their_alpha', [(2., .25, .25), (1.5, None, -1), (0., .5, .5)])
def test_multi_label_focal_is_torchvisions(gamma, alpha, their_alpha):
    from torchvision.ops import sigmoid_focal_loss
    targets = (rows(1) > 0).double()
    ours = MultiLabelFocalLoss(gamma, alpha)
    assert_same(lambda logits: ours(logits, targets),
                lambda logits: sigmoid_focal_loss(logits, targets, their_alpha, gamma, 'mean'), 3 * rows())


@pytest.mark.parametrize('gamma_pos, gamma_neg, clip', [(1., 4., .05), (0., 2., .2), (0., 0., 0.)])
def test_asymmetric_is_timms(gamma_pos, gamma_neg, clip):
    from timm.loss import AsymmetricLossMultiLabel
    targets = (rows(1) > 0).float()
    ours = AsymmetricLoss(gamma_pos, gamma_neg, clip)
    theirs = AsymmetricLossMultiLabel(gamma_pos=gamma_pos, gamma_neg=gamma_neg, clip=clip, reduction='mean')
    assert_same(lambda logits: ours(logits, targets), lambda logits: theirs(logits, targets),
                3 * rows().float(), rtol=1e-4, atol=1e-6)


def test_soft_targets_are_timms():
    from timm.loss import SoftTargetCrossEntropy
    probabilities = rows(1).softmax(1)
    assert_same(lambda logits: SoftTarget()(logits, probabilities),
                lambda logits: SoftTargetCrossEntropy()(logits, probabilities), 3 * rows())


def test_focal_and_dice_are_fastais():
    from fastai.losses import DiceLoss, FocalLossFlat
    logits, targets = 3 * rows().float(), torch.arange(N) % D
    assert_same(lambda inputs: FocalLoss(2.)(inputs, targets),
                lambda inputs: FocalLossFlat(gamma=2.)(inputs, targets), logits)
    logits, masks = logits.reshape(2, 3, 4, 8), torch.randint(3, (2, 4, 8))
    theirs = DiceLoss(smooth=.5, reduction='mean')
    assert_same(lambda inputs: SoftDice(.5)(inputs, masks), lambda inputs: theirs(inputs, masks), logits)


def test_unlike_fastais_the_weight_leaves_p_t_alone():
    from fastai.losses import FocalLossFlat
    logits, targets, weight = torch.tensor([[0., 2.75]]), torch.tensor([0]), torch.tensor([10., 1.])
    probability = F.softmax(logits, 1)[0, 0]
    expected = float(10 * (1 - probability)**2 * -probability.log())
    ours = float(FocalLoss(2., weight, reduction='sum')(logits, targets))
    theirs = float(FocalLossFlat(gamma=2., weight=weight, reduction='sum')(logits, targets))
    assert abs(ours - expected) < 1e-4 < abs(theirs - expected)
