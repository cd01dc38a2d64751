"""Where losses must meet: a margin of 0, gamma of 0, the hardest k of a batch of k, one class, orders and
jumps at the edges."""
# ruff: noqa: F403, F405
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastmatch.core import HeadOutput, InputError
from fastmatch.losses import *
from fastmatch.losses import fused
from fastmatch.losses.pair import distances
from tests.losses.cases import CASES, WEIGHT, C, HeadInputs, N, PairInputs, labels, rand
from tests.losses.test_losses import with_reduction
from tests.reference import losses as reference


@pytest.fixture
def output(): return HeadInputs().build(*HeadInputs().leaves())


def class_name(loss): return type(loss).__name__


@pytest.mark.parametrize('loss, same', [
    (ArcFace(m=0., s=9.), CrossEntropy(s=9.)),
    (CosFace(m=0., s=9.), CrossEntropy(s=9.)),
    (NormSoftmax(s=9.), CrossEntropy(s=9.)),
    (CombinedMargin(1., 0., 0., s=9.), CrossEntropy(s=9.)),
    (SphereFace(1., s=9.), CrossEntropy(s=9.)),
    (NormSoftmax(), CrossEntropy()),
    (CombinedMargin(1., 0., .35, s=9.), CosFace(.35, s=9.)),
    (CombinedMargin(3., 0., 0., s=9.), SphereFace(3., s=9.)),
    (ArcFace(m=[.3] * C), ArcFace(m=.3)),
    (ArcFace(m=class_margins([5] * C, .3)), ArcFace(m=.3)),
    (ArcFace(m=class_margins(range(1, C + 1), .3, 0)), ArcFace(.3)),
    (FocalLoss(0., WEIGHT, reduction='sum'), CrossEntropy(WEIGHT, reduction='sum')),
    (CrossEntropy([2.] * C), CrossEntropy()),
    (HardRows(CosFace(), 1.), CosFace()),
    (SumLoss({'a': ArcFace()}), ArcFace()),
    (SumLoss({'a': ArcFace(), 'b': CosFace()}, {'b': 0.}), ArcFace()),
])
def test_limits(loss, same, output):
    torch.testing.assert_close(loss(output, labels()), same(output, labels()))


class Mixed(ArcFace):
    "The cosines with other classes depend on the target too."
    def other_cosines(self, cosines, hard, output):
        return cosines - .2 * hard * cosines**2 + .01 * output.emb.sum(1, keepdim=True)


SOFTMAX_LOSSES = [*(case.loss for case in CASES if isinstance(case.loss, NormSoftmax)), Mixed(.3, 9.),
                  Mixed(.3, 9., label_smoothing=.1)]


@pytest.mark.parametrize('part_size', [fused.PART_SIZE, 5 * C], ids=['all rows', 'five rows'])
@pytest.mark.parametrize('loss', SOFTMAX_LOSSES, ids=class_name)
def test_the_hand_written_backward_is_autograds(loss, part_size, monkeypatch):
    """All rows or a few at a time: values and gradients, of mixed losses too, are those of cross-entropy
    over `logits`."""
    sizes = []
    row_parts = fused.row_parts
    def recorded(cosines):
        parts = row_parts(cosines)
        sizes.append([len(cosines[part]) for part in parts])
        return parts
    monkeypatch.setattr(fused, 'PART_SIZE', part_size)
    monkeypatch.setattr(fused, 'row_parts', recorded)
    share = torch.linspace(.5, 1, N, dtype=torch.float64)
    own, partner = labels(), labels().flip(0)

    def value_and_gradients(row_losses):
        leaves = [leaf.requires_grad_() for leaf in HeadInputs().leaves()]
        output = HeadInputs().build(*leaves)
        output.extra['norms'] = output.extra['norms'].clone().requires_grad_()
        if isinstance(loss, Mixed): output = output._replace(emb=output.emb.detach())
        value = (share * row_losses(output, own) + (1 - share) * row_losses(output, partner)).mean()
        return value, *torch.autograd.grad(value, [*leaves, output.extra['norms']], allow_unused=True)

    def by_autograd(output, targets):
        return F.cross_entropy(loss.logits(output, targets), targets, reduction='none',
                               label_smoothing=loss.label_smoothing)

    expected = value_and_gradients(by_autograd)
    assert not sizes
    for ours, theirs in zip(value_and_gradients(with_reduction(loss, 'none')), expected):
        torch.testing.assert_close(ours, theirs)
    # forward and backward, for both targets; a scale for each row is left to autograd
    one_pass = [N] if part_size == fused.PART_SIZE > N * C else [5, 5, 5, 5, 4]
    assert sizes == ([] if isinstance(loss, SphereFace) and loss.s is None else [one_pass] * 4)


