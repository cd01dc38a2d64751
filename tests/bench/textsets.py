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


def across(scored: Candidates, shop: np.ndarray) -> Candidates:
    "The candidates of the other shop only, the listing itself still first."
    is_other_shop = (scored.ids >= 0) & (shop[scored.ids] != shop[:, None])
    is_other_shop[:, 0] = True
    order = np.argsort(~is_other_shop, axis=1, kind='stable')[:, :is_other_shop.sum(1).max()]
    kept = np.take_along_axis(is_other_shop, order, 1)

    def take(values, padding): return np.where(kept, np.take_along_axis(values, order, 1), padding)
    scores = {name: take(values, np.float32(-np.inf)) for name, values in scored.scores.items()}
    return replace(scored, ids=take(scored.ids, -1), scores=scores)


def best_cut(
    scores: np.ndarray,  # Of pairs
    true: np.ndarray,  # Which of them are true
    positives: int,  # True pairs that there are
) -> tuple[float, float]:  # (threshold, F1)
    "The cut with the best pair F1; equal scores come in together."
    if not len(scores): return np.inf, 0.
    order = np.argsort(-scores, kind='stable')
    falling, right = scores[order], true[order].cumsum()
    ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    f1 = 2 * right[ends] / (ends + 1 + positives)
    best = f1.argmax()
    last = ends[best]
    below = falling[last + 1] if last + 1 < len(falling) else falling[last] - 1
    return (float(falling[last]) + float(below)) / 2, float(f1[best])


def mutual(rows: np.ndarray, ids: np.ndarray, scores: np.ndarray, n: int) -> np.ndarray:  # bool, one a pair
    "Pairs that are each other's best, ties to the first."
    order = np.lexsort((ids, rows, -scores))
    best_pair = {'row': np.full(n, -1), 'id': np.full(n, -1)}
    for side, listings in (('row', rows), ('id', ids)):
        listing, first = np.unique(listings[order], return_index=True)
        best_pair[side][listing] = order[first]
    pairs = np.arange(len(rows))
    return (best_pair['row'][rows] == pairs) & (best_pair['id'][ids] == pairs)


def weight_grid(names):
    "Weights in fifths that add up to one, the evenest first."
    fifths = [counts for counts in itertools.product(range(6), repeat=len(names)) if sum(counts) == 5]
    fifths.sort(key=lambda counts: max(counts) - min(counts))
    return [dict(zip(names, counts)) for counts in fifths]


class ShopPairs:
    "Pairs across two shops: scores and features of each, as the smaller shop sees them."
    def __init__(self, df, vectors):
        titles, groups = df.title.tolist(), group_codes(df.label_group, len(df))
        shop = group_codes(df.source, len(df))
        if (shop == 0).sum() > (shop == 1).sum(): shop = 1 - shop
        spaces = {
            'characters': Tfidf(titles),
            'words': Tfidf(titles, analyzer='word', ngram=(1, 1)),
            'MiniLM': Dense(vectors, 'MiniLM'),
        }
        scored = across(candidates(spaces, min(K, len(df))), shop)
        rows, columns, features, _ = pair_features(scored, titles)
        # each pair once, as the smaller shop sees it
        own = shop[rows] == 0
        rows, columns = rows[own], columns[own]
        self.n, self.groups, self.shop = len(df), groups, shop
        self.rows, self.features = rows, features[own]
        self.ids = scored.ids[rows, columns]
        self.true = groups[rows] == groups[self.ids]
        self.parts = random_parts(groups, FOLDS, 0)
        self.scores = {name: scores[rows, columns] for name, scores in scored.scores.items()}
        self.group_sizes = np.bincount(groups[shop == 1], minlength=groups.max() + 1)

    def positives(self, half=None):
        "How many true pairs there are, of the first shop's listings in `half` or of all."
        own = self.shop == 0
        return int(self.group_sizes[self.groups[own if half is None else own & half]].sum())

    def ways(self):
        "Way to score pairs -> {what it may choose from: scores}."
        fused = {
            str(fifths): sum(count / 5 * self.scores[name] for name, count in fifths.items())
            for fifths in weight_grid(list(self.scores))
        }
        return {**{name: {name: scores} for name, scores in self.scores.items()}, 'fused': fused}

    def model_scores(self, half):
        "What a pair model that is fitted on `half` says of all pairs, of its own without having seen them."
        known = KnownPairs(self.rows, self.ids, self.features, Groups(self.groups))
        probabilities = known.unseen(PairModel(), half, self.parts)
        of_others = ~half[self.rows]
        probabilities[of_others] = known.fit(PairModel(), half).probabilities(self.features[of_others])
        return probabilities

    def counts(self, half, options):
        """(true positives, pairs predicted, true pairs) of the other half, by those scores, that threshold
        and that choice of pairs which did best on `half`."""
        fitted, best_f1 = half[self.rows], -1.
        positives = self.positives(half)
        for scores in options.values():
            for allowed in (np.ones(len(self.rows), bool), mutual(self.rows, self.ids, scores, self.n)):
                threshold, f1 = best_cut(scores[fitted & allowed], self.true[fitted & allowed], positives)
                if f1 > best_f1: best_f1, predicted = f1, ~fitted & allowed & (scores >= threshold)
        return np.array([self.true[predicted].sum(), predicted.sum(), self.positives(~half)], float)


