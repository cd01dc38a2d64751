"Whole trainings tuned: a study over Learners, pruned on a validation fold, scored on unseen listings."
import gc
import math
import random
import warnings
import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from ..core import InputError, preview, seed_everything
from ..data.block import MatchDataLoaders
from ..data.read import check_listings, join_titles
from ..data.sampler import Sampler
from ..match.candidates import candidates
from ..match.cells import is_among
from ..match.judge.choose import heldout_fused
from ..match.judge.groups import Groups
from .engine.open_study import open_study
from .engine.options import TrainingStudyOptions, read_options
from .engine.pruner import PruneTrial, check_direction, direction_of
from .engine.space import NAMED, as_space, suggest
from .engine.work import WrongStudy, work
from .reported import store_test_score


def tune_learner(
    make_learner,  # Trial -> Learner, reads `trial.params`: of `learner_maker`, or your own
    space: dict,  # As `search_space` gives it: `search_space('margin', 'scale', lr=(1e-4, 1e-2, 'log'))`
    n_trials: int = 20,  # Finished trials that the study is to hold, those of other processes included
    fit=None,  # (learn, trial) -> None, trains; default `flat_fit(epochs)`
    epochs: int = 3,  # Of a whole trial, over all its fits
    monitor: str = 'recall@1',  # Value to improve: one that the Learner records on its validation fold
    direction: str | None = None,  # 'maximize' or 'minimize'; None: by the monitor's name
    test=None,  # DataFrame of listings that are in no other part: each whole trial is scored on it
    test_path=None,  # Folder of the images of `test`; default that of each trial's dataloaders
    **options,  # study_name, storage, sampler, pruner, seed, ...: the fields of `TrainingStudyOptions`
):  # optuna.Study
    """Search for what trains best: an Optuna study over Learners.

    Each trial starts from the same weights and batches (`seed`), trains, and reports `monitor` after each
    epoch. The study is kept in a file: the same call goes on where it stopped. `heldout_trial(study)` gives
    the scores on `test`. Raises `WrongStudy` where no trial could do better."""
    settings, = read_options(tune_learner, options, TrainingStudyOptions())
    space = as_space(space)
    if epochs < 1: raise InputError(f'epochs={epochs}: 1 or more')
    if test is not None and not isinstance(test, pd.DataFrame):
        raise InputError(f'test: {type(test).__name__}: give a DataFrame of listings')
    direction = direction or direction_of(monitor)
    if direction is None:
        raise InputError(f"monitor={monitor!r}: say direction='maximize' or 'minimize', the name doesn't")
    check_direction(monitor, direction)
    if settings.pruner == 'hyperband': _warn_of_unfilled_brackets(epochs, n_trials)
    about = {**(settings.about or {}), 'monitor': monitor, 'epochs': epochs, 'seed': settings.seed,
             'test': _describe_test(test)}
    study = open_study(settings.study_name, settings.storage, direction, space, settings.sampler,
                       settings.pruner, settings.seed, epochs, about)
    fit = fit or flat_fit(epochs)
    objective = TrainingObjective(study, make_learner, space, fit, epochs, monitor, test, settings.seed,
                                  test_path)

    def echo(message):
        if settings.echo is None: return
        settings.echo(message if isinstance(message, str) else describe_trial(message, monitor))
    return work(study, objective, n_trials, settings.max_failed, settings.timeout, echo=echo)


def describe_trial(
    trial,  # `FrozenTrial`
    monitor: str = 'value',  # What its value is
) -> str:
    "A trial as a line of text: its number, value or reason of failure, and parameters."
    def describe(value): return f'{value:.3g}' if isinstance(value, float) else str(value)
    parameters = ', '.join(f'{parameter} {describe(value)}' for parameter, value in trial.params.items())
    if trial.state.name == 'FAIL':
        reason = trial.user_attrs.get('reason', 'for an unknown reason')
        return f'trial {trial.number}: failed, {reason} ({parameters})'
    pruned_note = f', pruned after {trial.last_step} epochs' if trial.state.name == 'PRUNED' else ''
    value = 'no value' if trial.value is None else f'{monitor} {trial.value:.4f}'
    return f'trial {trial.number}: {value}{pruned_note} ({parameters})'


def flat_fit(
    epochs: int,  # In all
):  # (learn, trial) -> None
    "The default way to train a trial's Learner: with the trial's 'schedule' and 'lr', or the kit's."
    def fit(learn, trial):
        learning_rate = trial.params.get('lr', NAMED['lr'].default)
        schedule = trial.params.get('schedule', NAMED['schedule'].default)
        getattr(learn, f'fit_{schedule}')(epochs, learning_rate)
    return fit


