"PyTorch's schedulers against the same scheduler over PyTorch's own optimizer."
from functools import partial

import numpy as np
import pytest
import torch
from fastai.optimizer import SGD
from torch.optim import lr_scheduler

from fastmatch.core import InputError
from fastmatch.optim import adamw, opt_func, ranger, sgd
from fastmatch.schedule import TorchSchedule
from tests.optim.tiny import fit
from tests.schedule.small import make_learner
from tests.schedule.test_fit import STEPS, Rates

SCHEDULERS = {
    'StepLR': (partial(lr_scheduler.StepLR, step_size=2, gamma=.5), 'epoch'),
    'CosineAnnealingLR': (partial(lr_scheduler.CosineAnnealingLR, T_max=4, eta_min=1e-4), 'epoch'),
    'warm restarts': (partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=5), 'batch'),
    'OneCycleLR': (partial(lr_scheduler.OneCycleLR, max_lr=[.1, .2], total_steps=4 * STEPS), 'batch'),
    'CyclicLR': (partial(lr_scheduler.CyclicLR, base_lr=.01, max_lr=.1, step_size_up=5), 'batch'),
    'one after another': (lambda optimizer: one_after_another(optimizer), 'batch')}
OPTIMIZERS = {'adamw': adamw, 'ranger': ranger, 'sgd': partial(sgd, mom=.9), 'lion': opt_func('lion'),
              'fastai': SGD}


def one_after_another(optimizer):
    warm_up = lr_scheduler.LinearLR(optimizer, .1, total_iters=3)
    return lr_scheduler.SequentialLR(optimizer, [warm_up, lr_scheduler.ExponentialLR(optimizer, .9)], [3])


def expected(make_scheduler, by, lr):
    "float64 (steps, groups) rates of four epochs in a plain loop of PyTorch's."
    optimizer = torch.optim.SGD([dict(params=[torch.zeros(1, requires_grad=True)], lr=rate) for rate in lr],
                                momentum=.9)
    scheduler = make_scheduler(optimizer)
    rates = []
    for _ in range(4):
        for _ in range(STEPS):
            rates.append([group['lr'] for group in optimizer.param_groups])
            optimizer.step()
            if by == 'batch': scheduler.step()
        if by == 'epoch': scheduler.step()
    return np.array(rates)


@pytest.mark.filterwarnings('ignore:The epoch parameter')
@pytest.mark.parametrize('name', SCHEDULERS)
@pytest.mark.parametrize('optimizer_name', OPTIMIZERS)
def test_rates_are_pytorchs(name, optimizer_name):
    make_scheduler, by = SCHEDULERS[name]
    for start_epoch in (0, 2):
        learner = make_learner(OPTIMIZERS[optimizer_name], cbs=Rates())
        fit(learner, 'fit', 4, [.03, .06], cbs=TorchSchedule(make_scheduler, by), start_epoch=start_epoch)
        rates = expected(make_scheduler, by, [.03, .06])[start_epoch * STEPS:]
        np.testing.assert_allclose(learner.rates.seen, rates, rtol=1e-6)
    if name in ('OneCycleLR', 'CyclicLR'): assert learner.opt.hypers[0]['mom'] != .9


def test_lr_find_has_its_own_schedule(tmp_path):
    learner = make_learner(sgd, tmp_path, cbs=[TorchSchedule(SCHEDULERS['StepLR'][0]), Rates()])
    fit(learner, 'lr_find', num_it=8, show_plot=False, suggest_funcs=None)
    assert len({tuple(rates) for rates in learner.rates.seen}) == len(learner.rates.seen)
    fit(learner, 'fit', 3, .1)
    np.testing.assert_allclose(learner.rates.seen[::STEPS], [[.1, .1], [.1, .1], [.05, .05]])


def test_what_can_not_be():
    with pytest.raises(InputError, match="by='step'"): TorchSchedule(SCHEDULERS['StepLR'][0], 'step')
    plateau = TorchSchedule(lr_scheduler.ReduceLROnPlateau)
    with pytest.raises(InputError, match="use this package's Plateau"):
        fit(make_learner(sgd), 'fit', 1, .1, cbs=plateau)
    with pytest.raises(InputError, match='TorchSchedule and ParamScheduler would both'):
        fit(make_learner(sgd), 'fit_flat_cos', 1, .1, cbs=TorchSchedule(SCHEDULERS['StepLR'][0]))
