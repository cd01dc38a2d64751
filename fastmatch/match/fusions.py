"""What each fusion does, a small function each: from the scores of several modalities to one score.

Each takes the candidates and {modality: weight}, and gives float32 in the shape of the candidates' ids. '4th
place' is the place of the published solution that used a fusion in the Kaggle competition Shopee - Price
Match Guarantee, https://www.kaggle.com/competitions/shopee-product-matching.
"""
from functools import reduce

import numpy as np

from .candidates import Candidates


def mean(candidates: Candidates, weights: dict, **_) -> np.ndarray:
    "sum(w s) / sum(w): the weighted mean of the similarities."
    weight_sum = sum(weights.values())
    return sum(np.float32(weight / weight_sum) * candidates.scores[modality]
               for modality, weight in weights.items())


def square(candidates: Candidates, weights: dict, **_) -> np.ndarray:
    """sum(w max(s, 0)^2) / sum(w): the weighted mean of squared similarities, so that one high one counts
    for more (4th place)."""
    weight_sum = sum(weights.values())
    return sum(np.float32(weight / weight_sum) * np.maximum(candidates.scores[modality], 0)**2
               for modality, weight in weights.items())


def joint(candidates: Candidates, weights: dict, **_) -> np.ndarray:
    """sum(w s) / sqrt(sum of w that the one listing has * sum of w that the other has).

    This is the cosine of the vectors laid side by side, each times the root of its weight: the mean, except
    that what a listing lacks (an empty title) does not count against it.
    """
    weighted_sum = sum(weight * scores for scores, weight in _weighted(candidates, weights))
    return weighted_sum / _joint_norm(candidates, weights)


def prob_or(candidates: Candidates, weights: dict, **_) -> np.ndarray:
    """1 - product(1 - s^w), s limited to 0..1: the chance that at least one modality is right, were the
    similarities independent chances."""
    all_wrong = np.ones(candidates.ids.shape, np.float32)
    for scores, weight in _weighted(candidates, weights):
        all_wrong *= 1 - _raise(np.clip(scores, 0, 1), weight)
    return 1 - all_wrong


def power_sum(candidates: Candidates, weights: dict, power: float = 6., **_) -> np.ndarray:
    """(sum((max(s, 0) / t)^p))^(1/p), the weights being thresholds t: matches from 1 up; 'union' with a
    rounded corner (11th place)."""
    ratios = [np.maximum(scores, 0) / threshold for scores, threshold in _weighted(candidates, weights)]
    # the largest is taken out before the power, since a high power of a number above 1 overflows
    largest = np.maximum(reduce(np.maximum, ratios), np.float32(1e-30))
    sum_of_powers = sum(_raise(ratio / largest, np.float32(power)) for ratio in ratios)
    return largest * _raise(sum_of_powers, np.float32(1 / power))


def union(candidates: Candidates, weights: dict, **_) -> np.ndarray:
    """max(s - t), the weights being thresholds t: from 0 up a pair matches that one modality alone would
    match."""
    return reduce(np.maximum, [scores - threshold for scores, threshold in _weighted(candidates, weights)])


def above(candidates: Candidates, weights: dict, **_) -> np.ndarray:
    """sum(max(s - t, 0)), the weights being thresholds t: how far the similarities are above their
    thresholds, summed (2nd place)."""
    return sum(np.maximum(scores - threshold, 0) for scores, threshold in _weighted(candidates, weights))


def piecewise(candidates: Candidates, weights: dict, planes=(), **_) -> np.ndarray:
    """max over planes of sum(c w s) - threshold: from 0 up a pair matches; a boundary made of straight
    pieces (14th place)."""
    not_padding = candidates.ids >= 0
    weighted_scores = {modality: np.float32(weight) * np.where(not_padding, candidates.scores[modality], 0)
                       for modality, weight in weights.items()}
    zeros = np.zeros(candidates.ids.shape, np.float32)
    plane_scores = []
    for coefficients, threshold in planes:
        plane_terms = [np.float32(coefficient) * weighted_scores[modality]
                       for modality, coefficient in coefficients.items() if modality in weighted_scores]
        plane_scores.append(sum(plane_terms, zeros) - np.float32(threshold))
    return np.max(plane_scores, axis=0)


FUSION_FUNCTIONS = {'mean': mean, 'square': square, 'joint': joint, 'prob_or': prob_or, 'power': power_sum,
                    'union': union, 'above': above, 'piecewise': piecewise}


def _weighted(candidates, weights):
    "Pairs of each modality's scores and its weight as float32."
    return ((candidates.scores[modality], np.float32(weight)) for modality, weight in weights.items())


def _raise(base, exponent):
    """base**exponent for float32 from 0, to 2e-7 where the base is at most 1: numpy's own takes six times
    as long where there are zeros."""
    with np.errstate(divide='ignore'): result = np.log(base)
    result *= exponent
    return np.exp(result, out=result)


def _joint_norm(candidates, weights):
    """The denominator of `joint`; 1 where a listing has nothing in any modality, because all its scores are
    0 then."""
    n_listings = len(candidates.ids) if candidates.pool is None else candidates.pool
    row_numbers = np.arange(len(candidates.ids))[:, None] if candidates.rows is None else candidates.rows
    present = candidates.present
    if present is None: present = dict.fromkeys(weights, np.ones(n_listings))
    weight_of_listing = sum(weight * present[modality] for modality, weight in weights.items())
    weight_product = weight_of_listing[row_numbers] * weight_of_listing[np.maximum(candidates.ids, 0)]
    return np.sqrt(np.where(weight_product > 0, weight_product, 1)).astype(np.float32)
