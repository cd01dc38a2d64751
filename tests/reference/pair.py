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


def worths(texts):
    "{word: worth} where `texts` are sets of words: the logarithm of texts over those that hold it."
    return {word: math.log(len(texts) / sum(word in text for text in texts)) for word in set().union(*texts)}


def shares(name, first, second, worth):
    "What two sets of words hold in common, its share in either, and what is left over of it."
    common = sum(worth[word] for word in first & second)
    values = {f'{name} common': common}
    for suffix, words in (('', first), (' back', second)):
        total = sum(worth[word] for word in words)
        values[f'{name} share{suffix}'] = common / total if total > 0 else -1.
        values[f'{name} left{suffix}'] = total - common
    return values


def numbers(title):
    "The numbers of a title, '05' and '5.0' written '5'."
    found = re.findall(r'[0-9]+(?:[.][0-9]+)?', re.sub(r'(?<=[0-9]),(?=[0-9]{3}(?![0-9]))', '', title))
    return {str(float(number)) for number in found}


def model_numbers(title):
    "The six longest of what looks like a model number."
    pieces = {re.sub(r'[^a-z0-9]', '', piece) for piece in re.split(r'[\s,;()\[\]]+', title)}
    codes = [piece for piece in pieces
             if re.search('[0-9]', piece) and len(piece) >= (5 if piece.isdigit() else 4)]
    return sorted(codes, key=lambda code: (-len(code), code))[:6]


def common_start(first, second):
    "How many letters two words start with in common."
    return next((position for position, (letter, other) in enumerate(zip(first, second)) if letter != other),
                min(len(first), len(second)))


def code_values(first, second):
    "How well the model numbers of two titles agree."
    own_codes, other_codes = model_numbers(first), model_numbers(second)
    values = {'code count_i': len(own_codes), 'code count_j': len(other_codes),
              'code alike': -1, 'code start': -1}
    for suffix, codes, other in (('', own_codes, second), (' back', other_codes, first)):
        letters = re.sub('[^a-z0-9]', '', other)
        found = max((len(code) for code in codes if code in letters), default=0)
        values[f'code found{suffix}'] = found if codes else -1
    if own_codes and other_codes:
        both = [(code, other) for code in own_codes for other in other_codes]
        values['code alike'] = max(1 - levenshtein(*codes) / max(map(len, codes)) for codes in both)
        values['code start'] = max(common_start(*codes) for codes in both)
    return values


def indel(first, second):
    "1 - letters to insert and to delete over the letters of both."
    longest = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, letter in enumerate(first):
        for j, other in enumerate(second):
            equal = longest[i][j] + 1
            longest[i + 1][j + 1] = equal if letter == other else max(longest[i][j + 1], longest[i + 1][j])
    letters = len(first) + len(second)
    return 2 * longest[-1][-1] / letters if letters else 1.


def ratio_values(first, second):
    "Sorted words against sorted words, and the words of both against those of either."
    if not first or not second: return {'sorted ratio': -1, 'set ratio': -1}
    both = set(first) & set(second)
    rests = [' '.join(sorted(set(words) - both)) for words in (first, second)]
    common = ' '.join(sorted(both))
    whole = [f'{common} {rest}'.strip() for rest in rests]
    of_sets = indel(*whole)
    if common: of_sets = max(of_sets, *(indel(common, text) for text in whole))
    return {'sorted ratio': indel(' '.join(sorted(first)), ' '.join(sorted(second))), 'set ratio': of_sets}


class Titles:
    "What is said of pairs of titles."
    def __init__(self, titles):
        self.titles = [title.lower() for title in titles]
        self.words = [re.findall(r'[a-z0-9]+', title) for title in self.titles]
        letters = [''.join(words) for words in self.words]
        self.sets = {'word': [set(words) for words in self.words],
                     'gram': [{text[start:start + 3] for start in range(len(text) - 2)} for text in letters],
                     'number': [numbers(title) for title in self.titles]}
        self.worth = {name: worths(sets) for name, sets in self.sets.items()}

    def of(self, i, j):
        "The features of one pair."
        values = {}
        for name, sets in self.sets.items(): values |= shares(name, sets[i], sets[j], self.worth[name])
        own, other = self.sets['number'][i], self.sets['number'][j]
        values |= shares('numbers', own, other, dict.fromkeys(own | other, 1))
        values['number clash'] = bool(own - other) and bool(other - own)
        worth, words = self.worth['word'], self.sets['word']
        def rarest(rare_words): return max((worth[word] for word in rare_words), default=0)
        values |= {'word rarest': rarest(words[i] & words[j]), 'word lacking': rarest(words[i] - words[j]),
                   'word lacking back': rarest(words[j] - words[i])}
        values |= code_values(self.titles[i], self.titles[j])
        return values | ratio_values(self.words[i], self.words[j])


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
    of_titles = Titles(titles)
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
            all_features[listing, other] = pair_values | of_titles.of(listing, other)
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
