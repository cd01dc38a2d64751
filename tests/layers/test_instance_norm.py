"IBN against the two normalizations on its halves, and where the paper puts them."
import pytest
import torch
from torch import nn

from fastmatch.core import InputError
from fastmatch.layers.instance_norm import IBN, instance_norm_like


def features():
    return torch.randn(4, 6, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def norm():
    torch.manual_seed(1)
    made = nn.BatchNorm2d(6, eps=1e-3, momentum=.2).double()
    nn.init.normal_(made.weight)
    nn.init.normal_(made.bias)
    made.running_mean.normal_()
    made.running_var.uniform_(.5, 2)
    return made


def by_hand(values, axes, norm, channels):
    mean, variance = values.mean(axes, keepdim=True), values.var(axes, unbiased=False, keepdim=True)
    weight, bias = (numbers[channels][None, :, None, None] for numbers in (norm.weight, norm.bias))
    return (values - mean) / (variance + norm.eps).sqrt() * weight + bias


@pytest.mark.parametrize('share, first', [(.5, 3), (.25, 1), (.9, 5)])
def test_the_two_norms_on_its_halves(share, first):
    plain, values = norm(), features()
    ibn = IBN.from_batch_norm(plain, share)
    with torch.no_grad():
        made = ibn.train()(values)
        torch.testing.assert_close(made[:, :first], by_hand(values[:, :first], (2, 3), plain, slice(first)))
        torch.testing.assert_close(made[:, first:],
                                   by_hand(values[:, first:], (0, 2, 3), plain, slice(first, None)))
        again = IBN.from_batch_norm(plain, share).eval()
        made = again(values)
        # in evaluation the instances' own figures, and the batches' running ones
        torch.testing.assert_close(made[:, :first], by_hand(values[:, :first], (2, 3), plain, slice(first)))
        torch.testing.assert_close(made[:, first:], plain.eval()(values)[:, first:])
    # what it ran on moves its running figures as BatchNorm's do
    plain.train()(values)
    torch.testing.assert_close(ibn.batch.running_mean, plain.running_mean[first:])


def test_gradients():
    ibn = IBN(4).double()
    values = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ibn, values)


def test_an_instance_norm_like_a_batch_norm():
    plain, values = norm(), features()
    with torch.no_grad():
        torch.testing.assert_close(instance_norm_like(plain)(values),
                                   by_hand(values, (2, 3), plain, slice(None)))


def test_each_norm_needs_channels():
    for n_channels, share in ((1, .5), (4, 0.), (4, 1.)):
        with pytest.raises(InputError, match='needs some'): IBN(n_channels, share)
