"Second passes of the SAM family under dropout, mixing, heads, accumulation, clipping and mixed precision."
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.training import GradientClip
from torch import nn

from fastmatch.callback.heads import HeadLabels, LossTerms
from fastmatch.callback.mix import MixUp
from fastmatch.callback.sharpness import ASAM, ESAM, SAM, LookSAM
from fastmatch.layers.heads import CosineHead, SampledHead, TrackedHead
from fastmatch.losses import ArcFace, CurricularFace, NormSoftmax, SumLoss
from fastmatch.schedule import GradientAccumulation
from tests.callback.small import (
    BS,
    CpuAmp,
    Items,
    N,
    Net,
    Passes,
    Steps,
    body_and_head,
    everything,
    fit,
    learner,
    net,
    weights,
)
from tests.callback.test_sharpness import SECOND


@pytest.mark.parametrize('cb', [SAM(.1), ASAM(.5), LookSAM(.1, 1), ESAM(.1, .6, 1.)], ids=str)
def test_both_passes_see_the_same(cb):
    "The same mixed pictures, the same dropout; a share of the rows is a share of the same pictures."
    learn = learner(cbs=[cb, MixUp()])
    seen = Passes(learn.model)
    fit(learn, 'fit', 2, .05)
    assert len(seen.inputs) == len(seen.masks) == 4 * N // BS
    for tensors in (seen.inputs, seen.masks):
        for first, second in zip(tensors[::2], tensors[1::2]): assert torch.equal(first, second)
    assert not torch.equal(seen.inputs[0], seen.inputs[2]) and seen.masks[0].any()


class WithHead(nn.Module):
    "A linear body below a head, which is there in training only."
    def __init__(self, head):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))
        self.head = head

    def forward(self, x): return self.head(self.body(x)) if self.training else self.body(x)
    def param_groups(self): return body_and_head(self)


def test_heads_labels_and_buffers_on_the_second_pass():
    "A head that draws its centres draws the same ones; one that keeps track moves once."
    sampled = lambda: SampledHead(6, 3, share=.5), ArcFace(m=.2, s=10.)
    tracked = lambda: TrackedHead(6, 3), CurricularFace(s=10.)
    for head, loss in (sampled, tracked):
        runs = []
        for cbs in ([], [SAM(0.)], [GradientAccumulation(8), SAM(0.)], [GradientAccumulation(8)], [SAM(.2)]):
            torch.manual_seed(0)
            moved = cbs and cbs[-1].name == 'sam' and cbs[-1].rho
            learn = learner(WithHead(head()), n=BS if moved else N, loss=loss, cbs=[HeadLabels(), *cbs])
            learn.dls.loaders[1] = learn.dls.valid.new(dataset=Items())
            fit(learn, 'fit', 1, .05)
            runs.append(everything(learn))
        assert torch.equal(runs[0], runs[1])
        torch.testing.assert_close(runs[2], runs[3], rtol=1e-5, atol=1e-6)
        assert learn.model.head.labels is None


@pytest.mark.parametrize('n', [N, 22])
@pytest.mark.parametrize('cb', [lambda: SAM(.2), lambda: ASAM(.5), lambda: LookSAM(.2, 2),
                                lambda: ESAM(.2, .6, 1.)], ids=['SAM', 'ASAM', 'LookSAM', 'ESAM'])
def test_accumulated_is_the_large_batch(cb, n):
    "A net without norm and dropout: perturbed by the whole, looked at again as a whole."
    runs = []
    for cbs, bs in (([cb()], 12), ([cb(), GradientAccumulation(12)], BS)):
        learn = learner(net(0., norm=False), bs=bs, n=n, cbs=[*cbs, Steps()])
        # ESAM chooses by the number of the batch at which a step begins
        if isinstance(cbs[0], ESAM): cbs[0].share = 1.
        fit(learn, 'fit', 2, .1)
        runs.append(weights(learn))
        assert learn.steps.n_steps == 4
    torch.testing.assert_close(*runs, rtol=1e-4, atol=1e-6)


def test_accumulated_passes_keep_their_own_mixing_and_dropout():
    learn = learner(cbs=[SAM(.1), MixUp(), GradientAccumulation(8)])
    seen = Passes(learn.model)
    fit(learn, 'fit', 1, .05)
    for tensors in (seen.inputs, seen.masks):
        for i in range(0, len(tensors), 4):
            assert torch.equal(tensors[i], tensors[i + 2]) and torch.equal(tensors[i + 1], tensors[i + 3])


