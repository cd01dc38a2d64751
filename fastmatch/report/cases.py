"Where it fails: matched groups, and the worst mistakes side by side."
import numpy as np

from ..match.rule import Rule
from .page import MARKS, Cards, esc, plural
from .pairs import Judged, found_groups, varied, worst_false, worst_missed

MEMBERS = 8  # most listings of a kind that a group shows
KINDS = {'right': ('right', 'exactly right'), 'incomplete': ('missed', 'incomplete'), 'mixed': ('wrong', 'mixed')}  # kind -> (mark, words)


def groups(
    judged: Judged,
    cards: Cards,
) -> str:
    "How many groups the matches make, and a varied choice of them."
    found = found_groups(judged)
    if not found: return '<p>No two listings match at this cut.</p>'
    counts = {k: f'<b class="{m}">{MARKS[m]} {sum(o.kind == k for o in found)}</b> {word}' for k, (m, word) in KINDS.items()}
    return (f'<p>Listings that matches tie together, directly or through others: <b>{plural(len(found), "group")}</b>, of which '
            f'{counts["right"]}, {counts["incomplete"]} (one product, but not all of it) and {counts["mixed"]} (several products). '
            'Some of each, the largest first:</p>'
            f'<div class="groups">{"".join(_group(o, judged.y, cards) for o in varied(found))}</div>')


def _group(found, y, cards):
    mark, word = KINDS[found.kind]
    parts = [f'{len(found)} together']
    if len(found.wrong): parts.append(f'{len(found.wrong)} of {plural(len(np.unique(y[found.wrong])), "other product")}')
    if len(found.missed): parts.append(f'{len(found.missed)} missed')
    shown = [(i, m) for rows, m in ((found.right, 'right'), (found.wrong, 'wrong'), (found.missed, 'missed')) for i in rows[:MEMBERS]]
    rest = len(found) + len(found.missed) - len(shown)
    product = f'product <bdi>{esc(cards.emb.groups[found.right[0]])}</bdi>: {", ".join(parts)}{f" ({rest} not shown)" if rest else ""}'
    # a product that the header names already is named again only where it is another
    members = ''.join(cards(i, m, group=m == 'wrong') for i, m in shown)
    return (f'<article class="group"><header><b class="{mark}">{MARKS[mark]} {word}</b> {product}</header>'
            f'<div class="members">{members}</div></article>')


def mistakes(
    judged: Judged,
    rule: Rule,
    cards: Cards,
    n: int,  # Of each kind
) -> str:
    "The worst false and the worst missed matches, with the score of each modality."
    p = judged.pairs
    false, missed = p.matched & ~p.true, p.true & ~p.matched
    if not false.any() and not missed.any(): return '<p>None: every pair it names is right, and it names them all.</p>'
    return (_mistakes('wrong', plural(false.sum(), 'false match', 'false matches'), worst_false(judged, n), judged, rule, cards,
                      'Named, but different products. The highest scores first, one pair of any two products.') +
            _mistakes('missed', plural(missed.sum(), 'missed match', 'missed matches'), worst_missed(judged, n), judged, rule, cards,
                      f'The same product, but not named: {(missed & p.candidate).sum():,} were candidates, '
                      f'{(missed & ~p.candidate).sum():,} were among the {rule.k} nearest in no modality. '
                      'The lowest scores first, one pair of each product.'))


def _mistakes(mark, head, worst, judged, rule, cards, text):
    if not len(worst): return f'<h3>{head}</h3>'
    return (f'<h3><span class="{mark}">{MARKS[mark]}</span> {head}</h3><p class="soft">{text}</p>'
            f'<div class="pairs">{"".join(_pair(judged.pairs, at, rule, cards, mark) for at in worst)}</div>')


def _pair(p, at, rule, cards, mark):
    fused, note = float(p.fused[at]), ''
    if not p.matched[at]:
        if not p.candidate[at]: note = f'No modality had it as candidate: not among the {rule.k} nearest.'
        elif fused >= rule.threshold: note = f'Above the cut, but beyond the {rule.max_matches} matches a listing may have.'
    # a union's score counts from each modality's own threshold: there is no length from 0 to 1 to draw
    bar = '' if rule.how == 'union' else _bar(fused, rule.threshold)
    rows = [f'<tr><td>{esc(k)}</td><td>{v[at]:.3f}</td><td>{_bar(v[at])}</td></tr>' for k, v in p.scores.items()]
    rows += [f'<tr class="fused"><td>fused</td><td>{fused:.3f}</td><td>{bar}</td></tr>',
             f'<tr><td>cut</td><td>{rule.threshold:.3f}</td><td></td></tr>']
    return (f'<article class="pair is-{mark}"><div class="sides">{cards(p.i[at])}{cards(p.j[at])}</div>'
            f'<table><tbody>{"".join(rows)}</tbody></table>{f"<p class=soft>{note}</p>" if note else ""}</article>')


def _bar(value, cut=None):
    def share(x): return f'{100 * min(max(float(x), 0), 1):.0f}%'
    tick = '' if cut is None else f'<b style="left:{share(cut)}"></b>'
    return f'<span class="bar"><i style="width:{share(value)}"></i>{tick}</span>'
