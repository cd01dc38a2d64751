"Groups from matches and from scores, and matches from groups. Nothing of size n x n."
import heapq

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from ...core import InputError
from ..matches import MAX_MATCHES, Matches
from ..neighbors import Neighbors, check_self_first


def group(
    matches,  # `Matches` of a self-join
) -> np.ndarray:  # int64 (n,), numbered by first appearance
    "Listings that are linked by matches, directly or through others, as one group."
    n = len(matches)
    graph = csr_matrix((np.ones(len(matches.ids), np.int8), matches.ids, matches.indptr), shape=(n, n))
    return _numbered(connected_components(graph, directed=False)[1])


def agglomerate(
    neighbors: Neighbors,  # Self-join
    mean_size: float = 2.6,  # Listings a group at which merging ends (2.6: Kaggle Shopee, 3rd place)
    least: float = 0.,  # Groups less similar than this are never merged
) -> np.ndarray:  # int64 (n,), numbered by first appearance
    "Average linkage, the most similar groups first, until they are large enough; a pair that isn't listed counts 0. In ties the smaller numbers first."
    if not mean_size >= 1: raise InputError(f'mean_size={mean_size}: 1 or more')
    if not np.isfinite(least): raise InputError(f'least={least}: give a finite number')
    i, j, s = edges(neighbors)
    n = len(neighbors.ids)
    # sums of scores between groups, either way; a merged group gets a new number
    links = [dict() for _ in range(n)]
    for a, b, x in zip(i.tolist(), j.tolist(), s.tolist()): links[a][b] = links[b][a] = x
    size, parent, left = [1] * n, list(range(n)), n
    heap = [(-x, a, b) for a, b, x in zip(i.tolist(), j.tolist(), s.tolist()) if x >= least and x > 0]
    heapq.heapify(heap)
    while heap and n / left < mean_size:
        _, a, b = heapq.heappop(heap)
        # a group that was merged since is looked up under its new number
        if links[a] is None or links[b] is None: continue
        new, left = len(links), left - 1
        both, links[a], links[b] = (links[a], links[b]), None, None
        mine = {}
        for part in both:
            for c, x in part.items():
                if c not in (a, b): mine[c] = mine.get(c, 0.) + x
        links.append(mine)
        size.append(size[a] + size[b])
        parent[a] = parent[b] = new
        parent.append(new)
        for c, x in mine.items():
            links[c].pop(a, None)
            links[c].pop(b, None)
            links[c][new] = x
            mean = x / (size[c] * size[new])
            if mean >= least and mean > 0: heapq.heappush(heap, (-mean, c, new))
    return _numbered(_roots(parent)[:n])


def tiers(
    neighbors: Neighbors,  # Self-join
    merge: float = .8,  # Groups are merged from here on,
    join: float = .7,  # a single listing joins a group from here on,
    pair: float = .3,  # and two single ones pair from here on
) -> np.ndarray:  # int64 (n,), numbered by first appearance
    "Tiered merge, the most similar pairs first (Kaggle Shopee, 5th place)."
    if not merge >= join >= pair: raise InputError(f'merge={merge}, join={join}, pair={pair}: numbers that do not rise')
    i, j, s = edges(neighbors)
    order = np.lexsort((j, i, -s))
    order = order[s[order] >= pair]
    parent, size = list(range(len(neighbors.ids))), [1] * len(neighbors.ids)
    def root(a):
        while parent[a] != a: parent[a] = a = parent[parent[a]]
        return a
    for a, b, x in zip(i[order].tolist(), j[order].tolist(), s[order].tolist()):
        a, b = root(a), root(b)
        if a == b: continue
        single = (size[a] == 1) + (size[b] == 1)
        if x >= merge or single == 2 or (x >= join and single): parent[b], size[a] = a, size[a] + size[b]
    return _numbered(_roots(parent))


def same_group(
    groups,  # int (n,)
    neighbors: Neighbors,  # Self-join, for order and scores
    max_matches: int = MAX_MATCHES,  # Most matches a row, itself included
) -> Matches:
    "Each listing with all of its group, the nearest first; a score that isn't listed is that of the row's last."
    groups = np.asarray(groups)
    n = len(neighbors.ids)
    if groups.shape != (n,): raise InputError(f'groups of shape {groups.shape}: give {n}, one a row')
    code = np.unique(groups, return_inverse=True)[1]
    member = csr_matrix((np.ones(n), (np.arange(n), code)))
    rows, ids = (member @ member.T).nonzero()
    near, theirs, s = neighbors.pairs()
    key, want = near * n + theirs, rows.astype(np.int64) * n + ids
    order = np.argsort(key)
    at = np.minimum(np.searchsorted(key[order], want), len(key) - 1)
    known = key[order][at] == want
    least = np.where(neighbors.ids >= 0, neighbors.scores, np.inf).min(1)
    score = np.where(known, s[order][at], least[rows]).astype(np.float32)
    # behind what is listed, in rising order
    order = np.lexsort((ids, -score, ~known, ids != rows, rows))
    rows, ids, score = rows[order], ids[order].astype(np.int64), score[order]
    count = np.bincount(rows, minlength=n)
    keep = np.arange(len(rows)) - np.repeat(count.cumsum() - count, count) < max_matches
    return Matches(np.concatenate([[0], np.minimum(count, max_matches).cumsum()]).astype(np.int64), ids[keep], score[keep])


def edges(
    neighbors: Neighbors,  # Self-join
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # i < j, float64 score
    "Each pair once; of two scores the better."
    check_self_first(neighbors)
    rows, ids, scores = neighbors.pairs()
    other = rows != ids
    i, j, s = np.minimum(rows, ids)[other], np.maximum(rows, ids)[other], scores[other].astype(np.float64)
    order = np.lexsort((-s, j, i))
    i, j, s = i[order], j[order], s[order]
    first = np.ones(len(i), bool)
    first[1:] = (i[1:] != i[:-1]) | (j[1:] != j[:-1])
    return i[first], j[first], s[first]


def _roots(parent):
    # every pass halves the way up
    parent = np.asarray(parent)
    while ((up := parent[parent]) != parent).any(): parent = up
    return parent


def _numbered(found):
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)
