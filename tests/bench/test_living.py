"The scripts about catalogues on a small size: their figures are what they say."
import numpy as np
import pandas as pd
import pytest

from tests.bench import living, million_living


def test_figures_by_hand():
    groups, others = np.array([1, 1, 2, 3]), np.array([5, 5, 6, 6])
    assert living.differing(groups, others) == 2 and living.differing(groups, groups * 7) == 0
    # pairs: one in both; one here, two there
    assert living.pair_f1(groups, others) == pytest.approx(2 / 3)
    assert living.rand_index(groups, groups * 7) == 1


def test_a_small_million(tmp_path):
    out = tmp_path/'scale.csv'
    million_living.main(['--rows', '300', '--piece', '100', '--day', '20', '--vectors', '--out', str(out)])
    row = pd.read_csv(out).iloc[0]
    assert row.rows == 300 and 0 < row.groups <= 300 and row.file_mb > 0 and row.peak_mb > 50
