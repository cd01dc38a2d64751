"Ranger and its relatives against the same algorithms of torch, fastai and pytorch_optimizer."
import pytest
import torch
from fastai.optimizer import RAdam as FastaiRAdam
from fastai.optimizer import ranger as fastai_ranger

from fastmatch.optim import AdaBelief, RAdam, adamw, ranger
from tests.optim.steps import flat, make_groups, run, set_grads


def torch_groups(groups): return [{'params': group} for group in groups]


RANGER_ARGUMENTS = slice(1e-4, 1e-2), .9, .1, 1e-5, 5, .3


@pytest.mark.parametrize('make_ours, make_theirs', [
    # torch adds eps before the squares' bias is taken off: with next to no eps that is the same
    (lambda groups: RAdam(groups, .01, sqr_mom=.999, eps=1e-16),
     lambda groups: torch.optim.RAdam(torch_groups(groups), .01, (.9, .999), 1e-16)),
    (lambda groups: RAdam(groups, .01, wd=.1), lambda groups: FastaiRAdam(groups, .01, wd=.1)),
    (lambda groups: RAdam(groups, .01, wd=.1, beta=20., decouple_wd=False),
     lambda groups: FastaiRAdam(groups, .01, wd=.1, beta=20., decouple_wd=False)),
    (lambda groups: ranger(groups, .01, gc=False), lambda groups: fastai_ranger(groups, .01)),
    (lambda groups: ranger(groups, *RANGER_ARGUMENTS, gc=False, sqr_mom=.98),
     lambda groups: fastai_ranger(groups, *RANGER_ARGUMENTS, sqr_mom=.98)),
    (lambda groups: adamw(groups, .01, sqr_mom=.999, eps=1e-8),
     lambda groups: torch.optim.AdamW(torch_groups(groups), .01, weight_decay=.01)),
], ids=['torch-radam', 'fastai-radam', 'fastai-sadam-l2', 'fastai-ranger', 'fastai-ranger-arguments',
        'torch-adamw'])
def test_the_same_algorithm_elsewhere(make_ours, make_theirs):
    torch.testing.assert_close(run(make_ours), run(make_theirs), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('rectify', [False, True])
def test_adabelief_of_pytorch_optimizer(rectify):
    package = pytest.importorskip('pytorch_optimizer')
    eps = 1e-16 if rectify else 1e-8
    def make_theirs(groups):
        return package.AdaBelief(torch_groups(groups), .01, (.9, .999), .1, weight_decouple=True,
                                 fixed_decay=False, eps=eps, rectify=rectify, degenerated_to_sgd=True)
    def make_ours(groups): return AdaBelief(groups, .01, wd=.1, eps=eps, rectify=rectify)
    torch.testing.assert_close(run(make_ours), run(make_theirs), rtol=1e-9, atol=1e-9)


def test_fastais_saved_ranger_goes_on():
    "A state saved by fastai's ranger continues in ours with the same numbers."
    our_groups, their_groups = make_groups(), make_groups()
    their_optimizer, our_optimizer = fastai_ranger(their_groups, .01), ranger(our_groups, .01, gc=False)
    def step(groups, optimizer, index):
        set_grads(groups, index, torch.Generator().manual_seed(index))
        optimizer.step()
    for index in range(8): step(their_groups, their_optimizer, index)
    with torch.no_grad():
        for our_parameter, their_parameter in zip(flat(our_groups), flat(their_groups)):
            our_parameter.copy_(their_parameter)
    our_optimizer.load_state_dict(their_optimizer.state_dict())
    for index in range(8, 20):
        step(their_groups, their_optimizer, index)
        step(our_groups, our_optimizer, index)
    for our_parameter, their_parameter in zip(flat(our_groups), flat(their_groups)):
        torch.testing.assert_close(our_parameter, their_parameter, rtol=1e-12, atol=1e-12)
