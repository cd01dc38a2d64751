"Encoders that torch compiles, and pictures whose channels lie last: the same numbers as without."
import copy
import os
import pickle
import subprocess
import sys
from shutil import which

import pytest
import torch
from fastai.vision.core import TensorImage
from torch import nn

from fastmatch.core import InputError
from fastmatch.learner import match_learner
from fastmatch.models import ImageEncoder, MatchNet
from fastmatch.models.compiling import compile_encoder, is_compiled, set_channels_last
from tests.learner.small import make

needs_compiler = pytest.mark.skipif(not (which('g++') or which('clang++')), reason='no C++ compiler')


class Small(nn.Module):
    "So little of an encoder that it compiles in seconds."
    n_out = 4
    mean = std = [.5, .5, .5]

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 5, stride=3)

    def forward(self, images): return self.conv(images).relu().mean((2, 3))


@pytest.mark.slow
@needs_compiler
def test_a_compiled_encoder_trains_as_the_plain_one():
    torch.manual_seed(0)
    model = MatchNet(None, Small(), neck=False).train()
    encoder = model.encoders['image']
    reference = copy.deepcopy(model)
    compile_encoder(encoder, any_length=False)
    assert is_compiled(encoder) and not is_compiled(reference.encoders['image'])
    # fastai's own class of tensors, which torch can not compile
    images = TensorImage(torch.rand(5, 3, 17, 17))
    for net in (model, reference):
        output = net.features(images)['image']
        (output**2 * torch.arange(1, 5)).sum().backward()
    torch.testing.assert_close(model.features(images), reference.features(images), rtol=1e-5, atol=1e-6)
    for own, expected in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(own.grad, expected.grad, rtol=1e-5, atol=1e-6)
    # what is saved and copied knows nothing of it
    assert list(model.state_dict()) == list(reference.state_dict())
    assert not is_compiled(pickle.loads(pickle.dumps(encoder))) and not is_compiled(copy.deepcopy(encoder))


WITHOUT_COMPILER = """
from fastmatch.core import InputError
from fastmatch.models.compiling import check_compiler
try: check_compiler('cpu')
except InputError as error: print(error)
"""


@pytest.mark.slow
def test_without_a_compiler_it_is_told(tmp_path):
    bare = {**os.environ, 'PATH': str(tmp_path), 'CXX': 'no-such-compiler', 'CC': 'no-such-compiler',
            'TORCHINDUCTOR_CACHE_DIR': str(tmp_path/'cache'), 'TORCHINDUCTOR_COMPILE_THREADS': '1'}
    finished = subprocess.run([sys.executable, '-c', WITHOUT_COMPILER], env=bare, capture_output=True,
                              text=True)
    expected = 'compile=True: torch can compile nothing here, for which it needs a C++ compiler (g++) ('
    assert finished.stdout.startswith(expected), finished.stdout + finished.stderr[-2000:]


def layouts(encoder):
    "Whether each kernel of more than one pixel lies with its channels last."
    return {weight.is_contiguous(memory_format=torch.channels_last) for weight in encoder.parameters()
            if weight.ndim == 4 and min(weight.shape[1:]) > 1}


def test_the_layout_changes_no_features():
    pytest.importorskip('timm')
    torch.manual_seed(0)
    encoder = ImageEncoder('test_efficientnet', pretrained=False).eval()
    images = torch.rand(3, 3, 32, 32)
    assert layouts(encoder) == {True}
    expected = encoder(images)
    set_channels_last(encoder, False)
    assert layouts(encoder) == {False}
    torch.testing.assert_close(encoder(images), expected, rtol=1e-4, atol=1e-5)
    small = Small()
    expected = small(images)
    assert layouts(small) == {False}
    set_channels_last(small, True)
    assert layouts(small) == {True}
    torch.testing.assert_close(small(images), expected, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope='module')
def listings():
    import pandas as pd

    from fastmatch.data.demo import demo_path
    return pd.read_csv(demo_path()/'listings.csv').head(60).assign(fold=lambda df: df.index % 2)


@needs_compiler
def test_a_learner_takes_both_by_an_argument(listings, monkeypatch):
    from fastmatch.learner import base
    checked = []
    monkeypatch.setattr(base, 'check_compiler', checked.append)
    learner = make(listings, channels_last=False, compile={'image': True})
    assert checked == ['cpu'] and is_compiled(learner.model.encoders['image'])
    assert layouts(learner.model.encoders['image']) == {False}
    # an encoder for others runs as it is written
    assert not is_compiled(learner.encoder().model.encoders['image'])
    plain = make(listings)
    encoder = plain.model.encoders['image']
    assert layouts(encoder) == {True} and not is_compiled(encoder)
    with pytest.raises(InputError, match='compile names .*words'):
        match_learner(plain.dls, compile={'words': True})
