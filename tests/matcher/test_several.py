"Several encoders as one: cosines are weighted means, pictures are read once, folders come back the same."
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastmatch.core import InputError
from fastmatch.data.image import phash
from fastmatch.layers.pooling import ProjectNeck
from fastmatch.match import Dense, Embeddings, Rule, ensemble
from fastmatch.matcher import Encoder, Matcher, Picture, SeveralEncoders, load_matcher
from fastmatch.matcher.folder import FORMAT, MANIFEST, read_matcher_files, write_matcher_files
from fastmatch.matcher.several import joined_settings, joined_vectors
from fastmatch.models import ImageEncoder, MatchNet, TitleEncoder, load_tokenizer
from fastmatch.store import read_manifest
from tests.matcher.trained import needs_titles

WEIGHTS = [3., 1., 2.]


def image_encoder(seed, size, n_out=None, method='crop', **options):
    torch.manual_seed(seed)
    neck = False if n_out is None else (lambda width: ProjectNeck(width, n_out))
    model = MatchNet(None, ImageEncoder('test_efficientnet', pretrained=False), neck=neck)
    return Encoder(model, Picture(size, method), **options)


def title_encoder(seed, **options):
    torch.manual_seed(seed)
    tokenizer = load_tokenizer('all-MiniLM-L6-v2')
    body = TitleEncoder('all-MiniLM-L6-v2', pretrained=False, pad_id=tokenizer.pad_token_id)
    return Encoder(MatchNet(None, None, body), None, tokenizer, **options)


def three(): return [image_encoder(0, (32, 32)), image_encoder(1, (40, 24), 8, 'pad'),
                     image_encoder(2, (32, 32), 16, tta=True)]


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    "Files of different sizes, one of them not a picture."
    folder, rng = tmp_path_factory.mktemp('pictures'), np.random.default_rng(0)
    files = []
    for number in range(7):
        file = folder/f'{number}.png'
        pixels = rng.integers(0, 256, (30 + 7 * number, 50 - 3 * number, 3), np.uint8)
        Image.fromarray(pixels).save(file)
        files.append(file)
    files[3].write_bytes(b'no picture')
    return files


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.floats(.01, 10), min_size=2, max_size=4))
def test_the_cosine_is_the_weighted_mean_of_cosines(seed, weights):
    rng = np.random.default_rng(seed)
    vectors = [{'image': rng.normal(size=(5, rng.integers(2, 7))) * rng.uniform(.1, 50)} for _ in weights]
    joined = joined_vectors(vectors, weights)['image'].astype(np.float64)
    wanted = np.zeros((5, 5))
    for weight, of_encoder in zip(weights, vectors):
        for row in range(5):
            for other in range(5):
                a, b = of_encoder['image'][row], of_encoder['image'][other]
                wanted[row, other] += weight * (a @ b) / np.sqrt(a @ a) / np.sqrt(b @ b) / sum(weights)
    np.testing.assert_allclose(joined @ joined.T, wanted, atol=2e-6)
    # the same as what spaces are joined to
    spaces = [Dense(of_encoder['image']) for of_encoder in vectors]
    np.testing.assert_allclose(ensemble(spaces, weights).vectors, joined, atol=2e-6)


def test_the_mean_of_unit_vectors_and_modalities_of_some():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 4, 3))
    units = [array / np.linalg.norm(array, axis=1, keepdims=True) for array in (first, second)]
    wanted = .25 * units[0] + .75 * units[1]
    joined = joined_vectors([{'image': first}, {'image': second * 9, 'title': second}], [1, 3], 'mean')
    np.testing.assert_allclose(joined['image'], wanted / np.linalg.norm(wanted, axis=1, keepdims=True),
                               atol=1e-6)
    np.testing.assert_allclose(joined['title'], units[1], atol=1e-6)
    with pytest.raises(InputError, match=r"how='mean': image vectors of different length \[3, 2\]"):
        joined_vectors([{'image': first}, {'image': second[:, :2]}], how='mean')
    with pytest.raises(InputError, match='no encoder of title is left'):
        joined_vectors([{'image': first}, {'title': second}], [1, 0])
    with pytest.raises(InputError, match='how='): joined_vectors([{'image': first}], how='sum')
    missing = joined_vectors([{'image': np.full((1, 2), np.nan)}, {'image': np.ones((1, 2))}])['image']
    assert np.isnan(missing).any()


