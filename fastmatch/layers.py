"Layers between an encoder and a loss: a normalising neck and a head of class centres."
import torch
import torch.nn.functional as F
from torch import nn

from .core import HeadOutput


class BNNeck(nn.BatchNorm1d):
    "BatchNorm without a shift between feature and classifier, https://arxiv.org/abs/1903.07071"
    def __init__(
        self,
        n_in: int,  # Width of the feature
        **kwargs,  # Handed to `nn.BatchNorm1d`
    ):
        super().__init__(n_in, **kwargs)
        self.bias.requires_grad_(False)


class CosineHead(nn.Module):
    "Class centres as weights: returns the cosine of each embedding with each centre, https://arxiv.org/abs/1704.06369"
    no_gc = True  # a centre's gradient has a mean of its own right: optimizers don't centralise it

    def __init__(
        self,
        n_in: int,  # Width of the embedding
        n_out: int,  # Number of classes (training groups)
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in))
        # the direction of a centre is all that counts; a small norm lets it turn quickly under Adam at first
        nn.init.normal_(self.weight, std=.01)

    def forward(self, emb) -> HeadOutput:
        # cosines in float32 at least, also under autocast: a half-precision cosine can't hold a margin
        with torch.autocast(emb.device.type, enabled=False):
            x = emb if emb.dtype == torch.float64 else emb.float()
            return HeadOutput(F.linear(F.normalize(x), F.normalize(self.weight)), x)

    def extra_repr(self): return f'n_in={self.weight.shape[1]}, n_out={self.weight.shape[0]}'
