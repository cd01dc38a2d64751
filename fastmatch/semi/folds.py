"A model of each fold: what each says of the items it held out, and its weights, kept in a folder."
import gc
import json
import math
import shutil
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from ..callback.learner_methods import _Best, _StopAfter
from ..core import InputError, preview, seed_everything
from ..match.embeddings import Embeddings
from ..models.views import Views, views_of
from ..store import read_manifest, read_sealed, seal, write_atomically, write_sealed
from .heldout import (
    check_held_out,
    describe_learner,
    embeddings_from_files,
    embeddings_of,
    heldout_files,
    load_weights,
    trained_on_of,
    weights_files,
)
from .out_of_fold import OutOfFold, aligned
from .same_run import as_json, code_of, is_same_code

FORMAT = 1  # raised with every change that older code can't read
MANIFEST = 'folds.json'  # of the run: its settings
HELDOUT, WEIGHTS = 'fold.json', 'manifest.json'  # manifests of what a fold leaves


class FoldRuns:
    """The folds of a run in their folder; made by `train_folds`, or by `load_folds` from a folder.

    A fold is read when it is asked for, so that any number of them takes the memory of one.
    """
    def __init__(
        self,
        folder,  # That `train_folds` wrote
        make_learner=None,  # As for `train_folds`; None: predictions and embeddings can be read, no learner
    ):
        self.folder = Path(folder)
        self.make_learner = make_learner
        content = read_manifest(self.folder, MANIFEST, FORMAT)
        self.n_folds, self.settings = content['n_folds'], content['settings']

    def __repr__(self): return f'FoldRuns({self.folder}: {len(self.finished)} models)'

    def part(
        self,
        fold: int,
        seed: int,
    ) -> Path:
        "The folder of a fold."
        return self.folder/f'seed {seed} fold {fold}'

    @property
    def finished(self) -> list[tuple[int, int]]:
        "(fold, seed) of the folds that are there, in their order."
        found = []
        for manifest in self.folder.glob(f'seed * fold */heldout/{HELDOUT}'):
            _, seed, _, fold = manifest.parent.parent.name.split()
            found.append((int(fold), int(seed)))
        return sorted(found, key=lambda part: (part[1], part[0]))

    @property
    def seeds(self) -> list[int]:
        "The seeds of which all folds are there."
        finished = self.finished
        return [seed for seed in dict.fromkeys(seed for _, seed in finished)
                if all((fold, seed) in finished for fold in range(self.n_folds))]

    def about(
        self,
        fold: int,
        seed: int,
    ) -> dict:
        """What is known of a fold: 'learner' (its kind, classes, architecture), 'trained_on', 'best_epoch'
        (from 0) and 'epochs'."""
        return read_manifest(self.part(fold, seed)/'heldout', HELDOUT, FORMAT)

    def embeddings(
        self,
        fold: int,
        seed: int,
    ) -> Embeddings:
        """The embeddings of a fold's held-out items, with their groups (of a classifier: classes). Those of
        different folds are of different models, and aren't compared with each other."""
        return embeddings_from_files(self._heldout(fold, seed)[1])

    def _heldout(self, fold, seed): return read_sealed(self.part(fold, seed)/'heldout', HELDOUT, FORMAT)

    def out_of_fold(
        self,
        seed: int | None = None,  # None: the mean over all seeds, of which each dealt the same folds
    ) -> OutOfFold:
        "A classifier's probabilities of all items, each by the model that held it out."
        seeds = self.seeds if seed is None else [seed]
        if not seeds: raise InputError(f'{self.folder}: no seed has all {self.n_folds} folds yet')
        parts = aligned([self._of_seed(each) for each in seeds])
        return parts[0].with_probabilities(np.mean([part.probabilities for part in parts], 0))

    def _of_seed(self, seed):
        from safetensors.numpy import load
        trained_on = {}
        ids, folds = [], []
        probabilities, targets = [], []
        for fold in range(self.n_folds):
            if (fold, seed) not in self.finished: raise InputError(f'seed {seed}: fold {fold} is missing')
            content, files = self._heldout(fold, seed)
            if content['learner']['kind'] != 'classify':
                raise InputError('these are folds of a match_learner, which has no classes: see `embeddings`')
            arrays = load(files['heldout.safetensors'])
            ids += json.loads(files['items.json'])['ids']
            probabilities.append(arrays['probabilities'])
            targets.append(arrays['targets'])
            folds += [fold] * len(targets[-1])
            trained_on[fold] = content['trained_on']['ids']
        return OutOfFold(np.array(ids, object), np.concatenate(probabilities), content['learner']['classes'],
                         np.concatenate(targets), np.array(folds), trained_on)

    def learner(
        self,
        fold: int,
        seed: int,
    ):
        "A new learner with the weights of a fold."
        if self.make_learner is None:
            raise InputError('make_learner is needed for a learner: load_folds(folder, make_learner)')
        seed_everything(seed)
        learner = self.make_learner(fold, seed)
        self.put_weights(learner, fold, seed)
        return learner

    def put_weights(
        self,
        learner,  # As `make_learner` makes it, of any fold
        fold: int,
        seed: int,
    ):
        "Put the weights of a fold into a learner."
        load_weights(learner, read_sealed(self.part(fold, seed)/'weights', WEIGHTS, FORMAT)[1])

    @property
    def best_epochs(self) -> list[int]:
        "The best epoch of each fold, from 0; raises `InputError` where no `monitor` was given."
        found = [self.about(*part)['best_epoch'] for part in self.finished]
        if None in found or not found:
            raise InputError('the folds know no best epoch: give train_folds a monitor, such as valid_loss')
        return found


