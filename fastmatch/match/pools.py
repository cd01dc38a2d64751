"How a rule's threshold moves with the number of listings that are searched."
from dataclasses import dataclass

import numpy as np

from ..core import InputError


@dataclass(frozen=True)
class PoolThresholds:
    """The best threshold for several sizes of the pool that listings are looked up in.

    Among more listings more strangers come near by chance, so the best threshold rises with the logarithm of
    the pool. Between the sizes it is interpolated on that scale, beyond the largest it goes on by
    `per_doubling`, and below the smallest it stays, since nothing was measured there.
    """
    sizes: tuple  # Listings searched, rising
    thresholds: tuple  # The threshold for each of them
    per_doubling: float = 0.  # What one doubling beyond the largest size adds
    measured: int | None = None  # The largest size that was searched, others are predicted; None: all were

    def __post_init__(self):
        sizes, thresholds = tuple(map(int, self.sizes)), tuple(map(float, self.thresholds))
        if not sizes or len(sizes) != len(thresholds):
            raise InputError(f'pools: {len(sizes)} sizes, {len(thresholds)} thresholds: give one each')
        if sizes[0] < 1 or any(second <= first for first, second in zip(sizes, sizes[1:])):
            raise InputError(f'pools: sizes={list(sizes)}: whole numbers from 1 that rise')
        if not np.isfinite([*thresholds, self.per_doubling]).all():
            raise InputError(f'pools: thresholds={list(thresholds)}, per_doubling={self.per_doubling}: '
                             'give finite numbers')
        measured = sizes[-1] if self.measured is None else self.measured
        if measured not in sizes: raise InputError(f'pools: measured={measured!r}: give one of the sizes')
        # object.__setattr__ since it is frozen
        for field_name, value in (('sizes', sizes), ('thresholds', thresholds),
                                  ('per_doubling', float(self.per_doubling)), ('measured', int(measured))):
            object.__setattr__(self, field_name, value)

    @classmethod
    def of(
        cls,
        saved,  # `PoolThresholds`, a dict of its fields as json holds it, or None
    ) -> 'PoolThresholds | None':
        "The thresholds in any of these forms as one object."
        if saved is None or isinstance(saved, cls): return saved
        needed = {'sizes', 'thresholds', 'per_doubling'}
        if not isinstance(saved, dict) or set(saved) - {'measured'} != needed:
            raise InputError(f'pools={saved!r}: give sizes, thresholds and per_doubling')
        return cls(**saved)

    def at(
        self,
        pool: int,  # Listings searched
    ) -> float:
        "The threshold for a pool of this size; raises `InputError` for a size below 1."
        check_pool(pool)
        log_sizes = np.log2(self.sizes)
        doublings_beyond = max(0., np.log2(pool) - log_sizes[-1])
        return (
            float(np.interp(np.log2(pool), log_sizes, self.thresholds)) + self.per_doubling * doublings_beyond
        )

    def extrapolates(
        self,
        pool: int,  # Listings searched
    ) -> bool:
        "Whether a pool of this size lies outside those that were measured."
        return not self.sizes[0] <= pool <= self.measured

    def to_dict(self) -> dict:
        "The fields as json takes them."
        return {
            'sizes': list(self.sizes),
            'thresholds': list(self.thresholds),
            'per_doubling': self.per_doubling,
            'measured': self.measured,
        }


def check_pool(
    pool: int,  # Listings searched, as a user gave it
):
    "Raise `InputError` unless `pool` is a whole number from 1."
    if isinstance(pool, bool) or not isinstance(pool, (int, np.integer)) or pool < 1:
        raise InputError(f'pool={pool!r}: give the number of listings that are searched, 1 or more')
