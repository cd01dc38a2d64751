"""What matching two tables is worth, and each of its parts.

    python tests/bench/tables.py abt_buy amazon_google walmart_amazon --out nbs/tables.csv

'official': the published splits of three pairs of shops. The pair model is fitted to train + valid, and so is
its threshold; pair F1 is that of the test pairs, beside published figures. Each column is left out once, and
each part of the way. 'open search': no candidate list; of the left listings that match, one half with all of
their matches is known, and all pairs of all other left listings are judged, by the matches of all parts; and
without anything known. 'missing': shares of the cells of every column but the title are blanked at random, in
training and in test.
"""
import argparse
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from fastmatch.link import match_tables
from fastmatch.link.assign import assigned
from fastmatch.link.candidates import TablePairs
from fastmatch.link.known import KnownLabels
from fastmatch.link.learn import learn_from_labels, learn_from_tables
from fastmatch.link.link import with_synonyms
from fastmatch.link.tables import ALL_TEXT, Tables
from fastmatch.match import PairModel

TEXT = Path(__file__).parents[3]/'shared'/'data'/'text'
SETS = ['abt_buy', 'amazon_google', 'walmart_amazon']
# pair F1 as published, of models trained on a GPU: Ditto, arXiv 2004.00584; R-SupCon, arXiv 2202.02098
PUBLISHED = {'abt_buy': (89.33, 94.29), 'amazon_google': (75.58, 79.28), 'walmart_amazon': (86.76, None)}
SEEDS = 5
SHARES = 0., .25, .5, .75, .9, 1.
CROWD = ('rank', 'density', 'top', 'pagerank')  # features that look at the other candidates of both listings
WORDS = ('field',)  # features of the cells themselves: edits, rare words, numbers, codes


def read_official(name):
    "(left table, right table, {part: pairs})."
    folder = TEXT/'official'/name
    left, right = (pd.read_csv(folder/f'table{side}.csv') for side in 'AB')
    return left, right, {part: pd.read_csv(folder/f'{part}.csv') for part in ('train', 'valid', 'test')}


def searched(left, right, known, synonyms=True, all_text=True, also=None):
    "Both tables with their candidates, the labelled pairs among them, and how many matches the search found."
    tables = Tables.of(left, right)
    labels = KnownLabels.of(known, tables)
    embeddings = tables.embeddings()
    if not all_text: embeddings.fields.pop(ALL_TEXT, None)
    if synonyms: embeddings = with_synonyms(embeddings, labels, len(left))
    found = TablePairs.search(embeddings, len(left), 50)
    every = labels if also is None else KnownLabels.of(pd.concat([known, also]), tables)
    return tables, labels, found.with_pairs(every.left, every.right), found


def with_features(pairs, use):
    "The same candidates for a model that reads these features alone."
    from fastmatch.link.candidates import _pairs
    return replace(pairs, pairs=_pairs(pairs.found, pairs.spaces, pairs.n_left, PairModel(use=use)))


def pair_f1(chosen, same):
    return 100 * 2 * (chosen & same).sum() / max(1, chosen.sum() + same.sum())


def official_scores(left, right, parts, seeds=SEEDS, without=(), **options):
    "Pair F1 of the test pairs for each seed, in percent."
    known = pd.concat([parts['train'], parts['valid']])
    tables, labels, pairs, _ = searched(left, right, known, also=parts['test'], **options)
    if without: pairs = with_features(pairs, [name for name in pairs.pairs.used if name not in without])
    test = KnownLabels.of(parts['test'], tables)
    features = pairs.pairs.features_at(pairs.places(test.left, test.right))
    scores = []
    for seed in range(seeds):
        learnt = learn_from_labels(pairs, pairs.places(labels.left, labels.right), labels.same, seed=seed)
        scores.append(pair_f1(learnt.model.probabilities(features) >= learnt.threshold, test.same))
    return np.array(scores)


def official(name, seeds=SEEDS):
    "Rows of the published protocol: all of it, and each part left out."
    left, right, parts = read_official(name)
    title = 'name' if 'name' in left else 'title'
    columns = [column for column in left.columns if column not in ('id', title)]
    ditto, supcon = PUBLISHED[name]
    ways = {'all of it': {}, 'without ranks and crowding': dict(without=CROWD),
            'without what texts have in common': dict(without=WORDS),
            'without the text of all columns together': dict(all_text=False),
            'without learnt synonyms': dict(synonyms=False)}
    whole = None
    for way, options in ways.items():
        scores = official_scores(left, right, parts, seeds, **options)
        whole = scores if whole is None else whole
        yield row_of(name, 'official', way, scores, whole, ditto=ditto, r_supcon=supcon)
    for column in columns:
        scores = official_scores(left.drop(columns=column), right.drop(columns=column), parts, seeds)
        yield row_of(name, 'official', f'without {column}', scores, whole, ditto=ditto, r_supcon=supcon)
    scores = official_scores(left[['id', title]], right[['id', title]], parts, seeds)
    yield row_of(name, 'official', 'titles alone', scores, whole, ditto=ditto, r_supcon=supcon)


def row_of(name, protocol, way, scores, whole=None, **more):
    "A row of the table; `worth` is what is lost without it, paired over the seeds."
    row = {'set': name, 'protocol': protocol, 'way': way, 'pair_f1': round(scores.mean(), 2),
           'sd_seeds': round(scores.std(ddof=1), 2) if len(scores) > 1 else None, 'seeds': len(scores)}
    if whole is not None and whole is not scores:
        difference = whole - scores
        row |= {'worth': round(difference.mean(), 2)}
        if len(difference) > 1:
            t = stats.t.ppf(.975, len(difference) - 1)
            half_width = t * difference.std(ddof=1) / np.sqrt(len(difference))
            row |= {'worth_low': round(difference.mean() - half_width, 2),
                    'worth_high': round(difference.mean() + half_width, 2)}
    return {**row, **more}


