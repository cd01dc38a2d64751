"Features of a pair of listings as they read, a loop a pair, float64."
import math
import re


def levenshtein(first, second):
    "The number of letters to insert, delete or replace."
    above = list(range(len(second) + 1))
    for i, letter in enumerate(first, 1):
        row = [i]
        for j, other in enumerate(second, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (letter != other)))
        above = row
    return above[-1]


def pagerank(weights, damping=.85, steps=400):
    "Dense, `weights[i][j]` of the link i -> j."
    n = len(weights)
    ranks = [1 / n] * n
    for _ in range(steps):
        following = [(1 - damping) / n] * n
        for i in range(n):
            total = sum(weights[i])
            for j in range(n):
                share = weights[i][j] / total if total > 0 else 1 / n
                following[j] += damping * ranks[i] * share
        ranks = following
    return ranks


def overlap(first, second):
    "Words in common over words in both together; -1 where one has none."
    first, second = set(first), set(second)
    return len(first & second) / len(first | second) if first and second else -1.


def mean(values): return sum(values) / len(values) if values else 0.


def features(near, scores, keys, titles, radii, top):
    "{(i, j): {name: number}}; `near[i]`: candidates of i, `scores[modality][i][j]`, `keys`: exact keys."
    n = len(near)
    modalities = [name for name in scores if name not in keys]
    def weight(i, j): return max(0., sum(scores[name][i][j] for name in modalities) / len(modalities))
    weights = [[weight(i, j) if j in near[i] else 0. for j in range(n)] for i in range(n)]
    ranks = pagerank(weights)
    words = [re.findall(r'[a-z0-9]+', title.lower()) for title in titles]
    codes = [[word for word in of_title if re.search(r'\d', word)] for of_title in words]
    found = {}
    for i in range(n):
        for j in near[i]:
            values = {}
            for name in scores:
                values[name] = scores[name][i][j]
                if name not in keys: values |= of_modality(name, i, j, near, scores[name], radii[name], top)
            for side, listing in (('_i', i), ('_j', j)):
                values[f'pagerank{side}'] = n * ranks[listing]
                values[f'length{side}'] = len(titles[listing])
            first, second = titles[i].lower(), titles[j].lower()
            values['edit'] = 1 - levenshtein(first, second) / max(len(first), len(second), 1)
            values['words'], values['codes'] = overlap(words[i], words[j]), overlap(codes[i], codes[j])
            found[i, j] = values
    return found


def of_modality(name, i, j, near, scores, radii, top):
    "The features of a pair that one modality gives."
    def rank(i, j):
        if j not in near[i]: return len(near[i]) + 1
        return 1 + sum(scores[i][other] > scores[i][j] for other in near[i])
    values = {f'{name} rank': rank(i, j), f'{name} rank back': rank(j, i)}
    for side, listing in (('_i', i), ('_j', j)):
        of_listing = [scores[listing][other] for other in near[listing]]
        for number, radius in enumerate(radii):
            values[f'{name} within {number}{side}'] = sum(score >= radius for score in of_listing)
        best = sorted(of_listing, reverse=True)[:top]
        values[f'{name} top mean{side}'] = mean(best)
        values[f'{name} top deviation{side}'] = math.sqrt(mean([(score - mean(best))**2 for score in best]))
    return values
