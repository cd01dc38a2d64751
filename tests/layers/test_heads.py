"Heads against plain formulas and plain autograd, what they sample, and what they keep track of."
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastmatch.core import HeadOutput, InputError, auto_scale
from fastmatch.layers.heads import CenterHead, CosineHead, SampledHead, TrackedHead
from fastmatch.losses import AdaCos, ArcFace, CosFace, CrossEntropy, CurricularFace, LargeMarginSoftmax
from tests.layers.test_cosines import C, D, N, rand
from tests.reference import losses as reference

TARGETS = torch.tensor([3, 3, 0, 9, 10, 5])


@pytest.mark.parametrize('k', [1, 3])
@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_head_is_the_normalised_form(k, dtype, tolerance):
    head, embeddings = CosineHead(D, C, k).to(dtype), rand(N, D).to(dtype).requires_grad_()
    output = head(embeddings)
    loss = ArcFace(s=9.)(output, TARGETS)
    gradients = torch.autograd.grad(loss, (embeddings, head.weight))
    # the nearest of a class's centers, one by one in numpy
    unit_vectors, centers = reference.unit(embeddings.detach()), reference.unit(head.weight.detach())
    expected = np.array([[max(vector @ centers[label * k + j] for j in range(k)) for label in range(C)]
                         for vector in unit_vectors])
    np.testing.assert_allclose(output.cos.detach(), expected, atol=tolerance)
    expected_loss = reference.arcface(expected.clip(-1, 1), TARGETS, .5, 9.).mean()
    np.testing.assert_allclose(loss.item(), expected_loss, rtol=10 * tolerance)
    products = F.linear(F.normalize(embeddings), F.normalize(head.weight))
    plain_output = HeadOutput(products.unflatten(1, (C, k)).max(2).values, embeddings)
    plain_gradients = torch.autograd.grad(ArcFace(s=9.)(plain_output, TARGETS), (embeddings, head.weight))
    for gradient, plain_gradient in zip(gradients, plain_gradients):
        torch.testing.assert_close(gradient, plain_gradient, atol=tolerance * 100, rtol=tolerance * 100)
    assert output.emb is not None and torch.equal(output.emb, embeddings)
    assert ('norms' in output.extra) == (k == 1)


def test_large_margin_softmax_trains_the_lengths():
    head, embeddings = CosineHead(D, C).double(), rand(N, D)
    def loss_of(weight):
        output = torch.func.functional_call(head, {'weight': weight}, embeddings)
        return LargeMarginSoftmax(3)(output, TARGETS)
    assert torch.autograd.gradcheck(loss_of, 5 * rand(C, D, seed=2).requires_grad_())
    LargeMarginSoftmax(3)(head(embeddings), TARGETS).backward()
    along_centers = (head.weight.grad * head.weight).sum(1)
    assert along_centers.abs().max() > 1e-6
    head.zero_grad()
    ArcFace()(head(embeddings), TARGETS).backward()
    # a cosine doesn't depend on how long its center is
    along_centers = (head.weight.grad * head.weight).sum(1)
    torch.testing.assert_close(along_centers, torch.zeros(C, dtype=torch.float64), atol=1e-12, rtol=0)


def test_embedding_length_does_not_matter():
    head, embeddings = CosineHead(D, C).double(), rand(N, D)
    longer_loss = ArcFace()(head(17 * embeddings), TARGETS)
    torch.testing.assert_close(longer_loss, ArcFace()(head(embeddings), TARGETS))


def test_head_stays_in_float32_under_autocast():
    head, embeddings = CosineHead(D, C), rand(N, D).bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16): cosines = head(embeddings).cos
    assert cosines.dtype == torch.float32
    torch.testing.assert_close(cosines, head(embeddings.float()).cos)


def sampled(share, k=1, labels=TARGETS):
    torch.manual_seed(0)
    head = SampledHead(D, C, k, share).double()
    head.labels = labels
    return head


@pytest.mark.parametrize('k', [1, 2])
@pytest.mark.parametrize('loss', [ArcFace(m=[.1 * i for i in range(C)], s=9.), CosFace(),
                                  CrossEntropy(torch.arange(1., C + 1)), ArcFace(label_smoothing=.1)])
