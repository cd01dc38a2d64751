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
    groups = [set(np.flatnonzero(labels == g).tolist()) for g in labels]
    want = row_f1(
        decide(fuse(candidates(_spaces(*vectors), 10), 'union', {'image': 0.5, 'title': 0.6}), 0), labels
    )
    rows = np.arange(0, len(labels), 3)
    assert (
        objective(vectors, groups, rows, (0.5, 0.6), 10) == pytest.approx(want[rows].mean(), abs=1e-9)
        and want.mean() > 0.3
    )


@pytest.mark.slow
def test_worth(tmp_path):
    from tests.bench import worth
    out = tmp_path/'studies.csv'
    for _ in range(2):
        worth.main(
            ['head', '--n-trials', '2', '--epochs', '1', '--size', '32', '--seeds', '2', '--out', str(out)]
        )
    table = pd.read_csv(out)
    assert (
        list(table.compared) == ['best over default', 'default over no head']
        and (table.low <= table['diff']).all()
        and set(table.listings) == {463}
    )
