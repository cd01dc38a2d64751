"Encoders given as modules and functions, models of fixed size, and checkpoints with another class count."
import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from fastmatch.core import InputError, MissingPackage
from fastmatch.models import ImageEncoder, TitleEncoder
from fastmatch.models.module import ModuleEncoder, TorchvisionEncoder
from fastmatch.models.registry import encoder_from_spec, encoder_spec, make_encoder, make_tokenizer
from tests.models.needs import has_minilm

PICTURES = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))


class Convolution(nn.Module):
    "Pictures to a feature map."
    def __init__(self, n_out=6):
        super().__init__()
        self.convolution = nn.Conv2d(3, n_out, 3)

    def forward(self, pictures): return self.convolution(pictures)


def comes_back(encoder):
    "The encoder that its own spec builds, with its weights."
    again = encoder_from_spec('image', json.loads(json.dumps(encoder_spec('image', encoder))))
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.eval()(PICTURES), encoder.eval()(PICTURES))


def test_timm_models_are_taken_as_modules_and_functions():
    model = timm.create_model('test_efficientnet', pretrained=False)
    expected = model.eval().forward_head(model.forward_features(PICTURES), pre_logits=True)
    encoder = make_encoder('image', model)
    assert type(encoder) is ImageEncoder and encoder.n_out == expected.shape[1]
    torch.testing.assert_close(encoder.eval()(PICTURES), expected)
    comes_back(encoder)
    from timm.models import resnet18
    encoder = make_encoder('image', resnet18, pretrained=False, pool='gem')
    assert (encoder.name, encoder.pool_name, encoder.n_out) == ('resnet18', 'gem', 512)


def test_the_functions_that_fastai_knows_are_taken_without_their_classifier():
    from fastai.vision.models import resnet18, xresnet
    torch.manual_seed(0)
    encoder = make_encoder('image', resnet18, pretrained=False, img_size=(64, 32))
    assert type(encoder) is TorchvisionEncoder and encoder.n_out == 512
    # as torchvision computes them before its classifier
    from torchvision.models.feature_extraction import create_feature_extractor
    named = create_feature_extractor(encoder.body.eval(), {'flatten': 'features'})
    torch.testing.assert_close(encoder.eval()(PICTURES), named(PICTURES)['features'])
    comes_back(encoder)
    other = make_encoder('image', xresnet.xresnet18, pretrained=False)
    assert type(other) is ModuleEncoder and other.n_out == 512
    with pytest.raises(InputError, match='no registered kind'): encoder_spec('image', other)
    with pytest.raises(InputError, match="'resnet17' is no classification model of torchvision"):
        encoder_from_spec('image', {'kind': 'torchvision', 'name': 'resnet17', 'pool': None})


