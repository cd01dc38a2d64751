"Features of a pair of listings as they read, a loop a pair, float64."
import math
import re


def levenshtein(a, b):
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1): row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (x != y)))
        last = row
    return last[-1]


def pagerank(weights, damping=.85, steps=400):
    "Dense, `weights[i][j]` of the link i -> j."
    n = len(weights)
    p = [1 / n] * n
    for _ in range(steps):
        new = [(1 - damping) / n] * n
        for i in range(n):
            total = sum(weights[i])
            for j in range(n): new[j] += damping * p[i] * (weights[i][j] / total if total > 0 else 1 / n)
        p = new
    return p


def overlap(a, b):
    a, b = set(a), set(b)
    return len(a & b) / len(a | b) if a and b else -1.


def features(near, scores, keys, titles, radii, top):
    "{(i, j): {name: number}}; `near[i]` the candidates of i, `scores[modality][i][j]`, `keys` the modalities of exact keys."
    n, res = len(near), {}
    plain = [k for k in scores if k not in keys]
    weights = [[max(0., sum(scores[k][i][j] for k in plain) / len(plain)) if j in near[i] else 0. for j in range(n)] for i in range(n)]
    rank_of = pagerank(weights)
    def rank(k, i, j): return 1 + sum(scores[k][i][o] > scores[k][i][j] for o in near[i]) if j in near[i] else len(near[i]) + 1
    def best(k, i): return sorted((scores[k][i][o] for o in near[i]), reverse=True)[:top]
    def mean(x): return sum(x) / len(x) if x else 0.
    words = [re.findall(r'[a-z0-9]+', o.lower()) for o in titles]
    codes = [[w for w in o if re.search(r'\d', w)] for o in words]
    for i in range(n):
        for j in near[i]:
            f = {}
            for k in scores:
                f[k] = scores[k][i][j]
                if k in keys: continue
                f[f'{k} rank'], f[f'{k} rank back'] = rank(k, i, j), rank(k, j, i)
                for side, o in (('_i', i), ('_j', j)):
                    for r, radius in enumerate(radii[k]): f[f'{k} within {r}{side}'] = sum(scores[k][o][m] >= radius for m in near[o])
                    b = best(k, o)
                    f[f'{k} top mean{side}'] = mean(b)
                    f[f'{k} top deviation{side}'] = math.sqrt(mean([(v - mean(b))**2 for v in b]))
            for side, o in (('_i', i), ('_j', j)): f[f'pagerank{side}'], f[f'length{side}'] = n * rank_of[o], len(titles[o])
            a, b = titles[i].lower(), titles[j].lower()
            f['edit'] = 1 - levenshtein(a, b) / max(len(a), len(b), 1)
            f['words'], f['codes'] = overlap(words[i], words[j]), overlap(codes[i], codes[j])
            res[i, j] = f
    return res
