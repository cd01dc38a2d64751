"""The functions of `fastmatch.match` as their definitions read: n x n, float64, plain loops; slow and plain
on purpose."""
import itertools
import math

import numpy as np

INF = math.inf


def cosine(queries, listings):
    "The whole matrix of cosines."
    similarity = np.empty((len(queries), len(listings)))
    for row, query in enumerate(np.asarray(queries, np.float64)):
        for column, listing in enumerate(np.asarray(listings, np.float64)):
            similarity[row, column] = query @ listing / math.sqrt((query @ query) * (listing @ listing))
    return similarity


def nearest(similarity, k, self_join=True):
    """Ids and scores of the `k` best columns of each row, ties to the smaller id; -inf in `similarity` is no
    neighbor."""
    n, columns = similarity.shape
    k = min(k, columns)
    ids = np.full((n, k), -1)
    scores = np.full((n, k), -INF)
    for i in range(n):
        others = [j for j in range(columns) if similarity[i, j] > -INF and not (self_join and i == j)]
        ordered = sorted((-similarity[i, j], j) for j in others)
        if self_join:
            own_score = min([-similarity[i, i]] + [negative for negative, _ in ordered])
            ordered = [(own_score, i)] + ordered
        for rank, (negative, j) in enumerate(ordered[:k]):
            ids[i, rank] = j
            scores[i, rank] = -negative
    return ids, scores


def from_pairs(rows, ids, scores, n, self_join):
    "One list of (id, score) a row, best first, ties to the smaller id."
    best = [{} for _ in range(n)]
    for row, id_, score in zip(rows, ids, scores):
        if id_ >= 0: best[row][id_] = max(score, best[row].get(id_, -INF))
    neighbor_lists = []
    for row, found in enumerate(best):
        own = found.pop(row, 1.) if self_join else None
        ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        if self_join: ordered = [(row, max([own] + [score for _, score in ordered]))] + ordered
        neighbor_lists.append(ordered)
    return neighbor_lists


def row_f1(matches, groups):
    "F1 of each row's set of matches against its group, the listing itself included in both."
    values = []
    for row, found in enumerate(matches):
        true_matches = {other for other, other_group in enumerate(groups) if other_group == groups[row]}
        values.append(2 * len(true_matches & set(found)) / (len(true_matches) + len(set(found))))
    return np.array(values)


def mates(groups, listing):
    "The other listings of the group of a listing."
    return [other for other, other_group in enumerate(groups)
            if other_group == groups[listing] and other != listing]


def recall_at(ids, groups, k):
    "Whether one of a row's k nearest is of its group; NaN for a listing that is alone."
    values = []
    for row in range(len(ids)):
        row_mates = mates(groups, row)
        hit = any(neighbor in row_mates for neighbor in ids[row][1:k + 1])
        values.append(float(hit) if row_mates else math.nan)
    return np.array(values)


def map_at_r(ids, groups):
    "Mean average precision at R, the number of mates; NaN for a listing that is alone."
    values = []
    for row in range(len(ids)):
        row_mates = mates(groups, row)
        precision_sum = 0.
        right = 0
        for rank, neighbor in enumerate(ids[row][1:len(row_mates) + 1], 1):
            if neighbor in row_mates:
                right += 1
                precision_sum += right / rank
        values.append(precision_sum / len(row_mates) if row_mates else math.nan)
    return np.array(values)


def decide(ids, scores, threshold, max_matches):
    "Each row's matches: itself and the neighbors whose score reaches the threshold."
    return decide_by_rank(ids, scores, [threshold], max_matches)


def decide_by_rank(ids, scores, thresholds, max_matches):
    "As `decide`, with a threshold for each rank; the last one is for all ranks behind it."
    matches = []
    for row in range(len(ids)):
        found = [row]
        for rank, (neighbor, score) in enumerate(zip(ids[row][1:max_matches], scores[row][1:max_matches])):
            threshold = thresholds[min(rank, len(thresholds) - 1)]
            if neighbor >= 0 and float(score) >= threshold: found.append(int(neighbor))
        matches.append(found)
    return matches


def listed_scores(ids, scores, rows, max_matches):
    "Every score that a decision on `rows` looks at."
    return [float(score) for row in rows
            for neighbor, score in zip(ids[row][1:max_matches], scores[row][1:max_matches]) if neighbor >= 0]


def mean_row_f1(matches, groups, rows):
    values = row_f1(matches, groups)
    return sum(values[row] for row in rows) / len(rows)


