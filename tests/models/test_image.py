"Image encoders: what pretrained ones see, and each pooling of timm's feature map."
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastmatch.core import InputError
from fastmatch.models import ImageEncoder
from tests.models.needs import has_lite0


@has_lite0
def test_lite0_knows_what_it_saw():
    "Real weights in the right places: two drawings of one thing are nearer than of two things."
    from fastmatch.data.demo import demo_path
    from fastmatch.data.image import read_image
    names = ['1f435_noto-v1.png', '1f435_twemoji.png', '1f4f2_twemoji.png']
    x = (
        torch.stack(
            [
                torch.tensor(
                    np.asarray(read_image(demo_path() / 'images' / name).resize((160, 160)))
                ).permute(2, 0, 1)
                for name in names
            ]
        )
        / 127.5
        - 1
    )
    with torch.no_grad(): v = F.normalize(ImageEncoder('tf_efficientnet_lite0').eval()(x))
    assert v[0] @ v[1] > v[0] @ v[2] + .1


@pytest.mark.parametrize(
    'pool, naive',
    [
        ('avg', lambda f: f.mean((2, 3))),
        ('max', lambda f: f.amax((2, 3))),
        ('avgmax', lambda f: (f.mean((2, 3)) + f.amax((2, 3))) / 2),
        ('catavgmax', lambda f: torch.cat([f.mean((2, 3)), f.amax((2, 3))], 1)),
        ('gem', lambda f: f.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)),
    ],
)
def test_pools(pool, naive):
    enc, x = ImageEncoder('test_efficientnet', pretrained=False, pool=pool).eval(), torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(enc(x), naive(enc.body.forward_features(x)))
    assert enc.n_out == enc(x).shape[1] and len(list(enc.pool.parameters())) == (pool == 'gem')


def test_pools_that_cannot_be_are_told():
    with pytest.raises(InputError, match="pool='mean'.*avgmax"):
        ImageEncoder('test_efficientnet', pretrained=False, pool='mean')
    with pytest.raises(InputError, match="pool='gem'.*test_vit.*no feature map"):
        ImageEncoder('test_vit', pretrained=False, pool='gem')
