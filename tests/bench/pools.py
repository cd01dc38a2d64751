"""Thresholds over pools: chosen in a quarter of the listings, carried to all of them, judged on other groups.

`python tests/bench/pools.py [amazon_google walmart_amazon] [--foreign 0 1] [--seeds 5] [--out nbs/pools.csv]`

A random quarter of the groups is what is known. Its rules are chosen there, with thresholds for other pools
by `pool_thresholds`; the listings of all other groups are then looked up in the whole table. Compared are the
row F1 of the best threshold there (`best`), of the quarter's threshold as it is (`as_is`), of the carried one
(`carried`), of a straight line through the parts (`line`: the slope with the best mean row F1 of all parts,
the quarter's threshold as its anchor), and of the threshold that the quarter's listings would have chosen had
they been looked up in the whole table (`same_rows`: no way to carry a threshold can be expected to do
better). `short_*` is how much row F1 is missing to the best, with a 95% interval over groups, paired by
listing.

Only titles are read: TF-IDF, MiniLM, their mean, and the mean after `augment(by='fused', k=2)`. The listings
looked up are all, or those `with a match`: most have none, and where all are looked up the best threshold of
the whole table leaves every listing alone. `--foreign 1` adds the titles of emoji and luma as distractors.
"""
import argparse
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

# a script: its own checkout is what is measured
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from fastmatch.match import Embeddings, HeldOut, Step, Sweep, among_themselves, in_the_catalogue, paired
from fastmatch.match.judge.pool_thresholds import measured_levels, pool_thresholds
from fastmatch.match.search.structure import RuleStructure
from fastmatch.match.search.workbench import Workbench

DATA = Path(__file__).resolve().parents[3]/'shared'/'data'
SETS = 'amazon_google', 'walmart_amazon'
FOREIGN = 'emoji', 'luma'
MEAN = (('title', .5), ('tfidf', .5))
STRUCTURES = {
    'TF-IDF': RuleStructure('mean', (('tfidf', 1.),)),
    'MiniLM': RuleStructure('mean', (('title', 1.),)),
    'mean': RuleStructure('mean', MEAN),
    'mean, augment': RuleStructure('mean', MEAN, vector_steps=(
        Step('augment', by={'how': 'mean', 'weights': dict(MEAN)}, k=2),)),
}
ROWS = 'all', 'with a match'
WAYS = 'as_is', 'carried', 'line', 'same_rows'
SLOPES = np.linspace(0, .2, 201)
SHARE = 4  # the table is this many times what is known


def read(
    name: str,  # Of a set
) -> pd.DataFrame:
    "The listings of a set."
    file = DATA/'text'/f'{name}.csv' if name in SETS else DATA/name/'listings.csv'
    return pd.read_csv(file, keep_default_na=False)


def title_vectors(
    name: str,  # Of a set
    titles: list,
    cache: Path,  # Folder of .npy files
) -> np.ndarray:  # float32 (n,384)
    "MiniLM's vectors of the titles, made once."
    from fastmatch.matcher import Encoder
    from fastmatch.models import MatchNet, TitleEncoder, load_tokenizer
    file = cache/f'{name}.npy'
    if not file.exists():
        tokenizer = load_tokenizer('all-MiniLM-L6-v2')
        net = MatchNet(None, None, TitleEncoder('all-MiniLM-L6-v2', pad_id=tokenizer.pad_token_id))
        cache.mkdir(parents=True, exist_ok=True)
        np.save(file, Encoder(net, None, tokenizer).embed(None, titles, 64)[0]['title'])
    return np.load(file)


def embeddings_of(
    name: str,  # Of a set
    foreign: bool,  # Whether listings of other sets are added, for all of which no match is known here
    cache: Path,
):  # (`Embeddings`, bool (n,): the set's own listings)
    "The listings of a set, the foreign ones behind them."
    names = [name, *FOREIGN] if foreign else [name]
    tables = [read(each) for each in names]
    titles = [title for table in tables for title in table.title]
    groups = [f'{each} {group}' for each, table in zip(names, tables) for group in table.label_group]
    vectors = [title_vectors(each, table.title.tolist(), cache) for each, table in zip(names, tables)]
    embeddings = Embeddings(
        {'title': np.concatenate(vectors)}, np.arange(len(titles)), titles, np.array(groups)
    )
    return embeddings, np.arange(len(titles)) < len(tables[0])


def looked_up(
    embeddings: Embeddings,
    rows: np.ndarray,  # bool (n,)
):  # `Setting`
    "The rows looked up among all."
    return among_themselves(embeddings) if rows.all() else in_the_catalogue(embeddings, rows)


def line(
    levels: list,  # `Level`s, the largest first
    growth: float,  # From the largest pool to that which is asked for
) -> float:  # What is added to the threshold
    "The slope with which the parts' mean row F1 together is best, from the threshold of the largest."
    doublings = [np.log2(level.pool / levels[0].pool) for level in levels]
    sums = sum(level.curves(SLOPES[::-1] * double).row_f1[::-1] if double else 0
               for level, double in zip(levels, doublings))
    return float(SLOPES[np.argmax(sums)] * np.log2(growth))


