"Matchers that read pictures from a store: the same embeddings, hashes and reasons, nothing decoded twice."
import io

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.augment import Resize
from PIL import Image
from typer.testing import CliRunner

from fastmatch.cli import app
from fastmatch.core import seed_everything
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.image import phash, read_image
from fastmatch.data.picture_store import PictureStore
from fastmatch.learner import match_learner
from fastmatch.match import Rule
from fastmatch.matcher import Encoder, Matcher, Picture, SeveralEncoders, load_matcher
from fastmatch.matcher import read_picture as module
from fastmatch.models import ImageEncoder, MatchNet
from tests.data.made import noise


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    "Twelve pictures of several shapes and modes, then files that are none, and one in memory."
    folder = tmp_path_factory.mktemp('pictures')
    for number in range(12):
        made = noise(20 + 7 * number, 90 - 5 * number, number)
        if number % 3 == 0: made.putalpha(Image.fromarray(np.asarray(made)[..., 0]))
        made.save(folder/f'{number}.png') if number % 2 else made.convert('RGB').save(folder/f'{number}.jpg')
    paths = sorted(folder.iterdir())
    (folder/'text.png').write_text('not a picture')
    (folder/'empty.png').write_bytes(b'')
    return [*paths, folder/'text.png', folder/'empty.png', folder/'none.png', None,
            Image.new('RGB', (9, 9), 'red')]


def encoder(picture):
    pytest.importorskip('timm')
    torch.manual_seed(0)
    return Encoder(MatchNet(None, ImageEncoder('test_efficientnet', pretrained=False), neck=False), picture)


@pytest.fixture
def decoded(monkeypatch):
    "The files that are decoded from here on, and how many contents."
    seen, try_image = [], module.try_image

    def noted(file):
        kinds = {io.BytesIO: 'content', np.ndarray: 'array', Image.Image: 'image'}
        seen.append(kinds.get(type(file), file))
        return try_image(file)
    monkeypatch.setattr(module, 'try_image', noted)
    return seen


@pytest.mark.parametrize('picture', [Picture((32, 40)), Picture((32, 32), 'squish'),
                                     Picture((24, 24), 'pad', 'edge')], ids=lambda picture: picture.method)
@pytest.mark.parametrize('hashes', [False, True])
def test_the_second_run_decodes_nothing(files, picture, hashes, tmp_path, decoded):
    plain = encoder(picture)
    expected = plain.embed(files, hashes=hashes)
    stored = encoder(picture)
    stored.picture_store = PictureStore(tmp_path)
    decoded.clear()
    first = stored.embed(files, hashes=hashes)
    # each picture once, whatever is made of it; files that are none are told by reading them as ever
    assert decoded.count('content') == 12 + 2 and len(stored.picture_store) == 12 * (1 + hashes)
    for again in (first, stored.embed(files, hashes=hashes)):
        np.testing.assert_array_equal(again[0]['image'], expected[0]['image'])
        assert again[1] == expected[1] and len(expected[1]) == 4
        if hashes: assert again[2].tolist() == expected[2].tolist()
    decoded.clear()
    good, _, _ = encoder_of_store(picture, tmp_path).embed(files[:12], hashes=hashes)
    assert decoded == []
    np.testing.assert_array_equal(good['image'], expected[0]['image'][:12])


def encoder_of_store(picture, folder):
    "As in another process."
    made = encoder(picture)
    made.picture_store = PictureStore(folder)
    return made


def test_a_hash_of_what_is_stored_is_that_of_the_picture(files, tmp_path):
    for file in files[:12]:
        found = module.read_picture(file, [], True, PictureStore(tmp_path))
        assert found.phash == phash(read_image(file))


def test_several_encoders_share_a_store(files, tmp_path, decoded):
    pictures = Picture((32, 32), 'squish'), Picture((24, 40)), Picture((32, 32), 'squish')
    several = SeveralEncoders([encoder(picture) for picture in pictures])
    expected = several.embed(files[:14], hashes=True)
    several.picture_store = PictureStore(tmp_path)
    several.embed(files[:12], hashes=True)
    assert len(several.picture_store) == 12 * 3
    decoded.clear()
    found = several.embed(files[:14], hashes=True)
    assert decoded.count('content') == 2  # the two that are no pictures
    np.testing.assert_array_equal(found[0]['image'], expected[0]['image'])
    assert found[1] == expected[1] and found[2].tolist() == expected[2].tolist()


@pytest.fixture
def table(files):
    return pd.DataFrame({'posting_id': [f'l{row}' for row in range(12)],
                         'image': [file.name for file in files[:12]],
                         'label_group': [row // 2 for row in range(12)],
                         'fold': [row // 6 for row in range(12)]})


def test_a_matcher_reads_what_training_stored(files, table, tmp_path, decoded):
    "Validation, the Learner's own matcher, one that is loaded, and the command line: one store for all."
    folder, store = files[0].parent, tmp_path/'store'
    seed_everything(0)
    dls = MatchDataLoaders.from_df(table, folder, title_col=None, fold_col='fold', bs=4, num_workers=0,
                                   phash=False, item_tfms=Resize(32, 'squish'), store=store)
    learner = match_learner(dls, 'test_efficientnet', pretrained=False)
    embeddings = learner.embeddings(table)
    decoded.clear()
    made = learner.matcher(table, Rule('mean', {'image': 1.}, .9))
    assert decoded == []
    np.testing.assert_allclose(made.spaces['image'].vectors, embeddings['image'], atol=1e-5)
    made.save(tmp_path/'matcher')
    loaded = load_matcher(tmp_path/'matcher', 'cpu', picture_store=store)
    with_store = loaded.match(table, folder, catalogue=False)
    assert decoded == []
    without = load_matcher(tmp_path/'matcher', 'cpu').match(table, folder, catalogue=False)
    assert len(decoded) == 12
    pd.testing.assert_frame_equal(with_store.to_frame(), without.to_frame())
    table.to_csv(tmp_path/'new.csv', index=False)
    call = ['match', str(tmp_path/'matcher'), str(tmp_path/'new.csv'), '--images', str(folder),
            '--picture-store', str(tmp_path/'own')]
    for options in ([], ['--rows', '5']):
        decoded.clear()
        out = tmp_path/f'out{len(options)}.csv'
        called = CliRunner().invoke(app, [*call, '-o', str(out), *options], catch_exceptions=False)
        assert called.exit_code == 0, called.output
        # the second call finds what the first one stored
        assert len(decoded) == (0 if options else 12) and len(pd.read_csv(out)) == 12


def test_a_matcher_without_an_encoder_needs_no_store(tmp_path):
    from fastmatch.match import Embeddings
    vectors = np.eye(4, dtype=np.float32)
    Matcher(Rule('mean', {'image': 1.}, .9),
            Embeddings({'image': vectors}, list('abcd'))).save(tmp_path/'matcher')
    load_matcher(tmp_path/'matcher', picture_store=tmp_path/'store')
