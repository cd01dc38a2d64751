"Each loss against its paper's formula in float64, its limits, its gradient, and the extremes of half precision."
# ruff: noqa: F403, F405
import copy
import math

import numpy as np
import pytest
import torch

import fastmatch.losses
from fastmatch.core import HeadOutput, InputError
from fastmatch.losses import *
from fastmatch.losses.base import NotANumber
from tests.losses.cases import CASES, IDS, C, N, rand

# (rtol, atol) of a whole loss: half and bfloat16 inputs are exact, what is compared is the float32 arithmetic on them
TOLERANCE = {torch.float16: (1e-5, 1e-5), torch.bfloat16: (1e-5, 1e-5), torch.float32: (1e-5, 1e-5), torch.float64: (1e-12, 1e-12)}
each_loss = pytest.mark.parametrize('case', CASES, ids=IDS)


def with_reduction(loss, how):
    loss = copy.deepcopy(loss)
    loss.reduction = how
    return loss


def test_every_loss_is_proved():
    ours = {o for k in fastmatch.losses.__all__ if isinstance(o := getattr(fastmatch.losses, k), type)} - {Loss}
    assert ours == {type(o.loss) for o in CASES}


@pytest.mark.parametrize('dtype', TOLERANCE)
@each_loss
def test_equals_the_paper(case, dtype):
    leaves, ys = [o.to(dtype) for o in case.reads.leaves()], case.reads.targets()
    want, (rtol, atol) = case.rows(leaves), TOLERANCE[dtype]
    got = with_reduction(case.loss, 'none')(case.reads.build(*leaves), *ys)
    assert got.shape == want.shape and got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    np.testing.assert_allclose(got.double().numpy(), want, rtol=rtol, atol=atol)
    total = with_reduction(case.loss, 'sum')(case.reads.build(*leaves), *ys)
    assert math.isclose(float(total), want.sum(), rel_tol=max(rtol, 1e-12))


@each_loss
def test_gradcheck(case):
    # rows 0 and 1 of a head sit near the clamp's edge, where a difference quotient says little
    leaves, ys = [o.clone() for o in case.reads.leaves()], case.reads.targets()
    if leaves[0].shape == (N, C): leaves, ys = [o[2:12] for o in leaves], [o[2:12] for o in ys]
    for o in leaves: o.requires_grad_()
    assert torch.autograd.gradcheck(lambda *xs: with_reduction(case.loss, 'mean')(case.reads.build(*xs), *ys), leaves)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize('value', [1., -1., 'mixed', 0., 'right', 'wrong'])
@each_loss
def test_finite_at_the_extremes(case, value, dtype):
    leaves = case.reads.extremes(1. if value == 'mixed' else value)
    if value == 'mixed':
        for o in leaves: o.view(-1)[::2] *= -1
    leaves = [o.to(dtype).requires_grad_() for o in leaves]
    out = with_reduction(case.loss, 'mean')(case.reads.build(*leaves), *case.reads.targets())
    out.backward()
    assert torch.isfinite(out) and all(torch.isfinite(o.grad).all() for o in leaves if o.grad is not None)


@each_loss
def test_no_parameters_no_state(case):
    def state(loss): return [{k: v for k, v in vars(m).items() if not k.startswith('_')} for m in loss.modules()]
    before = copy.deepcopy(state(case.loss))
    case.loss(case.reads.build(*case.reads.leaves()), *case.reads.targets())
    assert list(case.loss.parameters()) == [] and list(case.loss.buffers()) == [] and case.loss.state_dict() == {}
    assert str(state(case.loss)) == str(before) and isinstance(case.loss, Loss)


@each_loss
def test_batch_order_does_not_matter(case):
    leaves, ys = case.reads.leaves(), case.reads.targets()
    perm, loss = torch.randperm(len(ys[0]), generator=torch.Generator().manual_seed(3)), with_reduction(case.loss, 'mean')
    a = loss(case.reads.build(*leaves), *ys)
    torch.testing.assert_close(loss(case.reads.build(*(o[perm] for o in leaves)), *(o[perm] for o in ys)), a, rtol=1e-10, atol=1e-12)


@each_loss
def test_autocast_changes_nothing(case):
    leaves, ys = [o.float() for o in case.reads.leaves()], case.reads.targets()
    want = case.loss(case.reads.build(*leaves), *ys)
    with torch.autocast('cpu', dtype=torch.bfloat16): torch.testing.assert_close(case.loss(case.reads.build(*leaves), *ys), want)


