"Where losses must meet: a margin of 0, gamma of 0, the hardest k of a batch of k, one class, orders and jumps at the edges."
# ruff: noqa: F403, F405
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastmatch.core import HeadOutput, InputError
from fastmatch.losses import *
from fastmatch.losses import rows
from fastmatch.losses.pair import distances
from tests.losses.cases import CASES, WEIGHT, C, Head, N, Pairs, labels, rand
from tests.losses.test_losses import with_reduction
from tests.reference import losses as ref


@pytest.fixture
def out(): return Head().build(*Head().leaves())


@pytest.mark.parametrize('loss, same', [
    (ArcFace(m=0., s=9.), CrossEntropy(s=9.)), (CosFace(m=0., s=9.), CrossEntropy(s=9.)), (NormSoftmax(s=9.), CrossEntropy(s=9.)),
    (CombinedMargin(1., 0., 0., s=9.), CrossEntropy(s=9.)), (SphereFace(1., s=9.), CrossEntropy(s=9.)), (NormSoftmax(), CrossEntropy()),
    (CombinedMargin(1., 0., .35, s=9.), CosFace(.35, s=9.)), (CombinedMargin(3., 0., 0., s=9.), SphereFace(3., s=9.)),
    (ArcFace(m=[.3] * C), ArcFace(m=.3)), (ArcFace(m=class_margins([5] * C, .3)), ArcFace(m=.3)), (ArcFace(m=class_margins(range(1, C + 1), .3, 0)), ArcFace(.3)),
    (FocalLoss(0., WEIGHT, reduction='sum'), CrossEntropy(WEIGHT, reduction='sum')), (CrossEntropy([2.] * C), CrossEntropy()),
    (HardRows(CosFace(), 1.), CosFace()), (SumLoss({'a': ArcFace()}), ArcFace()), (SumLoss({'a': ArcFace(), 'b': CosFace()}, {'b': 0.}), ArcFace()),
])
def test_limits(loss, same, out): torch.testing.assert_close(loss(out, labels()), same(out, labels()))


class Mixed(ArcFace):
    "Others that depend on the target too."
    def others(self, cos, hard, out): return cos - .2 * hard * cos**2 + .01 * out.emb.sum(1, keepdim=True)


@pytest.mark.parametrize('part', [rows.PART, 5 * C], ids=['all rows', 'five rows'])
@pytest.mark.parametrize('loss', [*(o.loss for o in CASES if isinstance(o.loss, NormSoftmax)), Mixed(.3, 9.), Mixed(.3, 9., label_smoothing=.1)], ids=lambda o: type(o).__name__)
def test_the_hand_written_backward_is_autograds(loss, part, monkeypatch):
    "All rows or a few at a time: values and gradients, of mixed losses too, are those of cross-entropy over `logits`."
    parts, plain = [], rows._parts
    def seen(cos):
        parts.append([len(cos[b]) for b in plain(cos)])
        return plain(cos)
    monkeypatch.setattr(rows, 'PART', part)
    monkeypatch.setattr(rows, '_parts', seen)
    lam, ys = torch.linspace(.5, 1, N, dtype=torch.float64), (labels(), labels().flip(0))
    def run(f):
        leaves = [o.requires_grad_() for o in Head().leaves()]
        out = Head().build(*leaves)
        out.extra['norms'] = out.extra['norms'].clone().requires_grad_()
        if isinstance(loss, Mixed): out = out._replace(emb=out.emb.detach())
        value = (lam * f(out, ys[0]) + (1 - lam) * f(out, ys[1])).mean()
        return value, *torch.autograd.grad(value, [*leaves, out.extra['norms']], allow_unused=True)
    want = run(lambda out, y: F.cross_entropy(loss.logits(out, y), y, reduction='none', label_smoothing=loss.label_smoothing))
    assert not parts
    for a, b in zip(run(with_reduction(loss, 'none')), want): torch.testing.assert_close(a, b)
    # forward and backward, for both targets; a scale for each row is left to autograd
    assert parts == ([] if isinstance(loss, SphereFace) and loss.s is None else [[N] if part == rows.PART > N * C else [5, 5, 5, 5, 4]] * 4)


