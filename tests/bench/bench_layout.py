"""How torch runs an image encoder: channels last in memory against channel by channel, compiled against not.

A side is forward and backward of a batch of 8 pictures of 104 pixels in training. Compiling takes minutes and
is set-up; so it is measured for one encoder, and in quick runs not at all.
"""
import torch

from fastmatch.models.compiling import compile_encoder, set_channels_last
from fastmatch.models.image import ImageEncoder
from tests.bench.harness import DEVICE, Case, bench

ENCODERS = 'tf_efficientnet_lite0', 'resnet18', 'vit_tiny_patch16_224'
SIZE = 104, 104


def step(
    name: str,  # timm's
    channels_last: bool = True,
    compiled: bool = False,
    rows: int = 8,  # Pictures of a batch
):
    "A call that goes forward and back through an encoder with random weights."
    torch.manual_seed(0)
    size = (112, 112) if name.startswith('vit') else SIZE
    encoder = ImageEncoder(name, pretrained=False, img_size=size).to(DEVICE).train()
    set_channels_last(encoder, channels_last)
    if compiled: compile_encoder(encoder, any_length=False)
    images = torch.rand(rows, 3, *size, device=DEVICE)

    def call():
        encoder.zero_grad()
        encoder(images).square().mean().backward()
    return call


@bench('layout')
def channels_last(quick):
    "The same encoder and batch, whose weights and pictures lie in memory in two ways."
    for name in ENCODERS[:1] if quick else ENCODERS:
        yield Case(name, {'channels last': lambda name=name: step(name),
                          'channels first': lambda name=name: step(name, False)},
                   reference='channels first')


@bench('layout')
def compiled(quick):
    "The same encoder and batch, run as it is written and as torch compiles it."
    if quick: return
    name = ENCODERS[1]
    yield Case(f'{name}, compiled', {'compiled': lambda: step(name, compiled=True),
                                     'as written': lambda: step(name)}, reference='as written')
