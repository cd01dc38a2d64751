"The report's sections in the order a reader asks: is it good, where is the cut, what is right, what goes wrong, how was it made?"
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..core import InputError, write_whole
from ..match.heldout import alone_heldout, paired
from ..match.rule import Rule, Sweep
from ..match.score import row_f1
from .chart import chart, steps
from .page import MARKS, Cards, esc, number, page, table
from .pairs import Judged, found_groups, judge_pairs, varied, worst_false, worst_missed

BINS = 48  # of the histogram
CUTS = 120  # thresholds at which the curve is computed
MEMBERS = 8  # most listings of a kind that a group shows
ROWS = {'alone': 'every listing matched with itself only', 'tfidf': "the titles' character n-grams, which need no training",
        'fused': 'all modalities together', 'untrained_': 'the same with encoders as they came'}


def report_html(
    emb,  # `Embeddings` of listings no encoder was trained on, with labels; titles where there are some
    rule: Rule,  # What decides, as `choose_rule` gives it
    table: dict,  # Row -> `HeldOut`, 'fused' among them, as `judge` gives it; with 'untrained_fused' the gain over it is told
    images=None,  # (n,) files or PIL images, or a function from a row number to one; None: no pictures
    spaces: dict | None = None,  # Modality -> space, where they are not `emb.spaces()`
    losses=None,  # Training loss of each step
    monitors: dict | None = None,  # Name -> its value after each epoch
    settings: dict | None = None,  # Name -> value, dict, or list of dicts: what the last section tells besides the rule
    n: int = 8,  # Mistakes of each kind to show
) -> str:
    "The report as one html page that needs nothing else."
    emb.refuse_trained_on('a report')
    if emb.labels is None: raise InputError('the listings have no groups: a report tells right from wrong')
    if 'fused' not in table: raise InputError(f"table holds {list(table)}: the report is about the row 'fused'")
    for k, o in table.items():
        if len(o.row_f1) != len(emb): raise InputError(f'table[{k!r}]: scores of {len(o.row_f1)} listings, but there are {len(emb)}')
    judged = judge_pairs(emb.spaces() if spaces is None else spaces, rule, emb.labels)
    table, cards = {'alone': alone_heldout(emb.labels), **table}, Cards(emb, images)
    title = f'{len(emb):,} listings matched by {_and(rule.weights)}'
    return page(title, _headline(table, judged), [
        ('What each part is worth', _table(table)), ('Training', _curves(losses, monitors)), ('Scores and the cut', _scores(judged, rule, emb.labels)),
        ('Matched groups', _groups(judged, cards)), ('Worst mistakes', _mistakes(judged, rule, cards, n)), ('Settings', _settings(rule, settings))])


def write_report(
    outcome,  # As `train_and_judge` returns it
    path='report.html',  # File to write: whole or not at all
    n: int = 8,  # Mistakes of each kind to show
) -> Path:
    "Write the report of a run of `train_and_judge`."
    path, dls, rec, s = Path(path), outcome.learn.dls, outcome.learn.recorder, outcome.summary()
    files, names = None, list(rec.metric_names)[1:]
    if dls.cols['fn_col'] is not None:
        file = dict(zip(dls.valid_df[dls.cols['id_col']], dls.valid_df[dls.cols['fn_col']]))
        files = [dls.cols['path']/str(file[o]) for o in outcome.emb.ids]
    # the Recorder's rows leave out the epoch and the time; its loss is the curve's
    monitors = {k: v for k, v in zip(names, zip(*rec.values)) if not k.endswith('loss')}
    write_whole(path, report_html(outcome.emb, outcome.rule, outcome.table, files, losses=rec.losses, monitors=monitors, n=n,
                                  settings={k: s[k] for k in ('listings', 'seconds', 'seed', 'versions')}))
    return path


