"""Titles of two shops: pair F1 of rules that were fitted on half of the products and scored on the other
half, beside published figures.

`python tests/bench/textsets.py [abt_buy amazon_google walmart_amazon] [--halvings 5] [--out
nbs/textsets.csv]`

Only titles are read. Every listing of the first shop is looked up among all of the second; a rule (weights,
threshold, whether only each other's best count,
and a pair model's trees) is chosen on the first shop's listings of half of the products, and what it predicts
for the other half's is counted; the halves are
swapped, and true and false positives of both added up to one F1, the mean over halvings. True pairs that the
search doesn't bring up count as missed.

Ditto (https://arxiv.org/abs/2004.00584) and DeepMatcher (https://doi.org/10.1145/3183713.3196926) are asked
something easier, and told more: they classify
labelled candidate pairs that a blocker left over (9,575 for Abt-Buy, 11,460 for Amazon-Google, 10,242 for
Walmart-Amazon, a ninth to a tenth of them true),
learn from 3/5 of them and are scored on 1/5, and read all columns, prices and descriptions included. Here
each listing meets all of the other shop's.
"""
import argparse
import itertools
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from fastmatch.match import Candidates, Dense, PairModel, Tfidf, candidates
from fastmatch.match.judge.groups import Groups
from fastmatch.match.judge.heldout import random_halves
from fastmatch.match.neighbors import group_codes
from fastmatch.match.pairs.features import pair_features
from fastmatch.match.pairs.learning import KnownPairs, random_parts
from tests.bench.million import SETS, TEXT, title_vectors

# Ditto, DeepMatcher (hybrid)
PUBLISHED = {'abt_buy': (89.33, 62.8), 'amazon_google': (75.58, 69.3), 'walmart_amazon': (86.76, 66.9)}
K, FOLDS = 20, 3


def across(cand: Candidates, shop: np.ndarray) -> Candidates:
    "The candidates of the other shop only, the listing itself still first."
    keep = (cand.ids >= 0) & (shop[cand.ids] != shop[:, None])
    keep[:, 0] = True
    order = np.argsort(~keep, axis=1, kind='stable')[:, :keep.sum(1).max()]
    kept = np.take_along_axis(keep, order, 1)
    take = lambda a, pad: np.where(kept, np.take_along_axis(a, order, 1), pad)
    return replace(
        cand,
        ids=take(cand.ids, -1),
        scores={name: take(s, np.float32(-np.inf)) for name, s in cand.scores.items()},
    )


def best_cut(score: np.ndarray, true: np.ndarray, positives: int) -> tuple[float, float]:  # (threshold, F1)
    "The cut with the best pair F1; equal scores come in together."
    if not len(score): return np.inf, 0.
    order = np.argsort(-score, kind='stable')
    s, right = score[order], true[order].cumsum()
    ends = np.flatnonzero(np.append(s[1:] != s[:-1], True))
    f1 = 2 * right[ends] / (ends + 1 + positives)
    at = f1.argmax()
    below = s[ends[at] + 1] if ends[at] + 1 < len(s) else s[ends[at]] - 1
    return (float(s[ends[at]]) + float(below)) / 2, float(f1[at])


def mutual(rows: np.ndarray, ids: np.ndarray, score: np.ndarray, n: int) -> np.ndarray:  # bool (m,)
    "Pairs that are each other's best, ties to the first."
    order = np.lexsort((ids, rows, -score))
    first = [np.full(n, -1), np.full(n, -1)]
    for best, at in zip(first, (rows, ids)):
        who, where = np.unique(at[order], return_index=True)
        best[who] = order[where]
    i = np.arange(len(rows))
    return (first[0][rows] == i) & (first[1][ids] == i)


def weight_grid(names):
    return [
        dict(zip(names, item))
        for item in sorted(
            (item for item in itertools.product(range(6), repeat=len(names)) if sum(item) == 5),
            key=lambda value: max(value) - min(value),
        )
    ]


