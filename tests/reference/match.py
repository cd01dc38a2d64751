"""The functions of `fastmatch.match` as their definitions read: n x n, float64, plain loops; slow and plain
on purpose."""
import itertools
import math

import numpy as np

INF = math.inf


def cosine(queries, listings):
    "The whole matrix of cosines."
    similarity = np.empty((len(queries), len(listings)))
    for i, x in enumerate(np.asarray(queries, np.float64)):
        for j, y in enumerate(np.asarray(listings, np.float64)):
            similarity[i, j] = x @ y / math.sqrt((x @ x) * (y @ y))
    return similarity


def nearest(similarity, k, self_join=True):
    """Ids and scores of the `k` best columns of each row, ties to the smaller id; -inf in `similarity` is no
    neighbor."""
    n, columns = similarity.shape
    k = min(k, columns)
    ids = np.full((n, k), -1)
    scores = np.full((n, k), -INF)
    for i in range(n):
        candidates = [j for j in range(columns) if similarity[i, j] > -INF and not (self_join and i == j)]
        found = sorted((-similarity[i, j], j) for j in candidates)
        if self_join:
            own = min([-similarity[i, i]] + [negative for negative, _ in found])
            found = [(own, i)] + found
        for rank, (negative, j) in enumerate(found[:k]):
            ids[i, rank] = j
            scores[i, rank] = -negative
    return ids, scores


def from_pairs(rows, ids, scores, n, self_join):
    "One list of (id, score) a row, best first, ties to the smaller id."
    best = [{} for _ in range(n)]
    for row, id_, score in zip(rows, ids, scores):
        if id_ >= 0: best[row][id_] = max(score, best[row].get(id_, -INF))
    lists = []
    for row, found in enumerate(best):
        own = found.pop(row, 1.) if self_join else None
        ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        if self_join: ordered = [(row, max([own] + [score for _, score in ordered]))] + ordered
        lists.append(ordered)
    return lists


def row_f1(sets, groups):
    "F1 of each row's set of matches against its group, the listing itself included in both."
    values = []
    for i, found in enumerate(sets):
        true = {j for j, group_ in enumerate(groups) if group_ == groups[i]}
        values.append(2 * len(true & set(found)) / (len(true) + len(set(found))))
    return np.array(values)


def mates(groups, i):
    "The other listings of the group of listing `i`."
    return [j for j, group_ in enumerate(groups) if group_ == groups[i] and j != i]


def recall_at(ids, groups, k):
    "Whether one of a row's k nearest is of its group; NaN for a listing that is alone."
    values = []
    for i in range(len(ids)):
        true = mates(groups, i)
        values.append(float(any(j in true for j in ids[i][1:k + 1])) if true else math.nan)
    return np.array(values)


def map_at_r(ids, groups):
    "Mean average precision at R, the number of mates; NaN for a listing that is alone."
    values = []
    for i in range(len(ids)):
        true = mates(groups, i)
        total = 0.
        right = 0
        for rank, j in enumerate(ids[i][1:len(true) + 1], 1):
            if j in true:
                right += 1
                total += right / rank
        values.append(total / len(true) if true else math.nan)
    return np.array(values)


def decide(ids, scores, threshold, max_matches):
    "Each row's matches: itself and the neighbors whose score reaches the threshold."
    return decide_by_rank(ids, scores, [threshold], max_matches)


def decide_by_rank(ids, scores, thresholds, max_matches):
    "As `decide`, with a threshold for each rank; the last one is for all ranks behind it."
    matches = []
    for i in range(len(ids)):
        found = [i]
        for rank, (j, score) in enumerate(zip(ids[i][1:max_matches], scores[i][1:max_matches])):
            if j >= 0 and float(score) >= thresholds[min(rank, len(thresholds) - 1)]: found.append(int(j))
        matches.append(found)
    return matches


def listed_scores(ids, scores, rows, max_matches):
    "Every score that a decision on `rows` looks at."
    return [float(score) for i in rows
            for j, score in zip(ids[i][1:max_matches], scores[i][1:max_matches]) if j >= 0]


def mean_row_f1(sets, groups, rows):
    values = row_f1(sets, groups)
    return sum(values[i] for i in rows) / len(rows)


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


def union(candidates, names, thresholds, always):
    "Each row's matches: what is `always` one, and what reaches the threshold of one of two modalities."
    first, second = (candidates.scores[name] for name in names)
    matches = []
    for i, row in enumerate(candidates.ids):
        found = [i]
        for column, j in enumerate(row):
            reached = float(first[i, column]) >= thresholds[0] or float(second[i, column]) >= thresholds[1]
            if column and j >= 0 and (always[i, column] or reached): found.append(int(j))
        matches.append(found)
    return matches