def best_threshold(ids, scores, groups, rows, max_matches):
    """Every threshold tried: (threshold, mean row F1) of the highest among the best, midway to the next score
    of `rows`."""
    edges = sorted(set(listed_scores(ids, scores, rows, max_matches)), reverse=True)
    def value_of(threshold): return mean_row_f1(decide(ids, scores, threshold, max_matches), groups, rows)
    nothing = value_of(INF)
    if not edges:
        everywhere = listed_scores(ids, scores, range(len(ids)), max_matches)
        return max(everywhere or [1.]) + 1e-3, nothing
    values = [value_of(edge) for edge in edges]
    if max(values) - nothing < 1e-10: return edges[0] + 1e-3, nothing
    place = next(i for i, value in enumerate(values) if value > max(values) - 1e-10)
    below = edges[place + 1] if place + 1 < len(edges) else edges[place] - 2e-3
    return (edges[place] + below) / 2, values[place]


def best_by_rank(ids, scores, groups, rows, max_matches, ranks):
    "Mean row F1 of the best thresholds that don't fall with the rank, every combination tried."
    edges = sorted(set(listed_scores(ids, scores, rows, max_matches))) + [INF]
    return max(mean_row_f1(decide_by_rank(ids, scores, thresholds, max_matches), groups, rows)
               for thresholds in itertools.combinations_with_replacement(edges, ranks))


def union(candidates, modalities, thresholds, always):
    "Each row's matches: what is `always` one, and what reaches the threshold of one of two modalities."
    first, second = (candidates.scores[modality] for modality in modalities)
    matches = []
    for row, row_ids in enumerate(candidates.ids):
        found = [row]
        for column, neighbor in enumerate(row_ids):
            reached_first = float(first[row, column]) >= thresholds[0]
            reached = reached_first or float(second[row, column]) >= thresholds[1]
            if column and neighbor >= 0 and (always[row, column] or reached): found.append(int(neighbor))
        matches.append(found)
    return matches


def best_union(candidates, modalities, groups, rows, always):
    "Mean row F1 of the best of all pairs of thresholds."
    edges = []
    for modality in modalities:
        listed = {float(score) for row in rows
                  for column, score in enumerate(candidates.scores[modality][row])
                  if column and candidates.ids[row, column] >= 0}
        edges.append(sorted(listed) + [INF])
    return max(np.mean(row_f1(union(candidates, modalities, thresholds, always), groups)[list(rows)])
               for thresholds in itertools.product(*edges))


def group(matches):
    "Union-find, numbered by first appearance."
    parent = list(range(len(matches)))
    def root(listing):
        while parent[listing] != listing: listing = parent[listing]
        return listing
    for listing, found in enumerate(matches):
        for other in found: parent[root(listing)] = root(other)
    number = {}
    return np.array([number.setdefault(root(listing), len(number)) for listing in range(len(matches))])


def fuse(similarities, how, weights, power=6., planes=None):
    "The whole n x n fused score of {modality: n x n similarities}."
    n = len(next(iter(similarities.values())))
    fused = np.empty((n, n))
    # what is similar to itself is there
    def present_weight(listing):
        return sum(weight for modality, weight in weights.items()
                   if similarities[modality][listing, listing] > 0)

    for row in range(n):
        for column in range(n):
            scores = {modality: float(similarities[modality][row, column]) for modality in weights}
            present = [present_weight(row), present_weight(column)]
            fused[row, column] = fuse_pair(scores, present, how, weights, power, planes)
    return fused


def fuse_pair(scores, present, how, weights, power, planes):
    "The fused score of one pair; `present`: the weight of what the one and the other listing have."
    total = sum(weights.values())
    if how == 'mean': return sum(weight * scores[modality] for modality, weight in weights.items()) / total
    if how == 'square':
        return sum(weight * max(scores[modality], 0)**2 for modality, weight in weights.items()) / total
    if how == 'joint':
        product = present[0] * present[1]
        if not product: return 0.
        return sum(weight * scores[modality] for modality, weight in weights.items()) / math.sqrt(product)
    if how == 'prob_or':
        return 1 - math.prod(1 - min(max(scores[modality], 0), 1)**weight
                             for modality, weight in weights.items() if weight > 0)
    if how == 'power':
        return sum((max(scores[modality], 0) / threshold)**power
                   for modality, threshold in weights.items())**(1 / power)
    if how == 'above':
        return sum(max(scores[modality] - threshold, 0) for modality, threshold in weights.items())
    if how == 'union': return max(scores[modality] - threshold for modality, threshold in weights.items())
    assert how == 'piecewise'
    def height(plane):
        return sum(factor * weights[modality] * scores[modality] for modality, factor in plane.items())

    return max(height(plane) - threshold for plane, threshold in planes)


