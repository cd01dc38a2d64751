"""Lists of tensors take the steps that one tensor after another would take, however they are divided and
laid out in memory."""
import pytest
import torch
from torch import nn

from fastmatch.optim import kernels
from tests.optim.steps import OPTIMIZERS, flat, make_groups, random_grad, set_grads, vector


@pytest.mark.parametrize('optimizer_name', ['ranger', 'ranger_adabelief', 'adamw', 'adabelief'])
def test_lists_are_the_loop(optimizer_name, monkeypatch):
    """One optimizer for each weight, one for all, and lists divided at every tensor give the same weights
    to the bit."""
    make_optimizer = OPTIMIZERS[optimizer_name][0]

    def weights(chunk_size=2**18, one_by_one=False):
        monkeypatch.setattr(kernels, 'CHUNK_SIZE', chunk_size)
        groups = make_groups(torch.float32)
        if one_by_one: optimizers = [make_optimizer([parameter], .01) for parameter in flat(groups)]
        else: optimizers = [make_optimizer(groups, .01)]
        generator = torch.Generator().manual_seed(1)
        for step in range(50):
            set_grads(groups, step, generator)
            for optimizer in optimizers: optimizer.step()
        return vector(groups)

    whole = weights()
    assert torch.equal(whole, weights(chunk_size=1)) and torch.equal(whole, weights(one_by_one=True))


@pytest.mark.parametrize('optimizer_name', ['ranger', 'ranger_adabelief'])
def test_layouts_of_memory_do_not_matter(optimizer_name):
    "Weights turned channels_last in mid-run, gradients of another layout, and weights that aren't dense."
    def weights(twisted):
        groups = make_groups()
        if twisted:
            wider = torch.cat([groups[0][0], groups[0][0]], 3).detach()
            groups[0][0] = nn.Parameter(wider[..., :3])
        optimizer = OPTIMIZERS[optimizer_name][0](groups, .01)
        generator = torch.Generator().manual_seed(1)
        for step in range(20):
            if twisted and step == 7:
                groups[1][0].data = groups[1][0].data.contiguous(memory_format=torch.channels_last)
            for parameter in flat(groups): parameter.grad = random_grad(parameter, step, generator)
            if twisted and step > 10: groups[2][0].grad = groups[2][0].grad.t().contiguous().t()
            optimizer.step()
        return vector(groups)
    torch.testing.assert_close(weights(True), weights(False), rtol=1e-12, atol=1e-12)


def test_chunks_hold_every_tensor_once(monkeypatch):
    "A tensor that is larger than a chunk has one of its own."
    monkeypatch.setattr(kernels, 'CHUNK_SIZE', 10)
    sizes = [4, 5, 2, 30, 10, 1]
    parts = list(kernels.chunks([torch.zeros(size) for size in sizes], sizes))
    assert [part_sizes for _, part_sizes in parts] == [[4, 5], [2], [30], [10], [1]]
    assert all([len(tensor) for tensor in tensors] == part_sizes for tensors, part_sizes in parts)
