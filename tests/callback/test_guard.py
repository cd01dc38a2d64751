"What isn't finite is named; training to the best epoch ends where the best epoch ended."
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelBatchException
from torch import nn

from fastmatch.callback.averaging import EMA
from fastmatch.callback.guard import Guard, NonFinite
from fastmatch.callback.mining import HardMining
from fastmatch.callback.sharpness import SAM
from fastmatch.core import InputError
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


def test_numbers_below_0_are_refused():
    for options in (dict(skip=-1), dict(scaler_skip=-1)):
        with pytest.raises(InputError, match=f'{next(iter(options))}=-1'): Guard(**options)
