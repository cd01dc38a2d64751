"""Frozen features from a folder are those of the encoder itself, whatever was renamed, changed, killed or
written by another process meanwhile."""
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastmatch.core import InputError
from fastmatch.data.image import read_image
from fastmatch.matcher import Picture
from fastmatch.models import FrameFeatures, ImageEncoder
from fastmatch.models import frozen as module
from tests.models.frozen_job import Patches

REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture
def files(tmp_path):
    "Ten pictures of several sizes, modes and formats."
    random = np.random.default_rng(0)
    folder = tmp_path/'pictures'
    folder.mkdir()
    paths = []
    for number in range(10):
        height, width = random.integers(20, 70, 2)
        pixels = random.integers(0, 256, (height, width, 4 if number % 3 == 0 else 3), np.uint8)
        paths.append(str(folder/f'{number}.{"jpg" if number % 3 == 1 else "png"}'))
        Image.fromarray(pixels).save(paths[-1])
    return paths


def uncached(encoder, files, size, method='crop', mirror=False):
    "Features of each file by itself, as a matcher resizes and normalizes pictures."
    picture = Picture(size, method, mean=encoder.mean, std=encoder.std)
    rows = []
    for file in files:
        images = picture.normalize(torch.tensor(picture(read_image(file)))[None])
        with torch.no_grad(): features = encoder.eval()(images)
        if mirror:
            with torch.no_grad(): features = (features + encoder(images.flip(3))) / 2
        rows.append(features[0].numpy())
    return np.stack(rows)


def of(folder, encoder=None, size=16, **options):
    return FrameFeatures(encoder or Patches(), size, folder, device='cpu', **options)


def n_encoded(features, call, *arguments):
    "How many batches a call has the encoder work on."
    before = features.encoder.n_batches
    call(*arguments)
    return features.encoder.n_batches - before


@pytest.mark.parametrize('method', ['squish', 'crop', 'pad'])
@pytest.mark.parametrize('mirror', [False, True])
def test_features_are_the_encoders(files, tmp_path, method, mirror):
    expected = uncached(Patches(), files, (20, 12), method, mirror)
    assert np.abs(expected).max() > 1
    for _ in range(2):
        for folder in (None, tmp_path/'features'):
            features = of(folder, size=(20, 12), method=method, mirror=mirror, bs=3)
            vectors = features(files)
            np.testing.assert_allclose(vectors, expected, atol=1e-5, rtol=1e-5)
            assert vectors.dtype == np.float32 and vectors.flags.c_contiguous and len(features) == len(files)
    assert np.abs(expected - uncached(Patches(), files, (20, 12), 'crop' if method != 'crop' else 'squish',
                                      mirror)).max() > .01


def test_a_timm_model_by_its_name(files, tmp_path):
    torch.manual_seed(0)
    features = of(tmp_path/'features', 'test_efficientnet', 32, pretrained=False, pool='max')
    torch.manual_seed(0)
    encoder = ImageEncoder('test_efficientnet', pretrained=False, pool='max')
    np.testing.assert_allclose(features(files), uncached(encoder, files, (32, 32)), atol=1e-5)
    assert features.n_out == encoder.n_out
    # the weights decide, not whether a name or a module was given
    assert of(None, encoder, 32).fingerprint == features.fingerprint
    assert encoder.body.conv_stem.weight.requires_grad and features.encoder is not encoder
    assert not any(parameter.requires_grad for parameter in features.encoder.parameters())


def test_each_content_is_encoded_once(files, tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'CHUNK', 4)
    copied = shutil.copy(files[0], tmp_path/'copy.png')
    features = of(tmp_path/'features', bs=4)
    assert features.warm([*files, copied, files[2]]) == len(files) == len(features)
    again = of(tmp_path/'features', bs=4)
    expected = features(files)
    assert n_encoded(again, again.warm, files) == 0 and again.warm(files) == 0
    np.testing.assert_array_equal(again(files), expected)
    np.testing.assert_array_equal(again([copied, files[0]]), expected[[0, 0]])
    np.testing.assert_array_equal(again.of(Path(files[3])), expected[3])
    assert again([]).shape == (0, 5)
    # from memory alone: no file is opened, and what is handed out can be written to
    monkeypatch.setattr(module, '_read', None)
    again.of(files[3])[:] = 0
    np.testing.assert_array_equal(again(files), expected)


def test_a_renamed_file_is_known_and_a_changed_one_is_not(files, tmp_path):
    features = of(tmp_path/'features')
    expected = features(files)
    os.rename(files[0], tmp_path/'other name')
    shutil.copy(files[1], files[2])
    Image.fromarray(np.full((30, 30, 3), 200, np.uint8)).save(files[3])
    for each in (features, of(tmp_path/'features')):
        np.testing.assert_array_equal(each.of(tmp_path/'other name'), expected[0])
        np.testing.assert_array_equal(each.of(files[2]), expected[1])
        changed = uncached(Patches(), files[3:4], (16, 16))
        np.testing.assert_allclose(each(files[3:4]), changed, atol=1e-5, rtol=1e-5)
        assert np.abs(changed - expected[3]).max() > .01


