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
    make_learner,
    net,
    weights,
)
from tests.callback.test_sharpness import SECOND


@pytest.mark.parametrize('callback', [SAM(.1), ASAM(.5), LookSAM(.1, 1), ESAM(.1, .6, 1.)], ids=str)
def test_both_passes_see_the_same(callback):
    "The same mixed pictures, the same dropout; a share of the rows is a share of the same pictures."
    learner = make_learner(cbs=[callback, MixUp()])
    passes = Passes(learner.model)
    fit(learner, 'fit', 2, .05)
    assert len(passes.inputs) == len(passes.masks) == 4 * N // BS
    for tensors in (passes.inputs, passes.masks):
        for first, second in zip(tensors[::2], tensors[1::2]): assert torch.equal(first, second)
    assert not torch.equal(passes.inputs[0], passes.inputs[2]) and passes.masks[0].any()


class WithHead(nn.Module):
    "A linear body below a head, which is there in training only."
    def __init__(self, head):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))
        self.head = head

    def forward(self, images): return self.head(self.body(images)) if self.training else self.body(images)
    def param_groups(self): return body_and_head(self)


def test_heads_labels_and_buffers_on_the_second_pass():
    "A head that draws its centres draws the same ones; one that keeps track moves once."
    sampled = lambda: SampledHead(6, 3, share=.5), ArcFace(m=.2, s=10.)
    tracked = lambda: TrackedHead(6, 3), CurricularFace(s=10.)
    for make_head, loss in (sampled, tracked):
        end_states = []
        for callbacks in ([], [SAM(0.)], [GradientAccumulation(8), SAM(0.)], [GradientAccumulation(8)],
                          [SAM(.2)]):
            torch.manual_seed(0)
            moves = callbacks and callbacks[-1].name == 'sam' and callbacks[-1].rho
            learner = make_learner(WithHead(make_head()), n_items=BS if moves else N, loss=loss,
                                   cbs=[HeadLabels(), *callbacks])
            learner.dls.loaders[1] = learner.dls.valid.new(dataset=Items())
            fit(learner, 'fit', 1, .05)
            end_states.append(everything(learner))
        assert torch.equal(end_states[0], end_states[1])
        torch.testing.assert_close(end_states[2], end_states[3], rtol=1e-5, atol=1e-6)
        assert learner.model.head.labels is None


@pytest.mark.parametrize('n_items', [N, 22])
@pytest.mark.parametrize('make_callback', [lambda: SAM(.2), lambda: ASAM(.5), lambda: LookSAM(.2, 2),
                                lambda: ESAM(.2, .6, 1.)], ids=['SAM', 'ASAM', 'LookSAM', 'ESAM'])
def test_accumulated_is_the_large_batch(make_callback, n_items):
    "A net without norm and dropout: perturbed by the whole, looked at again as a whole."
    end_weights = []
    for callbacks, bs in (([make_callback()], 12), ([make_callback(), GradientAccumulation(12)], BS)):
        learner = make_learner(net(0., norm=False), bs=bs, n_items=n_items, cbs=[*callbacks, Steps()])
        # ESAM chooses by the number of the batch at which a step begins
        if isinstance(callbacks[0], ESAM): callbacks[0].share = 1.
        fit(learner, 'fit', 2, .1)
        end_weights.append(weights(learner))
        assert learner.steps.n_steps == 4
    torch.testing.assert_close(*end_weights, rtol=1e-4, atol=1e-6)


def test_accumulated_passes_keep_their_own_mixing_and_dropout():
    learner = make_learner(cbs=[SAM(.1), MixUp(), GradientAccumulation(8)])
    passes = Passes(learner.model)
    fit(learner, 'fit', 1, .05)
    for tensors in (passes.inputs, passes.masks):
        for i in range(0, len(tensors), 4):
            assert torch.equal(tensors[i], tensors[i + 2]) and torch.equal(tensors[i + 1], tensors[i + 3])


def test_only_the_second_gradient_is_clipped():
    "A clip of the first gradient would matter to LookSAM's reuse only; the step has the clipped length."
    gradients = {}
    for clip in (None, 1e-3):
        learner = make_learner(cbs=[SAM(.3), Steps(), *([GradientClip(clip)] if clip else [])], n_items=BS)
        fit(learner, 'fit', 1, .1)
        gradients[clip] = learner.steps.gradients[0]
    expected = gradients[None] * 1e-3 / (gradients[None].norm() + 1e-6)
    torch.testing.assert_close(gradients[1e-3], expected, rtol=1e-4, atol=1e-9)


class Blow(Callback):
    "Makes training forward number `blown_pass` of the fit give an infinite loss."
    def __init__(self, blown_pass): self.blown_pass = blown_pass
    def before_fit(self):
        self.n_passes = 0
        self.hook = self.learn.model.register_forward_hook(self.blow)

    def blow(self, module, args, output):
        if not module.training: return
        self.n_passes += 1
        return output * float('inf') if self.n_passes == self.blown_pass else output

    def after_fit(self): self.hook.remove()


