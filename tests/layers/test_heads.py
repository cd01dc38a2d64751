"Pooling, necks and heads: against plain formulas and plain autograd, their gradients, what they sample and keep track of."
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastmatch.core import HeadOutput, InputError, auto_scale
from fastmatch.layers.heads import CenterHead, CosineHead, Cosines, SampledHead, TrackedHead
from fastmatch.layers.pooling import BNNeck, GeM, ProjectNeck
from fastmatch.losses import AdaCos, ArcFace, CosFace, CrossEntropy, CurricularFace, LargeMarginSoftmax
from tests.reference import losses as ref

N, D, C = 6, 5, 11


def rand(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


Y = torch.tensor([3, 3, 0, 9, 10, 5])


@pytest.mark.parametrize('rows', [None, [1, 4, 9]])
def test_cosines_gradcheck(rows, monkeypatch):
    rows = None if rows is None else torch.tensor(rows)
    x, w = F.normalize(rand(N, D)).requires_grad_(), rand(C, D, seed=1).requires_grad_()
    for step in (C, 4, 1):
        monkeypatch.setattr('fastmatch.layers.heads._blocks', lambda n, like, step=step: [slice(i, min(i + step, n)) for i in range(0, n, step)])
        assert torch.autograd.gradcheck(lambda a, b: Cosines.apply(a, b, rows), (x, w))
        assert torch.autograd.gradcheck(lambda a, b: Cosines.apply(a, b, rows)[1], (x, w))
        cos, norms = Cosines.apply(x, w, rows)
        part = w if rows is None else w[rows]
        torch.testing.assert_close(cos, x @ F.normalize(part).t())
        torch.testing.assert_close(norms, part.norm(dim=1))


@pytest.mark.parametrize('k', [1, 3])
@pytest.mark.parametrize('dtype, tol', [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_head_is_the_normalised_form(k, dtype, tol):
    head, x = CosineHead(D, C, k).to(dtype), rand(N, D).to(dtype).requires_grad_()
    out = head(x)
    loss = ArcFace(s=9.)(out, Y)
    got = torch.autograd.grad(loss, (x, head.weight))
    # the nearest of a class's centres, one by one in numpy
    a, w = ref.unit(x.detach()), ref.unit(head.weight.detach())
    want = np.array([[max(a[i] @ w[c * k + j] for j in range(k)) for c in range(C)] for i in range(N)])
    np.testing.assert_allclose(out.cos.detach(), want, atol=tol)
    np.testing.assert_allclose(loss.item(), ref.arcface(want.clip(-1, 1), Y, .5, 9.).mean(), rtol=10 * tol)
    cos = F.linear(F.normalize(x), F.normalize(head.weight)).unflatten(1, (C, k)).max(2).values
    for o, e in zip(got, torch.autograd.grad(ArcFace(s=9.)(HeadOutput(cos, x), Y), (x, head.weight))): torch.testing.assert_close(o, e, atol=tol * 100, rtol=tol * 100)
    assert out.emb is not None and torch.equal(out.emb, x) and ('norms' in out.extra) == (k == 1)


def test_large_margin_softmax_trains_the_lengths():
    head, x = CosineHead(D, C).double(), rand(N, D)
    assert torch.autograd.gradcheck(lambda w: LargeMarginSoftmax(3)(torch.func.functional_call(head, {'weight': w}, x), Y), 5 * rand(C, D, seed=2).requires_grad_())
    LargeMarginSoftmax(3)(head(x), Y).backward()
    along = (head.weight.grad * head.weight).sum(1)
    assert along.abs().max() > 1e-6
    head.zero_grad()
    ArcFace()(head(x), Y).backward()
    # a cosine doesn't know how long its centre is
    torch.testing.assert_close((head.weight.grad * head.weight).sum(1), torch.zeros(C, dtype=torch.float64), atol=1e-12, rtol=0)


def test_embedding_length_does_not_matter():
    head, x = CosineHead(D, C).double(), rand(N, D)
    torch.testing.assert_close(ArcFace()(head(17 * x), Y), ArcFace()(head(x), Y))


def test_head_stays_in_float32_under_autocast():
    head, x = CosineHead(D, C), rand(N, D).float()
    with torch.autocast('cpu', dtype=torch.bfloat16): cos = head(x.bfloat16()).cos
    assert cos.dtype == torch.float32
    torch.testing.assert_close(cos, head(x.bfloat16().float()).cos)


def sampled(share, k=1, labels=Y):
    torch.manual_seed(0)
    head = SampledHead(D, C, k, share).double()
    head.labels = labels
    return head


@pytest.mark.parametrize('k', [1, 2])
@pytest.mark.parametrize('loss', [ArcFace(m=[.1 * i for i in range(C)], s=9.), CosFace(), CrossEntropy(torch.arange(1., C + 1)), ArcFace(label_smoothing=.1)])
def test_all_centres_sampled_is_the_full_head(loss, k):
    head, x = sampled(1., k), rand(N, D)
    full = CosineHead(D, C, k).double()
    full.load_state_dict(head.state_dict())
    a, b = loss(head(x), Y), loss(full(x), Y)
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(*(torch.autograd.grad(o, h.weight)[0] for o, h in ((a, head), (b, full))))


def test_sampling_keeps_the_batchs_classes_and_maps_them():
    other = torch.tensor([1, 1, 2, 9, 0, 4])
    head, x = sampled(.1, labels=torch.cat([Y, other])), rand(N, D)
    out = head(x)
    # the share is less than what the batch needs: exactly the batch's
    assert out.extra['classes'].tolist() == sorted({*Y.tolist(), *other.tolist()})
    loss, w = CosFace(m=[.05 * i for i in range(C)], s=9., reduction='none'), ref.unit(head.weight.detach())
    for y in (Y, other):
        rows = []
        for i, t in enumerate(y):
            z = {c: 9 * ref.unit(x)[i] @ w[c] for c in out.extra['classes'].tolist()}
            z[int(t)] -= 9 * .05 * int(t)
            rows.append(math.log(sum(math.exp(v) for v in z.values())) - z[int(t)])
        np.testing.assert_allclose(loss(out, y).detach(), rows)
    # class weights are picked by class too
    rows = ref.cross_entropy((auto_scale(len(out.extra['classes'])) * out.cos).detach(), torch.searchsorted(out.extra['classes'], Y), (out.extra['classes'] + 1.).numpy())
    np.testing.assert_allclose(CrossEntropy(torch.arange(1., C + 1), reduction='none')(out, Y).detach(), rows)
    loss(out, Y).sum().backward()
    seen = set(out.extra['classes'].tolist())
    assert all((head.weight.grad[c] != 0).any() == (c in seen) for c in range(C))


def test_negatives_are_drawn_evenly_and_anew():
    torch.manual_seed(0)
    head = SampledHead(4, 40, share=.5)
    head.labels = torch.tensor([7, 7, 30])
    count = np.zeros(40)
    for _ in range(400):
        classes = head.pick()
        assert len(classes) == 20 and (classes.diff() > 0).all()
        count[classes.numpy()] += 1
    assert (count[[7, 30]] == 400).all()
    # 18 of 38: 189 expected, standard deviation 10
    assert abs(np.delete(count, [7, 30]) - 400 * 18 / 38).max() < 45
    assert head.eval()(torch.randn(2, 4)).cos.shape == (2, 40)


@pytest.mark.parametrize('head', [SampledHead(D, C), TrackedHead(D, C)], ids=lambda o: type(o).__name__)
def test_labels_are_asked_for(head):
    with pytest.raises(InputError, match='HeadLabels'): head(torch.randn(2, D))
    assert head.eval()(torch.randn(2, D)).cos.shape == (2, C)


def test_tracked_head_follows_the_papers():
    torch.manual_seed(0)
    head, t, s = TrackedHead(D, C).double(), 0., 2**.5 * math.log(C - 1)
    for step in range(5):
        x = rand(N, D, seed=step)
        head.labels = Y
        out = head(x)
        cos = ref.unit(x) @ ref.unit(head.weight.detach()).T
        t = .99 * t + .01 * np.mean([cos[i, k] for i, k in enumerate(Y)])
        s = ref.adacos_scale(cos, Y, s)
        np.testing.assert_allclose([out.extra['t'], out.extra['s']], [t, s], rtol=1e-6)
        np.testing.assert_allclose(AdaCos()(out, Y).item(), ref.cross_entropy(s * cos, Y).mean(), rtol=1e-6)
        np.testing.assert_allclose(CurricularFace(s=9.)(out, Y).item(), ref.curricular(cos, Y, .5, 9., t).mean(), rtol=1e-6)
    assert set(dict(head.named_buffers())) == {'t', 's'}
    head.eval()(x)
    np.testing.assert_allclose(head.t, t, rtol=1e-6)


def test_an_output_keeps_its_figures_when_the_next_batch_moves_them():
    head = TrackedHead(D, C)
    head.labels = Y
    a = head(torch.randn(N, D))
    before, loss = float(a.extra['t']), AdaCos()(a, Y)
    head(torch.randn(N, D))
    loss.backward()
    assert float(a.extra['t']) == before != float(head.t)


def test_center_head_has_a_parameter_of_its_own():
    head = CenterHead(D, C).double()
    out = head(rand(N, D))
    assert out.extra['centers'] is head.centers and dict(head.named_parameters()).keys() == {'weight', 'centers'}


def test_bnneck_has_no_trained_shift():
    neck = BNNeck(3)
    neck(torch.randn(8, 3) + 5).sum().backward()
    assert neck.bias is None and neck.weight.requires_grad


def test_project_neck_changes_the_width():
    neck, x = ProjectNeck(6, 3, p=.2).eval(), torch.randn(8, 6)
    torch.testing.assert_close(neck(x), neck[2](x @ neck[1].weight.t()))
    assert neck.train()(x).shape == (8, 3) and neck[2].bias is None


def test_gem_is_the_power_mean_and_its_limits():
    x = rand(2, 3, 4, 5).abs()
    for p in (1., 3., 4.5):
        want = [[np.mean([float(v)**p for v in x[i, c].flatten()])**(1 / p) for c in range(3)] for i in range(2)]
        np.testing.assert_allclose(GeM(p)(x).detach(), want, rtol=1e-6)
    torch.testing.assert_close(GeM(1.)(x), x.mean((2, 3)))
    torch.testing.assert_close(GeM(500.)(x / x.max()), x.amax((2, 3)) / x.max(), rtol=1e-2, atol=0)
    gem = GeM().double()
    assert torch.autograd.gradcheck(lambda v, r: torch.func.functional_call(gem, {'log_rise': r}, v),
                                    (x.clone().requires_grad_(), torch.tensor(.3, dtype=torch.float64, requires_grad=True)))


def test_gem_survives_half_precision_and_empty_maps():
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        for x in (torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 1e-3), torch.full((2, 3, 4, 4), 6e4)):
            gem, x = GeM(), x.to(dtype).requires_grad_()
            out = gem(x)
            out.float().sum().backward()
            assert out.dtype == dtype and torch.isfinite(out).all() and torch.isfinite(x.grad).all() and torch.isfinite(gem.log_rise.grad)
            if 0 < x[0, 0, 0, 0] < 6e4: torch.testing.assert_close(out, x.mean((2, 3)), rtol=1e-2, atol=0)


def test_gem_power_stays_above_one_and_decays_to_its_start():
    gem, x = GeM(1.5), torch.rand(2, 3, 4, 4)
    opt = torch.optim.SGD(gem.parameters(), lr=10.)
    for _ in range(20):
        gem(x).sum().backward()
        opt.step()
    assert 1 <= gem.p.item() < 1.5
    opt = torch.optim.AdamW(gem.parameters(), lr=.1, weight_decay=1.)
    for _ in range(200):
        gem.log_rise.grad = torch.zeros(())
        opt.step()
    assert abs(gem.p.item() - 1.5) < 1e-3 and [type(o) for o in gem.parameters()] == [nn.Parameter]


@pytest.mark.parametrize('make, words', [(lambda: GeM(.5), 'p=0.5'), (lambda: CosineHead(4, 4, 0), 'k=0'), (lambda: SampledHead(4, 4, share=0), 'share=0')])
def test_bad_input_is_named(make, words):
    with pytest.raises(InputError, match=words): make()


def test_the_bench_compares_like_with_like():
    "The forms that the head is measured against compute the same loss."
    from tests.bench.bench_heads import OneHot, sides
    torch.manual_seed(0)
    x, hot, head = torch.randn(N, D, requires_grad=True), OneHot(D, C), CosineHead(D, C)
    theirs = pytest.importorskip('pytorch_metric_learning.losses').ArcFaceLoss(C, D, margin=math.degrees(.3), scale=9.)
    with torch.no_grad():
        hot.weight.copy_(head.weight)
        theirs.W.copy_(head.weight.t())
    b = ArcFace(.3, 9.)(head(x), Y)
    for a, w in ((hot(x, Y, .3, 9.), hot.weight), (theirs(x, Y), theirs.W)):
        torch.testing.assert_close(a, b)
        d = torch.autograd.grad(a, w)[0]
        torch.testing.assert_close(d if w is hot.weight else d.t(), torch.autograd.grad(b, head.weight, retain_graph=True)[0], atol=1e-5, rtol=1e-4)
    for run in sides(8, 4, 50).values(): run()
