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
    big = df[df.fold > 1].label_group.value_counts().index[:20]
    return df[
        df.label_group.isin(
            [*big, *(item for k in (0, 1) for item in df[df.fold == k].label_group.unique()[:12])]
        )
    ].reset_index(drop=True)


@pytest.mark.parametrize(
    'which, name', [(g, k) for g, rows in grid.GRIDS.items() if g != 'parts' for k in rows]
)
def test_rows_train(which, name, df):
    # what looks back an epoch needs two, and the test's net has other names
    more = dict(epochs=2) if which == 'callbacks' else {}
    way = deepcopy(grid.GRIDS[which][name])
    if name in ('FGM', 'PGD'): way.learner['cbs'].names = ('conv_stem',)
    result = grid.measure(way, 0, df=df, **{**TINY, **more})
    assert (
        0 <= result['recall_at_1'] <= 1
        and 0 < result['row_f1'] <= 1
        and 0 <= result['map_at_r'] <= 1
        and result['minutes'] >= 0
    )


@pytest.mark.skipif(not FRITZING.exists(), reason='the parts are not there: ../shared/data/fritzing')
@pytest.mark.slow
def test_rows_train_on_parts():
    df = parts().groupby(['fold', 'category']).head(2).reset_index(drop=True)
    for name in ('default', 'SAF (experimental)', 'FGM'):
        result = grid.measure_parts(grid.GRIDS['parts'][name], 1, epochs=2, df=df, max_len=16)
        assert 0 <= result['macro_f1'] <= 1 and result['minutes'] > 0


def test_a_run_does_not_depend_on_what_ran_before(df):
    way = grid.LOSSES['margin ramp']
    a, b, c = (grid.measure(way, item, df=df, **TINY) for item in (3, 3, 4))
    for item in (a, b, c): item.pop('minutes')
    assert a == b != c


class Look(Callback):
    "Notes which listings training sees, and which are scored."
    seen = []
    def after_fit(self):
        self.seen.append((set(self.learn.dls.train_df.fold), set(self.learn.dls.valid_df.fold)))


def test_what_is_reported_was_never_tuned_on(df):
    for tune in (False, True): grid.measure(grid.Way(cbs=Look()), 0, tune, df=df, **TINY)
    assert Look.seen == [({1, 2, 3, 4}, {0}), ({2, 3, 4}, {1})]


def test_main_goes_on_where_it_stopped(monkeypatch, tmp_path, capsys):
    ran = []
    def measure(way, seed, tune):
        ran.append((way.lr, seed, tune))
        if len(ran) == 4: raise KeyboardInterrupt
        return dict(recall_at_1=.5, row_f1=.6, map_at_r=.4, minutes=1.)
    monkeypatch.setattr(grid, 'measure', measure)
    out = tmp_path/'x.csv'
    args = [
        'optimizers',
        '--only',
        'default',
        'ranger',
        'sgd_momentum',
        '--seeds',
        '0',
        '1',
        '--out',
        str(out),
    ]
    with pytest.raises(KeyboardInterrupt): grid.main(args)
    grid.main(args)
    rows = list(csv.DictReader(out.open()))
    assert [(row['name'], row['seed']) for row in rows] == [
        (k, s) for s in '01' for k in ('default', 'ranger', 'sgd_momentum')
    ] and list(rows[0]) == FIELDS
    assert len(ran) == 7 and not any(item[2] for item in ran)
    ran.clear()
    grid.main(
        [
            'optimizers',
            '--only',
            'ranger',
            '--tune',
            '--lr',
            '.001',
            '.01',
            '--seeds',
            '5',
            '--out',
            str(tmp_path / 'y.csv'),
        ]
    )
    assert ran == [(0.001, 5, True), (0.01, 5, True)] and grid.done(tmp_path / 'y.csv') == {
        ('ranger lr=0.001', 5),
        ('ranger lr=0.01', 5),
    }
    for bad in (['--only', 'nobody'], ['--lr', '.1']):
        with pytest.raises(SystemExit): grid.main(['optimizers', *bad, '--out', str(out)])
    assert "'nobody'" in capsys.readouterr().err


def test_worth(tmp_path):
    "Against the formula: t of two degrees of freedom is 4.303 at 97.5%."
    rows = [
        ('default', s, 0.5, function, 0.4, m)
        for s, function, m in ((0, 0.6, 2.0), (1, 0.62, 1.0), (2, 0.61, 4.0))
    ] + [
        ('a', s, 0.5, function, 0.3, m) for s, function, m in ((0, 0.63, 3.0), (1, 0.63, 2.0), (2, 0.66, 4.0))
    ]
    rows += [('b', 1, .7, .7, .7, 1.)]
    pd.DataFrame(rows, columns=FIELDS).to_csv(tmp_path/'x.csv', index=False)
    t = grid.worth(tmp_path/'x.csv')
    assert list(t.index) == ['default', 'a', 'b'] and t.seeds.tolist() == [3, 3, 1]
    a, d = t.loc['a'], pd.Series([.03, .01, .05])
    assert (
        a['row F1'] == pytest.approx(0.64)
        and a['row F1 s.e.'] == pytest.approx(0.01)
        and a['row F1 gain'] == pytest.approx(0.03)
    )
    assert (a['row F1 high'] - a['row F1 low']) / 2 == pytest.approx(
        4.3027 * d.std() / 3**0.5, rel=1e-4
    ) and a['time'] == 1.5
    assert (a['recall@1 gain'], t.loc['b', 'row F1 gain'], t.loc['default', 'time']) == (
        0,
        pytest.approx(0.08),
        1,
    )
    assert pd.isna(t.loc['default', 'row F1 gain']) and pd.isna(t.loc['b', 'row F1 low'])
