"""A cross-encoder beside the pair model of `match_tables`: alone, on close pairs, as a feature, distilled.

`python tests/bench/cross_encoder.py [abt_buy amazon_google walmart_amazon] [--out nbs/cross_encoder.csv]`

A long run by its own nature (a transformer is trained three times a set), not a test: some seven minutes of a
core's time for Amazon-Google.
Published splits: everything is learned from train and valid, thresholds are those of models that saw none of
the pair's left listing, the test pairs are scored once. MiniLM learns from the pairs that match and twice as
many that do not, those that the pair model holds for the likeliest; it reads both texts serialised.

- `pair model`: as `match_tables` does it, no encoder
- `cross-encoder alone`: its probability for every pair
- `close pairs rescored`: log-odds of both weighed for pairs of probability .02 to .98, all others as they are
- `as a feature`: the trees have the cross-encoder's log-odds of close pairs besides, missing for the others
- `distilled`: the trees are fitted to the labels and to what `close pairs rescored` says of unlabelled pairs;
  no transformer is asked about a test pair
"""
import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from fastmatch.data.serialise import serialised_cells
from fastmatch.link.candidates import TablePairs
from fastmatch.link.known import KnownLabels
from fastmatch.link.learn import best_threshold, fitted, learned_parts
from fastmatch.link.link import with_synonyms
from fastmatch.link.rescore import (
    CloseScores,
    fitted_weights,
    hard_pairs,
    log_odds,
    unseen_scores,
    weighed,
)
from fastmatch.link.tables import Tables
from fastmatch.models.cross import CrossEncoder
from fastmatch.store import table_text, write_text

TEXT = Path(__file__).resolve().parents[3]/'shared/data/text/official'
SETS = ('abt_buy', 'amazon_google', 'walmart_amazon')
# tokens of a pair: those of Abt-Buy and Walmart-Amazon are cut, for the sake of time
MAX_LEN = {'abt_buy': 64, 'amazon_google': 64, 'walmart_amazon': 64}
UNLABELLED = 4000  # close pairs without a label that the cross-encoder is asked about, for distilling
FOLDS = 2


def f1(chosen, same): return round(float(200 * (chosen & same).sum() / max(1, chosen.sum() + same.sum())), 2)


def trees(found, known_features, same, parts, test_features, soft=None):
    "Unseen probabilities of labelled pairs, those of test pairs; `soft`: (features, probabilities, parts)."
    def fit(mask, soft_mask):
        if soft is None: return fitted(found, known_features[mask], same[mask])
        model = fitted(found, known_features[mask], same[mask])  # for its names; fitted anew
        model.fit_soft(np.concatenate([known_features[mask], soft[0][soft_mask]]),
                       np.concatenate([same[mask], soft[1][soft_mask]]))
        return model
    unseen = np.empty(len(same))
    for part in range(parts.max() + 1):
        rest = None if soft is None else soft[2] != part
        unseen[parts == part] = fit(parts != part, rest).probabilities(known_features[parts == part])
    everything = None if soft is None else np.ones(len(soft[1]), bool)
    return unseen, fit(np.ones(len(same), bool), everything).probabilities(test_features)


