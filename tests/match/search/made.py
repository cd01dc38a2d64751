"Small listings that tests of the search for a rule share."
import numpy as np

from fastmatch.match import Embeddings, among_themselves, in_the_catalogue
from fastmatch.match.search.menu import Menu
from fastmatch.match.steps.step import Step

# a few options of each kind, so that a test takes a second
FEW = Menu(
    refinements=(
        (Step('augment', by='fused', k=2),),
        (Step('augment', k=3), Step('expand', by='fused', k=2)),
    ),
    blends=((0.0, 1, 4, False),),
    rerankings=((Step('k_reciprocal', k1=3, k2=2, lam=0.3),),),
    vetoes=((Step('veto'),), (Step('mutual', k=8),)),
)


def listings(n_listings=120, n_groups=40, seed=0, noise=1., hashes=True):
    "Listings of two modalities, with titles and a few perceptual hashes."
    rng = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(n_groups), rng.integers(0, n_groups, n_listings - n_groups)])

    def vectors(width): return rng.normal(size=(n_groups, width))[groups] + noise * rng.normal(
        size=(n_listings, width))
    titles = [f'tea {group % 7} no {rng.integers(0, 9)} {250 * (1 + group % 3)}ml' for group in groups]
    phash = [f'h{group}' if row % 9 == 0 else None for row, group in enumerate(groups)] if hashes else None
    vectors_by_modality = {'image': vectors(8), 'title': vectors(6)}
    return Embeddings(vectors_by_modality, np.arange(n_listings), titles, groups, phash=phash)


def settings(embeddings):
    "Both settings, a third of the groups being looked up."
    looked_up = embeddings.groups % 3 == 0
    return among_themselves(embeddings.take(looked_up)), in_the_catalogue(embeddings, looked_up)
