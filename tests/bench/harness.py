"""Fair comparisons: two or more ways of doing the same thing, timed in turns, with an interval for their
ratio.

The estimate is the median over pairs of (cost / the reference's cost), the interval a 95% percentile
bootstrap that draws whole pairs. Both runs of a pair see the same machine a moment apart, so what slows the
machine cancels in each pair's ratio, where medians taken side by side would keep it; one run hit by something
else spoils one ratio of many. Ratios are averaged as logarithms: swapping the sides inverts the figure.

A bar is met when the median does not exceed it and the interval is narrower than a fifth of the median. Where
the interval is wider, the case is measured again with twice the pairs, twice at most; a row that stays so
wide says 'too noisy', and its bar is not met.

To add a bench, add a file `bench_NAME.py` beside this one: a function that yields cases, under the name it is
called by:

    @bench('main')
    def search(quick):
        "What is compared with what, and why that is fair."
        vectors = make_vectors(500 if quick else 34_250)
        yield Case('search', {'fastmatch': lambda: lambda: Dense(vectors).search(50),
                              'faiss': lambda: lambda: flat(vectors)}, reference='faiss', bar=1.1)

A side is a factory: what it does is set-up and not timed; what it returns is called again and again.
"""
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

DEVICE = os.environ.get('FASTMATCH_BENCH_DEVICE', 'cpu')  # where benches that know of it calculate
PAIRS = 30  # pairs of runs
FEW_PAIRS = 10  # pairs of runs that take over `LONG` seconds
LONG = 1.  # seconds
SHORT = .005  # seconds that a timed run takes at least: quicker calls are repeated within one run
WIDEST = .2  # width of an interval, as a share of its median, from which on a row says 'too noisy'
MORE_PAIRS = 2, 2  # a case that is too noisy is measured again with so many times the pairs, once for each
BENCHES = {}  # 'name/function' -> function


@dataclass
class Case:
    """Sides to compare.

    With `memory` each run is a process of its own and the cost is its peak memory; otherwise all sides take
    turns in this process and the cost is time.
    """
    name: str  # What is compared
    sides: dict[str, Callable]  # Side -> factory of the call to measure
    reference: str  # The side that the others are compared with
    bar: float | None = None  # Largest cost over the reference's cost; None: none is set
    aim: dict[str, float] = field(default_factory=dict)  # Side -> its own largest seconds, a row of their own
    # Side -> how often its run goes into the whole job, where it runs a part of it
    scale: dict[str, float] = field(default_factory=dict)
    memory: bool = False  # Compare peak memory instead of time
    imports: tuple = ()  # Modules imported before a memory run's baseline is taken
    pairs: int | None = None  # Pairs of runs, where fewer than usual must do
    time_bar: float | None = None  # With `memory`: largest seconds over the reference's, a row of their own


@dataclass
class Value:
    "A plain figure of a bench, with the value that it should not exceed."
    name: str  # What it is
    side: str  # Whose figure it is
    value: float  # The figure
    unit: str  # Its unit
    aim: float | None = None  # Largest value; None: none is set


@dataclass
class Row:
    """A side's result: `ratio`, `low` and `high` are cost over the reference's cost, or about `value` where
    there is one."""
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
    def too_noisy(self):
        "Whether the interval is too wide to say anything about a bar."
        if self.low is None: return False
        return self.high - self.low >= WIDEST * self.median

    @property
    def median(self):
        "The figure that is held against the bar."
        return self.ratio if self.value is None else self.value

    @property
    def verdict(self):
        "'met', 'MISSED' or 'too noisy'; '' where there is no bar."
        if self.bar is None: return ''
        if self.too_noisy: return 'too noisy'
        return 'met' if self.median <= self.bar else 'MISSED'

    def to_dict(self): return {name: value for name, value in asdict(self).items() if name != 'note'}


def bench(name):
    "Register a function of `quick` that yields `Case`s and `Value`s as a part of bench `name`."
    def add(function):
        key = f'{name}/{function.__name__}'
        if key in BENCHES: raise ValueError(f'two benches are called {key}')
        BENCHES[key] = function
        return function
    return add


def load():
    "Import every `bench_*.py` of this folder; returns what they registered."
    for file in sorted(Path(__file__).parent.glob('bench_*.py')): import_module(f'{__package__}.{file.stem}')
    return BENCHES


def interval(
    costs,  # float (n,), above 0: a ratio of each pair, or a cost of each run
    seed: int = 0,  # Of the draws
    resamples: int = 4999,  # Draws of n of the n
) -> tuple[float, float, float]:  # (geometric median, low, high)
    "The median, taken of logarithms so that inverse ratios give the inverse, and its 95% bootstrap interval."
    logarithms = np.log(np.asarray(costs, np.float64))
    if len(logarithms) < 2 or not np.isfinite(logarithms).all():
        raise ValueError('costs: two runs at least, each above 0')
    resampled = bootstrap(
        (logarithms,), np.median, n_resamples=resamples, method='percentile', rng=np.random.default_rng(seed)
    )
    ends = resampled.confidence_interval
    return tuple(float(np.exp(value)) for value in (np.median(logarithms), ends.low, ends.high))


def finish_device():
    "Wait until a GPU has done what it was given: calls return before."
    if DEVICE == 'cpu': return
    import torch
    torch.cuda.synchronize()


def timed(call, number=1):
    "Seconds of one call, the mean of `number` calls in a row, without garbage collection meanwhile."
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        finish_device()
        start = time.perf_counter()
        for _ in range(number): call()
        finish_device()
        return (time.perf_counter() - start) / number
    finally:
        if was_on: gc.enable()


