"Pruning: the steps recorded are the epochs run, whatever fits a trial is made of, and a trial that is through is never pruned."
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
from fastmatch.callback.guard import fit_to_best  # noqa: F401
from fastmatch.callback.resume import Resume
from fastmatch.schedule import recipes  # noqa: F401
from fastmatch.study import PruneTrial, WrongStudy, open_study, work
from fastmatch.study.engine.pruner import direction_of
from tests.callback.small import fit, learner

ROOT = Path(__file__).parents[3]


class After(optuna.pruners.BasePruner):
    "Prunes any trial that has reported step `n`."
    def __init__(self, n): self.n = n
    def prune(self, study, trial): return trial.last_step >= self.n


class Count(Callback):
    "Epochs that really trained, and what their validation gave: by its own hands, not by the Recorder's."
    order = 52  # before PruneTrial: what it stops has been counted
    def __init__(self): self.n, self.values = 0, []
    def before_train(self): self._batches = 0
    def after_batch(self):
        if self.training: self._batches += 1
    def after_train(self): self.n += self._batches > 0
    def after_validate(self):
        # not where it is only validated
        if self.__dict__.pop('_batches', 0): self.values.append(float(self.learn.recorder.metrics[0].value))


RECIPES = {
    'fit': (4, lambda learn: fit(learn, 'fit', 4, .05)),
    'flat_cos': (3, lambda learn: fit(learn, 'fit_flat_cos', 3, .05)),
    'fine_tune': (5, lambda learn: fit(learn, 'fine_tune', 3, .05, freeze_epochs=2)),
    'head_first': (5, lambda learn: fit(learn, 'fit_head_first', 2, 3, .05)),
    'gradual': (5, lambda learn: fit(learn, 'fit_gradual', .05, [2, 3])),
    'lr_find_first': (3, lambda learn: (fit(learn, 'lr_find', num_it=5, show_plot=False), fit(learn, 'fit', 3, .05))),
    'validated_between': (4, lambda learn: (fit(learn, 'fit', 2, .05), fit(learn, 'validate'), fit(learn, 'fit', 2, .05))),
}


def run(how, pruner, tmp_path, monitor='accuracy', direction='maximize', n_trials=1):
    counts = []
    def objective(trial):
        learn = learner(metrics=accuracy, path=tmp_path, cbs=[Count(), PruneTrial(trial, monitor)])
        counts.append(learn.count)
        how(learn)
        return learn.prune_trial.value
    s = open_study('s', direction=direction, pruner=pruner)
    work(s, objective, n_trials)
    return s.trials, counts


@pytest.mark.parametrize('name', list(RECIPES))
def test_steps_recorded_are_epochs_run(name, tmp_path):
    n, how = RECIPES[name]
    (t,), (count,) = run(how, optuna.pruners.NopPruner(), tmp_path)
    assert count.n == n and t.state.name == 'COMPLETE'
    assert t.intermediate_values == dict(zip(range(1, n + 1), count.values)) and t.value == count.values[-1]


@pytest.mark.parametrize('name', list(RECIPES))
def test_every_place_to_prune(name, tmp_path):
    "Pruned after any epoch but the last, a trial has run so many; after the last it is through."
    n, how = RECIPES[name]
    for k in range(1, n + 1):
        (t,), (count,) = run(how, After(k), tmp_path)
        assert count.n == k and list(t.intermediate_values) == list(range(1, k + 1))
        assert t.state.name == ('COMPLETE' if k == n else 'PRUNED') and t.value == count.values[k - 1]


def test_a_fit_that_ends_early_counts_what_it_ran(tmp_path):
    def how(learn):
        fit(learn, 'fit', 6, 0., cbs=EarlyStoppingCallback('accuracy', min_delta=10., patience=2))
        fit(learn, 'fit', 2, .05)
    (t,), (count,) = run(how, optuna.pruners.NopPruner(), tmp_path)
    assert count.n == 5 and list(t.intermediate_values) == [1, 2, 3, 4, 5]


def test_epochs_skipped_by_start_epoch_have_no_value(tmp_path):
    (t,), (count,) = run(lambda learn: fit(learn, 'fit_flat_cos', 4, .05, start_epoch=2), optuna.pruners.NopPruner(), tmp_path)
    assert count.n == 2 and list(t.intermediate_values) == [3, 4]


def test_fit_to_best_counts_both_trainings(tmp_path):
    (t,), (count,) = run(lambda learn: fit(learn, 'fit_to_best', 3, .05, monitor='valid_loss'), optuna.pruners.NopPruner(), tmp_path)
    assert len(t.intermediate_values) == count.n > 3 and list(t.intermediate_values) == list(range(1, count.n + 1))


CODE = '''
import os, sys
import optuna
from fastai.callback.core import Callback
from fastai.metrics import accuracy
from fastmatch.callback.resume import Resume
from fastmatch.schedule import recipes
from fastmatch.study import PruneTrial
from tests.callback.small import fit, learner

class Die(Callback):
    order = 100
    n = 0
    def after_batch(self):
        Die.n += self.training
        if Die.n == int(sys.argv[2]): os._exit(7)

class Count(Callback): pass  # a call is the same by its callbacks' names

learn = learner(metrics=accuracy, path=sys.argv[1], cbs=[Count(), Die(), PruneTrial(optuna.create_study(direction='maximize').ask(), 'accuracy')])
fit(learn, 'fit_head_first', 2, 4, .05, cbs=Resume())
'''


