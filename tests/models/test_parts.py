"Parts of pictures against loops over slices, heads of their own, and what can't be cut."
import json

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F

from fastmatch.core import InputError
from fastmatch.losses import ArcFace
from fastmatch.models import ImageEncoder, MatchNet
from fastmatch.models.parts import PartEncoder, Parts, make_part_encoder, parts_of, unit_parts
from fastmatch.models.registry import encoder_from_spec, encoder_spec

SIZE = (96, 96)


def made(parts, **options):
    torch.manual_seed(0)
    return make_part_encoder('test_efficientnet', parts, pretrained=False, img_size=SIZE, **options).eval()


def pictures(n=2): return torch.randn(n, 3, *SIZE, generator=torch.Generator().manual_seed(1))


POOLED = {'avg': lambda part: part.mean((2, 3)), 'max': lambda part: part.amax((2, 3)),
          'gem': lambda part: part.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)}


@pytest.mark.parametrize('pool', POOLED)
def test_pcb_is_a_loop_over_stripes(pool):
    encoder = made('pcb', pool=pool)
    feature_map = encoder.encoder(pictures())
    assert feature_map.shape[2:] == (6, 6)
    expected = []
    for row in range(6):
        stripe = POOLED[pool](feature_map[:, :, row:row + 1])
        expected.append(stripe @ encoder.reductions[row].weight.T)
    torch.testing.assert_close(encoder(pictures()), torch.cat(expected, 1))
    assert encoder.n_out == 6 * 256 and encoder.part_names[0] == '1of6'


def test_granularities_are_a_loop_over_slices():
    encoder = made(Parts((1, 2, 3, (2, 3)), width=None))
    feature_map = encoder.encoder(pictures())
    expected = [feature_map.mean((2, 3))]
    for top, bottom in ((0, 3), (3, 6), (0, 2), (2, 4), (4, 6)):
        expected.append(feature_map[:, :, top:bottom].mean((2, 3)))
    for top in (0, 3):
        for left in (0, 2, 4):
            expected.append(feature_map[:, :, top:top + 3, left:left + 2].mean((2, 3)))
    torch.testing.assert_close(encoder(pictures()), torch.cat(expected, 1))
    assert encoder.part_names[0] == 'whole' and encoder.part_names[-1] == '2_3of2x3'
    boxes = encoder.parts.boxes()
    assert list(boxes) == encoder.part_names and boxes['2of3'] == (1 / 3, 0, 2 / 3, 1)


def test_the_whole_alone_is_the_plain_encoder():
    encoder = made(Parts((1,), width=None, stride=None))
    plain = ImageEncoder('test_efficientnet', pretrained=False, pool='avg').eval()
    plain.body.load_state_dict(encoder.body.state_dict())
    torch.testing.assert_close(encoder(pictures()), plain(pictures()))


def test_a_head_for_each_part():
    encoder = made('mgn')
    torch.manual_seed(2)
    model = MatchNet(5, encoder, neck=False)
    output = model.train()(pictures())
    assert list(output) == [f'image_{part}' for part in ('whole', '1of2', '2of2', '1of3', '2of3', '3of3')]
    features = encoder(pictures())
    for number, (name, head) in enumerate(output.items()):
        part = features[:, number * 256:(number + 1) * 256]
        centers = model.heads[name].weight
        torch.testing.assert_close(head.cos, F.normalize(part) @ F.normalize(centers).T, atol=1e-5, rtol=0)
    targets, loss = torch.tensor([1, 3]), ArcFace(m=.2, s=10)
    total = sum(loss(head, targets) for head in output.values())
    torch.testing.assert_close(loss(output, targets), total)
    # necks work on each column by itself: one over all parts is one for each
    with_neck = MatchNet(5, encoder)
    assert with_neck.necks['image'].num_features == 6 * 256 and 'image' not in with_neck.heads


def test_a_cosine_of_pictures_is_the_mean_of_their_parts():
    model = MatchNet(None, made('mgn')).eval()
    vectors = model(pictures(3))['image'].double()
    parts = F.normalize(model.features(pictures(3))['image'].double().unflatten(1, (6, 256)), dim=2)
    expected = torch.einsum('apd,bpd->abp', parts, parts).mean(2)
    torch.testing.assert_close(vectors @ vectors.T, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3).double())
    assert torch.autograd.gradcheck(lambda values: unit_parts(values, 2),
                                    torch.randn(2, 6).double().requires_grad_())


def test_raw_embeddings_are_those_before_the_neck():
    encoder = made(Parts((2,), width=8))
    output = MatchNet(3, encoder, neck='raw').train()(pictures())
    features = encoder(pictures())
    torch.testing.assert_close(output['image_2of2'].emb, features[:, 8:])


def test_saved_and_built_again():
    encoder = made(Parts((1, 3, (2, 2)), width=8, pool='gem'))
    spec = json.loads(json.dumps(encoder_spec('image', encoder)))
    again = encoder_from_spec('image', spec).eval()
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(pictures()), encoder(pictures()))
    assert again.part_names == encoder.part_names
    function = made(lambda feature_map: [feature_map, feature_map[:, :, 1:3]])
    assert function.part_names == ['part1', 'part2'] and function(pictures()).shape == (2, 512)
    with pytest.raises(InputError, match="a function can't be saved"): encoder_spec('image', function)
    with pytest.raises(InputError, match='is not known'): function.parts.boxes()