def take_turns(
    calls: dict,  # Side -> call
    # Rounds; default `PAIRS`, or `FEW_PAIRS` where a call takes over `LONG` seconds
    pairs: int | None = None,
    timer=timed,  # (call, number) -> seconds
    progress=lambda done, total: None,  # Called after each round
) -> dict:  # Side -> seconds (pairs,)
    """Time each call once a round, in an order that turns round from round to round, after two calls to warm
    up."""
    warm_up = [{side: timer(call, 1) for side, call in calls.items()} for _ in range(2)]
    quickest = {side: min(seconds[side] for seconds in warm_up) for side in calls}
    repeats = {side: max(1, min(10_000, int(np.ceil(SHORT / max(seconds, 1e-9)))))
               for side, seconds in quickest.items()}
    total = pairs or (FEW_PAIRS if max(quickest.values()) > LONG else PAIRS)
    seconds = {side: [] for side in calls}
    for round_number in range(total):
        for side in list(calls)[::-1 if round_number % 2 else 1]:
            seconds[side].append(timer(calls[side], repeats[side]))
        progress(round_number + 1, total)
    return {side: np.array(values) for side, values in seconds.items()}


def own_processes(key, case, pairs, quick, progress=lambda done, total: None):
    "Run each side `pairs` times in a process of its own; returns side -> seconds, side -> MB."
    seconds, peaks = {side: [] for side in case.sides}, {side: [] for side in case.sides}
    root = Path(__file__).parents[2]
    for round_number in range(pairs):
        for side in list(case.sides)[::-1 if round_number % 2 else 1]:
            arguments = BENCHES[key].__module__, key, case.name, side, quick
            code = f'from {__name__} import child; child(*{arguments!r})'
            finished = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True)
            if finished.returncode:
                raise RuntimeError(f'{key}, {case.name}, {side}: '
                                   f'the run ended with {finished.returncode}\n{finished.stderr}')
            printed = json.loads(finished.stdout.splitlines()[-1])
            seconds[side].append(printed['seconds'])
            peaks[side].append(printed['peak_mb'])
        progress(round_number + 1, pairs)
    return tuple({side: np.array(values) for side, values in table.items()} for table in (seconds, peaks))


def child(module, key, case_name, side, quick):
    "One memory run: import, take the baseline, set up, call once, print."
    import_module(module)
    cases = (case for case in BENCHES[key](quick) if isinstance(case, Case))
    case = next(case for case in cases if case.name == case_name)
    for name in case.imports: import_module(name)
    gc.collect()
    baseline = memory('VmRSS')
    call = case.sides[side]()
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    print(json.dumps({'seconds': seconds, 'peak_mb': max(memory('VmHWM') - baseline, 1e-3)}))


def memory(what):
    "'VmRSS', what this process holds, or 'VmHWM', the most it ever held, in MB."
    # not getrusage: its peak is handed down from the process that started this one
    with open('/proc/self/status', encoding='ascii') as file:
        return next(int(line.split()[1]) for line in file if line.startswith(what + ':')) / 1024


def rows_of(key, case, quick=False, pairs=None, progress=lambda done, total: None):
    "Measure one `Case` or `Value`; yields its `Row`s, the reference's first."
    bench_name = key.split('/')[0]
    if isinstance(case, Value):
        yield Row(bench_name, case.name, case.side, value=float(case.value), unit=case.unit, bar=case.aim)
        return
    if unknown := {case.reference, *case.aim, *case.scale} - set(case.sides):
        raise ValueError(f'{key}, {case.name}: no sides {sorted(unknown)}')
    seconds, peaks = _measure(key, case, quick, pairs, progress)
    rows = _rows(bench_name, case, seconds, peaks)
    # a fixed number of pairs was asked for: it is not raised
    for times in () if pairs else MORE_PAIRS:
        if not any(row.verdict == 'too noisy' for row in rows): break
        seconds, peaks = _measure(key, case, quick, times * len(seconds[case.reference]), progress)
        rows = _rows(bench_name, case, seconds, peaks)
    yield from rows


def _measure(key, case, quick, pairs, progress):
    "Side -> seconds of each run of a whole job, side -> MB ({} where memory is not measured)."
    pairs = pairs or case.pairs
    peaks = {}
    if case.memory: seconds, peaks = own_processes(key, case, pairs or FEW_PAIRS, quick, progress)
    else: seconds = take_turns({side: make() for side, make in case.sides.items()}, pairs, progress=progress)
    return {side: values * case.scale.get(side, 1) for side, values in seconds.items()}, peaks


def _rows(bench_name, case, seconds, peaks):
    costs = peaks if case.memory else seconds
    rows = []
    for side in sorted(case.sides, key=lambda side: side != case.reference):
        note = f'a run times {case.scale[side]:g}' if side in case.scale else ''
        peak_mb = float(np.median(peaks[side])) if peaks else None
        row = Row(bench_name, case.name, side, float(np.median(seconds[side])), peak_mb, note=note)
        if side == case.reference: row.ratio = 1.
        else:
            row.ratio, row.low, row.high = interval(costs[side] / costs[case.reference])
            row.bar = case.bar
        rows.append(row)
    if case.memory and case.time_bar is not None:
        for side in case.sides:
            if side == case.reference: continue
            ratio, low, high = interval(seconds[side] / seconds[case.reference])
            rows.append(Row(bench_name, f'{case.name}, seconds', side, float(np.median(seconds[side])), None,
                            ratio, low, high, case.time_bar))
    for side, aim in case.aim.items():
        value, low, high = interval(seconds[side])
        rows.append(Row(bench_name, f'{case.name}, seconds', side, value, low=low, high=high, bar=aim,
                        value=value, unit='s'))
    return rows