def test_what_was_made_otherwise_is_never_mixed_up(files, tmp_path):
    folder = tmp_path/'features'
    made = [of(folder), of(folder, size=17), of(folder, size=(16, 17)), of(folder, method='pad'),
            of(folder, mirror=True), of(folder, dtype='float16'), of(folder, Patches(seed=1)),
            of(folder, Patches(4))]
    other_mean = Patches()
    other_mean.mean = [.4, .5, .5]
    made.append(of(folder, other_mean))
    for features in made:
        assert len(features) == 0
        expected = uncached(features.encoder, files, features.size, features.method, features.mirror)
        tolerance = 5e-3 if features.dtype == 'float16' else 1e-5
        np.testing.assert_allclose(features(files), expected, atol=tolerance, rtol=tolerance)
    assert len({features.fingerprint for features in made}) == len(made) == len(list(folder.glob('*.sqlite')))


def test_half_precision_gives_the_same_each_time(files, tmp_path):
    first, second = (of(tmp_path/'features', dtype='float16')(files) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, of(None, dtype='float16')(files))
    np.testing.assert_array_equal(first, uncached(Patches(), files, (16, 16)).astype(np.float16))
    assert first.dtype == np.float32


def test_what_can_not_be_read_is_named_and_all_else_is_kept(files, tmp_path):
    (tmp_path/'broken.png').write_bytes(b'no picture')
    (tmp_path/'broken too.png').write_bytes(b'no picture')
    (tmp_path/'empty.jpg').touch()
    wrong = [str(tmp_path/name) for name in ('broken.png', 'gone.png', 'empty.jpg', 'broken too.png')]
    features = of(tmp_path/'features')
    with pytest.raises(InputError, match='broken.png: not an image.*gone.png: no such file.*empty.jpg: empty'
                                         '.*and 1 more'):
        features([*files[:5], *wrong, *files[5:]])
    assert len(features) == len(files) and n_encoded(features, features, files) == 0
    for file in wrong:
        with pytest.raises(InputError, match=Path(file).name): features.of(file)
    with pytest.raises(InputError, match='pictures: a folder, not a file'): features([Path(files[0]).parent])


def test_features_that_are_no_numbers_are_not_kept(files, tmp_path):
    class Large(Patches):
        def forward(self, images): return super().forward(images) + 1e5 * (images.mean() < -1.5)

    Image.new('RGB', (30, 30), 'black').save(files[3])
    features = of(tmp_path/'features', Large(), dtype='float16', bs=1)
    with pytest.raises(InputError, match='3.png: its features are not finite numbers of float16'):
        features(files)
    assert len(features) == len(files) - 1


def test_the_same_weights_that_compute_otherwise_are_refused(files, tmp_path):
    class Scaled(Patches):
        scale = 1.
        def forward(self, images): return super().forward(images) * self.scale

    of(tmp_path/'features', Scaled())(files)
    Scaled.scale = 1.001
    assert len(of(tmp_path/'features', Scaled())) == len(files)
    Scaled.scale = 1.1
    with pytest.raises(InputError, match='sqlite: holds what these weights made.*another folder'):
        of(tmp_path/'features', Scaled())


def job(folder, n_batches, files):
    command = [sys.executable, '-W', 'ignore', '-m', 'tests.models.frozen_job', str(folder), str(n_batches)]
    return subprocess.Popen([*command, *files], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)


def test_a_killed_process_is_gone_on_with(files, tmp_path, monkeypatch):
    killed = job(tmp_path/'features', 2, files)
    killed.communicate()
    assert killed.returncode == 9
    monkeypatch.setattr(module, 'CHUNK', 4)
    features = of(tmp_path/'features', bs=4)
    # two batches of four had been written
    assert len(features) == 8 and features.warm(files) == 2
    np.testing.assert_allclose(features(files), uncached(Patches(), files, (16, 16)), atol=1e-5, rtol=1e-5)


def test_two_processes_at_once(files, tmp_path):
    # each starts at another end, so that both write what the other one lacks
    jobs = [job(tmp_path/'features', 0, files), job(tmp_path/'features', 0, files[::-1])]
    for each in jobs: assert each.communicate()[1] == '' and each.returncode == 0
    features = of(tmp_path/'features')
    assert len(features) == len(files) and features.warm(files) == 0
    np.testing.assert_allclose(features(files), uncached(Patches(), files, (16, 16)), atol=1e-5, rtol=1e-5)


def test_a_worker_process_has_them_in_memory(files, tmp_path):
    features = of(tmp_path/'features')
    expected = features(files)
    sent = pickle.loads(pickle.dumps(features))
    assert n_encoded(sent, sent, files) == 0
    np.testing.assert_array_equal(sent(files), expected)


@pytest.mark.parametrize('options, words', [
    (dict(size=0), 'size=0'), (dict(size=(8, 8, 8)), 'size='), (dict(size='8'), "size='8'"),
    (dict(method='fit'), "method='fit'"), (dict(dtype='int8'), "dtype='int8'"), (dict(bs=0), 'bs=0'),
    (dict(device='tpu?'), "device='tpu\\?'")])
def test_options_that_cannot_be(options, words):
    with pytest.raises(InputError, match=words): FrameFeatures(Patches(), **{'device': 'cpu', **options})


def test_paths_that_are_none(files):
    features = of(None)
    with pytest.raises(InputError, match='give a list of files'): features(files[0])
    with pytest.raises(InputError, match=r'paths\[1\]=nan: no file name'): features([files[0], float('nan')])
