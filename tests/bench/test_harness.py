"""The harness of the benches: its statistics against theory, its order and its books; nothing here asks how
fast something is."""
import gc
import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelValidException

from fastmatch.match import Neighbors, best_threshold, decide, row_f1
from tests.bench import bench_rule, bench_search, bench_step, bench_threshold, harness, known
from tests.bench.harness import Case, Row, interval, rows_of, take_turns, timed
from tests.bench.run import main

FIELDS = ['bench', 'case', 'side', 'seconds', 'peak_mb', 'ratio', 'low', 'high', 'bar', 'value', 'unit']


def simulated(rng, n, ratio, noise=.1, drift=1.):
    "Costs of `n` pairs on a machine that slows both sides of a pair alike."
    slow = np.exp(np.cumsum(rng.normal(0, drift, n)))
    return (ratio * slow * np.exp(rng.normal(0, noise, n)), slow * np.exp(rng.normal(0, noise, n)))


def test_interval_of_what_is_known():
    assert interval(np.full(30, 2.)) == pytest.approx((2, 2, 2))
    x = np.random.default_rng(0).lognormal(size=30)
    mid, low, high = interval(x)
    assert mid == pytest.approx(np.exp(np.median(np.log(x)))) and low < mid < high
    # swapping the sides inverts all three
    assert interval(1 / x) == pytest.approx((1 / mid, 1 / high, 1 / low))
    # a machine that slows tenfold half-way, both sides alike
    a, b = np.array([3.] * 15 + [30.] * 15), np.array([2.] * 15 + [20.] * 15)
    assert interval(a / b) == pytest.approx((1.5, 1.5, 1.5))
    # one spoilt run of thirty moves nothing
    assert interval(np.append(np.full(29, 1.2), 50.)) == pytest.approx((1.2, 1.2, 1.2))
    for bad in ([1.], [1., 0.], [1., np.nan], [1., -1.]):
        with pytest.raises(ValueError), np.errstate(all='ignore'): interval(bad)


@pytest.mark.parametrize('n, first, last', [(10, 2, 9), (30, 10, 21), (100, 40, 61)])
def test_interval_is_near_the_exact_one_for_a_median(n, first, last):
    """The ranks of the exact interval come from the binomial distribution; the bootstrap's ends lie within
    two ranks of them."""
    from scipy.stats import binom
    assert .95 < binom.cdf(last - 1, n, .5) - binom.cdf(first - 1, n, .5) < .98
    for seed in range(10):
        x = np.sort(np.random.default_rng(seed).lognormal(size=n))
        _, low, high = interval(x, seed)
        assert x[max(0, first - 3)] <= low <= x[first + 1] and x[last - 3] <= high <= x[min(n - 1, last + 1)]


@pytest.mark.parametrize('n', [10, 30])
def test_interval_covers_the_truth(n):
    rng = np.random.default_rng(n)
    hit = []
    for _ in range(400):
        a, b = simulated(rng, n, 1.07)
        _, low, high = interval(a / b, resamples=499)
        hit.append(low <= 1.07 <= high)
    # 95%, give or take three standard errors and the few percent by which a percentile bootstrap of a median
    # is off
    assert .9 <= np.mean(hit) <= .99