def blanked_score(left, right, parts, share, seed):
    "Pair F1 of the test pairs after this share of the cells, of all columns but the title, was blanked."
    title = 'name' if 'name' in left else 'title'
    columns = [column for column in left.columns if column not in ('id', title)]
    rng = np.random.default_rng(seed)
    blanked = [table.assign(**{column: table[column].where(rng.random(len(table)) >= share)
                               for column in columns if share < 1}) for table in (left, right)]
    if share == 1: blanked = [table[['id', title]] for table in blanked]
    return official_scores(*blanked, parts, seeds=1)[0]


def missing(name, seeds=SEEDS):
    """Rows of the curve over the share of cells that are blanked, of all columns but the title.

    The seeds are those of what is blanked; with none and with all of the cells there is one way to do it.
    """
    tables = read_official(name)
    for share in SHARES:
        runs = seeds if 0 < share < 1 else 1
        scores = np.array([blanked_score(*tables, share, seed) for seed in range(runs)])
        yield row_of(name, 'missing', f'{share:.0%} of the cells blanked', scores, share=share)


class OpenSearch:
    "Both tables of a set, their candidates, and which of them match."
    def __init__(self, name):
        left, right, parts = read_official(name)
        pairs = pd.concat(parts.values())
        tables = Tables.of(left, right)
        self.true = KnownLabels.of(pairs[pairs.label == 1][['ltable_id', 'rtable_id']], tables)
        self.found = TablePairs.search(tables.embeddings(), len(left), 50)
        places = self.found.places(self.true.left, self.true.right)
        self.found_share = (places >= 0).mean()
        self.same = np.zeros(len(self.found), bool)
        self.same[places[places >= 0]] = True

    def scores(self, seed):
        "{way: pair F1 in percent}, where half of the left listings that match is known."
        found, same = self.found, self.same
        matched = np.unique(self.true.left)
        half = np.random.default_rng(seed).permutation(matched)[:len(matched) // 2]
        known = np.isin(found.left, half)
        n_true = (~np.isin(self.true.left, half)).sum()
        learnt = learn_from_labels(found, np.flatnonzero(known), same[known], seed=seed)
        probabilities = found.pairs.probabilities(learnt.model)
        chosen = probabilities >= learnt.threshold
        one = chosen & assigned(found.left, found.right, probabilities)
        alone = learn_from_tables(found, seed)
        of_alone = found.pairs.probabilities(alone.model)
        unlabelled = (of_alone >= alone.threshold) & assigned(found.left, found.right, of_alone)
        def judged(chosen):
            right_ones = (chosen & same & ~known).sum()
            return 100 * 2 * right_ones / max(1, (chosen & ~known).sum() + n_true)
        return {'labels of half': judged(chosen), 'labels of half, one to one': judged(one),
                'nothing known, one to one': judged(unlabelled)}


def open_search(name, seeds=SEEDS):
    "Rows of matching both tables without a list of candidates."
    search = OpenSearch(name)
    of_seeds = [search.scores(seed) for seed in range(seeds)]
    for way in of_seeds[0]:
        scores = np.array([of_seed[way] for of_seed in of_seeds])
        yield row_of(name, 'open search', way, scores, candidate_pairs=len(search.found),
                     blocking_recall=round(100 * search.found_share, 2))


def whole_call(name):
    """Minutes that all of it takes as a user calls it, and its own estimate of its worth; 'free', since
    published pairs are judged one by one."""
    import time
    left, right, parts = read_official(name)
    start = time.perf_counter()
    found = match_tables(left, right, known=pd.concat([parts['train'], parts['valid']]), how='free')
    seconds = time.perf_counter() - start
    scored = found.score(parts['test'])
    delivered = pair_f1((scored.probability >= found.learnt.threshold).to_numpy(),
                        scored.label.to_numpy(bool))
    return {'set': name, 'protocol': 'promised', 'way': 'match_tables', 'pair_f1': round(delivered, 2),
            'promised': round(100 * found.learnt.figures['pair_f1'], 2),
            'promised_low': round(100 * found.learnt.figures['low'], 2),
            'promised_high': round(100 * found.learnt.figures['high'], 2), 'minutes': round(seconds / 60, 2)}


if __name__ == '__main__':
    warnings.filterwarnings('ignore', category=FutureWarning)
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', help=', '.join(SETS))
    parser.add_argument('--seeds', type=int, default=SEEDS)
    parser.add_argument('--only', nargs='*', default=['promised', 'official', 'open', 'missing'])
    parser.add_argument('--out', type=Path, help='csv; rows of other sets and protocols in it are kept')
    options = parser.parse_args()
    makers = {'promised': lambda name, seeds: [whole_call(name)], 'official': official, 'open': open_search,
              'missing': missing}
    for name in options.names or SETS:
        for part in options.only:
            rows = []
            for row in makers[part](name, options.seeds):
                print(row, flush=True)
                command = (f'python tests/bench/tables.py {name} --only {part} --seeds {options.seeds} '
                           '--out nbs/tables.csv')
                rows.append({**row, 'command': command})
            if not options.out: continue
            table = pd.DataFrame(rows)
            if options.out.exists():
                before = pd.read_csv(options.out)
                is_old = (before.set == name) & before.protocol.isin(table.protocol)
                table = pd.concat([before[~is_old], table], ignore_index=True)
            table.to_csv(options.out, index=False)
