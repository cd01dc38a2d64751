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
    learner,
    net,
    weights,
)

# name -> (rho -> callback) that makes a second pass
SECOND = {'SAM': SAM, 'ASAM': ASAM, 'LookSAM': lambda rho: LookSAM(rho, k=2),
          'ESAM': lambda rho: ESAM(rho, 1., 1.)}


@pytest.mark.parametrize('opt_func', [sgd, ranger])
@pytest.mark.parametrize('mix', [None, MixUp, CutMix])
@pytest.mark.parametrize('name', SECOND)
def test_rho_0_is_the_base(name, mix, opt_func):
    "Bit for bit, BatchNorm's statistics and random numbers included."
    runs = []
    for cbs in ([], [SECOND[name](0.)]):
        learn = learner(opt_func=opt_func, cbs=[*cbs, *([mix()] if mix else [])])
        fit(learn, 'fit', 2, .05)
        runs.append((everything(learn), torch.get_rng_state()))
    assert torch.equal(runs[0][0], runs[1][0]) and torch.equal(runs[0][1], runs[1][1])


@pytest.mark.parametrize('name', SECOND)
def test_a_rho_changes_the_weights_but_not_the_first_statistics(name):
    "BatchNorm's statistics after a step are the base's, with and without momentum; more steps count as many."
    for momentum in (.1, None):
        states = []
        for cbs in ([], [SECOND[name](.3)]):
            learn = learner(net(momentum=momentum), n=BS, cbs=cbs)
            fit(learn, 'fit', 1, .05)
            buffers = {key: buffer.clone() for key, buffer in learn.model.named_buffers()}
            states.append((weights(learn), buffers))
        (base_weights, base_buffers), (moved_weights, moved_buffers) = states
        assert len(base_buffers) == 3 and not torch.allclose(base_weights, moved_weights, atol=1e-5)
        for key, buffer in base_buffers.items(): assert torch.equal(buffer, moved_buffers[key]), key
        learn = learner(net(momentum=momentum), cbs=SECOND[name](.3))
        fit(learn, 'fit', 2, .05)
        assert learn.model.body[1].num_batches_tracked == 2 * N // BS


def bare(learn):
    "No validation, and no Recorder: its average is in float32."
    learn.dls.loaders[1] = learn.dls.valid.new(dataset=Items())
    learn.remove_cb(Recorder)


class Quadratic(nn.Module):
    "The batch is ignored: half w'Aw of two weight tensors."
    def __init__(self, a, w):
        super().__init__()
        self.a = a
        self.u = nn.Parameter(w[:2].clone())
        self.v = nn.Parameter(w[2:].clone())

    def forward(self, x):
        w = torch.cat([self.u, self.v])
        return (.5 * w @ self.a @ w).expand(len(x))
    def param_groups(self): return {'all': [self.u, self.v]}


class Mean(nn.Module):
    "A loss that is the model's output itself."
    def __init__(self):
        super().__init__()
        self.reduction = 'mean'

    def forward(self, pred, y): return pred if self.reduction == 'none' else pred.mean()


# of the quadratic: its matrix, and the weights it starts with
A = torch.tensor([[3., 1, 0, 0], [1, 2, .5, 0], [0, .5, 1, .2], [0, 0, .2, .5]], dtype=torch.float64)
W = torch.tensor([1., -2., .5, 3.], dtype=torch.float64)


def quadratic(cb, steps=1, lr=.1):
    "(Weights after some steps on the quadratic, its `Steps`)."
    learn = learner(Quadratic(A, W), loss=Mean(), n=BS * steps, cbs=[cb, Steps()])
    bare(learn)
    fit(learn, 'fit', 1, lr)
    return weights(learn), learn.steps


def test_sam_on_a_quadratic():
    g = A @ W
    want = A @ (W + .3 * g / g.norm())
    w, steps = quadratic(SAM(.3))
    torch.testing.assert_close(steps.grads[0], want, rtol=1e-12, atol=0)
    torch.testing.assert_close(w, W - .1 * want, rtol=1e-12, atol=0)
    assert torch.equal(steps.seen[0], W)


def test_asam_on_a_quadratic():
    g, t = A @ W, W.abs() + .01
    _, steps = quadratic(ASAM(.3, .01))
    torch.testing.assert_close(steps.grads[0], A @ (W + .3 * t**2 * g / (t * g).norm()), rtol=1e-12, atol=0)


