"Where losses of different files must meet, and what a plain Learner makes of them."
# ruff: noqa: F403, F405
import pytest
import torch

from fastmatch.losses import *
from tests.losses.cases import WEIGHT, C, N, labels, rand


@pytest.mark.parametrize('loss, same_loss', [
    (ArcFace(m=0., s=9.), CrossEntropy(s=9.)),
    (CosFace(m=0., s=9.), CrossEntropy(s=9.)),
    (NormSoftmax(s=9.), CrossEntropy(s=9.)),
    (CombinedMargin(1., 0., 0., s=9.), CrossEntropy(s=9.)),
    (SphereFace(1., s=9.), CrossEntropy(s=9.)),
    (NormSoftmax(), CrossEntropy()),
    (CombinedMargin(1., 0., .35, s=9.), CosFace(.35, s=9.)),
    (CombinedMargin(3., 0., 0., s=9.), SphereFace(3., s=9.)),
    (ArcFace(m=[.3] * C), ArcFace(m=.3)),
    (ArcFace(m=class_margins([5] * C, .3)), ArcFace(m=.3)),
    (ArcFace(m=class_margins(range(1, C + 1), .3, 0)), ArcFace(.3)),
    (FocalLoss(0., WEIGHT, reduction='sum'), CrossEntropy(WEIGHT, reduction='sum')),
    (CrossEntropy([2.] * C), CrossEntropy()),
    (HardRows(CosFace(), 1.), CosFace()),
    (SumLoss({'a': ArcFace()}), ArcFace()),
    (SumLoss({'a': ArcFace(), 'b': CosFace()}, {'b': 0.}), ArcFace()),
])
def test_limits(loss, same_loss, output):
    torch.testing.assert_close(loss(output, labels()), same_loss(output, labels()))


def test_activation_and_decodes():
    logits = 3 * rand(N, C)
    torch.testing.assert_close(CrossEntropy().activation(logits), logits.softmax(1))
    assert torch.equal(FocalLoss().decodes(logits), logits.argmax(1))
    assert CrossEntropy().activation({'image': logits})['image'] is logits
    loss = AsymmetricLoss(thresh=.7)
    assert torch.equal(loss.decodes(loss.activation(logits)), logits.sigmoid() > .7)
    # a classifier's scaled cosines are logits, a matching model's embeddings are left alone
    assert torch.equal(ArcFace().activation(logits), logits.softmax(1))
    assert ArcFace().activation({'image': logits})['image'] is logits
    assert torch.equal(ArcFace().decodes(logits), logits.argmax(1))
    masks = rand(2, 1, 3, 3)
    assert torch.equal(SoftDice().decodes(SoftDice().activation(masks)), (masks > 0).long()[:, 0])
    class_masks = rand(2, 3, 3, 3)
    assert torch.equal(Lovasz().decodes(Lovasz().activation(class_masks)), class_masks.argmax(1))
    assert torch.equal(HardRows(CrossEntropy()).activation(logits), logits.softmax(1))
    assert torch.equal(SumLoss({'a': CrossEntropy()}).decodes(logits), logits.argmax(1))


FEATURES, MAP = rand(32, 5).float(), rand(5, 3, seed=2).float()
CLASSES = (FEATURES @ MAP).argmax(1)


@pytest.mark.parametrize('loss, targets', [
    (FocalLoss(), CLASSES), (AsymmetricLoss(), (FEATURES @ MAP > 0).float()),
    (SumLoss({'a': CrossEntropy(), 'b': FocalLoss()}), CLASSES)], ids=['focal', 'asymmetric', 'sum'])
def test_fastais_learner_takes_them(loss, targets):
    "Training, validation, predictions, decoded labels and a loss a row from a plain fastai Learner."
    from fastai.callback import progress  # noqa: F401  gives Learner its no_bar
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.learner import Learner
    torch.manual_seed(0)
    loader = DataLoader(list(zip(FEATURES, targets)), bs=8)
    learner = Learner(DataLoaders(loader, loader), torch.nn.Linear(5, 3), loss_func=loss)
    with learner.no_bar(), learner.no_logging():
        learner.fit(8, .05)
        first_loss, last_loss = learner.recorder.values[0][1], learner.recorder.values[-1][1]
        returned = learner.get_preds(with_decoded=True, with_loss=True)
    predictions, returned_targets, decoded, row_losses = returned
    logits = learner.model(FEATURES).detach()
    torch.testing.assert_close(predictions, loss.activation(logits))
    assert (decoded == targets).float().mean() > .8
    assert row_losses.shape == (32,) and torch.equal(returned_targets, targets)
    torch.testing.assert_close(row_losses.mean(), loss(logits, targets).detach())
    assert last_loss < .7 * first_loss
