"Views: each against a loop over what they say, the mirror image as ever, sizes joined, spec there and back."
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastmatch.core import InputError
from fastmatch.models import ImageEncoder, MatchNet, Views
from fastmatch.models.views import resized, views_of


class Means(torch.nn.Module):
    "An encoder whose feature is the mean color of each quarter, and the size that it was given."
    n_out = 13

    def forward(self, images):
        quarters = F.adaptive_avg_pool2d(images, 2).flatten(1)
        return torch.cat([quarters, torch.full((len(images), 1), images.shape[-1] / 100)], 1)


class Lengths(torch.nn.Module):
    n_out = 2
    def forward(self, ids): return torch.stack([ids.float().sum(1), torch.ones(len(ids))], 1)


@pytest.fixture(scope='module')
def model(): return MatchNet(None, Means(), Lengths(), neck=False)


def pictures(n=3, height=20, width=30):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, height, width, generator=generator), torch.tensor([[1, 2]] * n)


def test_plain_views_are_todays(model):
    images, ids = pictures()
    for views, tta in ((Views(), True), (Views(mirror=False), False)):
        assert views.is_plain and views.spec() is tta and views_of(tta) == views and len(views) == 1 + tta
        found, expected = views.embed(model, images, ids), model.embed(images, ids, tta=tta)
        assert all(found[name].equal(expected[name]) for name in expected)


def test_crops_and_scales_by_a_loop(model):
    images, ids = pictures()
    views = Views(scales=(1, 1.5), crops=.5)
    boxes = [(0, 0, 20, 30), (0, 0, 10, 15), (0, 15, 10, 15), (10, 0, 10, 15), (10, 15, 10, 15),
             (5, 8, 10, 15)]
    assert len(views) == 24
    means = []
    for scale in (1, 1.5):
        found = []
        for top, left, height, width in boxes:
            part = images[..., top:top + height, left:left + width]
            size = round(20 * scale), round(30 * scale)
            part = F.interpolate(part, size, mode='bilinear', antialias=True)
            plain, flipped = model.embed(part, ids)['image'], model.embed(part.flip(-1), ids)['image']
            found.append(F.normalize(plain + flipped))
        means.append(F.normalize(sum(found)))
    torch.testing.assert_close(views.embed(model, images, ids)['image'], F.normalize(sum(means)))
    joined = Views(scales=(1, 1.5), crops=.5, join='concatenate').embed(model, images, ids)
    # a cosine of vectors side by side is the mean of the cosines
    torch.testing.assert_close(joined['image'] @ joined['image'].T, sum(each @ each.T for each in means) / 2)
    torch.testing.assert_close(joined['title'], model.embed(images, ids)['title'])


def test_widths_are_those_of_the_vectors(model):
    images, ids = pictures()
    for views in (Views(scales=(.5, 1, 2), join='concatenate'), Views(scales=(.5, 1, 2)), Views()):
        found = {name: array.shape[1] for name, array in views.embed(model, images, ids).items()}
        assert found == views.widths(model.widths)
    assert Views(scales=(2,), join='concatenate') == Views(scales=(2,))


def test_batches_of_a_classifier():
    images, ids = pictures(2, 8, 8)
    batches = Views(scales=(1, 2)).batches([images, ids])
    assert [tuple(batch[0].shape[-2:]) for batch in batches] == [(8, 8)] * 2 + [(16, 16)] * 2
    assert batches[0][0].equal(images) and batches[1][0].equal(images.flip(-1)) and batches[2][1] is ids
    assert Views(scales=(1, 2)).batches([ids]) == [[ids]]


def test_titles_alone_have_one_view():
    model = MatchNet(None, title=Lengths(), neck=False)
    ids = torch.tensor([[1, 2], [3, 4]])
    views = Views(scales=(1, 2), join='concatenate')
    assert views.embed(model, ids)['title'].equal(model.embed(ids)['title'])


def test_shrinking_averages_all_pixels():
    stripes = torch.tensor([0., 1.]).repeat(32)[None, None, None].expand(1, 3, 64, 64)
    assert (resized(stripes, (16, 16)) - .5).abs().max() < .05
    assert resized(stripes, (64, 64)) is stripes


def test_spec_there_and_back():
    for views in (Views(scales=(1, 1.25)), Views(False, (.5,)), Views(crops=.8),
                  Views(scales=[1, 2], join='concatenate'), Views(), Views(False)):
        spec = json.loads(json.dumps(views.spec()))
        assert spec == views.spec() and views_of(spec) == views
    assert views_of(None) == views_of(False)


def test_what_is_refused():
    for options, message in (({'scales': ()}, 'scales'), ({'scales': (9,)}, 'scales'),
                             ({'scales': 2}, 'tuple'),
                             ({'scales': (1, 1.)}, 'each once'), ({'crops': 1}, 'crops=1'),
                             ({'join': 'sum'}, "join='sum'")):
        with pytest.raises(InputError, match=message): Views(**options)
    with pytest.raises(InputError, match="tta='mirror'"): views_of('mirror')
    with pytest.raises(InputError, match="unknown .'zoom'."): views_of({'zoom': 2})


def test_an_encoder_of_a_fixed_size_says_so():
    model = MatchNet(None, ImageEncoder('test_vit', pretrained=False))
    images = torch.zeros(2, 3, 160, 160)
    assert np.isfinite(Views(crops=.8).embed(model, images)['image']).all()
    with pytest.raises(InputError, match='no pictures of 200x200.*scales=.1.0, 1.25.'):
        Views(scales=(1, 1.25)).embed(model, images)
