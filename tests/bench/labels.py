"""What pictures add to text, and what each loss is worth, in macro-F1 on fritzing's 12 categories.

`python tests/bench/labels.py NAME... --out DIR`
"""
import argparse
import gc
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from fastai.vision.augment import Resize, ResizeMethod
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from torch import nn

from fastmatch.core import seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.data.columns import Columns
from fastmatch.learner import classify_learner
from fastmatch.losses import AsymmetricLoss, CrossEntropy, FocalLoss, HardRows, class_weights

FRITZING = Path(__file__).resolve().parents[3]/'shared'/'data'/'fritzing'
LOSSES = {  # on a head over the frozen text encoder: seconds a seed, so that small differences show
    'cross-entropy': lambda n: CrossEntropy(),
    'smoothing': lambda n: CrossEntropy(label_smoothing=0.1),
    'weighted (sqrt)': lambda n: CrossEntropy(class_weights(n)),
    'weighted (inverse)': lambda n: CrossEntropy(class_weights(n, 'inverse')),
    'focal': lambda n: FocalLoss(),
    'asl': lambda n: AsymmetricLoss(),
    'hard half': lambda n: HardRows(CrossEntropy(), 0.5),
}


def parts() -> pd.DataFrame:
    "The parts that have a category."
    df = pd.read_csv(FRITZING/'parts.csv')
    return df[df.category.notna()].reset_index(drop=True)


def tfidf(df, fold):
    """Probabilities (n,c) of the fold's parts by words of title and description: TF-IDF and logistic
    regression."""
    text, held = df.title + '. ' + df.description.fillna(''), (df.fold == fold).to_numpy()
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2),
        LogisticRegression(C=100, max_iter=3000, class_weight='balanced'),
    )
    return model.fit(text[~held], df.category[~held]).predict_proba(text[held])


def learner(
    df,
    fold,
    fn_col='images',
    text_col=('title', 'description'),
    seed=0,
    size=64,
    frames=4,
    bs=32,
    max_len=64,
    **kwargs,
):
    "A `classify_learner` that holds `fold` out."
    seed_everything(seed)
    dls = ClassifyDataLoaders.from_df(
        df,
        FRITZING / 'images',
        Columns(
            id='part_id',
            image=fn_col,
            title=None if text_col is None else list(text_col),
            group='category',
            fold='fold',
        ),
        frames if fn_col else 1,
        fold,
        seed=seed,
        item_tfms=Resize(size, method=ResizeMethod.Squish),
        batch_tfms=augs('flip') if fn_col else None,
        bs=bs,
        num_workers=0,
        max_len=max_len,
        phash=False,
    )
    return classify_learner(dls, **kwargs)


def learnt(df, fold, epochs=5, lr=2e-3, **kwargs):
    "Probabilities (n,c) of the fold's parts by `classify_learner`, encoders and all."
    learn = learner(df, fold, **kwargs)
    with learn.no_bar(), learn.no_logging(): learn.fit_flat_cos(epochs, lr)
    probs = learn.predictions()[sorted(df.category.unique())].to_numpy()
    del learn
    gc.collect()
    return probs


def frozen_features(df, **kwargs) -> torch.Tensor:  # (n,d)
    "What one untrained encoder says of every part, of unit length."
    learn = learner(df, 0, **kwargs)
    model, dl = learn.model.eval(), learn.dls.test_dl(learn.dls.widen(df))
    with torch.inference_mode():
        parts = [model.features(*(item.as_subclass(torch.Tensor) for item in b)) for b in dl]
    return F.normalize(torch.cat([next(iter(p.values())) for p in parts]))


def head_learnt(df, fold, feats, loss, seed, steps=300, lr=3e-3, wd=.01):
    """Probabilities (n,c) of the fold's parts by `classify_learner`'s head on frozen features: BatchNorm,
    dropout and a linear layer."""
    torch.manual_seed(seed)
    y, names = pd.factorize(df.category, sort=True)
    held, y = torch.tensor((df.fold == fold).to_numpy()), torch.tensor(y)
    net = nn.Sequential(nn.BatchNorm1d(feats.shape[1]), nn.Dropout(.2), nn.Linear(feats.shape[1], len(names)))
    opt, loss_func = (
        torch.optim.AdamW(net.parameters(), lr, weight_decay=wd),
        LOSSES[loss](torch.bincount(y[~held], minlength=len(names))),
    )
    for _ in range(steps):
        loss_func(net(feats[~held]), y[~held]).backward()
        opt.step()
        opt.zero_grad()
    with torch.inference_mode(): return loss_func.activation(net.eval()(feats[held])).numpy()


def score(df, probs, names=None):
    "Macro-F1 of probabilities whose columns are `names`; default the categories of `df`."
    return f1_score(
        df.category,
        np.array(sorted(df.category.unique()) if names is None else names)[probs.argmax(1)],
        average='macro',
    )


WEIGHTS = (.1, .2, .3, .5, .7, 1.)


def blend(df, text, views):
    """The heads' say put together as in evaluation; the views' weight for a fold is the one that did best on
    the other folds' parts."""
    result = np.log(np.clip(text, 1e-6, None))
    for fold in sorted(df.fold.unique()):
        held = (df.fold == fold).to_numpy()
        both = {weights: result + weights * np.log(np.clip(views, 1e-6, None)) for weights in WEIGHTS}
        best = max(WEIGHTS, key=lambda weights: score(df[~held], both[weights][~held]))
        yield held, best, both[best][held]