def test_a_module_of_ones_own_gives_features():
    module = Convolution()
    encoder = make_encoder('image', module)
    torch.testing.assert_close(encoder(PICTURES), module(PICTURES).mean((2, 3)))
    largest = make_encoder('image', module, pool='max')
    torch.testing.assert_close(largest(PICTURES), module(PICTURES).amax((2, 3)))
    flat = nn.Sequential(module, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert make_encoder('image', flat).n_out == 6
    # an encoder that is ready is taken as it is
    assert make_encoder('image', encoder) is encoder
    with pytest.raises(InputError, match="pool='max'.*ready-made"): make_encoder('image', encoder, pool='max')
    with pytest.raises(InputError, match='Sequential gives no feature map'):
        make_encoder('image', flat, pool='gem')
    with pytest.raises(InputError, match='image_arch=Linear: it can not read pictures'):
        make_encoder('image', nn.Linear(2, 3))
    def no_module(): return {}
    with pytest.raises(InputError, match='image_arch=no_module: it made dict and not a module'):
        make_encoder('image', no_module)


@has_minilm
def test_a_text_encoder_is_taken_as_a_module(tmp_path):
    from transformers import AutoModel

    from fastmatch.models.text import resolve
    model = AutoModel.from_pretrained(resolve('all-MiniLM-L6-v2')).to(torch.bfloat16)
    tokenizer = make_tokenizer(model)
    encoder = make_encoder('text', model, pad_id=tokenizer.pad_token_id)
    assert type(encoder) is TitleEncoder and encoder.dtype == torch.float32
    assert make_encoder('text', encoder) is encoder
    assert make_tokenizer(TitleEncoder('all-MiniLM-L6-v2', pretrained=False)).pad_token_id == 0
    with pytest.raises(InputError, match='text_arch=Convolution: no text encoder'):
        make_encoder('text', Convolution())
    with pytest.raises(InputError, match='text_arch=Convolution: which tokenizer'):
        make_tokenizer(Convolution())


@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', 'mixer_s32_224'])
def test_a_model_of_fixed_size_is_set_to_the_pictures(name):
    encoder = make_encoder('image', name, pretrained=False, img_size=(64, 32))
    assert encoder(PICTURES).shape == (2, encoder.n_out) and (encoder.args, encoder.set_size) in (
        ({}, [64, 32]), ({'img_size': [64, 32]}, None))
    comes_back(encoder)
    # at its own size nothing is changed
    size = timm.get_pretrained_cfg(name).input_size[1:]
    assert ImageEncoder(name, pretrained=False, img_size=size).args == {}
    if name.startswith('mixer'): return
    with pytest.raises(InputError, match=f'{name}.*pictures of 8 x 8 pixels.*trained on {size[0]}'):
        ImageEncoder(name, pretrained=False, img_size=(8, 8))


def test_its_positions_are_resized_as_timm_resizes_them(tmp_path):
    model = timm.create_model('vit_tiny_patch16_224', pretrained=False)
    timm.models.save_for_hf(model, tmp_path/'vit')
    expected = timm.create_model(f'local-dir:{tmp_path/"vit"}', pretrained=True, img_size=(64, 32))
    encoder = ImageEncoder(tmp_path/'vit', img_size=(64, 32))
    torch.testing.assert_close(encoder.body.pos_embed, expected.pos_embed)
    comes_back(encoder)
    save_file(model.state_dict(), tmp_path/'vit_tiny_patch16_224.safetensors')
    encoder = ImageEncoder(tmp_path/'vit_tiny_patch16_224.safetensors', img_size=(64, 32))
    torch.testing.assert_close(encoder.body.pos_embed, expected.pos_embed)


def test_the_classifier_of_a_checkpoint_may_be_of_any_size(tmp_path):
    model = timm.create_model('test_efficientnet', pretrained=False, num_classes=7)
    state = model.state_dict()
    save_file(state, tmp_path/'test_efficientnet.safetensors')
    torch.save({f'x{number}': weight for number, weight in enumerate(state.values())},
               tmp_path/'test_efficientnet-renamed.pth')
    torch.save({name: weight for name, weight in state.items() if not name.startswith('classifier')},
               tmp_path/'test_efficientnet-headless.pth')
    torch.save({f'x{number}': weight for number, (name, weight) in enumerate(state.items())
                if not name.startswith('classifier')}, tmp_path/'test_efficientnet-neither.pth')
    timm.models.save_for_hf(model, tmp_path/'folder')
    config = json.loads((tmp_path/'folder'/'config.json').read_text())
    (tmp_path/'folder'/'config.json').write_text(json.dumps({**config, 'num_classes': 1000}))
    for file in tmp_path.iterdir():
        encoder = ImageEncoder(file)
        assert torch.equal(encoder.body.conv_stem.weight, model.conv_stem.weight), file
        assert torch.equal(encoder.body.conv_head.weight, model.conv_head.weight), file
    del state['conv_stem.weight']
    torch.save(state, tmp_path/'test_efficientnet-less.pth')
    with pytest.raises(InputError, match='less.pth: its .* tensors are not those'):
        ImageEncoder(tmp_path/'test_efficientnet-less.pth')


def test_offline_the_advice_is_what_helps(monkeypatch, tmp_path):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(MissingPackage, match='or pretrained=False'): ImageEncoder('resnet18')
    for ask, words in ((lambda: make_tokenizer('no/such'), 'tokenizer files'),
                       (lambda: TitleEncoder('no/such', pretrained=False, pool='mean', pad_id=0), 'settings'),
                       (lambda: ImageEncoder('hf-hub:no/such', pretrained=False), 'weights')):
        with pytest.raises(MissingPackage, match=words) as told: ask()
        assert 'pretrained=False' not in str(told.value)
