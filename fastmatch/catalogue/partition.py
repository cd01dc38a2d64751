"""Which listings are one group, and which number a group keeps: from pairs alone, in any order.

Pairs that match are joined from the best score to the worst, pairs that people called the same before all
others; a pair that would bring together two listings which people called different is passed over. Nothing
else decides, so that the groups follow from the set of pairs and verdicts, and from no order in time.
"""
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components


@dataclass
class Pairs:
    "Pairs of listings with their scores, each pair once."
    first: np.ndarray  # int64 (m,)
    second: np.ndarray  # int64 (m,)
    scores: np.ndarray  # float64 (m,); infinite where people called both the same

    @classmethod
    def of(
        cls,
        rows,  # m tuples (first, second, score)
    ) -> 'Pairs':
        "Pairs from rows of a table."
        rows = list(rows)
        if not rows: return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
        first, second, scores = zip(*rows)
        return cls(np.array(first, np.int64), np.array(second, np.int64), np.array(scores, np.float64))

    def __len__(self): return len(self.first)


def joined(
    listings: np.ndarray,  # int64 (n,), numbers of listings, rising
    pairs: Pairs,  # That match, both listings among `listings`
    apart: Pairs,  # That people called different; scores aren't read
    names: dict,  # Number of a listing -> its id, which decides between equal scores
    tree: bool = False,  # Also say which pairs joined two blocks; takes longer
) -> tuple[np.ndarray, np.ndarray]:  # int64 (n,); bool (m,)
    "The block of each listing, from 0; and, for `tree`, the pairs that joined two blocks, a tree in each."
    first, second = (np.searchsorted(listings, side) for side in (pairs.first, pairs.second))
    blocks = _components(len(listings), first, second)
    apart_first, apart_second = (np.searchsorted(listings, side) for side in (apart.first, apart.second))
    is_torn = blocks[apart_first] == blocks[apart_second]
    is_used = np.zeros(len(pairs), bool)
    if not is_torn.any() and not tree: return blocks.astype(np.int64), is_used
    # elsewhere every pair joins, in whatever order
    is_within_torn = np.isin(blocks[first], np.unique(blocks[apart_first[is_torn]]))
    forbidden = defaultdict(set)
    for one, other in zip(apart_first[is_torn].tolist(), apart_second[is_torn].tolist()):
        forbidden[one].add(other)
        forbidden[other].add(one)
    roots = np.arange(len(listings)).tolist()
    places = np.flatnonzero(is_within_torn | tree)
    for place in places[_best_first(pairs, places, names)].tolist():
        one, other = _root(roots, first[place]), _root(roots, second[place])
        if one == other: continue
        if is_within_torn[place] and other in {_root(roots, each) for each in forbidden[one]}: continue
        roots[other] = one
        if other in forbidden: forbidden[one] |= forbidden.pop(other)
        is_used[place] = True
    if len(places) < len(pairs):
        of_torn = np.array([_root(roots, each) for each in range(len(listings))], np.int64)
        blocks = np.where(np.isin(blocks, np.unique(blocks[apart_first[is_torn]])), of_torn + len(listings),
                          blocks)
    else: blocks = [_root(roots, each) for each in range(len(listings))]
    return np.unique(blocks, return_inverse=True)[1].astype(np.int64), is_used


def _components(n_listings, first, second):
    graph = csr_matrix((np.ones(len(first), np.int8), (first, second)), (n_listings, n_listings))
    return connected_components(graph, directed=False)[1]


def _best_first(pairs, places, names):
    "The order of the pairs at `places`: by falling score, equal ones by the ids of both listings."
    scores = pairs.scores[places]
    order = np.argsort(-scores, kind='stable')
    in_order = scores[order]
    starts = np.flatnonzero(np.append(True, in_order[1:] != in_order[:-1])) if len(order) else []
    for start, end in zip(starts, [*starts[1:], len(order)]):
        if end - start < 2: continue
        order[start:end] = sorted(order[start:end].tolist(), key=lambda number: sorted(
            (names[int(pairs.first[places[number]])], names[int(pairs.second[places[number]])])))
    return order


def _root(roots, listing):
    while roots[listing] != listing:
        roots[listing] = roots[roots[listing]]  # shortens the way for the next time
        listing = roots[listing]
    return listing


@dataclass
class Numbering:
    "What became of the numbers of groups."
    groups: np.ndarray  # int64 (n,), the group of each listing; -1, -2, ... for new ones
    merged: dict  # Number of a group -> the one that its listings are in now
    gone: list  # Numbers of groups without any listing


def number_blocks(
    blocks: np.ndarray,  # int64 (n,), the block of each listing, from 0
    before: np.ndarray,  # int64 (n,), its group so far; 0 where it had none
    emptied: set,  # Groups whose listings were all taken out
    wanted: np.ndarray | None = None,  # int64 (n,), its group before what is being undone; default `before`
) -> Numbering:
    """The number of each block. The oldest group (the smallest number) chooses first, and takes the block
    with most of its listings; a group that finds all its blocks taken is merged into the one with most of
    them, and a block that nobody takes is a new group. Where something is undone, groups choose first by the
    listings that they had before it."""
    first_of = {}
    for place, block in enumerate(blocks.tolist()): first_of.setdefault(block, place)
    held = _shares(before, blocks, first_of)
    taken = {}
    for shares in ([held] if wanted is None else [_shares(wanted, blocks, first_of), held]):
        numbered = set(taken.values())
        for group in sorted(set(shares) - numbered):
            free = next((block for block in shares[group] if block not in taken), None)
            if free is not None: taken[free] = group
    kept = set(taken.values())
    merged = {group: taken[by_share[0]] for group, by_share in held.items() if group not in kept}
    number_of_new = -1
    for block in first_of:
        if block in taken: continue
        taken[block] = number_of_new
        number_of_new -= 1
    by_block = np.array([taken[block] for block in range(len(first_of))], np.int64)
    return Numbering(by_block[blocks] if len(blocks) else blocks, merged, sorted(emptied - set(held) - kept))


def _shares(groups, blocks, first_of):
    """Group -> its blocks, those with most of its listings first; of equal ones, that with the listing that
    came first."""
    counts = defaultdict(lambda: defaultdict(int))
    has_group = np.flatnonzero(groups > 0)
    for group, block in zip(groups[has_group].tolist(), blocks[has_group].tolist()): counts[group][block] += 1
    return {group: sorted(of_group, key=lambda block: (-of_group[block], first_of[block]))
            for group, of_group in counts.items()}
