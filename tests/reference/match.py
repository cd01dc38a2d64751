"The match floor as its definitions read: n x n, float64, plain loops; slow and plain on purpose."
import math

import numpy as np

INF = math.inf


def cosine(a, b):
    res = np.empty((len(a), len(b)))
    for i, x in enumerate(np.asarray(a, np.float64)):
        for j, y in enumerate(np.asarray(b, np.float64)): res[i, j] = x @ y / math.sqrt((x @ x) * (y @ y))
    return res


def nearest(sim, k, self_join=True):
    "Ids and scores of the `k` best columns of each row, ties to the smaller id; -inf in `sim` is no neighbour."
    n, m = sim.shape
    k = min(k, m)
    ids, scores = np.full((n, k), -1), np.full((n, k), -INF)
    for i in range(n):
        found = sorted((-sim[i, j], j) for j in range(m) if sim[i, j] > -INF and not (self_join and i == j))
        if self_join: found = [(min([-sim[i, i]] + [o[0] for o in found]), i)] + found
        for rank, (s, j) in enumerate(found[:k]): ids[i, rank], scores[i, rank] = j, -s
    return ids, scores


def from_pairs(rows, ids, scores, n, self_join):
    "One list of (id, score) a row, best first, ties to the smaller id."
    best = [{} for _ in range(n)]
    for r, i, s in zip(rows, ids, scores):
        if i >= 0: best[r][i] = max(s, best[r].get(i, -INF))
    res = []
    for r, found in enumerate(best):
        own = found.pop(r, 1.) if self_join else None
        row = sorted(found.items(), key=lambda o: (-o[1], o[0]))
        if self_join: row = [(r, max([own] + [s for _, s in row]))] + row
        res.append(row)
    return res


def row_f1(sets, labels):
    res = []
    for i, found in enumerate(sets):
        true = {j for j, o in enumerate(labels) if o == labels[i]}
        res.append(2 * len(true & set(found)) / (len(true) + len(set(found))))
    return np.array(res)


def mates(labels, i): return [j for j, o in enumerate(labels) if o == labels[i] and j != i]


def recall_at(ids, labels, k):
    res = []
    for i in range(len(ids)):
        true = mates(labels, i)
        res.append(float(any(j in true for j in ids[i][1:k+1])) if true else math.nan)
    return np.array(res)


def map_at_r(ids, labels):
    res = []
    for i in range(len(ids)):
        true, total, right = mates(labels, i), 0., 0
        for rank, j in enumerate(ids[i][1:len(true)+1], 1):
            if j in true:
                right += 1
                total += right / rank
        res.append(total / len(true) if true else math.nan)
    return np.array(res)


def decide(ids, scores, threshold, max_matches):
    return [[i] + [int(j) for j, s in zip(ids[i][1:max_matches], scores[i][1:max_matches]) if j >= 0 and float(s) >= threshold]
            for i in range(len(ids))]


def best_threshold(ids, scores, labels, rows, max_matches):
    "Every cut tried: (threshold, mean row F1) of the highest among the best, midway to the next score of `rows`."
    edges = sorted({float(s) for i in rows for j, s in zip(ids[i][1:max_matches], scores[i][1:max_matches]) if j >= 0}, reverse=True)
    def mean(cut):
        f1 = row_f1(decide(ids, scores, cut, max_matches), labels)
        return sum(f1[i] for i in rows) / len(rows)
    nothing = mean(INF)
    if not edges: return max([1.] if not any(j >= 0 for r in ids for j in r[1:max_matches]) else
                            [float(s) for i, r in enumerate(ids) for j, s in zip(r[1:max_matches], scores[i][1:max_matches]) if j >= 0]) + 1e-3, nothing
    value = [mean(o) for o in edges]
    if max(value) - nothing < 1e-10: return edges[0] + 1e-3, nothing
    at = next(i for i, o in enumerate(value) if o > max(value) - 1e-10)
    below = edges[at + 1] if at + 1 < len(edges) else edges[at] - 2e-3
    return (edges[at] + below) / 2, value[at]


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
    "The whole n x n fused score."
    n = len(next(iter(sims.values())))
    res = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            s = {k: float(sims[k][i, j]) for k in weights}
            if how == 'mean': res[i, j] = sum(w * s[k] for k, w in weights.items()) / sum(weights.values())
            elif how == 'square': res[i, j] = sum(w * max(s[k], 0)**2 for k, w in weights.items()) / sum(weights.values())
            elif how == 'joint':
                # what is similar to itself is there
                own = [sum(w for k, w in weights.items() if sims[k][o, o] > 0) for o in (i, j)]
                res[i, j] = sum(w * s[k] for k, w in weights.items()) / math.sqrt(own[0] * own[1]) if own[0] * own[1] else 0.
            elif how == 'prob_or': res[i, j] = 1 - math.prod(1 - min(max(s[k], 0), 1)**w for k, w in weights.items() if w > 0)
            elif how == 'power': res[i, j] = sum((max(s[k], 0) / t)**power for k, t in weights.items())**(1 / power)
            elif how == 'above': res[i, j] = sum(max(s[k] - t, 0) for k, t in weights.items())
            elif how == 'piecewise': res[i, j] = max(sum(c * weights[k] * s[k] for k, c in o.items()) - cut for o, cut in planes)
            else: res[i, j] = max(s[k] - t for k, t in weights.items())
    return res