def best_union(candidates, names, groups, rows, always):
    "Mean row F1 of the best of all pairs of thresholds."
    edges = []
    for name in names:
        listed = {float(score) for i in rows for column, score in enumerate(candidates.scores[name][i])
                  if column and candidates.ids[i, column] >= 0}
        edges.append(sorted(listed) + [INF])
    return max(np.mean(row_f1(union(candidates, names, thresholds, always), groups)[list(rows)])
               for thresholds in itertools.product(*edges))


def group(sets):
    "Union-find, numbered by first appearance."
    parent = list(range(len(sets)))
    def root(i):
        while parent[i] != i: i = parent[i]
        return i
    for i, found in enumerate(sets):
        for j in found: parent[root(i)] = root(j)
    number = {}
    return np.array([number.setdefault(root(i), len(number)) for i in range(len(sets))])


def fuse(sims, how, weights, power=6., planes=None):
    "The whole n x n fused score of {modality: n x n similarities}."
    n = len(next(iter(sims.values())))
    fused = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            scores = {name: float(sims[name][i, j]) for name in weights}
            # what is similar to itself is there
            present = [sum(w for name, w in weights.items() if sims[name][x, x] > 0) for x in (i, j)]
            fused[i, j] = fuse_pair(scores, present, how, weights, power, planes)
    return fused


def fuse_pair(scores, present, how, weights, power, planes):
    "The fused score of one pair; `present`: the weight of what the one and the other listing have."
    total = sum(weights.values())
    if how == 'mean': return sum(w * scores[name] for name, w in weights.items()) / total
    if how == 'square': return sum(w * max(scores[name], 0)**2 for name, w in weights.items()) / total
    if how == 'joint':
        product = present[0] * present[1]
        return sum(w * scores[name] for name, w in weights.items()) / math.sqrt(product) if product else 0.
    if how == 'prob_or':
        return 1 - math.prod(1 - min(max(scores[name], 0), 1)**w for name, w in weights.items() if w > 0)
    if how == 'power':
        return sum((max(scores[name], 0) / t)**power for name, t in weights.items())**(1 / power)
    if how == 'above': return sum(max(scores[name] - t, 0) for name, t in weights.items())
    if how == 'union': return max(scores[name] - t for name, t in weights.items())
    assert how == 'piecewise'
    return max(sum(factor * weights[name] * scores[name] for name, factor in plane.items()) - threshold
               for plane, threshold in planes)


def heldout(options, groups, masks, max_matches):
    """Row F1 of each row and the picks: a rule chosen on one side of each mask, scored on the other, row by
    row."""
    n = len(groups)
    total = np.zeros(n)
    times = np.zeros(n)
    picks = []
    for mask in masks:
        for side in (True, False):
            chosen_on = [i for i in range(n) if mask[i] == side]
            best = None
            for name, (ids, scores) in options.items():
                threshold, value = best_threshold(ids, scores, groups, chosen_on, max_matches)
                if best is None or value > best[2] + 1e-12: best = name, threshold, value
            name, threshold, _ = best
            picks.append((name, threshold))
            values = row_f1(decide(*options[name], threshold, max_matches), groups)
            for i in range(n):
                if mask[i] != side:
                    total[i] += values[i]
                    times[i] += 1
    assert (times == len(masks)).all()
    return total / len(masks), picks


def cluster_se(values, clusters):
    "Cameron & Miller 2015, the mean as a regression on a constant, errors clustered."
    n = len(values)
    mean = sum(values) / n
    seen = sorted(set(clusters))
    total = 0.
    for cluster in seen:
        total += sum(value - mean for value, own in zip(values, clusters) if own == cluster)**2
    return math.sqrt(len(seen) / (len(seen) - 1) * total) / n


def sims(neighbors, missing=0.):
    "Neighbors as n x n: (scores with `missing` elsewhere, whether listed, ids of each row in order)."
    n = len(neighbors.ids)
    scores = np.full((n, n), float(missing))
    listed = np.zeros((n, n), bool)
    lists = [[int(j) for j in row if j >= 0] for row in neighbors.ids]
    for i in range(n):
        for j, score in zip(neighbors.ids[i], neighbors.scores[i]):
            if j >= 0:
                scores[i, j] = float(score)
                listed[i, j] = True
    return scores, listed, lists


def unit(vectors):
    "Rows at unit length; zero rows stay."
    norm = np.sqrt((vectors**2).sum(1, keepdims=True))
    return np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 0)


def mixed(vectors, lists, weight):
    "Rows as weighted sums: `weight(i, rank, j)` of each listed neighbor."
    vectors = np.asarray(vectors, np.float64)
    sums = np.zeros_like(vectors)
    for i, row in enumerate(lists):
        for rank, j in enumerate(row): sums[i] += weight(i, rank, j) * vectors[j]
    return unit(sums)


def cross_mean(vectors, keys):
    "The mean vector over listings of an equal key, and the listing itself."
    vectors = np.asarray(vectors, np.float64)
    def shares(i, j): return j == i or (keys[i] is not None and keys[i] == keys[j])
    n = len(vectors)
    return unit(np.array([np.mean([vectors[j] for j in range(n) if shares(i, j)], axis=0) for i in range(n)]))


