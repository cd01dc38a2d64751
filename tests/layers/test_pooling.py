"Pooling and necks, against plain formulas and at the limits of half precision."
import numpy as np
import pytest
import torch
from torch import nn

from fastmatch.core import InputError
from fastmatch.layers.pooling import BNNeck, GeM, ProjectNeck


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_bnneck_has_no_trained_shift():
    neck = BNNeck(3)
    neck(torch.randn(8, 3) + 5).sum().backward()
    assert neck.bias is None and neck.weight.requires_grad


def test_project_neck_changes_the_width():
    neck, features = ProjectNeck(6, 3, p=.2).eval(), torch.randn(8, 6)
    torch.testing.assert_close(neck(features), neck[2](features @ neck[1].weight.t()))
    assert neck.train()(features).shape == (8, 3) and neck[2].bias is None


def test_gem_is_the_power_mean_and_its_limits():
    features = rand(2, 3, 4, 5).abs()
    for power in (1., 3., 4.5):
        expected = [[np.mean([float(value)**power for value in channel.flatten()])**(1 / power)
                     for channel in image] for image in features]
        np.testing.assert_allclose(GeM(power)(features).detach(), expected, rtol=1e-6)
    torch.testing.assert_close(GeM(1.)(features), features.mean((2, 3)))
    scaled = features / features.max()
    torch.testing.assert_close(GeM(500.)(scaled), scaled.amax((2, 3)), rtol=1e-2, atol=0)


def test_gem_gradcheck():
    gem, features = GeM().double(), rand(2, 3, 4, 5).abs().requires_grad_()
    log_rise = torch.tensor(.3, dtype=torch.float64, requires_grad=True)
    def pooled(features, log_rise): return torch.func.functional_call(gem, {'log_rise': log_rise}, features)
    assert torch.autograd.gradcheck(pooled, (features, log_rise))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize('value', [0., 1e-3, 6e4])
def test_gem_survives_half_precision_and_empty_maps(dtype, value):
    gem, features = GeM(), torch.full((2, 3, 4, 4), value).to(dtype).requires_grad_()
    pooled = gem(features)
    pooled.float().sum().backward()
    assert pooled.dtype == dtype and torch.isfinite(pooled).all()
    assert torch.isfinite(features.grad).all() and torch.isfinite(gem.log_rise.grad)
    if 0 < features[0, 0, 0, 0] < 6e4:
        torch.testing.assert_close(pooled, features.mean((2, 3)), rtol=1e-2, atol=0)


def test_gem_power_stays_above_one_and_decays_to_its_start():
    gem, features = GeM(1.5), torch.rand(2, 3, 4, 4)
    optimizer = torch.optim.SGD(gem.parameters(), lr=10.)
    for _ in range(20):
        gem(features).sum().backward()
        optimizer.step()
    assert 1 <= gem.p.item() < 1.5
    optimizer = torch.optim.AdamW(gem.parameters(), lr=.1, weight_decay=1.)
    for _ in range(200):
        gem.log_rise.grad = torch.zeros(())
        optimizer.step()
    assert abs(gem.p.item() - 1.5) < 1e-3
    assert [type(parameter) for parameter in gem.parameters()] == [nn.Parameter]


def test_bad_input_is_named():
    with pytest.raises(InputError, match='p=0.5'): GeM(.5)
