"The charts of a report: how training went, the scores of true and false pairs, row F1 by threshold."
import numpy as np

from ..match.judge.score import alone
from ..match.thresholds.sweep import RankSweep, Sweep
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
) -> str:  # html
    "The scores of true and of false pairs, and the mean row F1 that every other threshold would give."
    pairs, rule = judged.pairs, judged.rule
    if not pairs.scored.any(): return render('scores.html', histogram=None)
    compared = pairs.fused[pairs.scored]
    bin_edges = _bin_edges(min(compared.min(), rule.threshold), max(compared.max(), rule.threshold))
    score_range = bin_edges[0], bin_edges[-1]
    true_counts, _ = np.histogram(compared[pairs.true[pairs.scored]], bin_edges)
    false_counts, _ = np.histogram(compared[~pairs.true[pairs.scored]], bin_edges)
    outlines = {'same product': steps(bin_edges, true_counts),
                'different products': steps(bin_edges, false_counts)}
    histogram = chart(outlines, 'fused score', 'pairs (log scale)', 'Scores of true and of false pairs',
                      x_range=score_range, log=True, threshold=rule.threshold, fill=True)
    mean_f1, follows = _row_f1_of(judged)
    thresholds = np.unique([*np.linspace(*score_range, THRESHOLDS), rule.threshold])
    row_f1 = {'mean row F1': (thresholds, [mean_f1(threshold) for threshold in thresholds])}
    f1_chart = chart(
        row_f1,
        'fused score from which pairs match',
        'mean row F1',
        'Mean row F1 by threshold',
        x_range=score_range,
        threshold=rule.threshold,
        level=('alone', alone(judged.known).mean()),
    )
    return render('scores.html', histogram=histogram, curve=f1_chart, at_threshold=mean_f1(rule.threshold),
                  follows=follows, true_pairs=int(true_counts.sum()), false_pairs=int(false_counts.sum()),
                  not_candidates=int((pairs.true & ~pairs.candidate).sum()))


def _row_f1_of(judged):
    """A function from a threshold to the mean row F1 of the rule with it, and what that regards of the steps
    on matches: 'min2', whose threshold moves along, '' where there is none, 'none' where they are left
    out."""
    rule = judged.rule
    last_steps = [step for step in rule.steps if step.stage == 'matches']
    is_plain_min2 = len(last_steps) == 1 and last_steps[0].do == 'min2' and not (
        last_steps[0].params.get('mutual') or last_steps[0].params.get('gap') is not None)
    if not is_plain_min2:
        sweep = Sweep(judged.neighbors, judged.known, rule.max_matches)
        return (lambda threshold: sweep.at(threshold).mean()), 'none' if last_steps else ''
    nearest = last_steps[0].params.get('threshold')
    below = np.inf if nearest is None else max(0., rule.threshold - nearest)
    by_rank = RankSweep(judged.neighbors, judged.known, 2, rule.max_matches)
    return (lambda threshold: by_rank.at((threshold - below, threshold)).mean()), 'min2'


def _bin_edges(lowest, highest):
    return np.linspace(*((lowest, highest) if highest > lowest else (lowest - .5, lowest + .5)), BINS + 1)
