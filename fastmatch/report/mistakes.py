"The section with the worst mistakes: false and missed matches side by side, with the score of each modality."
from dataclasses import dataclass

import numpy as np

from .cards import Card, Cards
from .pairs import Judged
from .render import render


@dataclass
class Mistake:
    "A pair as `mistakes.html` shows it."
    cards: tuple[Card, Card]
    scores: dict  # Modality -> score
    fused: float
    words: str  # What the columns that are compared say; '' without such
    note: str  # Why a true pair was missed; '' for a false pair, or where its score explains it


def worst_false(
    judged: Judged,
    n: int = 8,  # How many at most
) -> np.ndarray:  # int, positions in `judged.pairs`, the worst first
    "The false matches with the highest fused score, one of any two groups."
    pairs = judged.pairs
    positions = np.flatnonzero(pairs.matched & ~pairs.true)
    positions = positions[np.argsort(-pairs.fused[positions], kind='stable')]
    groups_of_both = judged.groups[pairs.first[positions]], judged.groups[pairs.second[positions]]
    group_pairs = np.sort(np.stack(groups_of_both), axis=0)
    return _first_of_each(positions, group_pairs)[:n]


def worst_missed(
    judged: Judged,
    n: int = 8,  # How many at most
) -> np.ndarray:  # int, positions in `judged.pairs`, the worst first
    "The missed matches with the lowest fused score, one of any group."
    pairs = judged.pairs
    positions = np.flatnonzero(pairs.true & ~pairs.matched)
    positions = positions[np.argsort(pairs.fused[positions], kind='stable')]
    return _first_of_each(positions, judged.groups[pairs.first[positions]])[:n]


def _first_of_each(positions, kinds):
    "The first position of each kind, in the order given; `kinds` is (m,), or (2,m) for pairs."
    _, first_positions = np.unique(kinds, axis=-1, return_index=True)
    return positions[np.sort(first_positions)]


def mistakes(
    judged: Judged,
    cards: Cards,
    n: int,  # Of each kind, at most
) -> str:  # html
    "The worst false and the worst missed matches."
    pairs, rule = judged.pairs, judged.rule
    is_missed = pairs.true & ~pairs.matched
    return render(
        'mistakes.html',
        false_count=int((pairs.matched & ~pairs.true).sum()),
        missed_count=int(is_missed.sum()),
        missed_candidates=int((is_missed & pairs.candidate).sum()),
        false_matches=[_mistake(pairs, position, rule, cards) for position in worst_false(judged, n)],
        missed_matches=[_mistake(pairs, position, rule, cards) for position in worst_missed(judged, n)],
        rule=rule)


def _mistake(pairs, position, rule, cards):
    return Mistake(
        cards=(cards.card(pairs.first[position]), cards.card(pairs.second[position])),
        scores={modality: float(scores[position]) for modality, scores in pairs.scores.items()},
        fused=float(pairs.fused[position]),
        words=_in_words(pairs, position, cards),
        note=_why_missed(pairs, position, rule))


def _in_words(pairs, position, cards):
    "What the columns that the rule compares say of a pair."
    words = [column.field.in_words(name, float(pairs.scores[name][position]))
             for name, column in cards.embeddings.fields.items() if name in pairs.scores]
    return '; '.join(filter(None, words))


def _why_missed(pairs, position, rule):
    if pairs.matched[position]: return ''
    if not pairs.candidate[position]:
        return f'No modality had it as candidate: not among the {rule.k} nearest.'
    if not pairs.scored[position]: return 'A candidate, but a step of the rule took it out.'
    if pairs.fused[position] < rule.threshold: return ''
    if any(step.stage == 'matches' for step in rule.steps):
        return 'Above the threshold, but a later step of the rule took it out.'
    return f'Above the threshold, but beyond the {rule.max_matches} matches a listing may have.'
