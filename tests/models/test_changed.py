"IBN and attention inside timm's models: where they are put, what stays, and what is saved."
import json

import pytest
import timm
import torch
from timm.layers.cbam import CbamModule
from torch import nn

from fastmatch.core import InputError
from fastmatch.layers.attention import BAM, SCSE
from fastmatch.layers.instance_norm import IBN
from fastmatch.models import ImageEncoder, PartEncoder, Parts, with_attention, with_ibn
from fastmatch.models.registry import encoder_from_spec, encoder_spec

PICTURES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def names_of(model, kind): return [name for name, module in model.named_modules() if isinstance(module, kind)]


@pytest.mark.parametrize('name, blocks', [('resnet18', (2, 2, 2)), ('resnet50', (3, 4, 6))])
def test_ibn_a_is_where_the_paper_has_it(name, blocks):
    "In the first normalization of every residual block of the stages conv2_x to conv4_x."
    encoder = with_ibn(name, 'a', pretrained=False)
    expected = [f'layer{stage}.{block}.bn1' for stage, n in enumerate(blocks, 1) for block in range(n)]
    assert names_of(encoder.body, IBN) == expected
    plain = dict(timm.create_model(name).named_modules())
    for path in expected:
        ibn = encoder.body.get_submodule(path)
        n_channels = plain[path].num_features
        assert ibn.n_instance == n_channels // 2 == ibn.batch.num_features


@pytest.mark.parametrize('name, last', [('resnet18', ('layer1.1', 'layer2.1')),
                                        ('resnet50', ('layer1.2', 'layer2.3'))])
def test_ibn_b_is_where_the_paper_has_it(name, last):
    "For the stem's normalization, and after the additions that end conv2_x and conv3_x."
    encoder = with_ibn(name, 'b', pretrained=False)
    found = names_of(encoder.body, nn.InstanceNorm2d)
    activation = 'act3' if name == 'resnet50' else 'act2'
    assert found == ['bn1', *(f'{block}.{activation}.0' for block in last)]
    block = encoder.body.get_submodule(last[0])
    seen = {}
    added = getattr(block, activation)[0]
    added.register_forward_hook(lambda module, args, output: seen.update(added=args[0]))
    norm = getattr(block, activation.replace('act', 'bn'))
    norm.register_forward_hook(lambda module, args, output: seen.update(branch=output.clone()))
    given = torch.randn(2, norm.num_features, 8, 8)
    output = block.eval()(given)
    torch.testing.assert_close(seen['added'], seen['branch'] + given)
    torch.testing.assert_close(output, nn.functional.instance_norm(seen['branch'] + given).relu(), atol=1e-4,
                               rtol=0)


def test_plain_weights_stay_where_there_is_a_place_for_them():
    torch.manual_seed(0)
    plain = timm.create_model('resnet18')
    nn.init.normal_(plain.layer2[0].bn1.weight)
    plain.layer2[0].bn1.running_mean.normal_()
    state = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    changed = with_ibn(ImageEncoder('resnet18', body=_body(plain)), 'a').body.state_dict()
    half = len(state['layer2.0.bn1.weight']) // 2
    torch.testing.assert_close(changed['layer2.0.bn1.instance.weight'], state['layer2.0.bn1.weight'][:half])
    torch.testing.assert_close(changed['layer2.0.bn1.batch.weight'], state['layer2.0.bn1.weight'][half:])
    torch.testing.assert_close(changed['layer2.0.bn1.batch.running_mean'],
                               state['layer2.0.bn1.running_mean'][half:])
    same = [name for name in changed if name in state]
    assert len(same) > 80
    for name in same: torch.testing.assert_close(changed[name], state[name])


def _body(model):
    from fastmatch.models.image import timm_body
    return timm_body(model)


