"The section on the rule: what it does in words, what each step was worth, its threshold over the pool."
from dataclasses import dataclass

import numpy as np

from ..match.pools import PoolThresholds
from ..match.rule import Rule
from ..match.search.ladder import LadderResult
from ..match.words import rule_in_words
from .chart import chart
from .render import number, render

# user units of the drawing of what the steps added
LABELS, WIDTH, RIGHT = 130, 400, 12
LINE, TOP = 26, 12


@dataclass
class Added:
    "A line of the drawing: what a step added, with its interval."
    name: str
    y: str
    low: str  # x of the interval's ends and of its middle
    high: str
    middle: str
    style: str  # 'right' above 0, 'wrong' below, 'unsure' where the interval holds 0


def rule_html(
    rule: Rule,
    ladder: LadderResult | None = None,  # How it was found; None: not known
) -> str:  # html
    "The rule in words; what each rung of the ladder added; the threshold by the number of listings searched."
    return render(
        'rule.html', sentences=rule_in_words(rule),
        rungs=[] if ladder is None else [_cells(rung) for rung in ladder.rungs],
        steps=None if ladder is None else steps_chart(ladder),
        pools=None if rule.pools is None or len(rule.pools.sizes) < 2 else pools_chart(rule.pools))


def _cells(rung):
    step = rung.over_before
    if step is None: return [rung.name, number(rung.heldout.mean), number(rung.heldout.se), '', '']
    return [rung.name, number(rung.heldout.mean), number(rung.heldout.se), f'{step.diff:+.3f}',
            f'{step.low:+.3f} to {step.high:+.3f}']


def steps_chart(
    ladder: LadderResult,
) -> str | None:  # html
    "What each rung behind the plain fusion added, with its interval; None where there is no such rung."
    rungs = [rung for rung in ladder.rungs if rung.over_before is not None and rung.name != 'fused']
    if not rungs: return None
    ends = [0., *(end for rung in rungs for end in (rung.over_before.low, rung.over_before.high))]
    margin = .05 * max(max(ends) - min(ends), .01)
    low, high = min(ends) - margin, max(ends) + margin

    def x_of(value): return f'{LABELS + (value - low) / (high - low) * (WIDTH - RIGHT - LABELS):.1f}'
    lines = []
    for place, rung in enumerate(rungs):
        step = rung.over_before
        style = 'right' if step.low > 0 else 'wrong' if step.high < 0 else 'unsure'
        lines.append(Added(rung.name, f'{TOP + (place + .5) * LINE:.1f}', x_of(step.low), x_of(step.high),
                           x_of(step.diff), style))
    bottom = TOP + len(rungs) * LINE
    ticks = [(x_of(tick), f'{tick:+.3g}' if tick else '0') for tick in _few_ticks(low, high)]
    return render('steps.html', lines=lines, zero=x_of(0), ticks=ticks, top=TOP, bottom=bottom, width=WIDTH,
                  height=bottom + 38, labels=LABELS, right=WIDTH - RIGHT)


def _few_ticks(low, high):
    from matplotlib.ticker import MaxNLocator
    positions = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(np.round(position, 9)) for position in positions if low <= position <= high]


def pools_chart(
    pools: PoolThresholds,
) -> str:  # html
    "The threshold over the number of listings searched, measured and predicted."
    sizes, thresholds = np.array(pools.sizes, float), np.array(pools.thresholds)
    is_measured = sizes <= pools.measured
    series = {'measured': (sizes[is_measured], thresholds[is_measured])}
    # the prediction starts where the measuring ends
    beyond = np.flatnonzero(sizes >= pools.measured)
    if len(beyond) > 1: series['predicted'] = sizes[beyond], thresholds[beyond]
    return chart(series, 'listings searched (log scale)', 'threshold', 'Threshold by listings searched',
                 log_x=True)
