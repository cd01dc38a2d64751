"Rates of every step against formulas written out; resumed runs, warm-ups, plateaus that reach the optimizer."
import math

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.optimizer import SGD, OptimWrapper

from fastmatch.core import InputError
from fastmatch.optim import opt_func, ranger, sgd
from fastmatch.schedule import WarmUp, named_rates
from tests.optim.tiny import fit, weights_of
from tests.schedule.small import make_learner

LR, STEPS = .01, 6


class Rates(Callback):
    "Notes the rates that the optimizer steps with."
    order = 70
    def before_fit(self): self.seen = []
    def after_step(self): self.seen.append([hypers['lr'] for hypers in self.opt.hypers])


def rates(method, *arguments, make_optimizer=sgd, **options):
    "float64 (steps, groups) rates of a fit."
    learner = make_learner(make_optimizer, cbs=Rates())
    fit(learner, method, *arguments, **options)
    return np.array(learner.rates.seen)


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
    'steps-listed': ('fit_steps', (4,), dict(values=[LR, LR / 5, LR / 50, LR / 500]),
                     lambda step: LR * (1, .2, .02, .002)[step // 6]),
    'steps-listed-at': ('fit_steps', (4,), dict(values=[LR, LR / 5], at=(3,), warmup=1),
                        lambda step: warm_up(step) if step < 6 else LR if step < 18 else LR / 5),
    'exp': ('fit_exp', (4, LR), dict(end=1e-3), lambda step: LR * 10**(-3 * step / 24)),
    'cycles': ('fit_cycles', (2, 2, LR), dict(floor=.2), lambda step: cos(LR, .2 * LR, step % 12 / 12)),
    'cycles-growing': ('fit_cycles', (2, 1, LR), dict(mult=3, decay=.5), growing_cycles),
    'cycles-warm': ('fit_cycles', (3, 1, LR), dict(warmup=1),
                    lambda step: warm_up(step) if step < 6 else cos(LR, 0, step % 6 / 6)),
}


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('start_epoch', [0, 2])
def test_rates_of_every_step(case, start_epoch):
    method, arguments, options, rate_at = CASES[case]
    actual = rates(method, *arguments, start_epoch=start_epoch, **options)
    expected = [[rate_at(step)] * 2 for step in range(start_epoch * STEPS, 24)]
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-9)


def test_a_resumed_run_is_the_run(tmp_path):
    "Three epochs; and one, saved, loaded into a new Learner, and the other two."
    class SaveFirst(Callback):
        order = 80
        def after_epoch(self):
            if self.epoch == 0: self.learn.save('one')
    whole = make_learner(ranger, tmp_path, cbs=SaveFirst())
    fit(whole, 'fit_flat_cos', 3, .01, warmup=.5)
    resumed = make_learner(ranger, tmp_path, seed=4).load('one')
    fit(resumed, 'fit_flat_cos', 3, .01, warmup=.5, start_epoch=1)
    torch.testing.assert_close(weights_of(resumed), weights_of(whole), rtol=0, atol=0)


@pytest.mark.parametrize('make_optimizer', [sgd, ranger, opt_func('lion')])
def test_rates_by_group_and_by_name(make_optimizer):
    by_slice = rates('fit_flat_cos', 1, slice(1e-4, 1e-2), make_optimizer=make_optimizer)
    by_name = rates('fit_flat_cos', 1, {'head': 1e-2, 'image': 1e-4}, make_optimizer=make_optimizer)
    np.testing.assert_allclose(by_slice, by_name)
    np.testing.assert_allclose(by_name[0], [1e-4, 1e-2])


