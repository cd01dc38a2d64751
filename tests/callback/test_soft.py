"Classifying by soft labels: the loss reads probabilities, metrics the likeliest class, in every kind of run."
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from fastai.learner import load_learner
from fastai.vision.augment import Resize
from sklearn.metrics import f1_score
from torch import nn

from fastmatch.callback.mining import HardMining
from fastmatch.callback.mix import CutMix, MixUp, mixed_loss
from fastmatch.core import InputError, seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.layers.heads import CosineHead
from fastmatch.learner import classify_learner
from fastmatch.losses import ArcFace, AsymmetricLoss, CrossEntropy, Distill, FocalLoss, HardRows, SoftTarget

VENDORS = ['fluent-emoji-flat', 'noto', 'twemoji']  # sorted, as the classes of a column are


def items(sharpness=.7):
    "Emoji with the probability of each vendor: `sharpness` that of the true one."
    sample = pd.read_csv(demo_path()/'listings.csv')
    sample = sample[sample.vendor.isin(VENDORS)].groupby('vendor').head(30).reset_index(drop=True)
    for vendor in VENDORS:
        sample[vendor] = np.where(sample.vendor == vendor, sharpness, (1 - sharpness) / 2)
    return sample


def make(folder, table=None, label_col=VENDORS, bs=16, frames=1, **kwargs):
    seed_everything(0)
    dls = ClassifyDataLoaders.from_df(
        items() if table is None else table, demo_path()/'images', text_col=None, label_col=label_col,
        fold_col='fold', item_tfms=Resize(32), batch_tfms=augs('none'), bs=bs, num_workers=0, phash=False,
        seed=0, frames=frames)
    return classify_learner(dls, 'test_efficientnet', pretrained=False, path=folder, **kwargs)


def fit(learner, epochs=1):
    with learner.no_bar(), learner.no_logging(): learner.fit(epochs, 2e-3)
    return learner


def test_the_loss_is_of_probabilities_and_metrics_of_the_likeliest_class(tmp_path):
    learner = fit(make(tmp_path), 2)
    _, valid_loss, accuracy, macro_f1 = learner.recorder.values[-1]
    assert isinstance(learner.loss_func, SoftTarget)
    probabilities, targets, losses = learner.get_preds(with_loss=True)
    np.testing.assert_allclose(targets, learner.dls.valid_df[VENDORS].to_numpy(), atol=1e-6)
    expected = -(targets * probabilities.log()).sum(1)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-4)
    assert valid_loss == pytest.approx(float(expected.mean()), rel=1e-4)
    predicted, true = probabilities.argmax(1), targets.argmax(1)
    assert accuracy == pytest.approx(float((predicted == true).float().mean()))
    assert macro_f1 == pytest.approx(f1_score(true, predicted, average='macro', zero_division=0))
    np.testing.assert_allclose(learner.validate(), [valid_loss, accuracy, macro_f1], rtol=1e-5)
    assert learner.class_table().loc['macro', 'f1'] == pytest.approx(macro_f1)
    assert learner.confusions().n.sum() == int((predicted != true).sum())
    learner.show_worst(2)
    found = learner.predictions(items(5).drop(columns=VENDORS))
    assert set(found.label) <= set(VENDORS) and len(found) == len(items())


def test_one_hot_labels_train_as_classes_do(tmp_path):
    runs = [fit(make(tmp_path, items(1.), label_col=label_col), 2) for label_col in (VENDORS, 'vendor')]
    soft, hard = runs
    assert isinstance(hard.loss_func, CrossEntropy) and list(soft.dls.vocab) == list(hard.dls.vocab)
    for ours, theirs in zip(soft.model.state_dict().values(), hard.model.state_dict().values()):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.array(soft.recorder.values, float), np.array(hard.recorder.values, float),
                               rtol=1e-5)


@pytest.mark.parametrize('loss', [SoftTarget(), nn.CrossEntropyLoss()], ids=['ours', "torch's"])
def test_a_mixture_is_the_blend_of_the_targets(loss):
    generator = torch.Generator().manual_seed(0)
    logits, *others = (torch.randn(9, 4, dtype=torch.float64, generator=generator) for _ in range(3))
    targets, partners = (each.softmax(1) for each in others)
    share = torch.rand(9, dtype=torch.float64, generator=generator)
    blended = share[:, None] * targets + (1 - share[:, None]) * partners
    torch.testing.assert_close(mixed_loss(loss, logits, (targets,), (partners,), share),
                               F.cross_entropy(logits, blended), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('callback', [MixUp, CutMix, lambda: HardMining(.5)],
                         ids=['MixUp', 'CutMix', 'mining'])
def test_callbacks_train_on_soft_labels(tmp_path, callback):
    learner = fit(make(tmp_path, cbs=callback()))
    assert np.isfinite(np.array(learner.recorder.values[-1], float)).all()


def test_exported_and_loaded(tmp_path):
    learner = fit(make(tmp_path))
    new_items = items().head(6).drop(columns=[*VENDORS, 'fold'])
    expected = learner.predictions(new_items)
    learner.export(tmp_path/'learn.pkl')
    pd.testing.assert_frame_equal(load_learner(tmp_path/'learn.pkl').predictions(new_items), expected)


@pytest.mark.parametrize('loss', [CrossEntropy(), FocalLoss(), HardRows(FocalLoss()), ArcFace(.2), Distill()],
                         ids=lambda loss: type(loss).__name__)
def test_losses_of_classes_are_refused_when_the_learner_is_made(tmp_path, loss):
    head_func = CosineHead if isinstance(loss, ArcFace) else nn.Linear
    with pytest.raises(InputError, match=rf'{type(loss).__name__}.*probability for each class: SoftTarget'):
        make(tmp_path, loss_func=loss, head_func=head_func)


def test_losses_and_heads_that_fit(tmp_path):
    for loss in (AsymmetricLoss(), nn.CrossEntropyLoss(label_smoothing=.1), HardRows(SoftTarget())):
        assert np.isfinite(fit(make(tmp_path, loss_func=loss)).recorder.values[-1][1])
    with pytest.raises(InputError, match='SoftTarget reads logits; it got HeadOutput'):
        make(tmp_path, head_func=CosineHead)
    with pytest.raises(InputError, match='of a column for each class'):
        make(tmp_path, label_col='vendor', loss_func=SoftTarget())


def test_loaders_of_the_other_kind_are_refused(tmp_path):
    soft, hard = make(tmp_path), make(tmp_path, label_col='vendor')
    with pytest.raises(InputError, match='hold one class of an item, and this .* probabilities'):
        soft.dls = hard.dls
    with pytest.raises(InputError, match='hold probabilities'): hard.dls = soft.dls


def test_metrics_of_training_batches(tmp_path):
    learner = make(tmp_path)
    learner.recorder.train_metrics = True
    fit(learner)
    assert 'train_accuracy' in learner.recorder.metric_names
