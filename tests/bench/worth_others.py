"""Rows of `nbs/worth.csv` that other benches measured: read from their tables, each with its own command."""
from pathlib import Path

import pandas as pd

from tests.bench.grid import worth

TABLES = Path(__file__).resolve().parents[2]/'nbs'
COLUMNS = ['section', 'trick', 'set', 'setting', 'score', 'over', 'value', 'gain', 'low', 'high',
           'recall_gain', 'recall_low', 'recall_high', 'seeds', 'listings', 'time', 'memory_mb', 'command']


def taken(
    source: pd.DataFrame,  # A bench's table
    names: dict,  # Column of ours -> theirs
    **same,  # Column of ours -> what it holds in every row
) -> pd.DataFrame:  # With `COLUMNS`, without rows that have no difference or no interval
    "Rows of another table under the names of this one."
    rows = pd.DataFrame({ours: source[theirs] for ours, theirs in names.items()}).assign(**same)
    if 'gain' in rows: rows = rows.dropna(subset=['gain', 'low', 'high'])
    return rows.reindex(columns=COLUMNS)


def read(name): return pd.read_csv(TABLES/name)


def ladders():
    for name in ('emoji', 'luma'):
        yield taken(read(f'ladder_{name}.csv').query('rung != "alone"'),
                    {'trick': 'rung', 'set': 'set', 'setting': 'setting', 'value': 'row_f1',
                     'gain': 'over_before', 'low': 'low_before', 'high': 'high_before', 'listings': 'n',
                     'command': 'command'},
                    section='Steps of a rule', score='row F1', over='the step before', seeds=1)


def tables():
    parts = read('tables.csv').query('protocol == "official"').copy()
    parts['trick'] = parts.way.str.removeprefix('without ').replace('titles alone', 'all but the titles')
    # points of F1 there, shares here
    for column in ('worth', 'worth_low', 'worth_high', 'pair_f1'): parts[column] /= 100
    yield taken(parts,
                {'trick': 'trick', 'set': 'set', 'value': 'pair_f1', 'gain': 'worth', 'low': 'worth_low',
                 'high': 'worth_high', 'seeds': 'seeds', 'command': 'command'},
                section='Columns of two shops\' tables', setting='published test pairs', score='pair F1',
                over='without it')


def pictures():
    rows = read('several_pictures.csv').query('way != "first" and over_first != 0').copy()
    rows['setting'] = 'listings made by ' + rows.merged.astype(str)
    yield taken(rows, {'trick': 'way', 'set': 'set', 'setting': 'setting', 'value': 'row_f1',
                       'gain': 'over_first', 'low': 'low_first', 'high': 'high_first', 'listings': 'listings',
                       'command': 'command'},
                section='Several pictures of a listing', score='row F1', over='the first picture', seeds=1)


WHAT = {'head': 'a head', 'training': 'a whole training', 'rule': 'a rule'}


def studies():
    rows = read('studies.csv')
    first_and_second = rows.compared.str.split(' over ', expand=True)
    rows['trick'] = rows.study.map(WHAT) + ': ' + first_and_second[0]
    rows['over'] = first_and_second[1]
    yield taken(rows, {'trick': 'trick', 'setting': 'data', 'value': 'a', 'over': 'over', 'gain': 'diff',
                       'low': 'low', 'high': 'high', 'seeds': 'seeds', 'listings': 'listings',
                       'command': 'command'}, section='Tuning', set='emoji', score='row F1')


def short_trainings():
    "Trainings of 102 steps, whose encoder is trained: what tells early."
    for name, section in (('losses', 'Losses'), ('optimizers', 'Optimizers'), ('callbacks', 'Callbacks'),
                          ('parts', 'Callbacks')):
        file = 'callbacks_parts.csv' if name == 'parts' else f'{name}.csv'
        score = 'macro-F1' if name == 'parts' else 'row F1'
        rows = worth(TABLES/file).drop(index='default').rename_axis('trick').reset_index()
        names = {'trick': 'trick', 'value': score, 'gain': f'{score} gain', 'low': f'{score} low',
                 'high': f'{score} high', 'seeds': 'seeds', 'time': 'time'}
        if name != 'parts':
            names |= {'recall_gain': 'recall@1 gain', 'recall_low': 'recall@1 low',
                      'recall_high': 'recall@1 high'}
        yield taken(rows, names, section=section, score=score, over='default',
                    set='electronic parts' if name == 'parts' else 'emoji',
                    setting='MiniLM trained, 60 steps' if name == 'parts' else 'encoder trained, 102 steps',
                    command=f'python tests/bench/grid.py {name} --seeds 0 1 2 --out nbs/{file}')