def test_take_turns():
    seen = []
    def timer(cost):
        def run(f, number):
            f()
            seen.append((f.name, number))
            return cost[f.name]
        return run
    class Call:
        def __init__(self, name): self.name = name
        def __call__(self): pass
    calls = {k: Call(k) for k in 'abc'}
    ticks = []
    out = take_turns(calls, timer=timer(dict(a=.1, b=.2, c=.001)), tick=lambda *o: ticks.append(o))
    assert (
        {k: len(v) for k, v in out.items()} == dict.fromkeys('abc', 30)
        and len(seen) == 6 + 90
        and ticks[-1] == (30, 30)
    )
    # warmed up by single calls, then in an order that turns round, short calls repeated
    assert ''.join(k for k, _ in seen) == 'abc' * 2 + 'abccba' * 15
    assert (
        {n for _, n in seen[:6]} == {1}
        and {n for k, n in seen[6:] if k == 'c'} == {5}
        and {n for k, n in seen[6:] if k != 'c'} == {1}
    )
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
    cost = {'ours': 1., 'plain': .5, 'other': .25}
    monkeypatch.setattr(
        harness, 'take_turns', lambda calls, pairs, tick: {k: np.full(4, cost[k]) for k in calls}
    )
    case = Case(
        'x', dict.fromkeys(cost, lambda: None), ref='plain', bar=0.03, scale={'plain': 100}, aim={'ours': 0.9}
    )
    ref, ours, other, aim = rows_of('main/x', case)
    assert (ref.side, ref.seconds, ref.ratio, ref.low, ref.bar, ref.verdict) == (
        'plain',
        50.0,
        1.0,
        None,
        None,
        '',
    ) and '100' in ref.note
    assert (
        (ours.side, ours.bench, ours.seconds) == ('ours', 'main', 1.0)
        and (ours.ratio, ours.low) == pytest.approx((0.02, 0.02))
        and ours.verdict == 'met'
    )
    assert other.ratio == pytest.approx(.005) and other.value is None
    assert (aim.value, aim.unit, aim.bar, aim.ratio, aim.verdict) == (
        pytest.approx(1.0),
        's',
        0.9,
        None,
        'MISSED',
    )
    assert list(aim.to_dict()) == FIELDS
    with pytest.raises(ValueError, match='nobody'):
        next(rows_of('main/x', Case('x', {'a': None}, ref='nobody')))


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

    def turns(calls, pairs, tick):
        asked.append(pairs)
        # noise that only many pairs average out: narrow from 40 pairs on
        spread = .5 if (pairs or 10) < 40 else .01
        return {side: np.exp(rng.normal(0, spread, pairs or 10)) for side in calls}

    monkeypatch.setattr(harness, 'take_turns', turns)
    case = Case('x', dict.fromkeys('ab', lambda: None), ref='b', bar=1.5)
    *_, row = rows_of('main/x', case)
    assert asked == [None, 20, 40] and row.verdict == 'met'
    # what stays noisy says so; without a bar, or with a number of pairs asked for, one measurement is enough
    asked.clear()
    monkeypatch.setattr(harness, 'MORE_PAIRS', (2,))
    *_, row = rows_of('main/x', case)
    assert asked == [None, 20] and row.verdict == 'too noisy'
    asked.clear()
    *_, row = rows_of('main/x', Case('x', case.sides, ref='b'))
    assert asked == [None] and row.verdict == ''
    asked.clear()
    *_, row = rows_of('main/x', case, pairs=3)
    assert asked == [3] and row.verdict == 'too noisy'


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='peak memory is read from /proc')
def test_memory_in_own_processes():
    small, large = rows_of('self/blocks', next(iter(known.blocks(True))), True, pairs=2)
    assert small.peak_mb == pytest.approx(16, abs=6) and large.peak_mb == pytest.approx(64, abs=6)
    assert (
        large.ratio == pytest.approx(large.peak_mb / small.peak_mb, rel=0.2)
        and large.verdict == 'met'
        and small.seconds > 0
    )


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='peak memory is read from /proc')
def test_memory_runs_may_be_timed_too(monkeypatch):
    out = (
        {'a': np.array([1.0, 1.2, 1.1]), 'b': np.array([2.0, 2.4, 2.2])},
        {'a': np.full(3, 10.0), 'b': np.full(3, 100.0)},
    )
    seen = []
    monkeypatch.setattr(
        harness, 'own_processes', lambda key, case, pairs, quick, tick: seen.append(pairs) or out
    )
    case = Case('x', dict.fromkeys('ab'), ref='b', bar=.05, memory=True, pairs=3, time_bar=.6)
    ref, a, took = rows_of('main/x', case)
    assert (
        seen == [3]
        and a.ratio == pytest.approx(0.1)
        and a.verdict == 'MISSED'
        and (took.case, took.side, took.bar) == ('x, seconds', 'a', 0.6)
    )
    assert took.ratio == pytest.approx(.5) and took.verdict == 'met' and took.seconds == pytest.approx(1.1)


def test_run(tmp_path, capsys):
    out = tmp_path/'rows.json'
    assert main(['main/search', '--quick', '--json', str(out)]) == 0
    rows = json.loads(out.read_text())
    assert (
        [list(o) for o in rows] == [FIELDS] * 2
        and [o['side'] for o in rows] == ['faiss', 'Dense']
        and rows[0]['ratio'] == 1
    )
    assert rows[1]['low'] <= rows[1]['ratio'] <= rows[1]['high'] and rows[1]['bar'] == 1.1
    printed = capsys.readouterr().out
    assert f'on {torch.get_num_threads()} threads' in printed and any(
        verdict in printed for verdict in ('met', 'MISSED', 'too noisy')
    )


def test_run_that_crashes_keeps_its_rows(tmp_path, capsys):
    out = tmp_path/'rows.json'
    assert main(['self/crash', '--json', str(out)]) == 1
    assert [o['value'] for o in json.loads(out.read_text())] == [2.]
    seen = capsys.readouterr()
    assert 'the bench broke' in seen.err and 'met' in seen.out


