"""Several modalities as one score: `fuse` for candidates, `ensemble` for vectors. The formulas themselves
are in fusions.py."""
from dataclasses import replace

import numpy as np

from ..core import InputError
from .candidates import Candidates, trained_on_of
from .fusions import FUSION_FUNCTIONS
from .neighbors import Neighbors
from .spaces.dense import Dense

FUSIONS = list(FUSION_FUNCTIONS)
THRESHOLD_FUSIONS = ('power', 'union', 'above')  # fusions whose weights are thresholds
SIGNED_FUSIONS = ('union', 'above', 'piecewise')  # fusions whose weights may be negative


def ensemble(
    spaces,  # `Dense` spaces over the same listings: several encoders of one modality
    weights=None,  # One for each space, 0 or more; default equal
    name: str = 'ensemble',  # What to call the vectors in messages
) -> Dense:  # An `Index` where one of the spaces is an `Index`
    "Several encoders as one: their vectors side by side, so that the cosine is the weighted mean of theirs."
    spaces = list(spaces)
    if not spaces or not all(isinstance(space, Dense) for space in spaces):
        raise InputError(f'ensemble of {[type(space).__name__ for space in spaces]}: give Dense spaces')
    lengths = [len(space) for space in spaces]
    if len(set(lengths)) > 1: raise InputError(f'encoders of different length: {lengths}')
    weights = np.ones(len(spaces)) if weights is None else np.asarray(weights, np.float64)
    is_usable = np.isfinite(weights) & (weights >= 0)
    if weights.shape != (len(spaces),) or not is_usable.all() or not weights.any():
        raise InputError(f'weights={weights.tolist()}: {len(spaces)} numbers, 0 or more, one above 0')
    weighted_vectors = [np.sqrt(weight) * space.vectors
                        for weight, space in zip(weights, spaces) if weight > 0]
    side_by_side = Dense(np.concatenate(weighted_vectors, 1), name)
    # an index among the spaces passes its settings on
    template = next((space for space in spaces if type(space) is not Dense), side_by_side)
    removed = np.any([space.removed for space in spaces], axis=0)
    combined = template._with_vectors(side_by_side.vectors, removed)
    combined.name = name
    combined.trained_on = trained_on_of(dict(enumerate(spaces)))
    return combined


def fuse(
    candidates: Candidates,  # As the function `candidates` gives them
    how: str = 'mean',  # One of `FUSIONS`; fusions.py has the formula of each
    weights: dict | None = None,  # Modality -> weight, or threshold; default `equal_weights`
    join: tuple | None = None,  # Keys that match by themselves: equal ones score 1 or more; default all
    power: float = 6.,  # For 'power': the higher, the nearer to 'union'
    planes=None,  # For 'piecewise': pairs ({modality: weight}, threshold)
) -> Neighbors:  # (n,K), all candidates sorted by the fused score
    "One score for each candidate pair from its scores in all modalities."
    if how not in FUSIONS: raise InputError(f'how={how!r}: choose one of {", ".join(FUSIONS)}')
    join = candidates.join if join is None else join
    unknown = set(join) - set(candidates.join)
    if unknown:
        raise InputError(f'join={sorted(unknown)}: the candidates hold the keys {list(candidates.join)}')
    if weights is None: weights = equal_weights(candidates, how)
    check_weights(how, weights, power, planes)
    unknown = set(weights) - set(candidates.scores)
    if unknown:
        raise InputError(f'weights name {sorted(unknown)}; the candidates hold {list(candidates.scores)}')
    neighbors = sorted_neighbors(candidates.ids,
                                 fused_scores(candidates, how, weights, join, power, planes))
    return neighbors.known(candidates.trained_on, candidates.searched)


def equal_weights(
    candidates: Candidates,  # Whose modalities to weigh
    how: str = 'mean',  # One of `FUSIONS`
) -> dict:  # Modality -> 1; for 'union' and 'above', where weights are thresholds, 0
    "All modalities alike, exact keys left out."
    weight = 0. if how in ('union', 'above') else 1.
    fused_modalities = [modality for modality in candidates.scores if modality not in candidates.join]
    return dict.fromkeys(fused_modalities, weight)


def fused_scores(
    candidates: Candidates,  # A grid (n,K), or flat pairs (m,)
    how: str,  # One of `FUSIONS`
    weights: dict,  # Modality -> weight or threshold
    join: tuple,  # Exact keys that match by themselves
    power: float = 6.,  # For 'power'
    planes=None,  # For 'piecewise'
) -> np.ndarray:  # float32, in the shape of `candidates.ids`
    """The fused score of each pair, neither checked nor sorted: what `fuse` sorts, and what threshold
    searches work on.

    An unknown similarity (NaN) says nothing: means are taken over the known ones, 0 where there is none.
    """
    used_weights = {modality: weight for modality, weight in weights.items()
                    if how in THRESHOLD_FUSIONS or weight != 0}
    fusion = FUSION_FUNCTIONS[how]
    known, share_known = _without_unknown(candidates, how, used_weights)
    scores = fusion(known, used_weights, power=power, planes=planes)
    if share_known is not None: scores = scores / share_known
    if join:
        score_of_equals = _score_of_equals(candidates, how, weights, power, planes)
        for modality in join:
            scores = np.where(candidates.scores[modality] == 1, np.maximum(scores, score_of_equals), scores)
    return scores.astype(np.float32, copy=False)


