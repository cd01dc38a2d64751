"Every optimizer of the list in a Learner: schedules, freezing, saving, exporting."
import math

import numpy as np
import pytest
import torch
from fastai.learner import load_learner

from fastmatch.optim import list_opts, opt_func, optimizer_configs, ranger
from tests.optim.tiny import fit, make_learner, trained_by_hand, weights_of

NAMES = [*optimizer_configs, 'lion', 'adan', 'lamb', 'adafactor', 'nadamw', 'lookahead_lion']
# what no schedule may give a momentum
WITHOUT_MOMENTUM = {'sgd', 'rmsprop', 'adafactor'}
each_optimizer = pytest.mark.parametrize('optimizer_name', NAMES)


def cosine(start, end, share): return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def flat_cos(lr, share, flat_share=.75, divisor=1e5):
    return lr if share < flat_share else cosine(lr, lr / divisor, (share - flat_share) / (1 - flat_share))


def one_cycle(start, middle, end, share, warm_share=.25):
    if share < warm_share: return cosine(start, middle, share / warm_share)
    return cosine(middle, end, (share - warm_share) / (1 - warm_share))


def test_the_names_are_known(): assert set(NAMES) - {'lookahead_lion'} <= set(list_opts())


@each_optimizer
def test_fit_flat_cos(optimizer_name, tmp_path):
    make_optimizer = opt_func(optimizer_name)
    learner = make_learner(make_optimizer, tmp_path, wd=.1)
    fit(learner, 'fit_flat_cos', 2, 1e-2)
    expected = trained_by_hand(make_optimizer, [flat_cos(1e-2, step / 12) for step in range(12)], wd=.1)
    torch.testing.assert_close(weights_of(learner), expected, rtol=1e-5, atol=1e-6)


@each_optimizer
def test_fit_one_cycle(optimizer_name, tmp_path):
    make_optimizer = opt_func(optimizer_name)
    learner = make_learner(make_optimizer, tmp_path, wd=.1)
    fit(learner, 'fit_one_cycle', 2, slice(1e-3, 1e-2))
    rates = [[one_cycle(lr / 25, lr, lr / 1e5, step / 12) for lr in (1e-3, 1e-2)] for step in range(12)]
    momenta = [one_cycle(.95, .85, .95, step / 12) for step in range(12)]
    if optimizer_name in WITHOUT_MOMENTUM: momenta = None
    expected = trained_by_hand(make_optimizer, rates, momenta, .1)
    torch.testing.assert_close(weights_of(learner), expected, rtol=1e-5, atol=1e-6)
    assert abs(learner.opt.hypers[0]['mom'] - .95) < .01


@each_optimizer
def test_freeze(optimizer_name, tmp_path):
    learner = make_learner(opt_func(optimizer_name), tmp_path, wd=.1)
    fit(learner, 'fit', 1, 1e-2)
    learner.freeze()
    before = [parameter.detach().clone() for parameter in learner.model.parameters()]
    fit(learner, 'fit', 2, 1e-2)
    moved = [not torch.equal(parameter, earlier)
             for parameter, earlier in zip(learner.model.parameters(), before)]
    # the body's norm goes on (train_bn), its linear layer doesn't
    assert moved == [False, True, True, True, True]
    learner.unfreeze()
    fit(learner, 'fit', 1, 1e-2)
    assert not torch.equal(learner.model.body[0].weight, before[0])


@each_optimizer
def test_load(optimizer_name, tmp_path):
    make_optimizer = opt_func(optimizer_name)
    learner = make_learner(make_optimizer, tmp_path, wd=.1)
    fit(learner, 'fit', 1, 1e-2)
    learner.save('half')
    fit(learner, 'fit', 2, 1e-2)
    resumed = make_learner(make_optimizer, tmp_path, seed=5, wd=.1).load('half')
    fit(resumed, 'fit', 2, 1e-2)
    assert torch.equal(weights_of(resumed), weights_of(learner))
    assert not torch.equal(weights_of(resumed), weights_of(make_learner(make_optimizer, seed=5)))


@each_optimizer
def test_export(optimizer_name, tmp_path):
    make_optimizer = opt_func(optimizer_name)
    learner = make_learner(make_optimizer, tmp_path, wd=.1)
    fit(learner, 'fit', 1, 1e-2)
    learner.export('learn.pkl')
    with pytest.warns(UserWarning): loaded = load_learner(tmp_path/'learn.pkl')
    assert torch.equal(weights_of(loaded), weights_of(learner))
    fit(learner, 'fit', 1, 1e-2)
    expected = trained_by_hand(make_optimizer, [1e-2] * 12, wd=.1)
    torch.testing.assert_close(weights_of(learner), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('make_optimizer', [ranger, opt_func('sgd_momentum')], ids=['ranger', 'sgd_momentum'])
def test_match_learner_spreads_its_rates(make_optimizer, tmp_path):
    "GroupRates sets rates before each step and puts them back; class centers keep their gradients' mean."
    import pandas as pd

    from fastmatch.data.demo import demo_path
    from tests.learner.small import Rates, make
    listings = pd.read_csv(demo_path()/'listings.csv')
    groups = listings.groupby('fold').label_group
    of_first_groups = groups.transform(lambda column: column.isin(sorted(column.unique())[:8]))
    listings = listings[of_first_groups].reset_index(drop=True)
    learner = make(listings, path=tmp_path, opt_func=make_optimizer, cbs=Rates())
    centers = learner.model.heads['image'].weight
    before = centers.detach().clone()
    fit(learner, 'fit_flat_cos', 1, 1e-3, pct_start=1.)
    np.testing.assert_allclose(learner.rates.seen, [[.25e-3, 5e-3]] * len(learner.rates.seen))
    np.testing.assert_allclose(learner.rates.after, [[1e-3, 1e-3]] * len(learner.rates.after))
    assert learner.opt.state[centers]['do_gc'] is False
    assert not torch.equal(centers, before)
