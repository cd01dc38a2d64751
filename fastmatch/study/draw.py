"Studies in pictures: how far the search came, which parameters counted, what their values gave."
import warnings

import numpy as np

from ..core import InputError

MOST = 12  # parameters drawn, those that count most
DONE, CUT, BEST = 'tab:blue', '0.7', 'tab:orange'


def study_figures(
    study,  # Optuna study; its trial of the kit as it comes (user attribute 'default') is marked
) -> list[tuple]:  # (title, matplotlib Figure)
    "History, importances, slices and parallel coordinates; those that the trials so far can't fill are left out."
    from optuna.trial import TrialState
    trials = study.get_trials(deepcopy=False)
    done = [t for t in trials if t.state == TrialState.COMPLETE]
    if not done: raise InputError(f'study {study.study_name!r}: none of its {len(trials)} trials is complete, there is nothing to draw')
    pruned = [t for t in trials if t.state == TrialState.PRUNED and t.intermediate_values]
    sign = 1 if study.direction.name == 'MAXIMIZE' else -1
    what = study.user_attrs.get('kept', {}).get('monitor', 'value')
    figs = [('History', _history(done, pruned, sign, what))]
    weight = _importances(study, done)
    if weight: figs.append(('Importances', _bars(weight)))
    seen = dict.fromkeys(k for t in done for k in t.params)
    names = sorted(seen, key=lambda k: -weight.get(k, 0))[:MOST]
    # a parameter with one value has nothing to show
    names = [k for k in names if len({repr(t.params[k]) for t in done if k in t.params}) > 1]
    if names: figs.append(('Slices', _slices(done, names, sign, what)))
    shared = [k for k in names if all(k in t.params for t in done)]
    if len(shared) > 1 and len(done) > 1: figs.append(('Parallel coordinates', _parallel(done, shared, sign)))
    return figs


def show_study(
    study,  # Optuna study
):
    "Show a study's pictures in a notebook."
    from IPython.display import display
    for _, fig in study_figures(study): display(fig)


def _figure(w, h, rows=1, cols=1):
    from matplotlib.figure import Figure
    # not pyplot's: nothing to close, and no notebook shows it twice
    fig = Figure(figsize=(w, h), layout='constrained')
    return fig, fig.subplots(rows, cols, squeeze=False)


def _limits(y, sign):
    "Ends of the axis: a few lost trials should not flatten all others; None where all fit."
    if len(y) < 10: return None
    low, high = np.sort(sign * y)[len(y) // 10], (sign * y).max()
    if high <= low or (sign * y).min() >= low - .3 * (high - low): return None
    return tuple(sorted(sign * np.array([low - .3 * (high - low), high + .08 * (high - low)])))


def _dots(ax, x, y, limits, **kwargs):
    "Dots, and on the edge a triangle for each that is beyond it."
    x, y = np.asarray(x, float), np.asarray(y, float)
    low, high = limits or (-np.inf, np.inf)
    dots = ax.scatter(x, np.where((y < low) | (y > high), np.nan, y), s=12, **kwargs)
    for out, edge, marker in ((y < low, low, 'v'), (y > high, high, '^')):
        own = {k: v[out] if k == 'c' and not isinstance(v, str) else v for k, v in kwargs.items() if k != 'label'}
        if out.any(): ax.scatter(x[out], np.full(out.sum(), edge), s=22, marker=marker, clip_on=False, zorder=3, **own)
    return dots


def _history(done, pruned, sign, what):
    fig, ((ax,),) = _figure(7, 2.8)
    x, y = np.array([t.number for t in done]), np.array([t.value for t in done])
    limits = _limits(y, sign)
    if pruned: _dots(ax, [t.number for t in pruned], [t.intermediate_values[max(t.intermediate_values)] for t in pruned], limits, c=CUT, label='pruned, where it stood')
    _dots(ax, x, y, limits, c=DONE, label='complete (triangle: beyond the edge)' if limits else 'complete')
    ax.step(x, sign * np.maximum.accumulate(sign * y), where='post', c=BEST, label='best so far')
    for t in done:
        if t.user_attrs.get('default'): ax.axhline(t.value, c='k', lw=.8, ls=':', label='default')
    if limits: ax.set_ylim(*limits)
    ax.set(xlabel='trial', ylabel=what)
    ax.legend(fontsize=8)
    return fig


def _importances(study, done):
    "Share of the values' spread that each parameter explains; empty where there is too little to tell."
    import optuna
    if len(done) < 4 or len({t.value for t in done}) < 2: return {}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', optuna.exceptions.ExperimentalWarning)
        return optuna.importance.get_param_importances(study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0))