def neighbor_mean(neighbors, k, weight):
    "Each row's scores mixed with the mean scores of its k nearest."
    scores, _, lists = sims(neighbors)
    return np.array([weight * np.mean([scores[j] for j in row[:k]], axis=0) + (1 - weight) * scores[i]
                     for i, row in enumerate(lists)])


def k_reciprocal(distance, lists, k1, k2, lam):
    "Zhong et al. 2017 on n x n distances (each row over its largest), with the ranks given."
    n = len(distance)
    def mutual(i, k): return [j for j in lists[i][:k + 1] if i in lists[j][:k + 1]]
    half = int(np.round(k1 / 2))
    features = np.zeros((n, n))
    for i in range(n):
        near = set(mutual(i, k1))
        region = set(near)
        for candidate in near:
            more = set(mutual(candidate, half))
            if len(more & near) > 2 / 3 * len(more): region |= more
        for j in region: features[i, j] = math.exp(-distance[i, j])
        features[i] /= features[i].sum()
    if k2 > 1: features = np.array([np.mean([features[j] for j in row[:k2]], axis=0) for row in lists])
    def jaccard(a, b): return 1 - np.minimum(a, b).sum() / np.maximum(a, b).sum()
    distances = np.array([[jaccard(features[i], features[j]) for j in range(n)] for i in range(n)])
    return (1 - lam) * distances + lam * distance


def standardize(neighbors, k, floor):
    "Scores in standard deviations from the mean of each side's k nearest, averaged over the two sides."
    scores, listed, _ = sims(neighbors)
    n = len(scores)
    mean = np.zeros(n)
    deviation = np.ones(n)
    for i in range(n):
        near = zip(neighbors.ids[i][1:k + 1], neighbors.scores[i][1:k + 1])
        top = [float(score) for j, score in near if j >= 0]
        if top:
            mean[i] = np.mean(top)
            deviation[i] = np.std(top)
    deviation = np.maximum(deviation, floor)
    def standard(i, j, side): return (scores[i, j] - mean[side]) / deviation[side]
    standardized = [[(standard(i, j, i) + standard(i, j, j)) / 2 for j in range(n)] for i in range(n)]
    return np.array(standardized), listed


def min2(sets, ids, scores, threshold, mutual, gap):
    "Listings that are alone take their nearest, under up to three conditions."
    completed = []
    for i, found in enumerate(sets):
        others = [(int(j), float(score)) for j, score in zip(ids[i][1:], scores[i][1:]) if j >= 0]
        if len(found) == 1 and others:
            j, score = others[0]
            lead = score - others[1][1] if len(others) > 1 else INF
            back = [int(id_) for id_ in ids[j][1:2] if id_ >= 0]
            near = threshold is None or score >= threshold
            clear = gap is None or lead >= gap
            if near and clear and (not mutual or back == [i]): found = [i, j]
        completed.append(list(found))
    return completed


def chisel(ids, scores, shares):
    "Matches such that a given share of the listings has two, three, ... of them."
    n = len(ids)
    sets = [[i] for i in range(n)]
    for rank, share in enumerate(shares, 1):
        ready = [i for i in range(n) if len(sets[i]) == rank and rank < len(ids[i]) and ids[i][rank] >= 0]
        room = int(round(share * n))
        for i in ready:
            # in, if all with this score or a better one fit
            if sum(float(scores[j][rank]) >= float(scores[i][rank]) for j in ready) <= room:
                sets[i].append(int(ids[i][rank]))
    return sets


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
    groups = [[i] for i in range(len(scores))]
    def linkage(a, b): return np.mean([scores[i, j] for i in groups[a] for j in groups[b]])
    while len(scores) / len(groups) < mean_size and len(groups) > 1:
        means = {(a, b): linkage(a, b) for a in range(len(groups)) for b in range(a)}
        (a, b), best = max(means.items(), key=lambda item: item[1])
        if best < least or best <= 0: break
        groups = [members for i, members in enumerate(groups) if i not in (a, b)] + [groups[a] + groups[b]]
    return {frozenset(members) for members in groups}


def tiers(neighbors, merge, join, pair):
    "Pairs best first; what they need grows from two single listings to a listing and a group to two groups."
    scores = pair_scores(neighbors)
    n = len(scores)
    members = {i: {i} for i in range(n)}
    pairs = sorted((-scores[i, j], i, j) for i in range(n) for j in range(i + 1, n) if scores[i, j] >= pair)
    for _, i, j in pairs:
        mine, theirs = members[i], members[j]
        if mine is theirs: continue
        least = pair if len(mine) == len(theirs) == 1 else join if 1 in (len(mine), len(theirs)) else merge
        if scores[i, j] >= least:
            both = mine | theirs
            for listing in both: members[listing] = both
    return {frozenset(group_) for group_ in members.values()}
