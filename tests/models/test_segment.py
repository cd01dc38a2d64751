"Models of masks: what they read and give, the dual head, hypercolumns of odd sizes, and building them again."
import copy
import json

import pytest
import torch
import torch.nn.functional as F

from fastmatch.core import InputError
from fastmatch.layers.attention import SCSE
from fastmatch.models.segment import SegmentNet

pytest.importorskip('segmentation_models_pytorch')
SMALL = 'test_resnet'


def made(**options):
    torch.manual_seed(0)
    return SegmentNet(encoder=SMALL, pretrained=False, **options).eval()


@pytest.mark.parametrize('options, n_channels', [
    ({}, 1), ({'attention': 'scse'}, 1), ({'hypercolumn': True}, 1), ({'decoder': 'fpn'}, 1),
    ({'decoder': 'fpn', 'hypercolumn': True, 'n_classes': 4}, 4), ({'n_classes': 3}, 3)])
@pytest.mark.parametrize('height, width', [(64, 64), (65, 97), (33, 40)])
def test_a_number_for_each_pixel_of_any_size(options, n_channels, height, width):
    assert made(**options)(torch.rand(2, 3, height, width)).shape == (2, n_channels, height, width)


@pytest.mark.parametrize('decoder', ['unet', 'fpn'])
def test_a_hypercolumn_is_all_blocks_side_by_side(decoder):
    model = made(decoder=decoder, hypercolumn=True)
    features = model.encoder(torch.rand(1, 3, 96, 64))
    maps = []
    blocks = model.decoder.blocks if decoder == 'unet' else model.decoder.seg_blocks
    handles = [block.register_forward_hook(lambda module, args, output: maps.append(output))
               for block in blocks]
    found = model._decoded(features)
    for handle in handles: handle.remove()
    size = (96, 64) if decoder == 'unet' else (24, 16)
    expected = [F.interpolate(each, size, mode='bilinear', align_corners=False) for each in maps]
    assert len(maps) == (5 if decoder == 'unet' else 4)
    torch.testing.assert_close(found, torch.cat(expected, 1))
    assert model.head[0].in_channels == found.shape[1]
    # a copy keeps maps of its own
    twin = copy.deepcopy(model)
    twin(torch.rand(1, 3, 64, 64))
    assert model._maps == [] and twin._maps == []


def test_attention_follows_each_block_of_a_feature_pyramid():
    model = made(decoder='fpn', attention='scse', hypercolumn=True)
    plain = [block[0] for block in model.decoder.seg_blocks]
    before, after = [], []
    for block, whole in zip(plain, model.decoder.seg_blocks):
        block.register_forward_hook(lambda module, args, output: before.append(output))
        whole.register_forward_hook(lambda module, args, output: after.append(output))
    model(torch.rand(2, 3, 64, 64))
    assert len(before) == len(after) == 4
    for maps, found, block in zip(before, after, model.decoder.seg_blocks):
        ours = SCSE(maps.shape[1], reduction=16).double()
        theirs = {name: tensor.double() for name, tensor in block[1].state_dict().items()}
        assert len(theirs) == len(ours.state_dict())
        ours.load_state_dict(dict(zip(ours.state_dict(), theirs.values(), strict=True)))
        torch.testing.assert_close(found.double(), ours(maps.double()), atol=1e-5, rtol=1e-5)


def test_the_dual_head_reads_the_deepest_map():
    model = made(dual=True, n_classes=3)
    pictures = torch.rand(2, 3, 64, 64)
    output = model(pictures)
    assert output['mask'].shape == (2, 3, 64, 64) and output['presence'].shape == (2, 2)
    maps = model.encoder((pictures - model.mean) / model.std)
    sides = [each.shape[-1] for each in maps]
    assert sides == sorted(sides, reverse=True) and sides[0] == 64 and sides[-1] == 2
    linear = model.presence[-1]
    expected = maps[-1].mean((2, 3)) @ linear.weight.T + linear.bias
    torch.testing.assert_close(output['presence'], expected)


