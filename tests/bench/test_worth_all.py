"""The table of what tricks are worth: its intervals by another way, gaps filled and nothing done twice, and
no public part forgotten."""
import importlib
import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import fastmatch.callback
import fastmatch.losses
import fastmatch.optim
import fastmatch.schedule
from fastmatch.core import InputError
from fastmatch.data import augment, sampler
from fastmatch.layers import attention, heads, instance_norm, pooling
from fastmatch.match import HeldOut
from fastmatch.match.judge.heldout import dependence_factor
from fastmatch.optim import optimizer_configs
from fastmatch.store import table_text, write_text
from tests.bench import worth_all, worth_sets
from tests.bench.worth_others import COLUMNS, other_rows
from tests.bench.worth_tricks import ADAMW, DEFAULT, LEFT_OUT, STORED, Trick, tricks
from tests.learner.test_callbacks import TRAINS, public_callbacks


def public_of(module, base):
    "The public classes of a module that extend `base`."
    return {name for name, value in vars(module).items()
            if isinstance(value, type) and issubclass(value, base)
            and value.__module__ == module.__name__ and not name.startswith('_')}


PUBLIC = {
    'losses': set(fastmatch.losses.__all__),
    'optimizers': set(optimizer_configs) | set(fastmatch.optim.__all__),
    'schedules': set(fastmatch.schedule.__all__),
    'callbacks': {callback.__name__ for callback in (*public_callbacks(fastmatch.callback),
                                                     *public_callbacks(fastmatch.schedule), *TRAINS)},
    'augmentations': {*augment.__all__, *augment.list_augs()},
    'samplers': public_of(sampler, sampler.Sampler) - {'Sampler', 'RowSampler'},
    'layers': set().union(*(public_of(module, torch.nn.Module)
                            for module in (attention, heads, instance_norm, pooling)))}


@pytest.mark.parametrize('kind', PUBLIC)
def test_every_public_part_has_a_row_or_a_reason(kind):
    measured = {part for trick in tricks().values() for part in trick.parts}
    assert PUBLIC[kind] - measured - set(LEFT_OUT) == set()


def test_what_is_left_out_exists_and_has_no_row():
    measured = {part for trick in tricks().values() for part in trick.parts}
    assert set(LEFT_OUT) - set().union(*PUBLIC.values()) == set()
    assert measured & set(LEFT_OUT) == set()
    # the benches that the reasons name
    for reason in LEFT_OUT.values():
        for word in reason.replace(',', ' ').split():
            if word.startswith('tests/bench/'): assert (worth_all.ROOT/word).exists()


def runs_of_scores(rng, n_runs):
    "Two ways' runs, each of groups of its own, and the plain numbers that they were made of."
    made = []
    for run in range(n_runs):
        clusters = np.sort(rng.integers(0, 12 + run, 40))
        clusters = np.unique(clusters, return_inverse=True)[1]
        plain, ours = rng.random((2, 40))
        made.append((ours, plain, clusters))
    return made


@pytest.mark.parametrize('n_runs', [1, 2, 5])
def test_interval(n_runs):
    "Against the formulas, written out in loops."
    made = runs_of_scores(np.random.default_rng(n_runs), n_runs)
    differences = [ours - plain for ours, plain, _ in made]
    everything = np.concatenate(differences)
    mean, squares, groups = everything.mean(), 0., 0
    pooled = []
    for difference, (_, _, clusters) in zip(differences, made):
        for group in set(clusters.tolist()):
            squares += sum(value - mean for value, own in zip(difference, clusters) if own == group)**2
        pooled += [groups + code for code in clusters]
        groups += len(set(clusters.tolist()))
    factor = dependence_factor(np.array(pooled))
    of_groups = factor**2 * squares * groups / (groups - 1) / len(everything)**2
    variance, freedom = of_groups, groups - 1
    if n_runs > 1:
        of_runs = np.var([difference.mean() for difference in differences], ddof=1) / n_runs
        variance = of_groups + of_runs
        freedom = variance**2 / (of_groups**2 / (groups - 1) + of_runs**2 / (n_runs - 1))
    margin = stats.t(freedom).isf(.025) * np.sqrt(variance)
    ours, plain = ([HeldOut(run[side], run[2]) for run in made] for side in (0, 1))
    np.testing.assert_allclose(worth_all.interval(ours, plain), [mean, mean - margin, mean + margin])


def test_no_difference_has_no_width():
    same = [HeldOut(np.array([.5, .2, 1.]), np.array([0, 0, 1]))]
    assert worth_all.interval(same, same) == (0, 0, 0)