@pytest.mark.parametrize('case', [o for o in CASES if len(o.reads.targets()) == 1 and not isinstance(o.loss, HardRows)], ids=lambda o: o.name)
def test_two_targets_are_the_blend_of_two_losses(case):
    "fastai's mixing sets `reduction` to 'none', blends the rows and takes the mean; the loss is put back afterwards."
    from fastai.callback.mixup import reduce_loss
    from fastai.layers import NoneReduce
    out, y = case.reads.build(*case.reads.leaves()), case.reads.targets()[0]
    lam, how = torch.linspace(.5, 1, len(y), dtype=torch.float64), case.loss.reduction
    with NoneReduce(case.loss) as lf: got = reduce_loss(torch.lerp(lf(out, y.flip(0)), lf(out, y), lam), case.loss.reduction)
    rows = [case.naive(*case.reads.numpy(*case.reads.leaves()), o.numpy()) for o in (y, y.flip(0))]
    np.testing.assert_allclose(got.mean().item(), (lam.numpy() * rows[0] + (1 - lam.numpy()) * rows[1]).mean(), rtol=1e-10)
    assert case.loss.reduction == how


def head(cos): return HeadOutput(cos, torch.zeros(len(cos), 2, dtype=cos.dtype))


def test_several_heads_are_summed():
    cos, y = rand(N, C), torch.arange(N) % C
    loss = NormSoftmax(s=5., head_weights={'joint': .5})
    want = NormSoftmax(s=5.)(head(cos), y) + .5 * NormSoftmax(s=5.)(head(cos.flip(0)), y)
    torch.testing.assert_close(loss({'image': head(cos), 'joint': head(cos.flip(0))}, y), want)
    with pytest.raises(InputError, match='head_weights.*title'): NormSoftmax(head_weights={'title': 2.})({'image': head(cos)}, y)


def test_head_output_survives_fastais_apply():
    from fastai.torch_core import to_detach, to_float
    out = {'image': HeadOutput(torch.ones(2, 3, dtype=torch.float16, requires_grad=True), torch.ones(2, 4), {'classes': torch.arange(3)})}
    res = to_float(to_detach(out))
    assert isinstance(res['image'], HeadOutput) and res['image'].cos.dtype == torch.float32 and res['image'].emb.shape == (2, 4)
    assert torch.equal(res['image'].extra['classes'], torch.arange(3)) and HeadOutput(torch.ones(1), torch.ones(1)).extra == {}


COS, Y, X = head(torch.zeros(2, 3)), torch.tensor([0, 1]), torch.zeros(2, 3)


