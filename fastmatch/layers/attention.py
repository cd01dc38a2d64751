"""Attention over a feature map: a factor for each channel, for each place, or for both.

Each module here takes and returns a feature map (n,c,h,w), but for `ChannelsLast`.
"""
import torch
from torch import nn

from ..core import InputError


def _hidden_width(n_channels, reduction):
    "Width of the bottleneck between the channels, 1 at least."
    if reduction < 1: raise InputError(f'reduction={reduction}: 1 at least')
    return max(1, n_channels // reduction)


class SCSE(nn.Module):
    """Squeeze and excitation of channels and of places at the same time: the map times a factor for each
    channel, plus the map times a factor for each place, https://arxiv.org/abs/1803.02579

    U * sigmoid(W2 relu(W1 mean(U))) + U * sigmoid(conv1x1(U))
    """
    def __init__(
        self,
        n_channels: int,  # Channels of the feature map
        reduction: int = 16,  # How many times narrower the layer between the channels' factors is
    ):
        super().__init__()
        hidden = _hidden_width(n_channels, reduction)
        self.channels = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(n_channels, hidden, 1), nn.ReLU(),
                                      nn.Conv2d(hidden, n_channels, 1), nn.Sigmoid())
        self.places = nn.Sequential(nn.Conv2d(n_channels, 1, 1), nn.Sigmoid())

    def forward(self, features):
        return features * self.channels(features) + features * self.places(features)


class BAM(nn.Module):
    """The bottleneck attention module: F + F * sigmoid(Mc + Ms), with Mc a number for each channel and Ms one
    for each place, https://arxiv.org/abs/1807.06514

    Mc = BN(MLP(mean(F))), Ms = BN(conv1x1(conv3x3(conv3x3(conv1x1(F))))), the 3x3 convolutions dilated. As
    in the authors' code the MLP has a ReLU in its middle, and each of the first three convolutions is
    followed by BatchNorm and ReLU. In training it needs a batch of two pictures at least.
    """
    def __init__(
        self,
        n_channels: int,  # Channels of the feature map
        reduction: int = 16,  # How many times narrower the layers inside are
        dilation: int = 4,  # Of the 3x3 convolutions, for a wide view
    ):
        super().__init__()
        hidden = _hidden_width(n_channels, reduction)
        self.channels = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(n_channels, hidden, 1), nn.ReLU(),
                                      nn.Conv2d(hidden, n_channels, 1), nn.BatchNorm2d(n_channels))

        def convolved(width, kernel):
            padding = dilation if kernel == 3 else 0
            conv = nn.Conv2d(width, hidden, kernel, padding=padding, dilation=dilation if kernel == 3 else 1)
            return nn.Sequential(conv, nn.BatchNorm2d(hidden), nn.ReLU())
        self.places = nn.Sequential(convolved(n_channels, 1), convolved(hidden, 3), convolved(hidden, 3),
                                    nn.Conv2d(hidden, 1, 1), nn.BatchNorm2d(1))

    def forward(self, features):
        if self.training and len(features) < 2:
            raise InputError('BAM got a batch of one picture in training: its BatchNorm needs two')
        return features + features * torch.sigmoid(self.channels(features) + self.places(features))


class ChannelsLast(nn.Module):
    "A module of feature maps (n,c,h,w) for maps (n,h,w,c), as Swin and MambaOut have them."
    def __init__(
        self,
        module: nn.Module,  # Takes and returns (n,c,h,w)
    ):
        super().__init__()
        self.module = module

    def forward(self, features): return self.module(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _cbam(n_channels):
    from timm.layers.cbam import CbamModule
    return CbamModule(n_channels)


# name -> function from a number of channels to the module; CBAM is timm's,
# https://arxiv.org/abs/1807.06521
ATTENTIONS = {'scse': SCSE, 'cbam': _cbam, 'bam': BAM}


def make_attention(
    name: str,  # 'scse', 'cbam' or 'bam'
    n_channels: int,  # Channels of the feature map
) -> nn.Module:
    "Make an attention module by its name; raises `InputError` for a name that there isn't."
    if name not in ATTENTIONS: raise InputError(f'attention={name!r}: choose one of {list(ATTENTIONS)}')
    return ATTENTIONS[name](n_channels)
