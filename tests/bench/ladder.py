"""What each layer of the decision is worth: a ladder of held-out row F1 on saved embeddings, each rung paired
with the one before.

    python tests/bench/ladder.py emoji --embed DIR [--folds 0] [--epochs 8 ...]      # trains with
    train_and_judge's settings, saves DIR/emoji_0.npz
    python tests/bench/ladder.py emoji --embeddings DIR/emoji_*.npz --out nbs/ladder_emoji.csv
"""
import argparse
import gc
import sys
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

# a script: its own checkout is what is measured
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from fastmatch.match import (
    Embeddings,
    HeldOut,
    RankSweep,
    Step,
    Sweep,
    alone_heldout,
    candidates,
    fuse,
    fusion_grid,
    heldout,
    paired,
)
from fastmatch.match.judge.heldout import random_halves
from fastmatch.match.neighbors import group_codes

K = 50  # candidates of each modality
WORTH = .002  # what a step must add on the half it is chosen on: less is noise, and the plainer rule stays
FUSIONS = 5  # of those that did best on a half, tried again with each refinement
MORE = ('mean', 'prob_or', 'square', 'joint', 'power')

AUGMENT = [
    (Step('augment', by=by, k=k, alpha=alpha),)
    for by in ('own', 'fused')
    for k in (2, 3, 4)
    for alpha in (None, 1.0)
] + [
    (Step('expand', by=by, k=k, alpha=alpha),)
    for by in ('own', 'fused')
    for k, alpha in ((2, 1.0), (3, 3.0), (5, 3.0))
]
# ten at most: vectors of titles grow with every stage
BLEND = [
    (shift, stages, k, min2)
    for shift in (0.0, 0.1, 0.2)
    for stages, k in ((1, 4), (1, 10), (2, 10), (3, 10))
    for min2 in (False, True)
]
RERANK = (
    [(Step('neighbor_mean', k=k, weight=0.5),) for k in (2, 3)]
    + [
        (Step('k_reciprocal', k1=a, k2=b, lam=c),)
        for a in (2, 3, 5, 8)
        for b in (1, 2, 3)
        for c in (0.3, 0.6)
    ]
    + [(Step('standardize', k=k, floor=function),) for k in (5, 15) for function in (0.05, 0.2)]
)
VETO = [(Step('veto'),), (Step('mutual', k=4),), (Step('mutual', k=8),), (Step('veto'), Step('mutual', k=8))]


def save(
    emb,  # `Embeddings`
    file,  # npz to write
):
    "Keep embeddings as plain arrays."
    more = {'titles': np.array(emb.titles)} if emb.titles is not None else {}
    if emb.phash is not None:
        more['phash'] = np.array(['' if pd.isna(item) else str(item) for item in emb.phash])
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        file,
        ids=emb.ids.astype(str),
        labels=np.asarray(emb.groups).astype(str),
        **more,
        **{f'vectors/{name}': value for name, value in emb.items()},
    )


def load(
    file,  # npz that `save` wrote
) -> Embeddings:
    "The embeddings in a file; nothing is unpickled."
    with np.load(file) as z: z = dict(z)
    return Embeddings(
        {name.removeprefix('vectors/'): value for name, value in z.items() if name.startswith('vectors/')},
        z['ids'],
        z['titles'].tolist() if 'titles' in z else None,
        z['labels'],
        phash=[item or None for item in z['phash'].tolist()] if 'phash' in z else None,
    )


def embed(name, folder, folds=None, echo=print, **settings):
    "Train on each fold as `train_and_judge` does, and save the embeddings of the listings held out."
    from fastmatch.jobs.train import train_and_judge
    from tests.bench.quality import SETS
    path, default, given = SETS[name]
    df = pd.read_csv(path/'listings.csv')
    for fold in folds or default:
        result = train_and_judge(
            df, path / 'images', fold_col='fold', valid_fold=fold, echo=echo, **{**given, **settings}
        )
        save(result.emb, Path(folder)/f'{name}_{fold}.npz')
        echo(f'fold {fold}: fused {result.table["fused"]}')
        del result
        gc.collect()


class Half:
    "One half of the groups: what was chosen on it so far, and what that scores on the other."
    def __init__(self, chosen_on, scored):
        self.chosen_on, self.scored, self.fusions = chosen_on, scored, []
        self.steps, self.after, self.by, self.fusion, self.cuts, self.row_f1 = (), (), None, None, None, None
        self.value = self.held = -np.inf

    def offer(self, sweep, least=0., **config):
        "Take `config` if its best cut beats what is held by `least` and more."
        cuts, value = sweep.best(self.chosen_on)
        if value <= self.held + least or value <= self.value: return value
        self.cuts, self.value, self.row_f1 = cuts, value, sweep.at(cuts)[self.scored]
        for name, item in config.items(): setattr(self, name, item)
        return value

    def best_fusions(self):
        "Those that were worth most on this half, the plainest first in ties."
        return [function for _, function in sorted(self.fusions, key=lambda value: -value[0])[:FUSIONS]]

    def mark(self):
        "From here on options are compared with what is held now."
        self.held = self.value


