"Why listings are in one group or not: pairs that match, what people said, and the way from one to the other."
import json
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..core import InputError
from ..match.candidates import candidates, with_pairs
from ..match.fuse import fuse
from .index import decides_pairwise
from .partition import joined
from .region import region_of


@dataclass
class Why:
    """The answer in words, and its parts: `frame` has a row for each pair, `first`, `second`, `score`
    (missing for a verdict), `scores` by modality, `why`."""
    sentence: str
    frame: object  # DataFrame

    def __repr__(self):
        return '\n'.join([self.sentence] + [self.frame.to_string(index=False)] * bool(len(self.frame)))

    def _repr_html_(self): return f'<p>{self.sentence}</p>{self.frame._repr_html_()}'


def explain_alone(
    catalogue,  # `Catalogue`
    listing: str,  # Its id
) -> Why:
    "What holds a listing in its group: the pairs that it is in, and the event that brought it there."
    record = catalogue.record
    number = record.numbers_of([listing])[listing]
    group = record.groups_of([number])[number]
    kind, time, event = record.execute(
        'select kind, time, number from event where number = (select max(event) from change where '
        'listing = ? and after = ?)', (number, group)).fetchone()
    others = {other: other_group for other, other_group in record.members([group])}
    pairs = [pair for pair in record.pairs_at([number], record.setting('threshold'))
             if pair[0] in others and pair[1] in others]
    rows = _rows(record, pairs)
    by_id = record.numbers_of({name for pair in record.verdicts([listing]) for name in pair[:2]}, '')
    for first, second, same in record.verdicts([listing]):
        if not same or (by_id.get(first) in others and by_id.get(second) in others):
            rows.append((first, second, None, {}, _said(record, first, second, same)))
    where = 'alone in its group' if len(others) == 1 else f'with {len(others) - 1} others'
    return Why(f'{listing}: in group {group} since event {event} ({kind}, {time}), {where}', _frame(rows))


def explain_pair(
    catalogue,  # `Catalogue`
    first: str,  # Id of a listing
    second: str,  # Id of another one
) -> Why:
    "The way of matching pairs from one listing to the other, or what keeps them apart."
    if first == second: raise InputError(f'{first}: give two listings, or one alone')
    record = catalogue.record
    numbers = record.numbers_of([first, second])
    groups = record.groups_of(numbers.values())
    region = region_of(record, numbers.values(), record.setting('threshold'))
    names = record.names_of(region.listings)
    _, is_used = joined(region.listings, region.pairs, region.apart, names, tree=True)
    one, other = numbers[first], numbers[second]
    spoken = [verdict for verdict in record.verdicts([first]) if second in verdict[:2]]
    said = _said(record, *spoken[0]) if spoken else ''
    if groups[one] == groups[other]:
        way = _way(region.pairs, is_used, one, other)
        how = 'directly' if len(way) == 1 else f'by way of {len(way) - 1} others'
        return Why(f'{first} and {second}: both in group {groups[one]}, {how}',
                   _frame(_rows(record, way)))
    apart = f'{first} and {second}: in groups {groups[one]} and {groups[other]}'
    direct = record.execute('select score, scores, reason from edge where first = ? and second = ?',
                            (min(one, other), max(one, other))).fetchone()
    rows = [] if direct is None else [(first, second, direct[0], json.loads(direct[1]), direct[2])]
    if said: return Why(f'{apart}: {said}', _frame(rows))
    way = _way(region.pairs, [True] * len(region.pairs), one, other)
    if way:
        refused = [pair for pair in way if record.groups_of(pair[:2])[pair[0]]
                   != record.groups_of(pair[:2])[pair[1]]]
        return Why(f'{apart}: pairs lead from one to the other, and people called listings of both groups '
                   'different; the better pairs were joined first', _frame(_rows(record, refused)))
    threshold = record.setting('threshold')
    if direct is None and catalogue.matcher is not None:
        score, scores = compared(catalogue, one, other)
        rows = [(first, second, score, scores, 'no match')]
        if score is not None: direct = (score,)
    score = f'they score {direct[0]:.4f}, the threshold is {threshold:.4f}' if direct else \
        f'no pair of the rule leads from one to the other (threshold {threshold:.4f})'
    return Why(f'{apart}: {score}', _frame(rows))


def compared(
    catalogue,  # `Catalogue` with a matcher
    one: int,  # Number of a listing
    other: int,  # Number of another one
) -> tuple:  # Score; dict of similarities by modality
    """How similar two listings are, also where they are no candidates of each other. The score is None where
    the rule looks at all listings together, and where a step of it takes the pair out."""
    from ..matcher.known import make_spaces
    matcher = catalogue.matcher
    rule = replace(matcher.rule.at(max(1, catalogue.record.count())), pools=None)
    embeddings = catalogue._embeddings(np.array([one, other]))
    spaces = make_spaces(embeddings, rule.reads, like={name: matcher.spaces[name] for name in rule.reads})
    scores = {name: float(spaces[name].scores(np.array([0]), np.array([1]))[0])
              for name in (*rule.weights, *rule.compared)}
    scores = {name: round(score, 6) for name, score in scores.items() if np.isfinite(score)}
    if not decides_pairwise(rule): return None, scores
    # a search need not find the one from the other: listings without a common n-gram are no candidates
    found = with_pairs(candidates({name: spaces[name] for name in rule.modalities}), spaces, [0], [1])
    neighbors = fuse(found, rule.how, rule.weights, rule.join, **rule.options)
    for _, after in rule.reranked(neighbors, spaces): neighbors = after
    places = np.flatnonzero(neighbors.ids[0] == 1)
    score = float(neighbors.scores[0, places[0]]) if len(places) else -np.inf
    return (score if np.isfinite(score) else None), scores


def _way(pairs, is_used, one, other):
    "The shortest way of pairs from one listing to the other, rows (first, second, score); empty for none."
    beside = {}
    for first, second, score, used in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.scores.tolist(),
                                          is_used):
        if not used: continue
        beside.setdefault(first, []).append((second, (first, second, score)))
        beside.setdefault(second, []).append((first, (first, second, score)))
    came_by, waiting = {one: None}, deque([one])
    while waiting:
        here = waiting.popleft()
        for there, pair in beside.get(here, ()):
            if there in came_by: continue
            came_by[there] = (here, pair)
            waiting.append(there)
    way, here = [], other
    while came_by.get(here):
        here, pair = came_by[here]
        way.append(pair)
    return way[::-1] if here == one else []


def _rows(record, pairs):
    "Pairs as rows of a frame, with what the record says of them."
    names = record.names_of([number for pair in pairs for number in pair[:2]])
    rows = []
    for first, second, score in pairs:
        found = record.execute('select scores, reason from edge where first = ? and second = ?',
                               (min(first, second), max(first, second))).fetchone()
        if score == float('inf'):
            rows.append((names[first], names[second], None, json.loads(found[0]) if found else {},
                         _said(record, *sorted((names[first], names[second])), True)))
        else: rows.append((names[first], names[second], score, json.loads(found[0]), found[1]))
    return rows


def _said(record, first, second, same):
    who, time, reason = record.execute(
        'select who, time, event.reason from verdict join event on event.number = verdict.event where '
        'first = ? and second = ? and withdrawn is null order by verdict.number desc',
        (first, second)).fetchone()
    words = f'{who or "somebody"} called them {"the same" if same else "different"} ({time})'
    return f'{words}: {reason}' if reason else words


def _frame(rows):
    return pd.DataFrame(rows, columns=['first', 'second', 'score', 'scores', 'why'])
