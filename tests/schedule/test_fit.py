"Rates of every step against formulas written out; resumed runs, warm-ups, plateaus that reach the optimizer."
import math

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.optimizer import SGD, OptimWrapper

from fastmatch.core import InputError
from fastmatch.optim import opt_func, ranger, sgd
from fastmatch.schedule import named_rates
from tests.schedule.small import fit, learner, weights

LR, STEPS = .01, 6


class Rates(Callback):
    "Notes the rates that the optimizer steps with."
    order = 70
    def before_fit(self): self.seen = []
    def after_step(self): self.seen.append([hypers['lr'] for hypers in self.opt.hypers])


def rates(how, *args, opt=sgd, **kwargs):
    "float64 (steps, groups) rates of a fit."
    learn = learner(opt, cbs=Rates())
    fit(learn, how, *args, **kwargs)
    return np.array(learn.rates.seen)


def cos(start, end, progress): return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def warm_up(step): return LR * (.001 + .999 * step / 6)


def flat_cos(step): return LR if step < 12 else cos(LR, LR / 1e5, (step - 12) / 12)


def flat_cos_warm(step):
    if step < 6: return warm_up(step)
    return LR if step < 15 else cos(LR, LR / 1e5, (step - 15) / 9)


def flat_cos_multiplied(step):
    return LR * (1 + 7 * step / 12) if step < 12 else cos(8 * LR, 8 * LR / 1e5, (step - 12) / 12)


def steps_warm(step):
    if step < 6: return warm_up(step)
    return LR * (1 if step < 12 else .1 if step < 18 else .01)


def growing_cycles(step): return cos(LR, 0, step / 6) if step < 6 else cos(LR / 2, 0, (step - 6) / 18)


# name -> (method, its arguments, its options, step -> rate)
CASES = {
    'flat_cos': ('fit_flat_cos', (4, LR), dict(pct_start=.5), flat_cos),
    'flat_cos-warm': ('fit_flat_cos', (4, LR), dict(pct_start=.5, warmup=1), flat_cos_warm),
    'flat_cos-multiplied': ('fit_flat_cos', (4, LR), dict(pct_start=0., warmup=2, multiplier=8.),
                            flat_cos_multiplied),
    'cos': ('fit_cos', (4, LR), dict(floor=.1, warmup=1),
            lambda step: warm_up(step) if step < 6 else cos(LR, .1 * LR, (step - 6) / 18)),
    'steps': ('fit_steps', (4, LR), dict(at=(1, 3), gamma=.5),
              lambda step: LR * (1 if step < 6 else .5 if step < 18 else .25)),
    'steps-warm': ('fit_steps', (4, LR), dict(at=(.5, .75), warmup=1), steps_warm),
    'exp': ('fit_exp', (4, LR), dict(end=1e-3), lambda step: LR * 10**(-3 * step / 24)),
    'cycles': ('fit_cycles', (2, 2, LR), dict(floor=.2), lambda step: cos(LR, .2 * LR, step % 12 / 12)),
    'cycles-growing': ('fit_cycles', (2, 1, LR), dict(mult=3, decay=.5), growing_cycles),
    'cycles-warm': ('fit_cycles', (3, 1, LR), dict(warmup=1),
                    lambda step: warm_up(step) if step < 6 else cos(LR, 0, step % 6 / 6)),
}


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('start_epoch', [0, 2])
def test_rates_of_every_step(name, start_epoch):
    how, args, kwargs, rate_at = CASES[name]
    got = rates(how, *args, start_epoch=start_epoch, **kwargs)
    want = [[rate_at(step)] * 2 for step in range(start_epoch * STEPS, 24)]
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-9)


def test_a_resumed_run_is_the_run(tmp_path):
    "Three epochs; and one, saved, loaded into a new Learner, and the other two."
    class SaveFirst(Callback):
        order = 80
        def after_epoch(self):
            if self.epoch == 0: self.learn.save('one')
    whole = learner(ranger, tmp_path, cbs=SaveFirst())
    fit(whole, 'fit_flat_cos', 3, .01, warmup=.5)
    rest = learner(ranger, tmp_path, seed=4).load('one')
    fit(rest, 'fit_flat_cos', 3, .01, warmup=.5, start_epoch=1)
    torch.testing.assert_close(weights(rest), weights(whole), rtol=0, atol=0)