def test_combined_is_arcface_up_to_pi(output):
    loss, targets = ArcFace(.3, 9., reduction='none'), labels()
    near = output.cos[torch.arange(N), targets] > math.cos(math.pi - .3)
    assert near.sum() > N / 2
    combined = CombinedMargin(1., .3, 0., s=9., reduction='none')
    torch.testing.assert_close(combined(output, targets)[near], loss(output, targets)[near])


def test_curricular_at_the_start(output):
    "At t = 0 hard negatives count by their square, easy ones as they are."
    targets, cosines = labels(), output.cos
    own = cosines[torch.arange(N), targets]
    near = own > math.cos(math.pi - .3)
    hard = torch.cos(own.acos() + .3)[:, None]
    harder = torch.where(cosines > hard, cosines**2, cosines).scatter(1, targets[:, None], own[:, None])
    loss = CurricularFace(.3, 9., reduction='none')
    at_start = loss(output._replace(extra={'t': torch.zeros(())}), targets)
    expected = ArcFace(.3, 9., reduction='none')(HeadOutput(harder, output.emb), targets)
    torch.testing.assert_close(at_start[near], expected[near])


@pytest.mark.parametrize('loss', [ArcFace(m=.8), ArcFace(m=.1), CosFace(), SphereFace(4), SphereFace(1.35),
                                  CombinedMargin(1.4, .5, .1), ArcFace(m=.5, easy_margin=True)])
def test_harder_and_monotone(loss):
    cosines = torch.linspace(-.9999, .9999, 20001, dtype=torch.float64)
    hard = loss.margin(cosines, None)
    assert (hard <= cosines).all()
    rising = (hard.diff() > 0).all()
    # the easy margin falls off where the angle passes 90 degrees: one reason why it is off
    assert rising == (not getattr(loss, 'easy_margin', False))


def test_the_jumps_that_are_and_are_not():
    "ArcFace steps down once, at pi - m; the others are smooth; the easy margin takes .48 away at 90 degrees."
    cosines = torch.linspace(-.9999, .9999, 200001, dtype=torch.float64)
    def jump(loss): return float(loss.margin(cosines, None).diff().abs().max())
    assert jump(SphereFace(4)) < 2e-4
    assert jump(CombinedMargin(1.4, .5, .1)) < 2e-2
    assert jump(CosFace()) < 2e-5
    assert .47 < jump(ArcFace(.5, easy_margin=True)) < .49
    edge = math.cos(math.pi - .8)
    below, above = torch.tensor([edge - 1e-9, edge + 1e-9], dtype=torch.float64)[:, None]
    assert ArcFace(.8).margin(above, None).item() > ArcFace(.8).margin(below, None).item() > -1.28


def test_cosines_past_one_are_taken():
    "A float32 cosine of a vector with itself can be 1.00000036."
    cosines = torch.tensor([[1.00000036, .1], [-1.00000036, .2]], requires_grad=True)
    for loss in (ArcFace(), SphereFace(s=9.), CombinedMargin(), CosFace()):
        value = loss(HeadOutput(cosines, cosines), torch.tensor([0, 0]))
        assert torch.isfinite(torch.autograd.grad(value, cosines)[0]).all() and torch.isfinite(value)