class Whole:
    "A table's listings looked up in all of it, for each rule once."
    def __init__(self, embeddings, own):
        self.embeddings, self.own = embeddings, own
        self.setting = looked_up(embeddings, own)
        workbench = Workbench(self.setting)
        self.sweeps = {name: Sweep(workbench.neighbors(structure), self.setting.groups)
                       for name, structure in STRUCTURES.items()}
        groups = self.setting.groups
        self.with_match = groups.sizes > 1

    def thresholds(
        self,
        seed: int,  # Of the quarter
        rows: str,  # One of `ROWS`
    ):  # Yields (rule's name, rows scored, thresholds by way)
        "What each way makes of a quarter of the groups."
        groups = np.unique(self.embeddings.groups)
        known_groups = np.random.default_rng(seed).permutation(groups)[:len(groups) // SHARE]
        is_known = np.isin(self.embeddings.groups, known_groups)
        is_asked = self.with_match if rows == 'with a match' else np.ones(self.own.sum(), bool)
        wanted = np.append(is_asked, np.zeros((~self.own).sum(), bool))
        quarter = looked_up(self.embeddings.take(is_known), wanted[is_known])
        known_rows = is_known[:self.own.sum()] & is_asked
        for name, structure in STRUCTURES.items():
            workbench = Workbench(quarter)
            rule = workbench.rule(structure, workbench.threshold_search(structure).best()[0])
            neighbors = workbench.neighbors(structure)
            rule = replace(rule, pools=pool_thresholds(quarter, rule, seed=seed, neighbors=neighbors))
            levels = measured_levels(quarter, rule, seed=seed, neighbors=neighbors)
            pool = self.setting.pool
            yield name, ~is_known[:self.own.sum()] & is_asked, quarter.pool, {
                'as_is': rule.threshold, 'carried': rule.at(pool).threshold,
                'line': rule.threshold + line(levels, pool / quarter.pool),
                'same_rows': self.sweeps[name].best(known_rows)[0]}


def measure(
    name: str,  # Of a set
    foreign: bool,
    seeds: int,  # Quarters
    cache: Path,
) -> list:  # of dicts
    "A row for each rule and kind of listings looked up."
    whole = Whole(*embeddings_of(name, foreign, cache))
    table = []
    for rows in ROWS:
        cases = {rule: [] for rule in STRUCTURES}
        for seed in range(seeds):
            for rule, *case in whole.thresholds(seed, rows): cases[rule].append(case)
        table += [
            {
                'set': name,
                'foreign': int(foreign),
                'rows': rows,
                'rule': rule,
                'pool': whole.setting.pool,
                **figures(whole.sweeps[rule], whole.setting.groups.row_codes, cases[rule]),
            }
            for rule in STRUCTURES
        ]
    return table


def figures(
    sweep: Sweep,  # Of the whole table
    codes: np.ndarray,  # int (n,), the rows' groups
    cases: list,  # (rows scored, quarter's pool, thresholds by way) of each seed
) -> dict:
    "Means over the seeds, and what is missing to the best."
    f1 = {way: np.zeros(len(codes)) for way in ('best', *WAYS)}
    thresholds = {way: [] for way in f1}
    times = np.zeros(len(codes))
    for scored, _, by_way in cases:
        by_way = {'best': sweep.best(scored)[0], **by_way}
        for way, threshold in by_way.items():
            f1[way][scored] += sweep.at(threshold)[scored]
            thresholds[way].append(threshold)
        times[scored] += 1
    seen = times > 0
    heldout = {way: HeldOut(sums[seen] / times[seen], np.unique(codes[seen], return_inverse=True)[1])
               for way, sums in f1.items()}
    row = {'quarter': cases[0][1], 'seeds': len(cases), 'listings': int(seen.sum())}
    for way in f1:
        row |= {f'threshold_{way}': round(float(np.mean(thresholds[way])), 4),
                f'row_f1_{way}': round(heldout[way].mean, 4)}
    for way in WAYS:
        missing = paired(heldout['best'], heldout[way])
        row |= {f'short_{way}': round(missing.diff, 4), f'low_{way}': round(missing.low, 4),
                f'high_{way}': round(missing.high, 4)}
    gain = paired(heldout['carried'], heldout['as_is'])
    return row | {'carried_over_as_is': round(gain.diff, 4), 'gain_low': round(gain.low, 4),
                  'gain_high': round(gain.high, 4)}


def main(args=None):
    "Measure, print, and put the rows into a table, in the place of earlier ones of the same case."
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('sets', nargs='*', default=list(SETS), help=' '.join(SETS))
    parser.add_argument('--foreign', type=int, nargs='+', default=[0, 1], choices=[0, 1])
    parser.add_argument('--seeds', type=int, default=5, help='quarters')
    parser.add_argument('--cache', type=Path, default=Path(tempfile.gettempdir())/'fastmatch_titles',
                        help="folder of the titles' vectors")
    parser.add_argument('--out', type=Path, help='csv')
    options = parser.parse_args(args)
    if not DATA.exists(): parser.error(f'no sets at {DATA}')
    for name in options.sets:
        for foreign in options.foreign:
            rows = pd.DataFrame(measure(name, bool(foreign), options.seeds, options.cache))
            rows['command'] = (f'python tests/bench/pools.py {name} --foreign {foreign} '
                               f'--seeds {options.seeds}')
            with pd.option_context('display.width', 200, 'display.max_columns', 20):
                print(
                    rows[
                        [
                            'set',
                            'foreign',
                            'rows',
                            'rule',
                            'row_f1_best',
                            *(f'short_{way}' for way in WAYS),
                            'low_carried',
                            'high_carried',
                            'carried_over_as_is',
                        ]
                    ].to_string(),
                    flush=True,
                )
            if options.out is None: continue
            key = ['set', 'foreign']
            old = pd.read_csv(options.out) if options.out.exists() else pd.DataFrame(columns=key)
            old = old[(old[key] != [name, foreign]).any(axis=1)]
            pd.concat([old, rows] if len(old) else [rows]).sort_values([*key, 'rows', 'rule']).to_csv(
                options.out, index=False)


if __name__ == '__main__':
    warnings.filterwarnings('ignore', category=FutureWarning)
    main()
