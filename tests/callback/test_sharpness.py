"The SAM family against closed forms on quadratics and linear models; invariance, and what must not change."
import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.learner import Recorder
from torch import nn

from fastmatch.callback.mix import CutMix, MixUp
from fastmatch.callback.saf import SAF
from fastmatch.callback.sharpness import ASAM, ESAM, SAM, LookSAM
from fastmatch.core import InputError
from fastmatch.optim import ranger, sgd
from tests.callback.small import (
    BS,
    Items,
    N,
    Passes,
    Steps,
    data,
    everything,
    fit,
    make_learner,
    net,
    weights,
)

# name -> (rho -> callback) that makes a second pass
SECOND = {'SAM': SAM, 'ASAM': ASAM, 'LookSAM': lambda rho: LookSAM(rho, k=2),
          'ESAM': lambda rho: ESAM(rho, 1., 1.)}


@pytest.mark.parametrize('opt_func', [sgd, ranger])
@pytest.mark.parametrize('mixer', [None, MixUp, CutMix])
@pytest.mark.parametrize('name', SECOND)
def test_rho_0_is_the_base(name, mixer, opt_func):
    "Bit for bit, BatchNorm's statistics and random numbers included."
    end_states = []
    for callbacks in ([], [SECOND[name](0.)]):
        learner = make_learner(opt_func=opt_func, cbs=[*callbacks, *([mixer()] if mixer else [])])
        fit(learner, 'fit', 2, .05)
        end_states.append((everything(learner), torch.get_rng_state()))
    assert torch.equal(end_states[0][0], end_states[1][0]) and torch.equal(end_states[0][1], end_states[1][1])


@pytest.mark.parametrize('name', SECOND)
def test_a_rho_changes_the_weights_but_not_the_first_statistics(name):
    "BatchNorm's statistics after a step are the base's, with and without momentum; more steps count as many."
    for momentum in (.1, None):
        states = []
        for callbacks in ([], [SECOND[name](.3)]):
            learner = make_learner(net(momentum=momentum), n_items=BS, cbs=callbacks)
            fit(learner, 'fit', 1, .05)
            buffers = {buffer_name: buffer.clone() for buffer_name, buffer in learner.model.named_buffers()}
            states.append((weights(learner), buffers))
        (base_weights, base_buffers), (moved_weights, moved_buffers) = states
        assert len(base_buffers) == 3 and not torch.allclose(base_weights, moved_weights, atol=1e-5)
        for buffer_name, buffer in base_buffers.items():
            assert torch.equal(buffer, moved_buffers[buffer_name]), buffer_name
        learner = make_learner(net(momentum=momentum), cbs=SECOND[name](.3))
        fit(learner, 'fit', 2, .05)
        assert learner.model.body[1].num_batches_tracked == 2 * N // BS


def bare(learner):
    "No validation, and no Recorder: its average is in float32."
    learner.dls.loaders[1] = learner.dls.valid.new(dataset=Items())
    learner.remove_cb(Recorder)


class Quadratic(nn.Module):
    "The batch is ignored: half w'Aw of two weight tensors."
    def __init__(self, matrix, start):
        super().__init__()
        self.matrix = matrix
        self.first = nn.Parameter(start[:2].clone())
        self.second = nn.Parameter(start[2:].clone())

    def forward(self, batch):
        both = torch.cat([self.first, self.second])
        return (.5 * both @ self.matrix @ both).expand(len(batch))
    def param_groups(self): return {'all': [self.first, self.second]}


class Mean(nn.Module):
    "A loss that is the model's output itself."
    def __init__(self):
        super().__init__()
        self.reduction = 'mean'

    def forward(self, output, targets): return output if self.reduction == 'none' else output.mean()


# of the quadratic: its matrix, and the weights it starts with
A = torch.tensor([[3., 1, 0, 0], [1, 2, .5, 0], [0, .5, 1, .2], [0, 0, .2, .5]], dtype=torch.float64)
W = torch.tensor([1., -2., .5, 3.], dtype=torch.float64)


