"The section on the rule: its sentences, what each rung added, and the threshold over the pool, read back."
import re

import numpy as np
import pytest

from fastmatch.match import HeldOut, PoolThresholds, Rule, paired
from fastmatch.match.search.ladder import LadderResult, Rung
from fastmatch.match.words import rule_in_words
from fastmatch.report.chart import LEFT, RIGHT, W
from fastmatch.report.rule import pools_chart, rule_html, steps_chart
from tests.report.reader import Reader, line_of

RULE = Rule('mean', {'image': .7, 'title': .3}, .5, steps=('min2',),
            pools=PoolThresholds((100, 1000, 2000), (.3, .5, .56), .06, 1000))


def climbed(*gains, n_listings=60):
    "A ladder whose rungs add so much to every listing on average, the first to .5."
    rng = np.random.default_rng(0)
    row_f1, clusters = np.full(n_listings, .5), np.arange(n_listings) // 2
    rungs = [Rung('alone', HeldOut(row_f1, clusters), None)]
    for number, gain in enumerate(gains):
        row_f1 = row_f1 + gain + rng.normal(0, .01, n_listings)
        heldout = HeldOut(row_f1, clusters)
        name = 'fused' if number == 0 else f'+ step {number}'
        rungs.append(Rung(name, heldout, paired(heldout, rungs[-1].heldout)))
    return LadderResult(RULE, None, rungs)


def test_the_rule_is_told_in_its_sentences():
    reader = Reader(rule_html(RULE))
    assert reader.texts('li') == rule_in_words(RULE)
    assert not reader.elements('td') and 'What each step was worth' not in reader.texts('h3')


def test_the_rungs_as_a_table_and_as_a_drawing():
    ladder = climbed(.2, .05, -.04, 0.)
    html = rule_html(RULE, ladder)
    rows = [re.findall(r'<td>(.*?)</td>', row) for row in re.findall(r'<tr[^>]*>(.*?)</tr>', html)]
    rows = [row for row in rows if row]
    assert [row[0] for row in rows] == ['alone', 'fused', '+ step 1', '+ step 2', '+ step 3']
    for row, rung in zip(rows, ladder.rungs):
        assert row[1] == f'{rung.heldout.mean:.3f}'
        if rung.over_before is None: assert row[3:] == ['', '']
        else:
            added = rung.over_before
            assert row[3:] == [f'{added.diff:+.3f}', f'{added.low:+.3f} to {added.high:+.3f}']
    drawing = steps_chart(ladder)
    styles = re.findall(r'class="whisker (\w+)" d="M([\d.]+) [\d.]+H([\d.]+)"', drawing)
    assert [style for style, *_ in styles] == ['right', 'wrong', 'unsure']
    # what is right of the line at zero added something: the drawing is linear in what was added
    zero = float(re.search(r'class="threshold" d="M([\d.]+) ', drawing)[1])
    dots = np.array(re.findall(r'cx="([\d.]+)"', drawing), float)
    diffs = [rung.over_before.diff for rung in ladder.rungs[2:]]
    scale = (dots[0] - zero) / diffs[0]
    np.testing.assert_allclose(dots - zero, np.array(diffs) * scale, atol=.2)
    ends = np.array([[rung.over_before.low, rung.over_before.high] for rung in ladder.rungs[2:]])
    np.testing.assert_allclose(np.array([style[1:] for style in styles], float) - zero, ends * scale, atol=.2)


def test_a_plain_rule_has_no_drawing():
    assert steps_chart(climbed(.2)) is None
    assert 'whisker' not in rule_html(RULE, climbed(.2)) and 'fused' in rule_html(RULE, climbed(.2))


def test_the_threshold_over_the_pool():
    "On a log axis; the prediction starts where the measuring ends."
    drawing = pools_chart(RULE.pools)
    measured, predicted = line_of(drawing, 's0'), line_of(drawing, 's1')
    assert len(measured) == len(predicted) == 2
    np.testing.assert_allclose(measured[1], predicted[0])
    share = (measured[1, 0] - LEFT) / (W - LEFT - RIGHT)
    assert share == pytest.approx(np.log(10) / np.log(20), abs=1e-3)
    heights = [measured[0, 1], measured[1, 1], predicted[1, 1]]
    assert (heights[0] - heights[2]) / (heights[0] - heights[1]) == pytest.approx(.26 / .2, abs=.01)
    assert '>1,000</text>' in drawing and '>200</text>' in drawing
    assert 'Threshold by listings searched' in rule_html(RULE)


@pytest.mark.parametrize('pools', [None, PoolThresholds((100,), (.5,))])
def test_without_thresholds_for_other_pools(pools):
    rule = Rule('mean', {'image': 1.}, .5, pools=pools)
    assert 'Threshold by listings searched' not in rule_html(rule)