def heldout(options, groups, masks, max_matches):
    """Row F1 of each row and the picks: a rule chosen on one side of each mask, scored on the other, row by
    row."""
    n = len(groups)
    total = np.zeros(n)
    times = np.zeros(n)
    picks = []
    for mask in masks:
        for side in (True, False):
            chosen_on = [row for row in range(n) if mask[row] == side]
            best = None
            for option, (ids, scores) in options.items():
                threshold, value = best_threshold(ids, scores, groups, chosen_on, max_matches)
                if best is None or value > best[2] + 1e-12: best = option, threshold, value
            option, threshold, _ = best
            picks.append((option, threshold))
            values = row_f1(decide(*options[option], threshold, max_matches), groups)
            for row in range(n):
                if mask[row] != side:
                    total[row] += values[row]
                    times[row] += 1
    assert (times == len(masks)).all()
    return total / len(masks), picks


def cluster_se(values, clusters):
    "Cameron & Miller 2015, the mean as a regression on a constant, errors clustered."
    n = len(values)
    mean = sum(values) / n
    distinct = sorted(set(clusters))
    squared_sums = 0.
    for cluster in distinct:
        inside = [value for value, own_cluster in zip(values, clusters) if own_cluster == cluster]
        squared_sums += sum(value - mean for value in inside)**2
    return math.sqrt(len(distinct) / (len(distinct) - 1) * squared_sums) / n


def sims(neighbors, missing=0.):
    "Neighbors as n x n: (scores with `missing` elsewhere, whether listed, ids of each row in order)."
    n = len(neighbors.ids)
    scores = np.full((n, n), float(missing))
    listed = np.zeros((n, n), bool)
    neighbor_lists = [[int(neighbor) for neighbor in row_ids if neighbor >= 0] for row_ids in neighbors.ids]
    for row in range(n):
        for neighbor, score in zip(neighbors.ids[row], neighbors.scores[row]):
            if neighbor >= 0:
                scores[row, neighbor] = float(score)
                listed[row, neighbor] = True
    return scores, listed, neighbor_lists


def unit(vectors):
    "Rows at unit length; zero rows stay."
    norm = np.sqrt((vectors**2).sum(1, keepdims=True))
    return np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)


def mixed(vectors, neighbor_lists, weight):
    "Rows as weighted sums: `weight(row, rank, neighbor)` of each listed neighbor."
    vectors = np.asarray(vectors, np.float64)
    sums = np.zeros_like(vectors)
    for row, neighbor_ids in enumerate(neighbor_lists):
        for rank, neighbor in enumerate(neighbor_ids):
            sums[row] += weight(row, rank, neighbor) * vectors[neighbor]
    return unit(sums)


def cross_mean(vectors, keys):
    "The mean vector over listings of an equal key, and the listing itself."
    vectors = np.asarray(vectors, np.float64)
    def shares(i, j): return j == i or (keys[i] is not None and keys[i] == keys[j])
    n = len(vectors)
    return unit(np.array([np.mean([vectors[j] for j in range(n) if shares(i, j)], axis=0) for i in range(n)]))


def neighbor_mean(neighbors, k, weight):
    "Each row's scores mixed with the mean scores of its k nearest."
    scores, _, neighbor_lists = sims(neighbors)
    means = [np.mean([scores[neighbor] for neighbor in neighbor_ids[:k]], axis=0)
             for neighbor_ids in neighbor_lists]
    return np.array([weight * mean + (1 - weight) * own for mean, own in zip(means, scores)])


def k_reciprocal(distance, neighbor_lists, k1, k2, lam):
    "Zhong et al. 2017 on n x n distances (each row over its largest), with the ranks given."
    n = len(distance)
    def mutual(i, k): return [j for j in neighbor_lists[i][:k + 1] if i in neighbor_lists[j][:k + 1]]
    half = int(np.round(k1 / 2))
    features = np.zeros((n, n))
    for i in range(n):
        reciprocal = set(mutual(i, k1))
        region = set(reciprocal)
        for candidate in reciprocal:
            more = set(mutual(candidate, half))
            if len(more & reciprocal) > 2 / 3 * len(more): region |= more
        for j in region: features[i, j] = math.exp(-distance[i, j])
        features[i] /= features[i].sum()
    if k2 > 1:
        features = np.array([np.mean([features[j] for j in neighbor_ids[:k2]], axis=0)
                             for neighbor_ids in neighbor_lists])
    def jaccard(first, second): return 1 - np.minimum(first, second).sum() / np.maximum(first, second).sum()
    distances = np.array([[jaccard(features[i], features[j]) for j in range(n)] for i in range(n)])
    return (1 - lam) * distances + lam * distance