def test_all_centres_sampled_is_the_full_head(loss, k):
    head, embeddings = sampled(1., k), rand(N, D)
    full_head = CosineHead(D, C, k).double()
    full_head.load_state_dict(head.state_dict())
    of_sampled, of_full = loss(head(embeddings), TARGETS), loss(full_head(embeddings), TARGETS)
    torch.testing.assert_close(of_sampled, of_full)
    gradient, = torch.autograd.grad(of_sampled, head.weight)
    torch.testing.assert_close(gradient, torch.autograd.grad(of_full, full_head.weight)[0])


OTHER = torch.tensor([1, 1, 2, 9, 0, 4])
BATCH_CLASSES = sorted({*TARGETS.tolist(), *OTHER.tolist()})


def test_sampling_keeps_the_batchs_classes_and_maps_them():
    head, embeddings = sampled(.1, labels=torch.cat([TARGETS, OTHER])), rand(N, D)
    output = head(embeddings)
    # the share is less than what the batch needs: exactly the batch's
    assert output.extra['classes'].tolist() == BATCH_CLASSES
    unit_vectors, centers = reference.unit(embeddings), reference.unit(head.weight.detach())
    loss = CosFace(m=[.05 * label for label in range(C)], s=9., reduction='none')
    for targets in (TARGETS, OTHER):
        row_losses = []
        for row, target in enumerate(targets.tolist()):
            logits = {label: 9 * unit_vectors[row] @ centers[label] for label in BATCH_CLASSES}
            logits[target] -= 9 * .05 * target
            row_losses.append(math.log(sum(math.exp(logit) for logit in logits.values())) - logits[target])
        np.testing.assert_allclose(loss(output, targets).detach(), row_losses)
    loss(output, OTHER).sum().backward()
    assert all((head.weight.grad[label] != 0).any() == (label in BATCH_CLASSES) for label in range(C))


def test_class_weights_are_picked_by_class_too():
    output = sampled(.1)(rand(N, D))
    classes = output.extra['classes']
    logits = (auto_scale(len(classes)) * output.cos).detach()
    row_losses = reference.cross_entropy(logits, torch.searchsorted(classes, TARGETS), (classes + 1.).numpy())
    loss = CrossEntropy(torch.arange(1., C + 1), reduction='none')
    np.testing.assert_allclose(loss(output, TARGETS).detach(), row_losses)


def test_negatives_are_drawn_evenly_and_anew():
    torch.manual_seed(0)
    head = SampledHead(4, 40, share=.5)
    head.labels = torch.tensor([7, 7, 30])
    counts = np.zeros(40)
    for _ in range(400):
        classes = head.sampled_classes()
        assert len(classes) == 20 and (classes.diff() > 0).all()
        counts[classes.numpy()] += 1
    assert (counts[[7, 30]] == 400).all()
    # 18 of 38: 189 expected, standard deviation 10
    assert abs(np.delete(counts, [7, 30]) - 400 * 18 / 38).max() < 45
    assert head.eval()(torch.randn(2, 4)).cos.shape == (2, 40)


@pytest.mark.parametrize('head', [SampledHead(D, C), TrackedHead(D, C)], ids=lambda head: type(head).__name__)
def test_labels_are_asked_for(head):
    with pytest.raises(InputError, match='HeadLabels'): head(torch.randn(2, D))
    assert head.eval()(torch.randn(2, D)).cos.shape == (2, C)


def test_tracked_head_follows_the_papers():
    torch.manual_seed(0)
    head = TrackedHead(D, C).double()
    easiness, scale = 0., 2**.5 * math.log(C - 1)
    for step in range(5):
        embeddings = rand(N, D, seed=step)
        head.labels = TARGETS
        output = head(embeddings)
        cosines = reference.unit(embeddings) @ reference.unit(head.weight.detach()).T
        own_cosines = [cosines[row, target] for row, target in enumerate(TARGETS)]
        easiness = .99 * easiness + .01 * np.mean(own_cosines)
        scale = reference.adacos_scale(cosines, TARGETS, scale)
        np.testing.assert_allclose([output.extra['t'], output.extra['s']], [easiness, scale], rtol=1e-6)
        adacos_loss = reference.cross_entropy(scale * cosines, TARGETS).mean()
        np.testing.assert_allclose(AdaCos()(output, TARGETS).item(), adacos_loss, rtol=1e-6)
        curricular_loss = reference.curricular(cosines, TARGETS, .5, 9., easiness).mean()
        np.testing.assert_allclose(CurricularFace(s=9.)(output, TARGETS).item(), curricular_loss, rtol=1e-6)
    assert set(dict(head.named_buffers())) == {'t', 's'}
    head.eval()(embeddings)
    np.testing.assert_allclose(head.t, easiness, rtol=1e-6)