@pytest.fixture
def few(monkeypatch):
    "Three tricks in place of all."
    chosen = {trick.id: trick for trick in (Trick('Default', DEFAULT), Trick('Losses', 'one'),
                                            Trick('Schedules', 'two'))}
    monkeypatch.setattr(worth_all, 'tricks', lambda: chosen)
    return chosen


def scored(trick, name, seed, work, n=6):
    "In place of a training: scores that depend on the run alone."
    rng = np.random.default_rng([len(trick.name), seed])
    worth_all.keep(worth_all.file_of(work, trick, name, seed), {
        'trick': trick.id, 'row_f1': rng.random(n).tolist(), 'recall': [None, *rng.random(n - 1).tolist()],
        'clusters': [0, 0, 1, 2, 2, 3], 'seconds': 2. if trick.name == DEFAULT else 3., 'peak_mb': 10. + seed,
        'steps': 400})


def test_gaps_are_filled_and_nothing_is_done_twice(few, tmp_path, monkeypatch):
    done = []
    def apart(function, trick, name, seed, work):
        done.append((trick.name, name, seed))
        scored(trick, name, seed, work)
        return True
    monkeypatch.setattr(worth_all, 'apart', apart)
    monkeypatch.setattr(worth_all, 'trained', lambda *args, **kwargs: None)
    def fill(**options):
        worth_all.fill(worth_all.planned(**options), tmp_path, None, echo=lambda *args, **kwargs: None)
    fill(seeds=1, sets=['emoji'], only=['two'])
    assert done == [(DEFAULT, 'emoji', 0), ('two', 'emoji', 0)]
    fill(seeds=2, sets=['emoji', 'luma'])
    # the first seed of everything comes first
    assert done[2:] == [('one', 'emoji', 0), *[(name, 'luma', 0) for name in (DEFAULT, 'one', 'two')],
                        *[(name, set_name, 1) for set_name in ('emoji', 'luma')
                          for name in (DEFAULT, 'one', 'two')]]
    fill(seeds=2, sets=['emoji', 'luma'])
    assert len(done) == len(set(done)) == 12
    # a run that was killed leaves no file, or half of one under another name
    lost = worth_all.file_of(tmp_path, few[f'{STORED}: one'], 'luma', 1)
    lost.rename(lost.with_suffix('.part'))
    fill(seeds=2, sets=['emoji', 'luma'])
    assert done[12:] == [('one', 'luma', 1)]


def test_rows(few, tmp_path):
    runs = worth_all.planned(2, sets=['emoji'])
    for trick, name, seed in runs:
        # a seed without its default has nothing to be compared with
        if not (trick.name == 'two' and seed == 0 or trick.name == DEFAULT and seed == 1):
            scored(trick, name, seed, tmp_path)
    rows = worth_all.measured_rows(runs, tmp_path)
    assert list(rows.columns) == COLUMNS
    assert rows.trick.tolist() == [DEFAULT, 'one'] and rows.seeds.tolist() == [1, 1]
    default, one = rows.to_dict('records')
    assert np.isnan(default['gain']) and one['time'] == 1.5 and one['memory_mb'] == 0
    def mean(name, score):
        found = json.loads(worth_all.file_of(tmp_path, few[f'{STORED}: {name}'], 'emoji', 0).read_text())
        return np.mean([value for value in found[score] if value is not None])
    assert one['value'] == pytest.approx(mean('one', 'row_f1'))
    for score, column in (('row_f1', 'gain'), ('recall', 'recall_gain')):
        assert one[column] == pytest.approx(mean('one', score) - mean(DEFAULT, score))
    assert one['low'] < one['gain'] < one['high'] and one['listings'] == 6
    assert one['command'] == 'python tests/bench/worth_all.py --seeds 1 --only one'


def test_rows_of_runs_that_are_not_at_hand_stay(few, tmp_path, monkeypatch):
    monkeypatch.setattr(worth_all, 'other_rows', lambda: pd.DataFrame(columns=COLUMNS))
    table, elsewhere, here = tmp_path/'worth.csv', tmp_path/'elsewhere', tmp_path/'here'
    def write(work, *runs):
        for trick, name, seed in runs: scored(trick, name, seed, work)
        found = worth_all.table_of(worth_all.planned(3, sets=['emoji']), work, table)
        worth_all.write_text(table, worth_all.table_text(found))
        return found.set_index('trick')
    default, one, two = few.values()
    first = write(elsewhere, *[(trick, 'emoji', seed) for trick in few.values() for seed in (0, 1)])
    assert first.seeds.to_dict() == {DEFAULT: 2, 'one': 2, 'two': 2}
    # a folder of its own with one seed of one trick, and then three of it
    pd.testing.assert_frame_equal(write(here, (default, 'emoji', 0), (two, 'emoji', 0)), first)
    later = write(here, *[(trick, 'emoji', seed) for trick in (default, two) for seed in (0, 1, 2)])
    assert later.seeds.to_dict() == {DEFAULT: 3, 'one': 2, 'two': 3}
    assert later.gain['one'] == first.gain['one'] and later.gain['two'] != first.gain['two']
    # a trick that is no more goes
    few.pop(one.id)
    assert list(write(here).index) == [DEFAULT, 'two']


