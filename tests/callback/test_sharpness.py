"The SAM family: what must not change, closed forms, invariance, second looks under dropout, mixing, accumulation and mixed precision; flatness measured."
import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.callback.training import GradientClip
from fastai.learner import Recorder
from torch import nn

from fastmatch.callback.heads import HeadLabels, LossTerms
from fastmatch.callback.mix import CutMix, MixUp
from fastmatch.callback.sharpness import ASAM, ESAM, SAF, SAM, LookSAM
from fastmatch.core import InputError
from fastmatch.layers.heads import SampledHead, TrackedHead
from fastmatch.losses import ArcFace, CurricularFace, NormSoftmax, SumLoss
from fastmatch.optim import ranger, sgd
from fastmatch.schedule import GradientAccumulation
from tests.callback.small import BS, CpuAmp, Items, N, Net, Passes, Steps, data, everything, fit, learner, net, weights

SECOND = {'SAM': SAM, 'ASAM': ASAM, 'LookSAM': lambda rho: LookSAM(rho, k=2), 'ESAM': lambda rho: ESAM(rho, 1., 1.)}


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
    "BatchNorm's statistics after one step are the base's, with a momentum or without; more steps count as many."
    for momentum in (.1, None):
        states = []
        for cbs in ([], [SECOND[name](.3)]):
            learn = learner(net(momentum=momentum), n=BS, cbs=cbs)
            fit(learn, 'fit', 1, .05)
            states.append((weights(learn), {k: v.clone() for k, v in learn.model.state_dict().items() if 'running' in k or 'num' in k}))
        assert not torch.allclose(states[0][0], states[1][0], atol=1e-5)
        for k, v in states[0][1].items(): assert torch.equal(v, states[1][1][k]), k
        learn = learner(net(momentum=momentum), cbs=SECOND[name](.3))
        fit(learn, 'fit', 2, .05)
        assert learn.model.body[1].num_batches_tracked == 2 * N // BS


@pytest.mark.parametrize('cb', [SAM(.1), ASAM(.5), LookSAM(.1, 1), ESAM(.1, .6, 1.)], ids=str)
def test_both_passes_see_the_same(cb):
    "The same mixed pictures, the same dropout; a share of the rows is a share of the same pictures."
    learn = learner(cbs=[cb, MixUp()])
    seen = Passes(learn.model)
    fit(learn, 'fit', 2, .05)
    assert len(seen.inputs) == len(seen.masks) == 4 * N // BS
    for x in (seen.inputs, seen.masks):
        for a, b in zip(x[::2], x[1::2]): assert torch.equal(a, b)
    assert not torch.equal(seen.inputs[0], seen.inputs[2]) and seen.masks[0].any()


def test_heads_labels_and_buffers_on_the_second_pass():
    "A head that draws its centres draws the same ones; one that keeps track moves once."
    class Head(nn.Module):
        def __init__(self, head):
            super().__init__()
            self.body, self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 6)), head
        def forward(self, x): return self.head(self.body(x)) if self.training else self.body(x)
        def param_groups(self): return {'body': list(self.body.parameters()), 'head': list(self.head.parameters())}
    for head, loss in ((lambda: SampledHead(6, 3, share=.5), ArcFace(m=.2, s=10.)), (lambda: TrackedHead(6, 3), CurricularFace(s=10.))):
        runs = []
        for cbs in ([], [SAM(0.)], [GradientAccumulation(8), SAM(0.)], [GradientAccumulation(8)], [SAM(.2)]):
            torch.manual_seed(0)
            learn = learner(Head(head()), n=BS if cbs and cbs[-1].name == 'sam' and cbs[-1].rho else N, loss=loss, cbs=[HeadLabels(), *cbs])
            learn.dls.loaders[1] = learn.dls.valid.new(dataset=Items())
            fit(learn, 'fit', 1, .05)
            runs.append(everything(learn))
        assert torch.equal(runs[0], runs[1])
        torch.testing.assert_close(runs[2], runs[3], rtol=1e-5, atol=1e-6)
        assert learn.model.head.labels is None


