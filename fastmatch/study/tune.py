"Tuning whole trainings: a study over Learners, pruned on an inner validation fold, reported on listings that neither training nor the study saw."
import gc
import math
import random
import warnings
import zlib
from dataclasses import replace

import numpy as np
import torch

from ..core import InputError, preview, seed_everything
from ..data.block import MatchDataLoaders
from ..data.read import check_listings
from ..match.candidates import candidates
from ..match.judge.heldout import HeldOut, heldout_fused
from ..match.neighbors import group_codes
from .engine.pruner import PruneTrial, check_direction, direction_of
from .engine.space import NAMED, as_space, suggest
from .engine.storage import open_study, packed, unpacked
from .engine.work import WrongStudy, work


def flat_fit(
    epochs: int,  # In all
):  # (learn, trial) -> None
    "The default fit: the trial's schedule and rate where it has them, the kit's where not."
    def fit(learn, trial):
        lr, schedule = (trial.params.get(k, NAMED[k][1]) for k in ('lr', 'schedule'))
        getattr(learn, f'fit_{schedule}')(epochs, lr)
    return fit


def check_unseen(
    dls,  # `MatchDataLoaders` of a trial
    test,  # DataFrame of listings, as `dls` was made from
):
    "Raise `WrongStudy` where `test` has listings that training or the study sees, by id or by group."
    if not isinstance(dls, MatchDataLoaders): raise WrongStudy(f'test: it is scored by the columns of MatchDataLoaders, this Learner has {type(dls).__name__}')
    ids, label = dls.columns.id, dls.columns.group
    for o in (ids, label):
        if o not in test: raise WrongStudy(f'test lacks the column {o!r}; its columns are {preview(test.columns, 20)}')
    for col, what in ((ids, 'listing'), (label, 'group')):
        rows = np.flatnonzero(test[col].isin(dls.df[col]))
        if len(rows): raise WrongStudy(f'test: {len(rows)} rows are of a {what} that training or its validation holds: '
                                       + preview(f'row {i} ({test[ids].iloc[i]}, {col} {test[col].iloc[i]})' for i in rows))


def _check_whole(dls, test):
    "Raise `WrongStudy` where `test` could not be scored: after a training it would be late."
    try: check_listings(test, dls.image_folder, replace(dls.columns, fold=None))
    except InputError as e: raise WrongStudy(f'test: {e}') from e


def _judge(learn, test, trial, seed):
    "The listings' row F1 under the held-out protocol, kept with the trial."
    emb = learn.embeddings(test)
    res = heldout_fused(candidates(emb.refuse_trained_on('a test').spaces(), k=min(50, len(emb))), emb.groups, seed=seed)
    for k, v in (('test_row_f1', round(res.mean, 5)), ('test_se', round(res.se, 5)), ('test_rows', packed(res.row_f1))): trial.set_user_attr(k, v)


def tested(
    study,  # Of `tune`, with `test`
    trial=None,  # Its number; None: the best; 'default': the kit as it comes
) -> HeldOut:
    "What a trial scored on the test listings: `match.paired(tested(study), tested(study, 'default'))` is what tuning was worth."
    if 'test_groups' not in study.user_attrs: raise InputError(f'study {study.study_name!r} has no test listings: tune(test=) gives them')
    rows = [t for t in study.get_trials(deepcopy=False) if 'test_rows' in t.user_attrs and t.state.name == 'COMPLETE']
    if trial is None: number = study.best_trial.number if rows else None
    elif trial == 'default': number = next((t.number for t in rows if t.user_attrs.get('default')), None)
    else: number = trial
    found = next((t for t in rows if t.number == number), None)
    if found is None: raise InputError(f'study {study.study_name!r}: no {"complete" if trial is None else repr(trial)} trial was scored on the test listings; '
                                       f'those that were: {preview([t.number for t in rows], 20) or "none"}')
    return HeldOut(unpacked(found.user_attrs['test_rows']), np.asarray(study.user_attrs['test_groups']))


def said(
    t,  # `FrozenTrial`
    monitor: str = 'value',  # What its value is
) -> str:
    "A trial as a line of text."
    params = ', '.join(f'{k} {v:.3g}' if isinstance(v, float) else f'{k} {v}' for k, v in t.params.items())
    if t.state.name == 'FAIL': return f'trial {t.number}: failed, {t.user_attrs.get("reason", "nobody says why")} ({params})'
    pruned = f', pruned after {t.last_step} epochs' if t.state.name == 'PRUNED' else ''
    value = 'no value' if t.value is None else f'{monitor} {t.value:.4f}'
    return f'trial {t.number}: {value}{pruned} ({params})'


