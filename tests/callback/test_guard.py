"What isn't finite is named; training to the best epoch ends where the best epoch ended."
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelBatchException
from fastai.callback.tracker import TerminateOnNaNCallback
from torch import nn

from fastmatch.callback.averaging import EMA
from fastmatch.callback.guard import Guard, NonFinite
from fastmatch.callback.mining import HardMining
from fastmatch.callback.mix import MixUp
from fastmatch.callback.sharpness import SAM
from fastmatch.core import InputError
from fastmatch.losses import CrossEntropy, FocalLoss, HardRows, SumLoss, Triplet
from fastmatch.losses.base import NotANumber
from fastmatch.schedule import GradientAccumulation
from tests.callback.small import (
    BS,
    CpuAmp,
    N,
    Steps,
    everything,
    fit,
    make_learner,
    net,
    weights,
)
from tests.learner.small import make as make_matcher


class Spoil(Callback):
    "Puts what isn't finite somewhere, at one batch of the second epoch."
    run_valid = False
    def __init__(self, what, order=-6):
        self.what = what
        self.order = order

    def at(self, *batches): return self.epoch == 1 and self.iter in (batches or (2,))

    def before_batch(self):
        if not self.at(): return
        model = self.learn.model
        nan = float('nan')
        if self.what == 'input': self.learn.xb = (self.xb[0].index_fill(0, torch.tensor([1, 3]), nan),)
        if self.what == 'weight': model.head.weight.data[0, 0] = float('inf')
        if self.what == 'module':
            self.hook = model.body[2].register_forward_hook(lambda module, args, output: output * nan)

    def after_backward(self):
        is_spoiled = self.what == 'gradient' and self.at() or self.what == 'gradients' and self.at(2, 3)
        if is_spoiled: self.learn.model.body[1].bias.grad[0] = float('nan')


@pytest.mark.parametrize('what, found', [
    ('input', 'the loss is nan; input 0 is not finite in rows 1, 3 of the batch'),
    ('weight', 'parameters that are not finite: head.weight'),
    ('module', r'the first module whose output is not finite: body\.2$'),
    ('gradient', r'gradients that are not finite: body\.1\.bias$'),
])
def test_names_batch_and_culprit(what, found):
    learner = make_learner(shuffle=True, cbs=[Guard(), Spoil(what)])
    drawn_rows = []
    get_rows = learner.dls.train.get_idxs
    learner.dls.train.get_idxs = lambda: drawn_rows.append(get_rows()) or drawn_rows[-1]
    with pytest.raises(NonFinite, match=found) as raised: fit(learner, 'fit', 2, .05)
    rows = ', '.join(map(str, drawn_rows[1][2 * BS:3 * BS]))
    assert f'epoch 1, batch 2 (rows {rows} of the training data)' in str(raised.value)


def test_a_finite_training_is_not_touched():
    end_states = []
    for callbacks in ([], [Guard()], [Guard(), SAM(0.)]):
        learner = make_learner(cbs=callbacks)
        fit(learner, 'fit', 2, .05)
        end_states.append(everything(learner))
    assert torch.equal(end_states[0], end_states[1]) and torch.equal(end_states[0], end_states[2])
    assert learner.guard.bad == []


@pytest.mark.parametrize('what', ['input', 'gradient'])
def test_bad_batches_may_be_left_out(what):
    learner = make_learner(cbs=[Guard(skip=1), Spoil(what), Steps()])
    fit(learner, 'fit', 2, .05)
    assert [(epoch, batch) for epoch, batch, _ in learner.guard.bad] == [(1, 2)]
    assert learner.steps.n_steps == 2 * N // BS - 1
    assert torch.isfinite(weights(learner)).all()
    assert np.isfinite([float(loss) for loss in learner.recorder.losses]).all()
    with pytest.raises(NonFinite, match='batch 3'):
        fit(make_learner(cbs=[Guard(skip=1), Spoil('gradients')]), 'fit', 2, .05)


class Without(Callback):
    "Leaves out the batch that `Spoil` spoils, before anything sees it."
    run_valid, order = False, -20
    def before_batch(self):
        if (self.epoch, self.iter) == (1, 2): raise CancelBatchException


BESIDE = {'nothing': lambda: [], 'EMA': lambda: [EMA(.7)], 'SAM': lambda: [SAM(.1)],
          'HardMining': lambda: [HardMining(.5)], 'accumulation': lambda: [GradientAccumulation(2 * BS)]}
# of accumulated gradients two batches would be left out
TOGETHER = [(what, beside) for what in ('input', 'gradient') for beside in BESIDE
            if (what, beside) != ('gradient', 'accumulation')]


@pytest.mark.parametrize('what, beside', TOGETHER)
def test_a_batch_left_out_is_as_if_it_had_never_been(what, beside):
    "Bit for bit, BatchNorm's statistics included."
    end_states = []
    for callbacks in ([Guard(skip=1), Spoil(what)], [Without()]):
        learner = make_learner(net(0.), cbs=[*BESIDE[beside](), *callbacks])
        fit(learner, 'fit', 2, .05)
        end_states.append(everything(learner))
    assert torch.isfinite(end_states[0]).all() and torch.equal(*end_states)


