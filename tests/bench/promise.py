"""Promise against delivery: what a rule promises where it was chosen, and what it gives on listings that come later.

    python tests/bench/promise.py emoji luma --embeddings DIR --out nbs/promise.csv

Each fold in turn is what comes later. Three of the other four are trained on, the rule is chosen on the last one,
looked up in the catalogue of these four, and then the later fold is matched by a matcher that knows the four: with
the catalogue and among themselves, as `fastmatch match` does by default. Beside it stands the earlier way: the
fusion and the threshold that are best among the listings of the one fold.

Embeddings are made by training (about a minute a fold of luma, five of emoji) and kept in `--embeddings`.
"""
import argparse
import gc
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from fastmatch.jobs.judge import judge, settings_for
from fastmatch.jobs.options import RuleChoice
from fastmatch.match import Embeddings, HeldOut, candidates, choose_rule, paired, row_f1
from fastmatch.match.judge.groups import Groups
from fastmatch.matcher import Matcher

FOLDS = 5


def embed(name: str, later: int, folder: Path):
    "Train on three folds as `train_and_judge` does, and save the embeddings of all listings."
    from fastmatch.jobs.train import train_and_judge
    from tests.bench.quality import SETS
    path, _, settings = SETS[name]
    listings = pd.read_csv(path/'listings.csv')
    chosen_on = (later + 1) % FOLDS
    known = listings[listings.fold != later].reset_index(drop=True)
    outcome = train_and_judge(known, path/'images', fold_col='fold', valid_fold=chosen_on,
                              choice=RuleChoice('plain'), echo=lambda line: None, **settings)
    embeddings = outcome.learn.embeddings(listings, tta=True)
    np.savez(folder/f'{name}_promise_{later}.npz', ids=embeddings.ids.astype(str),
             titles=np.array(embeddings.titles), groups=np.asarray(embeddings.groups).astype(str),
             trained_on=embeddings.trained_on, fold=listings.fold.to_numpy(), valid_fold=chosen_on,
             **{f'vectors/{modality}': vectors for modality, vectors in embeddings.items()})
    del outcome
    gc.collect()


def load(file: Path) -> tuple[Embeddings, np.ndarray, int]:  # embeddings, fold of each, fold to choose on
    "The embeddings in a file; nothing is unpickled."
    with np.load(file) as saved: arrays = dict(saved)
    vectors = {name.removeprefix('vectors/'): array for name, array in arrays.items()
               if name.startswith('vectors/')}
    embeddings = Embeddings(vectors, arrays['ids'], arrays['titles'].tolist(), arrays['groups'],
                            arrays['trained_on'])
    return embeddings, arrays['fold'], int(arrays['valid_fold'])


def delivered(rule, known: Embeddings, later: Embeddings) -> HeldOut:
    "What a matcher of the known listings gives for later ones: their row F1."
    result = Matcher(rule, known).match(Embeddings(later, later.ids, later.titles))
    group_of = dict(zip([*map(str, known.ids), *map(str, later.ids)], [*known.groups, *later.groups]))
    groups = Groups(np.array([group_of[listing] for listing in result.ids]), rows=len(later))
    return HeldOut(row_f1(result.matches, groups), groups.row_codes)


def measure(name: str, embeddings: Embeddings, fold: np.ndarray, chosen_on: int, later_fold: int):
    "A row of the table, and what the later listings got: {'delivered', 'earlier way'}."
    known, known_fold = embeddings.take(fold != later_fold), fold[fold != later_fold]
    later = embeddings.take(fold == later_fold)
    held_out = known_fold == chosen_on
    judgement = judge(settings_for(known, held_out, RuleChoice()), RuleChoice())
    of_fold = known.take(held_out)
    naive_rule = choose_rule(candidates(of_fold.spaces()), of_fold.groups)
    given = {'delivered': delivered(judgement.rule, known, later),
             'earlier way': delivered(naive_rule, known, later)}
    pool = len(embeddings)
    row = {'set': name, 'later_fold': later_fold, 'listings': len(later), 'pool': pool,
           'promised': judgement.promised_at(pool), 'promised_in_catalogue': judgement.promised.mean,
           'delivered': given['delivered'].mean, 'earlier_way': given['earlier way'].mean,
           'rule': str(judgement.ladder.structure)}
    return row, given


def pooled(parts: list[HeldOut]) -> HeldOut:
    "Scores of several folds as of one table: groups of different folds are different groups."
    shifts = np.cumsum([0, *(part.clusters.max() + 1 for part in parts)])
    clusters = np.concatenate([part.clusters + shift for part, shift in zip(parts, shifts)])
    return HeldOut(np.concatenate([part.row_f1 for part in parts]), clusters)


def table_of(name: str, folder: Path, echo=print) -> pd.DataFrame:
    "A row for each fold, and one for all: means of the folds, and the paired gain over the earlier way."
    rows, given = [], []
    for later_fold in range(FOLDS):
        file = folder/f'{name}_promise_{later_fold}.npz'
        if not file.exists(): embed(name, later_fold, folder)
        row, of_fold = measure(name, *load(file), later_fold)
        rows.append(row)
        given.append(of_fold)
        echo({column: round(value, 4) if isinstance(value, float) else value for column, value in row.items()})
    table = pd.DataFrame(rows)
    gain = paired(*(pooled([of_fold[way] for of_fold in given]) for way in ('delivered', 'earlier way')))
    figures = ['promised', 'promised_in_catalogue', 'delivered', 'earlier_way']
    whole = {'set': name, 'later_fold': 'all', 'listings': table.listings.sum(), 'pool': table.pool[0],
             **table[figures].mean(), 'gain': gain.diff, 'gain_low': gain.low, 'gain_high': gain.high}
    return pd.concat([table, pd.DataFrame([whole])], ignore_index=True)


def main(arguments=None):
    "Measure the sets, print the table, and write it where that is asked for."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('sets', nargs='+', choices=['emoji', 'luma'])
    parser.add_argument('--embeddings', type=Path, required=True, help='folder of embeddings, made if missing')
    parser.add_argument('--out', type=Path, help='csv')
    given = parser.parse_args(arguments)
    given.embeddings.mkdir(parents=True, exist_ok=True)
    table = pd.concat([table_of(name, given.embeddings, partial(print, flush=True)) for name in given.sets])
    table['command'] = f'python tests/bench/promise.py {" ".join(given.sets)}'
    print(table.drop(columns=['rule', 'command']).round(4).to_string(index=False))
    if given.out: table.round(5).to_csv(given.out, index=False)


if __name__ == '__main__':
    warnings.filterwarnings('ignore', category=FutureWarning, message='.*torch.jit.*')
    main()
