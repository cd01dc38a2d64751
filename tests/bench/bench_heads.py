"What a head of many class centres costs beside a plain linear layer and cross-entropy."
import math

import torch
import torch.nn.functional as F
from torch import nn

from fastmatch.layers.heads import CosineHead, SampledHead, TrackedHead
from fastmatch.losses import ArcFace, CurricularFace
from tests.bench.harness import Case, bench

M, S = .5, 30.
CLASSES = 11_014, 100_000  # Shopee's training groups, and many


class OneHot(nn.Module):
    "The common form: normalised centres, the margin worked out for every class, picked by a one-hot matrix."
    def __init__(self, d, c):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c, d) * .01)

    def forward(self, x, y, m=M, s=S):
        cos = F.linear(F.normalize(x), F.normalize(self.weight)).clamp(-1 + 1e-6, 1 - 1e-6)
        hot = F.one_hot(y, len(self.weight)).float()
        return F.cross_entropy(s * (hot * (cos.acos() + m).cos() + (1 - hot) * cos), y)


def sides(
    n: int = 64,  # Rows a batch
    d: int = 512,  # Width of the embedding
    c: int = 100_000,  # Classes
    share: float = .1,  # Of the centres that the sampled head looks at
    device: str = 'cpu',
    # Which to build
    names=('linear', 'ArcFace', 'CurricularFace', 'sampled', 'one-hot', 'pytorch-metric-learning'),
) -> dict:
    "Name -> callable that runs forward and backward once and leaves no gradient."
    torch.manual_seed(0)
    x, y = torch.randn(n, d, device=device, requires_grad=True), torch.randint(c, (n,), device=device)

    def linear():
        layer = nn.Linear(d, c, bias=False)
        return layer, lambda: F.cross_entropy(layer(x), y)

    def ours(head, loss):
        head.labels = y
        return head, lambda: loss(head(x), y)

    def one_hot():
        head = OneHot(d, c)
        return head, lambda: head(x, y)

    def theirs():
        from pytorch_metric_learning.losses import ArcFaceLoss
        loss = ArcFaceLoss(c, d, margin=math.degrees(M), scale=S)
        return loss, lambda: loss(x, y)

    def once(layer, forward):
        def run():
            forward().backward()
            x.grad = None
            layer.zero_grad()
        layer.to(device)
        return run

    made = {
        'linear': linear,
        'ArcFace': lambda: ours(CosineHead(d, c), ArcFace(M, S)),
        'CurricularFace': lambda: ours(TrackedHead(d, c), CurricularFace(M, S)),
        'sampled': lambda: ours(SampledHead(d, c, share=share), ArcFace(M, S)),
        'one-hot': one_hot,
        'pytorch-metric-learning': theirs,
    }
    return {k: once(*made[k]()) for k in names}


def side(name, quick, **kwargs):
    return lambda: sides(names=(name,), **({'n': 8, 'd': 16, **kwargs, 'c': 500} if quick else kwargs))[name]


@bench('heads')
def seconds(quick):
    "Forward and backward of a head (512-d, batch 64) against a plain linear layer and cross-entropy."
    for c in CLASSES:
        for name, bar in (
            ('ArcFace', 1.25),
            ('CurricularFace', 1.25),
            ('sampled', 0.3 if c == CLASSES[-1] else None),
            ('pytorch-metric-learning', None),
            ('one-hot', None),
        ):
            yield Case(
                f'{c:,} classes', {k: side(k, quick, c=c) for k in ('linear', name)}, ref='linear', bar=bar
            )
        yield Case(
            f'{c:,} classes',
            {k: side(k, quick, c=c) for k in ('pytorch-metric-learning', 'ArcFace')},
            ref='pytorch-metric-learning',
            bar=0.4 if c == CLASSES[-1] else None,
        )


@bench('heads')
def memory(quick):
    "The same with 100,000 classes: most memory over what the imports took."
    yield Case(
        'memory, 100,000 classes',
        {k: side(k, quick) for k in ('linear', 'ArcFace', 'CurricularFace')},
        ref='linear',
        bar=1.1,
        memory=True,
        imports=('fastmatch.losses', 'fastmatch.layers.heads'),
    )
