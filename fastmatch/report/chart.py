"Line charts as small inline SVG: text stays text, colours come from the page's light or dark palette."
from html import escape

import numpy as np

W, H, LEFT, RIGHT, TOP, BOTTOM = 400, 250, 46, 12, 22, 40  # user units; the page scales them to the width it has
POINTS = 400  # most points of a line: more than a phone has pixels across
STYLES = 6  # lines that the page's style tells apart
NOUGHT = .6  # where a count of 0 stands on a log axis: a little below 1


def _ticks(lo, hi):
    from matplotlib.ticker import MaxNLocator
    return [float(o) for o in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(lo, hi) if lo - 1e-9 <= o <= hi + 1e-9]


def _range(values, given):
    if given is not None: return given
    lo, hi = float(min(o.min() for o in values)), float(max(o.max() for o in values))
    return (lo, hi) if hi > lo else (lo - .5, hi + .5)


def chart(
    series: dict,  # Name -> (x, y), arrays of one length
    x_label: str,
    y_label: str,
    alt: str,  # What it shows, for those who can't see it
    x_range: tuple | None = None,  # Default: from the least to the greatest
    y_range: tuple | None = None,
    log: bool = False,  # y holds counts, drawn on a log axis
    cut: float | None = None,  # A vertical line with its value
    level: tuple | None = None,  # (name, y) of a horizontal line
    fill: bool = False,  # Fill below the lines
    whole: bool = False,  # Ticks of x at whole numbers only
) -> str:
    "A chart with its key; lines differ in colour and in dashes."
    data = {}
    for name, (x, y) in series.items():
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        # a loss that ran away has nothing to draw
        keep = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        if not len(keep): continue
        keep = keep[np.unique(np.linspace(0, len(keep) - 1, min(len(keep), POINTS)).round().astype(int))]
        data[name] = x[keep], np.log10(np.maximum(y[keep], NOUGHT)) if log else y[keep]
    if not data: return f'<p class="soft">{escape(y_label)}: no finite value to draw</p>'
    x0, x1 = _range([x for x, _ in data.values()], x_range)
    if log: y_range = np.log10(NOUGHT), max([1, *(y.max() for _, y in data.values())]) * 1.04
    y0, y1 = _range([y for _, y in data.values()] + ([np.array([level[1]])] if level else []), y_range)
    if y_range is None: y0, y1 = y0 - .04 * (y1 - y0), y1 + .04 * (y1 - y0)
    def at_x(x): return LEFT + (x - x0) / (x1 - x0) * (W - LEFT - RIGHT)
    def at_y(y): return H - BOTTOM - (y - y0) / (y1 - y0) * (H - TOP - BOTTOM)

    xs, ys = [o for o in _ticks(x0, x1) if not whole or o == int(o)], range(int(y1) + 1) if log else _ticks(y0, y1)
    parts = [f'<path class="grid" d="M{LEFT} {at_y(v):.1f}H{W - RIGHT}"/><text x="{LEFT - 6}" y="{at_y(v) + 4:.1f}" text-anchor="end">'
             f'{10**v if log else v:g}</text>' for v in ys]
    parts += [f'<text x="{at_x(v):.1f}" y="{H - BOTTOM + 16}" text-anchor="middle">{v:g}</text>' for v in xs]
    parts += [f'<path class="axis" d="M{LEFT} {H - BOTTOM}H{W - RIGHT}"/>',
              f'<text x="{(LEFT + W - RIGHT) / 2}" y="{H - 6}" text-anchor="middle">{escape(x_label)}</text>',
              f'<text transform="translate(11 {(TOP + H - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>']
    if level: parts.append(f'<path class="line level" d="M{LEFT} {at_y(level[1]):.1f}H{W - RIGHT}"/>')
    style = {o: f's{i % STYLES}' for i, o in enumerate(data)}
    for name, (x, y) in data.items():
        s = style[name]
        d = 'M' + 'L'.join(f'{a:.1f} {b:.1f}' for a, b in zip(at_x(x), at_y(y)))
        if fill: parts.append(f'<path class="area {s}" d="{d}V{H - BOTTOM}H{at_x(x[0]):.1f}Z"/>')
        parts.append(f'<path class="line {s}" d="{d}"/>')
        if len(x) > 20 or fill: continue
        parts += [f'<circle class="dot {s}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in zip(at_x(x), at_y(y))]
    if cut is not None and x0 <= cut <= x1:
        parts.append(f'<path class="cut" d="M{at_x(cut):.1f} {TOP - 4}V{H - BOTTOM}"/><text class="at" text-anchor="middle" y="{TOP - 9}" '
                     f'x="{np.clip(at_x(cut), LEFT + 20, W - 32):.1f}">cut {cut:.3f}</text>')
    keys = [f'<span><svg width="26" height="10" aria-hidden="true"><path class="line {s}" d="M0 5H26"/></svg> {escape(o)}</span>'
            for o, s in [*style.items(), *([(level[0], 'level')] if level else [])]]
    return (f'<svg class="chart" viewBox="0 0 {W} {H}" role="img" aria-label="{escape(alt)}">{"".join(parts)}</svg>'
            f'<div class="keys">{"".join(keys)}</div>')


def steps(
    edges: np.ndarray,  # (b+1,) of the bins
    counts: np.ndarray,  # (b,)
) -> tuple[np.ndarray, np.ndarray]:
    "A histogram's outline as (x, y)."
    return np.repeat(edges, 2)[1:-1], np.repeat(counts, 2)
