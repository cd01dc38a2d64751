"Every optimizer of the list in a Learner: schedules, freezing, saving, exporting."
import math

import numpy as np
import pytest
import torch
from fastai.learner import load_learner

from fastmatch.optim import list_opts, opt_func, optimizer_configs, ranger
from tests.optim.tiny import by_hand, fit, learner, weights

NAMES = [*optimizer_configs, 'lion', 'adan', 'lamb', 'adafactor', 'nadamw', 'lookahead_lion']
# what no schedule may give a momentum
WITHOUT_MOMENTUM = {'sgd', 'rmsprop', 'adafactor'}
each_optimizer = pytest.mark.parametrize('name', NAMES)


def cosine(start, end, share): return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def flat_cos(lr, share, pct=.75, div=1e5):
    return lr if share < pct else cosine(lr, lr / div, (share - pct) / (1 - pct))


def one_cycle(start, middle, end, share, pct=.25):
    if share < pct: return cosine(start, middle, share / pct)
    return cosine(middle, end, (share - pct) / (1 - pct))


def test_the_names_are_known(): assert set(NAMES) - {'lookahead_lion'} <= set(list_opts())


@each_optimizer
def test_fit_flat_cos(name, tmp_path):
    func = opt_func(name)
    learn = learner(func, tmp_path, wd=.1)
    fit(learn, 'fit_flat_cos', 2, 1e-2)
    expected = by_hand(func, [flat_cos(1e-2, step / 12) for step in range(12)], wd=.1)
    torch.testing.assert_close(weights(learn), expected, rtol=1e-5, atol=1e-6)


@each_optimizer
def test_fit_one_cycle(name, tmp_path):
    func = opt_func(name)
    learn = learner(func, tmp_path, wd=.1)
    fit(learn, 'fit_one_cycle', 2, slice(1e-3, 1e-2))
    lrs = [[one_cycle(lr / 25, lr, lr / 1e5, step / 12) for lr in (1e-3, 1e-2)] for step in range(12)]
    moms = [one_cycle(.95, .85, .95, step / 12) for step in range(12)]
    expected = by_hand(func, lrs, None if name in WITHOUT_MOMENTUM else moms, .1)
    torch.testing.assert_close(weights(learn), expected, rtol=1e-5, atol=1e-6)
    assert abs(learn.opt.hypers[0]['mom'] - .95) < .01


@each_optimizer
def test_freeze(name, tmp_path):
    learn = learner(opt_func(name), tmp_path, wd=.1)
    fit(learn, 'fit', 1, 1e-2)
    learn.freeze()
    before = [param.detach().clone() for param in learn.model.parameters()]
    fit(learn, 'fit', 2, 1e-2)
    moved = [not torch.equal(param, old) for param, old in zip(learn.model.parameters(), before)]
    # the body's norm goes on (train_bn), its linear layer doesn't
    assert moved == [False, True, True, True, True]
    learn.unfreeze()
    fit(learn, 'fit', 1, 1e-2)
    assert not torch.equal(learn.model.body[0].weight, before[0])


@each_optimizer
def test_load(name, tmp_path):
    func = opt_func(name)
    learn = learner(func, tmp_path, wd=.1)
    fit(learn, 'fit', 1, 1e-2)
    learn.save('half')
    fit(learn, 'fit', 2, 1e-2)
    again = learner(func, tmp_path, seed=5, wd=.1).load('half')
    fit(again, 'fit', 2, 1e-2)
    assert torch.equal(weights(again), weights(learn))
    assert not torch.equal(weights(again), weights(learner(func, seed=5)))


@each_optimizer
def test_export(name, tmp_path):
    func = opt_func(name)
    learn = learner(func, tmp_path, wd=.1)
    fit(learn, 'fit', 1, 1e-2)
    learn.export('learn.pkl')
    with pytest.warns(UserWarning): loaded = load_learner(tmp_path/'learn.pkl')
    assert torch.equal(weights(loaded), weights(learn))
    fit(learn, 'fit', 1, 1e-2)
    torch.testing.assert_close(weights(learn), by_hand(func, [1e-2] * 12, wd=.1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('func', [ranger, opt_func('sgd_momentum')], ids=['ranger', 'sgd_momentum'])
def test_match_learner_spreads_its_rates(func, tmp_path):
    "GroupRates sets rates before each step and puts them back; class centers keep their gradients' mean."
    import pandas as pd

    from fastmatch.data.demo import demo_path
    from tests.learner.small import Rates, make
    listings = pd.read_csv(demo_path()/'listings.csv')
    groups = listings.groupby('fold').label_group
    of_first_groups = groups.transform(lambda column: column.isin(sorted(column.unique())[:8]))
    learn = make(listings[of_first_groups].reset_index(drop=True), path=tmp_path, opt_func=func, cbs=Rates())
    centers = learn.model.heads['image'].weight
    before = centers.detach().clone()
    fit(learn, 'fit_flat_cos', 1, 1e-3, pct_start=1.)
    np.testing.assert_allclose(learn.rates.seen, [[.25e-3, 5e-3]] * len(learn.rates.seen))
    np.testing.assert_allclose(learn.rates.after, [[1e-3, 1e-3]] * len(learn.rates.after))
    assert learn.opt.state[centers]['do_gc'] is False
    assert not torch.equal(centers, before)
