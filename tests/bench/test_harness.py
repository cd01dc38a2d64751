"""The harness of the benches: its statistics against theory, its order and its books; nothing here asks how
fast something is."""
import gc
import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback, CancelValidException

from fastmatch.match import Neighbors, best_threshold, decide, row_f1
from tests.bench import bench_rule, bench_search, bench_step, bench_threshold, harness, known
from tests.bench.harness import Case, Row, interval, rows_of, take_turns, timed
from tests.bench.run import in_table, main

FIELDS = ['bench', 'case', 'side', 'seconds', 'peak_mb', 'ratio', 'low', 'high', 'bar', 'value', 'unit']


def simulated(rng, n, ratio, noise=.1, drift=1.):
    "Costs of `n` pairs on a machine that slows both sides of a pair alike."
    slowness = np.exp(np.cumsum(rng.normal(0, drift, n)))
    return (ratio * slowness * np.exp(rng.normal(0, noise, n)), slowness * np.exp(rng.normal(0, noise, n)))


def test_interval_of_what_is_known():
    assert interval(np.full(30, 2.)) == pytest.approx((2, 2, 2))
    ratios = np.random.default_rng(0).lognormal(size=30)
    median, low, high = interval(ratios)
    assert median == pytest.approx(np.exp(np.median(np.log(ratios)))) and low < median < high
    # swapping the sides inverts all three
    assert interval(1 / ratios) == pytest.approx((1 / median, 1 / high, 1 / low))
    # a machine that slows tenfold half-way, both sides alike
    ours, theirs = np.array([3.] * 15 + [30.] * 15), np.array([2.] * 15 + [20.] * 15)
    assert interval(ours / theirs) == pytest.approx((1.5, 1.5, 1.5))
    # one spoilt run of thirty moves nothing
    assert interval(np.append(np.full(29, 1.2), 50.)) == pytest.approx((1.2, 1.2, 1.2))
    for wrong in ([1.], [1., 0.], [1., np.nan], [1., -1.]):
        with pytest.raises(ValueError), np.errstate(all='ignore'): interval(wrong)


@pytest.mark.parametrize('n, first, last', [(10, 2, 9), (30, 10, 21), (100, 40, 61)])
def test_interval_is_near_the_exact_one_for_a_median(n, first, last):
    """The ranks of the exact interval come from the binomial distribution; the bootstrap's ends lie within
    two ranks of them."""
    from scipy.stats import binom
    assert .95 < binom.cdf(last - 1, n, .5) - binom.cdf(first - 1, n, .5) < .98
    for seed in range(10):
        ratios = np.sort(np.random.default_rng(seed).lognormal(size=n))
        _, low, high = interval(ratios, seed)
        assert ratios[max(0, first - 3)] <= low <= ratios[first + 1]
        assert ratios[last - 3] <= high <= ratios[min(n - 1, last + 1)]


@pytest.mark.parametrize('n', [10, 30])
def test_interval_covers_the_truth(n):
    rng = np.random.default_rng(n)
    covered = []
    for _ in range(400):
        ours, theirs = simulated(rng, n, 1.07)
        _, low, high = interval(ours / theirs, resamples=499)
        covered.append(low <= 1.07 <= high)
    # 95%, give or take three standard errors and the few percent by which a percentile bootstrap of a median
    # is off
    assert .9 <= np.mean(covered) <= .99


def test_take_turns():
    timed_calls = []  # (side, number of calls)

    def timer(costs):
        def run(call, number):
            call()
            timed_calls.append((call.side, number))
            return costs[call.side]
        return run

    class Call:
        def __init__(self, side): self.side = side
        def __call__(self): pass
    calls = {side: Call(side) for side in 'abc'}
    reports = []
    seconds = take_turns(calls, timer=timer(dict(a=.1, b=.2, c=.001)),
                         progress=lambda done, total: reports.append((done, total)))
    assert {side: len(runs) for side, runs in seconds.items()} == dict.fromkeys('abc', 30)
    assert len(timed_calls) == 6 + 90 and reports[-1] == (30, 30)
    # warmed up by single calls, then in an order that turns round, short calls repeated
    assert ''.join(side for side, _ in timed_calls) == 'abc' * 2 + 'abccba' * 15
    assert {number for _, number in timed_calls[:6]} == {1}
    assert {number for side, number in timed_calls[6:] if side == 'c'} == {5}
    assert {number for side, number in timed_calls[6:] if side != 'c'} == {1}
    assert len(take_turns(calls, timer=timer(dict(a=.1, b=1.2, c=.1)))['a']) == 10
    assert len(take_turns(calls, 3, timer=timer(dict(a=.1, b=1.2, c=.1)))['a']) == 3