def load_folds(
    folder,  # That `train_folds` wrote
    make_learner=None,  # As for `train_folds`, where learners are asked for
) -> FoldRuns:
    "The folds in a folder, as far as they are finished; raises `InputError` where there are none."
    return FoldRuns(folder, make_learner)


def train_folds(
    # (fold, seed) -> a new learner of `classify_learner` or `match_learner` that holds out that fold
    make_learner,
    fit,  # Function that trains a learner: `lambda learn: learn.fit_flat_cos(10, 1e-3)`
    folder,  # Where all of it is kept; a run that was cut off goes on there
    *,
    n_folds: int = 5,  # Folds 0 to n_folds - 1 are held out in turn
    seeds=(0,),  # Whole numbers, for each of which every fold is trained; more can be added later
    # Anything json takes that tells this run from another, such as the name of the table
    settings: dict | None = None,
    # Recorded value whose best epoch in the last fit is noted, for `train_full`
    monitor: str | None = None,
    # Embed, or classify, pictures with their mirror images, or with further `Views`
    tta: bool | Views = False,
) -> FoldRuns:
    """Train a model for each fold and seed, and keep predictions and embeddings of what it held out.

    A finished fold is never trained again, and a kill loses the fold that was being trained (`Resume` among
    the callbacks keeps its epochs). Raises `InputError` where the folder is of another run: of other
    `settings`, or where the code of `make_learner` or `fit` or a number that it reads was changed since; and
    where a fold trains on what it holds out, or holds out what another did.
    """
    folds, seeds = list(range(n_folds)), [int(seed) for seed in np.atleast_1d(seeds)]
    if n_folds < 2: raise InputError(f'n_folds={n_folds}: 2 or more')
    runs = _opened(Path(folder), make_learner, fit, n_folds, settings, monitor, views_of(tta).spec())
    wanted = [(fold, seed) for seed in seeds for fold in folds]
    finished = set(runs.finished)
    with tqdm(total=len(wanted), initial=len(finished & set(wanted)), desc='folds') as progress_bar:
        for fold, seed in wanted:
            if (fold, seed) in finished: continue
            _train_one(runs, fit, fold, seed, monitor, tta)
            # a Learner and its callbacks point at each other: the next one would be made beside this one
            free_memory()
            progress_bar.update()
    return runs


def free_memory():
    "Give back what learners held that nothing points at any more."
    gc.collect()
    if torch.cuda.is_available(): torch.cuda.empty_cache()