def test_pictures_are_filled_up_by_their_edge():
    model = made()
    picture = torch.rand(1, 3, 40, 50)
    filled = torch.cat([picture, picture[..., -1:].expand(-1, -1, -1, 14)], 3)
    filled = torch.cat([filled, filled[:, :, -1:].expand(-1, -1, 24, -1)], 2)
    torch.testing.assert_close(model(picture), model(filled)[:, :, :40, :50])


def test_it_normalizes_as_the_encoder_was_trained():
    model = made()
    pictures = torch.rand(1, 3, 32, 32)
    plain = copy.deepcopy(model)
    plain.mean.zero_()
    plain.std.fill_(1)
    torch.testing.assert_close(model(pictures), plain((pictures - model.mean) / model.std))


def test_built_again_from_its_spec():
    model = made(attention='scse', hypercolumn=True, dual=True)
    again = SegmentNet.from_spec(json.loads(json.dumps(model.spec()))).eval()
    again.load_state_dict(model.state_dict())
    pictures = torch.rand(1, 3, 48, 48)
    torch.testing.assert_close(again(pictures), model(pictures))
    with pytest.raises(InputError, match='no architecture'):
        SegmentNet.from_spec({**model.spec(), 'encoder': 'hf-hub:someone/thing'})


def test_weights_of_the_plain_model_are_in_its_pyramid(monkeypatch):
    import timm

    from fastmatch.models import segment
    torch.manual_seed(3)
    for name in (SMALL, 'test_convnext', 'test_efficientnet'):
        trained = timm.create_model(name).eval()
        monkeypatch.setattr(segment, '_create', lambda name, pretrained, trained=trained: trained)
        model = SegmentNet(encoder=name).eval()
        normalized = (torch.rand(1, 3, 64, 64) - model.mean) / model.std
        maps = trained.forward_intermediates(normalized, intermediates_only=True)
        torch.testing.assert_close(model.encoder(normalized)[-1], maps[-1])


def test_parameters_by_group():
    model = made(dual=True)
    groups = model.param_groups()
    assert list(groups) == ['encoder', 'decoder']
    assert sum(map(len, groups.values())) == len(list(model.parameters()))


def test_refusals():
    for options, words in ((dict(n_classes=1), 'n_classes=1'),
                           (dict(decoder='pspnet'), "choose 'unet' or 'fpn'"),
                           (dict(attention='se'), "choose None or 'scse'")):
        with pytest.raises(InputError, match=words): made(**options)
    for name in ('test_vit', 'no_such_model'):
        with pytest.raises(InputError, match=f'encoder={name!r}: no timm model with feature maps'):
            SegmentNet(encoder=name, pretrained=False)


@pytest.mark.parametrize('decoder, hypercolumn', [('unet', False), ('fpn', True)])
@pytest.mark.parametrize('name, side', [('swin_tiny_patch4_window7_224', 224), ('maxvit_pico_rw_256', 256),
                                        ('efficientformerv2_s0', 224)])
def test_encoders_of_one_size(name, side, decoder, hypercolumn):
    model = SegmentNet(2, name, decoder, pretrained=False, hypercolumn=hypercolumn)
    assert model.training and model.only_size == (side, side)
    with torch.no_grad(): assert model(torch.rand(2, 3, side, side)).shape == (2, 1, side, side)
    for height, width in ((64, 64), (side, 160)):
        with pytest.raises(InputError, match=f"encoder={name!r}: it reads pictures of {side} x {side} pixels "
                                             f'alone, these are {width} x {height}'):
            model(torch.rand(1, 3, height, width))


def test_an_encoder_without_a_pyramid():
    with pytest.raises(InputError, match="encoder='inception_v3': its feature maps are no pyramid for "
                                         "decoder='fpn' .RuntimeError"):
        SegmentNet(2, 'inception_v3', 'fpn', pretrained=False)


def test_without_the_extra(monkeypatch):
    import sys

    from fastmatch.core import MissingPackage
    monkeypatch.setitem(sys.modules, 'segmentation_models_pytorch', None)
    with pytest.raises(MissingPackage, match=r'pip install fastmatch\[seg\]'): made()