def test_timed_keeps_the_collector_out():
    states = []
    assert timed(lambda: states.append(gc.isenabled()), 3) > 0 and states == [False] * 3 and gc.isenabled()
    with pytest.raises(ZeroDivisionError): timed(lambda: 1 / 0)
    assert gc.isenabled()
    gc.disable()
    try:
        timed(lambda: None)
        assert not gc.isenabled()
    finally: gc.enable()


def test_rows(monkeypatch):
    costs = {'ours': 1., 'plain': .5, 'other': .25}

    def take_turns(calls, pairs, progress): return {side: np.full(4, costs[side]) for side in calls}
    monkeypatch.setattr(harness, 'take_turns', take_turns)
    sides = dict.fromkeys(costs, lambda: None)
    case = Case('x', sides, reference='plain', bar=.03, scale={'plain': 100}, aim={'ours': .9})
    plain, ours, other, aim = rows_of('main/x', case)
    assert (plain.side, plain.seconds, plain.ratio) == ('plain', 50., 1.) and '100' in plain.note
    assert (plain.low, plain.bar, plain.verdict) == (None, None, '')
    assert (ours.side, ours.bench, ours.seconds) == ('ours', 'main', 1.)
    assert (ours.ratio, ours.low) == pytest.approx((.02, .02)) and ours.verdict == 'met'
    assert other.ratio == pytest.approx(.005) and other.value is None
    assert aim.value == pytest.approx(1.) and aim.ratio is None
    assert (aim.unit, aim.bar, aim.verdict) == ('s', .9, 'MISSED')
    assert list(aim.to_dict()) == FIELDS
    with pytest.raises(ValueError, match='nobody'):
        next(rows_of('main/x', Case('x', {'a': None}, reference='nobody')))


@pytest.mark.parametrize('ratio, low, high, bar, verdict', [
    (1.2, 1.15, 1.25, 1.25, 'met'), (1.2, 1.15, 1.25, 1.2, 'met'), (1.2, 1.15, 1.25, 1.19, 'MISSED'),
    # the interval reaches down to the bar, the median does not
    (1.2, 1.1, 1.3, 1.1, 'MISSED'),
    # an interval of a fifth of the median and more says nothing, on either side of the bar
    (1.405, .865, 2.29, 1.25, 'too noisy'), (1., .9, 1.1, 2., 'too noisy'), (1., .9, 1.099, 2., 'met'),
    (3., 2.5, 3.5, 1., 'too noisy'), (1.2, 1.15, 1.25, None, '')])
def test_a_bar_is_met_by_the_median_with_a_narrow_interval(ratio, low, high, bar, verdict):
    assert Row('bench', 'case', 'side', ratio=ratio, low=low, high=high, bar=bar).verdict == verdict


def test_a_value_without_an_interval_is_held_against_its_bar():
    def verdict(value): return Row('bench', 'case', 'side', value=value, bar=2.).verdict
    assert verdict(2.) == 'met' and verdict(2.1) == 'MISSED'
    assert Row('bench', 'case', 'side').verdict == ''