def heldout(options, labels, masks, max_matches):
    "Row F1 of each row and the picks: rule chosen on one side of each mask, scored on the other, row by row."
    n = len(labels)
    total, times, picks = np.zeros(n), np.zeros(n), []
    for mask in masks:
        for side in (True, False):
            chosen_on = [i for i in range(n) if mask[i] == side]
            best = None
            for name, (ids, scores) in options.items():
                threshold, value = best_threshold(ids, scores, labels, chosen_on, max_matches)
                if best is None or value > best[2] + 1e-12: best = name, threshold, value
            name, threshold, _ = best
            picks.append((name, threshold))
            f1 = row_f1(decide(*options[name], threshold, max_matches), labels)
            for i in range(n):
                if mask[i] != side:
                    total[i] += f1[i]
                    times[i] += 1
    assert (times == len(masks)).all()
    return total / len(masks), picks


def cluster_se(x, groups):
    "Cameron & Miller 2015, the mean as a regression on a constant, errors clustered."
    n, total, seen = len(x), 0., sorted(set(groups))
    for g in seen: total += sum(v - sum(x) / n for v, o in zip(x, groups) if o == g)**2
    return math.sqrt(len(seen) / (len(seen) - 1) * total) / n


def sims(neighbors, missing=0.):
    "Neighbours as n x n: (scores with `missing` elsewhere, whether listed, columns in order)."
    n = len(neighbors.ids)
    s, listed = np.full((n, n), float(missing)), np.zeros((n, n), bool)
    lists = [[int(j) for j in row if j >= 0] for row in neighbors.ids]
    for i in range(n):
        for j, v in zip(neighbors.ids[i], neighbors.scores[i]):
            if j >= 0: s[i, j], listed[i, j] = float(v), True
    return s, listed, lists


def ranked(full, keep, k):
    "n x n scores as sorted lists of (id, score), itself first, of the pairs in `keep`."
    res = []
    for i in range(len(full)):
        row = sorted(((j, full[i, j]) for j in range(len(full)) if keep[i, j] and j != i), key=lambda o: (-o[1], o[0]))
        res.append([i] + [j for j, _ in row][:k - 1])
    return res


def unit(x):
    norm = np.sqrt((x**2).sum(1, keepdims=True))
    return np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)


def mixed(x, lists, weight):
    "Rows as weighted sums: `weight(i, rank, j)` of each listed neighbour."
    x = np.asarray(x, np.float64)
    res = np.zeros_like(x)
    for i, row in enumerate(lists):
        for rank, j in enumerate(row): res[i] += weight(i, rank, j) * x[j]
    return unit(res)


def cross_mean(x, keys):
    x = np.asarray(x, np.float64)
    return unit(np.array([np.mean([x[j] for j in range(len(x)) if j == i or (keys[i] is not None and keys[i] == keys[j])], axis=0) for i in range(len(x))]))


def neighbor_mean(neighbors, k, weight):
    s, _, lists = sims(neighbors)
    return np.array([weight * np.mean([s[j] for j in row[:k]], axis=0) + (1 - weight) * s[i] for i, row in enumerate(lists)])


def k_reciprocal(d, lists, k1, k2, lam):
    "Zhong et al. 2017 on n x n distances (each row over its largest), with the ranks given."
    n = len(d)
    def mutual(i, k): return [j for j in lists[i][:k + 1] if i in lists[j][:k + 1]]
    half = int(np.round(k1 / 2))
    v = np.zeros((n, n))
    for i in range(n):
        near = set(mutual(i, k1))
        region = set(near)
        for c in near:
            more = set(mutual(c, half))
            if len(more & near) > 2 / 3 * len(more): region |= more
        for j in region: v[i, j] = math.exp(-d[i, j])
        v[i] /= v[i].sum()
    if k2 > 1: v = np.array([np.mean([v[j] for j in row[:k2]], axis=0) for row in lists])
    jaccard = np.array([[1 - np.minimum(v[i], v[j]).sum() / np.maximum(v[i], v[j]).sum() for j in range(n)] for i in range(n)])
    return (1 - lam) * jaccard + lam * d


