"Optimizers by name: every one of timm's takes a schedule, and defaults follow the domain."
import pytest
import torch
from torch import nn

from fastmatch.core import InputError
from fastmatch.optim import list_opts, opt_func, optimizer_configs


def take_scheduled_steps(name):
    """Three steps of a group of matrices and one of a vector; rates by group, momentum, decay, state
    there and back."""
    params = [nn.Parameter(torch.full(shape, 1.)) for shape in ((4, 3), (2, 4, 3, 3), (4,))]
    optimizer = opt_func(name)([params[:2], params[2:]], lr=slice(1e-3, 1e-2))
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for param in params: param.grad = torch.randn(param.shape, generator=generator)
        optimizer.set_hypers(lr=[1e-3, 1e-2], mom=.9, wd=.1)
        optimizer.step()
        optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.hypers[1]['lr'] == 1e-2 and optimizer.hypers[0]['wd'] == .1, name
    assert 'mom' in optimizer.hypers[0], name
    assert all(torch.isfinite(param).all() and (param != 1).any() for param in params), name


def test_every_name_of_timms_takes_a_schedule():
    done, refused = [], {}
    for name in list_opts():
        # compiles itself for seconds
        if name.startswith('kron'): continue
        try: take_scheduled_steps(name)
        except (InputError, ImportError) as error: refused[name] = str(error)
        else: done.append(name)
    assert len(done) >= 80 and {'lion', 'muon', 'lars', 'adopt', 'ranger'} <= set(done)
    assert all(name.startswith(('bnb', 'fused', 'adahessian')) for name in refused)
    assert 'second derivatives' in refused['adahessian']


def made(*args, **kwargs): return opt_func(*args, **kwargs)([nn.Parameter(torch.ones(2))], lr=1.)


@pytest.mark.parametrize('args, kwargs, eps', [
    (('rangeradabelief',), {}, 1e-8),
    (('rangeradabelief', 'text'), {}, 1e-16),
    (('rangeradabelief_nogc', 'text'), dict(amp=True), 1e-8),
    (('ranger',), {}, 1e-6),
    (('adamw',), {}, 1e-5),
    (('adamw', 'text'), {}, 1e-6),
    (('ranger',), dict(eps=1e-3), 1e-3),
    (('lookahead_adamw',), dict(eps=1e-4), 1e-4),
])
def test_default_eps(args, kwargs, eps): assert made(*args, **kwargs).hypers[0]['eps'] == eps


def test_names():
    assert made('lookahead_lion', k=3).k == 3
    assert optimizer_configs['ranger_nogc']([nn.Parameter(torch.ones(2))], lr=1.).variant.gc is False
    with pytest.raises(InputError, match="no optimizer 'rangr'.*adamw"): opt_func('rangr')
    with pytest.raises(InputError, match='domain'): opt_func('adamw', 'sound')
