"Row F1 over the threshold for several sizes of the pool, as a picture."
import numpy as np


def pools_figure(
    curves,  # DataFrame of pool, threshold, row_f1, as `threshold_curves` gives it
    thresholds=None,  # `PoolThresholds` of the rule: dots where it would put the threshold
):  # matplotlib Figure
    "A line for each size of the pool, the larger the darker, with a dot at its threshold."
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    # not pyplot's: there is nothing to close, and no notebook shows it twice
    figure = Figure(figsize=(7, 3.2), layout='constrained')
    axes = figure.subplots()
    pools = sorted(curves.pool.unique())
    for pool, shade in zip(pools, np.linspace(.75, .15, len(pools))):
        curve = curves[curves.pool == pool].sort_values('threshold')
        color = colormaps['viridis'](shade)
        axes.plot(curve.threshold, curve.row_f1, c=color, label=f'{pool:,} listings')
        threshold = (curve.threshold.iloc[curve.row_f1.argmax()] if thresholds is None
                     else thresholds.at(int(pool)))
        axes.plot(threshold, np.interp(threshold, curve.threshold, curve.row_f1), 'o', c=color)
    dots = 'best' if thresholds is None else "the rule's"
    axes.set(xlabel=f'score from which pairs match (dot: {dots} threshold)', ylabel='mean row F1')
    axes.legend(fontsize=8)
    return figure
