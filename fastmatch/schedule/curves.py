"Shapes of a learning rate: functions from the share of training done (0 to 1) to a factor on the rate; they nest."
import math
from bisect import bisect_right

from ..core import InputError


def cos_to(a, b, x): return b + (a - b) * (1 + math.cos(math.pi * x)) / 2


def flat(): return lambda x: 1.


def flat_cos(
    pct_start: float = .75,  # Share of training at the full rate
    div_final: float = 1e5,  # The last rate is the full one by this
):
    "The full rate, then a cosine down."
    if not 0 <= pct_start <= 1: raise InputError(f'pct_start={pct_start}: a share of training, 0 to 1')
    return lambda x: 1. if x < pct_start or pct_start == 1 else cos_to(1., 1 / div_final, (x - pct_start) / (1 - pct_start))


def steps(
    at: list[float],  # Shares of training at which the rate falls
    gamma: float = .1,  # By what factor
):
    "A ladder down."
    at = sorted(at)
    if not all(0 <= o <= 1 for o in at): raise InputError(f'at={at}: shares of training, 0 to 1')
    # the share is a sum of many small ones: a hair before the edge is the edge
    return lambda x: gamma**bisect_right(at, x + 1e-9)


def exponential(
    end: float = 1e-2,  # Factor at the end
):
    "The same factor down in the same time."
    if not end > 0: raise InputError(f'end={end}: it must be above 0')
    return lambda x: end**x


def cycles(
    lengths: list[float],  # Length of each cycle, in any unit
    floor: float = 0.,  # Factor at a cycle's end
    decay: float = 1.,  # Factor on each cycle's height against the one before
):
    "Cosines down to a floor with warm restarts, https://arxiv.org/abs/1608.03983"
    if not len(lengths) or min(lengths) <= 0: raise InputError(f'lengths={lengths}: at least one, and above 0')
    if not 0 <= floor <= 1: raise InputError(f'floor={floor}: a factor on the rate, 0 to 1')
    total, ends = sum(lengths), []
    for o in lengths: ends.append((ends[-1] if ends else 0.) + o / total)
    starts = [0., *ends[:-1]]

    def f(x):
        i = min(bisect_right(ends, x + 1e-9), len(ends) - 1)
        return cos_to(max(decay**i, floor), floor, min(1., max(0., (x - starts[i]) / (ends[i] - starts[i]))))
    return f


def warmed(
    curve,  # What comes after, over the rest of training
    pct: float,  # Share of training that warms up
    multiplier: float = 1.,  # 1: from near 0 up to the rate; above 1: from the rate up to this many times it, and on from there
    start: float = 1e-3,  # Factor at the first step where `multiplier` is 1
):
    "A straight line up before any curve, https://arxiv.org/abs/1706.02677"
    if not 0 <= pct < 1: raise InputError(f'warm-up takes {pct:.3g} of training: choose at least 0 and less than all of it')
    if not multiplier >= 1: raise InputError(f'multiplier={multiplier}: at least 1')
    if not 0 <= start <= 1: raise InputError(f'start={start}: a factor on the rate, 0 to 1')
    low = start if multiplier == 1 else 1.
    return lambda x: low + (multiplier - low) * x / pct if x < pct else multiplier * curve((x - pct) / (1 - pct))
