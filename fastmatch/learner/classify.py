"A fastai Learner for labels of listings: pictures, title or both; tables and pictures of what it gets wrong."
import numpy as np
import pandas as pd
from fastai.metrics import accuracy
from fastcore.basics import patch
from sklearn.metrics import precision_recall_fscore_support
from torch import nn

from ..callback.heads import HeadLabels, PlainValidLoss
from ..callback.scoring import GroupRates
from ..core import InputError
from ..data.classify import ClassifyDataLoaders
from ..data.read import read_image
from ..data.show import draw_listing, grid
from ..layers.heads import CosineHead
from ..losses import CrossEntropy
from ..losses.base import Loss
from ..metrics import MacroF1
from ..models import ClassifyNet
from ..optim import adamw
from .base import LR_MULT, ListingLearner, groups_splitter, make_encoders


class ClassifyLearner(ListingLearner):
    "A `Learner` for labelled items; made by `classify_learner`."


def classify_learner(
    dls,  # `ClassifyDataLoaders`
    image_arch: str | None = 'tf_efficientnet_lite0',  # As for `match_learner`
    text_arch: str | None = 'all-MiniLM-L6-v2',  # As for `match_learner`
    loss_func=None,  # Default `CrossEntropy()`; a sum over the heads; margin losses want `head_func=CosineHead`
    opt_func=adamw,  # fastai optimizer function
    metrics=None,  # Default `[accuracy, MacroF1()]`
    cbs=None,  # More callbacks
    pretrained: bool = True,  # Load pretrained weights
    normalize: bool = True,  # Normalise images as the image encoder's weights were trained
    pool: str = 'mean',  # Pooling of the title encoder: 'mean' or 'cls'
    image_pool: str | None = None,  # Pooling of the image encoder, as for `match_learner`
    p: float = .2,  # Dropout before the head
    head_func=nn.Linear,  # (width, classes) -> head, one for each modality
    weights: dict | None = None,  # How much a modality has to say in evaluation: {'image': .5}; 1 where not named
    lr_mult: dict | None = None,  # Factor on a single learning rate by group; default `LR_MULT`, `{}` for none
    wd: float | None = .01,  # Weight decay
    **kwargs,  # For `Learner`
) -> ClassifyLearner:
    "A Learner that classifies items by their pictures, their text, or both."
    if not isinstance(dls, ClassifyDataLoaders): raise InputError('dls: make them with ClassifyDataLoaders.from_df')
    image, title = make_encoders(dls, image_arch, text_arch, pretrained, normalize, pool, image_pool)
    model = ClassifyNet(len(dls.vocab), image, title, dls.frames, p, head_func, weights)
    if len(model.heads) > 1 and loss_func is not None and not isinstance(loss_func, Loss):
        raise InputError(f'loss_func={loss_func!r}: picture and text have a head each, and a loss of fastmatch.losses sums over them')
    learn = ClassifyLearner(dls, model, CrossEntropy() if loss_func is None else loss_func, opt_func=opt_func, splitter=groups_splitter,
                            metrics=[accuracy, MacroF1()] if metrics is None else metrics, wd=wd, **kwargs)
    learn.add_cbs([HeadLabels(), GroupRates(LR_MULT if lr_mult is None else lr_mult)])
    if any(isinstance(o, CosineHead) for o in model.heads.values()): learn.add_cb(PlainValidLoss())
    learn.add_cbs(cbs)
    learn.model.to(dls.device)
    return learn


@patch
def predictions(
    self: ClassifyLearner,
    df=None,  # Items with the columns `dls` was made with; default the validation items
) -> pd.DataFrame:  # id, `label`, `prob`, and a column of probabilities for each class
    "The likeliest class of each item, and the probability of every class."
    dls, id_col = self.dls, self.dls.columns.id
    if df is None: rows, dl = dls.valid_df, dls.valid
    else:
        rows = dls.widen(df)
        dl = dls.test_dl(rows)
    with self.no_bar(): probs = self.get_preds(dl=dl)[0].float().numpy()
    vocab = list(dls.vocab)
    return pd.DataFrame({id_col: rows[id_col].to_numpy(), 'label': np.array(vocab, dtype=object)[probs.argmax(1)], 'prob': probs.max(1),
                         **{v: probs[:, i] for i, v in enumerate(vocab)}})


