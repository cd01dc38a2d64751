"The charts, read back from their drawing: every threshold's row F1, every pair counted, lost losses told."
import re

import numpy as np
import pytest

from fastmatch.match import candidates, decide, fuse, row_f1
from fastmatch.report import report_html
from fastmatch.report.chart import LEFT, RIGHT, W
from tests.report.made import made_run
from tests.report.reader import Reader, charts_of, line_of


def test_f1_at_the_threshold_and_pair_counts(page_html):
    run = made_run()
    reader = Reader(page_html)
    spaces, groups = run.embeddings.spaces(), run.embeddings.groups
    expected = row_f1(run.rule.apply(spaces), groups).mean()
    assert reader.by_id['at-threshold'] == f'{expected:.5f}'
    neighbors = candidates(spaces, run.rule.k).ids.tolist()
    pairs = {(min(i, j), max(i, j)) for i, nearest in enumerate(neighbors)
             for j in nearest if j >= 0 and i != j}
    n_true = sum(groups[i] == groups[j] for i, j in pairs)
    assert reader.by_id['true-pairs'] == f'{n_true:,}'
    assert reader.by_id['false-pairs'] == f'{len(pairs) - n_true:,}'


def test_the_curve_is_the_row_f1_of_every_threshold(page_html, judged):
    "Read back from the drawing: each point's height is the row F1 of deciding at its score."
    run = made_run()
    embeddings, rule = run.embeddings, run.rule
    chart = charts_of(page_html)[3]
    drawn = line_of(chart)
    candidate_scores = judged.pairs.fused[judged.pairs.candidate]
    low, high = float(candidate_scores.min()), float(candidate_scores.max())
    thresholds = low + (drawn[:, 0] - LEFT) / (W - LEFT - RIGHT) * (high - low)
    neighbors = fuse(candidates(embeddings.spaces(), rule.k), rule.how, rule.weights)
    decisions = [decide(neighbors, threshold, rule.max_matches) for threshold in thresholds]
    mean_f1 = np.array([row_f1(matches, embeddings.groups).mean() for matches in decisions])
    # heights are linear in F1, the best threshold's is the highest; a tenth of a unit may step over a score
    fitted_line = np.polyfit(drawn[:, 1], mean_f1, 1)
    distances = np.abs(np.polyval(fitted_line, drawn[:, 1]) - mean_f1)
    assert fitted_line[0] < 0 and np.median(distances) < 2e-3 and np.ptp(mean_f1) > .1
    marked = float(re.search(r'class="threshold" d="M([\d.]+) ', chart)[1])
    assert drawn[drawn[:, 1].argmin(), 0] == pytest.approx(marked, abs=.11)
    threshold = low + (marked - LEFT) / (W - LEFT - RIGHT) * (high - low)
    assert threshold == pytest.approx(rule.threshold, abs=2e-3 * (high - low))


def test_the_histogram_counts_every_candidate_pair(page_html, judged):
    pairs = judged.pairs
    chart = charts_of(page_html)[2]
    # the grid's lines stand at 1, 10, ...: two of them give the scale
    grid_heights = [float(height) for height in re.findall(r'class="grid" d="M\d+ ([\d.]+)H', chart)]
    for number, true in enumerate((True, False)):
        heights = line_of(chart, f's{number}')[::2, 1]
        counts = 10 ** ((grid_heights[0] - heights) / (grid_heights[0] - grid_heights[1]))
        expected = (pairs.candidate & (pairs.true == true)).sum()
        assert np.where(counts < .8, 0, counts).sum() == pytest.approx(expected, rel=.02)


def test_a_loss_that_ran_away_is_told():
    embeddings, rule, table, _ = made_run()
    page_html = report_html(embeddings, rule, table, losses=[3., 2., float('nan'), float('inf')],
                            monitors={'recall@1': [float('nan')]})
    assert '2 steps without a finite loss' in page_html and 'no finite value to draw' in page_html
    assert 'nan' not in page_html.replace('nance', '')
    assert '2 steps without' in report_html(embeddings, rule, table, losses=[float('nan')] * 2)
