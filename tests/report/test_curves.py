"The charts, read back from their drawing: every threshold's row F1, every pair counted, lost losses told."
import re

import numpy as np
import pytest

from fastmatch.match import candidates, decide, fuse, row_f1
from fastmatch.report import report_html
from fastmatch.report.chart import LEFT, RIGHT, W
from tests.report.made import run
from tests.report.reader import Reader, charts_of, line_of


def test_f1_at_the_threshold_and_pair_counts(html):
    embeddings, rule, *_ = run()
    page = Reader(html)
    groups = embeddings.groups
    want = row_f1(rule.apply(embeddings.spaces()), groups).mean()
    assert page.by_id['at-threshold'] == f'{want:.5f}'
    ids = candidates(embeddings.spaces(), rule.k).ids.tolist()
    near = {(min(i, j), max(i, j)) for i, row in enumerate(ids) for j in row if j >= 0 and i != j}
    true = sum(groups[i] == groups[j] for i, j in near)
    assert page.by_id['true-pairs'] == f'{true:,}' and page.by_id['false-pairs'] == f'{len(near) - true:,}'


def test_the_curve_is_the_row_f1_of_every_threshold(html, judged):
    "Read back from the drawing: each point's height is the row F1 of deciding at its score."
    embeddings, rule, *_ = run()
    svg = charts_of(html)[3]
    drawn = line_of(svg)
    near = judged.pairs.fused[judged.pairs.candidate]
    low, high = float(near.min()), float(near.max())
    thresholds = low + (drawn[:, 0] - LEFT) / (W - LEFT - RIGHT) * (high - low)
    neighbors = fuse(candidates(embeddings.spaces(), rule.k), rule.how, rule.weights)
    f1 = np.array([row_f1(decide(neighbors, threshold, rule.max_matches), embeddings.groups).mean()
                   for threshold in thresholds])
    # heights are linear in F1, the best threshold's is the highest; a tenth of a unit may step over a score
    fit = np.polyfit(drawn[:, 1], f1, 1)
    assert fit[0] < 0 and np.median(np.abs(np.polyval(fit, drawn[:, 1]) - f1)) < 2e-3 and np.ptp(f1) > .1
    at = float(re.search(r'class="threshold" d="M([\d.]+) ', svg)[1])
    assert drawn[drawn[:, 1].argmin(), 0] == pytest.approx(at, abs=.11)
    threshold = low + (at - LEFT) / (W - LEFT - RIGHT) * (high - low)
    assert threshold == pytest.approx(rule.threshold, abs=2e-3 * (high - low))


def test_the_histogram_counts_every_candidate_pair(html, judged):
    pairs = judged.pairs
    svg = charts_of(html)[2]
    # the grid's lines stand at 1, 10, ...: two of them give the scale
    grid = [float(height) for height in re.findall(r'class="grid" d="M\d+ ([\d.]+)H', svg)]
    for i, true in enumerate((True, False)):
        heights = line_of(svg, f's{i}')[::2, 1]
        counts = 10 ** ((grid[0] - heights) / (grid[0] - grid[1]))
        want = (pairs.candidate & (pairs.true == true)).sum()
        assert np.where(counts < .8, 0, counts).sum() == pytest.approx(want, rel=.02)


def test_a_loss_that_ran_away_is_told():
    embeddings, rule, table, _ = run()
    page = report_html(embeddings, rule, table, losses=[3., 2., float('nan'), float('inf')],
                       monitors={'recall@1': [float('nan')]})
    assert '2 steps without a finite loss' in page and 'no finite value to draw' in page
    assert 'nan' not in page.replace('nance', '')
    assert '2 steps without' in report_html(embeddings, rule, table, losses=[float('nan')] * 2)
