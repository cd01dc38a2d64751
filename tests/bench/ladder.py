"""What each step of the decision is worth: the package's ladder on saved embeddings, rung by rung.

    python tests/bench/ladder.py emoji --embeddings DIR --out nbs/ladder_emoji.csv
    python tests/bench/ladder.py luma --embeddings DIR --out nbs/ladder_luma.csv

Encoders are trained on the other folds with `train_and_judge`'s settings; embeddings of all listings are kept
in `--embeddings` and made where they are missing. The ladder is climbed in both settings: the held-out fold
among itself, and looked up in the catalogue of all listings. Each rung is paired with the one before and with
plain fusion.
"""
import argparse
import gc
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

# a script: its own checkout is what is measured
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from fastmatch.match import Embeddings, HeldOut, among_themselves, in_the_catalogue, ladder, paired


def save(embeddings, file, fold, valid_fold):
    "Keep the embeddings of all listings as plain arrays, with the fold of each and the one held out."
    file.parent.mkdir(parents=True, exist_ok=True)
    more = {} if embeddings.titles is None else {'titles': np.array(embeddings.titles)}
    if embeddings.phash is not None:
        more['phash'] = np.array(['' if pd.isna(phash) else str(phash) for phash in embeddings.phash])
    np.savez(file, ids=embeddings.ids.astype(str), groups=np.asarray(embeddings.groups).astype(str),
             trained_on=embeddings.trained_on, fold=fold, valid_fold=valid_fold, **more,
             **{f'vectors/{modality}': vectors for modality, vectors in embeddings.items()})


def load(file) -> tuple[Embeddings, np.ndarray]:  # the embeddings; bool (n,), the listings held out
    "The embeddings in a file; nothing is unpickled."
    with np.load(file) as saved: arrays = dict(saved)
    vectors = {name.removeprefix('vectors/'): array for name, array in arrays.items()
               if name.startswith('vectors/')}
    phash = [phash or None for phash in arrays['phash'].tolist()] if 'phash' in arrays else None
    titles = arrays['titles'].tolist() if 'titles' in arrays else None
    embeddings = Embeddings(vectors, arrays['ids'], titles, arrays['groups'], arrays['trained_on'], phash)
    return embeddings, arrays['fold'] == arrays['valid_fold']


def embed(name, fold, file):
    "Train without one fold as `train_and_judge` does, and save the embeddings of all listings."
    from fastmatch.jobs.train import train_and_judge
    from tests.bench.quality import SETS
    path, _, settings = SETS[name]
    listings = pd.read_csv(path/'listings.csv')
    outcome = train_and_judge(
        listings, path / 'images', fold_col='fold', valid_fold=fold, echo=lambda line: None, **settings
    )
    save(outcome.learn.embeddings(listings, tta=True), file, listings.fold.to_numpy(), fold)
    del outcome
    gc.collect()


def settings_of(embeddings, held_out):
    "The settings that a rule can be chosen in."
    settings = [among_themselves(embeddings.take(held_out))]
    return settings if held_out.all() else [*settings, in_the_catalogue(embeddings, held_out)]


def pooled(parts):
    "Scores of several folds as of one table: groups of different folds are different groups."
    shifts = np.cumsum([0, *(part.clusters.max() + 1 for part in parts)])
    clusters = np.concatenate([part.clusters + shift for part, shift in zip(parts, shifts)])
    return HeldOut(np.concatenate([part.row_f1 for part in parts]), clusters)


def table_of(rungs):
    "Rung -> `HeldOut` as a table: each with its paired difference to the one before and to plain fusion."
    rows, before = [], None
    for rung, scores in rungs.items():
        row = {'rung': rung, 'row_f1': scores.mean, 'se': scores.se, 'n': len(scores.row_f1)}
        fused = None if rung in ('alone', 'fused') else rungs['fused']
        for what, other in (('before', before), ('fused', fused)):
            if other is None: continue
            difference = paired(scores, other)
            row |= {f'over_{what}': difference.diff, f'low_{what}': difference.low,
                    f'high_{what}': difference.high}
        rows.append(row)
        before = scores
    return pd.DataFrame(rows)


def measure(name, tables, echo=print, **options):
    "The ladder of each setting over all folds; `tables` are what `load` gives, `options` are for `ladder`."
    rungs = {}
    for number, (embeddings, held_out) in enumerate(tables):
        for setting in settings_of(embeddings, held_out):
            echo(f'fold {number} {setting}')
            for rung in ladder(setting, echo=echo, **options).rungs:
                rungs.setdefault(setting.name, {}).setdefault(rung.name, []).append(rung.heldout)
    parts = []
    for setting_name, of_setting in rungs.items():
        part = table_of({rung: pooled(scores) for rung, scores in of_setting.items()})
        parts.append(
            pd.concat([pd.DataFrame({'set': name, 'setting': setting_name}, part.index), part], axis=1)
        )
    return pd.concat(parts, ignore_index=True).round(4)


def main(arguments=None):
    "Climb, print the table, and write it where that is asked for."
    from tests.bench.quality import SETS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('name', choices=list(SETS))
    parser.add_argument('--embeddings', type=Path, required=True, help='folder of embeddings')
    parser.add_argument('--folds', type=int, nargs='*')
    parser.add_argument('--menu', default='wide', help='as for ladder')
    parser.add_argument('--halvings', type=int, default=10)
    parser.add_argument('--out', type=Path, help='csv to write')
    given = parser.parse_args(arguments)
    files = []
    for fold in given.folds or SETS[given.name][1]:
        files.append(given.embeddings/f'{given.name}_fold_{fold}.npz')
        if not files[-1].exists(): embed(given.name, fold, files[-1])
    # seen while it runs, also where it prints into a file
    table = measure(given.name, map(load, files), partial(print, flush=True), menu=given.menu,
                    halvings=given.halvings)
    print(table.to_string(index=False))
    table['command'] = (f'python tests/bench/ladder.py {given.name} --menu {given.menu} '
                        f'--halvings {given.halvings}')
    if given.out: table.to_csv(given.out, index=False)


if __name__ == '__main__':
    warnings.filterwarnings('ignore', category=FutureWarning, message='.*torch.jit.*')
    main()
