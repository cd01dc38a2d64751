"Features of a pair of listings as they read, a loop a pair, float64."
import math
import re


def levenshtein(first, second):
    "The number of letters to insert, delete or replace."
    row_above = list(range(len(second) + 1))
    for position, letter in enumerate(first, 1):
        row = [position]
        for column, other_letter in enumerate(second, 1):
            replaced = row_above[column - 1] + (letter != other_letter)
            row.append(min(row_above[column] + 1, row[-1] + 1, replaced))
        row_above = row
    return row_above[-1]


def pagerank(weights, damping=.85, steps=400):
    "Dense, `weights[i][j]` of the link i -> j."
    n = len(weights)
    ranks = [1 / n] * n
    for _ in range(steps):
        following = [(1 - damping) / n] * n
        for source in range(n):
            total = sum(weights[source])
            for target in range(n):
                share = weights[source][target] / total if total > 0 else 1 / n
                following[target] += damping * ranks[source] * share
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
    modalities = [modality for modality in scores if modality not in keys]
    def weight(i, j): return max(0., sum(scores[modality][i][j] for modality in modalities) / len(modalities))
    weights = [[weight(i, j) if j in near[i] else 0. for j in range(n)] for i in range(n)]
    ranks = pagerank(weights)
    words = [re.findall(r'[a-z0-9]+', title.lower()) for title in titles]
    codes = [[word for word in of_title if re.search(r'\d', word)] for of_title in words]
    all_features = {}
    for listing in range(n):
        for other in near[listing]:
            pair_values = {}
            for modality in scores:
                pair_values[modality] = scores[modality][listing][other]
                if modality in keys: continue
                pair_values |= of_modality(
                    modality, listing, other, near, scores[modality], radii[modality], top)
            for side, of_side in (('_i', listing), ('_j', other)):
                pair_values[f'pagerank{side}'] = n * ranks[of_side]
                pair_values[f'length{side}'] = len(titles[of_side])
            first, second = titles[listing].lower(), titles[other].lower()
            pair_values['edit'] = 1 - levenshtein(first, second) / max(len(first), len(second), 1)
            pair_values['words'] = overlap(words[listing], words[other])
            pair_values['codes'] = overlap(codes[listing], codes[other])
            all_features[listing, other] = pair_values
    return all_features


def of_modality(modality, i, j, near, scores, radii, top):
    "The features of a pair that one modality gives."
    def rank(i, j):
        if j not in near[i]: return len(near[i]) + 1
        return 1 + sum(scores[i][other] > scores[i][j] for other in near[i])
    values = {f'{modality} rank': rank(i, j), f'{modality} rank back': rank(j, i)}
    for side, listing in (('_i', i), ('_j', j)):
        listed_scores = [scores[listing][other] for other in near[listing]]
        for number, radius in enumerate(radii):
            values[f'{modality} within {number}{side}'] = sum(score >= radius for score in listed_scores)
        best_scores = sorted(listed_scores, reverse=True)[:top]
        top_mean = mean(best_scores)
        values[f'{modality} top mean{side}'] = top_mean
        variance = mean([(score - top_mean)**2 for score in best_scores])
        values[f'{modality} top deviation{side}'] = math.sqrt(variance)
    return values
