"Pruning: steps are epochs run, whatever fits a trial is made of, and a finished trial is never pruned."
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from fastai.callback import schedule  # noqa: F401
from fastai.callback.core import Callback
from fastai.callback.tracker import EarlyStoppingCallback
from fastai.metrics import accuracy

from fastmatch.callback import resume
from fastmatch.callback.learner_methods import fit_to_best  # noqa: F401
from fastmatch.callback.resume import Resume
from fastmatch.schedule import recipes  # noqa: F401
from fastmatch.study import PruneTrial, WrongStudy, open_study, work
from fastmatch.study.engine.pruner import direction_of
from tests.callback.small import fit
from tests.callback.small import make_learner as small_learner

ROOT = Path(__file__).parents[3]


class PruneAfter(optuna.pruners.BasePruner):
    "Prunes any trial that has reported so many steps."
    def __init__(self, step): self.step = step
    def prune(self, study, trial): return trial.last_step >= self.step


class EpochCounter(Callback):
    "Epochs that really trained, and what their validation gave: by its own hands, not by the Recorder's."
    order = 52  # before PruneTrial: what it stops has been counted

    def __init__(self):
        self.n_epochs = 0
        self.metric_values = []

    def before_train(self): self._batches = 0
    def after_batch(self):
        if self.training: self._batches += 1
    def after_train(self): self.n_epochs += self._batches > 0
    def after_validate(self):
        # not where it is only validated
        if self.__dict__.pop('_batches', 0):
            self.metric_values.append(float(self.learn.recorder.metrics[0].value))


def find_rate_first(learner):
    fit(learner, 'lr_find', num_it=5, show_plot=False)
    fit(learner, 'fit', 3, .05)


def validate_between(learner):
    fit(learner, 'fit', 2, .05)
    fit(learner, 'validate')
    fit(learner, 'fit', 2, .05)


RECIPES = {  # name -> (epochs, what trains)
    'fit': (4, lambda learner: fit(learner, 'fit', 4, .05)),
    'flat_cos': (3, lambda learner: fit(learner, 'fit_flat_cos', 3, .05)),
    'fine_tune': (5, lambda learner: fit(learner, 'fine_tune', 3, .05, freeze_epochs=2)),
    'head_first': (5, lambda learner: fit(learner, 'fit_head_first', 2, 3, .05)),
    'gradual': (5, lambda learner: fit(learner, 'fit_gradual', .05, [2, 3])),
    'lr_find_first': (3, find_rate_first),
    'validated_between': (4, validate_between),
}


def run_study(train, tmp_path, pruner=None, monitor='accuracy', direction='maximize', n_trials=1):
    "(trials, what was counted in each)"
    counters = []

    def objective(trial):
        callbacks = [EpochCounter(), PruneTrial(trial, monitor)]
        learner = small_learner(metrics=accuracy, path=tmp_path, cbs=callbacks)
        counters.append(learner.epoch_counter)
        train(learner)
        return learner.prune_trial.value
    study = open_study('s', direction=direction, pruner=pruner)
    work(study, objective, n_trials)
    return study.trials, counters


def run_one_trial(train, tmp_path, pruner=None):
    trials, counters = run_study(train, tmp_path, pruner)
    assert len(trials) == len(counters) == 1
    return trials[0], counters[0]


@pytest.mark.parametrize('recipe', list(RECIPES))
def test_steps_recorded_are_epochs_run(recipe, tmp_path):
    epochs, train = RECIPES[recipe]
    trial, counter = run_one_trial(train, tmp_path)
    assert counter.n_epochs == epochs and trial.state.name == 'COMPLETE'
    assert trial.intermediate_values == dict(zip(range(1, epochs + 1), counter.metric_values))
    assert trial.value == counter.metric_values[-1]