def _enough(epochs, n_trials):
    "Warn where Hyperband's brackets would not be filled."
    n = int(math.log(epochs, 3) + 1e-9) + 1
    want = sum(math.ceil(n * 3**s / (s + 1)) for s in range(n))
    if n_trials < want: warnings.warn(f"Hyperband shares {epochs} epochs out to {n} brackets, which want {want} trials to fill; n_trials={n_trials}: 'asha' or "
                                      "'median' would do with fewer", stacklevel=3)


def tune(
    make_learner,  # Trial -> Learner, reads `trial.params`: of `learner_maker`, or your own
    space: dict,  # Of `spaces`: `spaces('margin', 'scale', lr=(1e-4, 1e-2, 'log'))`
    n_trials: int = 20,  # Finished trials that the study is to hold, earlier calls' and other processes' included
    fit=None,  # (learn, trial) -> None, trains; default `flat_fit(epochs)`
    epochs: int = 3,  # Of a whole trial, over all its fits
    monitor: str = 'recall@1',  # What the study looks at, on the inner validation fold: the Learner's own
    direction: str | None = None,  # 'maximize' or 'minimize'; None: by the monitor's name
    test=None,  # Listings (DataFrame) that `dls` holds neither for training nor for validation: each whole trial is scored there
    study_name: str = 'tune',  # The same name goes on with the study
    storage='fastmatch-studies.db',  # As for `open_study`; None: in memory
    sampler='tpe',  # As for `open_study`
    pruner='hyperband',  # As for `open_study`
    seed: int = 0,  # Of the sampler; weights and batches are the same in each trial
    max_failed: float = .5,  # As for `work`
    timeout: float | None = None,  # As for `work`
    about: dict | None = None,  # More that must be the same where the study is gone on with, as for `open_study`: size of the pictures, say
    echo=print,  # Called with a line for each trial
):  # The study
    "Search for what trains best: an Optuna study over Learners."
    space = as_space(space)
    if epochs < 1: raise InputError(f'epochs={epochs}: 1 or more')
    if test is not None and not hasattr(test, 'columns'): raise InputError(f'test: {type(test).__name__}: give a DataFrame of listings')
    direction = direction or direction_of(monitor)
    if direction is None: raise InputError(f"monitor={monitor!r}: say direction='maximize' or 'minimize', the name doesn't")
    check_direction(monitor, direction)
    if pruner == 'hyperband': _enough(epochs, n_trials)
    about = {**(about or {}), 'monitor': monitor, 'epochs': epochs, 'seed': seed}
    about['test'] = None if test is None else f'{len(test)} listings, crc {zlib.crc32(repr(test.to_numpy().tolist()).encode()):08x}'
    study = open_study(study_name, storage, direction, space, sampler, pruner, seed, epochs, about)
    fit, echo, whole = fit or flat_fit(epochs), echo or (lambda o: None), []

    def objective(trial):
        suggest(trial, space)
        # each trial starts from the same weights and sees the same batches, whoever runs it and whatever ran before
        seed_everything(seed)
        learn = make_learner(trial)
        try:
            for dl in learn.dls.loaders:
                dl.rng = random.Random(seed)
                if hasattr(getattr(dl, 'sampler', None), 'i'): dl.sampler.i = 0
            if test is not None:
                check_unseen(learn.dls, test)
                # each picture is read for it: once
                if not whole: _check_whole(learn.dls, test)
                whole.append(trial.number)
                if 'test_groups' not in study.user_attrs:
                    study.set_user_attr('test_groups', group_codes(test[learn.dls.columns.group].to_numpy(), len(test)).tolist())
            prune = PruneTrial(trial, monitor)
            learn.add_cb(prune)
            with learn.no_bar(), learn.no_logging(): fit(learn, trial)
            if not prune.reported: raise WrongStudy(f'fit trained no epoch: {monitor} was never recorded')
            if prune.step > epochs: warnings.warn(f'a trial has {prune.step} epochs, the study was told {epochs}: pruners share out too few', stacklevel=2)
            if test is not None: _judge(learn, test, trial, seed)
            return prune.value
        # fastai puts before it in which callback it came up
        except WrongStudy as e: raise WrongStudy(str(e).rpartition('\n\t')[2]) from None
        finally:
            # callbacks and Learner hold each other: without this two models are in memory
            learn = prune = None
            gc.collect()
            if torch.cuda.is_available(): torch.cuda.empty_cache()
    return work(study, objective, n_trials, max_failed, timeout, echo=lambda o: echo(o if isinstance(o, str) else said(o, monitor)))