def test_scale_follows_the_number_of_classes():
    cosines = rand(4, 1000)
    output = HeadOutput(cosines, cosines)
    by_rule = ArcFace(s=math.sqrt(2) * math.log(999))
    torch.testing.assert_close(ArcFace()(output, labels(4)), by_rule(output, labels(4)))
    assert auto_scale(2) == auto_scale(1) == 1. and math.isclose(auto_scale(601), 9.0465, rel_tol=1e-4)


@pytest.mark.parametrize('make', [NormSoftmax, ArcFace, CosFace, CombinedMargin, SphereFace,
                                  LargeMarginSoftmax, AdaCos, CurricularFace])
def test_label_smoothing_is_a_blend_with_the_mean_of_all_classes(make, output):
    "The share spread over all classes is paid at the logits with the margin in them."
    targets, plain = labels(), make(reduction='none')
    flat = -plain.logits(output, targets).log_softmax(1).mean(1)
    smoothed = make(label_smoothing=.2, reduction='none')(output, targets)
    torch.testing.assert_close(smoothed, .8 * plain(output, targets) + .2 * flat)


def test_class_margins_fall_as_a_power():
    np.testing.assert_allclose(class_margins([4, 2, 32], .5, .2), [.5 * 2**-.2, .5, .5 * 16**-.2])


def test_own_loss_is_one_method(output):
    class Own(NormSoftmax):
        def margin(self, cos, y): return cos - .35
    torch.testing.assert_close(Own()(output, labels()), CosFace()(output, labels()))


def test_weighted_mean_is_torchs():
    logits, targets, weight = 4 * rand(N, C), labels(), torch.tensor(WEIGHT, dtype=torch.float64)
    for smoothing in (0., .1):
        expected = F.cross_entropy(logits, targets, weight, label_smoothing=smoothing)
        torch.testing.assert_close(CrossEntropy(WEIGHT, label_smoothing=smoothing)(logits, targets), expected)


def test_focal_weight_leaves_p_t_alone():
    logits, targets = torch.tensor([[0., 2.75]], dtype=torch.float64), torch.tensor([0])
    p = 1 / (1 + math.exp(2.75))
    loss = float(FocalLoss(2., [10., 1.], reduction='none')(logits, targets))
    assert math.isclose(loss, 10 * (1 - p)**2 * -math.log(p), rel_tol=1e-12)


def test_multi_label_limits():
    from sklearn.metrics import fbeta_score
    logits, targets = 3 * rand(N, C), (rand(N, C, seed=3) > 0).double()
    binary = F.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(MultiLabelFocalLoss(0.)(logits, targets), binary)
    torch.testing.assert_close(AsymmetricLoss(0., 0., 0.)(logits, targets), binary)
    same = AsymmetricLoss(2., 2., 0.)(logits, targets)
    torch.testing.assert_close(MultiLabelFocalLoss(2.)(logits, targets), same)
    sure = 100 * (2 * targets - 1)
    assert SoftFBeta()(sure, targets) < 1e-6 < .999 < SoftFBeta()(-sure, targets)
    # F1 of decisions, class by class, as scikit-learn counts it
    partly_wrong = torch.where(rand(N, C, seed=4) > .6, -sure, sure)
    expected = 1 - fbeta_score(targets.numpy(), (partly_wrong > 0).numpy(), beta=2, average='macro')
    assert math.isclose(float(SoftFBeta(2.)(partly_wrong, targets)), expected, abs_tol=1e-6)


