"The charts of a report: how training went, the scores of true and false pairs, row F1 by threshold."
import numpy as np

from ..match.rule import Rule
from ..match.thresholds.sweep import Sweep
from .chart import chart, steps
from .pairs import Judged
from .render import render

BINS = 48  # of the histogram
THRESHOLDS = 120  # at which the curve of row F1 is computed


def training(
    losses,  # Training loss of each step, or None
    monitors: dict | None,  # Name -> its value after each epoch
) -> str:  # html
    "How training went; '' where nothing is known of it."
    losses = np.array([float(loss) for loss in ([] if losses is None else losses)])
    if not len(losses) and not monitors: return ''
    loss_chart = monitor_chart = None
    if len(losses):
        by_step = {'training loss': (np.arange(1, len(losses) + 1), losses)}
        loss_chart = chart(by_step, 'step', 'loss', 'Training loss by step')
    if monitors:
        epochs = np.arange(1, 1 + len(next(iter(monitors.values()))))
        by_epoch = {monitor: (epochs, [float(value) for value in values])
                    for monitor, values in monitors.items()}
        monitor_chart = chart(by_epoch, 'epoch', 'score', 'Monitors by epoch', whole=True)
    return render('training.html', loss_chart=loss_chart, lost=int((~np.isfinite(losses)).sum()),
                  monitor_chart=monitor_chart, flattered='row_f1_max' in (monitors or {}))


def scores(
    judged: Judged,
    rule: Rule,  # That was judged
) -> str:  # html
    "The scores of true and of false pairs, and the mean row F1 that every other threshold would give."
    pairs = judged.pairs
    if not pairs.scored.any(): return render('scores.html', histogram=None)
    sweep = Sweep(judged.neighbors, judged.groups, rule.max_matches)
    compared = pairs.fused[pairs.scored]
    bin_edges = _bin_edges(min(compared.min(), rule.threshold), max(compared.max(), rule.threshold))
    score_range = bin_edges[0], bin_edges[-1]
    true_counts, _ = np.histogram(compared[pairs.true[pairs.scored]], bin_edges)
    false_counts, _ = np.histogram(compared[~pairs.true[pairs.scored]], bin_edges)
    outlines = {'same product': steps(bin_edges, true_counts),
                'different products': steps(bin_edges, false_counts)}
    histogram = chart(outlines, 'fused score', 'pairs (log scale)', 'Scores of true and of false pairs',
                      x_range=score_range, log=True, threshold=rule.threshold, fill=True)
    thresholds = np.unique([*np.linspace(*score_range, THRESHOLDS), rule.threshold])
    row_f1 = {'mean row F1': (thresholds, [sweep.at(threshold).mean() for threshold in thresholds])}
    alone_f1 = sweep.at(np.inf).mean()
    f1_chart = chart(row_f1, 'fused score from which pairs match', 'mean row F1', 'Mean row F1 by threshold',
                     x_range=score_range, threshold=rule.threshold, level=('alone', alone_f1))
    return render('scores.html', histogram=histogram, curve=f1_chart,
                  at_threshold=sweep.at(rule.threshold).mean(),
                  true_pairs=int(true_counts.sum()), false_pairs=int(false_counts.sum()),
                  not_candidates=int((pairs.true & ~pairs.candidate).sum()))


def _bin_edges(lowest, highest):
    return np.linspace(*((lowest, highest) if highest > lowest else (lowest - .5, lowest + .5)), BINS + 1)
