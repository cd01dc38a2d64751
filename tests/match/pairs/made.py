"Listings of which pictures tell half and titles the other, and a linear classifier."
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastmatch.match import Dense, Keys, Pool, Tfidf, Titles, Units, candidates


def spaces(n_groups=60, seed=0):
    "Groups of two to five; pictures tell half of it, titles the other: (spaces, groups, titles)."
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(2, 6, n_groups))
    n = len(groups)
    vectors = rng.normal(size=(n_groups, 12))[groups] + 1.3 * rng.normal(size=(n, 12))
    full_titles = [f'brand{group % 7} item{rng.integers(99)} {group * 13 % 97}ml'
                   for group in range(n_groups)]
    titles = []
    for title in (full_titles[group] for group in groups):
        titles.append(title if rng.random() < .6 else ' '.join(title.split()[:2]))
    keys = [f'h{group}' if rng.random() < .1 else None for group in groups]
    return {'image': Dense(vectors), 'tfidf': Tfidf(titles), 'phash': Keys(keys)}, groups, titles


def listings(n_groups=60, seed=0):
    "The same as candidates: (candidates, groups, titles)."
    made, groups, titles = spaces(n_groups, seed)
    return candidates(made, 20), groups, titles


def in_a_catalogue(n_groups=60, seed=0, known=40):
    "Listings of `known` groups behind those of others: (spaces, groups, how many others)."
    made, groups, titles = spaces(n_groups, seed)
    made |= {'titles': Titles(titles), 'units': Units(titles)}
    order = np.random.default_rng(seed).permutation(len(groups))
    order = np.concatenate([order[groups[order] >= known], order[groups[order] < known]])
    n_rows = int((groups >= known).sum())
    return {name: space.take(order) for name, space in made.items()}, groups[order], n_rows


def pools(made, n_rows):
    "The first listings as new ones, the others as a catalogue."
    is_first = np.arange(len(next(iter(made.values())))) < n_rows
    return {name: Pool(space.take(is_first), space.take(~is_first)) for name, space in made.items()}


def linear(): return make_pipeline(StandardScaler(), LogisticRegression())