def test_activation_and_decodes():
    logits = 3 * rand(N, C)
    torch.testing.assert_close(CrossEntropy().activation(logits), logits.softmax(1))
    assert torch.equal(FocalLoss().decodes(logits), logits.argmax(1))
    assert CrossEntropy().activation({'image': logits})['image'] is logits
    loss = AsymmetricLoss(thresh=.7)
    assert torch.equal(loss.decodes(loss.activation(logits)), logits.sigmoid() > .7)
    # a classifier's scaled cosines are logits, a matching model's embeddings are left alone
    assert torch.equal(ArcFace().activation(logits), logits.softmax(1))
    assert ArcFace().activation({'image': logits})['image'] is logits
    assert torch.equal(ArcFace().decodes(logits), logits.argmax(1))
    masks = rand(2, 1, 3, 3)
    assert torch.equal(SoftDice().decodes(SoftDice().activation(masks)), (masks > 0).long()[:, 0])
    class_masks = rand(2, 3, 3, 3)
    assert torch.equal(Lovasz().decodes(Lovasz().activation(class_masks)), class_masks.argmax(1))
    assert torch.equal(HardRows(CrossEntropy()).activation(logits), logits.softmax(1))
    assert torch.equal(SumLoss({'a': CrossEntropy()}).decodes(logits), logits.argmax(1))


FEATURES, MAP = rand(32, 5).float(), rand(5, 3, seed=2).float()
CLASSES = (FEATURES @ MAP).argmax(1)


@pytest.mark.parametrize('loss, targets', [
    (FocalLoss(), CLASSES), (AsymmetricLoss(), (FEATURES @ MAP > 0).float()),
    (SumLoss({'a': CrossEntropy(), 'b': FocalLoss()}), CLASSES)], ids=['focal', 'asymmetric', 'sum'])
def test_fastais_learner_takes_them(loss, targets):
    "Training, validation, predictions, decoded labels and a loss a row from a plain fastai Learner."
    from fastai.callback import progress  # noqa: F401  gives Learner its no_bar
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.learner import Learner
    torch.manual_seed(0)
    loader = DataLoader(list(zip(FEATURES, targets)), bs=8)
    learn = Learner(DataLoaders(loader, loader), torch.nn.Linear(5, 3), loss_func=loss)
    with learn.no_bar(), learn.no_logging():
        learn.fit(8, .05)
        first, last = learn.recorder.values[0][1], learn.recorder.values[-1][1]
        predictions, returned, decoded, row_losses = learn.get_preds(with_decoded=True, with_loss=True)
    logits = learn.model(FEATURES).detach()
    torch.testing.assert_close(predictions, loss.activation(logits))
    assert (decoded == targets).float().mean() > .8
    assert row_losses.shape == (32,) and torch.equal(returned, targets)
    torch.testing.assert_close(row_losses.mean(), loss(logits, targets).detach())
    assert last < .7 * first


def test_hard_rows_keep_at_least_one():
    "A filter by share of the total would keep nothing where the first loss is most of it."
    logits, targets = torch.tensor([[-50., 50.], [9., 0.], [9., 0.]]), torch.tensor([0, 0, 0])
    rows = F.cross_entropy(logits, targets, reduction='none')
    for share, n_kept in ((1e-9, 1), (1 / 3, 1), (.34, 2), (1., 3)):
        torch.testing.assert_close(HardRows(CrossEntropy(), share)(logits, targets), rows[:n_kept].mean())
        summed = HardRows(CrossEntropy(), share, reduction='sum')
        torch.testing.assert_close(summed(logits, targets), rows[:n_kept].sum())


def test_distillation_limits():
    logits, teacher, targets = 3 * rand(N, C), 3 * rand(N, C, seed=4), labels()
    torch.testing.assert_close(Distill(alpha=0.)(logits, targets, teacher), CrossEntropy()(logits, targets))
    assert float(Distill(alpha=1.)(logits, targets, logits.clone())) == pytest.approx(0, abs=1e-12)
    divergence = SoftTarget()(logits, teacher.softmax(1)) - SoftTarget()(teacher, teacher.softmax(1))
    torch.testing.assert_close(Distill(1., 1.)(logits, targets, teacher), divergence)
    torch.testing.assert_close(SoftTarget()(logits, F.one_hot(targets, C)), CrossEntropy()(logits, targets))
    # at a high temperature: half the squared difference of centered logits, over the number of classes
    # (section 2.1)
    centered, teacher_centered = (x - x.mean(1, keepdim=True) for x in (logits, teacher))
    expected = ((centered - teacher_centered)**2).sum(1).mean() / 2 / C
    torch.testing.assert_close(Distill(1e4, 1.)(logits, targets, teacher), expected, rtol=1e-3, atol=0)


