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
    (Step('augment', by=whose, k=k, alpha=alpha),)
    for whose in ('own', 'fused')
    for k in (2, 3, 4)
    for alpha in (None, 1.0)
] + [
    (Step('expand', by=whose, k=k, alpha=alpha),)
    for whose in ('own', 'fused')
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
        (Step('k_reciprocal', k1=k1, k2=k2, lam=lam),)
        for k1 in (2, 3, 5, 8)
        for k2 in (1, 2, 3)
        for lam in (0.3, 0.6)
    ]
    + [(Step('standardize', k=k, floor=floor),) for k in (5, 15) for floor in (0.05, 0.2)]
)
VETO = [(Step('veto'),), (Step('mutual', k=4),), (Step('mutual', k=8),), (Step('veto'), Step('mutual', k=8))]


def save(
    embeddings,  # `Embeddings`
    file,  # npz to write
):
    "Keep embeddings as plain arrays."
    more = {'titles': np.array(embeddings.titles)} if embeddings.titles is not None else {}
    if embeddings.phash is not None:
        more['phash'] = np.array(['' if pd.isna(phash) else str(phash) for phash in embeddings.phash])
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        file,
        ids=embeddings.ids.astype(str),
        labels=np.asarray(embeddings.groups).astype(str),
        **more,
        **{f'vectors/{modality}': vectors for modality, vectors in embeddings.items()},
    )


def load(
    file,  # npz that `save` wrote
) -> Embeddings:
    "The embeddings in a file; nothing is unpickled."
    with np.load(file) as archive: arrays = dict(archive)
    prefix = 'vectors/'
    return Embeddings(
        {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)},
        arrays['ids'],
        arrays['titles'].tolist() if 'titles' in arrays else None,
        arrays['labels'],
        phash=[phash or None for phash in arrays['phash'].tolist()] if 'phash' in arrays else None,
    )


def embed(name, folder, folds=None, echo=print, **settings):
    "Train on each fold as `train_and_judge` does, and save the embeddings of the listings held out."
    from fastmatch.jobs.train import train_and_judge
    from tests.bench.quality import SETS
    path, all_folds, given = SETS[name]
    df = pd.read_csv(path/'listings.csv')
    for fold in folds or all_folds:
        result = train_and_judge(
            df, path/'images', fold_col='fold', valid_fold=fold, echo=echo, **{**given, **settings}
        )
        save(result.emb, Path(folder)/f'{name}_{fold}.npz')
        echo(f'fold {fold}: fused {result.table["fused"]}')
        del result
        gc.collect()


class Half:
    "One half of the groups: what was chosen on it so far, and what that scores on the other."
    def __init__(self, chosen_on, scored):
        self.chosen_on, self.scored = chosen_on, scored
        self.fusions = []  # (value, fusion) of each that was offered
        self.steps = self.after = ()
        self.by = self.fusion = self.cuts = self.row_f1 = None
        self.value = self.held = -np.inf

    def offer(self, sweep, least=0., **choice):
        "Take `choice` if its best cut beats what is held by `least` and more."
        cuts, value = sweep.best(self.chosen_on)
        if value <= self.held + least or value <= self.value: return value
        self.cuts, self.value, self.row_f1 = cuts, value, sweep.at(cuts)[self.scored]
        for name, chosen in choice.items(): setattr(self, name, chosen)
        return value

    def best_fusions(self):
        "Those that were worth most on this half, the plainest first in ties."
        return [fusion for _, fusion in sorted(self.fusions, key=lambda tried: -tried[0])[:FUSIONS]]

    def mark(self):
        "From here on options are compared with what is held now."
        self.held = self.value


