"Curves of a learning rate: bounds, joints, refused options."
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.schedule import curves

cycle_lengths = st.lists(st.floats(.1, 10), min_size=1, max_size=5)


@given(cycle_lengths, st.floats(0, 1), st.floats(.1, 1), st.floats(0, 1))
def test_cycles_stay_between_floor_and_top(lengths, floor, decay, progress):
    curve = curves.cycles(lengths, floor, decay)
    assert floor - 1e-9 <= curve(progress) <= 1 + 1e-9
    assert curve(0.) == 1. and math.isclose(curve(1.), floor, abs_tol=1e-9)


@given(st.floats(0, .99), st.floats(1, 10), st.floats(0, 1))
def test_warm_up_joins_what_follows(share, multiplier, progress):
    curve = curves.warmed(curves.flat_cos(.5), share, multiplier)
    assert math.isclose(curve(share), multiplier, rel_tol=1e-9) and 0 <= curve(progress) <= multiplier + 1e-9
    if share: assert math.isclose(curve(share * (1 - 1e-9)), multiplier, rel_tol=1e-6)


@pytest.mark.parametrize('make_invalid, message', [
    (lambda: curves.flat_cos(2.), 'pct_start=2'),
    (lambda: curves.steps([3]), r'at=\[3\]'),
    (lambda: curves.exponential(0), 'end=0'),
    (lambda: curves.cycles([]), 'lengths'),
    (lambda: curves.cycles([1], 2.), 'floor=2'),
    (lambda: curves.warmed(curves.flat(), 1.), 'warm-up'),
    (lambda: curves.warmed(curves.flat(), .1, .5), 'multiplier=0.5'),
])
def test_bad_input_is_named(make_invalid, message):
    with pytest.raises(InputError, match=message): make_invalid()
