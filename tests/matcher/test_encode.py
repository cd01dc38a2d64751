"Pictures sized as fastai sizes them, embeddings as the Learner's."
import numpy as np
import pytest
import torch
from fastai.vision.augment import PadMode, Resize, ResizeMethod
from fastai.vision.core import PILImage
from PIL import Image

from fastmatch.core import InputError
from fastmatch.matcher import Encoder, Picture
from fastmatch.models import ImageEncoder, MatchNet

METHODS = {'squish': ResizeMethod.Squish, 'crop': ResizeMethod.Crop, 'pad': ResizeMethod.Pad}
PADS = {'constant': PadMode.Zeros, 'edge': PadMode.Border, 'reflect': PadMode.Reflection}


@pytest.mark.parametrize('method, pad', [('squish', 'reflect'), ('crop', 'reflect'), ('pad', 'constant'), ('pad', 'edge'), ('pad', 'reflect')])
@pytest.mark.parametrize('shape', [(64, 64), (50, 70), (71, 33), (7, 9), (300, 201)])
@pytest.mark.parametrize('size', [(32, 32), (24, 48)])
def test_resize_is_fastais(method, pad, shape, size):
    im = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    w, h = size
    want = Resize((h, w), METHODS[method], PADS[pad])(PILImage.create(im), split_idx=1)
    np.testing.assert_array_equal(Picture(size, method, pad)(im), np.asarray(want))


def test_unknown_method():
    with pytest.raises(InputError, match='stretch'): Picture((8, 8), 'stretch')


@pytest.fixture(scope='module')
def encoder():
    torch.manual_seed(0)
    return Encoder(MatchNet(None, ImageEncoder('test_efficientnet', pretrained=False)), Picture((32, 32), 'squish', mean=[.5] * 3, std=[.5] * 3))


def test_embeddings_are_the_models(encoder):
    ims = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 32, 3), dtype=np.uint8)) for i in range(7)]
    out, bad, keys = encoder.embed(ims, bs=3)
    x = torch.stack([torch.tensor(np.asarray(im.resize((32, 32), Image.BILINEAR)).copy()) for im in ims]).permute(0, 3, 1, 2) / 255
    with torch.no_grad(): want = encoder.model((x - .5) / .5)['image']
    np.testing.assert_allclose(out['image'], want, atol=1e-5)
    assert not bad and keys is None
    np.testing.assert_allclose(encoder.embed(ims, bs=64)[0]['image'], out['image'], atol=1e-6)


def test_what_cant_be_read_is_named(encoder, tmp_path):
    im = Image.new('RGB', (20, 20), 'red')
    (tmp_path/'text.png').write_text('not a picture')
    files = [im, tmp_path/'text.png', None, tmp_path/'none.png', np.zeros((9, 9, 3), np.uint8)]
    out, bad, keys = encoder.embed(files, hashes=True, bs=2)
    assert bad == {1: 'not an image that PIL can read', 2: 'no file name', 3: 'no such file'}
    assert np.isfinite(out['image']).all(1).tolist() == [True, False, False, False, True]
    assert keys[0] == '8000000000000000' and keys[1] is None
    out, bad, _ = encoder.embed(files, bs=2, stop=True)
    assert list(bad) == [1, 2, 3] and np.isnan(out['image'][4]).all()


def test_tta_is_the_mean_with_the_mirror_image(encoder):
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    a, b = encoder.model(x)['image'], encoder.model(x.flip(-1))['image']
    want = torch.nn.functional.normalize(a + b)
    torch.testing.assert_close(encoder.model.embed(x, tta=True)['image'], want, atol=1e-5, rtol=1e-4)
    assert (want - a).abs().max() > 1e-3


def test_parts_must_fit_the_model():
    model = MatchNet(None, ImageEncoder('test_efficientnet', pretrained=False))
    with pytest.raises(InputError, match='picture'): Encoder(model)
    with pytest.raises(InputError, match='tokenizer'): Encoder(model, Picture((8, 8)), tokenizer=object())
