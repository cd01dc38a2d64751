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
    'cross-entropy': lambda counts: CrossEntropy(),
    'smoothing': lambda counts: CrossEntropy(label_smoothing=0.1),
    'weighted (sqrt)': lambda counts: CrossEntropy(class_weights(counts)),
    'weighted (inverse)': lambda counts: CrossEntropy(class_weights(counts, 'inverse')),
    'focal': lambda counts: FocalLoss(),
    'asl': lambda counts: AsymmetricLoss(),
    'hard half': lambda counts: HardRows(CrossEntropy(), 0.5),
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
        FRITZING/'images',
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
    probabilities = learn.predictions()[sorted(df.category.unique())].to_numpy()
    del learn
    gc.collect()
    return probabilities


def frozen_features(df, **kwargs) -> torch.Tensor:  # (n,d)
    "What one untrained encoder says of every part, of unit length."
    learn = learner(df, 0, **kwargs)
    model, loader = learn.model.eval(), learn.dls.test_dl(learn.dls.widen(df))
    with torch.inference_mode():
        plain = ([tensor.as_subclass(torch.Tensor) for tensor in batch] for batch in loader)
        said = [model.features(*inputs) for inputs in plain]
    return F.normalize(torch.cat([next(iter(features.values())) for features in said]))


def head_learnt(df, fold, features, loss, seed, steps=300, lr=3e-3, wd=.01):
    """Probabilities (n,c) of the fold's parts by `classify_learner`'s head on frozen features: BatchNorm,
    dropout and a linear layer."""
    torch.manual_seed(seed)
    codes, names = pd.factorize(df.category, sort=True)
    held, targets = torch.tensor((df.fold == fold).to_numpy()), torch.tensor(codes)
    width = features.shape[1]
    head = nn.Sequential(nn.BatchNorm1d(width), nn.Dropout(.2), nn.Linear(width, len(names)))
    optimizer = torch.optim.AdamW(head.parameters(), lr, weight_decay=wd)
    loss_func = LOSSES[loss](torch.bincount(targets[~held], minlength=len(names)))
    for _ in range(steps):
        loss_func(head(features[~held]), targets[~held]).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.inference_mode(): return loss_func.activation(head.eval()(features[held])).numpy()


def score(df, probabilities, names=None):
    "Macro-F1 of probabilities whose columns are `names`; default the categories of `df`."
    names = np.array(sorted(df.category.unique()) if names is None else names)
    return f1_score(df.category, names[probabilities.argmax(1)], average='macro')


WEIGHTS = (.1, .2, .3, .5, .7, 1.)


def blend(df, text, views):
    """The heads' say put together as in evaluation; the views' weight for a fold is the one that did best on
    the other folds' parts."""
    log_text, log_views = (np.log(np.clip(probabilities, 1e-6, None)) for probabilities in (text, views))
    for fold in sorted(df.fold.unique()):
        held_out = (df.fold == fold).to_numpy()
        blended = {weight: log_text + weight * log_views for weight in WEIGHTS}
        best = max(WEIGHTS, key=lambda weight: score(df[~held_out], blended[weight][~held_out]))
        yield held_out, best, blended[best][held_out]


def put_together(df, text, views):
    "Scores of every part, each fold's by the weight that the others chose."
    result = np.zeros_like(text)
    for held_out, _, blended in blend(df, text, views): result[held_out] = blended
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
    **{loss: 'cross-entropy' if loss != 'cross-entropy' else None for loss in LOSSES},
}


def paired(df, ours, other, n_draws=2000, seed=0):
    """Macro-F1 of `ours` less that of `other`, each probabilities a seed, with the 95% interval of a
    bootstrap over parts."""
    codes, names = pd.factorize(df.category, sort=True)
    rng = np.random.default_rng(seed)

    def counts(labels): return np.bincount(labels, minlength=len(names))

    def macro_f1(predicted, true):
        right = counts(true[predicted == true])
        return (2 * right / np.maximum(1, counts(predicted) + counts(true))).mean()

    def mean_f1(seeds, rows):
        return np.mean([macro_f1(probabilities.argmax(1)[rows], codes[rows]) for probabilities in seeds])

    def difference(rows): return mean_f1(ours, rows) - mean_f1(other, rows)
    draws = [difference(rng.integers(len(codes), size=len(codes))) for _ in range(n_draws)]
    return difference(np.arange(len(codes))), *np.quantile(draws, [.025, .975])