def standardize(neighbors, k, floor):
    "Scores in standard deviations from the mean of each side's k nearest, averaged over the two sides."
    scores, listed, _ = sims(neighbors)
    n = len(scores)
    mean = np.zeros(n)
    deviation = np.ones(n)
    for i in range(n):
        nearest_others = zip(neighbors.ids[i][1:k + 1], neighbors.scores[i][1:k + 1])
        nearest_scores = [float(score) for j, score in nearest_others if j >= 0]
        if nearest_scores:
            mean[i] = np.mean(nearest_scores)
            deviation[i] = np.std(nearest_scores)
    deviation = np.maximum(deviation, floor)
    def standard(i, j, side): return (scores[i, j] - mean[side]) / deviation[side]
    standardized = [[(standard(i, j, i) + standard(i, j, j)) / 2 for j in range(n)] for i in range(n)]
    return np.array(standardized), listed


def min2(sets, ids, scores, threshold, mutual, gap):
    "Listings that are alone take their nearest, under up to three conditions."
    completed = []
    for row, found in enumerate(sets):
        others = [(int(neighbor), float(score))
                  for neighbor, score in zip(ids[row][1:], scores[row][1:]) if neighbor >= 0]
        if len(found) == 1 and others:
            neighbor, score = others[0]
            lead = score - others[1][1] if len(others) > 1 else INF
            nearest_of_neighbor = [int(id_) for id_ in ids[neighbor][1:2] if id_ >= 0]
            near_enough = threshold is None or score >= threshold
            clear = gap is None or lead >= gap
            if near_enough and clear and (not mutual or nearest_of_neighbor == [row]): found = [row, neighbor]
        completed.append(list(found))
    return completed


def chisel(ids, scores, shares):
    "Matches such that a given share of the listings has two, three, ... of them."
    n = len(ids)
    matches = [[row] for row in range(n)]
    for rank, share in enumerate(shares, 1):
        ready = [row for row in range(n)
                 if len(matches[row]) == rank and rank < len(ids[row]) and ids[row][rank] >= 0]
        room = int(round(share * n))
        for row in ready:
            # in, if all with this score or a better one fit
            if sum(float(scores[other][rank]) >= float(scores[row][rank]) for other in ready) <= room:
                matches[row].append(int(ids[row][rank]))
    return matches


def pair_scores(neighbors):
    "Symmetric n x n of the better of two scores; -inf where neither lists the other."
    scores, _, _ = sims(neighbors, -INF)
    scores = np.maximum(scores, scores.T)
    np.fill_diagonal(scores, -INF)
    return scores


def agglomerate(neighbors, mean_size, least):
    "Average linkage from the definition: means over all pairs of two groups, unlisted ones 0."
    scores = pair_scores(neighbors)
    scores[scores == -INF] = 0
    groups = [[listing] for listing in range(len(scores))]
    def linkage(first, second): return np.mean([scores[i, j] for i in groups[first] for j in groups[second]])
    while len(scores) / len(groups) < mean_size and len(groups) > 1:
        means = {(first, second): linkage(first, second)
                 for first in range(len(groups)) for second in range(first)}
        (first, second), best = max(means.items(), key=lambda item: item[1])
        if best < least or best <= 0: break
        both = groups[first] + groups[second]
        rest = [members for number, members in enumerate(groups) if number not in (first, second)]
        groups = rest + [both]
    return {frozenset(members) for members in groups}


def tiers(neighbors, merge, join, pair):
    "Pairs best first; what they need grows from two single listings to a listing and a group to two groups."
    scores = pair_scores(neighbors)
    n = len(scores)
    members = {listing: {listing} for listing in range(n)}
    pairs = sorted((-scores[first, second], first, second)
                   for first in range(n) for second in range(first + 1, n) if scores[first, second] >= pair)
    for _, first, second in pairs:
        mine, theirs = members[first], members[second]
        if mine is theirs: continue
        least = pair if len(mine) == len(theirs) == 1 else join if 1 in (len(mine), len(theirs)) else merge
        if scores[first, second] >= least:
            merged = mine | theirs
            for listing in merged: members[listing] = merged
    return {frozenset(group_) for group_ in members.values()}
