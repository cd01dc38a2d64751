"""Each loss against its paper's formula in float64, its gradient, the extremes of half precision, and
what it refuses."""
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
from tests.losses.cases import CASES, IDS, LOGITS, TARGETS, C, N, head_output, with_reduction
from tests.reference import losses as reference

# (rtol, atol) of a whole loss: half and bfloat16 inputs are exact, what is compared is the float32 arithmetic
# on them
TOLERANCE = {torch.float16: (1e-5, 1e-5), torch.bfloat16: (1e-5, 1e-5), torch.float32: (1e-5, 1e-5),
             torch.float64: (1e-12, 1e-12)}
each_loss = pytest.mark.parametrize('case', CASES, ids=IDS)


def test_every_loss_is_proved():
    public_items = (getattr(fastmatch.losses, name) for name in fastmatch.losses.__all__)
    # the one over two outputs of a model is proved with the other losses of masks
    proved_elsewhere = {Loss, fastmatch.losses.MaskAndPresence}
    public_losses = {item for item in public_items if isinstance(item, type)} - proved_elsewhere
    assert public_losses == {type(case.loss) for case in CASES}


@pytest.mark.parametrize('dtype', TOLERANCE)
@each_loss
def test_equals_the_paper(case, dtype):
    leaves = [leaf.to(dtype) for leaf in case.inputs.leaves()]
    targets = case.inputs.targets()
    expected = case.rows(leaves)
    rtol, atol = TOLERANCE[dtype]
    row_losses = with_reduction(case.loss, 'none')(case.inputs.build(*leaves), *targets)
    assert row_losses.shape == expected.shape
    assert row_losses.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    np.testing.assert_allclose(row_losses.double().numpy(), expected, rtol=rtol, atol=atol)
    total = with_reduction(case.loss, 'sum')(case.inputs.build(*leaves), *targets)
    assert math.isclose(float(total), expected.sum(), rel_tol=max(rtol, 1e-12))


@each_loss
def test_gradcheck(case):
    leaves = [leaf.clone() for leaf in case.inputs.leaves()]
    targets = case.inputs.targets()
    # rows 0 and 1 of a head are near the edge of the clamp, where a difference quotient says little
    if leaves[0].shape == (N, C):
        leaves = [leaf[2:12] for leaf in leaves]
        targets = [target[2:12] for target in targets]
    for leaf in leaves: leaf.requires_grad_()
    loss = with_reduction(case.loss, 'mean')
    assert torch.autograd.gradcheck(lambda *leaves: loss(case.inputs.build(*leaves), *targets), leaves)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize('value', [1., -1., 'mixed', 0., 'right', 'wrong'])
@each_loss
def test_finite_at_the_extremes(case, value, dtype):
    leaves = case.inputs.extremes(1. if value == 'mixed' else value)
    if value == 'mixed':
        for leaf in leaves: leaf.view(-1)[::2] *= -1
    leaves = [leaf.to(dtype).requires_grad_() for leaf in leaves]
    loss = with_reduction(case.loss, 'mean')(case.inputs.build(*leaves), *case.inputs.targets())
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves if leaf.grad is not None)


@each_loss
def test_no_parameters_no_state(case):
    def state(loss):
        return [{name: value for name, value in vars(module).items() if not name.startswith('_')}
                for module in loss.modules()]
    before = copy.deepcopy(state(case.loss))
    case.loss(case.inputs.build(*case.inputs.leaves()), *case.inputs.targets())
    assert list(case.loss.parameters()) == [] and list(case.loss.buffers()) == []
    assert case.loss.state_dict() == {}
    assert str(state(case.loss)) == str(before) and isinstance(case.loss, Loss)


@each_loss
def test_batch_order_does_not_matter(case):
    leaves, targets = case.inputs.leaves(), case.inputs.targets()
    order = torch.randperm(len(targets[0]), generator=torch.Generator().manual_seed(3))
    loss = with_reduction(case.loss, 'mean')
    in_order = loss(case.inputs.build(*leaves), *targets)
    output = case.inputs.build(*(leaf[order] for leaf in leaves))
    shuffled = loss(output, *(target[order] for target in targets))
    torch.testing.assert_close(shuffled, in_order, rtol=1e-10, atol=1e-12)


@each_loss
def test_autocast_changes_nothing(case):
    leaves, targets = [leaf.float() for leaf in case.inputs.leaves()], case.inputs.targets()
    expected = case.loss(case.inputs.build(*leaves), *targets)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        torch.testing.assert_close(case.loss(case.inputs.build(*leaves), *targets), expected)


