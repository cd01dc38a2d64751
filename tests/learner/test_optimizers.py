"Every optimizer under every kind of schedule on both learners steps with the rates that adamw steps with."
import numpy as np
import pytest
import torch
from fastai.callback.tracker import EarlyStoppingCallback, ReduceLROnPlateau, SaveModelCallback

from fastmatch.core import InputError, MissingPackage
from fastmatch.optim import list_opts, opt_func
from fastmatch.schedule import Plateau
from tests.callback.small import fit
from tests.callback.test_scoring import Flat
from tests.learner.small import Rates, weights
from tests.learner.test_fits import make

LR = 1e-3
FEW = 'adamw', 'ranger', 'sgd', 'lamb', 'lion', 'adopt', 'muon', 'lookahead_radam'
ELSEWHERE = 'bnb', 'fused', 'kron', 'adahessian'  # of other packages, other hardware, second derivatives


def trackers():
    "Trackers beside one that lowers the rate."
    return [Flat(), SaveModelCallback('train_loss'), EarlyStoppingCallback('train_loss', patience=9)]


SCHEDULES = {
    'fit_one_cycle': lambda learner: fit(learner, 'fit_one_cycle', 1, LR),
    'fit_flat_cos': lambda learner: fit(learner, 'fit_flat_cos', 1, LR, pct_start=.3),
    'ReduceLROnPlateau': lambda learner: fit(
        learner, 'fit', 3, LR, cbs=[*trackers(), ReduceLROnPlateau('flat', patience=1, factor=10)]),
    'Plateau': lambda learner: fit(learner, 'fit', 3, LR, cbs=[*trackers(), Plateau('flat', patience=1)])}


def rates_of(optimizer_name, kind, schedule, listings, folder):
    "(Rates of each step by group, rates in the end)."
    rates = Rates()
    learner = make(kind, listings, folder, opt_func=opt_func(optimizer_name), cbs=rates)
    before = weights(learner)
    SCHEDULES[schedule](learner)
    after = weights(learner)
    assert torch.isfinite(after).all() and not torch.equal(before, after)
    return np.array(rates.seen), np.array([hypers['lr'] for hypers in learner.opt.hypers])


@pytest.fixture(scope='module')
def expected(listings, tmp_path_factory):
    folder = tmp_path_factory.mktemp('adamw')
    return {(kind, schedule): rates_of('adamw', kind, schedule, listings, folder)
            for kind in ('match', 'classify') for schedule in SCHEDULES}


def check(optimizer_name, kind, schedule, expected, listings, folder):
    found = rates_of(optimizer_name, kind, schedule, listings, folder)
    for rates, expected_rates in zip(found, expected[kind, schedule]):
        np.testing.assert_allclose(rates, expected_rates, rtol=1e-6)


@pytest.mark.parametrize('kind', ['match', 'classify'])
def test_the_rates_of_adamw(kind, expected):
    "What the others are compared with: the schedules' own formulas."
    _, one_cycle = expected[kind, 'fit_one_cycle']
    seen, flat_cos = expected[kind, 'fit_flat_cos']
    n_steps = len(seen)
    progress = (n_steps - 1) / n_steps
    # cosine curves of the last batch, from the full rate to next to nothing
    def cos_of(start, end, share): return end + (start - end) * (1 + np.cos(np.pi * share)) / 2
    np.testing.assert_allclose(one_cycle, cos_of(LR, LR / 1e5, (progress - .25) / .75), rtol=1e-5)
    np.testing.assert_allclose(flat_cos, cos_of(LR, LR / 1e5, (progress - .3) / .7), rtol=1e-5)
    for schedule in ('ReduceLROnPlateau', 'Plateau'):
        seen, last = expected[kind, schedule]
        np.testing.assert_allclose(last, LR / 100)
        np.testing.assert_allclose(seen[0] / seen[-1], 10)


@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize('kind', ['match', 'classify'])
def test_a_few_optimizers(kind, schedule, expected, listings, tmp_path):
    for optimizer_name in FEW: check(optimizer_name, kind, schedule, expected, listings, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('optimizer_name', list_opts())
def test_every_optimizer(optimizer_name, expected, listings, tmp_path):
    if optimizer_name.startswith(ELSEWHERE):
        try: opt_func(optimizer_name)
        except (InputError, MissingPackage) as error:
            assert optimizer_name in str(error)
            return
    for kind in ('match', 'classify'):
        for schedule in SCHEDULES: check(optimizer_name, kind, schedule, expected, listings, tmp_path)
