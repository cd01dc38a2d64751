"A chart's lines: few points however many steps there were, and labels that stay text."
import re

import numpy as np

from fastmatch.report.chart import BOTTOM, LEFT, RIGHT, TOP, H, W, chart
from tests.report.reader import line_of


def test_many_steps_stay_small_and_keep_their_ends():
    losses = np.r_[7., np.linspace(5, 3, 100_000), 1.]
    drawn = line_of(chart({'loss': (np.arange(len(losses)), losses)}, 'step', 'loss', ''))
    assert len(drawn) <= 400 and drawn[0, 1] < drawn[1:, 1].min() and drawn[-1, 1] > drawn[:-1, 1].max()
    assert drawn[0, 0] == LEFT and drawn[-1, 0] == W - RIGHT
    assert drawn[:, 1].min() > TOP and drawn[:, 1].max() < H - BOTTOM


def test_names_and_labels_stay_text():
    drawn = chart({'<b>': ([0, 1], [0, 1])}, '<i>', '"&', 'a "chart"')
    assert set(re.findall(r'<(\w+)', drawn)) == {'svg', 'path', 'text', 'circle', 'div', 'span'}
    assert '&lt;b&gt;' in drawn and '&lt;i&gt;' in drawn and 'aria-label="a &#34;chart&#34;"' in drawn