def bare(learn):
    "No validation, and no Recorder: its average is in float32."
    learn.dls.loaders[1] = learn.dls.valid.new(dataset=Items())
    learn.remove_cb(Recorder)


class Quadratic(nn.Module):
    "The batch is ignored: half w'Aw of two weight tensors."
    def __init__(self, a, w):
        super().__init__()
        self.a, self.u, self.v = a, nn.Parameter(w[:2].clone()), nn.Parameter(w[2:].clone())
    def forward(self, x):
        w = torch.cat([self.u, self.v])
        return (.5 * w @ self.a @ w).expand(len(x))
    def param_groups(self): return {'all': [self.u, self.v]}


class Mean(nn.Module):
    def __init__(self): super().__init__(); self.reduction = 'mean'
    def forward(self, pred, y): return pred if self.reduction == 'none' else pred.mean()


A = torch.tensor([[3., 1, 0, 0], [1, 2, .5, 0], [0, .5, 1, .2], [0, 0, .2, .5]], dtype=torch.float64)
W = torch.tensor([1., -2., .5, 3.], dtype=torch.float64)


def quadratic(cb, steps=1, lr=.1):
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
    "A step of SAM, then two that reuse what of its gradient was at right angles to the plain one; then SAM again."
    w, part = W, None
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
        g, found = A @ w, []
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
        self.w, self.sizes = nn.Parameter(torch.zeros(5, dtype=torch.float64)), []
    def forward(self, x):
        self.sizes.append(len(x))
        self.last = x
        return x.double().flatten(1)[:, :5] @ self.w
    def param_groups(self): return {'all': [self.w]}


def test_esam_looks_again_at_the_rows_harmed_most():
    learn = learner(Rowed(), loss=Mean(), n=8, bs=8, cbs=[ESAM(.5, 1., .5), Steps()])
    bare(learn)
    fit(learn, 'fit', 1, .1)
    x = torch.stack([o[0] for o in data(8)]).double().flatten(1)[:, :5]
    g = x.mean(0)
    top = (x @ g).topk(4).indices.sort().values
    assert learn.model.sizes == [8, 8, 4]
    torch.testing.assert_close(learn.steps.grads[0], x[top].mean(0), rtol=1e-9, atol=1e-12)
    with pytest.raises(InputError, match='reduction'):
        fit(learner(loss=lambda p, y: F.cross_entropy(p, y), cbs=ESAM()), 'fit', 1)


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
    for x, again, part in zip(seen.inputs[::3], seen.inputs[1::3], seen.inputs[2::3]):
        assert torch.equal(x, again) and len(part) == 2 and all(any(torch.equal(a, b) for b in x) for a in part)


def lipped(scale):
    "A net without biases whose layers are rescaled so that its outputs stay."
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 7, bias=False), nn.ReLU(), nn.Linear(7, 3, bias=False)).double()
    with torch.no_grad(): net[1].weight.mul_(scale), net[3].weight.div_(scale)
    net.param_groups = lambda: {'all': list(net.parameters())}
    return net


def climbed(cb, scale):
    "The batch's loss at the perturbed weights."
    class Sharp(type(cb)):
        def recompute_gradients(self, moved):
            (x,), (y,) = self._passes[0].inputs, self._passes[0].targets
            found.append(float(F.cross_entropy(self.learn.model(x), y).detach()))
            super().recompute_gradients(moved)
    found, new = [], Sharp.__new__(Sharp)
    new.__dict__.update(cb.__dict__)
    items = Items([(x.double(), y) for x, y in data(BS)])
    learn = learner(lipped(scale), n=BS, cbs=new)
    for i in (0, 1): learn.dls.loaders[i] = learn.dls.loaders[i].new(dataset=items if i == 0 else Items())
    fit(learn, 'fit', 1, 1e-9)
    return found[0]


def test_asam_is_invariant_to_rescaled_layers():
    asam = [climbed(ASAM(.5, 0.), s) for s in (1., 10., .1)]
    np.testing.assert_allclose(asam, asam[0], rtol=1e-9)
    sam = [climbed(SAM(.5), s) for s in (1., 10.)]
    assert abs(sam[1] - sam[0]) > .1 * sam[0]