def quadratic(callback, steps=1, lr=.1):
    "(Weights after some steps on the quadratic, its `Steps`)."
    learner = make_learner(Quadratic(A, W), loss=Mean(), n_items=BS * steps, cbs=[callback, Steps()])
    bare(learner)
    fit(learner, 'fit', 1, lr)
    return weights(learner), learner.steps


def test_sam_on_a_quadratic():
    gradient = A @ W
    expected = A @ (W + .3 * gradient / gradient.norm())
    moved, steps = quadratic(SAM(.3))
    torch.testing.assert_close(steps.gradients[0], expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(moved, W - .1 * expected, rtol=1e-12, atol=0)
    assert torch.equal(steps.weights[0], W)


def test_asam_on_a_quadratic():
    gradient, sizes = A @ W, W.abs() + .01
    _, steps = quadratic(ASAM(.3, .01, scale_all=True))
    expected = A @ (W + .3 * sizes**2 * gradient / (sizes * gradient).norm())
    torch.testing.assert_close(steps.gradients[0], expected, rtol=1e-12, atol=0)


def test_asam_scales_what_the_authors_scale():
    "Their code, with its own loop: what has 'weight' in its name by its size, the rest by 1."
    def authors_gradient(model, images, targets, rho, eta):
        F.cross_entropy(model(images), targets).backward()
        named = dict(model.named_parameters())
        sizes = {name: weight.detach().abs() + eta if 'weight' in name else torch.ones_like(weight)
                 for name, weight in named.items()}
        norm = torch.stack([(sizes[name] * weight.grad).norm() for name, weight in named.items()]).norm()
        with torch.no_grad():
            for name, weight in named.items(): weight.add_(sizes[name]**2 * weight.grad, alpha=rho / norm)
        loss = F.cross_entropy(model(images), targets)
        return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, list(named.values()))])
    images, targets = (torch.stack(tensors) for tensors in zip(*data(BS)))
    expected = authors_gradient(net(0.), images, targets, .5, .01)
    gradients = []
    for callback in (ASAM(), ASAM(scale_all=True)):
        learner = make_learner(net(0.), n_items=BS, cbs=[callback, Steps()])
        fit(learner, 'fit', 1, .05)
        gradients.append(learner.steps.gradients[0])
    torch.testing.assert_close(gradients[0], expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(gradients[1], expected, rtol=1e-2)


def test_looksam_on_a_quadratic():
    "A step of SAM, two that reuse the part of its gradient at right angles to the plain one, then SAM again."
    current = W
    flat_part = None
    _, steps = quadratic(LookSAM(.3, k=3, alpha=.7), 4)
    for step_number, actual in enumerate(steps.gradients):
        gradient = A @ current
        if step_number % 3 == 0:
            expected = A @ (current + .3 * gradient / gradient.norm())
            flat_part = expected - (expected @ gradient) / (gradient @ gradient) * gradient
        else: expected = gradient + .7 * gradient.norm() / flat_part.norm() * flat_part
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
        current = current - .1 * expected


def test_esam_on_a_quadratic():
    "Perturbs the tensors chosen; over the steps both, and either alone, are."
    _, steps = quadratic(ESAM(.3, beta=.5, gamma=1.), 12)
    chosen_masks = set()
    for before, actual in zip(steps.weights, steps.gradients):
        gradient = A @ before
        fitting_masks = []
        for mask in ([1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]):
            part = gradient * torch.tensor(mask)
            expected = A @ (before + .3 / math.sqrt(.5) * part / part.norm())
            if torch.allclose(expected, actual, rtol=1e-9, atol=1e-12): fitting_masks.append(tuple(mask))
        assert len(fitting_masks) == 1
        chosen_masks |= set(fitting_masks)
    assert len(chosen_masks) == 3


class Rowed(nn.Module):
    "Linear in the weights by row: which rows a perturbation harms most is known."
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(5, dtype=torch.float64))
        self.sizes = []

    def forward(self, images):
        self.sizes.append(len(images))
        self.last = images
        return images.double().flatten(1)[:, :5] @ self.weight
    def param_groups(self): return {'all': [self.weight]}


