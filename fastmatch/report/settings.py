"How it was made: the rule in words and as json, and whatever else is known of the run."
import json
from collections.abc import Mapping

from ..match.rule import Rule
from .page import and_, esc, table

ROWS = 50  # most rows of a list, e.g. of skipped listings


def words(
    rule: Rule,
) -> str:
    "The rule in words."
    if rule.how == 'union':
        how = 'when one of these is reached: ' + ', '.join(f'{k} {w + rule.threshold:.3f}' for k, w in rule.weights.items())
    else:
        used = {k: w for k, w in rule.weights.items() if w > 0}
        if rule.how == 'mean': what = ' + '.join(f'{w / sum(used.values()):.3g} × {k}' for k, w in used.items())
        elif rule.how != 'prob_or': what = f'{rule.how!r} of ' + ', '.join(f'{k} ({w:.3g})' for k, w in used.items())
        else: what = '1 − ' + ' × '.join(f'(1 − {k}{f"^{w:.3g}" if w != 1 else ""})' for k, w in used.items())
        how = f'when the fused score, {what}, is {rule.threshold:.3f} or more'
    return (f'Two listings match {how}. Candidates are the {rule.k} nearest of each modality ({and_(rule.weights)}), '
            f'the listing itself included; a listing has at most {rule.max_matches} matches, itself included.'
            + (f' Steps, in order: {", ".join(o.do for o in rule.steps)}.' if rule.steps else ''))


def settings_html(
    rule: Rule,
    settings: dict | None,  # Name -> value, dict, or list of dicts
) -> str:
    "The rule, then a table of each setting; those of plain values together."
    plain, tables = {}, {}
    for k, v in (settings or {}).items():
        if isinstance(v, Mapping):
            tables[k] = {a: b for a, b in v.items() if not isinstance(b, list)}
            # rows inside an entry, as summary.json's skipped listings, are a table of their own
            tables.update({a: b for a, b in v.items() if isinstance(b, list)})
        else: (tables if isinstance(v, list) else plain)[k] = v
    html = ''.join(f'<div><h3>{esc(k)}</h3>{_value(v)}</div>' for k, v in {**tables, **({'run': plain} if plain else {})}.items())
    return (f'<p>{esc(words(rule))}</p><details><summary>The rule as json</summary>'
            f'<pre>{esc(json.dumps(rule.to_dict(), indent=2))}</pre></details><div class="two">{html}</div>')


def _value(v):
    if isinstance(v, Mapping): return table([[esc(a), esc(b)] for a, b in v.items()])
    if not v: return '<p>none</p>'
    if not isinstance(v[0], Mapping): return f'<p>{esc(", ".join(map(str, v)))}</p>'
    more = f'<p class="soft">and {len(v) - ROWS:,} more</p>' if len(v) > ROWS else ''
    return table([[esc(o.get(k, '')) for k in v[0]] for o in v[:ROWS]], map(esc, v[0]), words=True) + more