class Ladder:
    "The rungs of one table of held-out listings."
    def __init__(self, embeddings, halvings=10, seed=0, k=K):
        self.embeddings, self.k = embeddings, min(k, len(embeddings))
        self.spaces = embeddings.spaces()
        if embeddings.titles is not None: self.spaces |= embeddings.spaces(only=('units',))
        self.names = [space for space in self.spaces if space not in ('phash', 'units')]
        self.join = tuple(space for space in self.spaces if space == 'phash')
        self.groups = group_codes(embeddings.groups, len(embeddings))
        self.halvings, self.seed = halvings, seed
        self.halves = [
            half
            for side in random_halves(self.groups, halvings, seed)
            for half in (Half(side, ~side), Half(~side, side))
        ]
        self.plain = self._search(self.spaces)

    def fused(self, scored, fusion):
        how, weights, *more = fusion
        return fuse(scored, how, weights, **dict(*more))

    def candidates(self, steps, fusion):
        "Candidates after vector steps; `fusion` finds the neighbours of those that go by all together."
        spaces = dict(self.spaces)
        for step in steps:
            more = {'neighbors': self.fused(self._search(spaces), fusion)} if step.by == 'fused' else {}
            spaces |= {name: step(spaces[name], spaces=spaces, **more) for name in self.names}
        return self._search(spaces)

    def _search(self, spaces):
        return candidates({name: spaces[name] for name in (*self.names, *self.join)}, self.k)

    def result(self, what):
        "The `HeldOut` of what the halves hold; `what`: of a half, what is told of its choice."
        f1 = np.zeros(len(self.groups))
        for half in self.halves: f1[half.scored] += half.row_f1
        picks = [(what(half), half.cuts) for half in self.halves]
        return HeldOut(f1 / self.halvings, self.groups, picks=picks)

    def rungs(self, echo=print):
        "Yield (name, `HeldOut`), each choosing on top of what the one before chose, half by half."
        groups = self.embeddings.groups
        yield 'alone', alone_heldout(groups)
        neighbors = {name: self.spaces[name].search(self.k) for name in self.names}
        yield 'best modality', heldout(neighbors, groups, halvings=self.halvings, seed=self.seed)
        usual = fusion_grid(self.names)
        self.try_fusions(usual, Sweep)
        yield 'fused', self.result(lambda half: half.fusion)
        for half in self.halves: half.mark()
        others = [fusion for fusion in fusion_grid(self.names, MORE) if fusion not in usual]
        self.try_fusions(others, Sweep, WORTH)
        yield '+ other fusions', self.result(lambda half: half.fusion)
        for half in self.halves: half.mark()
        self.try_fusions(None, RankSweep, WORTH)
        yield '+ min2', self.result(lambda half: np.ndim(half.cuts))
        for half in self.halves: half.base = (), None, half.fusion, half.cuts
        self.refine(lambda half: AUGMENT)
        yield '+ QE/DBA', self.result(lambda half: half.steps)
        self.refine(self.blends)
        yield '+ INB', self.result(lambda half: half.steps)
        self.rerank(RERANK, fresh=True)
        yield '+ rerank', self.result(lambda half: (half.steps, half.after))
        self.rerank(VETO)
        yield '+ vetoes', self.result(lambda half: (half.steps, half.after))
        if (pairs := pair_model(self)) is not None: yield '+ pair model', pairs

    def try_fusions(self, grid, sweep_type, least=0.):
        "Offer each fusion of the plain candidates to every half; without a grid those that were best on it."
        for fusion in grid or best_fusions(self.halves):
            sweep = sweep_type(self.fused(self.plain, fusion), self.groups)
            for half in self.halves:
                half.fusions.append((half.offer(sweep, least, fusion=fusion), fusion))

    def refine(self, options):
        "Offer vector steps, with the fusions that were best on a half."
        jobs = {}
        for half in self.halves:
            half.mark()
            for steps in options(half):
                # a query is expanded by what the listings have become
                steps = tuple(sorted(steps, key=lambda step: step.do == 'expand'))
                by = half.fusion if any(step.by == 'fused' for step in steps) else None
                jobs.setdefault(str((steps, by)), (steps, by, []))[2].append(half)
        for steps, by, halves in jobs.values():
            scored = self.candidates(steps, by)
            for fusion in best_fusions(halves):
                sweep = RankSweep(self.fused(scored, fusion), self.groups)
                for half in halves: half.offer(sweep, WORTH, steps=steps, fusion=fusion, by=by)

    def blends(self, half):
        """Stages of neighbourhood blending around the cut that a half holds, after its steps or in their
        place."""
        result = []
        for steps, cuts in [(half.steps, half.cuts), *([(half.base[0], half.base[3])] if half.steps else [])]:
            main = cuts[-1] if np.ndim(cuts) else cuts
            # on a grid, so that halves share the work
            options = sorted({(round(round((main + shift) / .02) * .02, 2), *more) for shift, *more in BLEND})
            for threshold, stages, k, min2 in options:
                stage = Step('blend', by='fused', threshold=threshold, k=k, min2=min2)
                result.append((*steps, *[stage] * stages))
        return result

    def rerank(self, options, fresh=False):
        "Offer steps on the fused neighbours that a half holds; `fresh`: also on those without vector steps."
        jobs = {}
        for half in self.halves:
            half.mark()
            starts = [(half.steps, half.by, half.fusion)]
            if fresh and half.steps: starts.append(half.base[:3])
            for steps, by, fusion in starts:
                tries = jobs.setdefault(str((steps, by, fusion)), (steps, by, fusion, {}))[3]
                for more in options:
                    # a veto without titles says nothing
                    if any(name not in self.spaces for step in more for name in step.reads): continue
                    after = half.after + more
                    tries.setdefault(str(after), (after, []))[1].append(half)
        for steps, by, fusion, tries in jobs.values():
            neighbors = self.fused(self.candidates(steps, by), fusion)
            for after, halves in tries.values():
                reranked = neighbors
                for step in after: reranked = step(reranked, spaces=self.spaces)
                sweep = RankSweep(reranked, self.groups)
                for half in halves: half.offer(sweep, WORTH, steps=steps, by=by, fusion=fusion, after=after)