def test_looksam_on_a_quadratic():
    "A step of SAM, two that reuse the part of its gradient at right angles to the plain one, then SAM again."
    w = W
    part = None
    _, steps = quadratic(LookSAM(.3, k=3, alpha=.7), 4)
    for i, got in enumerate(steps.grads):
        g = A @ w
        if i % 3 == 0:
            new = A @ (w + .3 * g / g.norm())
            part = new - (new @ g) / (g @ g) * g
        else: new = g + .7 * g.norm() / part.norm() * part
        torch.testing.assert_close(got, new, rtol=1e-9, atol=1e-9)
        w = w - .1 * new


def test_esam_on_a_quadratic():
    "Perturbs the tensors chosen; over the steps both, and either alone, are."
    _, steps = quadratic(ESAM(.3, beta=.5, gamma=1.), 12)
    kinds = set()
    for w, got in zip(steps.seen, steps.grads):
        g = A @ w
        found = []
        for mask in ([1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]):
            part = g * torch.tensor(mask)
            want = A @ (w + .3 / math.sqrt(.5) * part / part.norm())
            if torch.allclose(want, got, rtol=1e-9, atol=1e-12): found.append(tuple(mask))
        assert len(found) == 1
        kinds |= set(found)
    assert len(kinds) == 3


class Rowed(nn.Module):
    "Linear in the weights by row: which rows a perturbation harms most is known."
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(5, dtype=torch.float64))
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        self.last = x
        return x.double().flatten(1)[:, :5] @ self.w
    def param_groups(self): return {'all': [self.w]}


def test_esam_looks_again_at_the_rows_harmed_most():
    learn = learner(Rowed(), loss=Mean(), n=8, bs=8, cbs=[ESAM(.5, 1., .5), Steps()])
    bare(learn)
    fit(learn, 'fit', 1, .1)
    x = torch.stack([image for image, _ in data(8)]).double().flatten(1)[:, :5]
    g = x.mean(0)
    top = (x @ g).topk(4).indices.sort().values
    assert learn.model.sizes == [8, 8, 4]
    torch.testing.assert_close(learn.steps.grads[0], x[top].mean(0), rtol=1e-9, atol=1e-12)
    with pytest.raises(InputError, match='reduction'):
        fit(learner(loss=lambda pred, y: F.cross_entropy(pred, y), cbs=ESAM()), 'fit', 1)


def test_esam_rows_go_with_their_shares_of_mixing():
    class Lengths(Callback):
        run_valid = False
        def before_fit(self): self.seen = set()
        def after_batch(self): self.seen.add(len(self.learn.mix_up.lam))
    learn = learner(cbs=[ESAM(.2, .6, .5), MixUp(), Lengths()])
    seen = Passes(learn.model)
    fit(learn, 'fit', 1, .05)
    # whoever reads the shares afterwards finds the batch's
    assert learn.lengths.seen == {BS}
    for images, again, part in zip(seen.inputs[::3], seen.inputs[1::3], seen.inputs[2::3]):
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
            (x,), (y,) = self._passes[0].inputs, self._passes[0].targets
            found.append(float(F.cross_entropy(self.learn.model(x), y).detach()))
            super().recompute_gradients(moved)
    found = []
    items = Items([(x.double(), y) for x, y in data(BS)])
    learn = learner(rescaled(scale), n=BS, cbs=Sharp(*options))
    learn.dls.loaders = [learn.dls.train.new(dataset=items), learn.dls.valid.new(dataset=Items())]
    fit(learn, 'fit', 1, 1e-9)
    return found[0]


def test_asam_is_invariant_to_rescaled_layers():
    asam = [climbed(ASAM, (.5, 0.), scale) for scale in (1., 10., .1)]
    np.testing.assert_allclose(asam, asam[0], rtol=1e-9)
    sam = [climbed(SAM, (.5,), scale) for scale in (1., 10.)]
    assert abs(sam[1] - sam[0]) > .1 * sam[0]


def test_two_of_the_family_are_refused():
    with pytest.raises(InputError, match='SAM and ASAM both'): fit(learner(cbs=[SAM(), ASAM()]), 'fit', 1)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for cb in (SAM(), ASAM(), LookSAM(), ESAM()): fit(learner(cbs=cb), 'fit', 1)
    refused = [lambda: SAM(-1.), lambda: LookSAM(k=0), lambda: ESAM(beta=0.), lambda: ESAM(gamma=2.),
               lambda: SAF(back=0), lambda: ASAM(eta=-.1), lambda: LookSAM(alpha=-1.), lambda: SAF(temp=0.),
               lambda: SAF(weight=-1.)]
    for bad in refused:
        with pytest.raises(InputError): bad()
