"The listings that a change may concern, and all that decides on their groups."
from dataclasses import dataclass

import numpy as np

from .partition import Pairs
from .record import Record


@dataclass
class Region:
    "The listings that a change may concern, with all pairs and verdicts among them."
    listings: np.ndarray  # int64 (n,), rising
    pairs: Pairs  # That match, those that people called the same among them
    apart: Pairs  # That people called different
    names: dict  # Number -> id
    groups: np.ndarray  # int64 (n,), the group of each so far; 0 for none


def region_of(
    record: Record,
    touched,  # Numbers of listings; those that are no longer there are left out
    threshold: float,  # Pairs with this score or more match
) -> Region:
    "All listings that pairs, verdicts or groups connect with the touched ones, directly or through others."
    has_verdicts = record.execute('select exists (select 1 from verdict)').fetchone()[0]
    frontier = np.unique(np.asarray(list(touched), np.int64))
    groups, names = {}, {}
    found_pairs, apart = set(), set()
    seen_groups = set()
    while len(frontier):
        of_frontier = record.groups_of(frontier)
        groups |= of_frontier
        frontier = list(of_frontier)
        pairs = record.pairs_at(frontier, threshold)
        if has_verdicts: names |= record.names_of(frontier)
        same, different = _verdicts_of(record, frontier, names) if has_verdicts else ([], [])
        found_pairs.update(pairs, same)
        apart.update(different)
        reached = {listing for first, second, _ in [*pairs, *same] for listing in (first, second)}
        new_groups = set(of_frontier.values()) - seen_groups - {0}
        seen_groups |= new_groups
        reached.update(number for number, _ in record.members(list(new_groups)))
        frontier = np.array(sorted(reached - set(groups)), np.int64)
    listings = np.array(sorted(groups), np.int64)
    if apart and not len(names) == len(listings): names = record.names_of(listings)
    # a listing that was never in a group together with another one of its region may lie outside it
    apart = [pair for pair in apart if pair[0] in groups and pair[1] in groups]
    best = {}
    for first, second, score in found_pairs:
        pair = (min(first, second), max(first, second))
        best[pair] = max(score, best.get(pair, -np.inf))
    return Region(listings, Pairs.of((*pair, score) for pair, score in best.items()), Pairs.of(apart), names,
                  np.array([groups[number] for number in listings.tolist()], np.int64))


def _verdicts_of(record, numbers, names):
    "The verdicts on listings: those called the same, those called different, as rows (first, second, score)."
    own_ids = [names[number] for number in numbers]
    verdicts = record.verdicts(own_ids)
    if not verdicts: return [], []
    by_id = record.numbers_of({listing for first, second, _ in verdicts for listing in (first, second)}, '')
    rows = [(by_id[first], by_id[second], same) for first, second, same in verdicts
            if first in by_id and second in by_id]
    return ([(first, second, np.inf) for first, second, same in rows if same],
            [(first, second, 0.) for first, second, same in rows if not same])


def grown_region(
    record: Record,
    touched,  # Numbers of listings; those that are no longer there are left out
    threshold: float,  # Pairs with this score or more match
) -> Region | None:  # None: the groups may change otherwise than by growing
    """The region of listings that just came, where nothing else changed: one listing stands for each group
    that they match, whose other listings and pairs need not be read.

    Groups that were there can only be joined then, as no pair among their listings is new or gone. But where
    people called listings different, a better pair may come before one that had joined them: None.
    """
    new = record.groups_of(touched)
    if any(new.values()): return None
    names = record.names_of(new)
    if record.verdicts(names.values()): return None
    pairs = record.pairs_at(list(new), threshold)
    matched = record.groups_of({number for pair in pairs for number in pair[:2]} - set(new))
    if record.groups_with_apart() & set(matched.values()): return None
    stands_for = {group: number for number, group in sorted(matched.items(), reverse=True)}
    at = {number: stands_for[group] for number, group in matched.items()} | {number: number for number in new}
    groups = {number: group for group, number in stands_for.items()} | new
    listings = np.array(sorted(groups), np.int64)
    return Region(listings, Pairs.of({(at[first], at[second], score) for first, second, score in pairs}),
                  Pairs.of([]), names, np.array([groups[number] for number in listings.tolist()], np.int64))
