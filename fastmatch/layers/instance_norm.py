"Instance and batch normalization side by side: IBN, for pictures whose looks differ from shop to shop."
import torch
from torch import nn

from ..core import InputError


class IBN(nn.Module):
    """The first channels of a feature map (n,c,h,w) by instance normalization, the others by batch
    normalization: IBN-a, https://arxiv.org/abs/1807.09441

    Instance normalization takes out what is the same all over a picture, such as its colors, contrast and
    style of drawing; batch normalization keeps what tells pictures apart.
    """
    def __init__(
        self,
        n_channels: int,  # Channels of the feature map, 2 at least
        share: float = .5,  # Share of the channels by instance normalization, rounded down; .5 in the paper
    ):
        super().__init__()
        self.n_instance = int(n_channels * share)
        if not 0 < self.n_instance < n_channels:
            raise InputError(f'share={share} of {n_channels} channels is {self.n_instance}: each of the two '
                             'normalizations needs some')
        self.instance = nn.InstanceNorm2d(self.n_instance, affine=True)
        self.batch = nn.BatchNorm2d(n_channels - self.n_instance)

    def forward(self, features):
        instance_half, batch_half = features.split([self.n_instance, features.shape[1] - self.n_instance], 1)
        return torch.cat([self.instance(instance_half), self.batch(batch_half)], 1)

    @classmethod
    def from_batch_norm(
        cls,
        norm: nn.BatchNorm2d,  # Left as it is
        share: float = .5,  # Share of the channels by instance normalization
    ) -> 'IBN':
        "An `IBN` in the place of a trained batch normalization, with its factors, shifts and statistics."
        made = cls(norm.num_features, share).to(norm.weight)
        copy_affine(made.instance, norm, slice(None, made.n_instance))
        copy_affine(made.batch, norm, slice(made.n_instance, None))
        made.batch.running_mean.copy_(norm.running_mean[made.n_instance:])
        made.batch.running_var.copy_(norm.running_var[made.n_instance:])
        made.batch.num_batches_tracked.copy_(norm.num_batches_tracked)
        made.batch.eps = made.instance.eps = norm.eps
        made.batch.momentum = norm.momentum
        return made


def instance_norm_like(
    norm: nn.BatchNorm2d,  # Left as it is
) -> nn.InstanceNorm2d:
    "An instance normalization with the factors and shifts of a batch normalization."
    made = nn.InstanceNorm2d(norm.num_features, eps=norm.eps, affine=True).to(norm.weight)
    copy_affine(made, norm, slice(None))
    return made


@torch.no_grad()
def copy_affine(
    norm: nn.Module,  # Normalization that is written to
    source: nn.Module,  # Normalization that is read
    channels: slice,  # Which channels of `source` are those of `norm`
):
    "Copy the factors and shifts of some channels from one normalization to another."
    norm.weight.copy_(source.weight[channels])
    norm.bias.copy_(source.bias[channels])
