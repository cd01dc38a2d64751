"""What the tests of optimizers share: weights in groups, gradients in a fixed order, each optimizer and
its naive twin's options."""
import torch
from torch import nn

from fastmatch.optim import AdaBelief, RAdam, adamw, ranger, ranger_adabelief

SHAPES = [[(6, 3, 3, 3), (6,)], [(6, 1, 3, 3), (6,), (5, 1)], [(4, 6), (4,)]]


def adamw_l2(parameters, lr, **options): return adamw(parameters, lr, decouple_wd=False, **options)
def adamw_softplus(parameters, lr, **options): return adamw(parameters, lr, beta=50., **options)
def rectified_adabelief(parameters, lr, **options): return AdaBelief(parameters, lr, rectify=True, **options)
def ranger_nogc(parameters, lr, **options): return ranger(parameters, lr, gc=False, **options)


def ranger_adabelief_nogc(parameters, lr, **options):
    return ranger_adabelief(parameters, lr, gc=False, k=4, alpha=.3, **options)


# name -> (optimizer, options of `tests.reference.optim.Reference`)
OPTIMIZERS = {
    'adamw': (adamw, {}),
    'adamw-l2': (adamw_l2, dict(decouple=False)),
    'adamw-softplus': (adamw_softplus, dict(beta=50.)),
    'radam': (RAdam, dict(rectify=True)),
    'adabelief': (AdaBelief, dict(belief=True)),
    'adabelief-rectified': (rectified_adabelief, dict(belief=True, rectify=True)),
    'ranger': (ranger, dict(rectify=True, centralize=True, k=6)),
    'ranger-nogc': (ranger_nogc, dict(rectify=True, k=6)),
    'ranger_adabelief': (ranger_adabelief, dict(belief=True, rectify=True, centralize=True, k=6)),
    'ranger_adabelief-nogc': (ranger_adabelief_nogc, dict(belief=True, rectify=True, k=4, alpha=.3)),
}


def make_groups(dtype=torch.float64, seed=0):
    "Random weights of `SHAPES`, a list for each group."
    generator = torch.Generator().manual_seed(seed)
    def weight(shape):
        return nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype))
    return [[weight(shape) for shape in shapes] for shapes in SHAPES]


def flat(groups): return [parameter for group in groups for parameter in group]
def vector(groups): return torch.cat([parameter.detach().flatten() for parameter in flat(groups)])


def random_grad(parameter, step, generator):
    "A gradient of the weight's shape, whose mean depends on the step."
    noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return (noise * .3 + .1 * (step % 7)).to(parameter.dtype)


def set_grads(groups, step, generator):
    for parameter in flat(groups): parameter.grad = random_grad(parameter, step, generator)


def run(make_optimizer, steps=50, dtype=torch.float64):
    "All weights after some steps, as one vector; `make_optimizer` takes the groups."
    groups = make_groups(dtype)
    optimizer = make_optimizer(groups)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        set_grads(groups, step, generator)
        optimizer.step()
    return vector(groups)
