"""Fair comparisons: two or more ways of doing the same thing, timed in turns, with an interval for how much dearer one is than the other.

The estimate is the median over pairs of cost / the reference's cost, the interval a 95% percentile bootstrap that draws whole pairs. Both runs of a pair
see the same machine a moment apart, so what slows the machine cancels in each pair's ratio, where medians taken side by side would keep it; one run
hit by something else spoils one ratio of many. Ratios are averaged as logarithms: swapping the sides inverts the figure.
A bar is met when the interval's lower end does not exceed it.

To add a bench, add a file `bench_NAME.py` beside this one: a function that yields cases, under the name it is called by:

    @bench('main')
    def search(quick):
        "What is compared with what, and why that is fair."
        v = vectors(500 if quick else 34_250)
        yield Case('search', {'fastmatch': lambda: lambda: Dense(v).search(50), 'faiss': lambda: lambda: flat(v)}, ref='faiss', bar=1.1)

A side is a factory: what it does is set-up and not timed; what it returns is called again and again.
"""
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

PAIRS, FEW, LONG = 30, 10, 1.  # pairs of runs, and how many of runs that take over LONG seconds
SHORT = .005  # seconds that a timed run takes at least: quicker calls are repeated
BENCHES = {}  # 'name/function' -> function


@dataclass
class Case:
    "Sides to compare; with `memory` each run is a process of its own and the cost is its peak, otherwise all take turns in this one."
    name: str  # What is compared
    sides: dict[str, Callable]  # Side -> factory of the call to measure
    ref: str  # The side that the others are compared with
    bar: float | None = None  # Largest cost over the reference's cost; None: none is set
    aim: dict[str, float] = field(default_factory=dict)  # Side -> its own largest seconds, a row of their own
    scale: dict[str, float] = field(default_factory=dict)  # Side -> how often its run goes into the whole job, where it runs a part of it
    memory: bool = False  # Compare peak memory instead of time
    imports: tuple = ()  # Modules imported before a memory run's baseline is taken
    pairs: int | None = None  # Pairs of runs, where fewer than usual must do
    time_bar: float | None = None  # With `memory`: largest seconds over the reference's, a row of their own


@dataclass
class Value:
    "A plain figure of a bench, with the value it should not exceed."
    name: str
    side: str
    value: float
    unit: str
    aim: float | None = None


@dataclass
class Row:
    "A side's result: `ratio` with `low` and `high` is cost over the reference's cost; where there is a `value`, they are about the value."
    bench: str
    case: str
    side: str
    seconds: float | None = None  # Median of one whole job
    peak_mb: float | None = None  # Median peak over the baseline after imports
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    bar: float | None = None
    value: float | None = None
    unit: str | None = None
    note: str = ''  # For the table alone

    @property
    def met(self):
        "Whether the bar is met; None where there is none."
        return None if self.bar is None else (self.value if self.low is None else self.low) <= self.bar

    def to_dict(self): return {k: v for k, v in asdict(self).items() if k != 'note'}


def bench(name):
    "Register a function of `quick` that yields `Case`s and `Value`s as a part of bench `name`."
    def add(f):
        key = f'{name}/{f.__name__}'
        if key in BENCHES: raise ValueError(f'two benches are called {key}')
        BENCHES[key] = f
        return f
    return add


def load():
    "Import every `bench_*.py` of this folder; returns what they registered."
    for o in sorted(Path(__file__).parent.glob('bench_*.py')): import_module(f'{__package__}.{o.stem}')
    return BENCHES


def interval(
    x,  # float (n,), above 0: a ratio of each pair, or a cost of each run
    seed: int = 0,  # Of the draws
    resamples: int = 4999,  # Draws of n of the n
) -> tuple[float, float, float]:  # (geometric median, low, high)
    "The median, taken of logarithms so that inverse ratios give the inverse, and its 95% percentile bootstrap interval."
    x = np.log(np.asarray(x, np.float64))
    if len(x) < 2 or not np.isfinite(x).all(): raise ValueError('costs: two runs at least, each above 0')
    ci = bootstrap((x,), np.median, n_resamples=resamples, method='percentile', rng=np.random.default_rng(seed)).confidence_interval
    return tuple(float(np.exp(o)) for o in (np.median(x), ci.low, ci.high))


def timed(f, number=1):
    "Seconds of one call, the mean of `number` calls in a row, with the garbage collector emptied before and off meanwhile."
    gc.collect()
    was = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(number): f()
        return (time.perf_counter() - start) / number
    finally:
        if was: gc.enable()