@pytest.mark.parametrize('name', ['test_maxvit', 'test_coatnet'])
def test_models_of_some_sizes_alone_are_saved_and_built_again(name):
    encoder = make_part_encoder(name, Parts((1, 5), width=8, stride=None), False, img_size=(160, 160)).eval()
    again = encoder_from_spec('image', json.loads(json.dumps(encoder_spec('image', encoder)))).eval()
    again.load_state_dict(encoder.state_dict())
    given = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(again(given), encoder(given))
    # without a size, that which the model was made for
    assert PartEncoder(encoder.encoder, Parts((1, 5))).img_size == (160, 160)


def test_a_file_without_a_size_is_read():
    spec = encoder_spec('image', made(Parts((1, 3, (2, 2)), width=8)))
    assert spec.pop('img_size') == list(SIZE)
    assert encoder_from_spec('image', spec).n_out == 8 * 8


def test_an_encoder_that_is_there_already():
    encoder = make_part_encoder(timm.create_model('test_resnet'), Parts((3, 1), width=None), img_size=SIZE)
    assert encoder(pictures()).shape == (2, encoder.n_out)
    given = ImageEncoder('test_efficientnet', pretrained=False, pool='map')
    assert make_part_encoder(given, Parts((3,)), img_size=SIZE).encoder is given
    with pytest.raises(InputError, match='parts of its own already'): make_part_encoder(encoder, 'pcb')


@pytest.mark.parametrize('name, size', [('swin_tiny_patch4_window7_224', (256, 256)),
                                        ('test_mambaout', (96, 128))])
def test_maps_whose_channels_come_last(name, size):
    encoder = make_part_encoder(name, Parts((1, (1, 2)), width=None, stride=None), False, img_size=size)
    encoder.eval()
    given = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    last = encoder.body(given)
    rows, columns, n_channels = last.shape[1:]
    assert encoder.encoder.n_out == n_channels > columns and rows == size[0] // 32
    half = columns // 2
    expected = [last, last[:, :, :half], last[:, :, half:]]
    torch.testing.assert_close(encoder(given), torch.cat([part.mean((1, 2)) for part in expected], 1))
    gem = ImageEncoder('test_mambaout', pretrained=False, pool='gem').eval()
    torch.testing.assert_close(gem(given), gem.pool(gem.body(given).permute(0, 3, 1, 2)))
    assert gem.n_out == gem(given).shape[1] == 256


def test_what_cannot_be_cut():
    with pytest.raises(InputError, match="6 stripes don't divide the 4 rows.*one of 1, 2, 4"):
        make_part_encoder('test_efficientnet', 'pcb', False, img_size=(64, 64))
    with pytest.raises(InputError, match="5 columns of cells don't divide the 6 columns"):
        made(Parts(((2, 5),)))
    # pictures of another size later on
    with pytest.raises(InputError, match="don't divide the 4 rows"): made('pcb')(torch.zeros(1, 3, 64, 96))
    with pytest.raises(InputError, match='no feature map'):
        make_part_encoder('test_vit', Parts((2,), stride=None), False)
    with pytest.raises(InputError, match='no feature map'):
        make_part_encoder(ImageEncoder('test_efficientnet', pretrained=False), 'pcb')
    with pytest.raises(InputError, match='test_maxvit can not read pictures of 96 x 96 pixels'):
        make_part_encoder(ImageEncoder('test_maxvit', False, 'map'), 'pcb', img_size=SIZE)
    for name in ('test_vit', 'test_mambaout', 'vgg11'):
        with pytest.raises(InputError, match=rf'16: {name} can not be made with.*stride=None\)'):
            make_part_encoder(name, 'pcb', False)
    for wrong, words in (('pcp', "parts='pcp'"), (3, 'parts=3')):
        with pytest.raises(InputError, match=words): parts_of(wrong)
    for cuts in ((0,), ((2, 0),), ('a',), ((1, 2, 3),), (2.5,), ()):
        with pytest.raises(InputError, match='cuts'): Parts(cuts)
    with pytest.raises(InputError, match='each granularity once'): Parts((2, (2, 1)))
    with pytest.raises(InputError, match="pool='mean'"): Parts((2,), pool='mean')
    with pytest.raises(InputError, match='no list of maps'): made(lambda feature_map: feature_map)
    with pytest.raises(InputError, match='and not maps'): made(lambda feature_map: [feature_map.mean((2, 3))])


def test_a_neck_that_would_mix_parts():
    from functools import partial

    from fastmatch.layers.pooling import ProjectNeck
    with pytest.raises(InputError, match='which would mix them'):
        MatchNet(5, made('mgn'), neck=partial(ProjectNeck, n_out=32))


def test_layers_of_the_model_inside_are_found():
    from fastmatch.models.layered import parameters_by_layer
    encoder = made('pcb')
    layers = parameters_by_layer(encoder)
    assert len(layers) > 3 and sum(map(len, layers)) == len(list(encoder.parameters()))
    last = {id(parameter) for parameter in layers[-1]}
    assert all(id(reduction.weight) in last for reduction in encoder.reductions)


def test_unit_parts_leave_plain_numbers_alone():
    rows = torch.tensor([[3., 4., 0., 5.]])
    np.testing.assert_allclose(unit_parts(rows, 2) * 2**.5, [[.6, .8, 0, 1]], rtol=1e-6)
    assert isinstance(made('pcb'), PartEncoder)