def put_together(df, text, views):
    result = np.zeros_like(text)
    for held, _, p in blend(df, text, views): result[held] = p
    return result


# what is compared with what: the pictures' share with the text kept as it is, and each loss with plain cross-
# entropy
TABLE = {
    'tfidf': None,
    'text': 'tfidf',
    'frozen views': None,
    'text + frozen views': 'text',
    'tfidf + frozen views': 'tfidf',
    'cross-entropy + frozen views': 'cross-entropy',
    **{item: 'cross-entropy' if item != 'cross-entropy' else None for item in LOSSES},
}


def paired(df, a, b, n=2000, seed=0):
    """Macro-F1 of `a` less that of `b`, each probabilities a seed, with the 95% interval of a bootstrap over
    parts."""
    y, names = pd.factorize(df.category, sort=True)
    rng, c = np.random.default_rng(seed), len(names)
    def f1(p, i):
        hit = np.bincount(y[i][p[i] == y[i]], minlength=c)
        return (
            2 * hit / np.maximum(1, np.bincount(p[i], minlength=c) + np.bincount(y[i], minlength=c))
        ).mean()

    def diff(i): return np.mean([f1(p.argmax(1), i) for p in a]) - np.mean([f1(p.argmax(1), i) for p in b])
    draws = [diff(rng.integers(len(y), size=len(y))) for _ in range(n)]
    return diff(np.arange(len(y))), *np.quantile(draws, [.025, .975])


def table(df, folder) -> pd.DataFrame:
    "Macro-F1 of what lies in `folder`, and the paired differences of `TABLE`."
    found = {}
    for name in TABLE:
        if ' + ' in name: continue
        all_seeds = [np.load(item) for item in sorted(folder.glob(f'{name}_?.npy'))]
        # runs that were cut off wait for their folds
        if all_seeds := [all_seed for all_seed in all_seeds if not np.isnan(all_seed).any()]:
            found[name] = all_seeds
    for name in TABLE:
        a, _, b = name.partition(' + ')
        if b and a in found and b in found:
            found[name] = [put_together(df, found[a][i % len(found[a])], v) for i, v in enumerate(found[b])]
    rows = []
    for name, ref in TABLE.items():
        if name not in found: continue
        scores = [score(df, p) for p in found[name]]
        row = {
            'name': name,
            'seeds': len(scores),
            'macro_f1': np.mean(scores),
            'spread': np.std(scores, ddof=1) if len(scores) > 1 else np.nan,
        }
        for fromkey in dict.fromkeys((ref, 'tfidf' if '+ frozen' in name else ref)):
            if fromkey in found:
                rows.append(
                    row
                    | dict(
                        zip(
                            ('over', 'diff', 'low', 'high'),
                            (fromkey, *paired(df, found[name], found[fromkey])),
                        )
                    )
                )
        if ref not in found: rows.append(row)
    return pd.DataFrame(rows).round(3)


if __name__ == '__main__':
    warnings.filterwarnings('ignore', category=FutureWarning, message='.*torch.jit.*')
    p = argparse.ArgumentParser()
    p.add_argument(
        'names',
        nargs='+',
        help="'tfidf', 'text', 'views' (encoders trained), 'frozen views', or a loss "
        "(its head on the frozen text encoder): "
        + ', '.join(LOSSES),
    )
    p.add_argument(
        '--out',
        type=Path,
        required=True,
        help='folder of probabilities, a file a name and seed; what is there is kept',
    )
    p.add_argument('--seeds', type=int, nargs='*', default=[0])
    p.add_argument(
        '--table', type=Path, help='CSV of the figures and paired differences of all that is in the folder'
    )
    for o, t in dict(epochs=int, size=int, frames=int, lr=float, bs=int, max_len=int).items():
        p.add_argument(f'--{o}', type=t)
    a = vars(p.parse_args())
    names, out, seeds, csv = (a.pop(item) for item in ('names', 'out', 'seeds', 'table'))
    given, df = {name: value for name, value in a.items() if value is not None}, parts()
    out.mkdir(parents=True, exist_ok=True)
    kinds, feats = {'text': dict(fn_col=None), 'views': dict(text_col=None)}, {}
    for seed in seeds:
        for name in names:
            file = out/f'{name}_{seed}.npy'
            res = np.load(file) if file.exists() else np.full((len(df), df.category.nunique()), np.nan)
            for fold in sorted(df.fold.unique()):
                rows = (df.fold == fold).to_numpy()
                if not np.isnan(res[rows]).any(): continue
                if name == 'tfidf': res[rows] = tfidf(df, fold)
                elif name in kinds: res[rows] = learnt(df, fold, seed=seed, **kinds[name], **given)
                else:
                    only = dict(text_col=None) if name == 'frozen views' else dict(fn_col=None)
                    if (key := tuple(only)) not in feats: feats[key] = frozen_features(df, **only, **given)
                    res[rows] = head_learnt(
                        df, fold, feats[key], 'cross-entropy' if name == 'frozen views' else name, seed
                    )
                np.save(file, res)
                print(f'{name} seed {seed} fold {fold}: {score(df[rows], res[rows]):.3f}', flush=True)
    rows = table(df, out)
    if csv: rows.to_csv(csv, index=False)
    print(rows.to_string(index=False))
