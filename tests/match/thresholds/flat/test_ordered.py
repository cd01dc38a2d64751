"The ordered pairs of the docstring, and the sort within rows against one over all."
import numpy as np

from fastmatch.match.thresholds.flat.ordered import sort_within_rows
from tests.match.thresholds.flat.grids import pairs_of_three


def test_sorted_within_rows():
    rng = np.random.default_rng(0)
    for longest in (0, 1, 2, 4, 5, 70):
        pairs_per_row = rng.integers(0, longest + 1, 50)
        pair_rows = np.repeat(np.arange(50), pairs_per_row)
        keys = rng.integers(0, 2**63, pairs_per_row.sum()).astype(np.uint64) * 2 + 1
        expected = keys[np.lexsort((keys, pair_rows))]
        sort_within_rows(keys, pairs_per_row)
        assert (keys == expected).all()


def test_the_example_of_the_docstring():
    pairs = pairs_of_three()
    assert pairs.count.tolist() == [1, 2, 1] and pairs.nearest.tolist() == [True, True, False, True]
    np.testing.assert_allclose(pairs.scores, [.55, .6, .55, .6], atol=1e-7)
    np.testing.assert_allclose(pairs.gains, [-1 / 3, 1 / 3, -1 / 5, 1 / 3])
    np.testing.assert_allclose(pairs.at_most, [2 / 3, 4 / 5, 1])