@pytest.mark.parametrize('n_classes', [1, 2])
def test_adacos_scale_stays_where_it_pulls(n_classes):
    "With one other class, far away, the paper's formula falls below 0 and pushes rows from their own class."
    head = TrackedHead(2, n_classes)
    with torch.no_grad(): head.weight.copy_(torch.tensor([[1., 0.], [-1., 0.]])[:n_classes])
    head.labels = torch.arange(6) % n_classes
    embeddings = head.weight[head.labels].detach() + .1
    for _ in range(20): output = head(embeddings)
    assert output.extra['s'] == 1. == auto_scale(n_classes)
    cosines = F.normalize(embeddings) @ F.normalize(head.weight).t()
    expected = F.cross_entropy(cosines, head.labels).item()
    np.testing.assert_allclose(AdaCos()(output, head.labels).item(), expected, rtol=1e-5, atol=1e-7)


def test_an_output_keeps_its_figures_when_the_next_batch_moves_them():
    head = TrackedHead(D, C)
    head.labels = TARGETS
    output = head(torch.randn(N, D))
    easiness_before, loss = float(output.extra['t']), AdaCos()(output, TARGETS)
    head(torch.randn(N, D))
    loss.backward()
    assert float(output.extra['t']) == easiness_before != float(head.t)


@pytest.mark.parametrize('make_head', [CosineHead, SampledHead, TrackedHead, CenterHead])
def test_no_rows_to_train_on_are_told(make_head):
    head = make_head(D, C)
    head.labels = TARGETS[:0]
    with pytest.raises(InputError, match=f'{make_head.__name__} got a batch of 0 rows'):
        head(torch.zeros(0, D))
    assert head.eval()(torch.zeros(0, D)).cos.shape == (0, C)


def test_center_head_has_a_parameter_of_its_own():
    head = CenterHead(D, C).double()
    output = head(rand(N, D))
    assert output.extra['centers'] is head.centers
    assert dict(head.named_parameters()).keys() == {'weight', 'centers'}


@pytest.mark.parametrize('make_head, message', [(lambda: CosineHead(4, 4, 0), 'k=0'),
                                                (lambda: SampledHead(4, 4, share=0), 'share=0')])
def test_bad_input_is_named(make_head, message):
    with pytest.raises(InputError, match=message): make_head()


def test_the_bench_compares_like_with_like():
    "The forms that the head is measured against compute the same loss."
    from tests.bench.bench_heads import OneHot, sides
    torch.manual_seed(0)
    embeddings, one_hot, head = torch.randn(N, D, requires_grad=True), OneHot(D, C), CosineHead(D, C)
    metric_learning = pytest.importorskip('pytorch_metric_learning.losses')
    theirs = metric_learning.ArcFaceLoss(C, D, margin=math.degrees(.3), scale=9.)
    with torch.no_grad():
        one_hot.weight.copy_(head.weight)
        theirs.W.copy_(head.weight.t())
    loss = ArcFace(.3, 9.)(head(embeddings), TARGETS)
    gradient, = torch.autograd.grad(loss, head.weight)
    loss_one_hot = one_hot(embeddings, TARGETS, .3, 9.)
    loss_theirs = theirs(embeddings, TARGETS)
    torch.testing.assert_close(loss_one_hot, loss)
    torch.testing.assert_close(loss_theirs, loss)
    gradient_one_hot, = torch.autograd.grad(loss_one_hot, one_hot.weight)
    gradient_theirs, = torch.autograd.grad(loss_theirs, theirs.W)
    torch.testing.assert_close(gradient_one_hot, gradient, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradient_theirs.t(), gradient, atol=1e-5, rtol=1e-4)
    for run_side in sides(8, 4, 50).values(): run_side()
