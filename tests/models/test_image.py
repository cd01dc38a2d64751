"Image encoders: what pretrained ones see, and each pooling of timm's feature map."
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastmatch.core import InputError
from fastmatch.models import ImageEncoder
from fastmatch.models.image import NEED_INPUT
from tests.models.needs import has_lite0


@has_lite0
def test_lite0_knows_what_it_saw():
    "Real weights in the right places: two drawings of one thing are nearer than of two things."
    from fastmatch.data.demo import demo_path
    from fastmatch.data.image import read_image
    file_names = ['1f435_noto-v1.png', '1f435_twemoji.png', '1f4f2_twemoji.png']
    pictures = [read_image(demo_path()/'images'/file_name).resize((160, 160)) for file_name in file_names]
    images = torch.stack([torch.tensor(np.asarray(picture)).permute(2, 0, 1) for picture in pictures])
    images = images / 127.5 - 1
    with torch.no_grad(): embeddings = F.normalize(ImageEncoder('tf_efficientnet_lite0').eval()(images))
    assert embeddings[0] @ embeddings[1] > embeddings[0] @ embeddings[2] + .1


@pytest.mark.parametrize(
    'pool, expected_pool',
    [
        ('avg', lambda feature_map: feature_map.mean((2, 3))),
        ('max', lambda feature_map: feature_map.amax((2, 3))),
        ('avgmax', lambda feature_map: (feature_map.mean((2, 3)) + feature_map.amax((2, 3))) / 2),
        ('catavgmax', lambda feature_map: torch.cat([feature_map.mean((2, 3)), feature_map.amax((2, 3))], 1)),
        ('gem', lambda feature_map: feature_map.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)),
    ],
)
def test_pools(pool, expected_pool):
    encoder = ImageEncoder('test_efficientnet', pretrained=False, pool=pool).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(encoder(images), expected_pool(encoder.body.forward_features(images)))
    assert encoder.n_out == encoder(images).shape[1]
    assert len(list(encoder.pool.parameters())) == (pool == 'gem')


def test_pools_that_cannot_be_are_told():
    with pytest.raises(InputError, match="pool='mean'.*avgmax"):
        ImageEncoder('test_efficientnet', pretrained=False, pool='mean')
    with pytest.raises(InputError, match="pool='gem'.*test_vit.*no feature map"):
        ImageEncoder('test_vit', pretrained=False, pool='gem')


@pytest.mark.parametrize('name', ['coat_tiny', 'inception_next_atto'])
def test_models_that_pool_in_one_way_alone(name):
    with pytest.raises(InputError, match=f"pool='map': {name} can not pool in another way than its own"):
        ImageEncoder(name, pretrained=False, pool='map')
    ImageEncoder(name, pretrained=False)


@pytest.mark.parametrize('name', ['tf_efficientnet_lite0', 'mobilenetv3_small_050', 'test_efficientnet'])
def test_activations_keep_their_input_and_change_nothing(name):
    encoder = ImageEncoder(name, pretrained=False).train()
    activations = [module for module in encoder.modules() if isinstance(module, NEED_INPUT)]
    assert activations and not any(module.inplace for module in activations)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def run():
        encoder.zero_grad()
        torch.manual_seed(0)
        encoder(images).square().sum().backward()
        return [parameter.grad.clone() for parameter in encoder.parameters()]
    kept = run()
    for module in activations: module.inplace = True
    for gradient, expected in zip(kept, run(), strict=True): assert torch.equal(gradient, expected)