def test_names_of_groups():
    class Model:
        def __init__(self, *names): self.names = names
        def param_groups(self): return dict.fromkeys(self.names)
    model = Model('image', 'title', 'head')
    expected = [5e-6, 5e-5, 5e-4]
    assert named_rates(model, {'text': 5e-5, 'image': 5e-6, 'head': 5e-4}) == expected
    assert named_rates(model, {'title': 5e-5, 'image': 5e-6, 'head': 5e-4}) == expected
    assert named_rates(Model('text', 'title'), {'title': 2., 'text': 1.}) == [1., 2.]
    with pytest.raises(InputError, match=r"\['image'\].*'image', 'title', 'head'"):
        named_rates(model, {'image': 1.})
    with pytest.raises(InputError, match='same group'):
        named_rates(model, {'image': 1., 'text': 1., 'title': 2., 'head': 1.})
    with pytest.raises(InputError, match='Linear has none'): named_rates(torch.nn.Linear(1, 1), {'head': 1.})


def test_no_epochs_at_all_are_no_steps():
    "fastai's own `fit(0)`, with a warm-up among its callbacks."
    assert rates('fit', 0, LR, cbs=WarmUp(1)).shape == (0,)


class Score(Callback):
    "Writes given validation losses into the record."
    order = 55
    def __init__(self, values): self.values = values
    def after_validate(self): self.recorder.log[-1] = self.values[self.epoch]


def wrapped_sgd(parameters, lr): return OptimWrapper(parameters, torch.optim.SGD, lr=lr)


@pytest.mark.parametrize('make_optimizer', [sgd, ranger, SGD, wrapped_sgd],
                         ids=['sgd', 'ranger', 'fastai', 'wrapper'])
def test_plateau_reaches_the_optimizer(make_optimizer):
    values = [5., 6., 4., 4., 4.5, 3., 3.]
    learner = make_learner(make_optimizer, cbs=Rates())
    fit(learner, 'fit_plateau', 7, [.1, .2], patience=2, factor=10., min_lr=.015, warmup=1.,
        cbs=Score(values))
    # epoch 0 warms up and doesn't count; gains in epochs 1 and 2, none in 3 and 4: down; a gain in 5
    warm_up_rates = [[.1 * factor, .2 * factor] for factor in (.001 + .999 * step / 6 for step in range(6))]
    np.testing.assert_allclose(learner.rates.seen[:6], warm_up_rates, rtol=1e-6)
    np.testing.assert_allclose(learner.rates.seen[6:30], [[.1, .2]] * 24)
    np.testing.assert_allclose(learner.rates.seen[30:], [[.015, .02]] * 12)


def test_plateau_goes_on_in_mid_run_and_names_its_monitor():
    learner = make_learner(sgd, cbs=Rates())
    fit(learner, 'fit_plateau', 4, .1, cbs=Score([1., 1., 1., 1.]), start_epoch=2)
    np.testing.assert_allclose(learner.rates.seen, [[.1, .1]] * 12)
    np.testing.assert_allclose([hypers['lr'] for hypers in learner.opt.hypers], .01)
    with pytest.raises(InputError, match="'map@r'.*train_loss"):
        fit(learner, 'fit_plateau', 1, monitor='map@r')


@pytest.mark.parametrize('make_invalid, message', [
    (lambda: rates('fit_cycles', 2, 1, LR, mult=1.3), 'mid-epoch'),
    (lambda: rates('fit_steps', 4, LR, at=(1,), warmup=2), 'warm-up of 2 epochs'),
    (lambda: rates('fit_plateau', 2, LR, warmup=2), 'warmup=2 of 2'),
    (lambda: rates('fit_steps', 4, values=[LR, LR / 5], at=(1, 2)), '1 values .* 2 moments'),
    (lambda: rates('fit_steps', 4, LR, values=[LR, LR / 5]), 'give one of them'),
    (lambda: rates('fit_steps', 4, values=[LR, 0.]), 'all above 0'),
    (lambda: rates('fit_cycles', 0, 1, LR), 'n_cycles=0'),
    *((lambda name=name, n_epoch=n_epoch: rates(name, n_epoch, LR), f'n_epoch={n_epoch}: give a whole number')
      for name in ('fit_curve', 'fit_flat_cos', 'fit_cos', 'fit_steps', 'fit_exp', 'fit_plateau')
      for n_epoch in (0, -1, 1.5)),
])
def test_bad_input_is_named(make_invalid, message):
    with pytest.raises(InputError, match=message): make_invalid()
