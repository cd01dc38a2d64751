"Recipes on a tiny Learner: who moves when, at which rate, and what stays still to the bit."
from functools import partial

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from torch import nn

from fastmatch.core import InputError
from fastmatch.optim import ranger, sgd
from fastmatch.schedule import Still, TorchSchedule, WarmUp, between, layered_rates
from tests.optim.tiny import TinyNet, fit
from tests.schedule.small import make_learner
from tests.schedule.test_fit import Rates


class Noted(Callback):
    "Which parameters were trained, epoch by epoch."
    def before_fit(self): self.learn.fits = [*getattr(self.learn, 'fits', []), self.n_epoch]

    def after_epoch(self):
        trained = [parameter.requires_grad for group in self.opt.param_lists for parameter in group]
        rates = [hypers['lr'] for hypers in self.opt.hypers]
        self.learn.log_free = [*getattr(self.learn, 'log_free', []), trained]
        self.learn.log_lr = [*getattr(self.learn, 'log_lr', []), rates]


class ThreeGroups(TinyNet):
    "Three parameter groups, two norms."
    def __init__(self):
        super().__init__()
        self.mid = nn.Sequential(nn.Linear(6, 6, bias=False), nn.BatchNorm1d(6, affine=False))
    def forward(self, inputs): return self.head(self.mid(self.body(inputs)))
    def param_groups(self):
        return {name: list(getattr(self, name).parameters()) for name in ('body', 'mid', 'head')}


def test_layered_rates(): np.testing.assert_allclose(layered_rates(.01, 3), [.01 / 6.76, .01 / 2.6, .01])


def test_gradual_unfreezing():
    learner = make_learner(ranger, model=ThreeGroups(), cbs=Noted(), train_bn=False)
    fit(learner, 'fit_gradual', .01, [1, 2, 1], fit='fit')
    assert learner.fits == [1, 2, 1]
    # body: weight, norm's weight and bias; mid: weight; head: weight, bias
    from_mid = [False] * 3 + [True] * 3
    assert learner.log_free == [[False] * 4 + [True] * 2, from_mid, from_mid, [True] * 6]
    expected = [[.01 / 2.6**(2 - i) / divisor for i in range(3)] for divisor in (1, 2, 2, 4)]
    np.testing.assert_allclose(learner.log_lr, expected)
    with pytest.raises(InputError, match='3 stages'): learner.fit_gradual(.01, [1, 1])


@pytest.mark.parametrize('lr', [.01, {'head': .01, 'image': .002}])
def test_head_first(lr):
    learner = make_learner(ranger, cbs=Noted(), train_bn=False)
    body_weight = learner.model.body[0].weight.detach().clone()
    class Look(Callback):
        def after_epoch(self):
            if self.learn.fits == [1]:
                self.learn.same = torch.equal(self.learn.model.body[0].weight, body_weight)
    learner.add_cb(Look())
    fit(learner, 'fit_head_first', 1, 2, lr, fit='fit')
    assert learner.fits == [1, 2] and learner.same
    assert not torch.equal(learner.model.body[0].weight, body_weight)
    first_rates, last_rates = ([.002, .01], [.001, .005]) if isinstance(lr, dict) else ([.01] * 2, [.005] * 2)
    np.testing.assert_allclose(learner.log_lr, [first_rates, last_rates, last_rates])
    with pytest.raises(InputError, match='one parameter group'):
        one_group = make_learner(sgd)
        one_group.splitter = lambda model: list(model.parameters())
        one_group.fit_head_first(1, 1, .1)


def test_a_stage_without_epochs_is_left_out():
    "What comes after it is as after a stage that was trained: everything thawed, at its own rate."
    for head_epochs, n_epoch, fits, lr in ((0, 2, [2], .005), (2, 0, [2], .01)):
        learner = make_learner(ranger, cbs=Noted(), train_bn=False)
        fit(learner, 'fit_head_first', head_epochs, n_epoch, .01, fit='fit_flat_cos', pct_start=1.)
        assert learner.fits == fits and all(weight.requires_grad for weight in learner.model.parameters())
        np.testing.assert_allclose(learner.log_lr, [[lr, lr]] * 2)
    learner = make_learner(ranger, model=ThreeGroups(), cbs=Noted(), train_bn=False)
    fit(learner, 'fit_gradual', .01, [1, 0, 1], fit='fit')
    assert learner.fits == [1, 1] and all(learner.log_free[-1])
    np.testing.assert_allclose(learner.log_lr[-1], [.01 / 2.6**(2 - i) / 4 for i in range(3)])
    for method, arguments, culprit in (('fit_head_first', (0, 0, .01), 'head_epochs, n_epoch: all 0'),
                                       ('fit_head_first', (1, -1, .01), 'n_epoch=-1'),
                                       ('fit_gradual', (.01, 0), 'all 0'),
                                       ('fit_gradual', (.01, [1, .5, 1]), r'epochs\[1\]=0.5')):
        with pytest.raises(InputError, match=culprit): fit(learner, method, *arguments)


