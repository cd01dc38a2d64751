"Pictures of studies: what is drawn is what the trials hold."
import matplotlib
import numpy as np
import optuna
import pytest

from fastmatch.core import InputError
from fastmatch.study.draw import show_study, study_figures

optuna.logging.set_verbosity(optuna.logging.WARNING)


def make_study(n_trials=30, direction='maximize', seed=0):
    "A study with complete, pruned and failed trials, a default, and a parameter that some trials lack."
    sampler = optuna.samplers.RandomSampler(seed=seed)
    study = optuna.create_study(direction=direction, sampler=sampler)
    sign = 1 if direction == 'maximize' else -1

    def objective(trial):
        how = trial.suggest_categorical('how', ['mean', 'power'])
        lr = trial.suggest_float('lr', 1e-4, 1e-1, log=True)
        whole = trial.suggest_int('whole', 1, 5)
        if how == 'power': trial.suggest_float('exponent', 1, 4)
        if trial.number == 1: trial.set_user_attr('default', True)
        if trial.number % 7 == 3:
            trial.report(.1, 2)
            raise optuna.TrialPruned
        if trial.number % 7 == 5: raise ZeroDivisionError
        return sign * -abs(np.log10(lr) + 2) - .001 * whole
    study.optimize(objective, n_trials, catch=ZeroDivisionError)
    return study


def test_history_is_the_trials():
    for direction in ('maximize', 'minimize'):
        study = make_study(direction=direction)
        complete_trials = [trial for trial in study.trials if trial.state.name == 'COMPLETE']
        pruned_trials = [trial for trial in study.trials if trial.state.name == 'PRUNED']
        figures = dict(study_figures(study))
        axes = figures['History'].axes[0]
        low, high = axes.get_ylim()
        # a dot each, or a triangle on the edge for one beyond it: none is left out
        offsets = [dots.get_offsets().compressed().reshape(-1, 2) for dots in axes.collections]
        positions = np.concatenate(offsets)
        expected = [(trial.number, np.clip(trial.value, low, high)) for trial in complete_trials]
        expected += [(trial.number, np.clip(.1, low, high)) for trial in pruned_trials]
        np.testing.assert_allclose(positions[positions[:, 0].argsort()], sorted(expected))
        assert any(not low < trial.value < high for trial in complete_trials)
        best_values = axes.lines[0].get_ydata()
        assert best_values[-1] == study.best_value
        assert (np.diff(best_values) * (1 if direction == 'maximize' else -1) >= 0).all()
        assert axes.lines[1].get_ydata()[0] == study.trials[1].value


def test_importances_and_slices():
    figures = dict(study_figures(make_study(60)))
    bar_axes = figures['Importances'].axes[0]
    assert bar_axes.get_yticklabels()[0].get_text() == 'lr' and bar_axes.patches[0].get_width() > .8
    slice_axes = {axes.get_xlabel(): axes for axes in figures['Slices'].axes if axes.get_xlabel()}
    # a conditional parameter has a slice of the trials that have it, and no place among the parallels
    assert set(slice_axes) == {'how', 'lr', 'whole', 'exponent'} and slice_axes['lr'].get_xscale() == 'log'
    n_dots = {name: len(axes.collections[0].get_offsets()) for name, axes in slice_axes.items()}
    assert n_dots['exponent'] < n_dots['lr']
    parallel_axes = figures['Parallel coordinates'].axes[0]
    assert sorted(label.get_text() for label in parallel_axes.get_xticklabels()) == ['how', 'lr', 'whole']


def test_axes_say_what_the_value_is():
    study = make_study()
    assert dict(study_figures(study))['History'].axes[0].get_ylabel() == 'value'
    study.set_user_attr('kept', {'monitor': 'map@r'})
    figures = dict(study_figures(study))
    assert figures['History'].axes[0].get_ylabel() == figures['Slices'].axes[0].get_ylabel() == 'map@r'


def test_few_trials_and_none():
    assert [title for title, _ in study_figures(make_study(1))] == ['History']
    assert len(study_figures(make_study(3))) == 3
    with pytest.raises(InputError, match='nothing to draw'): study_figures(optuna.create_study())


def test_all_alike():
    study = optuna.create_study()
    study.optimize(lambda trial: 0. * trial.suggest_float('x', 0, 1), 12)
    for _, figure in study_figures(study): figure.canvas.draw()


def test_the_style_of_other_pictures_stays():
    style_before = dict(matplotlib.rcParams)
    study_figures(make_study())
    assert dict(matplotlib.rcParams) == style_before


def test_shown_in_a_notebook(monkeypatch):
    shown_figures = []
    monkeypatch.setattr('IPython.display.display', shown_figures.append)
    show_study(make_study())
    assert len(shown_figures) == 4
    for figure in shown_figures: figure.savefig('/dev/null', format='png')