def test_combined_is_arcface_up_to_pi(out):
    loss, y = ArcFace(.3, 9., reduction='none'), labels()
    near = out.cos[torch.arange(N), y] > math.cos(math.pi - .3)
    assert near.sum() > N / 2
    torch.testing.assert_close(CombinedMargin(1., .3, 0., s=9., reduction='none')(out, y)[near], loss(out, y)[near])


def test_curricular_at_the_start(out):
    "At t = 0 hard negatives count by their square, easy ones as they are."
    y, cos = labels(), out.cos
    target = cos[torch.arange(N), y]
    near = target > math.cos(math.pi - .3)
    harder = torch.where(cos > torch.cos(target.acos() + .3)[:, None], cos**2, cos).scatter(1, y[:, None], target[:, None])
    got = CurricularFace(.3, 9., reduction='none')(out._replace(extra={'t': torch.zeros(())}), y)
    torch.testing.assert_close(got[near], ArcFace(.3, 9., reduction='none')(HeadOutput(harder, out.emb), y)[near])


@pytest.mark.parametrize('loss', [ArcFace(m=.8), ArcFace(m=.1), CosFace(), SphereFace(4), SphereFace(1.35), CombinedMargin(1.4, .5, .1), ArcFace(m=.5, easy_margin=True)])
def test_harder_and_monotone(loss):
    cos = torch.linspace(-.9999, .9999, 20001, dtype=torch.float64)
    target = loss.margin(cos, None)
    assert (target <= cos).all()
    rising = (target.diff() > 0).all()
    # the easy margin falls off where the angle passes 90 degrees: one reason why it is off
    assert rising == (not getattr(loss, 'easy_margin', False))


def test_the_jumps_that_are_and_are_not():
    "ArcFace steps down once, at pi - m; the others are smooth; the easy margin takes .48 away at 90 degrees."
    cos = torch.linspace(-.9999, .9999, 200001, dtype=torch.float64)
    def jump(loss): return float(loss.margin(cos, None).diff().abs().max())
    assert jump(SphereFace(4)) < 2e-4 and jump(CombinedMargin(1.4, .5, .1)) < 2e-2 and jump(CosFace()) < 2e-5
    assert .47 < jump(ArcFace(.5, easy_margin=True)) < .49
    at = math.cos(math.pi - .8)
    low, high = (ArcFace(.8).margin(torch.tensor([at + d], dtype=torch.float64), None).item() for d in (-1e-9, 1e-9))
    assert high > low > -1.28


def test_cosines_past_one_are_taken():
    "A float32 cosine of a vector with itself can be 1.00000036."
    cos = torch.tensor([[1.00000036, .1], [-1.00000036, .2]], requires_grad=True)
    for loss in (ArcFace(), SphereFace(s=9.), CombinedMargin(), CosFace()):
        value = loss(HeadOutput(cos, cos), torch.tensor([0, 0]))
        assert torch.isfinite(torch.autograd.grad(value, cos)[0]).all() and torch.isfinite(value)


def test_scale_follows_the_number_of_classes():
    cos = rand(4, 1000)
    torch.testing.assert_close(ArcFace()(HeadOutput(cos, cos), labels(4)), ArcFace(s=math.sqrt(2) * math.log(999))(HeadOutput(cos, cos), labels(4)))
    assert auto_scale(2) == auto_scale(1) == 1. and math.isclose(auto_scale(601), 9.0465, rel_tol=1e-4)


@pytest.mark.parametrize('make', [NormSoftmax, ArcFace, CosFace, CombinedMargin, SphereFace, LargeMarginSoftmax, AdaCos, CurricularFace])
def test_label_smoothing_is_a_blend_with_the_mean_of_all_classes(make, out):
    "The share spread over all classes is paid at the logits with the margin in them."
    y, plain = labels(), make(reduction='none')
    flat = -plain.logits(out, y).log_softmax(1).mean(1)
    torch.testing.assert_close(make(label_smoothing=.2, reduction='none')(out, y), .8 * plain(out, y) + .2 * flat)


def test_class_margins_fall_as_a_power():
    np.testing.assert_allclose(class_margins([4, 2, 32], .5, .2), [.5 * 2**-.2, .5, .5 * 16**-.2])