def test_embeddings_are_those_of_each_encoder(pictures):
    encoders = three()
    several = SeveralEncoders(encoders, WEIGHTS)
    alone = [encoder.embed(pictures, bs=3) for encoder in encoders]
    vectors, unreadable, hashes = several.embed(pictures, bs=3, hashes=True)
    wanted = joined_vectors([of_encoder for of_encoder, _, _ in alone], WEIGHTS)['image']
    assert several.widths == {'image': wanted.shape[1]} and several.inputs == ['image']
    np.testing.assert_allclose(vectors['image'], wanted, atol=1e-6)
    assert np.isnan(vectors['image'][3]).all() and np.isfinite(np.delete(vectors['image'], 3, 0)).all()
    assert unreadable == alone[0][1] and list(unreadable) == [3]
    assert hashes[3] is None and hashes[0] == phash(Image.open(pictures[0]).convert('RGB'))
    stopped, unreadable, _ = several.embed([pictures[3], None, *pictures[:2]], bs=2, stop=True)
    assert list(unreadable) == [0, 1] and np.isnan(stopped['image']).all()


def test_each_picture_is_read_once(pictures, monkeypatch):
    from fastmatch.matcher import read_picture as module
    read, resized = [], []
    try_image, call = module.try_image, Picture.__call__
    monkeypatch.setattr(module, 'try_image', lambda file: (
        read.append(file) if isinstance(file, Path) else None, try_image(file))[1])
    monkeypatch.setattr(Picture, '__call__', lambda self, image: (
        resized.append((self.size, image.size)), call(self, image))[1])
    SeveralEncoders(three()).embed(pictures[:3], bs=2)
    assert sorted(read) == sorted(pictures[:3])
    # two sizes of each picture; what comes after takes pictures that have their size already
    assert sum(size != from_size for size, from_size in resized) == 6


@needs_titles
def test_encoders_of_pictures_and_of_titles(pictures, tmp_path):
    long = 'a very long title of a lamp with a shade of glass'
    titles = ['a red bag', 'shoe', long, 'b', 'x y', 'z', 'bag']
    encoders = [image_encoder(0, (32, 32)), title_encoder(1, max_len=8), title_encoder(2)]
    several = SeveralEncoders(encoders)
    assert several.inputs == ['image', 'title'] and several.widths == {'image': 256, 'title': 768}
    vectors, _, _ = several.embed(pictures, titles, bs=2)
    wanted = joined_vectors([encoder.embed(None, titles)[0] for encoder in encoders[1:]])['title']
    readable = [0, 1, 2, 4, 5, 6]
    np.testing.assert_allclose(vectors['title'][readable], wanted[readable], atol=1e-5)
    assert several.made_with == {'tta': False, 'size': [32, 32], 'max_len': [None, 8, 64], 'encoders': 3,
                                 'weights': [.333333] * 3}
    catalogue = Embeddings({name: array[readable] for name, array in vectors.items()}, list('abcdef'),
                           [titles[row] for row in readable], made_with=several.made_with)
    matcher = Matcher(Rule('mean', {'image': .5, 'title': .3, 'tfidf': .2}, .5), catalogue, several)
    matcher.save(tmp_path/'m')
    loaded = load_matcher(tmp_path/'m', 'cpu')
    again, _, _ = loaded.encoder.embed(pictures, titles)
    np.testing.assert_allclose(again['title'][readable], vectors['title'][readable], atol=1e-5)
    assert [encoder.max_len for encoder in loaded.encoder.encoders] == [64, 8, 64]


def matcher_of(encoder, pictures):
    table = pd.DataFrame({'posting_id': [f'p{number}' for number in range(6)],
                          'image': [file.name for file in pictures if file != pictures[3]]})
    rule = Rule('mean', {'image': 1.}, .9, made_with=encoder.made_with)
    return Matcher.from_df(table, pictures[0].parent, rule, encoder)[0], table


