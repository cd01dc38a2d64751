"The product cut out of a picture as a modality: vectors are those of the parts, folders come back the same."
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fastmatch.core import InputError
from fastmatch.data.image import phash
from fastmatch.data.masks import MaskRule
from fastmatch.match import Embeddings, Rule
from fastmatch.matcher import CropEncoder, Matcher, load_matcher, part_similarities
from fastmatch.matcher.segment import Segmenter, with_crop
from tests.matcher.test_several import image_encoder, pictures, title_encoder  # noqa: F401
from tests.matcher.trained import needs_titles

pytest.importorskip('segmentation_models_pytorch')
READABLE = [0, 1, 2, 4, 5, 6]


@pytest.fixture(scope='module')
def segmenter():
    "Untrained: its masks are anything, but something and not everything."
    from fastmatch.models.segment import SegmentNet
    torch.manual_seed(0)
    model = SegmentNet(encoder='test_resnet', pretrained=False)
    probabilities = Segmenter(model, (32, 32)).probabilities([Image.new('RGB', (40, 30), 'red')])
    return Segmenter(model, (32, 32), MaskRule(int(np.quantile(probabilities, .8))))


def test_vectors_are_those_of_the_parts(pictures, segmenter):  # noqa: F811
    whole, of_crops = image_encoder(0, (32, 32)), image_encoder(1, (24, 40), 8, 'pad', tta=True)
    crops = segmenter.crop([pictures[row] for row in READABLE], .2, blank=True)
    sizes = [Image.open(pictures[row]).size for row in READABLE]
    assert any(crop.size != size for crop, size in zip(crops, sizes))
    both = CropEncoder(whole, segmenter, of_crops, .2, blank=True)
    vectors, unreadable, hashes = both.embed(pictures, bs=3, hashes=True)
    assert both.inputs == ['image'] and both.widths == {'image': 256, 'crop': 8}
    expected, expected_unreadable, expected_hashes = whole.embed(pictures, hashes=True)
    np.testing.assert_allclose(vectors['image'], expected['image'], atol=1e-6)
    np.testing.assert_allclose(vectors['crop'][READABLE], of_crops.embed(crops)[0]['image'], atol=1e-6)
    assert np.isnan(vectors['crop'][3]).all() and unreadable == expected_unreadable
    assert list(hashes) == list(expected_hashes) and hashes[0] == phash(Image.open(pictures[0]))
    stopped, unreadable, _ = both.embed([pictures[3], None, *pictures[:2]], bs=2, stop=True)
    assert list(unreadable) == [0, 1] and all(np.isnan(array).all() for array in stopped.values())
    assert both.made_with == {'tta': False, 'size': [32, 32],
                              'crop': {'tta': True, 'size': [24, 40], 'margin': .2, 'blank': True}}


def test_each_picture_is_read_once(pictures, segmenter, monkeypatch):  # noqa: F811
    from fastmatch.matcher import cropped as module
    read, opened = [], []
    try_image, open_image = module.try_image, Image.open
    monkeypatch.setattr(module, 'try_image', lambda file: (read.append(file), try_image(file))[1])
    monkeypatch.setattr(Image, 'open', lambda file, *args, **kwargs: (
        opened.append(file), open_image(file, *args, **kwargs))[1])
    CropEncoder(image_encoder(0, (32, 32)), segmenter).embed(pictures[:3], bs=2)
    assert sorted(read) == sorted(pictures[:3]) and len(opened) == 3


