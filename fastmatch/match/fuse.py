"Several modalities as one score: candidates of each, scored exactly in all, then fused."
from functools import reduce

import numpy as np

from ..core import InputError
from .candidates import Candidates
from .neighbors import Neighbors
from .spaces.dense import Dense

FUSIONS = ['mean', 'square', 'joint', 'prob_or', 'power', 'union', 'above', 'piecewise']
THRESHOLD_FUSIONS = ('power', 'union', 'above')  # fusions whose weights are thresholds


def ensemble(
    spaces,  # `Dense` spaces over the same listings: several encoders of one modality
    weights=None,  # One each; default equal
    name: str = 'ensemble',  # What to call the vectors in messages
) -> Dense:
    "Several encoders as one: their vectors side by side, so that the cosine is the weighted mean of theirs."
    spaces = list(spaces)
    if not spaces or not all(isinstance(o, Dense) for o in spaces):
        raise InputError(f'ensemble of {[type(o).__name__ for o in spaces]}: give Dense spaces')
    if len({len(o) for o in spaces}) > 1: raise InputError(f'encoders of different length: {[len(o) for o in spaces]}')
    weights = np.ones(len(spaces)) if weights is None else np.asarray(weights, np.float64)
    if weights.shape != (len(spaces),) or not (np.isfinite(weights) & (weights >= 0)).all() or not weights.any():
        raise InputError(f'weights={weights.tolist()}: {len(spaces)} numbers, 0 or more, one above 0')
    both = Dense(np.concatenate([np.sqrt(w) * o.vectors for w, o in zip(weights, spaces) if w > 0], 1), name)
    # of indexes an index
    res = next((o for o in spaces if type(o) is not Dense), both)._with_vectors(both.vectors, np.any([o.removed for o in spaces], axis=0))
    res.name = name
    return res


def fuse(
    cand: Candidates,  # As `candidates` gives them
    how: str = 'mean',  # One of `FUSIONS`: see `_score`
    weights: dict | None = None,  # Modality -> weight, power or threshold; default `equal_weights`
    join: tuple | None = None,  # Exact keys that match by themselves: an equal pair scores as what is equal in all, 1 at least; default all
    power: float = 6.,  # Of 'power': the higher, the nearer to 'union'
    planes=None,  # Of 'piecewise': pairs ({modality: weight}, cut)
) -> Neighbors:
    "One score for each candidate from those of its modalities."
    if how not in FUSIONS: raise InputError(f'how={how!r}: choose one of {", ".join(FUSIONS)}')
    join = cand.join if join is None else join
    if unknown := set(join) - set(cand.join): raise InputError(f'join={sorted(unknown)}: the candidates hold the keys {list(cand.join)}')
    if weights is None: weights = equal_weights(cand, how)
    check_weights(how, weights, power, planes)
    if unknown := set(weights) - set(cand.scores): raise InputError(f'weights name {sorted(unknown)}; the candidates hold {list(cand.scores)}')
    return sorted_neighbors(cand.ids, fused_scores(cand, how, weights, join, power, planes))


def equal_weights(
    cand: Candidates,  # Whose modalities
    how: str = 'mean',  # One of `FUSIONS`
) -> dict:  # Modality -> 1 (0 for 'union' and 'above')
    "All modalities alike, exact keys left out."
    return dict.fromkeys((k for k in cand.scores if k not in cand.join), 0. if how in ('union', 'above') else 1.)


def fused_scores(
    cand: Candidates,  # A grid, or loose pairs
    how: str,  # One of `FUSIONS`
    weights: dict,  # Modality -> weight, power or threshold
    join: tuple,  # Exact keys that match by themselves
    power: float = 6.,  # Of 'power'
    planes=None,  # Of 'piecewise'
) -> np.ndarray:  # float32, in the shape of the candidates
    "The fused score of each pair, unchecked and unsorted."
    score = _score(cand, how, {k: w for k, w in weights.items() if how in THRESHOLD_FUSIONS or w != 0}, power, planes)
    top = _most(cand, how, weights, power, planes) if join else 1.
    for name in join: score = np.where(cand.scores[name] == 1, np.maximum(score, top), score)
    return score.astype(np.float32, copy=False)


def _most(cand, how, weights, power, planes):
    "The score of a pair that is equal in everything: that of a sum over thresholds is above 1."
    if how not in (*THRESHOLD_FUSIONS, 'piecewise'): return 1.
    one = Candidates(np.zeros((1, 1), np.int64), {k: np.ones((1, 1), np.float32) for k in cand.scores})
    return max(1., float(_score(one, how, weights, power, planes)[0, 0]))