def standardize(neighbors, k, floor):
    s, listed, _ = sims(neighbors)
    n = len(s)
    mean, dev = np.zeros(n), np.ones(n)
    for i in range(n):
        top = [float(v) for j, v in zip(neighbors.ids[i][1:k + 1], neighbors.scores[i][1:k + 1]) if j >= 0]
        if top: mean[i], dev[i] = np.mean(top), np.std(top)
    dev = np.maximum(dev, floor)
    return np.array([[((s[i, j] - mean[i]) / dev[i] + (s[i, j] - mean[j]) / dev[j]) / 2 for j in range(n)] for i in range(n)]), listed


def decide_by_rank(ids, scores, cuts, max_matches):
    return [[i] + [int(j) for r, (j, s) in enumerate(zip(ids[i][1:max_matches], scores[i][1:max_matches]))
                   if j >= 0 and float(s) >= cuts[min(r, len(cuts) - 1)]] for i in range(len(ids))]


def best_by_rank(ids, scores, labels, rows, max_matches, ranks):
    "Mean row F1 of the best cuts that don't fall with the rank, every combination tried."
    import itertools
    edges = sorted({float(s) for i in rows for j, s in zip(ids[i][1:max_matches], scores[i][1:max_matches]) if j >= 0}) + [INF]
    def mean(cuts):
        f1 = row_f1(decide_by_rank(ids, scores, cuts, max_matches), labels)
        return sum(f1[i] for i in rows) / len(rows)
    return max(mean(o) for o in itertools.combinations_with_replacement(edges, ranks))


def union(cand, names, cuts, always):
    a, b = (cand.scores[k] for k in names)
    return [[i] + [int(j) for c, j in enumerate(row) if c and j >= 0 and (always[i, c] or float(a[i, c]) >= cuts[0] or float(b[i, c]) >= cuts[1])]
            for i, row in enumerate(cand.ids)]


def best_union(cand, names, labels, rows, always):
    "Mean row F1 of the best of all pairs of cuts."
    edges = [sorted({float(s) for i in rows for c, s in enumerate(cand.scores[k][i]) if c and cand.ids[i, c] >= 0}) + [INF] for k in names]
    return max(np.mean(row_f1(union(cand, names, (s, t), always), labels)[list(rows)]) for s in edges[0] for t in edges[1])


def min2(sets, ids, scores, threshold, mutual, gap):
    res = []
    for i, found in enumerate(sets):
        others = [(int(j), float(s)) for j, s in zip(ids[i][1:], scores[i][1:]) if j >= 0]
        if len(found) == 1 and others:
            (j, s), lead = others[0], others[0][1] - others[1][1] if len(others) > 1 else INF
            back = [int(o) for o in ids[j][1:2] if o >= 0]
            if (threshold is None or s >= threshold) and (gap is None or lead >= gap) and (not mutual or back == [i]): found = [i, j]
        res.append(list(found))
    return res


def chisel(ids, scores, shares):
    n = len(ids)
    sets = [[i] for i in range(n)]
    for rank, share in enumerate(shares, 1):
        ready = [i for i in range(n) if len(sets[i]) == rank and rank < len(ids[i]) and ids[i][rank] >= 0]
        room = int(round(share * n))
        for i in ready:
            # in, if all with this score or a better one fit
            if sum(float(scores[j][rank]) >= float(scores[i][rank]) for j in ready) <= room: sets[i].append(int(ids[i][rank]))
    return sets


def pair_scores(neighbors):
    "Symmetric n x n of the better of two scores; -inf where neither lists the other."
    s, _, _ = sims(neighbors, -INF)
    s = np.maximum(s, s.T)
    np.fill_diagonal(s, -INF)
    return s


def agglomerate(neighbors, mean_size, least):
    "Average linkage from the definition: means over all pairs of two groups, unlisted ones 0."
    s = pair_scores(neighbors)
    s[s == -INF] = 0
    groups = [[i] for i in range(len(s))]
    while len(s) / len(groups) < mean_size and len(groups) > 1:
        mean = {(a, b): np.mean([s[i, j] for i in groups[a] for j in groups[b]]) for a in range(len(groups)) for b in range(a)}
        (a, b), best = max(mean.items(), key=lambda o: o[1])
        if best < least or best <= 0: break
        groups = [o for i, o in enumerate(groups) if i not in (a, b)] + [groups[a] + groups[b]]
    return {frozenset(o) for o in groups}


def tiers(neighbors, merge, join, pair):
    s = pair_scores(neighbors)
    n = len(s)
    groups = {i: {i} for i in range(n)}
    for _, i, j in sorted((-s[a, b], a, b) for a in range(n) for b in range(a + 1, n) if s[a, b] >= pair):
        a, b = groups[i], groups[j]
        if a is b: continue
        least = pair if len(a) == len(b) == 1 else join if 1 in (len(a), len(b)) else merge
        if s[i, j] >= least:
            for o in a | b: groups[o] = a | b
            both = groups[i]
            for o in both: groups[o] = both
    return {frozenset(o) for o in groups.values()}