def test_a_teacher_gets_no_gradient():
    logits, teacher = (3 * rand(N, C, seed=seed) for seed in (0, 4))
    teacher.requires_grad_()
    Distill()(logits.requires_grad_(), labels(), teacher).backward()
    assert teacher.grad is None


def test_a_teacher_of_several_heads():
    logits, teacher, targets = 3 * rand(N, C), 3 * rand(N, C, seed=4), labels()
    both = Distill()({'image': logits, 'title': teacher}, targets, teacher)
    expected = Distill()(logits, targets, teacher) + Distill()(teacher, targets, teacher)
    torch.testing.assert_close(both, expected)


def test_supcon_and_ntxent_meet_with_one_positive():
    embeddings, targets = rand(10, 4), torch.arange(10) // 2
    torch.testing.assert_close(SupCon(.3)(embeddings, targets), NTXent(.3)(embeddings, targets))
    # two views, as SimCLR has them: cross-entropy over all others with the partner as target
    logits = F.normalize(embeddings) @ F.normalize(embeddings).t() / .3
    expected = F.cross_entropy(logits.fill_diagonal_(-torch.inf), torch.arange(10) ^ 1)
    torch.testing.assert_close(NTXent(.3)(embeddings, targets), expected)


PAIR_LOSSES = [Triplet(), Triplet(mine='semihard'), Contrastive(), SupCon(), NTXent(), MultiSimilarity()]


@pytest.mark.parametrize('loss', [*PAIR_LOSSES, Triplet(None)], ids=class_name)
@pytest.mark.parametrize('targets', [[0], [0, 0, 0], [0, 1, 2]], ids=['one row', 'one class', 'no pair'])
def test_batches_without_pairs(loss, targets):
    """Training is told what is missing; where values aren't looked at (most batches on a GPU, a short
    last one in validation) such batches cost a finite amount."""
    embeddings, targets = rand(len(targets), 4).requires_grad_(), torch.tensor(targets)
    needed = {Contrastive: len(targets) > 1, SupCon: len(targets.unique()) < len(targets)}
    enough = needed.get(type(loss), False)
    if not enough:
        words = f'{class_name(loss)} .* {len(targets)} rows and {len(targets.unique())} classes.*needs 2 .*pk'
        with pytest.raises(InputError, match=words): loss(embeddings, targets)
    with torch.no_grad(): in_validation = loss(embeddings, targets)
    loss.check_values = lambda output, targets: None
    unchecked = loss(embeddings, targets)
    del loss.check_values
    unchecked.backward()
    assert torch.isfinite(in_validation) and in_validation == unchecked
    assert torch.isfinite(embeddings.grad).all()
    if len(targets) == 1 or isinstance(loss, Triplet | MultiSimilarity): assert in_validation == 0


def test_values_are_read_seldom_on_a_gpu():
    """Reading a value waits for the GPU: there it is done in batches 1, 2, 4, 8, ...; in the others a
    wrong label is left to the device's own assertion."""
    class OnGpu(torch.Tensor):
        device = torch.device('cuda')
    checked_calls = []
    class Own(CrossEntropy):
        def check_values(self, output, targets): checked_calls.append(self._calls)
    loss, targets = Own(), torch.arange(3).as_subclass(OnGpu)
    for _ in range(20): loss(torch.zeros(3, 3), targets)
    assert checked_calls == [1, 2, 4, 8, 16]
    checked_calls.clear()
    for _ in range(20): loss(torch.zeros(3, 3), torch.arange(3))
    assert checked_calls == list(range(21, 41))


