"""The studies' bench: its objective of sets is the union that it stands for; the script that says what tuning
is worth runs."""
import numpy as np
import pandas as pd
import pytest

from fastmatch.match import candidates, decide, fuse, row_f1
from tests.bench.bench_rule import QUICK, _spaces, listings
from tests.bench.bench_studies import objective
from tests.bench.bench_threshold import shopee_like


def test_the_objective_is_a_union():
    vectors, labels = listings(*QUICK), shopee_like(*QUICK[:3])
    groups = [set(np.flatnonzero(labels == label).tolist()) for label in labels]
    union = fuse(candidates(_spaces(*vectors), 10), 'union', {'image': .5, 'title': .6})
    expected = row_f1(decide(union, 0), labels)
    rows = np.arange(0, len(labels), 3)
    actual = objective(vectors, groups, rows, (.5, .6), 10)
    assert actual == pytest.approx(expected[rows].mean(), abs=1e-9) and expected.mean() > .3


@pytest.mark.slow
def test_worth(tmp_path):
    from tests.bench import worth
    out = tmp_path/'studies.csv'
    small = ['--n-trials', '2', '--epochs', '1', '--size', '32', '--seeds', '2']
    for _ in range(2): worth.main(['head', *small, '--out', str(out)])
    table = pd.read_csv(out)
    assert list(table.compared) == ['best over default', 'default over no head']
    assert (table.low <= table['diff']).all() and set(table.listings) == {463}
