"Small listings and rules' workbenches that tests of studies share."
import numpy as np

from fastmatch.match import Embeddings
from fastmatch.study.rule_space import RuleChoices
from fastmatch.study.workbench import Workbench


def embeddings(n_listings=120, n_groups=40, seed=0, noise=.8):
    "Listings whose image and title vectors are their group's, with noise."
    rng = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(n_groups), rng.integers(0, n_groups, n_listings - n_groups)])

    def noisy_vectors():
        return rng.normal(size=(n_groups, 8))[groups] + noise * rng.normal(size=(n_listings, 8))
    vectors = {'image': noisy_vectors(), 'title': noisy_vectors()}
    return Embeddings(vectors, np.arange(n_listings), groups=groups)


def workbench(listings, steps=('none',), groups=None):
    "A workbench with 20 candidates a modality, without `tune_rule` around it."
    choices = RuleChoices(hows=('mean', 'prob_or', 'union'), steps=steps, max_matches=50)
    return Workbench(listings.spaces(), listings.groups if groups is None else groups, 20, choices)