def measure(name: str, vectors: np.ndarray, halvings: int = 5, df: pd.DataFrame | None = None):
    "A row for each way to score pairs."
    df = pd.read_csv(TEXT/f'{name}.csv', keep_default_na=False) if df is None else df
    titles, y, shop = df.title.tolist(), group_codes(df.label_group, len(df)), group_codes(df.source, len(df))
    if (shop == 0).sum() > (shop == 1).sum(): shop = 1 - shop
    spaces = {
        'characters': Tfidf(titles),
        'words': Tfidf(titles, analyzer='word', ngram=(1, 1)),
        'MiniLM': Dense(vectors, 'MiniLM'),
    }
    scored = across(candidates(spaces, min(K, len(df))), shop)
    rows, cols, x, _ = pair_features(scored, titles)
    # each pair once, as the smaller shop sees it
    own = shop[rows] == 0
    rows, cols, x = rows[own], cols[own], x[own]
    ids = scored.ids[rows, cols]
    pairs, parts = KnownPairs(rows, ids, x, Groups(y)), random_parts(y, FOLDS, 0)
    true = pairs.same
    flat = {name: s[rows, cols] for name, s in scored.scores.items()}
    fused = {
        str(weights): sum(value / 5 * flat[name] for name, value in weights.items())
        for weights in weight_grid(list(flat))
    }
    size = np.bincount(y[shop == 1], minlength=y.max() + 1)
    ways = {**{name: {name: value} for name, value in flat.items()}, 'fused': fused, 'pair model': None}
    counts = {k: [] for k in ways}
    for side in random_halves(y, halvings):
        total = {k: np.zeros(3) for k in ways}
        for fit in (side, ~side):
            here, left = fit[rows], ~fit[rows]
            positives = [int(size[y[(shop == 0) & item]].sum()) for item in (fit, ~fit)]
            p = pairs.unseen(PairModel(), fit, parts)
            p[left] = pairs.fit(PairModel(), fit).probabilities(x[left])
            for way, options in {**ways, 'pair model': {'pair model': p}}.items():
                best = (-1.,)
                for score in options.values():
                    for both in (np.ones(len(rows), bool), mutual(rows, ids, score, len(df))):
                        threshold, f1 = best_cut(score[here & both], true[here & both], positives[0])
                        if f1 > best[0]: best = f1, threshold, score, both
                _, threshold, score, both = best
                said = left & both & (score >= threshold)
                total[way] += [true[said].sum(), said.sum(), positives[1]]
        for item, (tp, said, pos) in total.items():
            counts[item].append((200 * tp / (said + pos), 100 * tp / max(said, 1), 100 * tp / pos))
    found = float(100 * true.sum() / size[y[shop == 0]].sum())
    for way, value in counts.items():
        (f1, precision, recall), sd = np.mean(value, axis=0).tolist(), float(np.std([v[0] for v in value]))
        yield {
            'set': name,
            'way': way,
            'pair_f1': round(f1, 2),
            'sd_halvings': round(sd, 2),
            'precision': round(precision, 2),
            'recall': round(recall, 2),
            'among_candidates': round(found, 2),
            'ditto': PUBLISHED[name][0],
            'deepmatcher': PUBLISHED[name][1],
            'rows': len(df),
            'halvings': halvings,
        }


if __name__ == '__main__':
    warnings.filterwarnings('ignore', category=FutureWarning, message='.*torch.jit.*')
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('names', nargs='*', help=', '.join(SETS))
    p.add_argument('--halvings', type=int, default=5)
    p.add_argument(
        '--titles', type=Path, help='float32 .npy of title embeddings, made there if it is missing'
    )
    p.add_argument('--out', type=Path, help='csv')
    a = p.parse_args()
    if unknown := set(a.names) - set(SETS): p.error(f'{sorted(unknown)}: choose from {", ".join(SETS)}')
    if a.titles and a.titles.exists(): every = np.load(a.titles)
    else:
        every = title_vectors()
        if a.titles: np.save(a.titles, every)
    start = np.cumsum([0, *(len(pd.read_csv(TEXT/f'{item}.csv', keep_default_na=False)) for item in SETS)])
    table = []
    for o in a.names or SETS:
        i = SETS.index(o)
        for row in measure(o, every[start[i]:start[i + 1]], a.halvings):
            table.append({**row, 'command': f'python tests/bench/textsets.py {o} --halvings {a.halvings}'})
            print(row, flush=True)
    if a.out: pd.DataFrame(table).to_csv(a.out, index=False)