def best_fusions(halves):
    "Those that were worth most on any of the halves, each once."
    return list({str(fusion): fusion for half in halves for fusion in half.best_fusions()}.values())


def pair_model(ladder):
    """The pair model on the same halves, fitted and cut on one, scored on the other; None where the package
    has none."""
    try:
        from fastmatch.match import heldout_pairs
    except ImportError: return None
    embeddings = ladder.embeddings
    return heldout_pairs(
        ladder.plain, embeddings.groups, embeddings.titles, halvings=ladder.halvings, seed=ladder.seed
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
        picks=[pick for part in parts for pick in part.picks],
    )


def measure(
    set_name: str,  # Of the set, for the table
    tables,  # `Embeddings`, one a fold
    echo=print,
    **kwargs,  # For `Ladder`
) -> pd.DataFrame:
    "The ladder over all folds: each rung with its paired difference to the one before and to plain fusion."
    runs = []
    for fold, embeddings in enumerate(tables):
        runs.append({})
        for rung, scores in Ladder(embeddings.refuse_trained_on('a ladder'), **kwargs).rungs():
            runs[-1][rung] = scores
            favorite = Counter(str(choice) for choice, _ in scores.picks).most_common(1)
            echo(f'  fold {fold} {rung:>16} {scores.mean:.4f}  {favorite}')
    rungs = {rung: pooled([run[rung] for run in runs]) for rung in runs[0]}
    rows, before = [], None
    for rung, scores in rungs.items():
        row = {
            'set': set_name,
            'rung': rung,
            'row_f1': round(scores.mean, 4),
            'se': round(scores.se, 4),
            'n': len(scores.row_f1),
        }
        others = {} if before is None else {'before': before}
        if rung not in ('alone', 'best modality', 'fused'): others['fused'] = rungs['fused']
        for what, other in others.items():
            difference = paired(scores, other)
            row |= {
                f'over_{what}': round(difference.diff, 4),
                f'low_{what}': round(difference.low, 4),
                f'high_{what}': round(difference.high, 4),
            }
        rows.append(row)
        before = scores
    return pd.DataFrame(rows)


if __name__ == '__main__':
    warnings.filterwarnings('ignore', category=FutureWarning, message='.*torch.jit.*')
    parser = argparse.ArgumentParser()
    parser.add_argument('name', choices=['emoji', 'luma'])
    parser.add_argument('--embed', help='folder to save the embeddings of each fold in; trains')
    parser.add_argument('--embeddings', nargs='*', help='files of saved embeddings, one a fold')
    parser.add_argument('--folds', type=int, nargs='*')
    parser.add_argument('--out', help='csv to write')
    parser.add_argument('--halvings', type=int, default=10)
    settings = dict(epochs=int, size=int, bs=int, lr=float, aug=str, seed=int)
    for setting, kind in settings.items(): parser.add_argument(f'--{setting}', type=kind)
    options = vars(parser.parse_args())
    name, folds, files, out, folder, halvings = (
        options.pop(option) for option in ('name', 'folds', 'embeddings', 'out', 'embed', 'halvings')
    )
    if folder:
        given = {setting: value for setting, value in options.items() if value is not None}
        embed(name, folder, folds, **given)
        files = sorted(Path(folder).glob(f'{name}_*.npz'))
    if not files: parser.error('give --embed or --embeddings')
    # seen while it runs, also where it prints into a file
    echo = partial(print, flush=True)
    table = measure(name, [load(file) for file in files], echo, halvings=halvings)
    print(table.to_string(index=False))
    if out: table.to_csv(out, index=False)