def test_esam_looks_again_at_the_rows_harmed_most():
    learner = make_learner(Rowed(), loss=Mean(), n_items=8, bs=8, cbs=[ESAM(.5, 1., .5), Steps()])
    bare(learner)
    fit(learner, 'fit', 1, .1)
    features = torch.stack([image for image, _ in data(8)]).double().flatten(1)[:, :5]
    gradient = features.mean(0)
    harmed = (features @ gradient).topk(4).indices.sort().values
    assert learner.model.sizes == [8, 8, 4]
    torch.testing.assert_close(learner.steps.gradients[0], features[harmed].mean(0), rtol=1e-9, atol=1e-12)
    with pytest.raises(InputError, match='reduction'):
        fit(make_learner(loss=lambda output, targets: F.cross_entropy(output, targets), cbs=ESAM()), 'fit', 1)


def test_esam_rows_go_with_their_shares_of_mixing():
    class Lengths(Callback):
        run_valid = False
        def before_fit(self): self.seen = set()
        def after_batch(self): self.seen.add(len(self.learn.mix_up.lam))
    learner = make_learner(cbs=[ESAM(.2, .6, .5), MixUp(), Lengths()])
    passes = Passes(learner.model)
    fit(learner, 'fit', 1, .05)
    # whoever reads the shares afterwards finds the batch's
    assert learner.lengths.seen == {BS}
    for images, again, part in zip(passes.inputs[::3], passes.inputs[1::3], passes.inputs[2::3]):
        assert torch.equal(images, again) and len(part) == 2
        assert all(any(torch.equal(row, image) for image in images) for row in part)


def rescaled(scale):
    "A net without biases whose layers are rescaled so that its outputs stay."
    torch.manual_seed(0)
    first = nn.Linear(64, 7, bias=False)
    last = nn.Linear(7, 3, bias=False)
    model = nn.Sequential(nn.Flatten(), first, nn.ReLU(), last).double()
    with torch.no_grad():
        first.weight.mul_(scale)
        last.weight.div_(scale)
    model.param_groups = lambda: {'all': list(model.parameters())}
    return model


def climbed(kind, options, scale):
    "The batch's loss at the perturbed weights."
    class Sharp(kind):
        def recompute_gradients(self, moved):
            (images,), (targets,) = self._passes[0].inputs, self._passes[0].targets
            climbed_losses.append(float(F.cross_entropy(self.learn.model(images), targets).detach()))
            super().recompute_gradients(moved)
    climbed_losses = []
    items = Items([(image.double(), target) for image, target in data(BS)])
    learner = make_learner(rescaled(scale), n_items=BS, cbs=Sharp(*options))
    learner.dls.loaders = [learner.dls.train.new(dataset=items), learner.dls.valid.new(dataset=Items())]
    fit(learner, 'fit', 1, 1e-9)
    return climbed_losses[0]


def test_asam_is_invariant_to_rescaled_layers():
    asam_losses = [climbed(ASAM, (.5, 0.), scale) for scale in (1., 10., .1)]
    np.testing.assert_allclose(asam_losses, asam_losses[0], rtol=1e-9)
    sam_losses = [climbed(SAM, (.5,), scale) for scale in (1., 10.)]
    assert abs(sam_losses[1] - sam_losses[0]) > .1 * sam_losses[0]


def test_two_of_the_family_are_refused():
    with pytest.raises(InputError, match='SAM and ASAM both'):
        fit(make_learner(cbs=[SAM(), ASAM()]), 'fit', 1)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for callback in (SAM(), ASAM(), LookSAM(), ESAM()): fit(make_learner(cbs=callback), 'fit', 1)
    refused = [lambda: SAM(-1.), lambda: LookSAM(k=0), lambda: ESAM(beta=0.), lambda: ESAM(gamma=2.),
               lambda: SAF(back=0), lambda: ASAM(eta=-.1), lambda: LookSAM(alpha=-1.), lambda: SAF(temp=0.),
               lambda: SAF(weight=-1.)]
    for make_callback in refused:
        with pytest.raises(InputError): make_callback()
