"What a head of many class centres costs beside a plain linear layer and cross-entropy."
import math

import torch
import torch.nn.functional as F
from torch import nn

from fastmatch.layers.heads import CosineHead, SampledHead, TrackedHead
from fastmatch.losses import ArcFace, CurricularFace
from tests.bench.harness import DEVICE, Case, bench

MARGIN, SCALE = .5, 30.
CLASSES = 11_014, 100_000  # Shopee's training groups, and many


class OneHot(nn.Module):
    "The common form: normalised centres, the margin worked out for every class, picked by a one-hot matrix."
    def __init__(self, width, classes):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, width) * .01)

    def forward(self, embeddings, targets, margin=MARGIN, scale=SCALE):
        cosines = F.linear(F.normalize(embeddings), F.normalize(self.weight)).clamp(-1 + 1e-6, 1 - 1e-6)
        one_hot = F.one_hot(targets, len(self.weight)).float()
        logits = one_hot * (cosines.acos() + margin).cos() + (1 - one_hot) * cosines
        return F.cross_entropy(scale * logits, targets)


def sides(
    rows: int = 64,  # Rows a batch
    width: int = 512,  # Width of the embedding
    classes: int = 100_000,  # Classes
    share: float = .1,  # Of the centres that the sampled head looks at
    device: str = DEVICE,
    # Which to build
    names=('linear', 'ArcFace', 'CurricularFace', 'sampled', 'one-hot', 'pytorch-metric-learning'),
) -> dict:
    "Name -> callable that runs forward and backward once and leaves no gradient."
    torch.manual_seed(0)
    embeddings = torch.randn(rows, width, device=device, requires_grad=True)
    targets = torch.randint(classes, (rows,), device=device)

    def linear():
        layer = nn.Linear(width, classes, bias=False)
        return layer, lambda: F.cross_entropy(layer(embeddings), targets)

    def ours(head, loss):
        head.labels = targets
        return head, lambda: loss(head(embeddings), targets)

    def one_hot():
        head = OneHot(width, classes)
        return head, lambda: head(embeddings, targets)

    def theirs():
        from pytorch_metric_learning.losses import ArcFaceLoss
        loss = ArcFaceLoss(classes, width, margin=math.degrees(MARGIN), scale=SCALE)
        return loss, lambda: loss(embeddings, targets)

    def once(layer, forward):
        def run():
            forward().backward()
            embeddings.grad = None
            layer.zero_grad()
        layer.to(device)
        return run

    made = {
        'linear': linear,
        'ArcFace': lambda: ours(CosineHead(width, classes), ArcFace(MARGIN, SCALE)),
        'CurricularFace': lambda: ours(TrackedHead(width, classes), CurricularFace(MARGIN, SCALE)),
        'sampled': lambda: ours(SampledHead(width, classes, share=share), ArcFace(MARGIN, SCALE)),
        'one-hot': one_hot,
        'pytorch-metric-learning': theirs,
    }
    return {name: once(*made[name]()) for name in names}


def side(name, quick, **sizes):
    if quick: sizes = {'rows': 8, 'width': 16, **sizes, 'classes': 500}
    return lambda: sides(names=(name,), **sizes)[name]


@bench('heads')
def seconds(quick):
    "Forward and backward of a head (512-d, batch 64) against a plain linear layer and cross-entropy."
    for classes in CLASSES:
        for head, bar in (
            ('ArcFace', 1.1),
            ('CurricularFace', 1.1),
            ('sampled', 0.3 if classes == CLASSES[-1] else None),
            ('pytorch-metric-learning', None),
            ('one-hot', None),
        ):
            yield Case(
                f'{classes:,} classes',
                {name: side(name, quick, classes=classes) for name in ('linear', head)},
                reference='linear',
                bar=bar,
            )
        yield Case(
            f'{classes:,} classes',
            {name: side(name, quick, classes=classes) for name in ('pytorch-metric-learning', 'ArcFace')},
            reference='pytorch-metric-learning',
            bar=0.4 if classes == CLASSES[-1] else None,
        )


@bench('heads')
def memory(quick):
    "The same with 100,000 classes: most memory over what the imports took."
    yield Case(
        'memory, 100,000 classes',
        {name: side(name, quick) for name in ('linear', 'ArcFace', 'CurricularFace')},
        reference='linear',
        bar=1.1,
        memory=True,
        imports=('fastmatch.losses', 'fastmatch.layers.heads'),
    )
