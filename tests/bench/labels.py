"What pictures add to text, and what each loss is worth, in macro-F1 on fritzing's 12 categories. `python tests/bench/labels.py NAME... --out DIR`"
import argparse
import gc
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from fastai.vision.augment import Resize, ResizeMethod
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline

from fastmatch.core import seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.classify import ClassifyDataLoaders
from fastmatch.learner import classify_learner
from fastmatch.losses import AsymmetricLoss, CrossEntropy, FocalLoss, class_weights

FRITZING = Path(__file__).resolve().parents[3]/'shared'/'data'/'fritzing'
LOSSES = {
    'cross-entropy': lambda dls: CrossEntropy(), 'smoothing': lambda dls: CrossEntropy(label_smoothing=.1),
    'weighted': lambda dls: CrossEntropy(class_weights(dls)), 'focal': lambda dls: FocalLoss(), 'asl': lambda dls: AsymmetricLoss()}


def parts() -> pd.DataFrame:
    "The parts that have a category."
    df = pd.read_csv(FRITZING/'parts.csv')
    return df[df.category.notna()].reset_index(drop=True)


def tfidf(df, fold):
    "Probabilities (n,c) of the fold's parts by words of title and description: TF-IDF and logistic regression."
    text, held = df.title + '. ' + df.description.fillna(''), (df.fold == fold).to_numpy()
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2), LogisticRegression(C=100, max_iter=3000, class_weight='balanced'))
    return model.fit(text[~held], df.category[~held]).predict_proba(text[held])


def learnt(df, fold, fn_col='images', text_col=('title', 'description'), loss='cross-entropy', seed=0, size=96, frames=4, epochs=8, lr=2e-3, bs=32, max_len=128, echo=print):
    "Probabilities (n,c) of the fold's parts by `classify_learner`, and the seconds it took."
    seed_everything(seed)
    start = time.perf_counter()
    dls = ClassifyDataLoaders.from_df(df, FRITZING/'images', fn_col, None if text_col is None else list(text_col), 'category', 'part_id', frames if fn_col else 1,
                                      'fold', fold, seed=seed, item_tfms=Resize(size, method=ResizeMethod.Squish), batch_tfms=augs('flip') if fn_col else None,
                                      bs=bs, num_workers=0, max_len=max_len, phash=False)
    learn = classify_learner(dls, loss_func=LOSSES[loss](dls))
    with learn.no_bar(), learn.no_logging(): learn.fit_flat_cos(epochs, lr)
    got = learn.predictions()
    probs = got[sorted(df.category.unique())].to_numpy()
    del learn
    gc.collect()
    return probs, time.perf_counter() - start


def score(df, probs): return f1_score(df.category, np.array(sorted(df.category.unique()))[probs.argmax(1)], average='macro')


def blend(*probs): return sum(np.log(np.clip(p, 1e-4, None)) for p in probs)


# what is compared with what: the pictures' share with the text kept as it is, and each loss with plain cross-entropy
TABLE = {('tfidf',): None, ('text',): ('tfidf',), ('views',): ('tfidf',), ('both',): ('text',), ('tfidf', 'text'): ('tfidf',), ('tfidf', 'views'): ('tfidf',),
         ('tfidf', 'both'): ('tfidf', 'text'), **{(o,): ('both',) for o in LOSSES if o != 'cross-entropy'}}


def paired(df, a, b, n=2000, seed=0):
    "Macro-F1 of `a` less that of `b`, each probabilities a seed, with the 95% interval of a bootstrap over parts."
    y, names = pd.factorize(df.category, sort=True)
    rng, c = np.random.default_rng(seed), len(names)
    def f1(p, i):
        hit = np.bincount(y[i][p[i] == y[i]], minlength=c)
        return (2 * hit / np.maximum(1, np.bincount(p[i], minlength=c) + np.bincount(y[i], minlength=c))).mean()
    def diff(i): return np.mean([f1(p.argmax(1), i) for p in a]) - np.mean([f1(p.argmax(1), i) for p in b])
    draws = [diff(rng.integers(len(y), size=len(y))) for _ in range(n)]
    return diff(np.arange(len(y))), *np.quantile(draws, [.025, .975])


def table(df, folder) -> pd.DataFrame:
    "Macro-F1 of what lies in `folder`, and the paired differences of `TABLE`."
    rows = []
    def load(names):
        seeds = [sorted(folder.glob(f'{o}_?.npy')) for o in names]
        many = max(map(len, seeds), default=0)
        # what has no seed (TF-IDF) goes with every seed of the others
        return [blend(*(np.load(o[i % len(o)]) for o in seeds)) for i in range(many)] if all(seeds) else []
    for names, ref in TABLE.items():
        if not (a := load(names)): continue
        scores = [score(df, p) for p in a]
        row = {'name': ' + '.join(names), 'seeds': len(a), 'macro_f1': np.mean(scores), 'spread': np.std(scores, ddof=1) if len(a) > 1 else np.nan}
        if ref and (b := load(ref)): row |= dict(zip(('over', 'diff', 'low', 'high'), (' + '.join(ref), *paired(df, a, b))))
        rows.append(row)
    return pd.DataFrame(rows).round(3)


if __name__ == '__main__':
    warnings.filterwarnings('ignore', category=FutureWarning, message='.*torch.jit.*')
    p = argparse.ArgumentParser()
    p.add_argument('names', nargs='+', help="'tfidf', 'text', 'views', 'both', or a loss: " + ', '.join(LOSSES))
    p.add_argument('--out', type=Path, required=True, help='folder of probabilities, a file a name and seed; what is there is kept')
    p.add_argument('--seeds', type=int, nargs='*', default=[0])
    p.add_argument('--table', type=Path, help='CSV of the figures and paired differences of all that is in the folder')
    for o, t in dict(epochs=int, size=int, frames=int, lr=float, bs=int, max_len=int).items(): p.add_argument(f'--{o}', type=t)
    a = vars(p.parse_args())
    names, out, seeds, csv = (a.pop(o) for o in ('names', 'out', 'seeds', 'table'))
    given, df = {k: v for k, v in a.items() if v is not None}, parts()
    out.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for name in names:
            file = out/f'{name}_{seed}.npy'
            if not file.exists():
                res, seconds = np.zeros((len(df), df.category.nunique())), 0.
                for fold in sorted(df.fold.unique()):
                    kind = {'text': dict(fn_col=None), 'views': dict(text_col=None), 'both': {}}.get(name, dict(loss=name))
                    probs, s = (tfidf(df, fold), 0) if name == 'tfidf' else learnt(df, fold, seed=seed, **kind, **given)
                    res[(df.fold == fold).to_numpy()], seconds = probs, seconds + s
                    print(f'{name} seed {seed} fold {fold}: {score(df[df.fold == fold], probs):.3f}  {s:.0f} s', flush=True)
                np.save(file, res)
            print(f'{name:>16} seed {seed}: macro-F1 {score(df, np.load(file)):.3f}', flush=True)
    rows = table(df, out)
    if csv: rows.to_csv(csv, index=False)
    print(rows.to_string(index=False))