def test_an_efficientnet_has_it_before_its_last_halving():
    encoder = with_ibn('efficientnet_lite0', 'a', pretrained=False)
    assert {name.split('.')[1] for name in names_of(encoder.body, IBN)} == set('01234')
    # the activation that was inside its BatchNorm stays
    assert isinstance(encoder.body.blocks[1][0].bn1[1], nn.ReLU6)
    assert encoder(PICTURES).shape == (2, 1280)


@pytest.mark.parametrize('attention, kind', [('scse', SCSE), ('bam', BAM), ('cbam', CbamModule)])
@pytest.mark.parametrize('name, after', [('test_resnet', ('layer2', 'layer3.0')),
                                         ('test_efficientnet', ('blocks.1',)),
                                         ('test_convnext', ('stages.1',))])
def test_attention_behind_named_blocks(attention, kind, name, after):
    encoder = with_attention(name, attention, after, pretrained=False).eval()
    for block in after:
        assert isinstance(encoder.body.get_submodule(block)[1], kind)
    changed = encoder(PICTURES)
    assert changed.shape == (2, encoder.n_out)
    # what stands in its place passes features on as they are: it is attention alone that changes them
    for block in after: encoder.body.get_submodule(block)[1] = nn.Identity()
    without = encoder(PICTURES)
    assert (changed - without).abs().max() > 1e-4


@pytest.mark.parametrize('attention', ['scse', 'bam', 'cbam'])
@pytest.mark.parametrize('name, block, is_last', [
    ('test_mambaout', 'stages.1', True), ('swin_tiny_patch4_window7_224', 'layers.1', True),
    # of one model, inside a block and behind it
    ('test_convnext', 'stages.1.blocks.0.mlp', True), ('test_convnext', 'stages.1.blocks.0', False)])
def test_attention_over_maps_of_both_layouts(name, block, is_last, attention):
    encoder = with_attention(name, attention, block, pretrained=False).eval()
    found, made = encoder.body.get_submodule(block)
    seen = {}
    found.register_forward_hook(lambda module, args, output: seen.update(given=output))
    made.register_forward_hook(lambda module, args, output: seen.update(changed=output))
    given = torch.randn(2, 3, *encoder.made_for, generator=torch.Generator().manual_seed(0))
    assert encoder(given).shape == (2, encoder.n_out)
    plain, of_map = made, seen['given']
    if is_last: plain, of_map = made.module, of_map.permute(0, 3, 1, 2)
    # the map is square and its channels are not as many: these are the channels
    n_channels, rows, columns = of_map.shape[1:]
    assert rows == columns != n_channels
    assert next(plain.parameters()).shape[1] == n_channels
    expected = plain(of_map)
    torch.testing.assert_close(seen['changed'], expected.permute(0, 2, 3, 1) if is_last else expected)
    again = encoder_from_spec('image', json.loads(json.dumps(encoder_spec('image', encoder)))).eval()
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(given), encoder(given))


def test_attention_where_pictures_are_of_another_size_than_the_weights():
    encoder = with_attention('visformer_tiny', 'scse', 'stage1', pretrained=False, img_size=(64, 64)).eval()
    assert encoder.set_size is None and encoder.args == {'img_size': [64, 64]}
    assert encoder(PICTURES).shape == (2, encoder.n_out)


def test_attention_inside_a_block_that_has_it():
    for after in (('layer2', 'layer2.0'), ('layer2.0', 'layer2')):
        with pytest.raises(InputError, match="after='layer2.0' lies inside 'layer2'"):
            with_attention('test_resnet', 'scse', after, pretrained=False)
    outer = with_attention('test_resnet', 'scse', 'layer2', pretrained=False)
    with pytest.raises(InputError, match="after='layer2.0' lies inside 'layer2'"):
        with_attention(outer, 'bam', 'layer2.0')
    # the inner one first: both are where they were asked for, and so they are when made again
    inner = with_attention('test_resnet', 'bam', 'layer3.0', pretrained=False)
    both = with_attention(inner, 'scse', 'layer3')
    again = encoder_from_spec('image', json.loads(json.dumps(encoder_spec('image', both), sort_keys=True)))
    for encoder in (both, again):
        assert names_of(encoder.body, BAM) == ['layer3.0.0.1']
        assert names_of(encoder.body, SCSE) == ['layer3.1']