@pytest.mark.parametrize('batch', [pytest.param(9, marks=pytest.mark.slow), 14, pytest.param(27, marks=pytest.mark.slow)])
def test_resumed_trials_count_epochs_done_before(batch, tmp_path, monkeypatch):
    "Killed in the second epoch of the first fit, in the first and in the third of the second: the trial tried again has the values of one left alone."
    class Die(Callback):
        order = 100
    (whole,), _ = run(lambda learn: (learn.add_cb(Die()), fit(learn, 'fit_head_first', 2, 4, .05, cbs=Resume('other'))), optuna.pruners.NopPruner(), tmp_path)
    job = subprocess.run([sys.executable, '-c', CODE, str(tmp_path), str(batch)], cwd=ROOT)
    assert job.returncode == 7
    for k in (99, 5):
        # at first it is only looked at: the state must be that of the process that died
        monkeypatch.setattr(resume, 'PROCESS', f'again {k}')
        state = (tmp_path/'models'/'resume.pth').read_bytes()
        (t,), (count,) = run(lambda learn: (learn.add_cb(Die()), fit(learn, 'fit_head_first', 2, 4, .05, cbs=Resume())), After(k), tmp_path)
        (tmp_path/'models'/'resume.pth').write_bytes(state)
        done = (batch - 1) // 6
        steps = list(range(1, min(k, 6) + 1))
        assert count.n == len(steps) - done
        # of the first fit, the values are not known any more once the second has saved its own
        known = steps if done <= 2 else steps[2:]
        assert list(t.intermediate_values) == known and t.state.name == ('PRUNED' if k == 5 else 'COMPLETE')
        np.testing.assert_array_equal([t.intermediate_values[o] for o in known], [whole.intermediate_values[o] for o in known])


@pytest.mark.parametrize('pruner', ['median', 'asha', 'hyperband'])
def test_named_pruners_prune_and_lose_nothing(pruner, tmp_path):
    "Rates from good to useless: each pruner ends some of the bad ones early, and none that ran to its end."
    s = open_study('s', direction='minimize', pruner=pruner, epochs=9, sampler='random')
    ran = []
    def objective(trial):
        lr = trial.suggest_categorical('lr', [.1, 1e-6])
        learn = learner(metrics=accuracy, path=tmp_path, cbs=[Count(), PruneTrial(trial, 'valid_loss')])
        try: fit(learn, 'fit_head_first', 3, 6, lr)
        finally: ran.append(learn.count.n)
        return learn.prune_trial.value
    work(s, objective, 20)
    assert len(ran) == 20 and {t.state.name for t in s.trials} == {'COMPLETE', 'PRUNED'}
    for t, n in zip(s.trials, ran):
        assert list(t.intermediate_values) == list(range(1, n + 1)) and (t.state.name == 'COMPLETE') == (n == 9)
    pruned = [t.params['lr'] for t in s.trials if t.state.name == 'PRUNED']
    assert pruned.count(1e-6) > pruned.count(.1) and s.best_params == {'lr': .1}


@pytest.mark.parametrize('monitor, direction', [('accuracy', 'minimize'), ('valid_loss', 'maximize'), ('train_loss', 'maximize')])
def test_a_wrong_direction_is_refused_before_training(monitor, direction, tmp_path):
    with pytest.raises(WrongStudy, match=monitor): run(RECIPES['fit'][1], None, tmp_path, monitor, direction)


def test_an_unknown_metric_is_refused_before_training(tmp_path):
    ran = []
    class Ran(Callback):
        def before_train(self): ran.append(1)
    with pytest.raises(WrongStudy, match="'train_loss', 'valid_loss', 'accuracy'"):
        run(lambda learn: (learn.add_cb(Ran()), fit(learn, 'fit', 2, .05)), None, tmp_path, 'recall@1')
    assert not ran


@pytest.mark.parametrize('monitor, want', [
    ('valid_loss', 'minimize'), ('error_rate', 'minimize'), ('_rmse', 'minimize'), ('recall@1', 'maximize'), ('map@r', 'maximize'), ('row_f1_max', 'maximize'),
    ('row_f1_max_image', 'maximize'), ('accuracy', 'maximize'), ('macro_f1', 'maximize'), ('whatever', None)])
def test_directions_by_name(monitor, want): assert direction_of(monitor) == want


def test_a_monitor_of_ones_own_goes_either_way(tmp_path):
    def whatever(x, y): return accuracy(x, y)
    for direction in ('minimize', 'maximize'):
        s = open_study('s', direction=direction)
        work(s, lambda trial: (fit(learn := learner(metrics=whatever, path=tmp_path, cbs=PruneTrial(trial, 'whatever')), 'fit', 2, .05), learn.prune_trial.value)[1], 1)
        assert list(s.trials[0].intermediate_values) == [1, 2]
