"Listings whose pictures look alike in twos, so that further columns decide which are the same product."
import numpy as np

from fastmatch.match import Embeddings


def fielded(n_groups=24, known=.8, seed=0, codes=None, source=None):
    """Three listings of each group: two groups share a look, a title and a kind of note; `known` of the cells
    are there."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), 3)
    looks = rng.normal(size=(-(-n_groups // 2), 12))
    vectors = looks[groups // 2] + .35 * rng.normal(size=(len(groups), 12))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def some(cells): return [cell if rng.random() < known else None for cell in cells]
    fields = {
        'modelno': ('code', some([f'AB{group * 7919 % 100003:05d}' for group in groups])),
        'price': ('number', some([f'{10 + group % 7}.50 USD' for group in groups])),
        'brand': ('category', some([f'Brand {group % 3}' for group in groups])),
        'notes': ('text', some([f'lamp of kind {group // 2}' for group in groups]))}
    return Embeddings({'image': vectors}, [f'p{row}' for row in range(len(groups))], groups=groups,
                      titles=[f'lamp {group // 2}' for group in groups], fields=fields, source=source)
