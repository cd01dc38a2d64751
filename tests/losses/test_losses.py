"Each loss against its paper's formula in float64, its limits, its gradient, and the extremes of half precision."
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastmatch.core import InputError
from fastmatch.layers import BNNeck, CosineHead, HeadOutput
from fastmatch.losses import ArcFace, CrossEntropy, FocalLoss, Loss, NormSoftmax

from ..reference import losses as ref

N, C = 24, 7
WEIGHT = [1., .5, 2., 1., .1, 3., 1.]
# (rtol, atol) of a whole loss: half and bfloat16 inputs are exact, what is compared is the float32 arithmetic on them
TOLERANCE = {torch.float16: (1e-5, 1e-5), torch.bfloat16: (1e-5, 1e-5), torch.float32: (1e-5, 1e-5), torch.float64: (1e-12, 1e-12)}


@pytest.fixture
def data():
    gen = torch.Generator().manual_seed(0)
    cos = torch.rand(N, C, generator=gen, dtype=torch.float64) * 1.9 - .95
    # the hard corners: the target nearly opposite and nearly alike
    cos[0], cos[1] = -.99, .99
    return cos, torch.randint(C, (N,), generator=gen)


def head(cos): return HeadOutput(cos, torch.zeros(len(cos), 2, dtype=cos.dtype))


CASES = [
    (NormSoftmax(s=12.), lambda c, y: ref.arcface(c, y, 0., 12.)),
    (NormSoftmax(s=12., label_smoothing=.1), lambda c, y: ref.arcface(c, y, 0., 12., .1)),
    (ArcFace(m=.5, s=30.), lambda c, y: ref.arcface(c, y, .5, 30.)),
    (ArcFace(m=.8, s=16., label_smoothing=.1), lambda c, y: ref.arcface(c, y, .8, 16., .1)),
    (CrossEntropy(s=8.), lambda c, y: ref.cross_entropy(8 * c, y)),
    (CrossEntropy(WEIGHT, s=8., label_smoothing=.1), lambda c, y: ref.cross_entropy(8 * c, y, WEIGHT, .1)),
    (FocalLoss(2., s=8.), lambda c, y: ref.focal(8 * c, y, 2.)),
    (FocalLoss(.5, WEIGHT, s=8.), lambda c, y: ref.focal(8 * c, y, .5, WEIGHT)),
]
IDS = [f'{type(o).__name__}-{i}' for i, (o, _) in enumerate(CASES)]


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('loss, naive', CASES, ids=IDS)
def test_equals_the_paper(loss, naive, dtype, data):
    cos, y = data[0].to(dtype), data[1]
    loss.reduction = 'none'
    want = naive(cos.double().numpy(), y.numpy())
    rtol, atol = TOLERANCE[dtype]
    np.testing.assert_allclose(loss(head(cos), y).double().numpy(), want, rtol=rtol, atol=atol)
    loss.reduction = 'sum'
    assert math.isclose(float(loss(head(cos), y)), want.sum(), rel_tol=max(rtol, 1e-12))


@pytest.mark.parametrize('loss', [o for o, _ in CASES], ids=IDS)
def test_gradcheck(loss, data):
    # rows 0 and 1 sit at the clamp's edge, where a difference quotient says nothing
    cos, y = data[0][2:8].clone().requires_grad_(), data[1][2:8]
    loss.reduction = 'mean'
    assert torch.autograd.gradcheck(lambda c: loss(head(c), y), cos)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize('value', [1., -1.])
@pytest.mark.parametrize('loss', [o for o, _ in CASES], ids=IDS)
def test_finite_at_the_extremes(loss, value, dtype):
    loss.reduction = 'mean'
    cos = torch.full((4, C), value, dtype=dtype, requires_grad=True)
    out = loss(head(cos), torch.arange(4))
    out.backward()
    assert torch.isfinite(out) and torch.isfinite(cos.grad).all()


def test_limits(data):
    cos, y = data
    plain = CrossEntropy(s=30.)(head(cos), y)
    torch.testing.assert_close(ArcFace(m=0., s=30.)(head(cos), y), plain)
    torch.testing.assert_close(NormSoftmax(s=30.)(head(cos), y), plain)
    torch.testing.assert_close(FocalLoss(0., s=30.)(head(cos), y), plain)
    torch.testing.assert_close(CrossEntropy()(cos * 5, y), F.cross_entropy(cos * 5, y))


def test_margin_is_monotone_past_pi():
    cos = torch.linspace(-.999, .999, 2001, dtype=torch.float64)
    target = ArcFace(m=.8).margin(cos, None)
    assert (target.diff() > 0).all() and (target < cos).all()