def measure(set_name: str, vectors: np.ndarray, halvings: int = 5, df: pd.DataFrame | None = None):
    "A row for each way to score pairs."
    if df is None: df = read_titles(set_name)
    pairs = ShopPairs(df, vectors)
    ways = pairs.ways()
    figures = {way: [] for way in (*ways, 'pair model')}  # (F1, precision, recall) of each halving
    for side in random_halves(pairs.groups, halvings):
        counts = {way: np.zeros(3) for way in figures}
        for half in (side, ~side):
            for way, options in {**ways, 'pair model': {'pair model': pairs.model_scores(half)}}.items():
                counts[way] += pairs.counts(half, options)
        for way, (right, predicted, true) in counts.items():
            f1, precision, recall = 2 * right / (predicted + true), right / max(predicted, 1), right / true
            figures[way].append((100 * f1, 100 * precision, 100 * recall))
    among_candidates = 100 * pairs.true.sum() / pairs.positives()
    for way, of_halvings in figures.items():
        f1, precision, recall = np.mean(of_halvings, axis=0)
        yield {
            'set': set_name,
            'way': way,
            'pair_f1': round(float(f1), 2),
            'sd_halvings': round(float(np.std([f1 for f1, *_ in of_halvings])), 2),
            'precision': round(float(precision), 2),
            'recall': round(float(recall), 2),
            'among_candidates': round(float(among_candidates), 2),
            'ditto': PUBLISHED[set_name][0],
            'deepmatcher': PUBLISHED[set_name][1],
            'rows': len(df),
            'halvings': halvings,
        }


def read_titles(name):
    "The table of one text set."
    return pd.read_csv(TEXT/f'{name}.csv', keep_default_na=False)


if __name__ == '__main__':
    warnings.filterwarnings('ignore', category=FutureWarning, message='.*torch.jit.*')
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', help=', '.join(SETS))
    parser.add_argument('--halvings', type=int, default=5)
    parser.add_argument('--titles', type=Path,
                        help='float32 .npy of title embeddings, made there if it is missing')
    parser.add_argument('--out', type=Path, help='csv')
    options = parser.parse_args()
    if unknown := set(options.names) - set(SETS):
        parser.error(f'{sorted(unknown)}: choose from {", ".join(SETS)}')
    if options.titles and options.titles.exists(): vectors = np.load(options.titles)
    else:
        vectors = title_vectors()
        if options.titles: np.save(options.titles, vectors)
    starts = np.cumsum([0, *(len(read_titles(name)) for name in SETS)])
    table = []
    for name in options.names or SETS:
        i = SETS.index(name)
        command = f'python tests/bench/textsets.py {name} --halvings {options.halvings}'
        for row in measure(name, vectors[starts[i]:starts[i + 1]], options.halvings):
            table.append({**row, 'command': command})
            print(row, flush=True)
    if options.out: pd.DataFrame(table).to_csv(options.out, index=False)