def test_only_the_second_gradient_is_clipped():
    "A clip of the first gradient would matter to LookSAM's reuse only; the step has the clipped length."
    runs = {}
    for clip in (None, 1e-3):
        learn = learner(cbs=[SAM(.3), Steps(), *([GradientClip(clip)] if clip else [])], n=BS)
        fit(learn, 'fit', 1, .1)
        runs[clip] = learn.steps.grads[0]
    want = runs[None] * 1e-3 / (runs[None].norm() + 1e-6)
    torch.testing.assert_close(runs[1e-3], want, rtol=1e-4, atol=1e-9)


class Blow(Callback):
    "Makes the `at`-th training forward of the fit give an infinite loss."
    def __init__(self, at): self.at = at
    def before_fit(self):
        self.n = 0
        self.hook = self.learn.model.register_forward_hook(self.blow)

    def blow(self, module, args, output):
        if not module.training: return
        self.n += 1
        return output * float('inf') if self.n == self.at else output

    def after_fit(self): self.hook.remove()


def renewing_each_step(name):
    "The callback, with a second pass in every step."
    return LookSAM(.1, 1) if name == 'LookSAM' else SECOND[name](.1)


@pytest.mark.parametrize('name, at', [(name, at) for name in SECOND for at in (3, 4)])
def test_inf_in_either_pass_skips_the_step(name, at):
    "Weights as before bit for bit, one update of the scaler: its scale halves once, and goes on from there."
    learn = learner(net(0.), cbs=[renewing_each_step(name), CpuAmp(init_scale=256.), Steps(), Blow(at)])
    fit(learn, 'fit', 1, .05)
    steps = learn.steps
    assert steps.skipped == 1 and steps.n_steps == N // BS - 1 and steps.scales[:3] == [256., 128., 128.]
    # what was there before the third step is what the second, skipped, left
    plain = learner(net(0.), n=BS, cbs=[renewing_each_step(name), CpuAmp(init_scale=256.)])
    fit(plain, 'fit', 1, .05)
    torch.testing.assert_close(steps.seen[1], weights(plain), rtol=0, atol=0)


@pytest.mark.parametrize('name', SECOND)
def test_the_scale_drops_out(name):
    "Steps under a loss scale are those without one, but for half precision; both losses are scaled."
    runs = []
    modes = [([], torch.float32), ([CpuAmp(init_scale=1024.)], torch.float16),
             ([CpuAmp('bf16')], torch.bfloat16)]
    for amp, dtype in modes:
        learn = learner(net(0.), cbs=[SECOND[name](.1), Steps(), *amp])
        seen = []

        def note(module, args, output, seen=seen):
            if module.training: seen.append(output.dtype)
        learn.model.body[0].register_forward_hook(note)
        fit(learn, 'fit', 1, .05)
        # either pass in the precision asked for
        assert set(seen) == {dtype} and len(seen) > N // BS
        runs.append(torch.stack(learn.steps.grads))
    for half, tol in zip(runs[1:], (.03, .15)): assert (half - runs[0]).norm() < tol * runs[0].norm()


def test_a_pass_that_breaks_leaves_weights_and_the_learner_whole():
    class Break(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()
            self.n = 0

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
    assert not learn.model._forward_pre_hooks
    assert all(weight.requires_grad for weight in learn.model.parameters())


def test_frozen_weights_are_not_moved_on_either_pass():
    learn = learner(cbs=SAM(.3))
    learn.freeze()
    conv = learn.model.body[0].weight
    seen = []
    learn.model.register_forward_pre_hook(lambda module, args: seen.append(conv.detach().clone()))
    fit(learn, 'fit', 1, .05)
    assert all(torch.equal(values, seen[0]) for values in seen)


def test_other_callbacks_count_a_step_once():
    events = ('before_batch', 'after_pred', 'after_loss', 'before_backward', 'after_step')

    class Counts(Callback):
        run_valid = False
        def before_fit(self): self.n = dict.fromkeys(events, 0)
    for event in events:
        setattr(Counts, event, lambda self, event=event: self.n.update({event: self.n[event] + 1}))
    learn = learner(cbs=[SAM(.1), Counts()])
    fit(learn, 'fit', 1, .05)
    assert set(learn.counts.n.values()) == {N // BS} and len(learn.recorder.losses) == N // BS


def test_loss_terms_show_the_first_pass_alone():
    loss = SumLoss({'a': NormSoftmax(s=10.)})
    learn = learner(WithHead(CosineHead(6, 3)), n=BS, loss=loss, cbs=[SAM(5.), LossTerms()])
    learn.dls.loaders[1] = learn.dls.valid.new(dataset=Items())
    fit(learn, 'fit', 1, .05)
    terms = learn.loss_terms
    np.testing.assert_allclose(terms.term('a'), float(learn.recorder.losses[0]), rtol=1e-6)