def test_weighted_mean_is_torchs(data):
    logits, y = 4 * data[0], data[1]
    w = torch.tensor(WEIGHT, dtype=torch.float64)
    torch.testing.assert_close(CrossEntropy(WEIGHT)(logits, y), F.cross_entropy(logits, y, w))


def test_focal_weight_leaves_p_t_alone():
    logits, y = torch.tensor([[0., 2.75]], dtype=torch.float64), torch.tensor([0])
    loss = FocalLoss(2., [10., 1.], reduction='none')
    p = 1 / (1 + math.exp(2.75))
    assert math.isclose(float(loss(logits, y)), 10 * (1 - p)**2 * -math.log(p), rel_tol=1e-12)


def test_batch_order_and_embedding_length_do_not_matter(data):
    torch.manual_seed(0)
    layer, x, y = CosineHead(5, C).double(), torch.randn(N, 5, dtype=torch.float64), data[1]
    loss, perm = ArcFace(), torch.randperm(N)
    a = loss(layer(x), y)
    torch.testing.assert_close(loss(layer(x[perm]), y[perm]), a)
    torch.testing.assert_close(loss(layer(17 * x), y), a)
    np.testing.assert_allclose(layer(x).cos[3, 2].item(), np.dot(x[3], layer.weight[2].detach()) / x[3].norm() / layer.weight[2].norm().item())


def test_several_heads_are_summed(data):
    cos, y = data
    loss = NormSoftmax(s=5., head_weights={'joint': .5})
    want = NormSoftmax(s=5.)(head(cos), y) + .5 * NormSoftmax(s=5.)(head(cos.flip(0)), y)
    torch.testing.assert_close(loss({'image': head(cos), 'joint': head(cos.flip(0))}, y), want)
    with pytest.raises(InputError, match='head_weights.*title'): NormSoftmax(head_weights={'title': 2.})({'image': head(cos)}, y)


def test_own_loss_is_one_method(data):
    class CosFace(NormSoftmax):
        def margin(self, cos, y): return cos - .35
    cos, y = data
    z = 30 * cos.numpy().clip(-1 + 1e-6, 1 - 1e-6)
    z[np.arange(N), y] -= 30 * .35
    np.testing.assert_allclose(float(CosFace()(head(cos), y)), ref.cross_entropy(z, y.numpy()).mean(), rtol=1e-9)


@pytest.mark.parametrize('loss', [o for o, _ in CASES], ids=IDS)
def test_no_parameters_no_state(loss, data):
    before = {k: v for k, v in vars(loss).items() if not k.startswith('_')}
    loss(head(data[0]), data[1])
    assert list(loss.parameters()) == [] and list(loss.buffers()) == []
    assert {k: v for k, v in vars(loss).items() if not k.startswith('_')} == before and isinstance(loss, Loss)


@pytest.mark.parametrize('make, words', [
    (lambda: ArcFace(m=3.5), 'm=3.5.*pi'), (lambda: ArcFace(s=0), 's=0'), (lambda: FocalLoss(gamma=-1), 'gamma=-1'),
    (lambda: NormSoftmax(label_smoothing=2), 'label_smoothing=2'), (lambda: NormSoftmax(reduction='avg'), "reduction='avg'"),
    (lambda: CrossEntropy(weight=[1., -1.]), 'weight'), (lambda: CrossEntropy([1., 2.])(torch.zeros(2, 3), torch.tensor([0, 1])), '2 entries for 3'),
    (lambda: ArcFace()(head(torch.zeros(2, 3)), torch.tensor([0, 3])), 'labels from 0 to 3 for 3 classes'),
    (lambda: ArcFace()(torch.zeros(2, 3), torch.tensor([0, 1])), 'cosines'),
])
def test_bad_input_is_named(make, words):
    with pytest.raises(InputError, match=words): make()


def test_bnneck_has_no_trained_shift():
    neck = BNNeck(3)
    neck(torch.randn(8, 3) + 5).sum().backward()
    assert neck.bias.grad is None and not neck.bias.requires_grad and neck.weight.requires_grad


def test_head_output_survives_fastais_apply():
    from fastai.torch_core import to_detach, to_float
    out = {'image': HeadOutput(torch.ones(2, 3, dtype=torch.float16, requires_grad=True), torch.ones(2, 4))}
    res = to_float(to_detach(out))
    assert isinstance(res['image'], HeadOutput) and res['image'].cos.dtype == torch.float32 and res['image'].emb.shape == (2, 4)
