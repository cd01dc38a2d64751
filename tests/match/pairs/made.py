"Listings of which pictures tell half and titles the other, and a linear classifier."
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastmatch.match import Dense, Keys, Tfidf, candidates


def listings(n_groups=60, seed=0):
    "Groups of two to five; pictures tell half of it, titles the other: (candidates, groups, titles)."
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
    scored_candidates = candidates({'image': Dense(vectors), 'tfidf': Tfidf(titles), 'phash': Keys(keys)}, 20)
    return scored_candidates, groups, titles


def linear(): return make_pipeline(StandardScaler(), LogisticRegression())