def _bars(weight):
    names = list(weight)[:MOST]
    fig, ((ax,),) = _figure(7, .8 + .3 * len(names))
    bars = ax.barh(names, [weight[k] for k in names], color=DONE)
    ax.bar_label(bars, [f'{weight[k]:.2f}' for k in names], padding=3, fontsize=8)
    ax.invert_yaxis()
    ax.margins(x=.1)
    ax.set_xlabel('share of the spread explained (fANOVA), of parameters that every trial has')
    return fig


def _axis(done, name):
    "(places, dist, tick labels or None) of a parameter in the trials that have it."
    have = [t for t in done if name in t.params]
    dist = have[-1].distributions[name]
    if not hasattr(dist, 'choices'): return have, np.array([t.params[name] for t in have], float), getattr(dist, 'log', False), None
    labels = [str(o) for o in dist.choices]
    return have, np.array([labels.index(str(t.params[name])) for t in have], float), False, labels


def _slices(done, names, sign, what):
    cols = min(4, len(names))
    fig, axs = _figure(2.6 * cols, 2.3 * -(-len(names) // cols), -(-len(names) // cols), cols)
    limits, dots = _limits(np.array([t.value for t in done]), sign), None
    for ax in axs.flat[len(names):]: ax.set_visible(False)
    for ax, name in zip(axs.flat, names):
        have, x, log, labels = _axis(done, name)
        y, number = np.array([t.value for t in have]), np.array([t.number for t in have])
        # choices lie side by side, not on top of each other
        if labels: x = x + np.random.default_rng(0).uniform(-.25, .25, len(x))
        dots = _dots(ax, x, y, limits, c=number, cmap='viridis_r', vmin=0, vmax=max(t.number for t in done))
        if log:
            ax.set_xscale('log')
            at = np.geomspace(x.min(), x.max(), 3)
            ax.set_xticks(at, [f'{o:.2g}' for o in at])
            ax.set_xticks([], minor=True)
        if labels: ax.set_xticks(range(len(labels)), labels, rotation=30 if max(map(len, labels)) * len(labels) > 16 else 0, fontsize=8)
        if limits: ax.set_ylim(*limits)
        ax.set_xlabel(name)
    for line in axs: line[0].set_ylabel(what)
    fig.colorbar(dots, ax=axs, label='trial')
    return fig


def _parallel(done, names, sign):
    fig, ((ax,),) = _figure(1.5 + 1.1 * len(names), 3)
    order = sorted(done, key=lambda t: sign * t.value)
    values = np.array([t.value for t in order])
    columns = []
    for i, name in enumerate(names):
        _, x, log, labels = _axis(order, name)
        x = np.log(x) if log else x
        low, high = (0, len(labels) - 1) if labels else (x.min(), x.max())
        columns.append((x - low) / (high - low) if high > low else np.full(len(x), .5))
        ends = (labels[0], labels[-1]) if labels else [f'{np.exp(o) if log else o:.3g}' for o in (low, high)]
        # all choices by name, of numbers the ends
        marks = list(zip(np.linspace(0, 1, len(labels)), labels)) if labels and len(labels) > 1 else list(zip((0, 1), ends))
        ax.axvline(i, c='0.85', lw=1, zorder=0)
        for at, text in marks: ax.annotate(text, (i, at), xytext=(3, 0), textcoords='offset points', fontsize=7, va='center', zorder=3)
    # the best on top, by rank: a lost trial takes no colour from the others
    from matplotlib import colormaps
    shade = colormaps['viridis'](np.linspace(0, 1, len(order)))
    for i, y in enumerate(np.stack(columns, 1)): ax.plot(range(len(names)), y, c=shade[i], lw=.8, alpha=.35 + .65 * (i / max(1, len(order) - 1))**4)
    ax.set_xticks(range(len(names)), names, rotation=20 if len(names) > 5 else 0, fontsize=8)
    ax.set_yticks([])
    ax.set_title(f'yellow: the best ({values[-1]:.4g}), violet: the worst ({values[0]:.4g})', fontsize=9)
    for side in ('top', 'right', 'left', 'bottom'): ax.spines[side].set_visible(False)
    return fig
