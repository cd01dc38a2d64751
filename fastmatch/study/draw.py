"""Studies in pictures: how far the search came, which parameters mattered, what each of their values gave.

Drawn here and not by `optuna.visualization.matplotlib`, whose pictures lack the pruned trials, the default,
and room for outliers, and which changes matplotlib's style for the whole process."""
import warnings

import numpy as np

from ..core import InputError

MAX_PARAMETERS = 12  # parameters drawn, those that matter most
COMPLETE = 'tab:blue'  # colors of trials by their state, and of the best value so far
PRUNED = '0.7'
BEST = 'tab:orange'


def study_figures(
    study,  # Optuna study with one objective; trials with the user attribute 'default' are marked
) -> list[tuple]:  # (title, matplotlib Figure)
    """Pictures of a study: history, importances, slices, parallel coordinates.

    Those that the trials so far can't fill are left out. Raises `InputError` where no trial is complete."""
    from optuna.trial import TrialState
    trials = study.get_trials(deepcopy=False)
    complete_trials = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not complete_trials:
        raise InputError(f'study {study.study_name!r}: none of its {len(trials)} trials is complete, '
                         'there is nothing to draw')
    pruned_trials = [trial for trial in trials
                     if trial.state == TrialState.PRUNED and trial.intermediate_values]
    value_sign = 1 if study.direction.name == 'MAXIMIZE' else -1
    value_name = study.user_attrs.get('kept', {}).get('monitor', 'value')
    figures = [('History', _draw_history(complete_trials, pruned_trials, value_sign, value_name))]
    importances = _importances(study, complete_trials)
    if importances: figures.append(('Importances', _draw_importances(importances)))
    parameters = _varied_parameters(complete_trials, importances)
    if parameters:
        slices = _draw_slices(complete_trials, parameters, value_sign, value_name)
        figures.append(('Slices', slices))
    shared = [parameter for parameter in parameters
              if all(parameter in trial.params for trial in complete_trials)]
    if len(shared) > 1 and len(complete_trials) > 1:
        figures.append(('Parallel coordinates', _draw_parallel(complete_trials, shared, value_sign)))
    return figures


def show_study(
    study,  # Optuna study
):
    "Show a study's pictures in a notebook."
    from IPython.display import display
    for _, figure in study_figures(study): display(figure)


def _importances(study, complete_trials):
    "Share of the values' variance that each parameter explains, largest first; empty for too few trials."
    import optuna
    if len(complete_trials) < 4 or len({trial.value for trial in complete_trials}) < 2: return {}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return optuna.importance.get_param_importances(study, evaluator=evaluator)


def _varied_parameters(complete_trials, importances):
    "Names of the parameters to draw, the most important first, without those that had one value only."
    parameters = dict.fromkeys(parameter for trial in complete_trials for parameter in trial.params)
    parameters = sorted(parameters, key=lambda parameter: -importances.get(parameter, 0))[:MAX_PARAMETERS]

    def is_varied(parameter):
        values = {repr(trial.params[parameter]) for trial in complete_trials if parameter in trial.params}
        return len(values) > 1
    return [parameter for parameter in parameters if is_varied(parameter)]


def _new_figure(width, height, n_rows=1, n_columns=1):
    "(figure, array of axes). Not pyplot's: there is nothing to close, and no notebook shows it twice."
    from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), layout='constrained')
    return figure, figure.subplots(n_rows, n_columns, squeeze=False)


