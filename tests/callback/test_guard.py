"What isn't finite is named; training to the best epoch ends where the best epoch ended."
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelBatchException
from fastai.callback.tracker import SaveModelCallback
from torch import nn

from fastmatch.callback.averaging import EMA
from fastmatch.callback.guard import Guard, NonFinite
from fastmatch.callback.mining import HardMining
from fastmatch.callback.sharpness import SAM
from fastmatch.core import InputError
from fastmatch.optim import ranger
from fastmatch.schedule import GradientAccumulation
from tests.callback.small import BS, CpuAmp, Items, N, Net, Steps, data, everything, fit, learner, net, weights


class Spoil(Callback):
    "Puts what isn't finite somewhere, at one batch of the second epoch."
    run_valid = False
    def __init__(self, what, order=-6): self.what, self.order = what, order
    def at(self, *its): return self.epoch == 1 and self.iter in (its or (2,))
    def before_batch(self):
        if not self.at(): return
        if self.what == 'input': self.learn.xb = (self.xb[0].index_fill(0, torch.tensor([1, 3]), float('nan')),)
        if self.what == 'weight': self.learn.model.head.weight.data[0, 0] = float('inf')
        if self.what == 'module': self.hook = self.learn.model.body[2].register_forward_hook(lambda m, a, o: o * float('nan'))
    def after_backward(self):
        if self.what == 'gradient' and self.at(): self.learn.model.body[1].bias.grad[0] = float('nan')
        if self.what == 'gradients' and self.at(2, 3): self.learn.model.body[1].bias.grad[0] = float('nan')


@pytest.mark.parametrize('what, found', [('input', 'the loss is nan; input 0 is not finite in rows 1, 3 of the batch'), ('weight', 'parameters that are not finite: head.weight'),
                                         ('module', r'the first module whose output is not finite: body\.2$'), ('gradient', r'gradients that are not finite: body\.1\.bias$')])
def test_names_batch_and_culprit(what, found):
    learn = learner(shuffle=True, cbs=[Guard(), Spoil(what)])
    drawn = []
    keep = learn.dls.train.get_idxs
    learn.dls.train.get_idxs = lambda: drawn.append(keep()) or drawn[-1]
    with pytest.raises(NonFinite, match=found) as e: fit(learn, 'fit', 2, .05)
    rows = ', '.join(map(str, drawn[1][2 * BS:3 * BS]))
    assert f'epoch 1, batch 2 (rows {rows} of the training data)' in str(e.value)


def test_a_finite_training_is_not_touched():
    runs = []
    for cbs in ([], [Guard()], [Guard(), SAM(0.)]):
        learn = learner(cbs=cbs)
        fit(learn, 'fit', 2, .05)
        runs.append(everything(learn))
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2]) and learn.guard.bad == []


@pytest.mark.parametrize('what', ['input', 'gradient'])
def test_bad_batches_may_be_left_out(what):
    learn = learner(cbs=[Guard(skip=1), Spoil(what), Steps()])
    fit(learn, 'fit', 2, .05)
    assert [(e, i) for e, i, _ in learn.guard.bad] == [(1, 2)] and learn.steps.n_steps == 2 * N // BS - 1
    assert torch.isfinite(weights(learn)).all() and np.isfinite([float(o) for o in learn.recorder.losses]).all()
    with pytest.raises(NonFinite, match='batch 3'): fit(learner(cbs=[Guard(skip=1), Spoil('gradients')]), 'fit', 2, .05)


class Without(Callback):
    "Leaves out the batch that `Spoil` spoils, before anything sees it."
    run_valid, order = False, -20
    def before_batch(self):
        if (self.epoch, self.iter) == (1, 2): raise CancelBatchException


BESIDE = {'nothing': lambda: [], 'EMA': lambda: [EMA(.7)], 'SAM': lambda: [SAM(.1)], 'HardMining': lambda: [HardMining(.5)],
          'accumulation': lambda: [GradientAccumulation(2 * BS)]}


# of accumulated gradients two batches would be left out
@pytest.mark.parametrize('what, beside', [(o, k) for o in ('input', 'gradient') for k in BESIDE if (o, k) != ('gradient', 'accumulation')])
def test_a_batch_left_out_is_as_if_it_had_never_been(what, beside):
    "Bit for bit, BatchNorm's statistics included."
    runs = []
    for cbs in ([Guard(skip=1), Spoil(what)], [Without()]):
        learn = learner(net(0.), cbs=[*BESIDE[beside](), *cbs])
        fit(learn, 'fit', 2, .05)
        runs.append(everything(learn))
    assert torch.isfinite(runs[0]).all() and torch.equal(*runs)


def test_a_scalers_skips_pass_but_not_without_end():
    class Blown(nn.Module):
        def __init__(self): super().__init__(); self.net, self.n = net(), 0
        def forward(self, x):
            self.n += self.training
            return self.net(x) * (float('inf') if 3 < self.n < 6 and self.training else 1)
        def param_groups(self): return self.net.param_groups()
    learn = learner(Blown(), cbs=[Guard(), CpuAmp(init_scale=64.), Steps()])
    fit(learn, 'fit', 2, .05)
    assert learn.steps.skipped == 2 and learn.guard.bad == []
    with pytest.raises(NonFinite, match=r'skipped 2 steps in a row, its scale is 32; gradients that are not finite: net\.body\.0\.weight, '): fit(learner(Blown(), cbs=[Guard(scaler_skip=1), CpuAmp(init_scale=64.)]), 'fit', 2, .05)


@pytest.mark.parametrize('cbs', [lambda: [], lambda: [EMA(.5)]], ids=['plain', 'EMA'])
@pytest.mark.parametrize('fit_name', ['fit_flat_cos', 'fit_one_cycle'])
def test_trained_to_the_best_epoch(fit_name, cbs, tmp_path):
    "Bit for bit what fastai's SaveModel would have loaded."
    lr = {'fit_flat_cos': .6, 'fit_one_cycle': .8}[fit_name]
    saved = learner(Net(), ranger, tmp_path, shuffle=True)
    state = {k: v.clone() for k, v in saved.model.state_dict().items()}
    one = learner(net(), ranger, tmp_path, shuffle=True, cbs=cbs())
    one.model.load_state_dict(state)
    fit(one, fit_name, 5, lr, cbs=SaveModelCallback())
    best = int(np.argmin([o[1] for o in one.recorder.values]))
    two = learner(net(), ranger, tmp_path, shuffle=True, cbs=cbs())
    two.model.load_state_dict(state)
    assert fit(two, 'fit_to_best', 5, lr, fit=fit_name) == best
    assert len(two.recorder.values) == best + 1
    assert torch.equal(weights(one), weights(two))


def test_numbers_below_0_are_refused():
    for bad in (dict(skip=-1), dict(scaler_skip=-1)):
        with pytest.raises(InputError, match=f'{next(iter(bad))}=-1'): Guard(**bad)


def test_second_training_on_all_data():
    learn = learner(cbs=Steps())
    every = learner(n=2 * N).dls
    best = fit(learn, 'fit_to_best', 3, .05, dls=every, patience=2)
    assert learn.steps.n_steps == (best + 1) * 2 * N // BS and learn.dls is not every
    learn.dls.loaders[1] = learn.dls.valid.new(dataset=Items(data(4)))
    with pytest.raises(InputError, match='never better'): fit(learn, 'fit_to_best', 1, float('nan'))