@pytest.mark.parametrize('opt', [sgd, ranger, opt_func('lion')])
def test_rates_by_group_and_by_name(opt):
    by_slice = rates('fit_flat_cos', 1, slice(1e-4, 1e-2), opt=opt)
    by_name = rates('fit_flat_cos', 1, {'head': 1e-2, 'image': 1e-4}, opt=opt)
    np.testing.assert_allclose(by_slice, by_name)
    np.testing.assert_allclose(by_name[0], [1e-4, 1e-2])


def test_names_of_groups():
    class Model:
        def __init__(self, *names): self.names = names
        def param_groups(self): return dict.fromkeys(self.names)
    net = Model('image', 'title', 'head')
    want = [5e-6, 5e-5, 5e-4]
    assert named_rates(net, {'text': 5e-5, 'image': 5e-6, 'head': 5e-4}) == want
    assert named_rates(net, {'title': 5e-5, 'image': 5e-6, 'head': 5e-4}) == want
    assert named_rates(Model('text', 'title'), {'title': 2., 'text': 1.}) == [1., 2.]
    with pytest.raises(InputError, match=r"\['image'\].*'image', 'title', 'head'"):
        named_rates(net, {'image': 1.})
    with pytest.raises(InputError, match='same group'):
        named_rates(net, {'image': 1., 'text': 1., 'title': 2., 'head': 1.})
    with pytest.raises(InputError, match='Linear has none'): named_rates(torch.nn.Linear(1, 1), {'head': 1.})


class Score(Callback):
    "Writes given validation losses into the record."
    order = 55
    def __init__(self, values): self.values = values
    def after_validate(self): self.recorder.log[-1] = self.values[self.epoch]


def wrapped_sgd(params, lr): return OptimWrapper(params, torch.optim.SGD, lr=lr)


@pytest.mark.parametrize('opt', [sgd, ranger, SGD, wrapped_sgd], ids=['sgd', 'ranger', 'fastai', 'wrapper'])
def test_plateau_reaches_the_optimizer(opt):
    values = [5., 6., 4., 4., 4.5, 3., 3.]
    learn = learner(opt, cbs=Rates())
    fit(learn, 'fit_plateau', 7, [.1, .2], patience=2, factor=10., min_lr=.015, warmup=1., cbs=Score(values))
    # epoch 0 warms up and doesn't count; gains in epochs 1 and 2, none in 3 and 4: down; a gain in 5
    first = [[.1 * factor, .2 * factor] for factor in (.001 + .999 * i / 6 for i in range(6))]
    np.testing.assert_allclose(learn.rates.seen[:6], first, rtol=1e-6)
    np.testing.assert_allclose(learn.rates.seen[6:30], [[.1, .2]] * 24)
    np.testing.assert_allclose(learn.rates.seen[30:], [[.015, .02]] * 12)


def test_plateau_goes_on_in_mid_run_and_names_its_monitor():
    learn = learner(sgd, cbs=Rates())
    fit(learn, 'fit_plateau', 4, .1, cbs=Score([1., 1., 1., 1.]), start_epoch=2)
    np.testing.assert_allclose(learn.rates.seen, [[.1, .1]] * 12)
    np.testing.assert_allclose([hypers['lr'] for hypers in learn.opt.hypers], .01)
    with pytest.raises(InputError, match="'map@r'.*train_loss"): fit(learn, 'fit_plateau', 1, monitor='map@r')


@pytest.mark.parametrize('make, words', [
    (lambda: rates('fit_cycles', 2, 1, LR, mult=1.3), 'mid-epoch'),
    (lambda: rates('fit_steps', 4, LR, at=(1,), warmup=2), 'warm-up of 2 epochs'),
    (lambda: rates('fit_plateau', 2, LR, warmup=2), 'warmup=2 of 2'),
])
def test_bad_input_is_named(make, words):
    with pytest.raises(InputError, match=words): make()
