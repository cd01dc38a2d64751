"Blocks of a category and a number against a loop over all pairs."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match.fields.blocks import Blocks
from fastmatch.match.fields.categories import Categories
from fastmatch.match.fields.numbers import Numbers

ROWS = st.lists(st.tuples(st.sampled_from(['a', 'A ', 'b', None]),
                          st.one_of(st.none(), st.integers(-3, 9), st.sampled_from(['3 kg', '9 kg', '$3']))),
                min_size=1, max_size=14)


def blocks_of(rows): return Blocks(Categories('brand', [category for category, _ in rows]),
                                   Numbers('price', [number for _, number in rows]))


def naive_score(one, other, own):
    "Similarity of the numbers in one category, 0 in two, NaN where something is missing or of another unit."
    categories = [own.categories.cells[place] for place in (one, other)]
    if None in categories: return np.nan
    similarity = float(own.numbers.scores([one], [other])[0])
    return similarity if categories[0] == categories[1] else similarity * 0


@settings(max_examples=200, deadline=None)
@given(ROWS, st.integers(1, 6))
def test_search_by_brute_force(rows, k):
    space = blocks_of(rows)
    n = len(rows)
    k = min(k, n)
    scores = space.scores(np.arange(n)[:, None], np.tile(np.arange(n), (n, 1)))
    expected = np.array([[naive_score(one, other, space) for other in range(n)] for one in range(n)])
    np.testing.assert_array_equal(scores, expected.astype(np.float32))
    found = space.search(k).check(self_join=True)
    for row in range(n):
        in_block = [other for other in range(n) if other != row
                    and space.categories.cells[row] is not None
                    and space.categories.cells[other] == space.categories.cells[row]
                    and scores[row, other] > 0]
        best = sorted(in_block, key=lambda other: (-scores[row, other], other))[:k - 1]
        assert [listing for listing in found.ids[row, 1:] if listing >= 0] == best


@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS, st.integers(1, 4))
def test_queries_find_what_one_space_of_all_would(rows, others, k):
    known, queries, whole = blocks_of(rows), blocks_of(others), blocks_of(rows + others)
    k = min(k, len(rows))
    found = known.search(k, queries=queries)
    for row in range(len(others)):
        scores = whole.scores(np.full(len(rows), len(rows) + row), np.arange(len(rows)))
        same = [listing for listing in range(len(rows)) if scores[listing] > 0
                and whole.categories.cells[listing] == whole.categories.cells[len(rows) + row]]
        best = sorted(same, key=lambda listing: (-scores[listing], listing))[:k]
        assert [listing for listing in found.ids[row] if listing >= 0] == best
    parts = known.append(queries)
    assert parts.take(np.arange(len(rows))).categories.cells.tolist() == known.categories.cells.tolist()


def test_columns_of_different_length():
    with pytest.raises(InputError, match='^brand: 2 rows, price: 3'):
        Blocks(Categories('brand', ['a', 'b']), Numbers('price', [1, 2, 3]))