@pytest.mark.parametrize('has_own', [True, False])
def test_a_matcher_comes_back_the_same(has_own, pictures, segmenter, tmp_path):  # noqa: F811
    of_crops = image_encoder(1, (40, 24), 8) if has_own else None
    encoder = CropEncoder(image_encoder(0, (32, 32)), segmenter, of_crops)
    table = pd.DataFrame({'posting_id': [f'p{number}' for number in range(6)],
                          'image': [pictures[row].name for row in READABLE]})
    rule = Rule('mean', {'image': .3, 'crop': .7}, .9, made_with=encoder.made_with)
    matcher, _ = Matcher.from_df(table, pictures[0].parent, rule, encoder)
    assert matcher.spaces['crop'].dim == encoder.widths['crop']
    matcher.save(tmp_path/'m')
    loaded = load_matcher(tmp_path/'m', 'cpu')
    assert (loaded.encoder.crop_encoder is loaded.encoder.encoder) != has_own
    new = table.assign(posting_id=[f'n{number}' for number in range(6)])
    expected, found = (each.match(new, pictures[0].parent) for each in (matcher, loaded))
    pd.testing.assert_frame_equal(expected.to_frame(), found.to_frame())
    # each finds itself among the known ones
    assert all(f'p{number}' in found.to_frame().query(f'posting_id == "n{number}"').iloc[0].matches.split()
               for number in range(6))
    with pytest.raises(InputError, match="runtime='onnx': this matcher holds several encoders"):
        load_matcher(tmp_path/'m', runtime='onnx')
    # the folder is read by whoever has no fastai
    code = f'''
import sys
sys.modules['fastai'] = None
from fastmatch.matcher import load_matcher
print(load_matcher({str(tmp_path/'m')!r}, 'cpu').encoder)
'''
    output = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert output.stdout.strip() == repr(encoder), output.stderr


def test_a_matcher_of_other_crops_is_refused(pictures, segmenter):  # noqa: F811
    encoder = CropEncoder(image_encoder(0, (32, 32)), segmenter)
    other = CropEncoder(encoder.encoder, segmenter, margin=.3)
    table = pd.DataFrame({'posting_id': ['a', 'b'], 'image': [pictures[row].name for row in (0, 1)]})
    embeddings = Embeddings({'image': np.eye(2)}, ['a', 'b'], made_with=encoder.encoder.made_with)
    made_with = with_crop(embeddings, embeddings).made_with
    assert made_with == encoder.made_with
    rule = Rule('mean', {'crop': 1.}, .9, made_with=made_with)
    with pytest.raises(InputError, match='rule: chosen on embeddings made with crop='):
        Matcher.from_df(table, pictures[0].parent, rule, other)


@needs_titles
def test_titles_are_read_beside(pictures, segmenter):  # noqa: F811
    from fastmatch.matcher import Encoder
    from fastmatch.models import MatchNet
    image, title = image_encoder(0, (32, 32)), title_encoder(1)
    model = MatchNet(None, image.model.encoders['image'], title.model.encoders['title'])
    encoder = CropEncoder(Encoder(model, image.picture, title.tokenizer), segmenter)
    titles = ['a red bag', 'shoe', 'a very long title of a lamp', 'b', 'x y', 'z', 'bag']
    with pytest.raises(InputError, match='titles=None: the encoders read'): encoder.embed(pictures)
    vectors, _, _ = encoder.embed(pictures, titles, bs=2)
    expected, _, _ = encoder.encoder.embed(pictures, titles)
    assert set(vectors) == {*expected, 'crop'} and {'image', 'title'} <= set(expected)
    for modality, array in expected.items():
        np.testing.assert_allclose(vectors[modality][READABLE], array[READABLE], atol=1e-5)


def test_refusals(segmenter):
    encoder = image_encoder(0, (32, 32))
    for given, message in ((('no', segmenter), 'encoder: str given'),
                           ((encoder, None), 'segmenter: NoneType given'),
                           ((encoder, segmenter, None, -3), 'margin=-3: give a number, 0 or above'),
                           ((encoder, segmenter, 'no'), 'crop_encoder: str given')):
        with pytest.raises(InputError, match=message): CropEncoder(*given)
    both = CropEncoder(encoder, segmenter)
    for given in ((), (None,)):
        with pytest.raises(InputError, match='pictures=None'): both.embed(*given)
    with pytest.raises(InputError, match='encoder: CropEncoder given, it must be an Encoder'):
        part_similarities(both, None, None)


@needs_titles
def test_an_encoder_of_titles_alone_is_refused(segmenter):
    with pytest.raises(InputError, match='encoder: it reads no pictures'):
        CropEncoder(title_encoder(0), segmenter)