@pytest.mark.parametrize('recipe', list(RECIPES))
def test_every_place_to_prune(recipe, tmp_path):
    "Pruned after any epoch but the last, a trial has run so many; after the last it is finished."
    epochs, train = RECIPES[recipe]
    for epoch in range(1, epochs + 1):
        trial, counter = run_one_trial(train, tmp_path, PruneAfter(epoch))
        assert counter.n_epochs == epoch and list(trial.intermediate_values) == list(range(1, epoch + 1))
        assert trial.state.name == ('COMPLETE' if epoch == epochs else 'PRUNED')
        assert trial.value == counter.metric_values[epoch - 1]


def test_a_fit_that_ends_early_counts_what_it_ran(tmp_path):
    def train(learner):
        fit(learner, 'fit', 6, 0., cbs=EarlyStoppingCallback('accuracy', min_delta=10., patience=2))
        fit(learner, 'fit', 2, .05)
    trial, counter = run_one_trial(train, tmp_path)
    assert counter.n_epochs == 5 and list(trial.intermediate_values) == [1, 2, 3, 4, 5]


def test_epochs_skipped_by_start_epoch_have_no_value(tmp_path):
    def train(learner): fit(learner, 'fit_flat_cos', 4, .05, start_epoch=2)
    trial, counter = run_one_trial(train, tmp_path)
    assert counter.n_epochs == 2 and list(trial.intermediate_values) == [3, 4]


def test_fit_to_best_counts_both_trainings(tmp_path):
    def train(learner): fit(learner, 'fit_to_best', 3, .05, monitor='valid_loss')
    trial, counter = run_one_trial(train, tmp_path)
    assert len(trial.intermediate_values) == counter.n_epochs > 3
    assert list(trial.intermediate_values) == list(range(1, counter.n_epochs + 1))


CODE = '''
import os, sys
import optuna
from fastai.callback.core import Callback
from fastai.metrics import accuracy
from fastmatch.callback.resume import Resume
from fastmatch.schedule import recipes
from fastmatch.study import PruneTrial
from tests.callback.small import fit, learner as small_learner

class Die(Callback):
    order = 100
    n_batches = 0
    def after_batch(self):
        Die.n_batches += self.training
        if Die.n_batches == int(sys.argv[2]): os._exit(7)

class EpochCounter(Callback): pass  # a call is the same by its callbacks' names

trial = optuna.create_study(direction='maximize').ask()
callbacks = [EpochCounter(), Die(), PruneTrial(trial, 'accuracy')]
learner = small_learner(metrics=accuracy, path=sys.argv[1], cbs=callbacks)
fit(learner, 'fit_head_first', 2, 4, .05, cbs=Resume())
'''


@pytest.mark.parametrize('fatal_batch', [
    pytest.param(9, marks=pytest.mark.slow), 14, pytest.param(27, marks=pytest.mark.slow)])
