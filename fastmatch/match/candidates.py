"Candidates."
from dataclasses import dataclass

import numpy as np

from ..core import InputError
from .neighbors import NEAREST, resolve_k
from .spaces.keys import Keys
from .spaces.pool import Pool


@dataclass
class Candidates:
    "The union of the modalities' neighbours, each scored in every modality."
    ids: np.ndarray  # int64 (n,K), itself first, padded with -1
    scores: dict  # modality -> float32 (n,K), -inf at the padding
    k: int = NEAREST  # Neighbours asked for of each modality
    join: tuple = ()  # Modalities of exact keys: they are not fused, a pair that is equal in one matches
    pool: int | None = None  # Listings that ids may point to; None: as many as there are rows
    present: dict | None = None  # modality -> bool (pool,): the listing has something there (no empty title); None: all have
    rows: np.ndarray | None = None  # int (m,), the row of each pair where `ids` and `scores` hold loose pairs (m,); None: a grid


def candidates(
    spaces: dict,  # Modality -> space (`Dense`, `Tfidf`, `Keys`), or `Pool` of such, over the same listings in the same order
    k: int | None = None,  # Neighbours taken from each, the listing itself included; None: 50, or as many as there are where fewer
) -> Candidates:
    "Search every modality, and score every candidate in all of them from its vectors."
    if not spaces: raise InputError('spaces: give one modality at least')
    sizes = {name: len(o) for name, o in spaces.items()}
    if len(set(sizes.values())) > 1: raise InputError(f'modalities of different length: {sizes}')
    n = next(iter(sizes.values()))
    pools = {name: o.pool for name, o in spaces.items()}
    if len(set(pools.values())) > 1: raise InputError(f'modalities with catalogues of different length: {pools}')
    pool = next(iter(pools.values()))
    most = resolve_k(k, pool)
    removed = np.any([o.removed for o in spaces.values()], axis=0)
    key = np.concatenate([_keys(o.search(most).ids, removed, pool) for o in spaces.values()])
    # np.unique hashes whole numbers before it sorts them, which takes twenty times as long
    key.sort()
    key = key[np.append(True, key[1:] != key[:-1])]
    # a few arrays of the pairs' size, one dropped as the next is made: they are what a whole rule's memory peaks with
    rows, ids = np.divmod(key, pool + 1)
    del key
    ids -= 1
    np.copyto(ids, rows, where=ids < 0)
    count = np.bincount(rows, minlength=n)
    at = np.arange(len(rows))
    at -= (count.cumsum() - count)[rows]
    grid = np.full((n, count.max()), -1, np.int64)
    grid[rows, at] = ids
    del rows, ids, at
    scores = {name: o.scores(np.arange(n)[:, None], grid) for name, o in spaces.items()}
    join = tuple(name for name, o in spaces.items() if isinstance(getattr(o, 'new', o), Keys))
    # by default a rule chosen on few listings takes 50 among more
    return Candidates(grid, scores, NEAREST if k is None else k, join, pool, {name: _present(o) for name, o in spaces.items()})


def _keys(ids, removed, pool):
    "A number for each pair found: by row, itself first, so that it stands at column 0."
    own = np.arange(len(ids))[:, None]
    key, keep = np.where(ids == own, 0, ids + 1), ids >= 0
    # removed from one modality is removed
    if removed.any(): keep &= (ids == own) | ~(removed[own] | removed[ids])
    key += own * (pool + 1)
    return key[keep]


def _present(space):
    if isinstance(space, Pool): return np.concatenate([_present(o) for o in (space.new, space.catalogue) if o is not None])
    i = np.arange(len(space))
    return space.scores(i, i) > 0
