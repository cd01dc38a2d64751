"""What batches of titles of like length ('buckets') change: the time of training, the quality of matching.

A title encoder (the first `--layers` of MiniLM's six; with 0 its word vectors alone) is trained twice with
each seed, in buckets and without, and all else alike: emoji titles, and those of Amazon-Google that have a
match, with products as groups; with ArcFace on shuffled titles, and with MultiSimilarity, a loss over pairs,
on batches of groups ('pk'). Row F1 is that of the held-out fold by the held-out protocol. `diff` is the mean
of paired differences, buckets minus none, of the listings' scores averaged over seeds, with its 95% interval
(`low`, `high`); `seed_low` and `seed_high` are the interval of the mean of the seeds' own differences, which
says how sure it is for these listings; `time` is the ratio of the seconds of training, `tokens` that of the
tokens in batches, padding included.

`python tests/bench/buckets.py [--seeds 5] [--layers 2] [--sets emoji amazon_google] [--out nbs/buckets.csv]`
"""
import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from fastmatch.callback.base import SkippableCallback
from fastmatch.core import seed_everything
from fastmatch.data.block import MatchDataLoaders
from fastmatch.learner import match_learner
from fastmatch.losses import ArcFace, MultiSimilarity
from fastmatch.match import Dense, HeldOut, heldout, paired
from fastmatch.models.text import TitleEncoder, load_tokenizer

DATA = Path(__file__).resolve().parents[3]/'shared'/'data'
FILES = {'emoji': DATA/'emoji'/'listings.csv', 'amazon_google': DATA/'text'/'amazon_google.csv'}
EPOCHS = {'emoji': 3, 'amazon_google': 2}
# way -> (sampler, loss)
WAYS = {'ArcFace, shuffled': (None, lambda: ArcFace(m=.3, s=20)),
        'MultiSimilarity, pk': ('pk', MultiSimilarity)}
NEIGHBORS = 51
RATE = 2e-3


class CountTokens(SkippableCallback):
    "Counts the tokens of training batches, padding included."
    run_valid = False
    n_tokens = 0
    def before_batch(self): self.n_tokens += self.xb[-1].numel()


def listings(name: str) -> pd.DataFrame:
    "A data set with folds."
    df = pd.read_csv(FILES[name])
    df['title'] = df.title.fillna('').astype(str)
    has_mate = df.groupby('label_group').title.transform('size') > 1
    return df[has_mate & (df.title.str.strip() != '')].reset_index(drop=True)


def encoder(layers: int) -> TitleEncoder:
    "The lower layers of MiniLM, with their weights."
    made = TitleEncoder('all-MiniLM-L6-v2')
    del made.body.encoder.layer[layers:]
    made.tokenizer = load_tokenizer('all-MiniLM-L6-v2')
    return made


def trained(name, df, way: str, layers: int, seed: int, buckets: bool) -> tuple[HeldOut, dict]:
    "What the held-out fold scores after a training, and what that took."
    sampler, make_loss = WAYS[way]
    seed_everything(seed)
    dls = MatchDataLoaders.from_df(df, image_col=None, fold_col='fold' if 'fold' in df else None, seed=0,
                                   bs=64, num_workers=0, phash=False, sampler=sampler, buckets=buckets)
    if sampler: dls.train.sampler.seed = seed
    count = CountTokens()
    learn = match_learner(dls, text_arch=encoder(layers), loss_func=make_loss(), cbs=count)
    start = time.perf_counter()
    with learn.no_bar(), learn.no_logging():
        learn.fit_flat_cos(EPOCHS[name], RATE)
    seconds = time.perf_counter() - start
    embeddings = learn.embeddings()
    space = Dense(embeddings['title'])
    scored = heldout(space.search(NEIGHBORS), embeddings.groups)
    return scored, {'seconds': seconds, 'tokens': count.n_tokens}


def averaged(results: list) -> HeldOut:
    "The scores of listings, averaged over seeds."
    return HeldOut(np.mean([result.row_f1 for result in results], 0), results[0].clusters)


def compared(name: str, way: str, layers: int, seeds: int) -> dict:
    "A row of the table."
    df = listings(name)
    scores = {True: [], False: []}
    costs = {True: [], False: []}
    for seed in range(seeds):
        # in turns: whichever comes first may run beside other work
        for buckets in ((True, False), (False, True))[seed % 2]:
            scored, cost = trained(name, df, way, layers, seed, buckets)
            scores[buckets].append(scored)
            costs[buckets].append(cost)
        print(name, way, seed, *(f'{scores[side][-1].mean:.4f} {costs[side][-1]["seconds"]:.0f}s'
                                 for side in (True, False)), flush=True)
    gain = paired(averaged(scores[True]), averaged(scores[False]))
    by_seed = [with_buckets.mean - without.mean
               for with_buckets, without in zip(scores[True], scores[False])]
    def ratio(cost): return np.median([a[cost] / b[cost] for a, b in zip(costs[True], costs[False])])
    mean, margin = np.mean(by_seed), np.nan
    if seeds > 1: margin = stats.t.ppf(.975, seeds - 1) * np.std(by_seed, ddof=1) / np.sqrt(seeds)
    return {'set': name, 'way': way, 'layers': layers, 'listings': len(scores[True][0].row_f1),
            'seeds': seeds,
            'row_f1_buckets': averaged(scores[True]).mean, 'row_f1_none': averaged(scores[False]).mean,
            'diff': gain.diff, 'low': gain.low, 'high': gain.high,
            'seed_low': mean - margin, 'seed_high': mean + margin,
            'tokens': ratio('tokens'), 'time': ratio('seconds')}


def main(arguments=None):
    "Measure, print, and write the table."
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--layers', type=int, default=2)
    parser.add_argument('--sets', nargs='+', choices=list(FILES), default=list(FILES))
    parser.add_argument('--ways', nargs='+', choices=list(WAYS), default=list(WAYS))
    parser.add_argument('--out', type=Path)
    options = parser.parse_args(arguments)
    rows = []
    for name in options.sets:
        for way in options.ways:
            rows.append(compared(name, way, options.layers, options.seeds))
            table = pd.DataFrame(rows).round(4)
            if options.out: table.to_csv(options.out, index=False)
    print(table.to_string())


if __name__ == '__main__': main()