def test_own_loss_is_one_method(out):
    class Own(NormSoftmax):
        def margin(self, cos, y): return cos - .35
    torch.testing.assert_close(Own()(out, labels()), CosFace()(out, labels()))


def test_weighted_mean_is_torchs():
    x, y, w = 4 * rand(N, C), labels(), torch.tensor(WEIGHT, dtype=torch.float64)
    for smoothing in (0., .1):
        torch.testing.assert_close(CrossEntropy(WEIGHT, label_smoothing=smoothing)(x, y), F.cross_entropy(x, y, w, label_smoothing=smoothing))


def test_focal_weight_leaves_p_t_alone():
    x, y = torch.tensor([[0., 2.75]], dtype=torch.float64), torch.tensor([0])
    p = 1 / (1 + math.exp(2.75))
    assert math.isclose(float(FocalLoss(2., [10., 1.], reduction='none')(x, y)), 10 * (1 - p)**2 * -math.log(p), rel_tol=1e-12)


def test_multi_label_limits():
    x, y = 3 * rand(N, C), (rand(N, C, seed=3) > 0).double()
    bce = F.binary_cross_entropy_with_logits(x, y)
    torch.testing.assert_close(MultiLabelFocalLoss(0.)(x, y), bce)
    torch.testing.assert_close(AsymmetricLoss(0., 0., 0.)(x, y), bce)
    torch.testing.assert_close(MultiLabelFocalLoss(2.)(x, y), AsymmetricLoss(2., 2., 0.)(x, y))
    sure = 100 * (2 * y - 1)
    assert SoftFBeta()(sure, y) < 1e-6 < .999 < SoftFBeta()(-sure, y)
    # F1 of decisions, class by class, as scikit-learn counts it
    from sklearn.metrics import fbeta_score
    flip = torch.where(rand(N, C, seed=4) > .6, -sure, sure)
    assert math.isclose(float(SoftFBeta(2.)(flip, y)), 1 - fbeta_score(y.numpy(), (flip > 0).numpy(), beta=2, average='macro'), abs_tol=1e-6)


def test_activation_and_decodes():
    x = 3 * rand(N, C)
    torch.testing.assert_close(CrossEntropy().activation(x), x.softmax(1))
    assert torch.equal(FocalLoss().decodes(x), x.argmax(1)) and CrossEntropy().activation({'image': x})['image'] is x
    loss = AsymmetricLoss(thresh=.7)
    assert torch.equal(loss.decodes(loss.activation(x)), x.sigmoid() > .7)
    # a classifier's scaled cosines are logits, a matching model's embeddings are left alone
    assert torch.equal(ArcFace().activation(x), x.softmax(1)) and ArcFace().activation({'image': x})['image'] is x and torch.equal(ArcFace().decodes(x), x.argmax(1))
    m = rand(2, 1, 3, 3)
    assert torch.equal(SoftDice().decodes(SoftDice().activation(m)), (m > 0).long()[:, 0])
    assert torch.equal(Lovasz().decodes(Lovasz().activation(rand(2, 3, 3, 3))), rand(2, 3, 3, 3).argmax(1))
    assert torch.equal(HardRows(CrossEntropy()).activation(x), x.softmax(1)) and torch.equal(SumLoss({'a': CrossEntropy()}).decodes(x), x.argmax(1))


def test_fastais_learner_takes_them():
    "Training, validation, predictions, decoded labels and a loss a row from a plain fastai Learner."
    from fastai.callback import progress  # noqa: F401  gives Learner its no_bar
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.learner import Learner
    torch.manual_seed(0)
    x, w = rand(32, 5).float(), rand(5, 3, seed=2).float()
    for loss, y in ((FocalLoss(), (x @ w).argmax(1)), (AsymmetricLoss(), (x @ w > 0).float()), (SumLoss({'a': CrossEntropy(), 'b': FocalLoss()}), (x @ w).argmax(1))):
        dl = DataLoader(list(zip(x, y)), bs=8)
        learn = Learner(DataLoaders(dl, dl), torch.nn.Linear(5, 3), loss_func=loss)
        with learn.no_bar(), learn.no_logging():
            learn.fit(8, .05)
            first, last = learn.recorder.values[0][1], learn.recorder.values[-1][1]
            p, t, decoded, rows = learn.get_preds(with_decoded=True, with_loss=True)
        logits = learn.model(x).detach()
        torch.testing.assert_close(p, loss.activation(logits))
        assert (decoded == y).float().mean() > .8 and rows.shape == (32,) and torch.equal(t, y)
        torch.testing.assert_close(rows.mean(), loss(logits, y).detach())
        assert last < .7 * first


