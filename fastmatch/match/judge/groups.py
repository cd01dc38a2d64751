"The true groups of listings as whole numbers: factorised once, taken by everything that judges."
import numpy as np

from ...core import InputError
from ..neighbors import group_codes


class Groups:
    """Which listings are the same product, as codes from 0 in the order of first appearance.

    Where listings are looked up in a larger pool, the groups are those of the whole pool, the judged listings
    first: `Groups(groups, rows=463)` of 2,100 groups judges the first 463. `len` is the number of these rows.
    """
    def __init__(
        self,
        groups,  # (p,) ints or strings, one a listing: listings with the same value are the same product
        n: int | None = None,  # How many listings there must be; default as many as are given
        name: str = 'groups',  # What to call them in messages
        rows: int | None = None,  # How many of the first listings are judged; the others are only found
    ):
        self.codes = group_codes(groups, len(groups) if n is None else n, name)  # int32 (p,)
        n_rows = len(self.codes) if rows is None else rows
        if not 0 <= n_rows <= len(self.codes):
            raise InputError(f'{name}: rows={rows} of {len(self.codes)} listings')
        # int32 (n,), of the judged listings: 0 to their number of groups
        self.row_codes = self.codes[:n_rows]
        # int64 (n,), listings of the whole pool in the group of each judged listing
        self.sizes = np.bincount(self.codes)[self.row_codes]

    @classmethod
    def of(
        cls,
        groups,  # As for `Groups`, or an object of this class, which is handed back
        n: int | None = None,  # How many listings are to be judged
        name: str = 'groups',  # What to call them in messages
    ) -> 'Groups':
        "Groups in any form as one object; raises `InputError` for a missing group or another number."
        if not isinstance(groups, cls): return cls(groups, n, name)
        if n is not None and n != len(groups):
            return cls(groups.row_codes, n, name)  # raises, with the numbers
        return groups

    def check_pool(
        self,
        pool: int | None,  # Listings that the ids of neighbors or candidates may point to; None: not known
    ) -> 'Groups':
        "Return `self`, or raise `InputError` where these are not the groups of all listings of the pool."
        if pool in (None, self.pool): return self
        raise InputError(f'{self.pool} groups for a pool of {pool} listings: where listings are looked up in '
                         'a catalogue give the groups of all, Groups(groups, rows=...)')

    def __len__(self): return len(self.row_codes)
    def __repr__(self):
        among = '' if self.pool == len(self) else f', looked up among {self.pool}'
        return f'Groups({len(self)} listings in {self.count} groups{among})'

    @property
    def count(self) -> int:
        "How many different groups the judged listings have."
        return int(self.row_codes.max(initial=-1)) + 1

    @property
    def pool(self) -> int:
        "How many listings there are in all: those that are judged, and those that are only found."
        return len(self.codes)