@pytest.mark.parametrize('n', [N, 22])
@pytest.mark.parametrize('cb', [lambda: SAM(.2), lambda: ASAM(.5), lambda: LookSAM(.2, 2), lambda: ESAM(.2, .6, 1.)], ids=['SAM', 'ASAM', 'LookSAM', 'ESAM'])
def test_accumulated_is_the_large_batch(cb, n):
    "A net without norm and dropout: perturbed by the whole, looked at again as a whole."
    runs = []
    for cbs, bs in (([cb()], 12), ([cb(), GradientAccumulation(12)], BS)):
        learn = learner(net(0., norm=False), bs=bs, n=n, cbs=[*cbs, Steps()])
        # ESAM chooses by the number of the batch at which a step begins
        if isinstance(cbs[0], ESAM): cbs[0].seed, cbs[0].share = 0, 1.
        fit(learn, 'fit', 2, .1)
        runs.append(weights(learn))
        assert learn.steps.n_steps == 4
    torch.testing.assert_close(*runs, rtol=1e-4, atol=1e-6)


def test_accumulated_passes_keep_their_own_mixing_and_dropout():
    learn = learner(cbs=[SAM(.1), MixUp(), GradientAccumulation(8)])
    seen = Passes(learn.model)
    fit(learn, 'fit', 1, .05)
    for x in (seen.inputs, seen.masks):
        for i in range(0, len(x), 4): assert torch.equal(x[i], x[i + 2]) and torch.equal(x[i + 1], x[i + 3])


def test_only_the_second_gradient_is_clipped():
    "A tight clip of the first would change nothing of the direction, but of LookSAM's reuse; the step has the clipped length."
    runs = {}
    for clip in (None, 1e-3):
        learn = learner(cbs=[SAM(.3), Steps(), *([GradientClip(clip)] if clip else [])], n=BS)
        fit(learn, 'fit', 1, .1)
        runs[clip] = learn.steps.grads[0]
    torch.testing.assert_close(runs[1e-3], runs[None] * 1e-3 / (runs[None].norm() + 1e-6), rtol=1e-4, atol=1e-9)


class Blow(Callback):
    "Makes the `at`-th training forward of the fit give an infinite loss."
    def __init__(self, at): self.at = at
    def before_fit(self):
        self.n = 0
        self.hook = self.learn.model.register_forward_hook(self.blow)
    def blow(self, module, args, out):
        if not module.training: return
        self.n += 1
        return out * float('inf') if self.n == self.at else out
    def after_fit(self): self.hook.remove()


@pytest.mark.parametrize('name, at', [(k, at) for k in SECOND for at in (3, 4)])
def test_inf_in_either_pass_skips_the_step(name, at):
    "Weights as before bit for bit, one update of the scaler: its scale halves once, and goes on from there."
    cb = {'LookSAM': LookSAM(.1, 1)}.get(name) or SECOND[name](.1)
    learn = learner(net(0.), cbs=[cb, CpuAmp(init_scale=256.), Steps(), Blow(at)])
    fit(learn, 'fit', 1, .05)
    steps = learn.steps
    assert steps.skipped == 1 and steps.n_steps == N // BS - 1 and steps.scales[:3] == [256., 128., 128.]
    # what was there before the third step is what the second, skipped, left
    plain = learner(net(0.), n=BS, cbs=[{'LookSAM': LookSAM(.1, 1)}.get(name) or SECOND[name](.1), CpuAmp(init_scale=256.)])
    fit(plain, 'fit', 1, .05)
    torch.testing.assert_close(steps.seen[1], weights(plain), rtol=0, atol=0)