@pytest.mark.parametrize('reduction', ['mean', 'sum', 'none'])
@each_loss
def test_mixed_is_plain_at_a_share_of_1_and_linear_between(case, reduction):
    "Of rows that are mixtures, with partners from the batch itself, as `MixUp` and `CutMix` ask for them."
    loss, leaves = with_reduction(case.loss, reduction), case.inputs.leaves()
    output, targets = case.inputs.build(*leaves), case.inputs.targets()
    order = torch.randperm(len(targets[0]), generator=torch.Generator().manual_seed(7))
    partners = tuple(target[order] for target in targets)
    plain, plain_of_partners = loss(output, *targets), loss(output, *partners)

    def mixed(share): return loss(output, *targets, partners=partners, share=share)
    torch.testing.assert_close(mixed(1.), plain, rtol=0, atol=0)
    torch.testing.assert_close(mixed(0.), plain_of_partners)
    # which rows are the hardest is another question for each mixture
    if isinstance(loss, HardRows): return
    for share in (.5, .9):
        torch.testing.assert_close(mixed(share), share * plain + (1 - share) * plain_of_partners)
    # a share for each row: the sum of what each row's share adds by itself
    shares = torch.linspace(.5, 1., len(targets[0]), dtype=torch.float64)
    added = sum(mixed(torch.where(torch.arange(len(shares)) == row, share, 1.)) - mixed(1.)
                for row, share in enumerate(shares))
    torch.testing.assert_close(mixed(shares), mixed(1.) + added)


@each_loss
def test_mixed_rows_are_the_blend_of_the_papers_rows(case):
    output, targets = case.inputs.build(*case.inputs.leaves()), case.inputs.targets()
    partners = tuple(target.flip(0) for target in targets)
    share = torch.linspace(.5, 1, len(targets[0]), dtype=torch.float64)
    # of hard rows: the loss of each mixture first, then the hardest of them
    loss, naive = (case.loss.loss, reference.cross_entropy) if isinstance(case.loss, HardRows) else (
        case.loss, case.naive)
    blended = with_reduction(loss, 'none')(output, *targets, partners=partners, share=share)
    arrays = case.inputs.numpy(*case.inputs.leaves())
    own_losses = naive(*arrays, *(target.numpy() for target in targets))
    partner_losses = naive(*arrays, *(target.numpy() for target in partners))
    expected = share.numpy() * own_losses + (1 - share.numpy()) * partner_losses
    np.testing.assert_allclose(blended.numpy(), expected, rtol=1e-10)
    if not isinstance(case.loss, HardRows): return
    hardest = np.sort(expected)[-case.loss.n_kept(len(expected)):]
    mixed = case.loss(output, *targets, partners=partners, share=share)
    assert math.isclose(float(mixed), hardest.mean(), rel_tol=1e-10)


def test_head_output_survives_fastais_apply():
    from fastai.torch_core import to_detach, to_float
    cosines = torch.ones(2, 3, dtype=torch.float16, requires_grad=True)
    outputs = {'image': HeadOutput(cosines, torch.ones(2, 4), {'classes': torch.arange(3)})}
    image = to_float(to_detach(outputs))['image']
    assert isinstance(image, HeadOutput) and image.cos.dtype == torch.float32 and image.emb.shape == (2, 4)
    assert torch.equal(image.extra['classes'], torch.arange(3))
    assert HeadOutput(torch.ones(1), torch.ones(1)).extra == {}


HEAD = head_output(LOGITS)
SAMPLED = head_output(LOGITS, [1, 4, 6])
MASKS = torch.zeros(2, 1, 3, 3)


@pytest.mark.parametrize('make_loss, message', [
    (lambda: ArcFace(m=3.5), 'm=3.5.*pi'),
    (lambda: ArcFace(s=0), 's=0'),
    (lambda: FocalLoss(gamma=-1), 'gamma=-1'),
    (lambda: CosFace(m=-.1), 'm=-.1|m=-0.1'),
    (lambda: SphereFace(m=.5), 'm=0.5'),
    (lambda: CombinedMargin(.9), 'm1=0.9'),
    (lambda: ArcFace(m=[.1, 4.]), 'pi'),
    (lambda: NormSoftmax(label_smoothing=2), 'label_smoothing=2'),
    (lambda: NormSoftmax(reduction='avg'), "reduction='avg'"),
    (lambda: CrossEntropy(weight=[1., -1.]), 'weight'),
    (lambda: SphereFace(math.inf), 'm=inf'),
    (lambda: CombinedMargin(m3=math.nan), 'm3=nan'),
    (lambda: NormSoftmax(math.inf), 's=inf'),
    (lambda: CrossEntropy(s=-2), 's=-2'),
    (lambda: Triplet(math.nan), 'm=nan'),
    (lambda: Contrastive(math.inf), 'm=inf'),
    (lambda: Triplet(m=-1), 'm=-1'),
    (lambda: Triplet(mine='easy'), "mine='easy'"),
    (lambda: Contrastive(0), 'm=0'),
    (lambda: SupCon(0), 't=0'),
    (lambda: MultiSimilarity(alpha=0), 'alpha=0'),
    (lambda: AsymmetricLoss(clip=1), 'clip=1'),
    (lambda: MultiLabelFocalLoss(alpha=2), 'alpha=2'),
    (lambda: SoftFBeta(0), 'beta=0'),
    (lambda: Distill(t=0), 't=0'),
    (lambda: Distill(weight=[1., 2.]), 'SumLoss'),
    (lambda: HardRows(CrossEntropy(), 0), 'share=0'),
    (lambda: HardRows(SumLoss({'a': CrossEntropy()})), 'around the parts'),
    (lambda: SumLoss({}), 'parts'),
    (lambda: SumLoss({'per_row': ArcFace()}), "'per_row'"),
    (lambda: SumLoss({'a': ArcFace()}, {'b': 1.}), "'b'"),
    (lambda: SoftDice(0), 'smooth=0'),
    (lambda: class_weights([1, 0, 2]), 'class 1'),
    (lambda: class_weights([[1]]), r'\(1, 1\)'),
    (lambda: class_weights([1], 'log'), "how='log'"),
    (lambda: class_weights([1], beta=1), 'beta=1'),
    (lambda: class_margins([1, 0]), 'counts'),
])
def test_bad_options_are_named(make_loss, message):
    with pytest.raises(InputError, match=message): make_loss()


