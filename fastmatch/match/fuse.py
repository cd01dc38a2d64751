"Several modalities as one score: candidates of each, scored exactly in all, then fused."
from dataclasses import dataclass

import numpy as np

from ..core import InputError
from .keys import Keys
from .neighbors import Neighbors

FUSIONS = ['mean', 'prob_or', 'union']


@dataclass
class Candidates:
    "The union of the modalities' neighbours, each scored in every modality."
    ids: np.ndarray  # int64 (n,K), itself first, padded with -1
    scores: dict  # modality -> float32 (n,K), -inf at the padding
    k: int = 50  # Neighbours that were taken from each modality
    join: tuple = ()  # Modalities of exact keys: they are not fused, a pair that is equal in one matches
    pool: int | None = None  # Listings that ids may point to; None: as many as there are rows


def candidates(
    spaces: dict,  # Modality -> space (`Dense`, `Tfidf`, `Keys`), or `Pool` of such, over the same listings in the same order
    k: int = 50,  # Neighbours taken from each, the listing itself included
) -> Candidates:
    "Search every modality, and score every candidate in all of them from its vectors."
    if not spaces: raise InputError('spaces: give one modality at least')
    sizes = {name: len(o) for name, o in spaces.items()}
    if len(set(sizes.values())) > 1: raise InputError(f'modalities of different length: {sizes}')
    n = next(iter(sizes.values()))
    pools = {name: o.pool for name, o in spaces.items()}
    if len(set(pools.values())) > 1: raise InputError(f'modalities with catalogues of different length: {pools}')
    pool = next(iter(pools.values()))
    found = [o.search(min(k, pool)).pairs() for o in spaces.values()]
    rows, ids = np.concatenate([o[0] for o in found]), np.concatenate([o[1] for o in found])
    # one number a pair; itself first in each row, so that it stands at column 0
    key = np.unique(rows * (pool + 1) + np.where(ids == rows, 0, ids + 1))
    rows, ids = key // (pool + 1), key % (pool + 1) - 1
    ids = np.where(ids < 0, rows, ids)
    count = np.bincount(rows, minlength=n)
    at = np.arange(len(rows)) - np.repeat(count.cumsum() - count, count)
    grid = np.full((n, count.max()), -1, np.int64)
    grid[rows, at] = ids
    scores = {name: o.scores(np.arange(n)[:, None], grid) for name, o in spaces.items()}
    join = tuple(name for name, o in spaces.items() if isinstance(getattr(o, 'new', o), Keys))
    return Candidates(grid, scores, k, join, pool)


def fuse(
    cand: Candidates,  # As `candidates` gives them
    how: str = 'mean',  # 'mean': weighted mean; 'prob_or': 1 - prod(1 - score**power); 'union': largest score above its own threshold
    weights: dict | None = None,  # Modality -> weight, power or threshold; default 1 of each modality (0 for 'union')
    join: tuple | None = None,  # Exact keys that match by themselves: an equal pair scores 1 at least; default all of the candidates'
) -> Neighbors:
    "One score for each candidate from those of its modalities."
    if how not in FUSIONS: raise InputError(f'how={how!r}: choose one of {", ".join(FUSIONS)}')
    join = cand.join if join is None else join
    if unknown := set(join) - set(cand.join): raise InputError(f'join={sorted(unknown)}: the candidates hold the keys {list(cand.join)}')
    if weights is None: weights = dict.fromkeys((k for k in cand.scores if k not in cand.join), 0. if how == 'union' else 1.)
    check_weights(how, weights)
    if unknown := set(weights) - set(cand.scores): raise InputError(f'weights name {sorted(unknown)}; the candidates hold {list(cand.scores)}')
    used = {k: w for k, w in weights.items() if how == 'union' or w > 0}
    if how == 'mean':
        total = sum(used.values())
        score = sum(np.float32(w / total) * cand.scores[k] for k, w in used.items())
    elif how == 'prob_or':
        miss = np.ones(cand.ids.shape, np.float32)
        for k, w in used.items(): miss *= 1 - np.clip(cand.scores[k], 0, 1)**np.float32(w)
        score = 1 - miss
    else: score = np.max([cand.scores[k] - np.float32(t) for k, t in used.items()], axis=0)
    for name in join: score = np.where(cand.scores[name] == 1, np.maximum(score, 1), score)
    return _sorted(cand.ids, score.astype(np.float32))


def check_weights(how, weights):
    "Raise `InputError` for weights that `how` can't use."
    bad = {k: w for k, w in weights.items() if not np.isfinite(w) or (how != 'union' and w < 0)}
    if bad: raise InputError(f'weights={bad}: finite numbers' + ('' if how == 'union' else ', 0 or more'))
    if not weights or (how != 'union' and not any(w > 0 for w in weights.values())): raise InputError(f'weights={weights}: none is above 0')


def _sorted(ids, score):
    n = len(ids)
    others = np.where(ids[:, 1:] >= 0, score[:, 1:], -np.inf)
    # ids stand in rising order behind the first column, and a stable sort keeps that order in ties
    order = np.argsort(-others, axis=1, kind='stable')
    # rank 0 is the best score by promise, also where a fusion gives the listing itself less
    own = score[:, :1] if others.shape[1] == 0 else np.maximum(score[:, :1], others.max(1, keepdims=True))
    out = Neighbors(np.concatenate([ids[:, :1], np.take_along_axis(ids[:, 1:], order, 1)], 1),
                    np.concatenate([own, np.take_along_axis(others, order, 1)], 1).astype(np.float32))
    if not (out.ids[:, 0] == np.arange(n)).all(): raise InputError('candidates: each listing itself must stand at column 0')
    return out
