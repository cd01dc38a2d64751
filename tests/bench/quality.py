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
        parts, shift, groups = [t[name] for t in tables], 0, []
        for part in parts:
            groups.append(part.clusters + shift)
            shift += part.clusters.max() + 1
        result[name] = HeldOut(*(np.concatenate(item) for item in ([p.row_f1 for p in parts], groups)))
    return result


def measure(name: str, folds=None, echo=print, **settings):
    "Train and judge on each fold; returns the pooled scores {row: `HeldOut`} and a table, a row a fold."
    path, default, given = SETS[name]
    df, tables, rows = pd.read_csv(path/'listings.csv'), [], []
    for fold in folds or default:
        result = train_and_judge(
            df, path / 'images', fold_col='fold', valid_fold=fold, echo=echo, **{**given, **settings}
        )
        tables.append(result.table)
        rows.append(
            {
                'set': name,
                'fold': fold,
                **{name: round(value.mean, 4) for name, value in result.table.items()},
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
    p = argparse.ArgumentParser()
    p.add_argument('name', choices=SETS)
    p.add_argument('--folds', type=int, nargs='*')
    p.add_argument('--out')
    for o, t in dict(epochs=int, size=int, bs=int, lr=float, aug=str, seed=int, sampler=str).items():
        p.add_argument(f'--{o}', type=t)
    a = vars(p.parse_args())
    name, folds, out = a.pop('name'), a.pop('folds'), a.pop('out')
    table, rows = measure(name, folds, **{name: value for name, value in a.items() if value is not None})
    if out: rows.to_csv(out, index=False)
    print(rows.to_string(index=False))
    for k, v in table.items(): print(f'{k:>16} {v.mean:.3f} (s.e. {v.se:.3f}, n={len(v.row_f1)})')
    print('fused over untrained_fused:', paired(table['fused'], table['untrained_fused']))
