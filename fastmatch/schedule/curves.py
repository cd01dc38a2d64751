"""Shapes of a learning rate over training.

A curve is a function of the share of training that is done (0 to 1) and returns a factor on the learning
rate. The functions here make curves; `warmed` puts a warm-up before any of them. `fit_curve` trains along
one.
"""
import math
from bisect import bisect_right

from ..core import InputError

# The share of training done is a sum of many small numbers; an edge counts as reached this much before it.
ROUNDING = 1e-9


def cos_to(
    start: float,  # Value at `progress` 0
    end: float,  # Value at `progress` 1
    progress: float,  # How far along, 0 to 1
) -> float:
    "The value at `progress` on half a cosine from `start` to `end`."
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def flat():
    "A curve that stays at the full rate."
    return lambda progress: 1.


def flat_cos(
    pct_start: float = .75,  # Share of training at the full rate
    div_final: float = 1e5,  # The last rate is the full rate divided by this
):
    "A curve at the full rate first, then down along a cosine."
    if not 0 <= pct_start <= 1: raise InputError(f'pct_start={pct_start}: a share of training, 0 to 1')

    def curve(progress):
        if progress < pct_start or pct_start == 1: return 1.
        return cos_to(1., 1 / div_final, (progress - pct_start) / (1 - pct_start))
    return curve


def steps(
    at: list[float],  # Shares of training at which the rate falls
    # Factor on the rate at each fall; or a list with the factor on the full rate after each of them
    gamma: float | list = .1,
):
    "A curve that falls by the same factor at given moments, or goes through listed factors."
    at = sorted(at)
    if not all(0 <= share <= 1 for share in at): raise InputError(f'at={at}: shares of training, 0 to 1')
    if isinstance(gamma, (int, float)): factors = [gamma**(i + 1) for i in range(len(at))]
    else: factors = list(gamma)
    if len(factors) != len(at):
        raise InputError(f'{len(factors)} values of the rate after the first, {len(at)} moments in at={at}: '
                         'as many of both')
    return lambda progress: [1., *factors][bisect_right(at, progress + ROUNDING)]


def exponential(
    end: float = 1e-2,  # Factor on the rate at the end of training
):
    "A curve that falls exponentially, from the full rate to `end` times it."
    if not end > 0: raise InputError(f'end={end}: it must be above 0')
    return lambda progress: end**progress


def cycles(
    lengths: list[float],  # Length of each cycle, in any unit: only their proportions count
    floor: float = 0.,  # Factor on the rate at the end of each cycle
    decay: float = 1.,  # Height of each cycle relative to the cycle before it
):
    "Cosines down to a floor, each followed by a warm restart (SGDR, https://arxiv.org/abs/1608.03983)."
    if not len(lengths) or min(lengths) <= 0:
        raise InputError(f'lengths={lengths}: at least one, and above 0')
    if not 0 <= floor <= 1: raise InputError(f'floor={floor}: a factor on the rate, 0 to 1')
    total_length = sum(lengths)
    ends = []
    for length in lengths: ends.append((ends[-1] if ends else 0.) + length / total_length)
    starts = [0., *ends[:-1]]

    def curve(progress):
        cycle_number = min(bisect_right(ends, progress + ROUNDING), len(ends) - 1)
        cycle_progress = (progress - starts[cycle_number]) / (ends[cycle_number] - starts[cycle_number])
        return cos_to(max(decay**cycle_number, floor), floor, min(1., max(0., cycle_progress)))
    return curve


def warmed(
    curve,  # The curve that follows, stretched over the rest of training
    pct: float,  # Share of training that warms up
    multiplier: float = 1.,  # Above 1: up from the full rate to this multiple of it; 1: up to the full rate
    start: float = 1e-3,  # Factor on the rate at the first step; used where `multiplier` is 1
):
    "A warm-up along a straight line before any curve (https://arxiv.org/abs/1706.02677)."
    if not 0 <= pct < 1:
        raise InputError(f'warm-up takes {pct:.3g} of training: choose at least 0 and less than all of it')
    if not multiplier >= 1: raise InputError(f'multiplier={multiplier}: at least 1')
    if not 0 <= start <= 1: raise InputError(f'start={start}: a factor on the rate, 0 to 1')
    lowest = start if multiplier == 1 else 1.

    def warmed_curve(progress):
        if progress < pct: return lowest + (multiplier - lowest) * progress / pct
        return multiplier * curve((progress - pct) / (1 - pct))
    return warmed_curve