class Ladder:
    "The rungs of one table of held-out listings."
    def __init__(self, emb, halvings=10, seed=0, k=K):
        self.emb, self.k = emb, min(k, len(emb))
        self.spaces = emb.spaces()
        if emb.titles is not None: self.spaces |= emb.spaces(only=('units',))
        self.names = [space for space in self.spaces if space not in ('phash', 'units')]
        self.join = tuple(space for space in self.spaces if space == 'phash')
        self.y = group_codes(emb.groups, len(emb))
        self.halvings, self.seed = halvings, seed
        self.random_halves = [
            Half(*item)
            for side in random_halves(self.y, halvings, seed)
            for item in ((side, ~side), (~side, side))
        ]
        self.plain = candidates({item: self.spaces[item] for item in (*self.names, *self.join)}, self.k)

    def fused(self, cand, fusion):
        how, weights, *more = fusion
        return fuse(cand, how, weights, **dict(*more))

    def candidates(self, steps, fusion):
        "Candidates after vector steps; `fusion` finds the neighbours of those that go by all together."
        spaces = dict(self.spaces)
        for step in steps:
            more = {'neighbors': self.fused(self._search(spaces), fusion)} if step.by == 'fused' else {}
            spaces |= {name: step(spaces[name], spaces=spaces, **more) for name in self.names}
        return self._search(spaces)

    def _search(self, spaces):
        return candidates({item: spaces[item] for item in (*self.names, *self.join)}, self.k)

    def result(self, what):
        f1 = np.zeros(len(self.y))
        for random_halve in self.random_halves: f1[random_halve.scored] += random_halve.row_f1
        return HeldOut(
            f1 / self.halvings,
            self.y,
            picks=[(what(random_halve), random_halve.cuts) for random_halve in self.random_halves],
        )

    def rungs(self, echo=print):
        "Yield (name, `HeldOut`), each choosing on top of what the one before chose, half by half."
        yield 'alone', alone_heldout(self.emb.groups)
        yield (
            'best modality',
            heldout(
                {name: self.spaces[name].search(self.k) for name in self.names},
                self.emb.groups,
                halvings=self.halvings,
                seed=self.seed,
            ),
        )
        self.try_fusions(fusion_grid(self.names), Sweep)
        yield 'fused', self.result(lambda value: value.fusion)
        for random_halve in self.random_halves: random_halve.mark()
        self.try_fusions(
            [item for item in fusion_grid(self.names, MORE) if item not in fusion_grid(self.names)],
            Sweep,
            WORTH,
        )
        yield '+ other fusions', self.result(lambda value: value.fusion)
        for random_halve in self.random_halves: random_halve.mark()
        self.try_fusions(None, RankSweep, WORTH)
        yield '+ min2', self.result(lambda value: np.ndim(value.cuts))
        for random_halve in self.random_halves:
            random_halve.base = (), None, random_halve.fusion, random_halve.cuts
        self.refine(lambda value: AUGMENT)
        yield '+ QE/DBA', self.result(lambda value: value.steps)
        self.refine(self.blends)
        yield '+ INB', self.result(lambda value: value.steps)
        self.rerank(RERANK, fresh=True)
        yield '+ rerank', self.result(lambda value: (value.steps, value.after))
        self.rerank(VETO)
        yield '+ vetoes', self.result(lambda value: (value.steps, value.after))
        if (pairs := pair_model(self)) is not None: yield '+ pair model', pairs

    def try_fusions(self, grid, sweeps, least=0.):
        "Offer each fusion of the plain candidates to every half; without a grid those that were best on it."
        for fusion in (
            grid
            or {
                str(function): function
                for random_halve in self.random_halves
                for function in random_halve.best_fusions()
            }.values()
        ):
            sweep = sweeps(self.fused(self.plain, fusion), self.y)
            for random_halve in self.random_halves:
                random_halve.fusions.append((random_halve.offer(sweep, least, fusion=fusion), fusion))

    def refine(self, options):
        "Offer vector steps, with the fusions that were best on a half."
        todo = {}
        for item in self.random_halves:
            item.mark()
            for steps in options(item):
                # a query is expanded by what the listings have become
                steps = tuple(sorted(steps, key=lambda s: s.do == 'expand'))
                by = item.fusion if any(s.by == 'fused' for s in steps) else None
                todo.setdefault(str((steps, by)), (steps, by, []))[2].append(item)
        for steps, by, whose in todo.values():
            scored = self.candidates(steps, by)
            for fusion in {
                str(function): function for item in whose for function in item.best_fusions()
            }.values():
                sweep = RankSweep(self.fused(scored, fusion), self.y)
                for item in whose: item.offer(sweep, WORTH, steps=steps, fusion=fusion, by=by)

    def blends(self, half):
        """Stages of neighbourhood blending around the cut that a half holds, after its steps or in their
        place."""
        result = []
        for steps, cuts in [(half.steps, half.cuts), *([(half.base[0], half.base[3])] if half.steps else [])]:
            main = cuts[-1] if np.ndim(cuts) else cuts
            # on a grid, so that halves share the work
            at = sorted({(round(round((main + shift) / .02) * .02, 2), *more) for shift, *more in BLEND})
            result += [
                steps + tuple(Step('blend', by='fused', threshold=t, k=k, min2=m) for _ in range(stages))
                for t, stages, k, m in at
            ]
        return result

    def rerank(self, options, fresh=False):
        "Offer steps on the fused neighbours that a half holds; `fresh`: also on those without vector steps."
        todo = {}
        for item in self.random_halves:
            item.mark()
            for steps, by, fusion in [
                (item.steps, item.by, item.fusion),
                *([item.base[:3]] if fresh and item.steps else []),
            ]:
                jobs = todo.setdefault(str((steps, by, fusion)), (steps, by, fusion, {}))[3]
                for more in options:
                    # a veto without titles says nothing
                    if any(n not in self.spaces for s in more for n in s.reads): continue
                    jobs.setdefault(str(item.after + more), (item.after + more, []))[1].append(item)
        for steps, by, fusion, jobs in todo.values():
            neighbors = self.fused(self.candidates(steps, by), fusion)
            for after, whose in jobs.values():
                out = neighbors
                for step in after: out = step(out, spaces=self.spaces)
                sweep = RankSweep(out, self.y)
                for item in whose: item.offer(sweep, WORTH, steps=steps, by=by, fusion=fusion, after=after)