def _validated(self):
    "Probabilities (n,c), classes (n,) and losses (n,) of the validation items."
    if not len(self.dls.valid_df): raise InputError('the dataloaders hold no items for validation')
    with self.no_bar(): probs, y, loss = self.get_preds(dl=self.dls.valid, with_loss=True)
    return probs.float().numpy(), y.numpy(), loss.float().numpy()


@patch
def class_table(
    self: ClassifyLearner,
) -> pd.DataFrame:  # a row a class and 'macro': precision, recall, f1, n
    "Precision, recall and F1 of each class on the validation items, and their plain mean."
    probs, y, _ = _validated(self)
    vocab = list(self.dls.vocab)
    p, r, f, n = precision_recall_fscore_support(y, probs.argmax(1), labels=range(len(vocab)), zero_division=0)
    res = pd.DataFrame({'precision': p, 'recall': r, 'f1': f, 'n': n}, index=vocab)
    # a class without validation items has no score to average
    res.loc['macro'] = [*res[res.n > 0][['precision', 'recall', 'f1']].mean(), n.sum()]
    return res.astype({'n': int})


def _views(dls, row):
    "The pictures of an item side by side, each as high as the first, or None."
    files = list(dict.fromkeys(row[o] for o in dls.image_columns))
    if not files: return None
    images = [read_image(dls.image_folder/str(o)) for o in files]
    h = images[0].height
    images = [o.resize((max(1, round(o.width * h / o.height)), h)) for o in images]
    return np.concatenate([np.asarray(o) for o in images], 1)


def _draw(self, axes, rows, notes):
    text = self.dls.columns.title
    for ax, i, (note, color) in zip(axes, rows, notes):
        row = self.dls.valid_df.iloc[i]
        ax.axis('on')
        draw_listing(ax, _views(self.dls, row), '' if text is None else row[text], note, color)


@patch
def show_worst(
    self: ClassifyLearner,
    n: int = 8,  # Items to show
    cols: int = 4,  # Items in a row
):
    "Show the validation items with the largest loss: what was said, how surely, and what is true."
    probs, y, loss = _validated(self)
    rows = np.argsort(-loss, kind='stable')[:n]
    axes = grid(-(-len(rows) // cols), min(cols, len(rows)), 2.4)
    vocab, said = self.dls.vocab, probs.argmax(1)
    _draw(self, axes.flat, rows, [(f'{vocab[said[i]]} {probs[i, said[i]]:.2f}\nis {vocab[y[i]]} {probs[i, y[i]]:.2f}',
                                   'tab:green' if said[i] == y[i] else 'tab:red') for i in rows])


@patch
def confusions(
    self: ClassifyLearner,
) -> pd.DataFrame:  # `true`, `said`, `n`, `share` of the true class; most frequent first
    "Which classes the validation items of a class were taken for."
    probs, y, _ = _validated(self)
    wrong = probs.argmax(1) != y
    vocab = np.array(list(self.dls.vocab), dtype=object)
    res = pd.DataFrame({'true': vocab[y[wrong]], 'said': vocab[probs.argmax(1)[wrong]]}).value_counts().rename('n').reset_index()
    sizes = pd.Series(vocab[y]).value_counts()
    return res.assign(share=res.n / res.true.map(sizes).astype(float))


@patch
def show_confusions(
    self: ClassifyLearner,
    n: int = 3,  # Pairs of classes, the most frequent first
    k: int = 4,  # Items of each, the surest first
):
    "Show what the most frequent confusions look like, a pair of classes a row."
    probs, y, _ = _validated(self)
    said, vocab = probs.argmax(1), self.dls.vocab
    pairs, counts = np.unique(np.stack([y, said])[:, said != y], axis=1, return_counts=True)
    top = np.argsort(-counts, kind='stable')[:n]
    if not len(top): return
    axes = grid(len(top), min(k, int(counts[top].max())), 2.4)
    for line, at in zip(axes, top):
        a, b = pairs[:, at]
        rows = np.flatnonzero((y == a) & (said == b))
        rows = rows[np.argsort(-probs[rows, b], kind='stable')][:k]
        _draw(self, line, rows, [(f'{vocab[b]} {probs[i, b]:.2f}\nis {vocab[a]}', 'tab:red') for i in rows])