@pytest.mark.parametrize('loss', [Triplet(.2, normalize=False), Triplet(.2, 'semihard', normalize=False),
                                  Contrastive(6., normalize=False)], ids=class_name)
def test_equal_rows_have_distance_zero_and_a_gradient(loss):
    "The same picture twice: the root's slope at 0 is infinite."
    embeddings = torch.tensor([[3., 4.], [3., 4.], [3., 4.], [0., 1.], [0., 1.]], requires_grad=True)
    loss(embeddings, torch.tensor([0, 0, 1, 1, 2])).backward()
    assert torch.isfinite(embeddings.grad).all() and embeddings.grad.abs().sum() > 0
    twice = F.normalize(rand(50, 300).float()).repeat(2, 1)
    found = distances(twice)
    assert (found.diagonal() == 0).all(), 'rounding is no distance'
    assert (found[:50, 50:].diagonal() == 0).all(), 'rounding is no distance'
    expected = torch.cdist(twice.double(), twice.double()).float()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('loss', PAIR_LOSSES, ids=class_name)
def test_pair_losses_look_at_directions(loss):
    (embeddings,), (targets,) = PairInputs().leaves(), PairInputs().targets()
    rotation = torch.linalg.qr(rand(5, 5, seed=9)).Q
    torch.testing.assert_close(loss(7 * embeddings @ rotation, targets), loss(embeddings, targets))
    of_head = loss(HeadOutput(embeddings[:, :2], embeddings), targets)
    torch.testing.assert_close(of_head, loss(embeddings, targets))


def test_the_mean_is_over_rows_with_pairs():
    (embeddings,), (targets,) = PairInputs().leaves(), PairInputs().targets()
    units = reference.unit(embeddings)
    rows = reference.supcon(units, targets, .1)
    assert (rows == 0).sum() == 1
    np.testing.assert_allclose(SupCon()(embeddings, targets), rows[rows != 0].mean())
    rows = reference.batch_hard(units, targets, .2)
    np.testing.assert_allclose(Triplet()(embeddings, targets), rows.sum() / (len(targets) - 1))
    rows = reference.multi_similarity(units, targets, 2., 50., .5, .1)
    np.testing.assert_allclose(MultiSimilarity()(embeddings, targets), rows.mean())


def test_masks_limits():
    masks = torch.tensor([[[1, 1, 0], [0, 1, 0]], [[0, 0, 0], [0, 0, 0]]])
    sure = 50. * (2 * masks[:, None] - 1)
    for loss in (SoftDice(), DiceBCE(), Lovasz()): assert float(loss(sure, masks)) < 1e-6
    # all wrong: no overlap at all
    np.testing.assert_allclose(SoftDice(1e-6, reduction='none')(-sure, masks), [1., 1.], rtol=1e-5)


def test_lovasz_on_decisions_is_1_minus_intersection_over_union():
    "For each class that the image has."
    predicted, true = torch.randint(3, (5, 4, 4)), torch.randint(3, (5, 4, 4))
    logits = 100. * F.one_hot(predicted, 3).permute(0, 3, 1, 2)
    expected = []
    for ours, theirs in zip(predicted, true):
        losses = [1 - ((ours == k) & (theirs == k)).sum() / ((ours == k) | (theirs == k)).sum()
                  for k in range(3) if (theirs == k).any()]
        expected.append(np.mean(losses))
    np.testing.assert_allclose(Lovasz(reduction='none')(logits, true), expected, rtol=1e-5)


def test_an_empty_mask_teaches_by_cross_entropy():
    "Dice hardly tells right from wrong there."
    empty, logits = torch.zeros(1, 8, 8), torch.full((1, 1, 8, 8), 2., requires_grad=True)
    by_dice, by_bce = (torch.autograd.grad(loss(logits, empty), logits)[0].mean()
                       for loss in (SoftDice(), DiceBCE()))
    assert by_bce > 20 * by_dice > 0