def _score(cand, how, weights, power, planes):
    f32, some_of = np.float32, ((cand.scores[k], np.float32(w)) for k, w in weights.items())
    total = sum(weights.values())
    match how:
        case 'mean': return sum(f32(w / total) * cand.scores[k] for k, w in weights.items())
        # weighted mean of squared cosines (Kaggle Shopee, 4th place)
        case 'square': return sum(f32(w / total) * np.maximum(cand.scores[k], 0)**2 for k, w in weights.items())
        # the vectors side by side, each times the root of its weight: the mean, but what a listing lacks doesn't count against it
        case 'joint': return sum(w * s for s, w in some_of) / _norm(cand, weights)
        # 1 - prod(1 - score**weight)
        case 'prob_or':
            miss = np.ones(cand.ids.shape, f32)
            for s, w in some_of: miss *= 1 - _power(np.clip(s, 0, 1), w)
            return 1 - miss
        # ((a/t1)^p + (b/t2)^p)^(1/p), cut at 1 (11th place)
        case 'power':
            parts = [np.maximum(s, 0) / t for s, t in some_of]
            # over the largest first: a high power of what is above 1 has no end
            most = np.maximum(reduce(np.maximum, parts), f32(1e-30))
            return most * _power(sum(_power(o / most, f32(power)) for o in parts), f32(1 / power))
        # the largest score above its own threshold: cut at 0 it is a union of decisions
        case 'union': return reduce(np.maximum, [s - t for s, t in some_of])
        # what each is above its own threshold, summed (2nd place)
        case 'above': return sum(np.maximum(s - t, 0) for s, t in some_of)
        # a boundary of straight pieces: the plane that a pair is furthest above, cut at 0 (14th place)
        case 'piecewise':
            s = {k: f32(w) * np.where(cand.ids >= 0, cand.scores[k], 0) for k, w in weights.items()}
            none = np.zeros(cand.ids.shape, f32)
            return np.max([sum((f32(c) * s[k] for k, c in plane.items() if k in s), none) - f32(cut) for plane, cut in planes], axis=0)


def _power(x, p):
    "x**p for float32 x from 0, to 2e-7 where x is at most 1: numpy's own takes six times as long where there are zeros among them."
    with np.errstate(divide='ignore'): out = np.log(x)
    out *= p
    return np.exp(out, out=out)


def _norm(cand, weights):
    n = len(cand.ids) if cand.pool is None else cand.pool
    rows = np.arange(len(cand.ids))[:, None] if cand.rows is None else cand.rows
    have = sum(w * (np.ones(n) if cand.present is None else cand.present[k]) for k, w in weights.items())
    both = have[rows] * have[np.maximum(cand.ids, 0)]
    # with nothing in any modality all scores are 0
    return np.sqrt(np.where(both > 0, both, 1)).astype(np.float32)


def check_thresholds(cuts):
    "Raise `InputError` for thresholds {name: value} past all similarities: .84 is a cut, 84 is none (a little above 1 lets nothing in)."
    bad = {k: v for k, v in cuts.items() if not -1.01 <= v <= 1.01}
    if bad: raise InputError(f'{bad}: outside the range of the scores, which is -1 to 1')


def check_weights(how, weights, power=6., planes=None):
    "Raise `InputError` for weights, a power or planes that `how` can't use."
    least = {'power': 'above 0', 'union': '', 'above': '', 'piecewise': ''}.get(how, '0 or more')
    bad = {k: w for k, w in weights.items() if not np.isfinite(w) or (least and w < 0) or (how == 'power' and w == 0)}
    if bad: raise InputError(f'weights={bad}: finite numbers' + (f', {least}' if least else ''))
    if how in THRESHOLD_FUSIONS: check_thresholds(weights)
    if not weights or (least and not any(w > 0 for w in weights.values())): raise InputError(f'weights={weights}: none is above 0')
    if isinstance(power, bool) or not isinstance(power, (int, float, np.number)) or not 0 < power < np.inf:
        raise InputError(f'power={power!r}: give a number above 0')
    if how != 'piecewise':
        if planes is not None: raise InputError(f"planes are for 'piecewise', not for {how!r}")
        return
    if not planes: raise InputError("planes: 'piecewise' needs pairs ({modality: weight}, cut), one at least")
    for o in planes:
        if not isinstance(o, (tuple, list)) or len(o) != 2 or not isinstance(o[0], dict):
            raise InputError(f'planes: {o!r}: give ({{modality: weight}}, cut)')
        if unknown := set(o[0]) - set(weights): raise InputError(f'planes name {sorted(unknown)}; the weights {list(weights)}')
        if not all(isinstance(c, (int, float, np.number)) and np.isfinite(c) for c in (*o[0].values(), o[1])) or not any(o[0].values()):
            raise InputError(f'planes: {o!r}: finite numbers, one weight at least that is not 0')


def sorted_neighbors(ids, score):
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
