"Pooling and necks."
import torch
from torch import nn

from ..core import InputError


class GeM(nn.Module):
    "Generalised mean over a feature map: (mean x^p)^(1/p), https://arxiv.org/abs/1711.02512; for features that aren't negative (after a ReLU)."
    def __init__(
        self,
        p: float = 3.,  # Power to start from, at least 1; 1 is the mean and stays so
        eps: float = 1e-6,  # Smaller features count as this: on an empty map the gradient of p would be NaN
    ):
        super().__init__()
        if not p >= 1: raise InputError(f'p={p}: the power is 1 at least')
        # 1 + (p-1) e^x can't fall below 1, and weight decay draws it to the start, not to 0
        self.start, self.eps, self.log_rise = p, eps, nn.Parameter(torch.zeros(()))

    @property
    def p(self): return 1 + (self.start - 1) * self.log_rise.exp()

    def forward(
        self,
        x,  # (n,c,h,w)
    ):  # (n,c)
        # in float32: 1e-6 cubed is 0 in half precision
        with torch.autocast(x.device.type, enabled=False):
            p, y = self.p, x if x.dtype == torch.float64 else x.float()
            return y.clamp(min=self.eps).pow(p).mean((2, 3)).pow(1 / p).to(x.dtype)

    def extra_repr(self): return f'p={self.p.item():.3g}'


class BNNeck(nn.BatchNorm1d):
    "BatchNorm without a shift between feature and classifier, https://arxiv.org/abs/1903.07071"
    def __init__(
        self,
        n_in: int,  # Width of the feature
        **kwargs,  # Handed to `nn.BatchNorm1d`
    ):
        super().__init__(n_in, **kwargs)
        # none at all: one that is merely frozen comes alive with `learn.unfreeze()`
        self.register_parameter('bias', None)


class ProjectNeck(nn.Sequential):
    "Dropout, a linear layer to `n_out` and a `BNNeck`: for embeddings smaller than the feature (where size is no matter, the plain neck did better)."
    def __init__(
        self,
        n_in: int,  # Width of the feature
        n_out: int,  # Width of the embedding
        p: float = 0.,  # Dropout
    ):
        super().__init__(nn.Dropout(p), nn.Linear(n_in, n_out, bias=False), BNNeck(n_out))