@pytest.mark.parametrize('loss, output, targets, message', [
    (ArcFace(m=[.1, .2]), HEAD, [0, 2], '2 margins, the head 3 classes'),
    (ArcFace([.1] * 4), HEAD, [0, 1], '4 margins, the head 3 classes'),
    (ArcFace([.1] * 6), SAMPLED, [4, 6], '6 margins'),
    (CrossEntropy([1., 2.]), LOGITS, [0, 1], '2 entries for 3'),
    (ArcFace(), HEAD, [0, 3], 'labels from 0 to 3 for 3 classes.*0 to 2'),
    (CrossEntropy(), LOGITS, [-1, 1], 'labels from -1 to 1'),
    (ArcFace(), {'image': HEAD, 'title': HEAD}, [0, 3], 'labels from 0 to 3'),
    (FocalLoss(), LOGITS, torch.zeros(2), r'int64 \(2,\).*float32'),
    (CrossEntropy(), LOGITS, torch.zeros(3, dtype=torch.long), r'\(3,\)'),
    (SumLoss({'a': ArcFace(), 'b': Triplet()}), HeadOutput(LOGITS, LOGITS), [0, 1],
     'Triplet.*2 rows and 2 classes.*2 rows of one'),
    (MultiLabelFocalLoss(), LOGITS, 2 * torch.ones(2, 3), 'targets from 2 to 2'),
    (MultiLabelFocalLoss(), LOGITS, TARGETS[:, None], r'\(2, 3\).*\(2, 1\)'),
    (MultiLabelFocalLoss(), LOGITS, [2, 3], 'labels from 2 to 3'),
    (SoftTarget(), LOGITS, torch.ones(2, 3), 'sums of rows from 3 to 3'),
    (SoftTarget(), LOGITS, torch.tensor([[-1., 1., 1.]] * 2), 'from -1 to 1'),
    (SoftTarget(), LOGITS, [0, 1], r'\(2, 3\).*\(2,\)'),
    (HardRows(CrossEntropy(), .5), LOGITS, [0, 7], 'labels from 0 to 7'),
    (CrossEntropy(), LOGITS[:0], TARGETS[:0], 'CrossEntropy got a batch of 0 rows'),
    (ArcFace(), head_output(LOGITS[:0]), TARGETS[:0], 'ArcFace got a batch of 0 rows'),
    (SumLoss({'a': CrossEntropy(), 'b': Triplet()}), LOGITS[:0], TARGETS[:0], 'batch of 0 rows'),
    (ArcFace(), LOGITS, [0, 1], 'cosines'),
    (CenterLoss(), LOGITS, [0, 1], 'cosines'),
    (CenterLoss(), HEAD, [0, 1], 'CenterHead'),
    (CurricularFace(), HEAD, [0, 1], 'TrackedHead'),
    (AdaCos(), HEAD, [0, 1], 'TrackedHead'),
    (LargeMarginSoftmax(), HEAD, [0, 1], "'norms'"),
    (ArcFace(), SAMPLED, [4, 5], 'without those of the labels 5'),
    (Triplet(), torch.zeros(3, 2), [0, 1], '2 labels'),
    (SoftDice(), MASKS, torch.zeros(2, 4, 3), 'masks'),
    (SoftDice(), torch.zeros(1, 1, 2, 2), 255 * torch.ones(1, 2, 2), 'masks from 255 to 255 for 2 classes'),
])
def test_bad_input_is_named(loss, output, targets, message):
    with pytest.raises(InputError, match=message): loss(output, torch.as_tensor(targets))


@each_loss
def test_nan_is_told_with_its_place_and_range(case):
    leaves = case.inputs.leaves()
    for leaf in leaves: leaf[2] = math.nan
    with pytest.raises(NotANumber,
                       match=r': NaN in 1 of \d+ rows \(2\)\. .* are NaN, the others run from -.* rate'):
        case.loss(case.inputs.build(*leaves), *case.inputs.targets())
