"`Blocks`: listings of one brand by how near their prices are, where no text and no code finds candidates."
import numpy as np
import pandas as pd

from ...core import InputError
from ..neighbors import Neighbors, resolve_k
from ..spaces.base import PairwiseSpace
from .categories import Categories
from .numbers import Numbers


class Blocks(PairwiseSpace):
    """A category and a number together: the similarity is that of the numbers where the category is the same,
    0 where it is another, NaN where one of the four cells is missing.

    A search finds the listings of the same category with the nearest numbers of one sign and unit.
    """
    is_field = True
    is_column = True

    def __init__(
        self,
        categories: Categories,  # n listings
        numbers: Numbers,  # The same listings
    ):
        if len(categories) != len(numbers):
            raise InputError(f'{categories.name}: {len(categories)} rows, {numbers.name}: {len(numbers)}')
        self.categories = categories
        self.numbers = numbers

    @property
    def name(self) -> str:
        "The names of both columns."
        return f'{self.categories.name} + {self.numbers.name}'

    def __len__(self): return len(self.categories)
    def __repr__(self): return f'Blocks({self.name!r}, {len(self)})'

    def take(self, rows):
        "A space of some of the listings, by row numbers or bool (n,)."
        return Blocks(self.categories.take(rows), self.numbers.take(rows))

    def append(self, other):
        "A space of these listings and, behind them, those of `other`."
        other = self._check_compatible(other)
        return Blocks(self.categories.append(other.categories), self.numbers.append(other.numbers))

    def search(self, k=None, queries=None):
        "The listings of the same category, `k` at most, the nearest numbers first, ties to the smaller id."
        k = resolve_k(k, len(self))
        self_join = queries is None
        queries = self if self_join else self._check_compatible(queries)
        own, asked = _table(self, 'id'), _table(queries, 'row')
        # of a category with very many listings only those next to the number are compared
        found = [_nearest_in(block, asked_block, k) for block, asked_block in _blocks_of_both(own, asked)]
        rows = np.concatenate([pair[0] for pair in found]) if found else np.empty(0, np.int64)
        ids = np.concatenate([pair[1] for pair in found]) if found else np.empty(0, np.int64)
        scores = self.scores(rows, ids, None if self_join else queries)
        # numbers that have nothing in common, such as those of opposite sign, find nothing
        rows, ids, scores = (array[scores > 0] for array in (rows, ids, scores))
        return Neighbors.from_pairs(rows, ids, scores, len(queries), self_join=self_join, k=k)

    def _check_compatible(self, queries):
        if not isinstance(queries, Blocks):
            raise InputError(f'{self.name}: queries are {type(queries).__name__}, give Blocks')
        return queries

    def _pair_scores(self, queries, query_rows, listing_ids):
        first = queries.categories.cells[query_rows]
        second = self.categories.cells[listing_ids]
        is_known = queries.categories.known[query_rows] & self.categories.known[listing_ids]
        similarity = self.numbers._pair_scores(queries.numbers, query_rows, listing_ids)
        return np.where(is_known, np.where(first == second, similarity, similarity * 0), np.nan)


def _table(space, column):
    "The listings that have both, with category, unit and number."
    known = np.flatnonzero(space.categories.known & space.numbers.known)
    values = [space.numbers.cells[row] for row in known]
    return pd.DataFrame({
        'category': space.categories.cells[known], 'unit': [unit for _, unit in values],
        'value': np.array([value for value, _ in values], np.float64), column: known}).sort_values(
            ['category', 'unit', 'value'], kind='stable')


def _blocks_of_both(own, asked):
    "The listings and the queries of each category and unit that both have."
    of_own = dict(list(own.groupby(['category', 'unit'], sort=False)))
    for key, block in asked.groupby(['category', 'unit'], sort=False):
        if key in of_own: yield of_own[key], block


def _nearest_in(block, asked, k):
    """(rows, ids): for each query the `k` listings before and the `k` behind its place among the sorted
    numbers, and those with the very number of the last of them: the most similar are among these."""
    values, places = block.value.to_numpy(), asked.value.to_numpy()
    starts = np.maximum(np.searchsorted(values, places, 'left') - k, 0)
    ends = np.minimum(np.searchsorted(values, places, 'right') + k, len(values))
    starts = np.searchsorted(values, values[np.minimum(starts, len(values) - 1)], 'left')
    ends = np.searchsorted(values, values[np.maximum(ends - 1, 0)], 'right')
    counts = np.maximum(ends - starts, 0)
    within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    rows = np.repeat(asked.row.to_numpy(), counts)
    return rows, block.id.to_numpy()[np.repeat(starts, counts) + within]