def test_an_optimizer_is_compared_with_adamw_at_its_best_rate():
    names = [trick.name for trick, *_ in worth_all.planned(1, ['ranger'], ['emoji'])]
    assert sorted(names) == sorted([DEFAULT, DEFAULT, ADAMW, 'ranger'])
    by_id = tricks()
    assert all(f'{trick.setting}: {trick.over}' in by_id for trick in by_id.values())
    assert all(trick.over == ADAMW for trick in by_id.values() if trick.tuned and trick.name != ADAMW)


@pytest.mark.parametrize('best, tried', [(0, [-1, 0, 1]), (-3, [-1, 0, 1, -2, -3, -4]),
                                         (1.6, [-1, 0, 1, 2, 3])])
def test_the_rate_of_an_optimizer(tmp_path, monkeypatch, best, tried):
    "The best of three, and on from there where the best is at an end; a lost loss is the worst."
    rates = []
    def trained(trick, name, seed, work, rate, steps, tune):
        assert tune and (name, seed) == ('luma', 2)
        rates.append(rate)
        if rate > 1e6: raise worth_all.NotANumber('lost')
        return {'row_f1': [1 - abs(np.log(rate / .02) / np.log(3) - best) / 10]}
    monkeypatch.setattr(worth_all, 'trained', trained)
    trick = Trick('Optimizers', 'one', rate=2., tuned=True)
    found = worth_all.tuned_rate(trick, 'luma', 2, tmp_path)
    np.testing.assert_allclose(rates, [.02 * 3.**power for power in tried])
    assert found == pytest.approx(.02 * 3.**round(best))
    # found once
    assert worth_all.tuned_rate(trick, 'luma', 2, tmp_path) == found and len(rates) == len(tried)


def test_unknown_names_are_said(capsys, tmp_path):
    with pytest.raises(InputError, match=r"no trick \['nobody'\].*SAM"): worth_all.planned(1, ['nobody'])
    with pytest.raises(InputError, match=r"no set \['shoes'\].*luma"): worth_all.planned(1, sets=['shoes'])
    with pytest.raises(InputError, match="set='shoes'.*emoji"): worth_sets.listings('shoes')
    with pytest.raises(SystemExit):
        worth_all.main(['--only', 'nobody', '--work', str(tmp_path), '--out', str(tmp_path/'x.csv')])
    assert "no trick ['nobody']" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_section_without_a_place_is_said():
    with pytest.raises(InputError, match='Magic'): worth_all.in_order(pd.DataFrame({'section': ['Magic']}))
    made = {trick.kind for trick in tricks().values()} | set(other_rows().section)
    assert made == set(worth_all.SECTIONS)


def test_rows_of_other_benches_are_their_tables():
    "Figures taken over, found again in the tables that they came from; all have a command."
    rows = other_rows()
    assert rows.command.notna().all() and rows.trick.notna().all()
    # every row has a difference with its interval, or a time alone
    assert (rows.gain.notna() & rows.low.notna() & rows.high.notna() | rows.time.notna()).all()
    streams = pd.read_csv(worth_all.ROOT/'nbs'/'streams.csv').set_index('way')
    taken = rows[rows.section == 'Frames and texts in one model'].set_index('trick')
    assert len(taken) and (taken.gain == streams.over_late[taken.index]).all()
    tables = pd.read_csv(worth_all.ROOT/'nbs'/'tables.csv').query('protocol == "official"')
    taken = rows[rows.section == "Columns of two shops' tables"]
    assert taken.gain.sum() * 100 == pytest.approx(tables.worth.sum())


def test_the_table_that_is_there_is_in_order_and_complete():
    table = pd.read_csv(worth_all.TABLE)
    assert list(table.columns) == COLUMNS
    places = [worth_all.SECTIONS.index(section) for section in table.section]
    assert places == sorted(places)
    by_name = {trick.name for trick in tricks().values()}
    own = table[table.command.str.startswith(worth_all.COMMAND)]
    assert len(own) and set(own.trick) <= by_name
    assert ((table.low <= table.gain) & (table.gain <= table.high) | table.low.isna()).all()
    # of this checkout: what other benches say now
    assert len(table) - len(own) == len(other_rows())