def test_changes_are_saved_and_made_again():
    encoder = with_attention(with_ibn('test_resnet', 'a', pretrained=False, pool='gem'), 'scse', 'layer2')
    spec = json.loads(json.dumps(encoder_spec('image', encoder)))
    again = encoder_from_spec('image', spec).eval()
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again(PICTURES), encoder.eval()(PICTURES))
    assert 'changes' not in encoder_spec('image', ImageEncoder('test_resnet', pretrained=False))
    with pytest.raises(InputError, match='change='):
        encoder_from_spec('image', {**spec, 'changes': [{'run': 'rm'}]})


def test_refusals():
    with pytest.raises(InputError, match="ibn='c': choose 'a' or 'b'"):
        with_ibn('test_resnet', 'c', pretrained=False)
    with pytest.raises(InputError, match="ibn='b': .* test_efficientnet, .* no such stages; of timm"):
        with_ibn('test_efficientnet', 'b', pretrained=False)
    with pytest.raises(InputError, match='no such stages'): with_ibn('test_vit', pretrained=False)
    with pytest.raises(InputError, match='BasicBlock has IBN as bn1 .*put in before'):
        with_ibn(with_ibn('test_resnet', pretrained=False))
    with pytest.raises(InputError, match="after='layer9'.*layer"):
        with_attention('test_resnet', 'scse', 'layer9', pretrained=False)
    with pytest.raises(InputError, match="after='blocks.0'.* and no feature map"):
        with_attention('test_vit', 'scse', 'blocks.0', pretrained=False)
    with pytest.raises(InputError, match='one block at least'):
        with_attention('test_resnet', 'scse', (), pretrained=False)
    encoder = ImageEncoder('test_resnet', pretrained=False)
    with pytest.raises(InputError, match='given ready-made'): with_ibn(encoder, pool='gem')


@pytest.mark.parametrize('name, variant, words', [
    ('skresnet18', 'a', 'SelectiveKernelBasic has nothing as bn1'),
    ('skresnet18', 'b', 'SelectiveKernelBasic has no activation'),
    ('res2net50_26w_4s', 'b', 'Bottle2neck has no activation'),
    ('mobilenetv4_conv_small', 'a', 'UniversalInvertedResidual has nothing as bn1'),
    ('resnet50_gn', 'b', 'ResNet has GroupNorm as bn1')])
def test_models_without_a_place_for_ibn_are_named_and_left_as_they_are(name, variant, words):
    encoder = ImageEncoder(name, pretrained=False)
    before = list(encoder.state_dict())
    with pytest.raises(InputError, match=f'{name}, as {words}.*of timm there are ResNets'):
        with_ibn(encoder, variant)
    assert list(encoder.state_dict()) == before and encoder.changes == []


@pytest.mark.parametrize('variant, after', [('a', 'layer2'), ('a', 'layer2.0'), ('b', 'layer1'),
                                            ('b', 'layer1.0')])
def test_ibn_comes_before_attention(variant, after):
    encoder = with_attention('test_resnet', 'scse', after, pretrained=False)
    with pytest.raises(InputError, match=r'attention comes after it: with_attention\(with_ibn'):
        with_ibn(encoder, variant)
    # where its blocks are left as they were, the order is all one
    assert names_of(with_ibn(with_attention('test_resnet', 'scse', 'layer4', pretrained=False)).body, IBN)


def test_only_names_and_image_encoders_are_changed():
    for given in (timm.create_model('test_resnet'), timm.create_model):
        with pytest.raises(InputError, match='give the name'): with_ibn(given)
    encoder = PartEncoder(ImageEncoder('test_resnet', pretrained=False, pool='map'), Parts((1,)))
    with pytest.raises(InputError, match='PartEncoder can not be changed.*parts come after'):
        with_attention(encoder, 'scse', 'layer2')
