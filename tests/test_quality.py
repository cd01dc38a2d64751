"The bars that the main job must clear on real listings, under the held-out protocol: minutes, so slow."
import pytest

from fastmatch.jobs.options import SAMPLE_SIZE
from fastmatch.match import paired
from tests.bench.quality import LUMA, measure


@pytest.mark.long
def test_emoji_fused():
    table, _ = measure('emoji', size=SAMPLE_SIZE)
    gain = paired(table['fused'], table['untrained_fused'])
    assert table['fused'].mean >= .78 and gain.low > 0
    assert abs(table['alone'].mean - .517) < 1e-3


@pytest.mark.long
@pytest.mark.skipif(not LUMA.exists(), reason='no folder of real data beside the repository')
def test_luma_gain_over_five_folds():
    table, rows = measure('luma')
    gain = paired(table['fused'], table['untrained_fused'])
    assert rows.gain.mean() >= .05 and gain.diff >= .05 and gain.low > 0
    # the baseline is not made weak to look good: an independent measurement of untrained probability-or
    # gave .665 (s.e. .014)
    assert table['untrained_fused'].mean > .63