def test_a_real_training_on_features(tmp_path, monkeypatch):
    "The real learner on a small table of vectors: groups that are told apart are found again."
    rng = np.random.default_rng(0)
    df = pd.DataFrame({'posting_id': [f'p{i}' for i in range(126)], 'label_group': np.repeat(range(42), 3)})
    # 27 listings in folds 0 and 1, 24 in the others
    df['fold'] = df.label_group % 5
    df['row'] = np.arange(len(df)).astype(str)
    vectors = rng.normal(size=(42, 24))[df.label_group] + .3 * rng.normal(size=(126, 24))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    monkeypatch.setattr(worth_sets, 'BATCH', 16)
    monkeypatch.setattr(worth_all, 'listings', lambda name: df)
    encoder = worth_sets.StoredVectors(vectors, worth_sets.main_directions(vectors)[:16])
    monkeypatch.setattr(worth_all, 'encoder_of', lambda name, work: encoder)
    default = Trick('Default', DEFAULT)
    before = encoder.project.weight.clone()
    found = worth_all.trained(default, 'emoji', 1, tmp_path, steps=30)
    assert found['steps'] == 30 and found['seconds'] > 0
    assert len(found['row_f1']) == (df.fold == 1).sum() == len(found['clusters'])
    assert np.mean(found['recall']) > .9
    # a rate is looked for on the next fold, without the listings that will be judged
    tuned = worth_all.trained(default, 'emoji', 1, tmp_path, steps=30, tune=True)
    assert len(tuned['row_f1']) == (df.fold == 2).sum() != len(found['row_f1'])
    # the same again, and each training starts from the same weights
    assert worth_all.trained(default, 'emoji', 1, tmp_path, steps=30)['row_f1'] == found['row_f1']
    assert encoder.project.weight.equal(before)


def test_batches_are_those_of_the_plain_loader():
    "The fast loader's batches against reading row by row."
    df = pd.DataFrame({'posting_id': [f'p{i}' for i in range(400)]})
    df['label_group'] = np.repeat(list('abcdefghij'), 40)
    df['fold'] = df.label_group.isin(['i', 'j']).map({True: 0, False: 1})
    df['row'] = np.arange(len(df)).astype(str)
    dls = worth_sets.loaders(df, 0)
    places, groups = dls.valid.one_batch()
    assert places.flatten().tolist() == df.index[df.fold == 0].tolist()
    assert [dls.vocab[group] for group in groups] == df.label_group[df.fold == 0].tolist()
    seen = [(place, dls.vocab[group]) for places, groups in dls.train
            for place, group in zip(places.flatten().tolist(), groups)]
    assert len(set(seen)) == len(seen) and {df.label_group[place] for place, _ in seen} <= set('abcdefgh')
    assert all(df.label_group[place] == group for place, group in seen)


def test_the_page(tmp_path, monkeypatch):
    import sys
    sys.path.insert(0, str(worth_all.ROOT/'docs'/'hooks'))
    try: page = importlib.import_module('worth')
    finally: sys.path.pop(0)
    row = {'set': 'emoji', 'setting': 's', 'score': 'row F1', 'over': DEFAULT, 'value': .5, 'seeds': 2,
           'time': 2., 'memory_mb': 30., 'command': 'python x.py --seeds 2 --only a'}
    rows = [{**row, 'section': 'Losses', 'trick': 'good', 'gain': .1, 'low': .05, 'high': .15},
            {**row, 'section': 'Losses', 'trick': 'open', 'gain': .1, 'low': -.05, 'high': .25},
            {**row, 'section': 'Losses', 'trick': 'open', 'set': 'luma', 'gain': .2, 'low': -.1, 'high': .5},
            {**row, 'section': 'Losses', 'trick': 'early', 'seeds': 1, 'gain': .3, 'low': .2, 'high': .4,
             'memory_mb': 3., 'command': worth_all.COMMAND},
            {**row, 'section': 'Callbacks', 'trick': 'bad', 'gain': -.1, 'low': -.2, 'high': -.05}]
    write_text(tmp_path/'worth.csv', table_text(pd.DataFrame(rows).reindex(columns=COLUMNS)))
    monkeypatch.setattr(page, 'TABLE', tmp_path/'worth.csv')
    text = page.sections()
    assert '| good | +.100 [+.050, +.150] **better** |  | 2.00x | +30 MB | 2 |' in text
    assert '| open | +.100 [-.050, +.250] not clear | +.200 [-.100, +.500] not clear |' in text
    assert '-.100 [-.200, -.050] worse' in text and '4 differences' in text and '2 of them' in text
    assert '| early | +.300 [+.200, +.400] one seed |  | 2.00x | same | 1 |' in text
    first = text[:text.index('## Losses')]
    assert '| good | [Losses](#losses) | +.100 | emoji |' in first
    assert not any(f'| {trick} |' in first for trick in ('open', 'early', 'bad'))
    assert text.index('## Losses') < text.index('## Callbacks') and '`python x.py`' in text
