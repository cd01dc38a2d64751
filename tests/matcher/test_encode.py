"Pictures sized as fastai sizes them, embeddings as the model's, whatever the batches."
import numpy as np
import pytest
import torch
from fastai.vision.augment import PadMode, Resize, ResizeMethod
from fastai.vision.core import PILImage
from PIL import Image

from fastmatch.core import InputError
from fastmatch.match.embeddings import check_made_alike
from fastmatch.matcher import Encoder, Picture
from fastmatch.models import ImageEncoder, MatchNet

METHODS = {'squish': ResizeMethod.Squish, 'crop': ResizeMethod.Crop, 'pad': ResizeMethod.Pad}
PADS = {'constant': PadMode.Zeros, 'edge': PadMode.Border, 'reflect': PadMode.Reflection}
WAYS = [('squish', 'reflect'), ('crop', 'reflect'), ('pad', 'constant'), ('pad', 'edge'), ('pad', 'reflect')]


def noise(seed, *shape): return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize('method, padding', WAYS)
@pytest.mark.parametrize('shape', [(64, 64), (50, 70), (71, 33), (7, 9), (300, 201)])
@pytest.mark.parametrize('size', [(32, 32), (24, 48)])
def test_resize_is_fastais(method, padding, shape, size):
    image = Image.fromarray(noise(0, *shape))
    width, height = size
    wanted = Resize((height, width), METHODS[method], PADS[padding])(PILImage.create(image), split_idx=1)
    np.testing.assert_array_equal(Picture(size, method, padding)(image), np.asarray(wanted))


def test_unknown_method():
    with pytest.raises(InputError, match='stretch'): Picture((8, 8), 'stretch')


@pytest.fixture(scope='module')
def encoder():
    torch.manual_seed(0)
    picture = Picture((32, 32), 'squish', mean=[.5] * 3, std=[.5] * 3)
    return Encoder(MatchNet(None, ImageEncoder('test_efficientnet', pretrained=False)), picture)


def test_embeddings_are_the_models(encoder):
    images = [Image.fromarray(noise(seed, 40, 32)) for seed in range(7)]
    vectors, unreadable, hashes = encoder.embed(images, bs=3)
    resized = [torch.tensor(np.asarray(image.resize((32, 32), Image.BILINEAR)).copy()) for image in images]
    batch = torch.stack(resized).permute(0, 3, 1, 2) / 255
    with torch.no_grad(): wanted = encoder.model((batch - .5) / .5)['image']
    np.testing.assert_allclose(vectors['image'], wanted, atol=1e-5)
    assert not unreadable and hashes is None
    np.testing.assert_allclose(encoder.embed(images, bs=64)[0]['image'], vectors['image'], atol=1e-6)
    with pytest.raises(InputError, match='bs=0'): encoder.embed(images, bs=0)


def test_what_cant_be_read_is_named(encoder, tmp_path):
    image = Image.new('RGB', (20, 20), 'red')
    (tmp_path/'text.png').write_text('not a picture')
    files = [image, tmp_path/'text.png', None, tmp_path/'none.png', np.zeros((9, 9, 3), np.uint8)]
    vectors, unreadable, hashes = encoder.embed(files, hashes=True, bs=2)
    assert unreadable == {1: 'not an image that PIL can read', 2: 'no file name', 3: 'no such file'}
    assert np.isfinite(vectors['image']).all(1).tolist() == [True, False, False, False, True]
    assert hashes[0] == '8000000000000000' and hashes[1] is None
    vectors, unreadable, _ = encoder.embed(files, bs=2, stop=True)
    assert list(unreadable) == [1, 2, 3] and np.isnan(vectors['image'][4]).all()


def test_tta_is_the_mean_with_the_mirror_image(encoder):
    batch = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    plain, mirrored = encoder.model(batch)['image'], encoder.model(batch.flip(-1))['image']
    wanted = torch.nn.functional.normalize(plain + mirrored)
    torch.testing.assert_close(encoder.model.embed(batch, tta=True)['image'], wanted, atol=1e-5, rtol=1e-4)
    assert (wanted - plain).abs().max() > 1e-3


def test_parts_must_fit_the_model():
    model = MatchNet(None, ImageEncoder('test_efficientnet', pretrained=False))
    with pytest.raises(InputError, match='picture'): Encoder(model)
    with pytest.raises(InputError, match='tokenizer'): Encoder(model, Picture((8, 8)), tokenizer=object())


# --- what embeddings were made with

def test_settings_are_plain_values(encoder):
    assert encoder.made_with == {'tta': False, 'size': [32, 32]}


@pytest.mark.parametrize('made_with, settings', [
    (None, {'tta': True}), ({'tta': True}, None), ({'tta': True}, {'tta': True, 'size': [8, 8]}),
    ({'size': (8, 8)}, {'size': [8, 8]}), ({'by': 'hand'}, {'tta': True}), (None, None)])
def test_settings_that_agree_as_far_as_they_are_known(made_with, settings):
    check_made_alike(made_with, settings, 'embeddings')


@pytest.mark.parametrize('made_with, settings, message', [
    ({'tta': True}, {'tta': False}, 'rule made with tta=True, but here tta=False'),
    ({'tta': True, 'size': (8, 9)}, {'tta': True, 'size': [9, 8]}, r'size=\[8, 9\], but here size=\[9, 8\]')])
def test_settings_that_differ_are_named(made_with, settings, message):
    with pytest.raises(InputError, match=message): check_made_alike(made_with, settings, 'rule')
