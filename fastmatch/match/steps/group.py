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
from ..neighbors import Neighbors, check_k, check_self_first
from .scores import score_of_pairs


def group(
    matches,  # `Matches` of a self-join
) -> np.ndarray:  # int64 (n,), numbered by first appearance
    "Connected components: listings that are linked by matches, directly or through others, are one group."
    n_listings = len(matches)
    links = np.ones(len(matches.ids), np.int8)
    graph = csr_matrix((links, matches.ids, matches.indptr), shape=(n_listings, n_listings))
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
    first_ids, second_ids, pair_scores = undirected_pairs(neighbors)
    pairs = list(zip(first_ids.tolist(), second_ids.tolist(), pair_scores.tolist()))
    n_listings = len(neighbors.ids)
    # for each group the sum of the scores between it and each other group; a merged group gets a new number,
    # the two old ones None
    score_sums: list = [{} for _ in range(n_listings)]
    for first, second, similarity in pairs: score_sums[first][second] = score_sums[second][first] = similarity
    sizes, parents, groups_left = [1] * n_listings, list(range(n_listings)), n_listings
    queue = [(-similarity, first, second) for first, second, similarity in pairs
             if similarity >= least and similarity > 0]
    heapq.heapify(queue)
    while queue and n_listings / groups_left < mean_size:
        _, first, second = heapq.heappop(queue)
        # merged since: it is in the queue under its new number
        if score_sums[first] is None or score_sums[second] is None: continue
        merged, groups_left = len(score_sums), groups_left - 1
        merged_sums = _merge_sums(score_sums, first, second)
        score_sums.append(merged_sums)
        sizes.append(sizes[first] + sizes[second])
        parents[first] = parents[second] = merged
        parents.append(merged)
        for other_group, score_sum in merged_sums.items():
            for old_group in (first, second): score_sums[other_group].pop(old_group, None)
            score_sums[other_group][merged] = score_sum
            mean_score = score_sum / (sizes[other_group] * sizes[merged])
            if mean_score >= least and mean_score > 0:
                heapq.heappush(queue, (-mean_score, other_group, merged))
    return _number_by_appearance(_roots(parents)[:n_listings])


def _merge_sums(score_sums, first, second):
    "The sums of scores between both of two groups and every third one; the two are marked as gone."
    merged_sums = {}
    for old_sums in (score_sums[first], score_sums[second]):
        for other_group, score_sum in old_sums.items():
            if other_group in (first, second): continue
            merged_sums[other_group] = merged_sums.get(other_group, 0.) + score_sum
    score_sums[first] = score_sums[second] = None
    return merged_sums


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
    first_ids, second_ids, pair_scores = undirected_pairs(neighbors)
    best_first = np.lexsort((second_ids, first_ids, -pair_scores))
    best_first = best_first[pair_scores[best_first] >= pair]
    parents = list(range(len(neighbors.ids)))
    sizes = [1] * len(parents)

    def root(listing):
        while parents[listing] != listing:
            parents[listing] = parents[parents[listing]]  # shortens the way for the next time
            listing = parents[listing]
        return listing

    pairs = zip(*(array[best_first].tolist() for array in (first_ids, second_ids, pair_scores)))
    for first, second, similarity in pairs:
        first, second = root(first), root(second)
        if first == second: continue
        singles = (sizes[first] == 1) + (sizes[second] == 1)
        if similarity >= merge or singles == 2 or (similarity >= join and singles):
            parents[second] = first
            sizes[first] += sizes[second]
    return _number_by_appearance(_roots(parents))


def same_group(
    groups,  # int (n,), the group of each listing
    neighbors: Neighbors,  # Of a self-join, for order and scores
    max_matches: int = MAX_MATCHES,  # Most matches of a row, the listing itself included
) -> Matches:
    """Each listing with all of its group, the best scores first; a score that is not listed is taken as that
    of the row's last neighbor."""
    groups = np.asarray(groups)
    n_listings = len(neighbors.ids)
    if groups.shape != (n_listings,):
        raise InputError(f'groups of shape {groups.shape}: give {n_listings}, one a row')
    check_k(max_matches)
    codes = np.unique(groups, return_inverse=True)[1]
    row_numbers, ids = _possible_mates(codes, neighbors, max_matches)
    scores, is_listed = score_of_pairs(neighbors, row_numbers, ids)
    scores = scores.astype(np.float32)
    # the listing itself, then what is listed by score, then the rest; equal ones by rising id
    best_first = np.lexsort((ids, -scores, ~is_listed, ids != row_numbers, row_numbers))
    row_numbers, ids, scores = row_numbers[best_first], ids[best_first].astype(np.int64), scores[best_first]
    pair_counts = np.bincount(row_numbers, minlength=n_listings)
    is_kept = rank_within_row(pair_counts) < max_matches
    return Matches(row_pointers(np.minimum(pair_counts, max_matches)), ids[is_kept], scores[is_kept])


def _possible_mates(codes, neighbors, max_matches):
    """Pairs (row, id) of one group among which are the `max_matches` that `same_group` keeps, each once.

    All pairs of a group would be its size squared: a row needs those of its group that are listed, and as
    many of the first others that it has enough of them where some are listed.
    """
    listed_rows, listed_ids, _ = neighbors.pairs()
    is_mate = codes[listed_rows] == codes[listed_ids]
    n_listings = len(codes)
    by_group = np.argsort(codes, kind='stable')  # ids rise within a group
    sizes = np.bincount(codes)
    starts = sizes.cumsum() - sizes
    n_first = np.minimum(sizes, max_matches + neighbors.ids.shape[1])[codes]
    first_rows = np.repeat(np.arange(n_listings), n_first)
    first_ids = by_group[np.repeat(starts[codes], n_first) + rank_within_row(n_first)]
    pair_keys = np.concatenate([listed_rows[is_mate] * n_listings + listed_ids[is_mate],
                                first_rows * n_listings + first_ids])
    return np.divmod(np.unique(pair_keys), n_listings)


def undirected_pairs(
    neighbors: Neighbors,  # Of a self-join
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # int (m,), int (m,), float64 (m,)
    """Each pair of two listings once, as (smaller id, larger id, score), sorted by ids; of a pair's two
    scores the better."""
    check_self_first(neighbors)
    row_numbers, ids, scores = neighbors.pairs()
    is_other = row_numbers != ids
    first_ids = np.minimum(row_numbers, ids)[is_other]
    second_ids = np.maximum(row_numbers, ids)[is_other]
    pair_scores = scores[is_other].astype(np.float64)
    by_pair = np.lexsort((-pair_scores, second_ids, first_ids))
    first_ids, second_ids, pair_scores = first_ids[by_pair], second_ids[by_pair], pair_scores[by_pair]
    is_first = np.ones(len(first_ids), bool)
    is_first[1:] = (first_ids[1:] != first_ids[:-1]) | (second_ids[1:] != second_ids[:-1])
    return first_ids[is_first], second_ids[is_first], pair_scores[is_first]


def _roots(parents):
    "The last ancestor of each group: int (n,)."
    parents = np.asarray(parents)
    while ((grandparents := parents[parents]) != parents).any(): parents = grandparents
    return parents


def _number_by_appearance(codes):
    "Any codes (n,) as int64 from 0 in the order in which they first appear."
    _, first_positions, code_numbers = np.unique(codes, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first_positions))[code_numbers].astype(np.int64)
