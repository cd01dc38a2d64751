"The prepared candidates: the counts of the docstring, some rows alone against the sweep, what is refused."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import Sweep, fuse
from fastmatch.match.thresholds.flat import Flat
from tests.match.thresholds.flat.grids import example_of_three, random_grid


def test_some_rows_alone():
    candidates, groups = random_grid(150, 40, 4)
    rows = np.random.default_rng(0).random(150) < .5
    sweep = Flat(candidates, groups, rows).sweep('prob_or')
    expected = Sweep(fuse(candidates, 'prob_or'), groups)
    threshold, value = expected.best(rows)
    assert sweep.best() == (threshold, pytest.approx(value, abs=1e-12))
    np.testing.assert_allclose(sweep.at(.9)[rows], expected.at(.9)[rows], atol=1e-12)
    assert np.isnan(sweep.at(.9)[~rows]).all()


@pytest.mark.parametrize('refused_call, message', [
    (lambda flat: flat.sweep('piecewise'), 'choose one of'),
    (lambda flat: flat.sweep('mean', {'x': 1.}), r"name \['x'\]"),
    (lambda flat: flat.sweep(ranks=3), 'ranks'),
    (lambda flat: flat.sweep('mean', {'a': -1.}), 'weights'),
    (lambda flat: flat.sweep().best(np.zeros(9, bool)), 'none is chosen'),
    (lambda flat: Flat(flat.candidates, [0] * 9, []), 'none is chosen')])
def test_refused(refused_call, message):
    candidates, groups = random_grid(9, 5, 0)
    with pytest.raises(InputError, match=message): refused_call(Flat(candidates, groups))


def test_the_example_of_the_docstring():
    flat = example_of_three()
    assert flat.sizes.tolist() == [1, 2, 2] and flat.found.tolist() == [0, 1, 1]
    assert flat.wrong.tolist() == [2, 1, 1] and flat.target == 5
