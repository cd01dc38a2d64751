"Is it good: the headline, the table, the curves of training, the scores and the cut."
import numpy as np

from ..match.judge.heldout import paired
from ..match.judge.score import row_f1
from ..match.rule import Rule
from ..match.thresholds.sweep import Sweep
from .chart import chart, steps
from .page import MARKS, esc, number, plural, table
from .pairs import Judged

BINS = 48  # of the histogram
CUTS = 120  # thresholds at which the curve is computed
ROWS = {'alone': 'every listing matched with itself only', 'tfidf': "the titles' character n-grams, which need no training",
        'fused': 'all modalities together', 'untrained_': 'the same with encoders as they came'}


def headline(
    rows: dict,  # Row -> `HeldOut`
    judged: Judged,
) -> str:
    "What it is worth beside matching nothing and beside no training, and what it gets right at the chosen cut."
    fused, alone, p = rows['fused'], rows['alone'], judged.pairs
    tiles = [_tile('row F1, fused', f'<span id="f1">{fused.mean:.3f}</span>', f'standard error {fused.se:.3f}'),
             _tile('alone', f'{alone.mean:.3f}', 'every listing matched with itself only')]
    lead = (f'On {plural(len(judged.y), "listing")} of {plural(judged.y.max() + 1, "product")} that training never saw, mean row F1 is '
            f'{fused.mean:.3f}, {abs(fused.mean - alone.mean):.3f} {"above" if fused.mean >= alone.mean else "below"} matching nothing')
    if 'untrained_fused' in rows:
        gain = paired(fused, rows['untrained_fused'])
        tiles.append(_tile('gain by training', f'<span id="gain">{gain.diff:+.3f}</span>',
                           f'95% interval {gain.low:+.3f} to {gain.high:+.3f}'))
        unclear = 'made no difference that these listings could show'
        lead += '; training ' + ('helped' if gain.low > 0 else 'did harm' if gain.high < 0 else unclear)
    named, right, there = p.matched.sum(), (p.matched & p.true).sum(), p.true.sum()
    exact = (row_f1(judged.matches, judged.y) == 1).sum()
    return (f'<p class="lead">{lead}.</p><div class="tiles">{"".join(tiles)}</div>'
            f'<p>At the chosen cut <b id="exact">{_share(exact, len(judged.y))}</b> of the listings get exactly their set. '
            f'<b id="precision">{_share(right, named)}</b> of the {plural(named, "pair")} it names are right, and '
            f'<b id="recall">{_share(right, there)}</b> of the {plural(there, "true pair")} are found.</p>'
            '<p class="soft">Row F1: F1 between the predicted and the true set of a listing, itself in both; the mean over listings.</p>')


def _tile(name, value, note): return f'<div class="tile">{name}<b>{value}</b><span class="soft">{note}</span></div>'
def _share(a, b): return f'{a / b:.0%}' if b else 'none'


def worth(
    rows: dict,  # Row -> `HeldOut`
) -> str:
    "The held-out table, in the rows' order."
    found = {k: o.summary() for k, o in rows.items()}
    body = [[esc(k), *(number(o[c]) for c in ('row_f1', 'se', 'recall_at_1', 'map_at_r'))] for k, o in found.items()]
    told = ''.join(f'<b>{k}</b>: {v}. ' for k, v in ROWS.items() if any(o.startswith(k) for o in rows))
    return (table(body, ['', 'row F1', 's.e.', 'R@1', 'mAP@R'], main='fused') +
            f'<p class="soft">{told}Each row chooses its cut (a fused one its weights too) on half of the products and is scored on the '
            f'other half, over random halvings; {plural(found["fused"]["n"], "listing")}, standard errors clustered by product. R@1: the '
            'nearest other listing is the same product; mAP@R: how well the true ones are ranked; both over listings that have a mate.</p>')


def curves(
    losses,  # Training loss of each step, or None
    monitors: dict | None,  # Name -> its value after each epoch
) -> str:
    "How training went; '' where nothing is known of it."
    charts = []
    if losses is not None and len(losses):
        losses = np.array([float(o) for o in losses])
        lost = (~np.isfinite(losses)).sum()
        note = f' <b class="wrong">{MARKS["wrong"]} {plural(lost, "step")} without a finite loss.</b>' if lost else ''
        charts.append((chart({'training loss': (np.arange(1, len(losses) + 1), losses)}, 'step', 'loss', 'Training loss by step'),
                       'Training loss, smoothed over steps.' + note))
    if monitors:
        epochs = np.arange(1, 1 + len(next(iter(monitors.values()))))
        best = ' row_f1_max takes the best threshold on those very listings: for watching, not for reporting.'
        note, series = best if 'row_f1_max' in monitors else '', {k: (epochs, [float(o) for o in v]) for k, v in monitors.items()}
        charts.append((chart(series, 'epoch', 'score', 'Monitors by epoch', whole=True),
                       'After each epoch on the held-out listings.' + note))
    return _figures(charts)


def _figures(charts):
    figures = ''.join(f'<figure>{o}<figcaption>{text}</figcaption></figure>' for o, text in charts)
    return f'<div class="charts">{figures}</div>' if charts else ''


def scores(
    judged: Judged,
    rule: Rule,
) -> str:
    "How far the scores part true from false pairs, and what every other cut would give."
    p, sweep = judged.pairs, Sweep(judged.neighbors, judged.y, rule.max_matches)
    if not p.candidate.any(): return '<p>No listing has a candidate: nothing is near anything.</p>'
    near = p.fused[p.candidate]
    lo, hi = min(near.min(), rule.threshold), max(near.max(), rule.threshold)
    edges = np.linspace(*((lo, hi) if hi > lo else (lo - .5, lo + .5)), BINS + 1)
    true, false = (np.histogram(p.fused[p.candidate & o], edges)[0] for o in (p.true, ~p.true))
    cuts = np.unique([*np.linspace(edges[0], edges[-1], CUTS), rule.threshold])
    out, span = (p.true & ~p.candidate).sum(), (edges[0], edges[-1])
    bars = chart({'same product': steps(edges, true), 'different products': steps(edges, false)}, 'fused score', 'pairs (log scale)',
                 'Scores of true and of false pairs', x_range=span, log=True, cut=rule.threshold, fill=True)
    line = chart({'mean row F1': (cuts, [sweep.at(o).mean() for o in cuts])}, 'fused score from which pairs match', 'mean row F1',
                 'Mean row F1 by threshold', x_range=span, cut=rule.threshold, level=('alone', sweep.f1[:, 0].mean()))
    return _figures([
        (bars, f'<b id="true-pairs">{true.sum():,}</b> candidate pairs of the same product, <b id="false-pairs">{false.sum():,}</b> of '
               f'different ones. {plural(out, "true pair")} {"is" if out == 1 else "are"} no candidate of any modality.'),
        (line, f'<b id="at-cut">{sweep.at(rule.threshold).mean():.5f}</b> at the cut. Where it was chosen on these listings '
               'that flatters a little; the table above does not.')])