def renewing_each_step(name):
    "The callback, with a second pass in every step."
    return LookSAM(.1, 1) if name == 'LookSAM' else SECOND[name](.1)


@pytest.mark.parametrize('name, blown_pass', [(name, blown_pass) for name in SECOND for blown_pass in (3, 4)])
def test_inf_in_either_pass_skips_the_step(name, blown_pass):
    "Weights as before bit for bit, one update of the scaler: its scale halves once, and goes on from there."
    callbacks = [renewing_each_step(name), CpuAmp(init_scale=256.), Steps(), Blow(blown_pass)]
    learner = make_learner(net(0.), cbs=callbacks)
    fit(learner, 'fit', 1, .05)
    steps = learner.steps
    assert steps.skipped == 1 and steps.n_steps == N // BS - 1 and steps.scales[:3] == [256., 128., 128.]
    # what was there before the third step is what the second, skipped, left
    plain = make_learner(net(0.), n_items=BS, cbs=[renewing_each_step(name), CpuAmp(init_scale=256.)])
    fit(plain, 'fit', 1, .05)
    torch.testing.assert_close(steps.weights[1], weights(plain), rtol=0, atol=0)


@pytest.mark.parametrize('name', SECOND)
def test_the_scale_drops_out(name):
    "Steps under a loss scale are those without one, but for half precision; both losses are scaled."
    gradients = []
    modes = [([], torch.float32), ([CpuAmp(init_scale=1024.)], torch.float16),
             ([CpuAmp('bf16')], torch.bfloat16)]
    for precision, dtype in modes:
        learner = make_learner(net(0.), cbs=[SECOND[name](.1), Steps(), *precision])
        dtypes = []

        def note(module, args, output, dtypes=dtypes):
            if module.training: dtypes.append(output.dtype)
        learner.model.body[0].register_forward_hook(note)
        fit(learner, 'fit', 1, .05)
        # either pass in the precision asked for
        assert set(dtypes) == {dtype} and len(dtypes) > N // BS
        gradients.append(torch.stack(learner.steps.gradients))
    for half_gradients, tolerance in zip(gradients[1:], (.03, .15)):
        assert (half_gradients - gradients[0]).norm() < tolerance * gradients[0].norm()


def test_a_pass_that_breaks_leaves_weights_and_the_learner_whole():
    class Break(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()
            self.n_passes = 0

        def forward(self, images):
            self.n_passes += 1
            if self.n_passes == 2: raise RuntimeError('broken off')
            return self.net(images)

        def param_groups(self): return self.net.param_groups()
    learner = make_learner(Break())
    before = weights(learner)
    with pytest.raises(RuntimeError, match='broken off'): fit(learner, 'fit', 1, .05, cbs=SAM(.3))
    assert torch.equal(weights(learner), before)
    learner.model(torch.randn(4, 1, 8, 8))
    assert not learner.model._forward_pre_hooks
    assert all(weight.requires_grad for weight in learner.model.parameters())


def test_frozen_weights_are_not_moved_on_either_pass():
    learner = make_learner(cbs=SAM(.3))
    learner.freeze()
    conv_weight = learner.model.body[0].weight
    weights_seen = []
    def note(module, args): weights_seen.append(conv_weight.detach().clone())
    learner.model.register_forward_pre_hook(note)
    fit(learner, 'fit', 1, .05)
    assert all(torch.equal(values, weights_seen[0]) for values in weights_seen)


def test_other_callbacks_count_a_step_once():
    events = ('before_batch', 'after_pred', 'after_loss', 'before_backward', 'after_step')

    class Counts(Callback):
        run_valid = False
        def before_fit(self): self.n_calls = dict.fromkeys(events, 0)
    for event in events:
        def count(self, event=event): self.n_calls[event] += 1
        setattr(Counts, event, count)
    learner = make_learner(cbs=[SAM(.1), Counts()])
    fit(learner, 'fit', 1, .05)
    assert set(learner.counts.n_calls.values()) == {N // BS} and len(learner.recorder.losses) == N // BS


def test_loss_terms_show_the_first_pass_alone():
    loss = SumLoss({'a': NormSoftmax(s=10.)})
    learner = make_learner(WithHead(CosineHead(6, 3)), n_items=BS, loss=loss, cbs=[SAM(5.), LossTerms()])
    learner.dls.loaders[1] = learner.dls.valid.new(dataset=Items())
    fit(learner, 'fit', 1, .05)
    terms = learner.loss_terms
    np.testing.assert_allclose(terms.term('a'), float(learner.recorder.losses[0]), rtol=1e-6)
