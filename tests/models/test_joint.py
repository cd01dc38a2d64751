"The model's two faces: cosines in training, unit embeddings in evaluation, with its heads and groups."
import pytest
import torch
import torch.nn.functional as F

from fastmatch.core import HeadOutput, InputError
from fastmatch.layers.heads import CenterHead
from fastmatch.layers.pooling import ProjectNeck
from fastmatch.models import MatchNet


class Fixed(torch.nn.Module):
    "A stand-in for a title encoder: a table of vectors by token."
    n_out = 6
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(10, 6)

    def forward(self, ids): return self.table(ids).mean(1)


def test_training_gives_cosines_evaluation_unit_embeddings(tiny_encoder):
    torch.manual_seed(0)
    model = MatchNet(7, tiny_encoder, Fixed())
    images, ids = torch.randn(4, 3, 64, 64), torch.randint(10, (4, 3))
    outputs = model.train()(images, ids)
    assert list(outputs) == ['image', 'title', 'joint']
    assert all(isinstance(output, HeadOutput) and output.cos.shape == (4, 7) for output in outputs.values())
    assert outputs['joint'].emb.shape == (4, tiny_encoder.n_out + 6)
    embeddings = model.eval()(images, ids)
    for name, embedding in embeddings.items():
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(4), msg=name)
    # an untouched neck lets the encoder's direction through (BatchNorm at its start is division by sqrt(1 +
    # eps))
    untrained = MatchNet(7, title=Fixed()).eval()
    torch.testing.assert_close(untrained(ids)['title'], F.normalize(untrained.encoders['title'](ids)))


def test_joint_weighs_both_modalities_alike(tiny_encoder):
    model = MatchNet(7, tiny_encoder, Fixed()).eval()
    images, ids = torch.randn(4, 3, 64, 64), torch.randint(10, (4, 3))
    outputs = {name: embedding.detach() for name, embedding in model(images, ids).items()}
    similarities = {name: embedding @ embedding.T for name, embedding in outputs.items()}
    torch.testing.assert_close(similarities['joint'], (similarities['image'] + similarities['title']) / 2)


def test_groups_hold_every_parameter_once(tiny_encoder):
    model = MatchNet(7, tiny_encoder, Fixed())
    groups = model.param_groups()
    assert list(groups) == ['image', 'title', 'head']
    assert sorted(id(parameter) for group in groups.values() for parameter in group) == sorted(
        id(parameter) for parameter in model.parameters()
    )


def test_heads_can_be_chosen_and_wrong_ones_are_named(tiny_encoder):
    assert list(MatchNet(7, tiny_encoder, Fixed(), heads=('joint',)).heads) == ['joint']
    with pytest.raises(InputError, match="'joint'"): MatchNet(7, tiny_encoder, heads=('joint',))
    with pytest.raises(InputError, match='2 inputs'):
        MatchNet(7, tiny_encoder)(torch.zeros(1, 3, 64, 64), torch.zeros(1, 2))


def test_pair_losses_can_read_the_feature_before_the_neck(tiny_encoder):
    torch.manual_seed(0)
    model, ids = MatchNet(7, title=Fixed(), neck='raw').train(), torch.randint(10, (8, 3))
    outputs = model(ids)['title']
    features = model.encoders['title'](ids)
    torch.testing.assert_close(outputs.emb, features)
    torch.testing.assert_close(
        outputs.cos, model.heads['title'](torch.nn.BatchNorm1d(6).train()(features)).cos, atol=1e-4, rtol=1e-3
    )
    torch.testing.assert_close(model.eval()(ids)['title'], F.normalize(model.necks['title'](features)))
    with pytest.raises(InputError, match="neck='bn'"): MatchNet(7, title=Fixed(), neck='bn')


def test_centers_are_a_group_of_their_own():
    model = MatchNet(7, title=Fixed(), head_func=CenterHead)
    groups = model.param_groups()
    assert list(groups) == ['title', 'centers', 'head']
    assert groups['centers'] == [model.heads['title'].centers]
    assert sorted(id(parameter) for group in groups.values() for parameter in group) == sorted(
        id(parameter) for parameter in model.parameters()
    )


def test_a_neck_may_be_made_by_a_function(tiny_encoder):
    from functools import partial
    torch.manual_seed(0)
    model = MatchNet(7, tiny_encoder, Fixed(), neck=partial(ProjectNeck, n_out=5)).eval()
    assert model.widths == {'image': 5, 'title': 5, 'joint': 5}
    images, ids = torch.randn(4, 3, 64, 64), torch.randint(10, (4, 3))
    features = model.encoders['title'](ids)
    expected = F.normalize(features @ model.necks['title'][1].weight.T)
    torch.testing.assert_close(model(images, ids)['title'], expected)
    assert {head.n_in for head in model.heads.values()} == {5}
    with pytest.raises(InputError, match='neck=ProjectNeck: give a function'):
        MatchNet(7, title=Fixed(), neck=ProjectNeck(6, 5))
    with pytest.raises(InputError, match='neck=ProjectNeck.*n_out'):
        MatchNet(7, title=Fixed(), neck=ProjectNeck)
    with pytest.raises(InputError, match='it makes int and no module'):
        MatchNet(7, title=Fixed(), neck=lambda width: width)
    with pytest.raises(InputError, match=r'neck=Linear: it can not read features \(2, 6\)'):
        MatchNet(7, title=Fixed(), neck=lambda width: torch.nn.Linear(3, 3))