def test_hard_rows_keep_at_least_one():
    "A filter by share of the total would keep nothing where the first loss is most of it."
    x, y = torch.tensor([[-50., 50.], [9., 0.], [9., 0.]]), torch.tensor([0, 0, 0])
    rows = F.cross_entropy(x, y, reduction='none')
    for share, k in ((1e-9, 1), (1 / 3, 1), (.34, 2), (1., 3)):
        torch.testing.assert_close(HardRows(CrossEntropy(), share)(x, y), rows[:k].mean())
        torch.testing.assert_close(HardRows(CrossEntropy(), share, reduction='sum')(x, y), rows[:k].sum())


def test_distillation_limits():
    x, t, y = 3 * rand(N, C), 3 * rand(N, C, seed=4), labels()
    torch.testing.assert_close(Distill(alpha=0.)(x, y, t), CrossEntropy()(x, y))
    assert float(Distill(alpha=1.)(x, y, x.clone())) == pytest.approx(0, abs=1e-12)
    soft = SoftTarget()(x, t.softmax(1)) - SoftTarget()(t, t.softmax(1))
    torch.testing.assert_close(Distill(1., 1.)(x, y, t), soft)
    torch.testing.assert_close(SoftTarget()(x, F.one_hot(y, C)), CrossEntropy()(x, y))
    # at a high temperature: half the squared difference of centred logits, over the number of classes (the paper's section 2.1)
    a, b = (o - o.mean(1, keepdim=True) for o in (x, t))
    torch.testing.assert_close(Distill(1e4, 1.)(x, y, t), ((a - b)**2).sum(1).mean() / 2 / C, rtol=1e-3, atol=0)
    teacher = t.clone().requires_grad_()
    Distill()(x.clone().requires_grad_(), y, teacher).backward()
    assert teacher.grad is None
    heads = {'image': x, 'title': t}
    torch.testing.assert_close(Distill()(heads, y, t), Distill()(x, y, t) + Distill()(t, y, t))


def test_supcon_and_ntxent_meet_with_one_positive():
    x, y = rand(10, 4), torch.arange(10) // 2
    torch.testing.assert_close(SupCon(.3)(x, y), NTXent(.3)(x, y))
    # two views, as SimCLR has them: cross-entropy over all others with the partner as target
    z = F.normalize(x) @ F.normalize(x).t() / .3
    torch.testing.assert_close(NTXent(.3)(x, y), F.cross_entropy(z.fill_diagonal_(-torch.inf), torch.arange(10) ^ 1))


@pytest.mark.parametrize('loss', [Triplet(), Triplet(mine='semihard'), Triplet(None), Contrastive(), SupCon(), NTXent(), MultiSimilarity()], ids=lambda o: type(o).__name__)
@pytest.mark.parametrize('y', [[0], [0, 0, 0], [0, 1, 2]], ids=['one row', 'one class', 'no pair'])
def test_batches_without_pairs(loss, y):
    "Training is told what is missing; where nobody looks (most batches on a GPU, a short last one in validation) they cost a finite amount."
    x, y = rand(len(y), 4).requires_grad_(), torch.tensor(y)
    enough = {Contrastive: len(y) > 1, SupCon: len(y.unique()) < len(y)}.get(type(loss), False)
    if not enough:
        with pytest.raises(InputError, match=f'{type(loss).__name__} .* {len(y)} rows and {len(y.unique())} classes.*needs 2 .*pk'): loss(x, y)
    with torch.no_grad(): value = loss(x, y)
    loss.check_values = lambda out, y: None
    same = loss(x, y)
    del loss.check_values
    same.backward()
    assert torch.isfinite(value) and value == same and torch.isfinite(x.grad).all()
    if len(y) == 1 or isinstance(loss, Triplet | MultiSimilarity): assert value == 0