def check_unseen(
    dls,  # `MatchDataLoaders` of a trial
    test,  # DataFrame of listings, with the columns that `dls` was made from
):
    "Raise `WrongStudy` where `test` has listings, or groups, that training or its validation holds."
    if not isinstance(dls, MatchDataLoaders):
        raise WrongStudy('test: it is scored by the columns of MatchDataLoaders, '
                         f'this Learner has {type(dls).__name__}')
    columns = dls.columns
    for column in (columns.id, columns.group):
        if column not in test:
            raise WrongStudy(f'test lacks the column {column!r}; its columns are {preview(test.columns, 20)}')
    for column, shared_unit in ((columns.id, 'listing'), (columns.group, 'group')):
        row_numbers = np.flatnonzero(is_among(test[column], dls.df[column]))
        if not len(row_numbers): continue
        listing_ids, column_values = test[columns.id], test[column]
        examples = preview(f'row {row} ({listing_ids.iloc[row]}, {column} {column_values.iloc[row]})'
                           for row in row_numbers)
        raise WrongStudy(f'test: {len(row_numbers)} rows are of a {shared_unit} that training '
                         f'or its validation holds: {examples}')


class TrainingObjective:
    "What a trial of `tune_learner` does: makes a Learner, trains it under the pruner, scores it on the test."
    def __init__(
        self,
        study,  # optuna.Study
        make_learner,  # Trial -> Learner
        space: dict,  # As `search_space` gives it
        fit,  # (learn, trial) -> None
        epochs: int,  # Of a whole trial
        monitor: str,  # The recorded value that becomes the trial's
        test,  # DataFrame of listings, or None
        seed: int,  # Of weights and batches, the same in each trial
        test_path=None,  # Folder of the images of `test`; None: that of the trial's dataloaders
    ):
        self.study, self.space = study, space
        self.make_learner, self.fit = make_learner, fit
        self.epochs, self.monitor = epochs, monitor
        self.test, self.seed = test, seed
        self.test_path = test_path
        self.test_was_checked = False

    def __call__(self, trial) -> float:
        suggest(trial, self.space)
        # each trial starts from the same weights and sees the same batches, whatever ran before
        seed_everything(self.seed)
        learn = self.make_learner(trial)
        try: return self._train_and_score(learn, trial)
        # fastai puts the callback in which an error came up before its message
        except WrongStudy as error: raise WrongStudy(str(error).rpartition('\n\t')[2]) from None
        finally:
            # callbacks and Learner refer to each other: without this, two models would be in memory
            learn = None
            gc.collect()
            if torch.cuda.is_available(): torch.cuda.empty_cache()

    def _train_and_score(self, learn, trial):
        _restart_batches(learn.dls, self.seed)
        if self.test is not None: self._prepare_test(learn.dls)
        prune_callback = PruneTrial(trial, self.monitor)
        learn.add_cb(prune_callback)
        with learn.no_bar(), learn.no_logging(): self.fit(learn, trial)
        if not prune_callback.reported:
            raise WrongStudy(f'fit trained no epoch: {self.monitor} was never recorded')
        if prune_callback.step > self.epochs:
            warnings.warn(f'a trial has {prune_callback.step} epochs, the study was told {self.epochs}: '
                          'pruners share out too few', stacklevel=2)
        if self.test is not None: _score_on_test(learn, self.test, self.test_path, trial, self.seed)
        return prune_callback.value

    def _prepare_test(self, dls):
        "Check that the test listings are unseen and can be scored, and store their groups with the study."
        check_unseen(dls, self.test)
        # this reads each image: once is enough
        if not self.test_was_checked: _check_readable(dls, self.test, self.test_path)
        self.test_was_checked = True
        if 'test_groups' not in self.study.user_attrs:
            groups = self.test[dls.columns.group].to_numpy()
            self.study.set_user_attr('test_groups', Groups.of(groups).codes.tolist())


def _restart_batches(dls, seed):
    "Let every loader draw as if it were new."
    for loader in dls.loaders:
        loader.rng = random.Random(seed)
        sampler = getattr(loader, 'sampler', None)
        if isinstance(sampler, Sampler): sampler.i = 0


def _check_readable(dls, test, path):
    "Raise `WrongStudy` where `test` could not be scored: after a training it would be too late."
    folder = dls.image_folder if path is None else path
    try:
        test, columns = join_titles(test, replace(dls.table_columns, fold=None))
        check_listings(test, folder, columns)
    except InputError as error: raise WrongStudy(f'test: {error}') from error


def _score_on_test(learn, test, path, trial, seed):
    "Store with the trial the test listings' row F1 under the held-out protocol."
    embeddings = learn.embeddings(test, path=path)
    nearest = candidates(embeddings.refuse_trained_on('a test').spaces(), k=min(50, len(embeddings)))
    store_test_score(trial, heldout_fused(nearest, embeddings.groups, seed=seed))


def _describe_test(test):
    "What a study recognizes its test listings by."
    if test is None: return None
    return f'{len(test)} listings, crc {zlib.crc32(repr(test.to_numpy().tolist()).encode()):08x}'


def _warn_of_unfilled_brackets(epochs, n_trials):
    "Warn where Hyperband (https://arxiv.org/abs/1603.06560) has more brackets than so many trials fill."
    n_brackets = int(math.log(epochs, 3) + 1e-9) + 1
    wanted = sum(math.ceil(n_brackets * 3**bracket / (bracket + 1)) for bracket in range(n_brackets))
    if n_trials >= wanted: return
    warnings.warn(f'Hyperband shares {epochs} epochs out to {n_brackets} brackets, which want {wanted} '
                  f"trials to fill; n_trials={n_trials}: 'asha' or 'median' would do with fewer",
                  stacklevel=3)
