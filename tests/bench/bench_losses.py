"What a head of 100,000 centres costs beside a plain linear layer."
import torch
import torch.nn.functional as F
from torch import nn

from fastmatch.layers import CosineHead, SampledHead
from fastmatch.losses import ArcFace

from .harness import Case, bench


class OneHot(nn.Module):
    "The common form: normalised centres, the margin worked out for every class, picked by a one-hot matrix."
    def __init__(self, d, c):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c, d) * .01)

    def forward(self, x, y, m=.5, s=30.):
        cos = F.linear(F.normalize(x), F.normalize(self.weight)).clamp(-1 + 1e-6, 1 - 1e-6)
        hot = F.one_hot(y, len(self.weight)).float()
        return F.cross_entropy(s * (hot * (cos.acos() + m).cos() + (1 - hot) * cos), y)


def sides(
    n: int = 64,  # Rows a batch
    d: int = 512,  # Width of the embedding
    c: int = 100_000,  # Classes
    share: float = .2,  # Of the centres that the sampled head looks at
    device: str = 'cpu',
    names=('plain', 'full', 'sampled', 'one_hot'),  # Which to build
) -> dict:
    "Name -> callable that runs forward and backward once and leaves no gradient."
    torch.manual_seed(0)
    x, y = torch.randn(n, d, device=device, requires_grad=True), torch.randint(c, (n,), device=device)
    loss = ArcFace(m=.5, s=30.)

    def plain():
        layer = nn.Linear(d, c, bias=False)
        return layer, lambda: F.cross_entropy(layer(x), y)

    def full():
        head = CosineHead(d, c)
        return head, lambda: loss(head(x), y)

    def sampled():
        head = SampledHead(d, c, share=share)
        head.labels = y
        return head, lambda: loss(head(x), y)

    def one_hot():
        head = OneHot(d, c)
        return head, lambda: head(x, y)

    def once(layer, forward):
        def run():
            forward().backward()
            x.grad = None
            layer.zero_grad()
        layer.to(device)
        return run

    return {k: once(*v()) for k, v in dict(plain=plain, full=full, sampled=sampled, one_hot=one_hot).items() if k in names}


@bench('losses')
def heads(quick):
    "A head of 100,000 classes (512-d, batch 64), forward and backward, against a plain linear layer and cross-entropy; its memory against the one-hot form's."
    size = dict(n=8, d=16, c=500) if quick else {}
    side = lambda name: lambda: sides(names=(name,), **size)[name]
    for name, ours, bar in (('all centres', 'full', 1.6), ('a fifth of the centres', 'sampled', .5), ('the common form', 'one_hot', None)):
        yield Case(name, {'linear + cross-entropy': side('plain'), ours: side(ours)}, ref='linear + cross-entropy', bar=bar)
    yield Case('memory', {'one_hot': side('one_hot'), 'full': side('full')}, ref='one_hot', bar=.5, memory=True, imports=('fastmatch.losses', 'fastmatch.layers'))
