"What the heads of parts cost beside one head of the whole picture."
import numpy as np
import torch

from fastmatch.core import seed_everything
from fastmatch.losses import ArcFace
from fastmatch.models import MatchNet, Parts
from fastmatch.models.parts import make_part_encoder
from tests.bench.harness import DEVICE, Case, bench

CLASSES, SIZE = 1_000, (96, 96)


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
