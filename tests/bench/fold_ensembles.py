"""What an ensemble of folds is worth for matching: row F1 in the catalogue, against one model of its budget.

One fold is withheld and looked up among all listings. The other folds are trained on: an encoder of pictures
for each of them, held out in turn (`epochs` each), whose vectors stand side by side; one model of all of them
for as many batches together; and one of all of them for `epochs`, which costs a fraction. Thresholds and
weights are chosen on half of the withheld groups and scored on the other half.

`python tests/bench/fold_ensembles.py emoji|luma [--test 0] [--epochs 4] [--size 96] [--seeds 1]`
"""
import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from fastai.vision.augment import Resize

from fastmatch.core import seed_everything
from fastmatch.data.augment import augs
from fastmatch.data.block import MatchDataLoaders
from fastmatch.learner import match_learner
from fastmatch.match import Embeddings, heldout, in_the_catalogue, paired
from fastmatch.match.search.ladder import ladder
from fastmatch.semi import FoldEnsemble, train_folds
from tests.bench.quality import SETS

RATE = 2e-3


def learner_of(df, path, fold, seed, size):
    "A learner of pictures that holds out a fold, or none."
    loaders = MatchDataLoaders.from_df(df, path/'images', text_col=None, fold_col='fold', valid_fold=fold,
                                       item_tfms=Resize(size), batch_tfms=augs('colour'), bs=32,
                                       num_workers=0, seed=seed, phash=False)
    return match_learner(loaders)


def fit(learner, epochs):
    with learner.no_bar(), learner.no_logging(): learner.fit_flat_cos(epochs, RATE)


def judged(embeddings, df, test):
    "Row F1 of the withheld fold in the catalogue: by pictures, and by pictures and titles."
    with_titles = Embeddings(embeddings, embeddings.ids, df.title.tolist(), df.label_group.to_numpy())
    setting = in_the_catalogue(with_titles, (df.fold == test).to_numpy())
    return {'image': heldout(setting.spaces['image'].search(50), setting.groups),
            'fused': ladder(setting, 'plain', pools=False).heldout}


def ways(df, path, test, epochs, size, seed, folder):
    "Each way's embeddings of all listings, with the seconds of its training."
    inner = df[df.fold != test].reset_index(drop=True)
    inner['fold'] = inner.fold.rank(method='dense').astype(int) - 1
    n_folds = inner.fold.nunique()

    def make(fold, fold_seed): return learner_of(inner, path, fold, fold_seed, size)
    start = time.time()
    run = train_folds(make, lambda learner: fit(learner, epochs), folder, n_folds=n_folds, seeds=seed)
    seconds = time.time() - start
    yield 'folds', FoldEnsemble(run).embed(df), seconds
    yield 'one of the folds', run.learner(0, seed).embeddings(df), seconds / n_folds
    for name, times in (('one model, same budget', n_folds - 1), ('one model', 1)):
        seed_everything(seed)
        learner = learner_of(inner, path, None, seed, size)
        start = time.time()
        fit(learner, epochs * times)
        yield name, learner.embeddings(df), time.time() - start


def measure(name, test, epochs, size, seeds):
    "A row for each seed, way and rule: row F1, and the difference of the folds to it."
    path = SETS[name][0]
    df = pd.read_csv(path/'listings.csv', keep_default_na=False)
    rows = []
    for seed in range(seeds):
        found = {}
        with tempfile.TemporaryDirectory() as folder:
            for way, embeddings, seconds in ways(df, path, test, epochs, size, seed, Path(folder)/'run'):
                found[way] = judged(embeddings, df, test), seconds
                print(way, {rule: round(scores.mean, 4) for rule, scores in found[way][0].items()},
                      f'{seconds:.0f} s', flush=True)
        for way, (scores, seconds) in found.items():
            for rule, of_rule in scores.items():
                gain = paired(found['folds'][0][rule], of_rule)
                rows.append({'set': name, 'test': test, 'epochs': epochs, 'size': size, 'seed': seed,
                             'way': way, 'rule': rule, 'row_f1': of_rule.mean, 'se': of_rule.se,
                             'folds_over_it': gain.diff, 'low': gain.low, 'high': gain.high,
                             'seconds': round(seconds)})
    return pd.DataFrame(rows).round(4)


def main():
    warnings.filterwarnings('ignore', category=FutureWarning)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('name', choices=SETS)
    for setting, default in dict(test=0, epochs=4, size=96, seeds=1).items():
        parser.add_argument(f'--{setting}', type=int, default=default)
    parser.add_argument('--out', type=Path, help='CSV to write')
    options = vars(parser.parse_args())
    out = options.pop('out')
    table = measure(**options)
    print(table.to_string(index=False))
    if out: table.assign(command='python tests/bench/fold_ensembles.py').to_csv(out, index=False)


if __name__ == '__main__': main()