def buckets():
    rows = read('buckets.csv')
    rows['setting'] = rows.way + ', ' + rows.layers.astype(str) + ' layers of MiniLM'
    command = 'python tests/bench/buckets.py --seeds {} --layers {} --sets {}'
    rows['command'] = [command.format(*row) for row in rows[['seeds', 'layers', 'set']].to_numpy()]
    # the interval over seeds: the only one that says how sure it is for these listings
    yield taken(rows, {'set': 'set', 'setting': 'setting', 'value': 'row_f1_buckets', 'gain': 'diff',
                       'low': 'seed_low', 'high': 'seed_high', 'seeds': 'seeds', 'listings': 'listings',
                       'time': 'time', 'command': 'command'},
                section='Batches', trick='titles of like length (buckets=True)', score='row F1',
                over='batches of any titles')


def classes():
    yield taken(read('labels.csv'),
                {'trick': 'name', 'over': 'over', 'value': 'macro_f1', 'gain': 'diff', 'low': 'low',
                 'high': 'high', 'seeds': 'seeds'}, section='Classification of items', listings=506,
                set='electronic parts', setting='five folds', score='macro-F1',
                command='python tests/bench/labels.py')


def streams():
    yield taken(read('streams.csv').query('way != "late fusion"'),
                {'trick': 'way', 'value': 'macro_f1', 'gain': 'over_late', 'low': 'over_late_low',
                 'high': 'over_late_high', 'seeds': 'seeds', 'command': 'command'}, listings=687,
                section='Frames and texts in one model', set='clips', setting='five folds', score='macro-F1',
                over='late fusion')
    yield taken(read('streams.csv'),
                {'trick': 'way', 'over': 'compared_with', 'value': 'macro_f1', 'gain': 'over_compared',
                 'low': 'over_compared_low', 'high': 'over_compared_high', 'seeds': 'seeds',
                 'command': 'command'}, listings=687, section='Objectives and tricks on such a model',
                set='clips', setting='five folds', score='macro-F1')


def few_labels():
    runs = read('few_labels_runs.csv').query('over_base_low != over_base_high')
    yield taken(runs, {'trick': 'way', 'value': 'macro_f1', 'gain': 'over_base', 'low': 'over_base_low',
                       'high': 'over_base_high', 'seeds': 'seeds', 'command': 'command'},
                section='Few labels', set='clips', setting='five folds', score='macro-F1', listings=687,
                over='the labels alone')
    yield taken(read('few_labels.csv'),
                {'trick': 'case', 'over': 'compared with', 'value': 'macro_f1', 'gain': 'difference',
                 'low': 'low', 'high': 'high', 'seeds': 'seeds', 'command': 'command'},
                section='Labels, thresholds and stacks', set='clips', setting='five folds', score='macro-F1',
                listings=687)


PARTS = {'cluttered pictures': 'emoji', 'two unseen vendors': 'emoji', 'luma': 'luma', 'grocery': 'grocery'}


def parts():
    rows = read('parts.csv').query('figure.str.startswith("row F1")').copy()
    rows['setting'] = rows.figure.str.removeprefix('row F1, ')
    rows['set'] = rows.setting.map(PARTS)
    yield taken(rows, {'trick': 'way', 'set': 'set', 'setting': 'setting', 'value': 'value',
                       'over': 'compared_with', 'gain': 'gain', 'low': 'low', 'high': 'high',
                       'seeds': 'repetitions', 'listings': 'n', 'command': 'command'},
                section='Crops, parts and styles of pictures', score='row F1')


def steps():
    "What a step costs: a time without a difference."
    rows = taken(read('steps.csv'), {'trick': 'side', 'time': 'ratio'}, section='Cost of a step',
                 set='147 tensors', setting='CPU', over='adamw_foreach',
                 command='python tests/bench/run.py steps')
    yield rows.query('trick != "adamw_foreach"')


SOURCES = (ladders, tables, pictures, studies, short_trainings, buckets, classes, parts, streams, few_labels,
           steps)


def other_rows() -> pd.DataFrame:
    "All rows of other benches, with `COLUMNS`."
    return pd.concat([rows for source in SOURCES for rows in source()], ignore_index=True)
