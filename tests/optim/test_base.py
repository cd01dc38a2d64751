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


def through_disk(state, state_file):
    from fastcore.foundation import L
    torch.save(state, state_file)
    with torch.serialization.safe_globals([L]): return torch.load(state_file, weights_only=True)


def scheduled(step, group_index):
    "Every hyper-parameter changes with the step, lr and wd with the group."
    return dict(lr=.02 * (group_index + 1) * (1 + step % 5), wd=.1 + .05 * group_index,
                eps=1e-6 * (1 + step % 3), mom=.95 - .002 * (step % 40), sqr_mom=.99 - .0005 * (step % 20))


def saved_and_loaded(optimizer, make_optimizer, groups, state_file):
    """A new optimizer of the same weights with the saved state; the old state is spoilt, to show that
    nothing is shared."""
    saved_state = through_disk(optimizer.state_dict(), state_file)
    for parameter in flat(groups):
        for tensor in optimizer.state[parameter].values():
            if torch.is_tensor(tensor): tensor.fill_(7.)
    frozen = [parameter.requires_grad for parameter in flat(groups)]
    before = copy.deepcopy(saved_state)
    optimizer = make_optimizer(groups, .3)
    optimizer.load_state_dict(saved_state)
    assert [parameter.requires_grad for parameter in flat(groups)] == frozen
    assert str(saved_state) == str(before)
    return optimizer


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize('optimizer_name', OPTIMIZERS)
def test_fifty_steps_equal_the_paper(optimizer_name, dtype, tmp_path):
    make_optimizer, options = OPTIMIZERS[optimizer_name]
    k = options.get('k')
    groups = make_groups(dtype)
    optimizer = make_optimizer(groups, .1)
    references = {}
    for parameter in flat(groups):
        has_inputs = parameter.ndim > 1 and parameter.numel() > parameter.shape[0]
        centralize = OPTIMIZERS[optimizer_name][1].get('centralize', False) and has_inputs
        options = {**options, 'centralize': centralize}
        references[parameter] = Reference(parameter.detach().double().numpy(), **options)
        if parameter.ndim == 1: optimizer.state[parameter]['do_wd'] = False
    generator = torch.Generator().manual_seed(1)
    for step in range(50):
        if step == 12: optimizer.freeze_to(1)
        if step == 25:
            optimizer = saved_and_loaded(optimizer, make_optimizer, groups, tmp_path/'optimizer.pth')
        if step == 30: optimizer.freeze_to(0)
        hypers = [scheduled(step, group) for group in range(3)]
        for hyper in hypers[0]: optimizer.set_hyper(hyper, [group_hypers[hyper] for group_hypers in hypers])
        for index, group in enumerate(groups):
            for parameter in group:
                gradient = random_grad(parameter, step, generator)
                # the last group goes without a gradient now and then
                has_gradient = parameter.requires_grad and not (index == 2 and step % 11 == 3)
                parameter.grad = gradient if has_gradient else None
                if not has_gradient: continue
                wd = hypers[index]['wd'] * (parameter.ndim > 1)
                references[parameter].step(gradient.double().numpy(), **{**hypers[index], 'wd': wd})
        optimizer.step()
        optimizer.zero_grad()
        for parameter, reference in references.items():
            assert parameter.grad is None
            if k and (step + 1) % k == 0 and parameter.requires_grad: reference.meet()
            difference = np.abs(parameter.detach().double().numpy() - reference.weight).max()
            largest = max(1., np.abs(reference.weight).max())
            assert difference <= TOLERANCE[dtype] * largest, (step, parameter.shape)


def test_frozen_weights_stay_though_a_gradient_is_left():
    groups = make_groups()
    frozen = flat(groups[:2])
    optimizer = ranger(groups, .1, wd=.5)
    for step in range(9):
        for parameter in flat(groups): parameter.grad = torch.ones_like(parameter)
        if step == 4:
            optimizer.freeze_to(-1)
            before = [parameter.detach().clone() for parameter in frozen]
        optimizer.step()
    for parameter, earlier in zip(frozen, before): assert torch.equal(parameter, earlier)


def state_of_two_groups(): return adamw(make_groups()[:2], .1).state_dict()


@pytest.mark.parametrize('make_invalid, message', [
    (lambda: adamw(make_groups(), .1, eps=0.), 'eps=0'),
    (lambda: adamw(make_groups(), .1, mom=1.), 'mom=1'),
    (lambda: RAdam(make_groups(), .1, sqr_mom=0.), 'sqr_mom=0'),
    (lambda: run(lambda groups: ranger_adabelief(groups, .1), 1, dtype=torch.float16), 'float16'),
    (lambda: adamw(make_groups(), .1).load_state_dict(state_of_two_groups()),
     '2 groups and 5 parameters, this one 3 and 7'),
])
def test_bad_input_is_named(make_invalid, message):
    with pytest.raises(InputError, match=message): make_invalid()


def test_sparse_gradients_are_refused():
    embedding = nn.Embedding(5, 3, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(InputError, match='sparse=False'): ranger(list(embedding.parameters()), .1).step()
