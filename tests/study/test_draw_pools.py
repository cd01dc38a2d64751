"The picture of row F1 over the threshold: each line's points and dots are those of the table."
import numpy as np
import pandas as pd
import pytest

from fastmatch.match import PoolThresholds
from fastmatch.study import pools_figure

THRESHOLDS = np.linspace(0, 1, 11)
CURVES = pd.concat(
    [
        pd.DataFrame({'pool': pool, 'threshold': THRESHOLDS, 'row_f1': 1 - (THRESHOLDS - best) ** 2})
        for pool, best in ((1000, 0.5), (250, 0.3))
    ]
)


@pytest.mark.parametrize('thresholds, dots', [
    (None, [.3, .5]), (PoolThresholds((250, 1000), (.25, .6)), [.25, .6])])
def test_lines_and_dots(thresholds, dots):
    figure = pools_figure(CURVES, thresholds)
    [axes] = figure.axes
    lines = axes.get_lines()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['250 listings', '1,000 listings']
    for pool, line, dot, threshold in zip((250, 1000), lines[::2], lines[1::2], dots):
        table = CURVES[CURVES.pool == pool]
        assert np.array_equal(line.get_xdata(), table.threshold) and np.array_equal(
            line.get_ydata(), table.row_f1
        )
        assert dot.get_xdata()[0] == pytest.approx(threshold)
        expected = np.interp(threshold, table.threshold, table.row_f1)
        assert dot.get_ydata()[0] == pytest.approx(expected)
    figure.canvas.draw()
