"""What training is worth: held-out row F1 on a set of listings, fold by fold.

`python tests/bench/quality.py emoji|luma [--folds 0 1] [--out x.csv]`
"""
import argparse
import gc
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from fastmatch.data.demo import demo_path
from fastmatch.jobs.options import SAMPLE_SIZE
from fastmatch.jobs.train import train_and_judge
from fastmatch.match import HeldOut, paired

LUMA = Path(__file__).resolve().parents[3]/'shared'/'data'/'luma'
# luma's listings of a product differ in colour and view: colour must tell nothing, and 114 groups are soon
# learnt by heart
SETS = {
    'emoji': (demo_path(), [0], dict(size=SAMPLE_SIZE)),
    'luma': (LUMA, [0, 1, 2, 3, 4], dict(size=128, epochs=6, bs=32, aug='recolour')),
}


def pooled(tables: list[dict]) -> dict:
    "The folds' scores as if of one table: groups of different folds are different groups."
    result = {}
    for name in tables[0]:
        folds = [table[name] for table in tables]
        groups, shift = [], 0
        for fold in folds:
            groups.append(fold.clusters + shift)
            shift += fold.clusters.max() + 1
        result[name] = HeldOut(np.concatenate([fold.row_f1 for fold in folds]), np.concatenate(groups))
    return result


def measure(name: str, folds=None, echo=print, **settings):
    "Train and judge on each fold; returns the pooled scores {row: `HeldOut`} and a table, a row a fold."
    path, all_folds, given = SETS[name]
    df = pd.read_csv(path/'listings.csv')
    tables, rows = [], []
    for fold in folds or all_folds:
        result = train_and_judge(
            df, path/'images', fold_col='fold', valid_fold=fold, echo=echo, **{**given, **settings}
        )
        tables.append(result.table)
        rows.append(
            {
                'set': name,
                'fold': fold,
                **{row: round(scores.mean, 4) for row, scores in result.table.items()},
                'gain': round(result.gain.diff, 4),
                'low': round(result.gain.low, 4),
                'high': round(result.gain.high, 4),
                'seconds': round(sum(result.seconds.values())),
            }
        )
        echo(str(rows[-1]))
        # a Learner and its callbacks point at each other: without this every fold's model stays until the
        # collector happens to run
        del result
        gc.collect()
    return pooled(tables), pd.DataFrame(rows)


if __name__ == '__main__':
    warnings.filterwarnings('ignore', category=FutureWarning, message='.*torch.jit.*')
    parser = argparse.ArgumentParser()
    parser.add_argument('name', choices=SETS)
    parser.add_argument('--folds', type=int, nargs='*')
    parser.add_argument('--out')
    settings = dict(epochs=int, size=int, bs=int, lr=float, aug=str, seed=int, sampler=str)
    for setting, kind in settings.items(): parser.add_argument(f'--{setting}', type=kind)
    options = vars(parser.parse_args())
    name, folds, out = (options.pop(option) for option in ('name', 'folds', 'out'))
    given = {setting: value for setting, value in options.items() if value is not None}
    table, rows = measure(name, folds, **given)
    if out: rows.to_csv(out, index=False)
    print(rows.to_string(index=False))
    for row, scores in table.items():
        print(f'{row:>16} {scores.mean:.3f} (s.e. {scores.se:.3f}, n={len(scores.row_f1)})')
    print('fused over untrained_fused:', paired(table['fused'], table['untrained_fused']))
