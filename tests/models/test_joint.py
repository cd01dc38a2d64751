"The model's two faces: cosines in training, unit embeddings in evaluation, with its heads and groups."
import pytest
import torch
import torch.nn.functional as F

from fastmatch.core import HeadOutput, InputError
from fastmatch.layers.heads import CenterHead
from fastmatch.models import MatchNet


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