def _without_unknown(candidates, how, weights):
    """The candidates with a number in place of each unknown similarity, one that says nothing for or against
    a match, and for means the share of the weights whose similarities are known (None: all are)."""
    unknown = {modality: np.isnan(candidates.scores[modality]) for modality in weights}
    if not any(is_unknown.any() for is_unknown in unknown.values()): return candidates, None
    # what is nearest to nothing does not reach a threshold of its own
    neutral = np.float32(-1 if how in ('union', 'above') else 0)
    filled = {modality: np.where(is_unknown, neutral, candidates.scores[modality])
              for modality, is_unknown in unknown.items()}
    known = replace(candidates, scores={**candidates.scores, **filled})
    if how not in ('mean', 'square'): return known, None
    weight_sum = sum(weights.values())
    share_known = sum(np.float32(weight / weight_sum) * ~unknown[modality]
                      for modality, weight in weights.items())
    return known, np.where(share_known > 0, share_known, 1).astype(np.float32)


def _score_of_equals(candidates, how, weights, power, planes):
    """The fused score of two listings that are equal in everything, 1 at least: sums over thresholds reach
    more."""
    if how not in (*THRESHOLD_FUSIONS, 'piecewise'): return 1.
    equal_scores = {modality: np.ones((1, 1), np.float32) for modality in candidates.scores}
    equal_pair = Candidates(np.zeros((1, 1), np.int64), equal_scores)
    return max(1., float(FUSION_FUNCTIONS[how](equal_pair, weights, power=power, planes=planes)[0, 0]))


def check_thresholds(
    thresholds: dict,  # Name -> threshold of a similarity
):
    """Raise `InputError` for thresholds outside the range of similarities: .84 is possible, 84 is not (1.01
    is, and lets nothing in)."""
    out_of_range = {name: threshold for name, threshold in thresholds.items()
                    if not -1.01 <= threshold <= 1.01}
    if out_of_range: raise InputError(f'{out_of_range}: outside the range of the scores, which is -1 to 1')


def check_weights(
    how: str,  # One of `FUSIONS`
    weights: dict,  # Modality -> weight or threshold
    power: float = 6.,  # For 'power'
    planes=None,  # For 'piecewise'
):
    "Raise `InputError` for weights, a power or planes that the fusion `how` can't use."
    allowed = 'above 0' if how == 'power' else '' if how in SIGNED_FUSIONS else '0 or more'
    bad_weights = {modality: weight for modality, weight in weights.items()
                   if not np.isfinite(weight) or (allowed and weight < 0) or (how == 'power' and weight == 0)}
    if bad_weights:
        raise InputError(f'weights={bad_weights}: finite numbers' + (f', {allowed}' if allowed else ''))
    if how in THRESHOLD_FUSIONS: check_thresholds(weights)
    if not weights or (allowed and not any(weight > 0 for weight in weights.values())):
        raise InputError(f'weights={weights}: none is above 0')
    if isinstance(power, bool) or not _is_number(power) or not 0 < power < np.inf:
        raise InputError(f'power={power!r}: give a number above 0')
    if how == 'piecewise': _check_planes(planes, weights)
    elif planes is not None: raise InputError(f"planes are for 'piecewise', not for {how!r}")


def _check_planes(planes, weights):
    if not planes:
        raise InputError("planes: 'piecewise' needs pairs ({modality: weight}, threshold), one at least")
    for plane in planes:
        if not isinstance(plane, (tuple, list)) or len(plane) != 2 or not isinstance(plane[0], dict):
            raise InputError(f'planes: {plane!r}: give ({{modality: weight}}, threshold)')
        coefficients, threshold = plane
        unknown = set(coefficients) - set(weights)
        if unknown: raise InputError(f'planes name {sorted(unknown)}; the weights {list(weights)}')
        numbers = (*coefficients.values(), threshold)
        all_finite = all(_is_number(number) and np.isfinite(number) for number in numbers)
        if not all_finite or not any(coefficients.values()):
            raise InputError(f'planes: {plane!r}: finite numbers, one weight at least that is not 0')


def _is_number(value): return isinstance(value, (int, float, np.number))


def sorted_neighbors(
    ids: np.ndarray,  # int64 (n,K), as in `Candidates`: the listing itself first, then rising, padded with -1
    scores: np.ndarray,  # float (n,K), one score for each pair
) -> Neighbors:
    """Candidates sorted by a score, ties to the smaller id; raises `InputError` where a row does not start
    with the listing itself."""
    other_scores = np.where(ids[:, 1:] >= 0, scores[:, 1:], -np.inf)
    # ids rise behind the first column, and a stable sort keeps that order in ties
    by_score = np.argsort(-other_scores, axis=1, kind='stable')
    # rank 0 has the best score by promise, also where a fusion gives the listing itself less
    own_scores = scores[:, :1]
    if other_scores.shape[1]: own_scores = np.maximum(own_scores, other_scores.max(1, keepdims=True))
    sorted_ids = np.concatenate([ids[:, :1], np.take_along_axis(ids[:, 1:], by_score, 1)], 1)
    sorted_scores = np.concatenate([own_scores, np.take_along_axis(other_scores, by_score, 1)], 1)
    sorted_scores = sorted_scores.astype(np.float32)
    if not (sorted_ids[:, 0] == np.arange(len(ids))).all():
        raise InputError('candidates: each listing itself must stand at column 0')
    return Neighbors(sorted_ids, sorted_scores)
