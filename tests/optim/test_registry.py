"Optimizers by name: every one of timm's takes a schedule, and defaults follow the domain."
import pickle

import pytest
import torch
from torch import nn

from fastmatch.core import InputError
from fastmatch.optim import list_opts, opt_func, optimizer_configs


def take_scheduled_steps(optimizer_name):
    """Three steps of a group of matrices and one of a vector; rates by group, momentum, decay, state
    there and back."""
    parameters = [nn.Parameter(torch.full(shape, 1.)) for shape in ((4, 3), (2, 4, 3, 3), (4,))]
    optimizer = opt_func(optimizer_name)([parameters[:2], parameters[2:]], lr=slice(1e-3, 1e-2))
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for parameter in parameters: parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.set_hypers(lr=[1e-3, 1e-2], mom=.9, wd=.1)
        optimizer.step()
        optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.hypers[1]['lr'] == 1e-2 and optimizer.hypers[0]['wd'] == .1, optimizer_name
    assert 'mom' in optimizer.hypers[0], optimizer_name
    for parameter in parameters:
        assert torch.isfinite(parameter).all() and (parameter != 1).any(), optimizer_name


def test_every_name_of_timms_takes_a_schedule():
    scheduled, refused = [], {}
    for optimizer_name in list_opts():
        try: take_scheduled_steps(optimizer_name)
        except (InputError, ImportError) as raised: refused[optimizer_name] = str(raised)
        else: scheduled.append(optimizer_name)
    assert len(scheduled) >= 80 and {'lion', 'muon', 'lars', 'adopt', 'ranger'} <= set(scheduled)
    elsewhere = 'bnb', 'fused', 'adahessian', 'kron'
    assert all(optimizer_name.startswith(elsewhere) for optimizer_name in refused)
    assert 'second derivatives' in refused['adahessian']


def make_optimizer(*arguments, **options):
    return opt_func(*arguments, **options)([nn.Parameter(torch.ones(2))], lr=1.)


@pytest.mark.parametrize('arguments, options, eps', [
    (('rangeradabelief',), {}, 1e-8),
    (('rangeradabelief', 'text'), {}, 1e-16),
    (('rangeradabelief_nogc', 'text'), dict(amp=True), 1e-8),
    (('ranger',), {}, 1e-6),
    (('adamw',), {}, 1e-5),
    (('adamw', 'text'), {}, 1e-6),
    (('ranger',), dict(eps=1e-3), 1e-3),
    (('lookahead_adamw',), dict(eps=1e-4), 1e-4),
])
def test_default_eps(arguments, options, eps):
    assert make_optimizer(*arguments, **options).hypers[0]['eps'] == eps


@pytest.mark.parametrize('name', ['adamw', 'ranger', 'sgd_momentum', 'rmsprop', 'lion', 'lookahead_lion'])
def test_true_wd_is_whether_the_weights_are_decayed(name):
    "Decay on the gradients is the step without decay on a loss with half the squared weights in it."
    def step(gradient, **options):
        parameter = nn.Parameter(torch.tensor([1., -2.]))
        optimizer = opt_func(name, **options)([parameter], lr=.1)
        for _ in range(3):
            parameter.grad = gradient(parameter.detach())
            optimizer.step()
        return parameter.detach()

    def plain(parameter): return torch.tensor([.3, .4])
    def with_l2(parameter): return plain(parameter) + .5 * parameter
    l2 = step(plain, wd=.5, true_wd=False)
    torch.testing.assert_close(l2, step(with_l2, wd=0.))
    decoupled = step(plain, wd=.5, true_wd=True)
    torch.testing.assert_close(decoupled, step(plain, wd=.5))
    assert not torch.allclose(l2, decoupled)
    with pytest.raises(InputError, match='give one of them'): step(plain, true_wd=True, decouple_wd=True)


def test_the_configs_themselves_know_the_options():
    parameter = nn.Parameter(torch.ones(2))
    optimizer = optimizer_configs['adamw']([parameter], 1e-3, .8, true_wd=False, bn_wd=True)
    assert (optimizer.variant.decouple_wd, optimizer.bn_wd, optimizer.hypers[0]['mom']) == (False, True, .8)
    assert pickle.loads(pickle.dumps(opt_func('ranger', bn_wd=True)))([parameter], lr=.1).bn_wd is True


def test_names():
    assert make_optimizer('lookahead_lion', k=3).k == 3
    assert optimizer_configs['ranger_nogc']([nn.Parameter(torch.ones(2))], lr=1.).variant.gc is False
    with pytest.raises(InputError, match="no optimizer 'rangr'.*adamw"): opt_func('rangr')
    with pytest.raises(InputError, match='domain'): opt_func('adamw', 'sound')
