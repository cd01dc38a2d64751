"Recall against its definition by plain loops, and the draw of rows."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.match.spaces.recall import Recall, draw_rows, measure_recall


@settings(max_examples=100, deadline=None)
@given(row_count=st.integers(1, 8), k=st.integers(0, 5), seed=st.integers(0, 999), fewer=st.booleans())
def test_measure_recall(row_count, k, seed, fewer):
    rng = np.random.default_rng(seed)
    exact = -np.sort(-rng.choice(np.float32([.25, .5, .75, 1]), (row_count, k)), axis=1)
    if fewer: exact[rng.random(row_count) < .5, k // 2:] = -np.inf
    # what is found is never above what is nearest
    found = np.where(rng.random((row_count, k)) < .4, np.float32(-1), exact)
    found = -np.sort(-found, axis=1)
    shares = []
    for i in range(row_count):
        best = [score for score in exact[i] if score > -np.inf]
        hits = [score for score in found[i] if best and score >= best[-1]]
        shares.append(min(len(hits), len(best)) / len(best) if best else 1)
    actual = measure_recall(found, exact, k + 1)
    assert (actual.k, actual.rows) == (k + 1, row_count) and actual.mean == pytest.approx(np.mean(shares))
    assert actual.se == pytest.approx(np.std(shares) / row_count**.5)


def test_any_of_equals_counts():
    exact = np.float32([[1, .5]])
    assert measure_recall(np.float32([[1, .5]]), exact, 3).mean == 1
    assert measure_recall(np.float32([[.5, .5]]), exact, 3).mean == 1
    assert measure_recall(np.float32([[.5, -np.inf]]), exact, 3).mean == .5
    assert repr(Recall(3, .98765, .0012, 50)) == 'recall@3 0.988 (s.e. 0.001, 50 rows)'


def test_draw_rows():
    rows = np.array([3, 5, 8, 13, 21])
    drawn = draw_rows(rows, 3, 0)
    assert len(set(drawn)) == 3 and set(drawn) <= set(rows) and (np.sort(drawn) == drawn).all()
    assert draw_rows(rows, 3, 0).tolist() == drawn.tolist()
    assert draw_rows(rows, 99, 1).tolist() == rows.tolist()
    assert any(draw_rows(rows, 3, seed).tolist() != drawn.tolist() for seed in range(1, 9))