def _opened(folder, make_learner, fit, n_folds, settings, monitor, tta):
    "The runs of a folder, which is made or is checked to be of the same run."
    functions = {'make_learner': code_of(make_learner), 'fit': code_of(fit)}
    try: settings = as_json(settings or {})
    except TypeError as error: raise InputError(f'settings: {error}, give what json takes') from error
    content = {'format': FORMAT, 'n_folds': n_folds, 'settings': settings, 'monitor': monitor, 'tta': tta}
    if not (folder/MANIFEST).exists():
        others = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        if others or folder.is_file():
            raise InputError(f'folder={folder}: holds something else ({preview(others)}): give a new one')
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder/MANIFEST, seal({**content, 'functions': functions}))
    found = read_manifest(folder, MANIFEST, FORMAT)
    for name in ('n_folds', 'monitor', 'tta', 'settings'):
        if found[name] != content[name]:
            raise InputError(f'folder={folder}: holds a run with {name}={found[name]!r}, and this one has '
                             f'{content[name]!r}: give a new folder')
    changed = [name for name, code in functions.items() if not is_same_code(found['functions'][name], code)]
    if changed:
        raise InputError(f'folder={folder}: the code of {" and ".join(changed)}, or a number that it reads, '
                         'was changed since the run there began: give a new folder')
    # what a kill left half written
    for leftover in folder.glob('seed * fold */.*'): shutil.rmtree(leftover)
    return FoldRuns(folder, make_learner)


def _train_one(runs, fit, fold, seed, monitor, tta):
    where = f'fold {fold}, seed {seed}'
    seed_everything(seed)
    learner = runs.make_learner(fold, seed)
    description = as_json(describe_learner(learner))
    _check_like_others(runs, learner, description, fold, seed)
    best = [] if monitor is None else [_Best(monitor)]
    with learner.added_cbs(best): fit(learner)
    record = trained_on_of(learner)
    check_held_out(learner.dls.valid_df[learner.dls.columns.id], record, where)
    part = runs.part(fold, seed)
    part.mkdir(exist_ok=True)
    write_sealed(part/'weights', WEIGHTS, {'format': FORMAT}, weights_files(learner))
    # written last: with it the fold is finished
    about = {'format': FORMAT, 'fold': fold, 'seed': seed, 'learner': description, 'trained_on': record,
             'best_epoch': best[0].at if best else None, 'epochs': len(learner.recorder.values)}
    write_sealed(part/'heldout', HELDOUT, about, heldout_files(learner, tta))


def _check_like_others(runs, learner, description, fold, seed):
    "Raise `InputError` where a learner is of other items than those of finished folds, or holds out theirs."
    held_out = learner.dls.valid_df[learner.dls.columns.id].astype(str)
    if not len(held_out): raise InputError(f'fold {fold}, seed {seed}: the learner holds out nothing')
    for other_fold, other_seed in runs.finished:
        found = runs.about(other_fold, other_seed)['learner']
        differs = [name for name in found if found[name] != description[name]]
        if differs:
            raise InputError(f'fold {fold}, seed {seed}: {", ".join(differs)} of the learner differ from '
                             f'those of fold {other_fold}, seed {other_seed}: give a new folder')
        if other_seed != seed: continue
        files = runs._heldout(other_fold, other_seed)[1]
        again = held_out[held_out.isin(json.loads(files['items.json'])['ids'])]
        if len(again):
            raise InputError(f'fold {fold} holds out {len(again)} items that fold {other_fold} held out '
                             f'({preview(again)}): make_learner must hold out the fold that it is given')


def train_full(
    runs: FoldRuns,  # Of `train_folds` with a `monitor`; where `epochs` is given, any
    make_full,  # (seed) -> a new learner that trains on everything, such as one of dls with valid_fold=None
    fit,  # As for `train_folds`: the whole schedule, which is ended early
    *,
    seed: int = 0,
    epochs: int | None = None,  # Epochs to train; default one more than the mean of the folds' best, rounded
):
    """Train on everything for as many epochs as were best in the folds.

    There is nothing left to judge the result on: its figure is that of the folds. The schedule is that of the
    folds, ended behind that epoch, as `fit_to_best` does.
    """
    if epochs is None: epochs = math.floor(float(np.mean(runs.best_epochs)) + 1.5)
    if epochs < 1: raise InputError(f'epochs={epochs}: 1 or more')
    seed_everything(seed)
    learner = make_full(seed)
    left_out = len(learner.dls.valid_df)
    if left_out: raise InputError(f'make_full holds out {left_out} items: make its dls with valid_fold=None')
    with learner.added_cbs([_StopAfter(epochs - 1)]): fit(learner)
    return learner


__all__ = ['FoldRuns', 'embeddings_of', 'load_folds', 'train_folds', 'train_full']
