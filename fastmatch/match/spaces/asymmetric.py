"""`AsymmetricSpace`: what searches and what is found are different vectors, or not the same number of
listings."""
from ...core import InputError
from ..neighbors import Neighbors, resolve_k
from .base import Space


class AsymmetricSpace(Space):
    """A space in which each listing searches with another vector than it is found by: the similarity of the
    pair (i, j) is that of i's query to listing j.

    Where there are fewer queries than listings they belong to the first ones: these are looked up in the pool
    of all.
    """
    def __init__(
        self,
        listings: Space,  # p listings, the vectors that are found
        queries: Space,  # The vectors that search, one for each of the first n listings
    ):
        if len(listings) < len(queries):
            raise InputError(f'{len(queries)} queries for {len(listings)} listings')
        self.listings = listings
        self.queries = queries
        self.made_with = listings.made_with
        self.trained_on = None if listings.trained_on is None else listings.trained_on[:len(queries)]

    @property
    def pool(self): return len(self.listings)

    @property
    def removed(self): return self.listings.removed

    def __len__(self): return len(self.queries)
    def __repr__(self): return f'AsymmetricSpace({self.listings!r})'

    def search(self, k=None, queries=None):
        """The `k` nearest of each listing's query, the listing itself first; `queries` is refused, since the
        listings hold their own."""
        k = resolve_k(k, self.pool)
        self._refuse(queries)
        row_numbers, ids, scores = self.listings.search(k, queries=self.queries).pairs()
        is_present = ~self.removed[row_numbers]  # a removed listing searches for nothing
        present_pairs = row_numbers[is_present], ids[is_present], scores[is_present]
        return Neighbors.from_pairs(*present_pairs, len(self), k=k, pool=self.pool)

    def scores(self, rows, ids, queries=None):
        "The similarities of given pairs, as `Space.scores` gives them; `queries` is refused."
        self._refuse(queries)
        return self.listings.scores(rows, ids, queries=self.queries)

    def _refuse(self, queries):
        if queries is not None:
            raise InputError('new queries: expand them before, these listings hold their own')
