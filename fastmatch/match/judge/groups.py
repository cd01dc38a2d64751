"The true groups of listings as whole numbers: factorised once, taken by everything that judges."
import numpy as np

from ..neighbors import group_codes


class Groups:
    "Which listings are the same product, as codes from 0 in the order of first appearance."
    def __init__(
        self,
        groups,  # (n,) ints or strings, one a listing: listings with the same value are the same product
        n: int | None = None,  # How many listings there must be; default as many as are given
        name: str = 'groups',  # What to call them in messages
    ):
        self.codes = group_codes(groups, len(groups) if n is None else n, name)  # int32 (n,)
        self.sizes = np.bincount(self.codes)[self.codes]  # int64 (n,), listings in the group of each listing

    @classmethod
    def of(
        cls,
        groups,  # As for `Groups`, or an object of this class, which is handed back
        n: int | None = None,  # How many listings there must be
        name: str = 'groups',  # What to call them in messages
    ) -> 'Groups':
        "Groups in any form as one object; raises `InputError` for a missing group or another number."
        if not isinstance(groups, cls): return cls(groups, n, name)
        if n is not None and n != len(groups): return cls(groups.codes, n, name)  # raises, with the numbers
        return groups

    def __len__(self): return len(self.codes)
    def __repr__(self): return f'Groups({len(self)} listings in {self.count} groups)'

    @property
    def count(self) -> int:
        "How many different groups there are."
        return int(self.codes.max(initial=-1)) + 1