def measure(name, epochs, lr, seed, say, keep):
    "One set: a row for each way, handed to `keep` as soon as it is known."
    folder = TEXT/name
    left, right, *splits = (pd.read_csv(folder/f'{part}.csv')
                            for part in ('tableA', 'tableB', 'train', 'valid', 'test'))
    started = time.time()
    def row(way, unseen, test, used, seconds):
        threshold = best_threshold(unseen[used], same[used])[0]
        keep({'set': name, 'way': way, 'test_f1': f1(test >= threshold, test_same),
              'unseen_f1': f1(unseen[used] >= threshold, same[used]), 'threshold': round(threshold, 4),
              'seconds': round(seconds), 'epochs': epochs, 'lr': lr, 'max_len': MAX_LEN[name], 'seed': seed,
              'learned_from': len(hard_pairs(unseen, same)), 'test_pairs': len(test_same)})
    tables = Tables.of(left, right)
    known = KnownLabels.of(pd.concat(splits[:2]), tables)
    test = KnownLabels.of(splits[2], tables)
    same, test_same = known.same, test.same
    embeddings = with_synonyms(tables.embeddings(), known, len(left))
    found = TablePairs.search(embeddings, len(left), 50).with_pairs(known.left, known.right)
    found = found.with_pairs(test.left, test.right)
    features = found.pairs.features
    places, test_places = found.places(known.left, known.right), found.places(test.left, test.right)
    parts = learned_parts(known.left, seed, same)
    unseen, of_test = trees(found, features[places], same, parts, features[test_places])
    every = np.ones(len(same), bool)
    row('pair model', unseen, of_test, every, time.time() - started)

    texts = serialised_cells(tables.fields, {field: tables.cells(field) for field in tables.fields})
    def pair_texts(lefts, rights):
        return [texts[one] for one in lefts], [texts[len(left) + other] for other in rights]
    first, second = pair_texts(known.left, known.right)
    started = time.time()
    cross = CrossEncoder(max_len=MAX_LEN[name], bf16=True)
    learned = hard_pairs(unseen, same)
    halves = parts % FOLDS
    options = {'epochs': epochs, 'lr': lr, 'seed': seed, 'echo': say}
    read = unseen_scores(cross, first, second, same, learned, halves, every, **options)
    final = cross.unfitted().fit([first[place] for place in learned], [second[place] for place in learned],
                                 same[learned], **options)
    test_read = final.scores(*pair_texts(test.left, test.right))
    trained = time.time() - started
    row('cross-encoder alone', read, test_read, every, trained)

    close, test_close = ((values >= .02) & (values <= .98) for values in (unseen, of_test))
    say(f'{name}: close {close.mean():.3f} of the labelled, {test_close.mean():.3f} of the test pairs')
    weights = fitted_weights(unseen[close], read[close], same[close])
    say(f'weights {weights}')
    both, test_both = unseen.copy(), of_test.astype(np.float64)
    for half in range(FOLDS):
        own, others = close & (halves == half), close & (halves != half)
        half_weights = fitted_weights(unseen[others], read[others], same[others])
        both[own] = weighed(half_weights, unseen[own], read[own])
    test_both[test_close] = weighed(weights, of_test[test_close], test_read[test_close])
    row('close pairs rescored', both, test_both, every, trained)

    def with_column(table, scores, is_close):
        column = np.where(is_close, log_odds(scores), np.nan).astype(np.float32)
        return np.concatenate([table, column[:, None]], 1)
    found.pairs.names.append('cross-encoder')
    more = trees(found, with_column(features[places], read, close), same, parts,
                 with_column(features[test_places], test_read, test_close))
    found.pairs.names.pop()
    row('as a feature', *more, every, trained)

    started = time.time()
    model = fitted(found, features[places], same)
    probabilities = found.pairs.probabilities(model)
    is_known = np.isin(np.arange(len(found)), np.concatenate([places, test_places]))
    doubtful = np.flatnonzero((probabilities >= .02) & (probabilities <= .98) & ~is_known)
    doubtful = np.random.default_rng(seed).permutation(doubtful)[:UNLABELLED]
    say(f'{len(doubtful)} unlabelled close pairs of {len(found)} candidates')
    def doubtful_texts(rows): return pair_texts(found.left[doubtful[rows]], found.right[doubtful[rows]])
    soft = CloseScores(final, weights).rescored(probabilities[doubtful], doubtful_texts)
    part_of = dict(zip(known.left, parts))
    soft_parts = np.array([part_of.get(listing, -1) for listing in found.left[doubtful]])
    unseen_small, of_test_small = trees(found, features[places], same, parts, features[test_places],
                                        (features[doubtful], soft, soft_parts))
    row('distilled', unseen_small, of_test_small, every, trained + time.time() - started)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('sets', nargs='*', default=SETS)
    parser.add_argument('--epochs', type=int, default=4)
    parser.add_argument('--lr', type=float, default=1e-4)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', default='nbs/cross_encoder.csv')
    options = parser.parse_args()
    rows = []
    def say(line): print(line, flush=True)

    def keep(row):
        rows.append(row)
        say(row)
        # an hour's run may be cut off
        write_text(Path(options.out), table_text(pd.DataFrame(rows)))
    for name in options.sets or SETS: measure(name, options.epochs, options.lr, options.seed, say, keep)


if __name__ == '__main__': main()