@pytest.mark.slow
def test_list_and_unknown_name(tmp_path):
    # as a script, from anywhere
    run = lambda *args: subprocess.run(
        [sys.executable, str(Path(__file__).with_name('run.py')), *args],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    res = run('--list')
    assert res.returncode == 0 and {'main/match', 'main/search', 'main/step', 'main/threshold'} <= {
        o.split()[0] for o in res.stdout.splitlines()
    }
    res = run('mian')
    assert (
        res.returncode == 2
        and "'mian'" in res.stderr
        and 'main/search' in res.stderr
        and 'Traceback' not in res.stderr
    )


def sides(part): return {k: f() for k, f in next(iter(part(True))).sides.items()}


def test_search_sides_find_the_same():
    out = {k: f() for k, f in sides(bench_search.search).items()}
    scores, ids = out['faiss']
    np.testing.assert_array_equal(out['Dense'].ids, ids)
    np.testing.assert_allclose(out['Dense'].scores, scores, atol=1e-6)


def test_rule_sides_decide_alike():
    x = bench_rule.listings(*bench_rule.QUICK)
    ours, theirs = bench_rule.sparse_rule(*x), bench_rule.dense_rule(*x)
    # without a limit on candidates nothing is left out, and what differs is rounding
    whole = bench_rule.sparse_rule(*x, k=400)
    assert np.mean([set(a) == set(b) for a, b in zip(whole, bench_rule.dense_rule(*x, k=400))]) > .99
    assert np.mean([set(a) == set(b) for a, b in zip(ours, theirs)]) > .7
    whole, theirs = bench_rule._found(x, 400)(), bench_rule._matrices(x)()
    assert np.mean([set(a) == set(b) for a, b in zip(whole, bench_rule.dense_rule(*x))]) > 0.7 and all(
        np.array_equal(a, b) for a, b in zip(theirs, bench_rule.dense_rule(*x))
    )
    assert np.mean([len(o) for o in ours]) > 2


def test_threshold_sides_judge_alike():
    labels = bench_threshold.shopee_like(34_250, 11_014, 51)
    sizes = np.bincount(labels)
    assert (len(labels), len(sizes), np.median(sizes), sizes.max(), sizes.min()) == (34_250, 11_014, 2, 51, 2)
    labels = bench_threshold.shopee_like(300, 100, 9)
    nb = bench_threshold.neighbors(labels, 10)
    assert isinstance(nb, Neighbors) and nb.check(self_join=True).ids.shape == (300, 10)
    true = [set(np.flatnonzero(labels == g)) for g in labels]
    cuts = np.linspace(.3, .8, 11)
    t, value = bench_threshold.grid(nb.ids, nb.scores, true, cuts)
    f1 = [row_f1(decide(nb, np.nextafter(np.float32(o), np.float32(2))), labels).mean() for o in cuts]
    assert value == pytest.approx(max(f1)) and t == cuts[np.argmax(f1)]
    assert value <= best_threshold(nb, labels)[1] < 1 and value > f1[0] and value > f1[-1]


class TrainOnly(Callback):
    "Leaves validation out."
    order = -100
    def before_validate(self): raise CancelValidException


@pytest.fixture(scope='module')
def steps(): return bench_step.learner(True)


def test_step_sides_train_the_same_weights(steps):
    learn, batches = steps
    start = {k: v.clone() for k, v in learn.model.state_dict().items()}
    flat = lambda model: torch.cat([p.detach().flatten() for p in model.parameters()])
    def run(model, make):
        model.load_state_dict(start)
        step = make(model)
        for _ in range(4): step()
        return flat(model)
    learnt = run(learn.model, lambda m: bench_step.learner_step(learn, batches))
    loops = {o: run(deepcopy(learn.model), lambda m, o=o: bench_step.bare_step(learn, batches, m, o))
             for o in (bench_step.same_adam, bench_step.fused_adamw)}
    assert (
        learnt - torch.cat([start[k].flatten() for k, _ in learn.model.named_parameters()])
    ).abs().max() > 1e-3
    assert torch.equal(learnt, loops[bench_step.same_adam])
    torch.testing.assert_close(learnt, loops[bench_step.fused_adamw], atol=5e-5, rtol=0)
    # and what is timed is what `fit` does
    learn.model.load_state_dict(start)
    learn.dls.loaders[0] = batches * 2
    with learn.no_bar(), learn.no_logging(): learn.fit(1, bench_step.LR, cbs=TrainOnly(), reset_opt=True)
    assert torch.equal(flat(learn.model), learnt)
