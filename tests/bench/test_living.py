"The scripts about catalogues on a small size: their figures are what they say."
import numpy as np
import pandas as pd
import pytest

from tests.bench import catalogue_neighbours, living, million_living


def test_figures_by_hand():
    groups, others = np.array([1, 1, 2, 3]), np.array([5, 5, 6, 6])
    assert living.differing(groups, others) == 2 and living.differing(groups, groups * 7) == 0
    # pairs: one in both; one here, two there
    assert living.pair_f1(groups, others) == pytest.approx(2 / 3)
    assert living.rand_index(groups, groups * 7) == 1


@pytest.mark.slow
def test_a_small_million(tmp_path):
    out = tmp_path/'scale.csv'
    million_living.main(['--rows', '300', '--piece', '100', '--day', '20', '--vectors', '--out', str(out)])
    row = pd.read_csv(out).iloc[0]
    assert row.rows == 300 and 0 < row.groups <= 300 and row.file_mb > 0 and row.peak_mb > 50
    assert {'grow_s', 'index_cpu_s', 'day_s', 'remove_s', 'rebuild_s'} <= set(row.index)
    assert 0 < row.rebuild_peak_mb <= row.peak_mb


def test_orders_of_a_few(tmp_path, monkeypatch):
    if not living.DATA.is_dir(): monkeypatch.setattr(living, 'read', lambda name, rows: made(rows))
    arguments = ['--sets', 'luma', '--rules', 'pairs', '--rows', '40', '--orders', '2', '--out',
                 str(tmp_path/'living.csv')]
    living.main([*arguments, '--pieces', '0', '7'])
    living.main([*arguments, '--pieces', '7'])
    table = pd.read_csv(tmp_path/'living.csv')
    assert table.piece.tolist() == ['7', 'all'] and (table.rand_min == 1).all()
    assert (table.other_groups_max == 0).all() and (table.pair_f1_min == table.pair_f1_once).all()


def made(rows):
    "Listings for where the sets are not there."
    titles = [f'red bag number {row // 3}' for row in range(rows)]
    return pd.DataFrame({'posting_id': [f'p{row}' for row in range(rows)], 'title': titles,
                         'label_group': [row // 3 for row in range(rows)]})


@pytest.mark.slow
def test_neighbours_that_are_not_installed_are_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(catalogue_neighbours.NEIGHBOURS, 'lancedb', ['surely_not_installed'])
    out = tmp_path/'neighbours.csv'
    catalogue_neighbours.main(['--rows', '300', '--piece', '100', '--kills', '1', '--out', str(out),
                               '--what', 'lancedb', 'catalogue'])
    assert 'lancedb: not installed, left out' in capsys.readouterr().out
    row, = pd.read_csv(out).itertuples()
    assert (row.what, row.rows, row.recall, row.lost, row.torn, row.failed) == ('catalogue', 300, 1, 0, 0, 0)
    assert row.said >= 100 and row.file_mb > 0
