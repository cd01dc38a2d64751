"""Groups from matches or from scores, and matches from groups: steps that make all listings of a group match
each other.

Everything is sparse: no array of n x n, whatever the number of listings.
"""
import heapq

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from ...core import InputError
from ..arrays import rank_within_row
from ..matches import MAX_MATCHES, Matches, row_pointers
from ..neighbors import Neighbors, check_self_first
from .scores import score_of_pairs


def group(
    matches,  # `Matches` of a self-join
) -> np.ndarray:  # int64 (n,), numbered by first appearance
    "Connected components: listings that are linked by matches, directly or through others, are one group."
    n = len(matches)
    graph = csr_matrix((np.ones(len(matches.ids), np.int8), matches.ids, matches.indptr), shape=(n, n))
    return _number_by_appearance(connected_components(graph, directed=False)[1])


def agglomerate(
    neighbors: Neighbors,  # Of a self-join
    # Mean number of listings a group at which merging ends (2.6: Kaggle Shopee, 3rd place)
    mean_size: float = 2.6,
    least: float = 0.,  # Groups with a mean similarity below this are never merged
) -> np.ndarray:  # int64 (n,), numbered by first appearance
    """Agglomerative clustering with average linkage: the two most similar groups are merged until groups are
    large enough.

    A pair that is not listed counts as similarity 0. Of equally similar pairs of groups, the one with the
    smaller numbers is merged first.
    """
    if not mean_size >= 1: raise InputError(f'mean_size={mean_size}: 1 or more')
    if not np.isfinite(least): raise InputError(f'least={least}: give a finite number')
    first, second, score = undirected_pairs(neighbors)
    pairs = list(zip(first.tolist(), second.tolist(), score.tolist()))
    n_listings = len(neighbors.ids)
    # for each group the sum of the scores between it and each other group; a merged group gets a new number,
    # the two old ones None
    score_sums = [{} for _ in range(n_listings)]
    for a, b, similarity in pairs: score_sums[a][b] = score_sums[b][a] = similarity
    size, parent, groups_left = [1] * n_listings, list(range(n_listings)), n_listings
    queue = [(-similarity, a, b) for a, b, similarity in pairs if similarity >= least and similarity > 0]
    heapq.heapify(queue)
    while queue and n_listings / groups_left < mean_size:
        _, a, b = heapq.heappop(queue)
        # merged since: it is in the queue under its new number
        if score_sums[a] is None or score_sums[b] is None: continue
        merged, groups_left = len(score_sums), groups_left - 1
        sums = _merge_sums(score_sums, a, b)
        score_sums.append(sums)
        size.append(size[a] + size[b])
        parent[a] = parent[b] = merged
        parent.append(merged)
        for other, total in sums.items():
            for old in (a, b): score_sums[other].pop(old, None)
            score_sums[other][merged] = total
            mean = total / (size[other] * size[merged])
            if mean >= least and mean > 0: heapq.heappush(queue, (-mean, other, merged))
    return _number_by_appearance(_roots(parent)[:n_listings])


def _merge_sums(score_sums, a, b):
    "The sums of scores between both of two groups and every third one; the two are marked as gone."
    sums = {}
    for part in (score_sums[a], score_sums[b]):
        for other, total in part.items():
            if other not in (a, b): sums[other] = sums.get(other, 0.) + total
    score_sums[a] = score_sums[b] = None
    return sums


def tiers(
    neighbors: Neighbors,  # Of a self-join
    merge: float = .8,  # Least score at which two groups are merged
    join: float = .7,  # Least score at which a single listing joins a group
    pair: float = .3,  # Least score at which two single listings become a group
) -> np.ndarray:  # int64 (n,), numbered by first appearance
    """Merge in tiers, the most similar pairs first: the larger what is merged, the higher its score must be
    (Kaggle Shopee, 5th place)."""
    if not merge >= join >= pair:
        raise InputError(f'merge={merge}, join={join}, pair={pair}: numbers that do not rise')
    first, second, score = undirected_pairs(neighbors)
    order = np.lexsort((second, first, -score))
    order = order[score[order] >= pair]
    parent = list(range(len(neighbors.ids)))
    size = [1] * len(parent)

    def root(listing):
        while parent[listing] != listing:
            parent[listing] = parent[parent[listing]]  # shortens the way for the next time
            listing = parent[listing]
        return listing

    for a, b, similarity in zip(first[order].tolist(), second[order].tolist(), score[order].tolist()):
        a, b = root(a), root(b)
        if a == b: continue
        singles = (size[a] == 1) + (size[b] == 1)
        if similarity >= merge or singles == 2 or (similarity >= join and singles):
            parent[b] = a
            size[a] += size[b]
    return _number_by_appearance(_roots(parent))


def same_group(
    groups,  # int (n,), the group of each listing
    neighbors: Neighbors,  # Of a self-join, for order and scores
    max_matches: int = MAX_MATCHES,  # Most matches of a row, the listing itself included
) -> Matches:
    """Each listing with all of its group, the best scores first; a score that is not listed is taken as that
    of the row's last neighbor."""
    groups = np.asarray(groups)
    n = len(neighbors.ids)
    if groups.shape != (n,): raise InputError(f'groups of shape {groups.shape}: give {n}, one a row')
    codes = np.unique(groups, return_inverse=True)[1]
    members = csr_matrix((np.ones(n), (np.arange(n), codes)))
    rows, ids = (members @ members.T).nonzero()
    scores, known = score_of_pairs(neighbors, rows, ids)
    scores = scores.astype(np.float32)
    # the listing itself, then what is listed by score, then the rest; equal ones by rising id
    order = np.lexsort((ids, -scores, ~known, ids != rows, rows))
    rows, ids, scores = rows[order], ids[order].astype(np.int64), scores[order]
    counts = np.bincount(rows, minlength=n)
    keep = rank_within_row(counts) < max_matches
    return Matches(row_pointers(np.minimum(counts, max_matches)), ids[keep], scores[keep])


def undirected_pairs(
    neighbors: Neighbors,  # Of a self-join
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # int (m,), int (m,), float64 (m,)
    """Each pair of two listings once, as (smaller id, larger id, score), sorted by ids; of a pair's two
    scores the better."""
    check_self_first(neighbors)
    rows, ids, scores = neighbors.pairs()
    other = rows != ids
    first = np.minimum(rows, ids)[other]
    second = np.maximum(rows, ids)[other]
    score = scores[other].astype(np.float64)
    order = np.lexsort((-score, second, first))
    first, second, score = first[order], second[order], score[order]
    fresh = np.ones(len(first), bool)
    fresh[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return first[fresh], second[fresh], score[fresh]


def _roots(parent):
    "The last ancestor of each: int (n,)."
    parent = np.asarray(parent)
    while ((grandparent := parent[parent]) != parent).any(): parent = grandparent
    return parent


def _number_by_appearance(codes):
    "Any codes (n,) as int64 from 0 in the order in which they first appear."
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)