def test_a_folder_comes_back_without_fastai(pictures, tmp_path):
    matcher, table = matcher_of(SeveralEncoders(three(), WEIGHTS), pictures)
    matcher.save(tmp_path/'m')
    loaded = load_matcher(tmp_path/'m', 'cpu')
    assert loaded.files() == matcher.files() and loaded.encoder.made_with == matcher.encoder.made_with
    new = table.assign(posting_id='new_' + table.posting_id)
    expected = matcher.match(new, pictures[0].parent).to_frame(scores=True)
    assert loaded.match(new, pictures[0].parent).to_frame(scores=True).equals(expected)
    new.to_csv(tmp_path/'new.csv', index=False)
    program = (f'import sys, pandas as pd; from fastmatch.matcher import load_matcher\n'
               f'found = load_matcher({str(tmp_path/"m")!r}, "cpu").match('
               f'pd.read_csv({str(tmp_path/"new.csv")!r}), {str(pictures[0].parent)!r})\n'
               f'found.to_frame().to_csv({str(tmp_path/"found.csv")!r}, index=False)\n'
               'assert "fastai" not in sys.modules')
    subprocess.run([sys.executable, '-W', 'ignore', '-c', program], check=True)
    # as sets: a listing and its copy in the catalogue score the same but for the last bit, in any order
    found, here = pd.read_csv(tmp_path/'found.csv'), matcher.match(new, pictures[0].parent).to_frame()
    assert list(found) == list(here) and len(found) == len(here) == 6
    for column in here:
        assert [set(row.split()) for row in found[column]] == [set(row.split()) for row in here[column]]


def test_the_format_is_raised_for_several_alone(pictures, tmp_path):
    one, _ = matcher_of(image_encoder(0, (32, 32)), pictures)
    one.save(tmp_path/'one')
    assert read_manifest(tmp_path/'one', MANIFEST, FORMAT)['format'] == 1
    matcher, _ = matcher_of(SeveralEncoders(three()), pictures)
    matcher.save(tmp_path/'several')
    # what earlier versions say of it
    with pytest.raises(InputError, match='format 2, this version of fastmatch reads 1:'):
        read_manifest(tmp_path/'several', MANIFEST, 1)
    _, files = read_matcher_files(tmp_path/'several')
    assert {'encoders/0/weights.safetensors', 'encoders/2/weights.safetensors'} < set(files)
    damaged = next((tmp_path/'several').rglob('encoders/1/weights.safetensors'))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b'!')
    with pytest.raises(InputError, match='1/weights.safetensors: damaged'): load_matcher(tmp_path/'several')


def test_nonsense_is_refused(pictures, tmp_path):
    encoders = three()
    for given_encoders, message in ((encoders[:1], '1 given'), ([encoders[0], 'x'], 'str given')):
        with pytest.raises(InputError, match=message): SeveralEncoders(given_encoders)
    for weights in ([1, 2], [1, -1, 1], [0, 0, 0], [1, np.nan, 1]):
        with pytest.raises(InputError, match='weights='): SeveralEncoders(encoders, weights)
    with pytest.raises(InputError, match='different length'): SeveralEncoders(encoders, how='mean')
    matcher, table = matcher_of(SeveralEncoders(encoders), pictures)
    # a rule that was chosen on others
    rule = Rule('mean', {'image': 1.}, .9, made_with=SeveralEncoders(encoders, WEIGHTS).made_with)
    with pytest.raises(InputError, match='weights='): Matcher(rule, matcher.catalogue, matcher.encoder)
    files = matcher.files()
    content = json.loads(files['matcher.json'])
    content['encoder']['several'].append(content['encoder']['several'][0])
    write_matcher_files(tmp_path/'m', {**files, 'matcher.json': json.dumps(content).encode()})
    with pytest.raises(InputError, match='do not|does not fit together'): load_matcher(tmp_path/'m')
    # an encoder that was changed after it was made
    encoders[1].model.encoders['image'].body.bn2.act = torch.nn.ReLU()
    with pytest.raises(InputError, match='not saved: the encoder was changed'): matcher.save(tmp_path/'n')
    assert joined_settings([{'tta': True}, {'tta': False}], how='mean')['join'] == 'mean'
