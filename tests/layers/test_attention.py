"Attention over feature maps against the formulae of the papers, in float64."
import numpy as np
import pytest
import torch
from torch import nn

from fastmatch.core import InputError
from fastmatch.layers.attention import ATTENTIONS, BAM, SCSE, make_attention


def features(n_channels=8, side=9):
    return torch.randn(3, n_channels, side, side, dtype=torch.float64,
                       generator=torch.Generator().manual_seed(0))


def made(attention):
    torch.manual_seed(1)
    attention = attention.double()
    # statistics and factors that are not 0 and 1
    for module in attention.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(.5, 2)
    return attention.eval()


def sigmoid(values): return 1 / (1 + np.exp(-values))


def normed(values, norm):
    "BatchNorm in evaluation of (n,c,h,w)."
    mean, variance, weight, bias = (numbers.detach().numpy()[None, :, None, None] for numbers in (
        norm.running_mean, norm.running_var, norm.weight, norm.bias))
    return (values - mean) / np.sqrt(variance + norm.eps) * weight + bias


def convolved(values, conv):
    "A convolution (n,c,h,w) with zeros around it, as a loop over the places of its kernel."
    weight, bias = conv.weight.detach().numpy(), conv.bias
    kernel, dilation, around = weight.shape[2], conv.dilation[0], conv.padding[0]
    height, width = values.shape[2:]
    padded = np.pad(values, ((0, 0), (0, 0), (around, around), (around, around)))
    total = 0
    for i in range(kernel):
        for j in range(kernel):
            window = padded[:, :, i * dilation:i * dilation + height, j * dilation:j * dilation + width]
            total = total + np.einsum('nchw,oc->nohw', window, weight[:, :, i, j])
    return total if bias is None else total + bias.detach().numpy()[None, :, None, None]


def test_scse():
    scse, maps = made(SCSE(8, 2)), features()
    values = maps.numpy()
    first, second, place = scse.channels[1], scse.channels[3], scse.places[0]
    mean = values.mean((2, 3), keepdims=True)
    by_channel = sigmoid(convolved(np.maximum(convolved(mean, first), 0), second))
    by_place = sigmoid(convolved(values, place))
    expected = values * by_channel + values * by_place
    np.testing.assert_allclose(scse(maps).detach().numpy(), expected, rtol=1e-10)


def test_bam():
    bam, maps = made(BAM(8, 2)), features()
    values = maps.numpy()
    mean = values.mean((2, 3), keepdims=True)
    hidden = np.maximum(convolved(mean, bam.channels[1]), 0)
    by_channel = normed(convolved(hidden, bam.channels[3]), bam.channels[4])
    place = values
    for block in list(bam.places)[:3]: place = np.maximum(normed(convolved(place, block[0]), block[1]), 0)
    by_place = normed(convolved(place, bam.places[3]), bam.places[4])
    expected = values * (1 + sigmoid(by_channel + by_place))
    np.testing.assert_allclose(bam(maps).detach().numpy(), expected, rtol=1e-10)
    with pytest.raises(InputError, match='batch of one picture'): bam.train()(maps[:1])


def test_cbam():
    "timm's, as the paper has it: channels by mean and maximum through one MLP, then places by both of them."
    cbam, maps = made(make_attention('cbam', 16)), features(16)
    values = maps.numpy()

    def mlp(pooled): return convolved(np.maximum(convolved(pooled, cbam.channel.fc1), 0), cbam.channel.fc2)
    both = mlp(values.mean((2, 3), keepdims=True)) + mlp(values.max((2, 3), keepdims=True))
    values = values * sigmoid(both)
    pooled = np.concatenate([values.mean(1, keepdims=True), values.max(1, keepdims=True)], 1)
    by_place = sigmoid(normed(convolved(pooled, cbam.spatial.conv.conv), cbam.spatial.conv.bn))
    np.testing.assert_allclose(cbam(maps).detach().numpy(), values * by_place, rtol=1e-10)


@pytest.mark.parametrize('attention', [SCSE(4, 2), BAM(4, 2, dilation=1)])
def test_gradients(attention):
    maps = features(4, 3)[:2].requires_grad_()
    assert torch.autograd.gradcheck(made(attention), maps)


def test_refusals():
    with pytest.raises(InputError, match="attention='se': choose one of"): make_attention('se', 8)
    for attention in (SCSE, BAM):
        with pytest.raises(InputError, match='reduction=0'): attention(8, 0)
    assert list(ATTENTIONS) == ['scse', 'cbam', 'bam']
