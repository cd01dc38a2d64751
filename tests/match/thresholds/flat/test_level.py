"The level of the docstring, the entries that nothing exceeds, and the starts of runs."
import numpy as np
import pytest

from fastmatch.match.thresholds.flat.level import Level, first_of_runs, not_exceeded
from tests.match.thresholds.flat.grids import example_of_three


def test_not_exceeded():
    first, second = np.array([[.9, .1, .5, .5, .4]]), np.array([[.1, .9, .5, .4, .4]])
    # equal in one is not exceeded: a weight of 0 would make them ties
    actual = not_exceeded([first, second], np.ones((1, 5), bool))
    assert actual.tolist() == [[True, True, True, True, False]]


def test_first_of_runs():
    assert first_of_runs(np.array([2, 2, 5, 5, 5])).tolist() == [0, 2]
    assert first_of_runs(np.zeros(0, int)).tolist() == []


def test_the_example_of_the_docstring():
    level = Level.of(example_of_three(), 2)
    assert list(zip(level.row.tolist(), level.pairs.ids.tolist())) == [(0, 1), (1, 0), (1, 2), (2, 0), (2, 1)]
    assert level.bound == pytest.approx({'a': .4, 'b': .2}) and not level.whole
    assert level.front.tolist() == [0, 1, 2, 3, 4]
