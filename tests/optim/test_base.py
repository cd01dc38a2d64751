"""Fifty steps of each optimizer against the papers' formulas in float64, state saved in the middle,
groups frozen and unfrozen."""
import copy

import numpy as np
import pytest
import torch
from torch import nn

from fastmatch.core import InputError
from fastmatch.optim import RAdam, adamw, ranger, ranger_adabelief
from tests.optim.steps import OPTIMIZERS, flat, make_groups, random_grad, run
from tests.reference.optim import Reference

# largest difference from float64, relative to the largest weight
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13, torch.bfloat16: .1}


def through_disk(state, path):
    from fastcore.foundation import L
    torch.save(state, path)
    with torch.serialization.safe_globals([L]): return torch.load(path, weights_only=True)


def scheduled(step, group):
    "Every hyper-parameter changes with the step, lr and wd with the group."
    return dict(lr=.02 * (group + 1) * (1 + step % 5), wd=.1 + .05 * group, eps=1e-6 * (1 + step % 3),
                mom=.95 - .002 * (step % 40), sqr_mom=.99 - .0005 * (step % 20))


def saved_and_loaded(optimizer, make_optimizer, groups, path):
    """A new optimizer of the same weights with the saved state; the old state is spoilt, to show that
    nothing is shared."""
    state = through_disk(optimizer.state_dict(), path)
    for param in flat(groups):
        for value in optimizer.state[param].values():
            if torch.is_tensor(value): value.fill_(7.)
    frozen = [param.requires_grad for param in flat(groups)]
    before = copy.deepcopy(state)
    optimizer = make_optimizer(groups, .3)
    optimizer.load_state_dict(state)
    assert [param.requires_grad for param in flat(groups)] == frozen and str(state) == str(before)
    return optimizer


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize('name', OPTIMIZERS)
def test_fifty_steps_equal_the_paper(name, dtype, tmp_path):
    make_optimizer, options = OPTIMIZERS[name]
    k = options.get('k')
    groups = make_groups(dtype)
    optimizer = make_optimizer(groups, .1)
    references = {}
    for param in flat(groups):
        has_inputs = param.ndim > 1 and param.numel() > param.shape[0]
        centralize = OPTIMIZERS[name][1].get('centralize', False) and has_inputs
        options = {**options, 'centralize': centralize}
        references[param] = Reference(param.detach().double().numpy(), **options)
        if param.ndim == 1: optimizer.state[param]['do_wd'] = False
    generator = torch.Generator().manual_seed(1)
    for step in range(50):
        if step == 12: optimizer.freeze_to(1)
        if step == 25:
            optimizer = saved_and_loaded(optimizer, make_optimizer, groups, tmp_path/'optimizer.pth')
        if step == 30: optimizer.freeze_to(0)
        hypers = [scheduled(step, group) for group in range(3)]
        for key in hypers[0]: optimizer.set_hyper(key, [group_hypers[key] for group_hypers in hypers])
        for index, group in enumerate(groups):
            for param in group:
                grad = random_grad(param, step, generator)
                # the last group goes without a gradient now and then
                has_grad = param.requires_grad and not (index == 2 and step % 11 == 3)
                param.grad = grad if has_grad else None
                if not has_grad: continue
                wd = hypers[index]['wd'] * (param.ndim > 1)
                references[param].step(grad.double().numpy(), **{**hypers[index], 'wd': wd})
        optimizer.step()
        optimizer.zero_grad()
        for param, twin in references.items():
            assert param.grad is None
            if k and (step + 1) % k == 0 and param.requires_grad: twin.meet()
            difference = np.abs(param.detach().double().numpy() - twin.weight).max()
            assert difference <= TOLERANCE[dtype] * max(1., np.abs(twin.weight).max()), (step, param.shape)


def test_frozen_weights_stay_though_a_gradient_is_left():
    groups = make_groups()
    frozen = flat(groups[:2])
    optimizer = ranger(groups, .1, wd=.5)
    for step in range(9):
        for param in flat(groups): param.grad = torch.ones_like(param)
        if step == 4:
            optimizer.freeze_to(-1)
            before = [param.detach().clone() for param in frozen]
        optimizer.step()
    for param, old in zip(frozen, before): assert torch.equal(param, old)


def two_groups_saved(): return adamw(make_groups()[:2], .1).state_dict()


@pytest.mark.parametrize('make, words', [
    (lambda: adamw(make_groups(), .1, eps=0.), 'eps=0'),
    (lambda: adamw(make_groups(), .1, mom=1.), 'mom=1'),
    (lambda: RAdam(make_groups(), .1, sqr_mom=0.), 'sqr_mom=0'),
    (lambda: run(lambda groups: ranger_adabelief(groups, .1), 1, dtype=torch.float16), 'float16'),
    (lambda: adamw(make_groups(), .1).load_state_dict(two_groups_saved()),
     '2 groups and 5 parameters, this one 3 and 7'),
])
def test_bad_input_is_named(make, words):
    with pytest.raises(InputError, match=words): make()


def test_sparse_gradients_are_refused():
    embedding = nn.Embedding(5, 3, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(InputError, match='sparse=False'): ranger(list(embedding.parameters()), .1).step()