def pair_model(ladder):
    """The pair model on the same halves, fitted and cut on one, scored on the other; None where the package
    has none."""
    try:
        from fastmatch.match import heldout_pairs
    except ImportError: return None
    return heldout_pairs(
        ladder.plain, ladder.emb.groups, ladder.emb.titles, halvings=ladder.halvings, seed=ladder.seed
    )


def pooled(parts):
    "Scores of several folds as of one table: groups of different folds are different groups."
    groups, shift = [], 0
    for part in parts:
        groups.append(part.clusters + shift)
        shift += part.clusters.max() + 1
    return HeldOut(
        np.concatenate([part.row_f1 for part in parts]),
        np.concatenate(groups),
        picks=[p for part in parts for p in part.picks],
    )


def measure(
    name: str,  # Of the set, for the table
    tables,  # `Embeddings`, one a fold
    echo=print,
    **kwargs,  # For `Ladder`
) -> pd.DataFrame:
    "The ladder over all folds: each rung with its paired difference to the one before and to plain fusion."
    runs = []
    for i, embeddings in enumerate(tables):
        runs.append({})
        for rung, item in Ladder(embeddings.refuse_trained_on('a ladder'), **kwargs).rungs():
            runs[-1][rung] = item
            echo(
                f'  fold {i} {rung:>16} {item.mean:.4f}  '
                f'{Counter(str(p) for p, _ in item.picks).most_common(1)}'
            )
    rungs = {k: pooled([r[k] for r in runs]) for k in runs[0]}
    rows, before = [], None
    for rung, item in rungs.items():
        row = {
            'set': name,
            'rung': rung,
            'row_f1': round(item.mean, 4),
            'se': round(item.se, 4),
            'n': len(item.row_f1),
        }
        for what, other in (
            ('before', before),
            (
                'fused',
                rungs['fused'] if before is not None and rung not in ('best modality', 'fused') else None,
            ),
        ):
            if other is None: continue
            d = paired(item, other)
            row |= {
                f'over_{what}': round(d.diff, 4),
                f'low_{what}': round(d.low, 4),
                f'high_{what}': round(d.high, 4),
            }
        rows.append(row)
        before = item
    return pd.DataFrame(rows)


if __name__ == '__main__':
    warnings.filterwarnings('ignore', category=FutureWarning, message='.*torch.jit.*')
    p = argparse.ArgumentParser()
    p.add_argument('name', choices=['emoji', 'luma'])
    p.add_argument('--embed', help='folder to save the embeddings of each fold in; trains')
    p.add_argument('--embeddings', nargs='*', help='files of saved embeddings, one a fold')
    p.add_argument('--folds', type=int, nargs='*')
    p.add_argument('--out', help='csv to write')
    p.add_argument('--halvings', type=int, default=10)
    for o, t in dict(epochs=int, size=int, bs=int, lr=float, aug=str, seed=int).items():
        p.add_argument(f'--{o}', type=t)
    a = vars(p.parse_args())
    name, folds, files, out, folder, halvings = (
        a.pop(item) for item in ('name', 'folds', 'embeddings', 'out', 'embed', 'halvings')
    )
    if folder:
        embed(name, folder, folds, **{name: value for name, value in a.items() if value is not None})
        files = sorted(Path(folder).glob(f'{name}_*.npz'))
    if not files: p.error('give --embed or --embeddings')
    # seen while it runs, also where it prints into a file
    table = measure(
        name, [load(function) for function in files], partial(print, flush=True), halvings=halvings
    )
    print(table.to_string(index=False))
    if out: table.to_csv(out, index=False)