def test_a_scalers_skips_pass_but_not_without_end():
    class Blown(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()
            self.n_passes = 0

        def forward(self, images):
            self.n_passes += self.training
            return self.net(images) * (float('inf') if 3 < self.n_passes < 6 and self.training else 1)

        def param_groups(self): return self.net.param_groups()
    learner = make_learner(Blown(), cbs=[Guard(), CpuAmp(init_scale=64.), Steps()])
    fit(learner, 'fit', 2, .05)
    assert learner.steps.skipped == 2 and learner.guard.bad == []
    message = (r'skipped 2 steps in a row, its scale is 32; '
               r'gradients that are not finite: net\.body\.0\.weight, ')
    strict_learner = make_learner(Blown(), cbs=[Guard(scaler_skip=1), CpuAmp(init_scale=64.)])
    with pytest.raises(NonFinite, match=message): fit(strict_learner, 'fit', 2, .05)


OWN_LOSSES = [CrossEntropy(), SumLoss({'a': CrossEntropy(), 'b': FocalLoss()}), HardRows(CrossEntropy(), .5),
              Triplet()]


@pytest.mark.parametrize('beside', ['nothing', 'EMA', 'SAM', 'accumulation', 'mixing'])
@pytest.mark.parametrize('loss', OWN_LOSSES, ids=lambda loss: type(loss).__name__)
def test_losses_that_raise_for_nan_leave_it_to_the_guard(loss, beside):
    "Left out, the batch is as if it had never been; without leave to do so the guard names its rows."
    others = {**BESIDE, 'mixing': lambda: [MixUp()]}[beside]
    learner = make_learner(net(0.), loss=loss, cbs=[*others(), Guard(skip=1), Spoil('input'), Steps()])
    fit(learner, 'fit', 2, .05)
    assert [(epoch, batch) for epoch, batch, _ in learner.guard.bad] == [(1, 2)]
    # mixing has spread it to partners
    assert 'input 0 is not finite in rows 1' in learner.guard.bad[0][2]
    assert torch.isfinite(everything(learner)).all()
    assert not any(module._forward_pre_hooks or getattr(module, 'returns_nan', False)
                   for module in loss.modules())
    strict_learner = make_learner(net(0.), loss=loss, cbs=[*others(), Guard(), Spoil('input')])
    with pytest.raises(NonFinite, match=r'epoch 1, batch 2 \(rows 8, 9, 10, 11 of the training data\)'):
        fit(strict_learner, 'fit', 2, .05)
    # a guard that is gone leaves nothing behind, though its fit broke off
    strict_learner.remove_cbs([strict_learner.guard])
    with pytest.raises(NotANumber): fit(strict_learner, 'fit', 2, .05)


def test_hard_rows_of_a_spoiled_batch_reach_the_guard():
    learner = make_learner(net(0.), loss=CrossEntropy(), cbs=[HardMining(.5), Guard(skip=1), Spoil('input')])
    fit(learner, 'fit', 2, .05)
    assert len(learner.guard.bad) == 1 and torch.isfinite(everything(learner)).all()


def test_validation_has_no_guard():
    "A NaN there is the loss's own to tell."
    class SpoilValidation(Callback):
        run_train = False
        def before_batch(self): self.learn.xb = (self.xb[0] * float('nan'),)
    learner = make_learner(loss=CrossEntropy(), cbs=[Guard(skip=9), SpoilValidation()])
    with pytest.raises(NotANumber): fit(learner, 'fit', 1, .05)


class SpoilAll(Callback):
    "NaN in every batch from a given one of the fit on."
    run_valid, order = False, -6
    def __init__(self, first): self.first = first
    def before_batch(self):
        if self.learn.train_iter >= self.first: self.learn.xb = (self.xb[0] * float('nan'), *self.xb[1:])


@pytest.mark.parametrize('options', [{}, dict(skip=3)], ids=['strict', 'skips'])
def test_lr_find_ends_where_the_loss_is_lost(options, listings, tmp_path):
    "Under a guard as without one, in full and in half precision, and nothing stays in half precision."
    for callbacks in ([], [Guard(**options)]):
        for precision in ([], [CpuAmp('bf16')]):
            learner = make_matcher(listings, path=tmp_path, cbs=[*callbacks, *precision, SpoilAll(5)])
            before = weights(learner)
            fit(learner, 'lr_find', show_plot=False, num_it=12, suggest_funcs=None)
            assert torch.equal(weights(learner), before) and len(learner.recorder.lrs) in (4, 5)
            assert not torch.is_autocast_enabled('cpu')


def test_fastais_callback_for_nan_ends_the_training_quietly(listings, tmp_path):
    learner = make_matcher(listings, path=tmp_path, cbs=[TerminateOnNaNCallback(), SpoilAll(2), Steps()])
    fit(learner, 'fit', 2, 1e-3)
    assert learner.steps.n_steps == 2 and torch.isfinite(weights(learner)).all()


def test_numbers_below_0_are_refused():
    for options in (dict(skip=-1), dict(scaler_skip=-1)):
        with pytest.raises(InputError, match=f'{next(iter(options))}=-1'): Guard(**options)
