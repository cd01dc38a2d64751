"""Does a catalogue that lives depend on the order and the pieces in which listings come?

`python tests/bench/living.py [--sets emoji luma texts] [--pieces 0 50 1] [--orders 10] [--out FILE.csv]`

Listings are added to a new `Catalogue` in random orders and in pieces of so many (0: all in one event),
and the groups at the end are compared with those of one order in one piece: the adjusted Rand index of both,
and how many listings are in a group of other listings. Beside it what groups are worth: pair F1 against the
true groups (every two listings of one group are a pair). Rules: `pairs` decides on each pair by itself, its
threshold is the best of a few for pair F1 on all listings at once (so its F1 flatters; the table is about the
order); `augment` is the same after each vector took in its two nearest; `agglomerate` merges by average
linkage, and runs anew on all listings with each event. Spaces: TF-IDF of titles, whose weights are those of
all listings and frozen. `texts` are Abt-Buy and Amazon-Google in one catalogue. With `--rows` a set's first
groups are taken, `listings` says how many that are.
"""
import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from fastmatch.catalogue import Catalogue
from fastmatch.data.columns import Columns
from fastmatch.match import Rule, Step
from fastmatch.matcher import Matcher
from fastmatch.store import table_text, write_text

DATA = Path(__file__).resolve().parents[3]/'shared'/'data'
SETS = {'emoji': ['emoji/listings.csv'], 'luma': ['luma/listings.csv'],
        'texts': ['text/abt_buy.csv', 'text/amazon_google.csv']}
THRESHOLDS = np.arange(.4, .95, .05)


def read(name: str, rows: int | None) -> pd.DataFrame:  # posting_id, title, label_group
    "The listings of a set, or of its first groups."
    tables = [pd.read_csv(DATA/file, keep_default_na=False) for file in SETS[name]]
    table = pd.concat([each.assign(label_group=f'{place}_' + each.label_group.astype(str))
                       for place, each in enumerate(tables)])[['posting_id', 'title', 'label_group']]
    order = pd.factorize(table.label_group)[0]
    table = table.iloc[np.argsort(order, kind='stable')]
    return (table if rows is None else table.head(rows)).reset_index(drop=True)


def pair_f1(groups, truth) -> float:
    "F1 of the pairs of listings that are in one group."
    def pairs(codes): return sum(n * (n - 1) / 2 for n in np.unique(codes, return_counts=True)[1])
    both = pairs(pd.factorize(pd.Series(list(zip(groups, truth))))[0])
    return 2 * both / max(1., pairs(groups) + pairs(truth))


def rand_index(groups, others) -> float:
    from sklearn.metrics import adjusted_rand_score
    return float(adjusted_rand_score(others, groups))


def differing(groups, others) -> int:
    "How many listings are in a group of other listings."
    own, other = (pd.Series(range(len(groups))).groupby(pd.Series(codes)).agg(frozenset) for codes in
                  (groups, others))
    same = set(own) & set(other)
    return len(groups) - sum(map(len, same))


def matcher_of(table, rule): return Matcher.from_df(table, '.', rule, None, Columns(image=None))[0]


def rules(table, names) -> dict:
    "Some of the rules by name, at the threshold that is best for pair F1."
    base = Rule('mean', {'tfidf': 1.}, .6)
    steps = {'pairs': [], 'augment': [Step('augment', k=2)], 'agglomerate': ['agglomerate']}
    found = {}
    for name in names:
        rule = replace(base, steps=steps[name])
        if name == 'agglomerate':
            found[name] = rule
            continue
        scored = []
        for threshold in THRESHOLDS:
            at = replace(rule, threshold=float(threshold))
            groups = grown(table, matcher_of(table, at), np.arange(len(table)), 0)
            scored.append((pair_f1(groups, table.label_group), at))
        found[name] = max(scored, key=lambda each: each[0])[1]
    return found


def grown(table, matcher, order, piece):
    "The group of each listing after it was added in this order and in such pieces."
    piece = piece or len(table)
    with (tempfile.TemporaryDirectory() as folder,
          Catalogue.create(Path(folder)/'shop.db', matcher) as catalogue):
        catalogue.record.execute('pragma synchronous = off')
        for start in range(0, len(table), piece): catalogue.add(table.iloc[order[start:start + piece]])
        groups = catalogue.groups().set_index('posting_id').group
    return groups[table.posting_id].to_numpy()


def compare(name, table, rule_name, rule, piece, orders) -> dict:
    "One row of the table."
    matcher, found = matcher_of(table, rule), []
    once = grown(table, matcher, np.arange(len(table)), 0)
    for seed in range(orders):
        groups = grown(table, matcher, np.random.default_rng(seed).permutation(len(table)), piece)
        found.append((rand_index(groups, once), differing(groups, once), pair_f1(groups, table.label_group)))
    rand, other, f1 = map(np.array, zip(*found))
    return {'set': name, 'listings': len(table), 'rule': rule_name, 'threshold': round(rule.threshold, 2),
            'piece': piece or 'all', 'orders': orders, 'groups': len(set(once)),
            'rand_min': float(rand.min().round(6)), 'other_groups_max': int(other.max()),
            'pair_f1_min': float(f1.min().round(4)), 'pair_f1_max': float(f1.max().round(4)),
            'pair_f1_once': round(float(pair_f1(once, table.label_group)), 4)}


def main(arguments=None):
    "Measure, print, and put the rows into a table in the place of earlier ones of the same case."
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sets', nargs='+', default=list(SETS), choices=list(SETS))
    parser.add_argument('--rules', nargs='+', default=['pairs', 'augment', 'agglomerate'])
    parser.add_argument('--pieces', nargs='+', type=int, default=[0, 50, 1], help='0: all at once')
    parser.add_argument('--orders', type=int, default=10)
    parser.add_argument('--rows', type=int, help='of each set, whole groups first')
    parser.add_argument('--out', type=Path, help='csv')
    options = parser.parse_args(arguments)
    for name in options.sets:
        table = read(name, options.rows)
        of_set = rules(table, options.rules)
        for rule_name in options.rules:
            for piece in options.pieces:
                row = compare(name, table, rule_name, of_set[rule_name], piece, options.orders)
                print(row, flush=True)
                if options.out: put(row, options.out)


def put(row, out):
    "Write a row into the table."
    key = ['set', 'listings', 'rule', 'piece']
    earlier = pd.read_csv(out, dtype={'piece': str}) if out.exists() else pd.DataFrame()
    row = {**row, 'piece': str(row['piece'])}
    if len(earlier): earlier = earlier[(earlier[key] != pd.Series(row)[key]).any(axis=1)]
    write_text(out, table_text(pd.concat([earlier, pd.DataFrame([row])]).sort_values(key)))


if __name__ == '__main__': main()
