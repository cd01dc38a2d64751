"What heads of parts cost beside one head of the whole picture, and a crop beside the whole picture alone."
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from fastmatch.core import seed_everything
from fastmatch.data.demo import demo_path
from fastmatch.losses import ArcFace
from fastmatch.match import Rule
from fastmatch.matcher import CropEncoder, Encoder, Matcher, Picture, SeveralEncoders
from fastmatch.matcher.segment import Segmenter
from fastmatch.models import ImageEncoder, MatchNet, Parts
from fastmatch.models.parts import make_part_encoder
from fastmatch.models.segment import SegmentNet
from tests.bench.harness import DEVICE, Case, bench
from tests.composites import write_composites

CLASSES, SIZE, MASK_SIZE, COMPOSITE_PX = 1_000, (96, 96), (64, 64), 256


def step(parts, quick):
    "A factory of one training step of a model with these parts, forward and backward."
    def make():
        seed_everything(0)
        name = 'test_efficientnet' if quick else 'tf_efficientnet_lite0'
        encoder = make_part_encoder(name, parts, pretrained=False, img_size=SIZE)
        model = MatchNet(CLASSES, encoder).to(DEVICE).train()
        rng = np.random.default_rng(0)
        rows = 4 if quick else 16
        pictures = torch.from_numpy(rng.normal(size=(rows, 3, *SIZE)).astype(np.float32)).to(DEVICE)
        targets = torch.from_numpy(rng.integers(0, CLASSES, rows)).to(DEVICE)
        loss = ArcFace(m=.3, s=20)

        def run():
            loss(model(pictures), targets).backward()
            model.zero_grad()
        return run
    return make


@bench('parts')
def training_step(quick):
    """A training step of PCB (six stripes, a head each) against that of one head, both of the same encoder
    with the same resolution of its last stage; EfficientNet-Lite0, 96 px, 16 pictures, 1,000 groups."""
    yield Case('training step', {'whole': step(Parts((1,)), quick), 'PCB': step('pcb', quick)},
               reference='whole', bar=1.1)


def whole_encoder(quick):
    "An untrained encoder of whole pictures."
    image = ImageEncoder('test_efficientnet' if quick else 'tf_efficientnet_lite0', pretrained=False)
    picture = Picture(SIZE, 'squish', mean=image.mean, std=image.std)
    return Encoder(MatchNet(None, image).eval(), picture)


def matched(encoder, rule, folder, table):
    "A call that embeds and matches listings against themselves, as a user's does."
    def make():
        matcher, _ = Matcher.from_df(table.head(8), folder, rule, encoder)
        new = table.assign(posting_id=[f'new{number}' for number in range(len(table))])
        return lambda: matcher.match(new, folder)
    return make


@bench('parts')
def crop_and_match(quick):
    """`match` of 200 listings with pictures of 256 px: one encoder of whole pictures, two of them, and one of
    the whole and one of what a U-Net at 64 px crops from it; EfficientNet-Lite0 at 96 px, with decoding."""
    seed_everything(0)
    folder = Path(tempfile.mkdtemp())
    listings = pd.read_csv(demo_path()/'listings.csv').head(16 if quick else 200)
    table = write_composites(listings, demo_path()/'images', folder, COMPOSITE_PX, empty=0)
    first, second = whole_encoder(quick), whole_encoder(quick)
    unet = SegmentNet(encoder='test_resnet' if quick else 'resnet18', pretrained=False)
    cropping = CropEncoder(first, Segmenter(unet, MASK_SIZE), second)
    one, both = Rule('mean', {'image': 1.}, .9), Rule('mean', {'image': .5, 'crop': .5}, .9)
    yield Case('match', {'whole': matched(first, one, folder, table),
                         'two encoders': matched(SeveralEncoders([first, second]), one, folder, table),
                         'whole + crop': matched(cropping, both, folder, table)}, reference='whole')