def _value_limits(values, value_sign):
    "Ends of the value axis such that a few bad trials do not flatten all others; None where all fit."
    if len(values) < 10: return None
    goodness = value_sign * values
    lowest, highest = np.sort(goodness)[len(values) // 10], goodness.max()
    if highest <= lowest or goodness.min() >= lowest - .3 * (highest - lowest): return None
    axis_ends = np.array([lowest - .3 * (highest - lowest), highest + .08 * (highest - lowest)])
    return tuple(sorted(value_sign * axis_ends))


def _draw_dots(axes, x, y, limits, colors, **style):
    "A dot for each trial, or a triangle on the edge for one beyond it; returns the dots, for a color bar."
    x, y = np.asarray(x, float), np.asarray(y, float)
    lowest, highest = limits or (-np.inf, np.inf)
    dots = axes.scatter(x, np.where((y < lowest) | (y > highest), np.nan, y), s=12, c=colors, **style)
    style.pop('label', None)
    for is_beyond, edge, marker in ((y < lowest, lowest, 'v'), (y > highest, highest, '^')):
        if not is_beyond.any(): continue
        beyond_colors = colors if isinstance(colors, str) else colors[is_beyond]
        axes.scatter(x[is_beyond], np.full(is_beyond.sum(), edge), s=22, c=beyond_colors, marker=marker,
                     clip_on=False, zorder=3, **style)
    return dots


def _draw_history(complete_trials, pruned_trials, value_sign, value_name):
    figure, ((axes,),) = _new_figure(7, 2.8)
    trial_numbers = np.array([trial.number for trial in complete_trials])
    values = np.array([trial.value for trial in complete_trials])
    limits = _value_limits(values, value_sign)
    if pruned_trials:
        pruned_numbers = [trial.number for trial in pruned_trials]
        last_values = [trial.intermediate_values[max(trial.intermediate_values)] for trial in pruned_trials]
        _draw_dots(axes, pruned_numbers, last_values, limits, PRUNED, label='pruned, at its last value')
    complete_label = 'complete (triangle: beyond the edge)' if limits else 'complete'
    _draw_dots(axes, trial_numbers, values, limits, COMPLETE, label=complete_label)
    best_so_far = value_sign * np.maximum.accumulate(value_sign * values)
    axes.step(trial_numbers, best_so_far, where='post', c=BEST, label='best so far')
    for trial in complete_trials:
        if trial.user_attrs.get('default'): axes.axhline(trial.value, c='k', lw=.8, ls=':', label='default')
    if limits: axes.set_ylim(*limits)
    axes.set(xlabel='trial', ylabel=value_name)
    axes.legend(fontsize=8)
    return figure


def _draw_importances(importances):
    parameters = list(importances)[:MAX_PARAMETERS]
    figure, ((axes,),) = _new_figure(7, .8 + .3 * len(parameters))
    bars = axes.barh(parameters, [importances[parameter] for parameter in parameters], color=COMPLETE)
    axes.bar_label(bars, [f'{importances[parameter]:.2f}' for parameter in parameters], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=.1)
    axes.set_xlabel('share of the variance explained (fANOVA), of parameters that every trial has')
    return figure


def _draw_slices(complete_trials, parameters, value_sign, value_name):
    n_columns = min(4, len(parameters))
    n_rows = -(-len(parameters) // n_columns)
    figure, all_axes = _new_figure(2.6 * n_columns, 2.3 * n_rows, n_rows, n_columns)
    limits = _value_limits(np.array([trial.value for trial in complete_trials]), value_sign)
    last_number = max(trial.number for trial in complete_trials)
    for axes in all_axes.flat[len(parameters):]: axes.set_visible(False)
    for axes, parameter in zip(all_axes.flat, parameters):
        scale = _ParameterScale(complete_trials, parameter)
        values = [trial.value for trial in scale.trials]
        trial_numbers = np.array([trial.number for trial in scale.trials])
        dots = _draw_dots(axes, scale.spread_positions(), values, limits, trial_numbers, cmap='viridis_r',
                          vmin=0, vmax=last_number)
        scale.label_axis(axes)
        if limits: axes.set_ylim(*limits)
        axes.set_xlabel(parameter)
    for axes_row in all_axes: axes_row[0].set_ylabel(value_name)
    figure.colorbar(dots, ax=all_axes, label='trial')
    return figure


def _draw_parallel(complete_trials, parameters, value_sign):
    from matplotlib import colormaps
    figure, ((axes,),) = _new_figure(1.5 + 1.1 * len(parameters), 3)
    worst_first = sorted(complete_trials, key=lambda trial: value_sign * trial.value)
    columns = []
    for column, parameter in enumerate(parameters):
        scale = _ParameterScale(worst_first, parameter)
        columns.append(scale.unit_positions())
        axes.axvline(column, c='0.85', lw=1, zorder=0)
        for height, label in scale.unit_marks():
            axes.annotate(label, (column, height), xytext=(3, 0), textcoords='offset points', fontsize=7,
                          va='center', zorder=3)
    # colored by rank, the best drawn last: a very bad trial takes no color from the others
    last_rank = max(1, len(worst_first) - 1)
    colors = colormaps['viridis'](np.linspace(0, 1, len(worst_first)))
    for rank, heights in enumerate(np.stack(columns, 1)):
        opacity = .35 + .65 * (rank / last_rank)**4
        axes.plot(range(len(parameters)), heights, c=colors[rank], lw=.8, alpha=opacity)
    axes.set_xticks(range(len(parameters)), parameters, rotation=20 if len(parameters) > 5 else 0, fontsize=8)
    axes.set_yticks([])
    best_value, worst_value = worst_first[-1].value, worst_first[0].value
    axes.set_title(f'yellow: the best ({best_value:.4g}), violet: the worst ({worst_value:.4g})', fontsize=9)
    for border in ('top', 'right', 'left', 'bottom'): axes.spines[border].set_visible(False)
    return figure


class _ParameterScale:
    "Where one parameter's values lie on an axis: numbers at their value, choices at 0, 1, 2, ..."
    def __init__(self, trials, parameter):
        from optuna.distributions import CategoricalDistribution
        self.trials = [trial for trial in trials if parameter in trial.params]
        distribution = self.trials[-1].distributions[parameter]
        values = [trial.params[parameter] for trial in self.trials]
        if isinstance(distribution, CategoricalDistribution):
            self.choices = [str(choice) for choice in distribution.choices]
            self.is_log = False
            values = [self.choices.index(str(value)) for value in values]
        else:
            self.choices = None
            self.is_log = distribution.log
        self.positions = np.array(values, float)

    def spread_positions(self):
        "The positions; those of one choice side by side, so that dots do not hide each other."
        if self.choices is None: return self.positions
        return self.positions + np.random.default_rng(0).uniform(-.25, .25, len(self.positions))

    def label_axis(self, axes):
        "Put the scale and the names of choices on a horizontal axis."
        if self.is_log:
            axes.set_xscale('log')
            ticks = np.geomspace(self.positions.min(), self.positions.max(), 3)
            axes.set_xticks(ticks, [f'{tick:.2g}' for tick in ticks])
            axes.set_xticks([], minor=True)
        if self.choices:
            is_wide = max(map(len, self.choices)) * len(self.choices) > 16
            axes.set_xticks(range(len(self.choices)), self.choices, rotation=30 if is_wide else 0, fontsize=8)

    def _ends(self):
        if self.choices: return 0, len(self.choices) - 1
        positions = np.log(self.positions) if self.is_log else self.positions
        return positions.min(), positions.max()

    def unit_positions(self):
        "The positions from 0 to 1, float (n,)."
        lowest, highest = self._ends()
        positions = np.log(self.positions) if self.is_log else self.positions
        return (positions - lowest) / (highest - lowest) if highest > lowest else np.full(len(positions), .5)

    def unit_marks(self):
        "(height from 0 to 1, text): every choice, or a number at either end."
        if self.choices:
            if len(self.choices) == 1: return [(0, self.choices[0]), (1, self.choices[0])]
            return list(zip(np.linspace(0, 1, len(self.choices)), self.choices))
        ends = np.exp(self._ends()) if self.is_log else self._ends()
        return [(height, f'{end:.3g}') for height, end in enumerate(ends)]