@pytest.mark.parametrize('name', SECOND)
def test_the_scale_drops_out(name):
    "Steps under a loss scale are those without one but for half precision; without scaling the second loss they'd be smaller by the scale."
    runs = []
    for amp, dtype in (([], torch.float32), ([CpuAmp(init_scale=1024.)], torch.float16), ([CpuAmp('bf16')], torch.bfloat16)):
        learn, seen = learner(net(0.), cbs=[SECOND[name](.1), Steps(), *amp]), []
        learn.model.body[0].register_forward_hook(lambda m, args, out, seen=seen: seen.append(out.dtype) if m.training else None)
        fit(learn, 'fit', 1, .05)
        # either pass in the precision asked for
        assert set(seen) == {dtype} and len(seen) > N // BS
        runs.append(torch.stack(learn.steps.grads))
    for half, tol in zip(runs[1:], (.03, .15)): assert (half - runs[0]).norm() < tol * runs[0].norm()


def test_a_pass_that_breaks_leaves_weights_and_the_learner_whole():
    class Break(nn.Module):
        def __init__(self): super().__init__(); self.net, self.n = Net(), 0
        def forward(self, x):
            self.n += 1
            if self.n == 2: raise RuntimeError('broken off')
            return self.net(x)
        def param_groups(self): return self.net.param_groups()
    learn = learner(Break())
    before = weights(learn)
    with pytest.raises(RuntimeError, match='broken off'): fit(learn, 'fit', 1, .05, cbs=SAM(.3))
    assert torch.equal(weights(learn), before)
    learn.model(torch.randn(4, 1, 8, 8))
    assert not learn.model._forward_pre_hooks and all(p.requires_grad for p in learn.model.parameters())


def test_frozen_weights_are_not_moved_on_either_pass():
    learn = learner(cbs=SAM(.3))
    learn.freeze()
    conv, seen = learn.model.body[0].weight, []
    learn.model.register_forward_pre_hook(lambda m, args: seen.append(conv.detach().clone()))
    fit(learn, 'fit', 1, .05)
    assert all(torch.equal(o, seen[0]) for o in seen)


def test_other_callbacks_count_a_step_once():
    class Counts(Callback):
        run_valid = False
        def before_fit(self): self.n = dict.fromkeys(('before_batch', 'after_pred', 'after_loss', 'before_backward', 'after_step'), 0)
    for o in ('before_batch', 'after_pred', 'after_loss', 'before_backward', 'after_step'):
        setattr(Counts, o, lambda self, o=o: self.n.update({o: self.n[o] + 1}))
    learn = learner(cbs=[SAM(.1), Counts()])
    fit(learn, 'fit', 1, .05)
    assert set(learn.counts.n.values()) == {N // BS} and len(learn.recorder.losses) == N // BS


def test_loss_terms_show_the_first_pass_alone():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            from fastmatch.layers.heads import CosineHead
            self.body, self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 6)), CosineHead(6, 3)
        def forward(self, x): return self.head(self.body(x)) if self.training else self.body(x)
        def param_groups(self): return {'body': list(self.body.parameters()), 'head': list(self.head.parameters())}
    learn = learner(Head(), n=BS, loss=SumLoss({'a': NormSoftmax(s=10.)}), cbs=[SAM(5.), LossTerms()])
    learn.dls.loaders[1] = learn.dls.valid.new(dataset=Items())
    fit(learn, 'fit', 1, .05)
    terms = learn.loss_terms
    np.testing.assert_allclose(terms.term('a'), float(learn.recorder.losses[0]), rtol=1e-6)


def test_two_of_the_family_are_refused():
    with pytest.raises(InputError, match='SAM and ASAM both'): fit(learner(cbs=[SAM(), ASAM()]), 'fit', 1)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for cb in (SAM(), ASAM(), LookSAM(), ESAM()): fit(learner(cbs=cb), 'fit', 1)
    for bad in (lambda: SAM(-1.), lambda: LookSAM(k=0), lambda: ESAM(beta=0.), lambda: ESAM(gamma=2.), lambda: SAF(back=0),
                lambda: ASAM(eta=-.1), lambda: LookSAM(alpha=-1.), lambda: SAF(temp=0.), lambda: SAF(weight=-1.)):
        with pytest.raises(InputError): bad()
