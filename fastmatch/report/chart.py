"Line charts as small inline SVG: text stays text, and colors come from the page's light or dark palette."
from dataclasses import dataclass

import numpy as np

from .render import render

# user units; the page scales a chart to the width it has
W, H = 400, 250
LEFT, RIGHT = 46, 12
TOP, BOTTOM = 22, 40
POINTS = 400  # most points of a line: more than a phone has pixels across
STYLES = 6  # kinds of line in the page's style sheet
ZERO_COUNT = .6  # a count of 0 is drawn as this on a log axis, a little below 1
MAX_LOG_TICKS = 7
MAX_DOTS = 20  # a line of more points is drawn without a dot at each


@dataclass
class Axis:
    "Maps values from `low` to `high` onto the chart, from `start` to `end` in user units."
    low: float
    high: float
    start: float
    end: float

    def __call__(self, values):
        share = (values - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


@dataclass
class Line:
    "A line as `chart.html` draws it."
    name: str
    style: str  # 's0', 's1', ...
    path: str  # As SVG's `d`
    area: str  # The closed outline of what lies below, '' where that is not filled
    dots: list[tuple[str, str]]  # (x, y) of each point, where there are few


def chart(
    series: dict,  # Name -> (x, y), arrays of one length
    x_label: str,
    y_label: str,
    alt: str,  # What it shows, for those who can't see it
    x_range: tuple | None = None,  # Ends of the x axis; default from the least to the greatest value
    log: bool = False,  # y holds counts, drawn on a log axis
    threshold: float | None = None,  # Draws a vertical line there, with its value
    level: tuple | None = None,  # (name, y) of a horizontal line
    fill: bool = False,  # Fill below the lines
    whole: bool = False,  # Ticks of x at whole numbers only
    log_x: bool = False,  # x holds numbers above 0, drawn on a log axis
) -> str:  # html
    "A chart with its key; lines differ in color and in dashes. Values that are not finite are left out."
    if log_x: series = {line_name: (np.log10(x), y) for line_name, (x, y) in series.items()}
    drawable = {line_name: _drawable(*points, log) for line_name, points in series.items()}
    drawable = {line_name: points for line_name, points in drawable.items() if len(points[0])}
    if not drawable: return render('chart.html', lines=[], y_label=y_label)
    x_low, x_high = _range([x for x, _ in drawable.values()]) if x_range is None else x_range
    x_axis = Axis(x_low, x_high, LEFT, W - RIGHT)
    heights = [y for _, y in drawable.values()]
    y_axis = Axis(*_y_range(heights, level, log), H - BOTTOM, TOP)
    x_ticks = _log_ticks(x_low, x_high) if log_x else [
        (position, f'{position:g}') for position in _ticks(x_low, x_high)
        if not whole or position == int(position)]
    y_ticks = range(int(y_axis.high) + 1) if log else _ticks(y_axis.low, y_axis.high)
    lines = [_line(line_name, f's{line_number % STYLES}', x_axis(x), y_axis(y), fill)
             for line_number, (line_name, (x, y)) in enumerate(drawable.items())]
    return render(
        'chart.html', lines=lines, alt=alt, x_label=x_label, y_label=y_label,
        width=W, height=H, left=LEFT, right=W - RIGHT, top=TOP, bottom=H - BOTTOM,
        x_ticks=[(f'{x_axis(position):.1f}', label) for position, label in x_ticks],
        y_ticks=[(y_axis(position), f'{10**position if log else position:g}') for position in y_ticks],
        level=None if level is None else (level[0], f'{y_axis(level[1]):.1f}'),
        threshold=_threshold(threshold, x_axis))


def _drawable(x, y, is_log):
    "The finite points, thinned out to `POINTS`, first and last kept."
    x = np.asarray(x, np.float64)
    y = np.asarray(y, np.float64)
    # a loss that ran away has nothing to draw
    drawn = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if len(drawn):
        positions = np.linspace(0, len(drawn) - 1, min(len(drawn), POINTS)).round().astype(int)
        drawn = drawn[np.unique(positions)]
    x, y = x[drawn], y[drawn]
    return x, np.log10(np.maximum(y, ZERO_COUNT)) if is_log else y


def _range(arrays):
    lowest = float(min(values.min() for values in arrays))
    highest = float(max(values.max() for values in arrays))
    return (lowest, highest) if highest > lowest else (lowest - .5, highest + .5)


def _y_range(heights, level, is_log):
    if is_log: return np.log10(ZERO_COUNT), max([1, *(y.max() for y in heights)]) * 1.04
    lowest, highest = _range(heights + ([np.array([level[1]])] if level else []))
    margin = .04 * (highest - lowest)
    return lowest - margin, highest + margin


def _ticks(lowest, highest):
    from matplotlib.ticker import MaxNLocator
    positions = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(lowest, highest)
    return [float(position) for position in positions if lowest - 1e-9 <= position <= highest + 1e-9]


def _log_ticks(lowest, highest):
    "(logarithm, number as words) at 1, 2 and 5 times the powers of 10, or fewer where these are too many."
    for multiples in ((1, 2, 5), (1, 3), (1,)):
        numbers = [multiple * 10**power for power in range(int(lowest), int(highest) + 1)
                   for multiple in multiples]
        ticks = [(float(np.log10(tick)), f'{tick:,}') for tick in numbers
                 if lowest <= np.log10(tick) <= highest]
        if len(ticks) <= MAX_LOG_TICKS: break
    return ticks


def _line(line_name, style, x_positions, y_positions, filled):
    points = [(f'{point_x:.1f}', f'{point_y:.1f}') for point_x, point_y in zip(x_positions, y_positions)]
    outline = 'M' + 'L'.join(f'{point_x} {point_y}' for point_x, point_y in points)
    closed_outline = f'{outline}V{H - BOTTOM}H{x_positions[0]:.1f}Z' if filled else ''
    has_dots = len(points) <= MAX_DOTS and not filled
    return Line(line_name, style, outline, closed_outline, points if has_dots else [])


def _threshold(threshold, x_axis):
    "(x of the line, x of its words, its value), or None where it is outside of the chart."
    if threshold is None or not x_axis.low <= threshold <= x_axis.high: return None
    line_x = x_axis(threshold)
    return f'{line_x:.1f}', f'{np.clip(line_x, LEFT + 40, W - 52):.1f}', f'{threshold:.3f}'


def steps(
    edges: np.ndarray,  # (b+1,) of the bins
    counts: np.ndarray,  # (b,)
) -> tuple[np.ndarray, np.ndarray]:
    "A histogram's outline as (x, y), each (2b,)."
    return np.repeat(edges, 2)[1:-1], np.repeat(counts, 2)
