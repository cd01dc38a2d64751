"PyTorch's and timm's optimizers under fastai: decay apart from the gradient, rates by group."
import copy

import numpy as np
import pytest
import torch
from fastai.optimizer import OptimWrapper
from torch import nn

from fastmatch.core import InputError
from fastmatch.optim import Wrapped, adamw, opt_func, ranger, rmsprop, sgd
from fastmatch.optim.wrap import live_hypers
from tests.optim.steps import flat, make_groups, random_grad
from tests.reference import optim as reference


@pytest.mark.parametrize('nesterov', [False, True])
def test_sgd_decays_apart(nesterov):
    groups, generator = make_groups(), torch.Generator().manual_seed(1)
    optimizer = sgd(groups, .01, .9, .1, nesterov)
    expected = [(parameter.detach().numpy().copy(), 0.) for parameter in flat(groups)]
    for step in range(50):
        for index, parameter in enumerate(flat(groups)):
            parameter.grad = random_grad(parameter, step, generator)
            weight, buffer = expected[index]
            expected[index] = reference.sgd(weight, parameter.grad.numpy(), buffer, .01, .9, .1, nesterov)
        optimizer.step()
    for parameter, (weight, _) in zip(flat(groups), expected):
        np.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=1e-11)


def test_rmsprop_decays_apart():
    groups, generator = make_groups(), torch.Generator().manual_seed(1)
    optimizer = rmsprop(groups, .01, wd=.1)
    expected = [(parameter.detach().numpy().copy(), 0.) for parameter in flat(groups)]
    for step in range(50):
        for index, parameter in enumerate(flat(groups)):
            parameter.grad = random_grad(parameter, step, generator)
            weight, squares = expected[index]
            expected[index] = reference.rmsprop(weight, parameter.grad.numpy(), squares, .01, .99, 1e-8, .1)
        optimizer.step()
    for parameter, (weight, _) in zip(flat(groups), expected):
        np.testing.assert_allclose(parameter.detach().numpy(), weight, rtol=1e-9)


@pytest.mark.parametrize('make_optimizer', [ranger, sgd, opt_func('lion')], ids=['ranger', 'sgd', 'lion'])
def test_group_rates_reach_the_wrapped(make_optimizer):
    "`set_hyper` with one rate a group, read back from `hypers`."
    optimizer = make_optimizer([[nn.Parameter(torch.ones(2))], [nn.Parameter(torch.ones(2))]], lr=1.)
    optimizer.set_hyper('lr', [.1, .2])
    optimizer.set_hyper('wd', [.3, .4])
    assert [(hypers['lr'], hypers['wd']) for hypers in optimizer.hypers] == [(.1, .3), (.2, .4)]


def patched_adamw(groups, lr): return Patched(groups, opt=torch.optim.AdamW, lr=lr)


@pytest.mark.parametrize('make_optimizer', [sgd, opt_func('lion'), opt_func('lookahead_sgd'), patched_adamw],
                         ids=['sgd', 'lion', 'lookahead', 'fastai'])
def test_what_is_written_into_hypers_is_set(make_optimizer):
    "As callbacks do it, `ReduceLROnPlateau` for one; copies are values alone."
    optimizer = make_optimizer([[nn.Parameter(torch.ones(2))], [nn.Parameter(torch.ones(2))]], lr=1.)
    for hypers in optimizer.hypers: hypers['lr'] = .25
    optimizer.hypers[1].update({'lr': .5}, wd=.3)
    assert [hypers['lr'] for hypers in optimizer.hypers] == [.25, .5]
    assert optimizer.hypers[1]['wd'] == .3 != optimizer.hypers[0]['wd']
    # a step is taken by them: of two equal weights the second moves further
    for group in optimizer.param_lists: group[0].grad = torch.ones(2)
    optimizer.step()
    first, second = (1 - group[0][0].item() for group in optimizer.param_lists)
    assert 0 < first < second
    copies = copy.deepcopy(optimizer.hypers)
    copies[0]['lr'] = 7.
    assert optimizer.hypers[0]['lr'] == .25
    with pytest.raises((InputError, KeyError), match='size'): optimizer.hypers[0]['size'] = 1


class Patched(OptimWrapper):
    "fastai's wrapper, as `fastmatch.all` leaves it."
    hypers = property(live_hypers)


def test_timms_optimizers_are_wrapped():
    assert isinstance(opt_func('lion')([nn.Parameter(torch.ones(2))], lr=1.), Wrapped)


def test_a_saved_state_is_copied():
    "Loading leaves the dict as it is, and later steps don't change it."
    optimizer = sgd(make_groups(), .1, mom=.9)
    state = copy.deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(state)
    optimizer.set_hyper('wd', .7)
    assert state['own'] == [{'wd': 0.}] * 3


@pytest.mark.parametrize('make_invalid, message', [
    (lambda: sgd(make_groups(), .1).load_state_dict(adamw(make_groups(), .1).state_dict()), 'none of torch'),
    (lambda: sgd(make_groups(), .1, sqr_mom=.9), 'sqr_mom=0.9: SGD has only'),
    (lambda: sgd(make_groups(), .1).set_hyper('eps', 1.), "SGD has no 'eps'"),
])
def test_bad_input_is_named(make_invalid, message):
    with pytest.raises(InputError, match=message): make_invalid()