def test_resumed_trials_count_epochs_done_before(fatal_batch, tmp_path, monkeypatch):
    """A trial that was killed and is tried again has the values of one left alone.

    Killed in the second epoch of the first fit, in the first and in the third of the second."""
    class Die(Callback):
        order = 100

    def train(*resume_name):
        def train_resumed(learner):
            learner.add_cb(Die())
            fit(learner, 'fit_head_first', 2, 4, .05, cbs=Resume(*resume_name))
        return train_resumed
    whole_trial, _ = run_one_trial(train('other'), tmp_path)
    process = subprocess.run([sys.executable, '-c', CODE, str(tmp_path), str(fatal_batch)], cwd=ROOT)
    assert process.returncode == 7
    for last_epoch in (99, 5):
        # at first it is only looked at: the state must be that of the process that died
        monkeypatch.setattr(resume, 'PROCESS', f'again {last_epoch}')
        saved_state = (tmp_path/'models'/'resume.pth').read_bytes()
        trial, counter = run_one_trial(train(), tmp_path, PruneAfter(last_epoch))
        (tmp_path/'models'/'resume.pth').write_bytes(saved_state)
        epochs_done = (fatal_batch - 1) // 6
        steps = list(range(1, min(last_epoch, 6) + 1))
        assert counter.n_epochs == len(steps) - epochs_done
        # of the first fit, the values are not known any more once the second has saved its own
        known_steps = steps if epochs_done <= 2 else steps[2:]
        assert list(trial.intermediate_values) == known_steps
        assert trial.state.name == ('PRUNED' if last_epoch == 5 else 'COMPLETE')
        actual = [trial.intermediate_values[step] for step in known_steps]
        expected = [whole_trial.intermediate_values[step] for step in known_steps]
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize('pruner', ['median', 'asha', 'hyperband'])
def test_named_pruners_prune_and_lose_nothing(pruner, tmp_path):
    "Rates from good to useless: each pruner ends some of the bad ones early, and none that ran to its end."
    study = open_study('s', direction='minimize', pruner=pruner, epochs=9, sampler='random')
    epochs_run = []

    def objective(trial):
        lr = trial.suggest_categorical('lr', [.1, 1e-6])
        callbacks = [EpochCounter(), PruneTrial(trial, 'valid_loss')]
        learner = small_learner(metrics=accuracy, path=tmp_path, cbs=callbacks)
        try: fit(learner, 'fit_head_first', 3, 6, lr)
        finally: epochs_run.append(learner.epoch_counter.n_epochs)
        return learner.prune_trial.value
    work(study, objective, 20)
    assert len(epochs_run) == 20 and {trial.state.name for trial in study.trials} == {'COMPLETE', 'PRUNED'}
    for trial, n_epochs in zip(study.trials, epochs_run):
        assert list(trial.intermediate_values) == list(range(1, n_epochs + 1))
        assert (trial.state.name == 'COMPLETE') == (n_epochs == 9)
    pruned_rates = [trial.params['lr'] for trial in study.trials if trial.state.name == 'PRUNED']
    assert pruned_rates.count(1e-6) > pruned_rates.count(.1) and study.best_params == {'lr': .1}


@pytest.mark.parametrize('monitor, direction', [
    ('accuracy', 'minimize'), ('valid_loss', 'maximize'), ('train_loss', 'maximize')])
def test_a_wrong_direction_is_refused_before_training(monitor, direction, tmp_path):
    with pytest.raises(WrongStudy, match=monitor):
        run_study(RECIPES['fit'][1], tmp_path, monitor=monitor, direction=direction)


def test_an_unknown_metric_is_refused_before_training(tmp_path):
    trained = []
    class Trained(Callback):
        def before_train(self): trained.append(1)

    def train(learner):
        learner.add_cb(Trained())
        fit(learner, 'fit', 2, .05)
    with pytest.raises(WrongStudy, match="'train_loss', 'valid_loss', 'accuracy'"):
        run_study(train, tmp_path, monitor='recall@1')
    assert not trained


@pytest.mark.parametrize('monitor, expected', [
    ('valid_loss', 'minimize'), ('error_rate', 'minimize'), ('_rmse', 'minimize'), ('recall@1', 'maximize'),
    ('map@r', 'maximize'), ('row_f1_max', 'maximize'), ('row_f1_max_image', 'maximize'),
    ('accuracy', 'maximize'), ('macro_f1', 'maximize'), ('whatever', None)])
def test_directions_by_name(monitor, expected): assert direction_of(monitor) == expected


def test_a_monitor_of_ones_own_goes_either_way(tmp_path):
    def whatever(predictions, targets): return accuracy(predictions, targets)

    def objective(trial):
        learner = small_learner(metrics=whatever, path=tmp_path, cbs=PruneTrial(trial, 'whatever'))
        fit(learner, 'fit', 2, .05)
        return learner.prune_trial.value
    for direction in ('minimize', 'maximize'):
        study = open_study('s', direction=direction)
        work(study, objective, 1)
        assert list(study.trials[0].intermediate_values) == [1, 2]