def table(df, folder) -> pd.DataFrame:
    "Macro-F1 of what lies in `folder`, and the paired differences of `TABLE`."
    found = {}
    for name in TABLE:
        if ' + ' in name: continue
        runs = [np.load(file) for file in sorted(folder.glob(f'{name}_?.npy'))]
        # runs that were cut off wait for their folds
        runs = [run for run in runs if not np.isnan(run).any()]
        if runs: found[name] = runs
    for name in TABLE:
        first, _, second = name.partition(' + ')
        if second and first in found and second in found:
            found[name] = [put_together(df, found[first][i % len(found[first])], views)
                           for i, views in enumerate(found[second])]
    rows = []
    for name, reference in TABLE.items():
        if name not in found: continue
        scores = [score(df, probabilities) for probabilities in found[name]]
        row = {
            'name': name,
            'seeds': len(scores),
            'macro_f1': np.mean(scores),
            'spread': np.std(scores, ddof=1) if len(scores) > 1 else np.nan,
        }
        for over in dict.fromkeys((reference, 'tfidf' if '+ frozen' in name else reference)):
            if over not in found: continue
            difference, low, high = paired(df, found[name], found[over])
            rows.append({**row, 'over': over, 'diff': difference, 'low': low, 'high': high})
        if reference not in found: rows.append(row)
    return pd.DataFrame(rows).round(3)


if __name__ == '__main__':
    warnings.filterwarnings('ignore', category=FutureWarning, message='.*torch.jit.*')
    parser = argparse.ArgumentParser()
    parser.add_argument(
        'names',
        nargs='+',
        help="'tfidf', 'text', 'views' (encoders trained), 'frozen views', or a loss "
        "(its head on the frozen text encoder): "
        + ', '.join(LOSSES),
    )
    parser.add_argument('--out', type=Path, required=True,
                        help='folder of probabilities, a file a name and seed; what is there is kept')
    parser.add_argument('--seeds', type=int, nargs='*', default=[0])
    parser.add_argument('--table', type=Path,
                        help='CSV of the figures and paired differences of all that is in the folder')
    settings = dict(epochs=int, size=int, frames=int, lr=float, bs=int, max_len=int)
    for setting, kind in settings.items(): parser.add_argument(f'--{setting}', type=kind)
    options = vars(parser.parse_args())
    names, out, seeds, csv = (options.pop(option) for option in ('names', 'out', 'seeds', 'table'))
    given, df = {setting: value for setting, value in options.items() if value is not None}, parts()
    out.mkdir(parents=True, exist_ok=True)
    modalities = {'text': dict(fn_col=None), 'views': dict(text_col=None)}
    features = {}
    for seed in seeds:
        for name in names:
            file = out/f'{name}_{seed}.npy'
            shape = len(df), df.category.nunique()
            probabilities = np.load(file) if file.exists() else np.full(shape, np.nan)
            for fold in sorted(df.fold.unique()):
                held = (df.fold == fold).to_numpy()
                if not np.isnan(probabilities[held]).any(): continue
                if name == 'tfidf': probabilities[held] = tfidf(df, fold)
                elif name in modalities:
                    probabilities[held] = learnt(df, fold, seed=seed, **modalities[name], **given)
                else:
                    modality, loss = ('views', 'cross-entropy') if name == 'frozen views' else ('text', name)
                    if modality not in features:
                        features[modality] = frozen_features(df, **modalities[modality], **given)
                    probabilities[held] = head_learnt(df, fold, features[modality], loss, seed)
                np.save(file, probabilities)
                macro_f1 = score(df[held], probabilities[held])
                print(f'{name} seed {seed} fold {fold}: {macro_f1:.3f}', flush=True)
    rows = table(df, out)
    if csv: rows.to_csv(csv, index=False)
    print(rows.to_string(index=False))
