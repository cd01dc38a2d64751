"Pictures of studies: what is drawn is what the trials hold."
import numpy as np
import optuna
import pytest

from fastmatch.core import InputError
from fastmatch.study.draw import show_study, study_figures

optuna.logging.set_verbosity(optuna.logging.WARNING)


def study(n=30, direction='maximize', seed=0):
    out = optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler(seed=seed))
    sign = 1 if direction == 'maximize' else -1
    def objective(t):
        how, lr, m = t.suggest_categorical('how', ['mean', 'power']), t.suggest_float('lr', 1e-4, 1e-1, log=True), t.suggest_int('m', 1, 5)
        if how == 'power': t.suggest_float('exponent', 1, 4)
        if t.number == 1: t.set_user_attr('default', True)
        if t.number % 7 == 3:
            t.report(.1, 2)
            raise optuna.TrialPruned
        if t.number % 7 == 5: raise ZeroDivisionError
        return sign * -abs(np.log10(lr) + 2) - .001 * m
    out.optimize(objective, n, catch=ZeroDivisionError)
    return out


def test_history_is_the_trials():
    for direction in ('maximize', 'minimize'):
        s = study(direction=direction)
        done = [t for t in s.trials if t.value is not None and t.state.name == 'COMPLETE']
        figs = dict(study_figures(s))
        ax = figs['History'].axes[0]
        cut = [t for t in s.trials if t.state.name == 'PRUNED']
        low, high = ax.get_ylim()
        # a dot each, or a triangle on the edge for one beyond it: none is left out
        places = np.concatenate([o.get_offsets().compressed().reshape(-1, 2) for o in ax.collections])
        want = [(t.number, np.clip(t.value, low, high)) for t in done] + [(t.number, np.clip(.1, low, high)) for t in cut]
        np.testing.assert_allclose(places[places[:, 0].argsort()], sorted(want))
        assert any(not low < t.value < high for t in done)
        best = ax.lines[0].get_ydata()
        assert best[-1] == s.best_value and (np.diff(best) * (1 if direction == 'maximize' else -1) >= 0).all()
        assert ax.lines[1].get_ydata()[0] == s.trials[1].value


def test_importances_and_slices():
    figs = dict(study_figures(study(60)))
    bars = figs['Importances'].axes[0]
    assert [o.get_text() for o in bars.get_yticklabels()][0] == 'lr' and bars.patches[0].get_width() > .8
    slices = {ax.get_xlabel(): ax for ax in figs['Slices'].axes if ax.get_xlabel()}
    # a conditional parameter has a slice of the trials that have it, and no place among the parallels
    assert set(slices) == {'how', 'lr', 'm', 'exponent'} and slices['lr'].get_xscale() == 'log'
    assert len(slices['exponent'].collections[0].get_offsets()) < len(slices['lr'].collections[0].get_offsets())
    parallel = figs['Parallel coordinates'].axes[0]
    assert sorted(o.get_text() for o in parallel.get_xticklabels()) == ['how', 'lr', 'm']


def test_axes_say_what_the_value_is():
    s = study()
    assert dict(study_figures(s))['History'].axes[0].get_ylabel() == 'value'
    s.set_user_attr('kept', {'monitor': 'map@r'})
    figs = dict(study_figures(s))
    assert figs['History'].axes[0].get_ylabel() == figs['Slices'].axes[0].get_ylabel() == 'map@r'


def test_few_trials_and_none():
    assert [k for k, _ in study_figures(study(1))] == ['History']
    assert len(study_figures(study(3))) == 3
    with pytest.raises(InputError, match='nothing to draw'): study_figures(optuna.create_study())


def test_all_alike():
    s = optuna.create_study()
    s.optimize(lambda t: 0. * t.suggest_float('x', 0, 1), 12)
    for _, fig in study_figures(s): fig.canvas.draw()


def test_shown_in_a_notebook(monkeypatch):
    shown = []
    monkeypatch.setattr('IPython.display.display', shown.append)
    show_study(study())
    assert len(shown) == 4
    for fig in shown: fig.savefig('/dev/null', format='png')