def test_values_are_read_seldom_on_a_gpu(monkeypatch):
    "Reading a value waits for the GPU: there it is done in batches 1, 2, 4, 8, ...; without a look the device's own assertion is left."
    class Elsewhere(torch.Tensor):
        device = torch.device('cuda')
    looks = []
    class Own(CrossEntropy):
        def check_values(self, out, y): looks.append(self._calls)
    loss, y = Own(), torch.arange(3).as_subclass(Elsewhere)
    for _ in range(20): loss(torch.zeros(3, 3), y)
    assert looks == [1, 2, 4, 8, 16]
    looks.clear()
    for _ in range(20): loss(torch.zeros(3, 3), torch.arange(3))
    assert looks == list(range(21, 41))


@pytest.mark.parametrize('loss', [Triplet(.2, normalize=False), Triplet(.2, 'semihard', normalize=False), Contrastive(6., normalize=False)], ids=lambda o: type(o).__name__)
def test_equal_rows_have_distance_zero_and_a_gradient(loss):
    "The same picture twice: the root's slope at 0 is infinite."
    x, y = torch.tensor([[3., 4.], [3., 4.], [3., 4.], [0., 1.], [0., 1.]], requires_grad=True), torch.tensor([0, 0, 1, 1, 2])
    loss(x, y).backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0
    v = F.normalize(rand(50, 300).float()).repeat(2, 1)
    d = distances(v)
    assert (d.diagonal() == 0).all() and (d[:50, 50:].diagonal() == 0).all(), 'rounding is no distance'
    torch.testing.assert_close(d, torch.cdist(v.double(), v.double()).float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('loss', [Triplet(), Triplet(mine='semihard'), Contrastive(), SupCon(), NTXent(), MultiSimilarity()], ids=lambda o: type(o).__name__)
def test_pair_losses_look_at_directions(loss):
    (x,), (y,) = Pairs().leaves(), Pairs().targets()
    q = torch.linalg.qr(rand(5, 5, seed=9)).Q
    torch.testing.assert_close(loss(7 * x @ q, y), loss(x, y))
    torch.testing.assert_close(loss(HeadOutput(x[:, :2], x), y), loss(x, y))


def test_the_mean_is_over_rows_with_pairs():
    (x,), (y,) = Pairs().leaves(), Pairs().targets()
    rows = ref.supcon(ref.unit(x), y, .1)
    assert (rows == 0).sum() == 1
    np.testing.assert_allclose(SupCon()(x, y), rows[rows != 0].mean())
    rows = ref.batch_hard(ref.unit(x), y, .2)
    np.testing.assert_allclose(Triplet()(x, y), rows.sum() / (len(y) - 1))
    np.testing.assert_allclose(MultiSimilarity()(x, y), ref.multi_similarity(ref.unit(x), y, 2., 50., .5, .1).mean())


def test_masks_limits():
    y = torch.tensor([[[1, 1, 0], [0, 1, 0]], [[0, 0, 0], [0, 0, 0]]])
    sure = 50. * (2 * y[:, None] - 1)
    for loss in (SoftDice(), DiceBCE(), Lovasz()): assert float(loss(sure, y)) < 1e-6
    # all wrong: no overlap at all
    np.testing.assert_allclose(SoftDice(1e-6, reduction='none')(-sure, y), [1., 1.], rtol=1e-5)
    # on decisions Lovasz is 1 minus intersection over union, for each class there is
    pred, true = torch.randint(3, (5, 4, 4)), torch.randint(3, (5, 4, 4))
    got = Lovasz(reduction='none')(100. * F.one_hot(pred, 3).permute(0, 3, 1, 2), true)
    want = [np.mean([1 - ((p == k) & (t == k)).sum() / ((p == k) | (t == k)).sum() for k in range(3) if (t == k).any()]) for p, t in zip(pred, true)]
    np.testing.assert_allclose(got, want, rtol=1e-5)
    # an empty mask: Dice hardly tells right from wrong there, cross-entropy does
    empty, x = torch.zeros(1, 8, 8), torch.full((1, 1, 8, 8), 2., requires_grad=True)
    a, b = (torch.autograd.grad(o(x, empty), x)[0].mean() for o in (SoftDice(), DiceBCE()))
    assert b > 20 * a > 0