def take_turns(
    calls: dict,  # Side -> call
    pairs: int | None = None,  # Rounds; default `PAIRS`, or `FEW` where a call takes over `LONG` seconds
    timer=timed,  # (call, number) -> seconds
    tick=lambda i, n: None,  # Called after each round
) -> dict:  # Side -> seconds (pairs,)
    "Time each call once a round, in an order that turns round from round to round, after two calls of each to warm up."
    warm = [{k: timer(f, 1) for k, f in calls.items()} for _ in range(2)]
    warm = {k: min(o[k] for o in warm) for k in calls}
    number = {k: max(1, min(10_000, int(np.ceil(SHORT / max(o, 1e-9))))) for k, o in warm.items()}
    n = pairs or (FEW if max(warm.values()) > LONG else PAIRS)
    seconds = {k: [] for k in calls}
    for i in range(n):
        for k in list(calls)[::-1 if i % 2 else 1]: seconds[k].append(timer(calls[k], number[k]))
        tick(i + 1, n)
    return {k: np.array(v) for k, v in seconds.items()}


def own_processes(key, case, pairs, quick, tick=lambda i, n: None):
    "Run each side `pairs` times in a process of its own; returns side -> seconds, side -> MB."
    seconds, peak = {k: [] for k in case.sides}, {k: [] for k in case.sides}
    for i in range(pairs):
        for k in list(case.sides)[::-1 if i % 2 else 1]:
            args = BENCHES[key].__module__, key, case.name, k, quick
            res = subprocess.run([sys.executable, '-c', f'from {__name__} import child; child(*{args!r})'], cwd=Path(__file__).parents[2], capture_output=True, text=True)
            if res.returncode: raise RuntimeError(f'{key}, {case.name}, {k}: the run ended with {res.returncode}\n{res.stderr}')
            o = json.loads(res.stdout.splitlines()[-1])
            seconds[k].append(o['seconds'])
            peak[k].append(o['peak_mb'])
        tick(i + 1, pairs)
    return tuple({k: np.array(v) for k, v in o.items()} for o in (seconds, peak))


def child(module, key, case, side, quick):
    "One memory run: import, take the baseline, set up, call once, print."
    import_module(module)
    case = next(o for o in BENCHES[key](quick) if isinstance(o, Case) and o.name == case)
    for o in case.imports: import_module(o)
    gc.collect()
    base = memory('VmRSS')
    f = case.sides[side]()
    start = time.perf_counter()
    f()
    seconds = time.perf_counter() - start
    print(json.dumps({'seconds': seconds, 'peak_mb': max(memory('VmHWM') - base, 1e-3)}))


def memory(what):
    "'VmRSS', what this process holds, or 'VmHWM', the most it ever held, in MB."
    # not getrusage: its peak is handed down from the process that started this one
    with open('/proc/self/status', encoding='ascii') as f:
        return next(int(o.split()[1]) for o in f if o.startswith(what + ':')) / 1024


def rows_of(key, case, quick=False, pairs=None, tick=lambda i, n: None):
    "Measure one `Case` or `Value`; yields its `Row`s, the reference's first."
    name = key.split('/')[0]
    if isinstance(case, Value):
        yield Row(name, case.name, case.side, value=float(case.value), unit=case.unit, bar=case.aim)
        return
    if unknown := {case.ref, *case.aim, *case.scale} - set(case.sides): raise ValueError(f'{key}, {case.name}: no sides {sorted(unknown)}')
    peak, pairs = {}, pairs or case.pairs
    if case.memory: seconds, peak = own_processes(key, case, pairs or FEW, quick, tick)
    else: seconds = take_turns({k: f() for k, f in case.sides.items()}, pairs, tick=tick)
    seconds = {k: v * case.scale.get(k, 1) for k, v in seconds.items()}
    cost = peak if case.memory else seconds
    for k in sorted(case.sides, key=lambda k: k != case.ref):
        note = f'a run times {case.scale[k]:g}' if k in case.scale else ''
        row = Row(name, case.name, k, float(np.median(seconds[k])), float(np.median(peak[k])) if peak else None, note=note)
        if k == case.ref: row.ratio = 1.
        else: row.ratio, row.low, row.high, row.bar = *interval(cost[k] / cost[case.ref]), case.bar
        yield row
    if case.memory and case.time_bar is not None:
        for k in case.sides:
            if k != case.ref: yield Row(name, f'{case.name}, seconds', k, float(np.median(seconds[k])), None, *interval(seconds[k] / seconds[case.ref]), case.time_bar)
    for k, aim in case.aim.items():
        value, low, high = interval(seconds[k])
        yield Row(name, f'{case.name}, seconds', k, value, low=low, high=high, bar=aim, value=value, unit='s')
