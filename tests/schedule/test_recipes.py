"Recipes on a tiny Learner: who moves when, at which rate, and what stays still to the bit."
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from torch import nn

from fastmatch.core import InputError
from fastmatch.optim import ranger, sgd
from fastmatch.schedule import Still, between, layered_rates
from tests.schedule.small import SmallNet, fit, learner
from tests.schedule.test_fit import Rates


class Noted(Callback):
    "Which parameters were trained, epoch by epoch."
    def before_fit(self): self.learn.fits = [*getattr(self.learn, 'fits', []), self.n_epoch]

    def after_epoch(self):
        free = [weight.requires_grad for group in self.opt.param_lists for weight in group]
        rates = [hypers['lr'] for hypers in self.opt.hypers]
        self.learn.log_free = [*getattr(self.learn, 'log_free', []), free]
        self.learn.log_lr = [*getattr(self.learn, 'log_lr', []), rates]


class Three(SmallNet):
    "Three parameter groups, two norms."
    def __init__(self):
        super().__init__()
        self.mid = nn.Sequential(nn.Linear(6, 6, bias=False), nn.BatchNorm1d(6, affine=False))
    def forward(self, x): return self.head(self.mid(self.body(x)))
    def param_groups(self):
        return {name: list(getattr(self, name).parameters()) for name in ('body', 'mid', 'head')}


def test_layered_rates(): np.testing.assert_allclose(layered_rates(.01, 3), [.01 / 6.76, .01 / 2.6, .01])


def test_gradual_unfreezing():
    learn = learner(ranger, model=Three(), cbs=Noted(), train_bn=False)
    fit(learn, 'fit_gradual', .01, [1, 2, 1], fit='fit')
    assert learn.fits == [1, 2, 1]
    # body: weight, norm's weight and bias; mid: weight; head: weight, bias
    from_mid = [False] * 3 + [True] * 3
    assert learn.log_free == [[False] * 4 + [True] * 2, from_mid, from_mid, [True] * 6]
    want = [[.01 / 2.6**(2 - i) / divisor for i in range(3)] for divisor in (1, 2, 2, 4)]
    np.testing.assert_allclose(learn.log_lr, want)
    with pytest.raises(InputError, match='3 stages'): learn.fit_gradual(.01, [1, 1])


@pytest.mark.parametrize('lr', [.01, {'head': .01, 'image': .002}])
def test_head_first(lr):
    learn = learner(ranger, cbs=Noted(), train_bn=False)
    body = learn.model.body[0].weight.detach().clone()
    class Look(Callback):
        def after_epoch(self):
            if self.learn.fits == [1]: self.learn.same = torch.equal(self.learn.model.body[0].weight, body)
    learn.add_cb(Look())
    fit(learn, 'fit_head_first', 1, 2, lr, fit='fit')
    assert learn.fits == [1, 2] and learn.same and not torch.equal(learn.model.body[0].weight, body)
    first, last = ([.002, .01], [.001, .005]) if isinstance(lr, dict) else ([.01] * 2, [.005] * 2)
    np.testing.assert_allclose(learn.log_lr, [first, last, last])
    with pytest.raises(InputError, match='one parameter group'):
        one = learner(sgd)
        one.splitter = lambda net: list(net.parameters())
        one.fit_head_first(1, 1, .1)


@pytest.mark.parametrize('still', [True, False])
def test_frozen_norms_stay_still(still):
    "fastai's BatchNorm in a frozen group goes on learning and counting; under Still nothing of it changes."
    learn = learner(ranger, model=Three(), wd=.1)
    fit(learn, 'fit', 1, .01)
    learn.freeze()
    before = {name: value.clone() for name, value in learn.model.state_dict().items()}
    fit(learn, 'fit', 2, .01, cbs=Still() if still else None)
    same = {name: torch.equal(value, before[name]) for name, value in learn.model.state_dict().items()}
    assert not same['head.weight'] and same['body.0.weight'] and same['mid.0.weight']
    moving = ('body.1.weight', 'body.1.running_mean', 'body.1.num_batches_tracked', 'mid.1.running_var')
    assert all(same[name] == still for name in moving)
    # afterwards it is as freeze left it: the norm may train
    assert learn.model.body[1].weight.requires_grad and not learn.model.body[0].weight.requires_grad


def test_shallow_blocks_by_name_stay_still():
    learn = learner(ranger, model=Three(), wd=.1)
    before = {name: value.clone() for name, value in learn.model.state_dict().items()}
    fit(learn, 'fit', 2, .01, cbs=Still('body'))
    same = {name: torch.equal(value, before[name]) for name, value in learn.model.state_dict().items()}
    kept = {name for name, is_same in same.items() if is_same}
    assert kept == {name for name in same if name.startswith('body')}
    assert all(weight.requires_grad for weight in learn.model.parameters())
    with pytest.raises(InputError, match=r"\['boddy'\].*body"): fit(learn, 'fit', 1, .01, cbs=Still('boddy'))


def test_rate_between_steepest_and_a_tenth_of_the_minimum(tmp_path):
    lrs = torch.logspace(-6, 0, 61)
    decades = lrs.log10()
    losses = -torch.sigmoid((decades + 4) * 4) + .5 * (decades + 1).clamp(min=0)**2 + .01 * (decades + 1)**2
    # steepest at 1e-4 but for rounding of the grid, minimum near 1e-1
    rate, (at, loss) = between(lrs, losses, 100)
    steepest = lrs[((losses[1:] - losses[:-1]) / (lrs[1:].log() - lrs[:-1].log())).argmin()]
    lowest = lrs[losses.argmin()] / 10
    assert float(steepest) < rate < float(lowest) and at == rate and loss in losses
    assert np.isclose(rate, float(steepest * lowest)**.5, rtol=1e-5)
    learn = learner(sgd, tmp_path)
    with learn.no_bar(): found = learn.lr_find(num_it=20, show_plot=False, suggest_funcs=between)
    assert 1e-7 < found.between < 10


def test_rates_are_seen_by_every_stage():
    learn = learner(sgd, cbs=Rates())
    fit(learn, 'fit_head_first', 1, 1, .01, warmup=.5)
    want = [[.005 * factor] * 2 for factor in (.001, .334, .667)]
    np.testing.assert_allclose(learn.rates.seen[:3], want, rtol=1e-6)
