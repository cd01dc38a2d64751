"The best place on a line is that of a brute-force search over all stretches."
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from fastmatch.semi.line import best_on_line, changes_on_line


def brute(start, step, targets, low, high):
    "Macro-F1 between any two places where two lines of a row cross."
    crossings = [low, high]
    for first in range(start.shape[1]):
        for second in range(first):
            slope = step[:, first] - step[:, second]
            with np.errstate(divide='ignore', invalid='ignore'):
                at = (start[:, second] - start[:, first]) / slope
            crossings += at[np.isfinite(at) & (at > low) & (at < high)].tolist()
    edges = np.unique(crossings)
    middles = (edges[1:] + edges[:-1])[np.diff(edges) > 1e-9 * (high - low)] / 2
    return max(f1_score(targets, (start + place * step).argmax(1), average='macro', zero_division=0)
               for place in middles)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 25), st.integers(2, 6), st.booleans())
def test_exact(seed, n, n_classes, rounded):
    rng = np.random.default_rng(seed)
    start, step = rng.normal(size=(2, n, n_classes))
    # many lines that meet in one point, and equal ones
    if rounded: start, step = start.round(), step.round()
    targets = rng.integers(n_classes, size=n)
    low, high = np.sort(rng.normal(size=2)) * 2
    place, found = best_on_line(start, step, targets, low, high)
    assert abs(found - brute(start, step, targets, low, high)) < 1e-9 and low < place < high
    if not rounded:
        predicted = (start + place * step).argmax(1)
        assert abs(found - f1_score(targets, predicted, average='macro', zero_division=0)) < 1e-9


def test_changes_are_those_of_a_fine_grid():
    rng = np.random.default_rng(0)
    start, step = rng.normal(size=(2, 30, 5))
    first, places, rows, classes = changes_on_line(start, step, -1., 2.)
    assert (np.diff(places) >= 0).all() and len(places) > 30
    for place in np.linspace(-.999, 1.999, 400):
        now = first.copy()
        for at, row, label in zip(places, rows, classes):
            if at < place: now[row] = label
        np.testing.assert_array_equal(now, (start + place * step).argmax(1))


def test_the_widest_of_equally_good_stretches():
    # right between 1 and 1.5, and from 3 on
    start = np.array([[0., -1., -1e9], [1e9, 0, 0], [0, 1e9, 0]])
    step = np.array([[0., 1., 0.], [0, 0, 0], [0, 0, 0]])
    place, macro_f1 = best_on_line(start, step, np.array([1, 0, 1]), 0, 3)
    assert macro_f1 == 1 and place == 2