def test_what_is_too_noisy_is_measured_with_more_pairs(monkeypatch):
    rng = np.random.default_rng(0)
    asked = []

    def turns(calls, pairs, progress):
        asked.append(pairs)
        # noise that only many pairs average out: narrow from 40 pairs on
        spread = .5 if (pairs or 10) < 40 else .01
        return {side: np.exp(rng.normal(0, spread, pairs or 10)) for side in calls}

    monkeypatch.setattr(harness, 'take_turns', turns)
    case = Case('x', dict.fromkeys('ab', lambda: None), reference='b', bar=1.5)
    *_, row = rows_of('main/x', case)
    assert asked == [None, 20, 40] and row.verdict == 'met'
    # what stays noisy says so; without a bar, or with a number of pairs asked for, one measurement is enough
    asked.clear()
    monkeypatch.setattr(harness, 'MORE_PAIRS', (2,))
    *_, row = rows_of('main/x', case)
    assert asked == [None, 20] and row.verdict == 'too noisy'
    asked.clear()
    *_, row = rows_of('main/x', Case('x', case.sides, reference='b'))
    assert asked == [None] and row.verdict == ''
    asked.clear()
    *_, row = rows_of('main/x', case, pairs=3)
    assert asked == [3] and row.verdict == 'too noisy'


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='peak memory is read from /proc')
def test_memory_in_own_processes():
    small, large = rows_of('self/blocks', next(iter(known.blocks(True))), True, pairs=2)
    assert small.peak_mb == pytest.approx(16, abs=6) and large.peak_mb == pytest.approx(64, abs=6)
    assert large.ratio == pytest.approx(large.peak_mb / small.peak_mb, rel=.2)
    assert large.verdict == 'met' and small.seconds > 0


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='peak memory is read from /proc')
def test_memory_runs_may_be_timed_too(monkeypatch):
    seconds = {'ours': np.array([1., 1.2, 1.1]), 'plain': np.array([2., 2.4, 2.2])}
    peaks = {'ours': np.full(3, 10.), 'plain': np.full(3, 100.)}
    asked = []

    def own_processes(key, case, pairs, quick, progress):
        asked.append(pairs)
        return seconds, peaks
    monkeypatch.setattr(harness, 'own_processes', own_processes)
    sides = dict.fromkeys(('ours', 'plain'))
    case = Case('x', sides, reference='plain', bar=.05, memory=True, pairs=3, time_bar=.6)
    _, ours, timing = rows_of('main/x', case)
    assert asked == [3] and ours.ratio == pytest.approx(.1) and ours.verdict == 'MISSED'
    assert (timing.case, timing.side, timing.bar) == ('x, seconds', 'ours', .6)
    assert timing.ratio == pytest.approx(.5) and timing.verdict == 'met'
    assert timing.seconds == pytest.approx(1.1)


def test_run(tmp_path, capsys):
    rows_file = tmp_path/'rows.json'
    assert main(['main/search', '--quick', '--json', str(rows_file)]) == 0
    rows = json.loads(rows_file.read_text())
    assert [list(row) for row in rows] == [FIELDS] * 2
    faiss, dense = rows
    assert (faiss['side'], dense['side']) == ('faiss', 'Dense') and faiss['ratio'] == 1
    assert dense['low'] <= dense['ratio'] <= dense['high'] and dense['bar'] == 1.1
    printed = capsys.readouterr().out
    assert f'on {torch.get_num_threads()} threads' in printed
    assert any(verdict in printed for verdict in ('met', 'MISSED', 'too noisy'))


def test_the_table_of_ratios_keeps_other_benches(tmp_path):
    file = tmp_path/'costs.csv'
    for measured in ('main/search', 'heads/seconds'):
        rows = [Row('x', 'a', 'plain', 2., ratio=1.), Row('x', 'a', 'ours', 1., None, .5, .48, .52, .6),
                Row('x', 'b', 'plain', 2., 10., 1.), Row('x', 'b', 'ours', 1., 20., 2., 1.9, 2.1),
                Row('x', 'b, seconds', 'ours', 1., None, 1.2, 1.1, 1.3, 1.1), Row('x', 'c', 'ours', value=3.)]
        in_table(file, rows, measured, 'a long\n    sentence')
    in_table(file, rows[:2], 'main/search', 'a sentence')
    table = pd.read_csv(file)
    assert table.bench.tolist() == ['heads/seconds'] * 3 + ['main/search']
    assert table.case.tolist() == ['a', 'b', 'b, seconds', 'a'] and set(table.against) == {'plain'}
    assert table.of.tolist() == ['time', 'memory', 'time', 'time']
    assert table.ratio.tolist() == [.5, 2, 1.2, .5]
    assert table.verdict.fillna('').tolist() == ['met', '', 'MISSED', 'met']
    assert table.what.iloc[0] == 'a long sentence' and 'seconds' not in table
    assert table.command.iloc[-1] == 'python tests/bench/run.py main/search'


def test_run_that_crashes_keeps_its_rows(tmp_path, capsys):
    rows_file = tmp_path/'rows.json'
    assert main(['self/crash', '--json', str(rows_file)]) == 1
    assert [row['value'] for row in json.loads(rows_file.read_text())] == [2.]
    printed = capsys.readouterr()
    assert 'the bench broke' in printed.err and 'met' in printed.out


