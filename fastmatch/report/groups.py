"The section with matched groups: listings that matches tie together, beside their true group."
from dataclasses import dataclass

import numpy as np

from ..match.steps.group import group
from .cards import Card, Cards
from .pairs import Judged
from .render import plural, render

MEMBERS = 8  # most listings of a kind that a group shows
# kind -> (mark, words)
KINDS = {
    'right': ('right', 'exactly right'),
    'incomplete': ('missed', 'incomplete'),
    'mixed': ('wrong', 'mixed')}


@dataclass
class Found:
    "Listings that matches tie together, beside the true group that most of them belong to."
    right: np.ndarray  # int rows of that group
    wrong: np.ndarray  # int rows of other groups
    missed: np.ndarray  # int rows of that group which the matches leave outside

    @property
    def kind(self) -> str:
        "One of `KINDS`."
        if len(self.wrong): return 'mixed'
        return 'incomplete' if len(self.missed) else 'right'

    def __len__(self): return len(self.right) + len(self.wrong)


@dataclass
class ShownGroup:
    "A group as `groups.html` shows it."
    mark: str  # One of `MARKS`
    word: str
    name: str  # The true group
    descriptions: list[str]  # How many listings are together, wrong, missed
    hidden: int  # Listings that are not shown
    members: list[tuple[Card, str]]  # (listing, mark)


def found_groups(
    judged: Judged,
) -> list[Found]:
    "The groups of two or more listings that the matches make, in the order of their first listing."
    matched_groups = group(judged.linked)
    by_group = np.argsort(matched_groups, kind='stable')
    members = np.split(by_group, np.bincount(matched_groups).cumsum()[:-1])
    return [_beside_truth(group_rows, judged.groups) for group_rows in members if len(group_rows) > 1]


def _beside_truth(group_rows, groups):
    # of two equally frequent groups the one of the smaller number: that of the earlier listing
    most_frequent = np.bincount(groups[group_rows]).argmax()
    is_right = groups[group_rows] == most_frequent
    missed = np.setdiff1d(np.flatnonzero(groups == most_frequent), group_rows)
    return Found(group_rows[is_right], group_rows[~is_right], missed)


def varied(
    found: list[Found],
    n: int = 3,  # Groups of each kind
) -> list[Found]:
    "Some groups of each kind, from the largest to the smallest."
    chosen = []
    for kind in KINDS:
        of_kind = [found_group for found_group in found if found_group.kind == kind]
        of_kind.sort(key=len, reverse=True)
        if not of_kind: continue
        positions = np.unique(np.linspace(0, len(of_kind) - 1, n).round().astype(int))
        chosen += [of_kind[position] for position in positions]
    return chosen


def groups(
    judged: Judged,
    cards: Cards,
) -> str:  # html
    "How many groups the matches make, and a varied choice of them."
    found = found_groups(judged)
    counts = {kind: sum(found_group.kind == kind for found_group in found) for kind in KINDS}
    shown_groups = [_shown(found_group, judged.groups, cards) for found_group in varied(found)]
    return render('groups.html', total=len(found), counts=counts, kinds=KINDS, groups=shown_groups)


def _shown(found_group, groups, cards):
    mark, kind_words = KINDS[found_group.kind]
    descriptions = [f'{len(found_group)} together']
    if len(found_group.wrong):
        other_groups = len(np.unique(groups[found_group.wrong]))
        descriptions.append(f'{len(found_group.wrong)} of {plural(other_groups, "other product")}')
    if len(found_group.missed): descriptions.append(f'{len(found_group.missed)} missed')
    kinds = (('right', found_group.right), ('wrong', found_group.wrong), ('missed', found_group.missed))
    members = [(cards.card(row_number), kind) for kind, kind_rows in kinds
               for row_number in kind_rows[:MEMBERS]]
    hidden = len(found_group) + len(found_group.missed) - len(members)
    group_name = cards.embeddings.groups[found_group.right[0]]
    return ShownGroup(mark, kind_words, group_name, descriptions, hidden, members)