@pytest.mark.parametrize('still', [True, False])
def test_frozen_norms_stay_still(still):
    "fastai's BatchNorm in a frozen group goes on learning and counting; under Still nothing of it changes."
    learner = make_learner(ranger, model=ThreeGroups(), wd=.1)
    fit(learner, 'fit', 1, .01)
    learner.freeze()
    before = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    fit(learner, 'fit', 2, .01, cbs=Still() if still else None)
    after = learner.model.state_dict()
    unchanged = {name: torch.equal(tensor, before[name]) for name, tensor in after.items()}
    assert not unchanged['head.weight'] and unchanged['body.0.weight'] and unchanged['mid.0.weight']
    norm_state = ('body.1.weight', 'body.1.running_mean', 'body.1.num_batches_tracked', 'mid.1.running_var')
    assert all(unchanged[name] == still for name in norm_state)
    # afterwards it is as freeze left it: the norm may train
    assert learner.model.body[1].weight.requires_grad and not learner.model.body[0].weight.requires_grad


def test_shallow_blocks_by_name_stay_still():
    learner = make_learner(ranger, model=ThreeGroups(), wd=.1)
    before = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    fit(learner, 'fit', 2, .01, cbs=Still('body'))
    after = learner.model.state_dict()
    unchanged = {name: torch.equal(tensor, before[name]) for name, tensor in after.items()}
    kept = {name for name, is_same in unchanged.items() if is_same}
    assert kept == {name for name in unchanged if name.startswith('body')}
    assert all(parameter.requires_grad for parameter in learner.model.parameters())
    with pytest.raises(InputError, match=r"\['boddy'\].*body"):
        fit(learner, 'fit', 1, .01, cbs=Still('boddy'))


def test_rate_between_steepest_and_a_tenth_of_the_minimum(tmp_path):
    rates = torch.logspace(-6, 0, 61)
    decades = rates.log10()
    losses = -torch.sigmoid((decades + 4) * 4) + .5 * (decades + 1).clamp(min=0)**2 + .01 * (decades + 1)**2
    # steepest at 1e-4 but for rounding of the grid, minimum near 1e-1
    rate, (marked_rate, marked_loss) = between(rates, losses, 100)
    steepest = rates[((losses[1:] - losses[:-1]) / (rates[1:].log() - rates[:-1].log())).argmin()]
    lowest = rates[losses.argmin()] / 10
    assert float(steepest) < rate < float(lowest) and marked_rate == rate and marked_loss in losses
    assert np.isclose(rate, float(steepest * lowest)**.5, rtol=1e-5)
    learner = make_learner(sgd, tmp_path)
    with learner.no_bar(): found = learner.lr_find(num_it=20, show_plot=False, suggest_funcs=between)
    assert 1e-7 < found.between < 10


def test_rates_are_seen_by_every_stage():
    learner = make_learner(sgd, cbs=Rates())
    fit(learner, 'fit_head_first', 1, 1, .01, warmup=.5)
    expected = [[.005 * factor] * 2 for factor in (.001, .334, .667)]
    np.testing.assert_allclose(learner.rates.seen[:3], expected, rtol=1e-6)


every_epoch = partial(torch.optim.lr_scheduler.StepLR, step_size=1)


@pytest.mark.parametrize('callback', [Still, partial(Still, 'body'), partial(WarmUp, 3),
                                      partial(TorchSchedule, every_epoch)])
def test_a_validation_has_nothing_to_schedule(callback):
    "A callback that was added for a later training: there may be no optimizer yet, and no epochs."
    learner = make_learner(sgd, model=ThreeGroups())
    with learner.no_bar(), learner.no_logging():
        expected = learner.validate()
        learner.add_cb(callback())
        assert learner.validate() == expected and learner.opt is None
        learner.fit(4, .01)
        weights = [parameter.detach().clone() for parameter in learner.model.parameters()]
        learner.validate()
        learner.get_preds()
        assert all(map(torch.equal, weights, learner.model.parameters()))
        learner.fit(4, .01)
    assert not all(map(torch.equal, weights, learner.model.parameters()))
    assert all(parameter.requires_grad for parameter in learner.model.parameters())