def _and(names):
    names = list(names)
    return ' and '.join([', '.join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _plural(n, what): return f'{n:,} {what}' + ('' if n == 1 else 's')
def _tile(name, value, note): return f'<div class="tile">{name}<b>{value}</b><span class="soft">{note}</span></div>'
def _share(a, b): return f'{a / b:.0%}' if b else 'none'


def _headline(table, judged):
    fused, alone, p = table['fused'], table['alone'], judged.pairs
    tiles = [_tile('row F1, fused', f'<span id="f1">{fused.mean:.3f}</span>', f'standard error {fused.se:.3f}'),
             _tile('alone', f'{alone.mean:.3f}', 'every listing matched with itself only')]
    lead = f'On {_plural(len(judged.y), "listing")} of {_plural(judged.y.max() + 1, "product")} that training never saw, mean row F1 is {fused.mean:.3f}, '
    lead += f'{abs(fused.mean - alone.mean):.3f} {"above" if fused.mean >= alone.mean else "below"} matching nothing'
    if 'untrained_fused' in table:
        gain = paired(fused, table['untrained_fused'])
        tiles.append(_tile('gain by training', f'<span id="gain">{gain.diff:+.3f}</span>', f'95% interval {gain.low:+.3f} to {gain.high:+.3f}'))
        lead += '; training ' + ('helped' if gain.low > 0 else 'did harm' if gain.high < 0 else 'made no difference that these listings could show')
    named, right, there = p.matched.sum(), (p.matched & p.true).sum(), p.true.sum()
    exact = (row_f1(judged.matches, judged.y) == 1).sum()
    return (f'<p class="lead">{lead}.</p><div class="tiles">{"".join(tiles)}</div>'
            f'<p>At the chosen cut <b id="exact">{_share(exact, len(judged.y))}</b> of the listings get exactly their set. '
            f'<b id="precision">{_share(right, named)}</b> of the {_plural(named, "pair")} it names are right, and <b id="recall">{_share(right, there)}</b> of '
            f'the {_plural(there, "true pair")} are found.</p>'
            '<p class="soft">Row F1: for each listing, F1 between its predicted and its true set, itself in both; the mean over listings.</p>')


def _table(rows):
    found = {k: o.summary() for k, o in rows.items()}
    body = [[esc(k), *(number(o[c]) for c in ('row_f1', 'se', 'recall_at_1', 'map_at_r'))] for k, o in found.items()]
    told = ''.join(f'<b>{k}</b>: {v}. ' for k, v in ROWS.items() if any(o.startswith(k) for o in rows))
    return (table(body, ['', 'row F1', 's.e.', 'recall@1', 'mAP@R'], main='fused') +
            f'<p class="soft">{told}Each row chooses its cut (a fused one its weights too) on half of the products and is scored on the other half, over '
            f'random halvings; {_plural(found["fused"]["n"], "listing")}, standard errors clustered by product. recall@1: the nearest other listing is the '
            'same product; mAP@R: how well the true ones are ranked; both over listings that have a mate.</p>')


def _curves(losses, monitors):
    charts = []
    if losses is not None and len(losses):
        charts.append((chart({'training loss': (np.arange(1, len(losses) + 1), [float(o) for o in losses])}, 'step', 'loss', 'Training loss by step'),
                       'Training loss, smoothed over steps.'))
    if monitors:
        epochs = np.arange(1, 1 + len(next(iter(monitors.values()))))
        charts.append((chart({k: (epochs, [float(o) for o in v]) for k, v in monitors.items()}, 'epoch', 'score', 'Monitors by epoch', whole=True),
                       'After each epoch on the held-out listings. row_f1_max takes the best threshold on those very listings: for watching, not for reporting.'
                       if 'row_f1_max' in monitors else 'After each epoch on the held-out listings.'))
    return _figures(charts)


def _figures(charts): return f'<div class="charts">{"".join(f"<figure>{c}<figcaption>{t}</figcaption></figure>" for c, t in charts)}</div>' if charts else ''


def _scores(judged: Judged, rule, labels):
    p, sweep = judged.pairs, Sweep(judged.neighbors, labels, rule.max_matches)
    if not p.candidate.any(): return '<p>No listing has a candidate: nothing is near anything.</p>'
    near = p.fused[p.candidate]
    lo, hi = min(near.min(), rule.threshold), max(near.max(), rule.threshold)
    edges = np.linspace(lo, hi, BINS + 1) if hi > lo else np.linspace(lo - .5, lo + .5, BINS + 1)
    counts = {k: np.histogram(p.fused[p.candidate & o], edges)[0] for k, o in (('same product', p.true), ('different products', ~p.true))}
    cuts = np.unique([*np.linspace(edges[0], edges[-1], CUTS), rule.threshold])
    best, out = sweep.at(rule.threshold).mean(), (p.true & ~p.candidate).sum()
    alone = sweep.f1[:, 0].mean()
    whole = edges[0], edges[-1]
    return _figures([
        (chart({k: steps(edges, o) for k, o in counts.items()}, 'fused score', 'pairs (log scale)', 'Scores of true and of false pairs', x_range=whole,
               log=True, cut=rule.threshold, fill=True),
         f'{_plural(counts["same product"].sum(), "candidate pair")} of the same product and {counts["different products"].sum():,} of different ones. '
         f'{_plural(out, "true pair")} {"is" if out == 1 else "are"} no candidate of any modality.'),
        (chart({'mean row F1': (cuts, [sweep.at(o).mean() for o in cuts])}, 'fused score from which pairs match', 'mean row F1', 'Mean row F1 by threshold',
               x_range=whole, cut=rule.threshold, level=('alone', alone)),
         f'<b id="at-cut">{best:.5f}</b> at the cut. These are the listings it was chosen on, so that flatters a little; the table above does not.')])


def _groups(judged, cards):
    found = found_groups(judged)
    if not found: return '<p>No two listings match at this cut.</p>'
    kinds = {k: sum(o.kind == k for o in found) for k in ('right', 'incomplete', 'mixed')}
    say = {'right': ('right', MARKS['right'] + ' exactly right'), 'incomplete': ('missed', MARKS['missed'] + ' incomplete'), 'mixed': ('wrong', MARKS['wrong'] + ' mixed')}
    html = []
    for o in varied(found):
        mark, word = say[o.kind]
        parts = [f'{len(o)} together']
        if len(o.wrong): parts.append(f'{len(o.wrong)} of {_plural(len(np.unique(judged.y[o.wrong])), "other product")}')
        if len(o.missed): parts.append(f'{len(o.missed)} missed')
        shown = [(i, m) for rows, m in ((o.right, 'right'), (o.wrong, 'wrong'), (o.missed, 'missed')) for i in rows[:MEMBERS]]
        rest = len(o) + len(o.missed) - len(shown)
        html.append(f'<article class="group"><header><b class="{mark}">{word}</b> product <bdi>{esc(cards.emb.labels[o.right[0]])}</bdi>: {", ".join(parts)}'
                    f'{f" ({rest} not shown)" if rest else ""}</header><div class="members">{"".join(cards(i, m, m == "wrong") for i, m in shown)}</div></article>')
    return (f'<p>Listings that matches tie together, directly or through others: <b>{_plural(len(found), "group")}</b>, of which '
            f'<b class="right">{MARKS["right"]} {kinds["right"]}</b> exactly right, <b class="missed">{MARKS["missed"]} {kinds["incomplete"]}</b> incomplete (one product, '
            f'but not all of it) and <b class="wrong">{MARKS["wrong"]} {kinds["mixed"]}</b> mixed (several products). Some of each, the largest first:</p>'
            f'<div class="groups">{"".join(html)}</div>')


def _mistakes(judged, rule, cards, n):
    p = judged.pairs
    false, missed = p.matched & ~p.true, p.true & ~p.matched
    if not false.any() and not missed.any(): return '<p>None: every pair it names is right, and it names them all.</p>'
    below, out = (missed & p.candidate).sum(), (missed & ~p.candidate).sum()
    html = []
    for at, kind, head, text in (
            (worst_false(judged, n), 'wrong', f'{_plural(false.sum(), "false match")}'.replace('matchs', 'matches'),
             'Named, but different products. The highest scores first, one pair of any two products.'),
            (worst_missed(judged, n), 'missed', f'{_plural(missed.sum(), "missed match")}'.replace('matchs', 'matches'),
             f'The same product, but not named: {below:,} were candidates and scored too low, {out:,} were among the {rule.k} nearest in no modality. '
             'The lowest scores first, one pair of each product.')):
        if not len(at): continue
        html.append(f'<h3><span class="{kind}">{MARKS[kind]}</span> {head}</h3><p class="soft">{text}</p>'
                    f'<div class="pairs">{"".join(_pair(p, o, rule, cards, kind) for o in at)}</div>')
    return ''.join(html)


def _pair(p, at, rule, cards, kind):
    fused, note = float(p.fused[at]), ''
    if not p.matched[at]:
        if not p.candidate[at]: note = f'No modality had it as candidate: not among the {rule.k} nearest.'
        elif fused >= rule.threshold: note = f'Above the cut, but beyond the {rule.max_matches} matches a listing may have.'
    # a union's score counts from each modality's own threshold: there is no length from 0 to 1 to draw
    cut = None if rule.how == 'union' else rule.threshold
    rows = [(esc(k), float(v[at]), None, '') for k, v in p.scores.items()] + [('fused', fused, cut, ' class="fused"')]
    lines = ''.join(f'<tr{c}><td>{k}</td><td>{v:.3f}</td><td>{"" if k == "fused" and cut is None else _bar(v, t)}</td></tr>' for k, v, t, c in rows)
    return (f'<article class="pair" data-kind="{kind}"><div class="sides">{cards(p.i[at])}{cards(p.j[at])}</div>'
            f'<table><tbody>{lines}<tr class="cut"><td>cut</td><td>{rule.threshold:.3f}</td><td></td></tr></tbody></table>'
            f'{f"""<p class="soft">{note}</p>""" if note else ""}</article>')


def _bar(value, cut):
    def share(x): return f'{100 * min(max(x, 0), 1):.0f}%'
    return f'<span class="bar"><i style="width:{share(value)}"></i>{"" if cut is None else f"""<b style="left:{share(cut)}"></b>"""}</span>'


def words(
    rule: Rule,
) -> str:
    "The rule in words."
    if rule.how == 'union':
        how = 'when one of these is reached: ' + ', '.join(f'{k} {w + rule.threshold:.3f}' for k, w in rule.weights.items())
    else:
        used = {k: w for k, w in rule.weights.items() if w > 0}
        if rule.how == 'mean': what = ' + '.join(f'{w / sum(used.values()):.2g} × {k}' for k, w in used.items())
        else: what = '1 − ' + ' × '.join(f'(1 − {k}{f"^{w:g}" if w != 1 else ""})' for k, w in used.items())
        how = f'when the fused score {what} is {rule.threshold:.3f} or more'
    return (f'Two listings match {how}. Candidates are the {rule.k} nearest of each modality ({_and(rule.weights)}), the listing itself included; '
            f'a listing has at most {rule.max_matches} matches, itself included.')


def _settings(rule, settings):
    parts = [f'<p>{esc(words(rule))}</p><details><summary>The rule as json</summary><pre>{esc(json.dumps(rule.to_dict(), indent=2))}</pre></details>']
    plain, tables = {}, {}
    for k, v in (settings or {}).items():
        if not isinstance(v, (Mapping, list)): plain[k] = v
        elif isinstance(v, list): tables[k] = v
        else:
            tables[k] = {a: b for a, b in v.items() if not isinstance(b, list)}
            # rows inside an entry, as summary.json's skipped listings, are a table of their own
            tables.update({a: b for a, b in v.items() if isinstance(b, list)})
    if plain: tables = {'run': plain, **tables}
    html = ''.join(f'<div><h3>{esc(k)}</h3>{_value(v)}</div>' for k, v in tables.items())
    return ''.join(parts) + (f'<div class="two">{html}</div>' if html else '')


def _value(v, most=50):
    if isinstance(v, Mapping): return table([[esc(a), esc(b)] for a, b in v.items()])
    if not v: return '<p>none</p>'
    if not isinstance(v[0], Mapping): return f'<p>{esc(", ".join(map(str, v)))}</p>'
    more = f'<p class="soft">and {len(v) - most:,} more</p>' if len(v) > most else ''
    return table([[esc(o.get(k, '')) for k in v[0]] for o in v[:most]], map(esc, v[0]), words=True) + more