@pytest.mark.slow
def test_list_and_unknown_name(tmp_path):
    # as a script, from anywhere
    def run(*arguments):
        command = [sys.executable, str(Path(__file__).with_name('run.py')), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    finished = run('--list')
    listed = {line.split()[0] for line in finished.stdout.splitlines()}
    assert finished.returncode == 0
    assert {'main/match', 'main/search', 'main/step', 'main/threshold'} <= listed
    finished = run('mian')
    assert finished.returncode == 2 and "'mian'" in finished.stderr and 'main/search' in finished.stderr
    assert 'Traceback' not in finished.stderr


def sides(part):
    "Side -> the call that is timed, of the first case of a bench."
    return {side: make() for side, make in next(iter(part(True))).sides.items()}


def test_search_sides_find_the_same():
    found = {side: call() for side, call in sides(bench_search.search).items()}
    scores, ids = found['faiss']
    np.testing.assert_array_equal(found['Dense'].ids, ids)
    np.testing.assert_allclose(found['Dense'].scores, scores, atol=1e-6)


def share_alike(ours, theirs):
    "The share of the rows that two rules match with the same listings."
    return np.mean([set(row) == set(other) for row, other in zip(ours, theirs)])


def test_rule_sides_decide_alike():
    modalities = bench_rule.listings(*bench_rule.QUICK)
    sparse, dense = bench_rule.sparse_rule(*modalities), bench_rule.dense_rule(*modalities)
    # without a limit on candidates nothing is left out, and what differs is rounding
    whole = bench_rule.sparse_rule(*modalities, k=400)
    assert share_alike(whole, bench_rule.dense_rule(*modalities, k=400)) > .99
    assert share_alike(sparse, dense) > .7
    whole, of_matrices = bench_rule._found(modalities, 400)(), bench_rule._matrices(modalities)()
    assert share_alike(whole, dense) > .7
    assert all(np.array_equal(row, other) for row, other in zip(of_matrices, dense))
    assert np.mean([len(row) for row in sparse]) > 2


def test_threshold_sides_judge_alike():
    labels = bench_threshold.shopee_like(34_250, 11_014, 51)
    sizes = np.bincount(labels)
    assert (len(labels), len(sizes), np.median(sizes), sizes.max(), sizes.min()) == (34_250, 11_014, 2, 51, 2)
    labels = bench_threshold.shopee_like(300, 100, 9)
    neighbors = bench_threshold.neighbors(labels, 10)
    assert isinstance(neighbors, Neighbors) and neighbors.check(self_join=True).ids.shape == (300, 10)
    true = [set(np.flatnonzero(labels == label)) for label in labels]
    cuts = np.linspace(.3, .8, 11)
    threshold, best = bench_threshold.grid(neighbors.ids, neighbors.scores, true, cuts)
    # the grid's sets take what is above a cut, a decision what is not below
    above = [np.nextafter(np.float32(cut), np.float32(2)) for cut in cuts]
    f1 = [row_f1(decide(neighbors, cut), labels).mean() for cut in above]
    assert best == pytest.approx(max(f1)) and threshold == cuts[np.argmax(f1)]
    assert best <= best_threshold(neighbors, labels)[1] < 1 and best > f1[0] and best > f1[-1]


class TrainOnly(Callback):
    "Leaves validation out."
    order = -100
    def before_validate(self): raise CancelValidException


@pytest.fixture(scope='module')
def steps(): return bench_step.learner(True)


class Replayed:
    "A loader that gives batches made before."
    def __init__(self, loader, batches): self.loader, self.batches = loader, batches
    def __iter__(self): return iter(self.batches)
    def __len__(self): return len(self.batches)
    def __getattr__(self, name): return getattr(self.loader, name)


def test_step_sides_train_the_same_weights(steps):
    learn, batches = steps
    untrained = {name: values.clone() for name, values in learn.model.state_dict().items()}

    def weights(model): return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    def trained(model, make_step):
        model.load_state_dict(untrained)
        step = make_step(model)
        for _ in range(4): step()
        return weights(model)

    def by_loop(make_optimizer):
        model = deepcopy(learn.model)
        return trained(model, lambda model: bench_step.bare_step(learn, batches, model, make_optimizer))
    learnt = trained(learn.model, lambda model: bench_step.learner_step(learn, batches))
    same_adam, fused_adamw = by_loop(bench_step.same_adam), by_loop(bench_step.fused_adamw)
    before = torch.cat([untrained[name].flatten() for name, _ in learn.model.named_parameters()])
    assert (learnt - before).abs().max() > 1e-3
    assert torch.equal(learnt, same_adam)
    torch.testing.assert_close(learnt, fused_adamw, atol=5e-5, rtol=0)
    # and what is timed is what `fit` does
    learn.model.load_state_dict(untrained)
    learn.dls.loaders[0] = Replayed(learn.dls.train, batches * 2)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, bench_step.LR, cbs=TrainOnly(), reset_opt=True)
    assert torch.equal(weights(learn.model), learnt)