@pytest.mark.parametrize('make, words', [
    (lambda: ArcFace(m=3.5), 'm=3.5.*pi'), (lambda: ArcFace(s=0), 's=0'), (lambda: FocalLoss(gamma=-1), 'gamma=-1'), (lambda: CosFace(m=-.1), 'm=-.1|m=-0.1'),
    (lambda: SphereFace(m=.5), 'm=0.5'), (lambda: CombinedMargin(.9), 'm1=0.9'), (lambda: ArcFace(m=[.1, 4.]), 'pi'),
    (lambda: ArcFace(m=[.1, .2])(COS, torch.tensor([0, 2])), '2 margins, the head 3 classes'),
    (lambda: NormSoftmax(label_smoothing=2), 'label_smoothing=2'), (lambda: NormSoftmax(reduction='avg'), "reduction='avg'"),
    (lambda: CrossEntropy(weight=[1., -1.]), 'weight'), (lambda: CrossEntropy([1., 2.])(X, Y), '2 entries for 3'),
    (lambda: ArcFace()(COS, torch.tensor([0, 3])), 'labels from 0 to 3 for 3 classes.*0 to 2'), (lambda: CrossEntropy()(X, torch.tensor([-1, 1])), 'labels from -1 to 1'),
    (lambda: ArcFace()({'image': COS, 'title': COS}, torch.tensor([0, 3])), 'labels from 0 to 3'), (lambda: FocalLoss()(X, torch.zeros(2)), r'int64 \(2,\).*float32'),
    (lambda: CrossEntropy()(X, torch.zeros(3, dtype=torch.long)), r'\(3,\)'), (lambda: SphereFace(math.inf), 'm=inf'), (lambda: CombinedMargin(m3=math.nan), 'm3=nan'),
    (lambda: NormSoftmax(math.inf), 's=inf'), (lambda: CrossEntropy(s=-2), 's=-2'), (lambda: Triplet(math.nan), 'm=nan'), (lambda: Contrastive(math.inf), 'm=inf'),
    (lambda: ArcFace([.1] * 4)(COS, Y), '4 margins, the head 3 classes'),
    (lambda: ArcFace([.1] * 6)(HeadOutput(X, X, {'classes': torch.tensor([1, 4, 6])}), torch.tensor([4, 6])), '6 margins'),
    (lambda: SumLoss({'a': ArcFace(), 'b': Triplet()})(HeadOutput(X, X), Y), 'Triplet.*2 rows and 2 classes.*2 rows of one'),
    (lambda: MultiLabelFocalLoss()(X, 2 * torch.ones(2, 3)), 'targets from 2 to 2'), (lambda: SoftTarget()(X, torch.ones(2, 3)), 'sums of rows from 3 to 3'),
    (lambda: SoftTarget()(X, torch.tensor([[-1., 1., 1.]] * 2)), 'from -1 to 1'), (lambda: HardRows(CrossEntropy(), .5)(X, torch.tensor([0, 7])), 'labels from 0 to 7'), (lambda: ArcFace()(X, Y), 'cosines'),
    (lambda: CenterLoss()(X, Y), 'cosines'), (lambda: CenterLoss()(COS, Y), 'CenterHead'), (lambda: CurricularFace()(COS, Y), 'TrackedHead'),
    (lambda: AdaCos()(COS, Y), 'TrackedHead'), (lambda: LargeMarginSoftmax()(COS, Y), "'norms'"),
    (lambda: ArcFace()(HeadOutput(X, X, {'classes': torch.tensor([1, 4, 6])}), torch.tensor([4, 5])), 'without those of the labels 5'),
    (lambda: Triplet(m=-1), 'm=-1'), (lambda: Triplet(mine='easy'), "mine='easy'"), (lambda: Contrastive(0), 'm=0'), (lambda: SupCon(0), 't=0'),
    (lambda: MultiSimilarity(alpha=0), 'alpha=0'), (lambda: Triplet()(torch.zeros(3, 2), Y), '2 labels'),
    (lambda: AsymmetricLoss(clip=1), 'clip=1'), (lambda: MultiLabelFocalLoss(alpha=2), 'alpha=2'), (lambda: SoftFBeta(0), 'beta=0'),
    (lambda: MultiLabelFocalLoss()(X, Y[:, None]), r'\(2, 3\).*\(2, 1\)'), (lambda: MultiLabelFocalLoss()(X, Y + 2), 'labels from 2 to 3'), (lambda: SoftTarget()(X, Y), r'\(2, 3\).*\(2,\)'),
    (lambda: Distill(t=0), 't=0'), (lambda: Distill()(X, Y, torch.zeros(2, 4)), r"teacher's \(2, 4\)"), (lambda: Distill(weight=[1., 2.]), 'SumLoss'),
    (lambda: HardRows(CrossEntropy(), 0), 'share=0'), (lambda: SumLoss({}), 'parts'), (lambda: SumLoss({'one': ArcFace()}), "'one'"), (lambda: SumLoss({'a': ArcFace()}, {'b': 1.}), "'b'"),
    (lambda: SoftDice(0), 'smooth=0'), (lambda: SoftDice()(torch.zeros(2, 1, 3, 3), torch.zeros(2, 4, 3)), 'masks'),
    (lambda: SoftDice()(torch.zeros(1, 1, 2, 2), 255 * torch.ones(1, 2, 2)), 'masks from 255 to 255 for 2 classes'),
    (lambda: class_weights([1, 0, 2]), 'class 1'), (lambda: class_weights([[1]]), r'\(1, 1\)'), (lambda: class_weights([1], 'log'), "how='log'"), (lambda: class_weights([1], beta=1), 'beta=1'),
    (lambda: class_margins([1, 0]), 'counts'),
])
def test_bad_input_is_named(make, words):
    with pytest.raises(InputError, match=words): make()


@each_loss
def test_nan_is_told_with_its_place_and_range(case):
    leaves, ys = case.reads.leaves(), case.reads.targets()
    for o in leaves: o[2] = math.nan
    with pytest.raises(NotANumber, match=r': NaN in 1 of \d+ rows \(2\)\. .* are NaN, the others run from -.* rate'): case.loss(case.reads.build(*leaves), *ys)


def test_nan_is_told_by_heads_too():
    cos = torch.linspace(-.5, .7, 6).view(2, 3)
    bad = cos.clone()
    bad[1, 2] = math.nan
    with pytest.raises(NotANumber, match=r'ArcFace: NaN in 1 of 2 rows \(1\). Of the 6 values it reads 1 are NaN, the others run from -0.5 to 0.46'):
        ArcFace()({'image': head(cos), 'title': head(bad)}, Y)
