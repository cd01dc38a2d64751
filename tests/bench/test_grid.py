"""The grids: every row trains, runs are repeatable, and the csv is gone on with; what rows are worth is not
asked here."""
import csv
from copy import deepcopy

import pandas as pd
import pytest
from fastai.callback.core import Callback

from fastmatch.data.demo import demo_path
from tests.bench import grid
from tests.bench.labels import FRITZING, parts

TINY = dict(size=32, epochs=1, arch='test_efficientnet', pretrained=False)
FIELDS = ['name', 'seed', 'recall_at_1', 'row_f1', 'map_at_r', 'minutes']


@pytest.fixture(scope='module')
def df():
    df = pd.read_csv(demo_path()/'listings.csv')
    # groups of two and more: 16 a batch, drawn by products
    groups = [*df[df.fold > 1].label_group.value_counts().index[:20]]
    for fold in (0, 1): groups += [*df[df.fold == fold].label_group.unique()[:12]]
    return df[df.label_group.isin(groups)].reset_index(drop=True)


@pytest.mark.parametrize(
    'grid_name, name',
    [(grid_name, name) for grid_name, rows in grid.GRIDS.items() if grid_name != 'parts' for name in rows],
)
def test_rows_train(grid_name, name, df):
    # what looks back an epoch needs two, and the test's net has other names
    more = dict(epochs=2) if grid_name == 'callbacks' else {}
    way = deepcopy(grid.GRIDS[grid_name][name])
    if name in ('FGM', 'PGD'): way.learner['cbs'].names = ('conv_stem',)
    result = grid.measure(way, 0, df=df, **{**TINY, **more})
    assert 0 <= result['recall_at_1'] <= 1 and 0 < result['row_f1'] <= 1
    assert 0 <= result['map_at_r'] <= 1 and result['minutes'] >= 0


@pytest.mark.skipif(not FRITZING.exists(), reason='the parts are not there: ../shared/data/fritzing')
@pytest.mark.slow
def test_rows_train_on_parts():
    df = parts().groupby(['fold', 'category']).head(2).reset_index(drop=True)
    for name in ('default', 'SAF (experimental)', 'FGM'):
        result = grid.measure_parts(grid.GRIDS['parts'][name], 1, epochs=2, df=df, max_len=16)
        assert 0 <= result['macro_f1'] <= 1 and result['minutes'] > 0


def test_a_run_does_not_depend_on_what_ran_before(df):
    way = grid.LOSSES['margin ramp']
    first, again, other = (grid.measure(way, seed, df=df, **TINY) for seed in (3, 3, 4))
    for result in (first, again, other): result.pop('minutes')
    assert first == again != other


class Look(Callback):
    "Notes which listings training sees, and which are scored."
    seen = []
    def after_fit(self):
        self.seen.append((set(self.learn.dls.train_df.fold), set(self.learn.dls.valid_df.fold)))


def test_what_is_reported_was_never_tuned_on(df):
    for tune in (False, True): grid.measure(grid.Way(cbs=Look()), 0, tune, df=df, **TINY)
    assert Look.seen == [({1, 2, 3, 4}, {0}), ({2, 3, 4}, {1})]


@pytest.mark.slow
def test_main_goes_on_where_it_stopped(monkeypatch, tmp_path, capsys):
    runs = []  # (rate, seed, tune)

    def measure(way, seed, tune):
        runs.append((way.lr, seed, tune))
        if len(runs) == 4: raise KeyboardInterrupt
        return dict(recall_at_1=.5, row_f1=.6, map_at_r=.4, minutes=1.)
    monkeypatch.setattr(grid, 'measure', measure)
    csv_file, tuned_csv = tmp_path/'x.csv', tmp_path/'y.csv'
    names = ['default', 'ranger', 'sgd_momentum']
    arguments = ['optimizers', '--only', *names, '--seeds', '0', '1', '--out', str(csv_file)]
    with pytest.raises(KeyboardInterrupt): grid.main(arguments)
    grid.main(arguments)
    rows = list(csv.DictReader(csv_file.open()))
    assert [(row['name'], row['seed']) for row in rows] == [(name, seed) for seed in '01' for name in names]
    assert list(rows[0]) == FIELDS
    assert len(runs) == 7 and not any(tune for _, _, tune in runs)
    runs.clear()
    rates = ['--lr', '.001', '.01']
    grid.main(['optimizers', '--only', 'ranger', '--tune', *rates, '--seeds', '5', '--out', str(tuned_csv)])
    assert runs == [(.001, 5, True), (.01, 5, True)]
    assert grid.done(tuned_csv) == {('ranger lr=0.001', 5), ('ranger lr=0.01', 5)}
    for wrong in (['--only', 'nobody'], ['--lr', '.1']):
        with pytest.raises(SystemExit): grid.main(['optimizers', *wrong, '--out', str(csv_file)])
    assert "'nobody'" in capsys.readouterr().err


def test_worth(tmp_path):
    "Against the formula: t of two degrees of freedom is 4.303 at 97.5%."
    rows = [
        ('default', 0, .5, .6, .4, 2.),
        ('default', 1, .5, .62, .4, 1.),
        ('default', 2, .5, .61, .4, 4.),
        ('several', 0, .5, .63, .3, 3.),
        ('several', 1, .5, .63, .3, 2.),
        ('several', 2, .5, .66, .3, 4.),
        ('once', 1, .7, .7, .7, 1.),
    ]
    pd.DataFrame(rows, columns=FIELDS).to_csv(tmp_path/'x.csv', index=False)
    table = grid.worth(tmp_path/'x.csv')
    assert list(table.index) == ['default', 'several', 'once'] and table.seeds.tolist() == [3, 3, 1]
    several, gains = table.loc['several'], pd.Series([.03, .01, .05])
    assert several['row F1'] == pytest.approx(.64)
    assert several['row F1 s.e.'] == pytest.approx(.01)
    assert several['row F1 gain'] == pytest.approx(.03)
    half_width = (several['row F1 high'] - several['row F1 low']) / 2
    assert half_width == pytest.approx(4.3027 * gains.std() / 3**.5, rel=1e-4)
    assert several['time'] == 1.5 and several['recall@1 gain'] == 0
    assert table.loc['once', 'row F1 gain'] == pytest.approx(.08) and table.loc['default', 'time'] == 1
    assert pd.isna(table.loc['default', 'row F1 gain']) and pd.isna(table.loc['once', 'row F1 low'])
