"""Pooling of feature maps to vectors, and necks: the small layers between an encoder's feature and the
embedding."""
import torch
from torch import nn

from ..core import InputError, checks_options


class GeM(nn.Module):
    """Generalized mean over a feature map, (mean x^p)^(1/p) with a trained power p,
    https://arxiv.org/abs/1711.02512

    p = 1 is the mean, a large p nearly the maximum. For features that aren't negative (after a ReLU).
    """
    def __init__(
        self,
        p: float = 3.,  # Power to start from, at least 1; with 1 it is the mean and stays so
        eps: float = 1e-6,  # Smaller features count as this: on an empty map the gradient of p would be NaN
    ):
        super().__init__()
        if not p >= 1: raise InputError(f'p={p}: the power is 1 at least')
        self.start = p
        self.eps = eps
        self.log_rise = nn.Parameter(torch.zeros(()))

    @property
    def p(self):
        """The power as it is now, 1 + (start - 1) e^log_rise: it can't fall below 1, and weight decay
        draws it to its start and not to 0."""
        return 1 + (self.start - 1) * self.log_rise.exp()

    def forward(
        self,
        features,  # (n,c,h,w)
    ):  # (n,c), of the same dtype
        # in float32: the cube of 1e-6 is 0 in half precision
        with torch.autocast(features.device.type, enabled=False):
            power = self.p
            values = features if features.dtype == torch.float64 else features.float()
            return values.clamp(min=self.eps).pow(power).mean((2, 3)).pow(1 / power).to(features.dtype)

    def extra_repr(self): return f'p={self.p.item():.3g}'


class BNNeck(nn.BatchNorm1d):
    "BatchNorm without a shift, between the feature and the head, https://arxiv.org/abs/1903.07071"
    @checks_options(nn.BatchNorm1d)
    def __init__(
        self,
        n_in: int,  # Width of the feature
        **kwargs,  # For `nn.BatchNorm1d`
    ):
        super().__init__(n_in, **kwargs)
        # removed and not frozen: `learn.unfreeze()` would thaw it
        self.register_parameter('bias', None)


class ProjectNeck(nn.Sequential):
    """Dropout, a linear layer to `n_out`, and a `BNNeck`: for an embedding that is smaller than the feature.

    Where the size of the embedding does not matter, a `BNNeck` alone did better.
    """
    def __init__(
        self,
        n_in: int,  # Width of the feature
        n_out: int,  # Width of the embedding
        p: float = 0.,  # Dropout
    ):
        super().__init__(nn.Dropout(p), nn.Linear(n_in, n_out, bias=False), BNNeck(n_out))
