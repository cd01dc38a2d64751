"What all threshold searches share: which rows count, ties, where a threshold lies."
import inspect

import numpy as np
import pytest

import fastmatch.match as match
from fastmatch.core import InputError
from fastmatch.match import Dense, RankSweep, Sweep, UnionSweep, heldout
from fastmatch.match.thresholds.base import ThresholdSearch, first_of_best, row_mask, threshold_of_depth
from fastmatch.match.thresholds.flat import FlatSweep
from tests.match.cases import noisy


def test_every_search_derives_from_the_protocol():
    for search_class in (Sweep, RankSweep, UnionSweep, FlatSweep):
        assert issubclass(search_class, ThresholdSearch)
    public = [getattr(match, name) for name in match.__all__]
    classes = [public_class for public_class in public if inspect.isclass(public_class)]
    searches = [public_class for public_class in classes
                if hasattr(public_class, 'best') and hasattr(public_class, 'at')]
    assert searches and all(issubclass(search_class, ThresholdSearch) for search_class in searches)
    with pytest.raises(TypeError, match='abstract'): ThresholdSearch()


def test_a_search_of_ones_own():
    "`heldout` takes a class that derives from the protocol, not one that merely looks like it."
    neighbors = Dense(noisy(12, 4, 0)).search(6)
    groups = np.arange(12) // 2

    class Fixed(ThresholdSearch):
        "One threshold, whatever the rows."
        def __init__(self):
            self.sweep = Sweep(neighbors, groups)
            self.neighbors = neighbors

        def best(self, rows=None): return .3, 1.
        def at(self, threshold): return self.sweep.at(threshold)

    class LooksLikeIt:
        "No search."
        best = at = None

    actual = heldout(Fixed(), groups, halvings=2)
    np.testing.assert_allclose(actual.row_f1, Sweep(neighbors, groups).at(.3))
    assert {threshold for _, threshold in actual.picks} == {.3}
    with pytest.raises(InputError, match="option 'a' is of type LooksLikeIt"):
        heldout({'a': LooksLikeIt()}, groups)


def test_row_mask():
    assert row_mask([2, 0], 4).tolist() == [True, False, True, False]
    mask = np.array([True, False, False])
    assert row_mask(mask, 3) is mask
    assert row_mask([], 3).tolist() == [False] * 3
    refused = [([3], 'rows from 3 to 3, but there are 3'), ([-1], 'rows from -1'), ([.5], 'dtype float64'),
               ([[0]], r'shape \(1, 1\)'), ([True, False], r'bool \(3,\)')]
    for invalid_rows, message in refused:
        with pytest.raises(InputError, match=message): row_mask(invalid_rows, 3)


def test_the_first_of_equal_totals_wins():
    assert first_of_best(np.array([0., .5, .5, .2])) == 1
    assert first_of_best(np.array([.5 - 1e-12, .5])) == 0
    assert first_of_best(np.array([.5 - 1e-6, .5])) == 1


def test_where_a_threshold_lies():
    scores = np.array([.9, .5, .4])
    assert [threshold_of_depth(scores, depth) for depth in range(4)] == pytest.approx([.901, .7, .45, .399])
