"""What things cost beside the plain way of doing them: `python tests/bench/run.py [NAME...] [--list] [--json
FILE] [--table FILE]`.

A name is one that --list prints. `--table nbs/costs.csv` puts the ratios into the table that the site shows,
in place of those of the same benches.
"""
import argparse
import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path

import pandas as pd

# a script: its own checkout is what is measured
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from fastmatch.store import table_text, write_text
from tests.bench.harness import DEVICE, load, rows_of


def chosen(names, benches):
    """The benches that `names` name, whole ('main') or in part ('main/search'), in their own order; KeyError
    for others."""
    for name in names:
        if not any(name in (key, key.split('/')[0]) for key in benches): raise KeyError(name)
    return [key for key in benches if not names or key in names or key.split('/')[0] in names]


def machine():
    "Versions and threads, a line."
    import faiss
    import torch

    card = f', {torch.cuda.get_device_name()}' if DEVICE != 'cpu' else ''
    return (
        f'python {platform.python_version()}, torch {torch.__version__} on {torch.get_num_threads()} '
        f'threads, '
        f'faiss {faiss.__version__} on {faiss.omp_get_max_threads()}, {os.cpu_count()} cores{card}, '
        f'load {os.getloadavg()[0]:.1f}'
    )


def in_table(
    file,  # CSV, `nbs/costs.csv`; need not be there
    rows,  # `Row`s of one bench, all of them
    key,  # That bench: 'name/function'
    what,  # What it compares, a sentence
):
    """Put what was measured into the table of ratios, in place of what stood there of the same bench.

    Seconds are left out: they are the machine's."""
    compared = [row for row in rows if row.low is not None and row.value is None]
    added = pd.DataFrame([{
        'bench': key, 'case': row.case, 'way': row.side,
        'against': next(each.side for each in rows if each.case == row.case.removesuffix(', seconds')),
        'of': 'memory' if row.peak_mb is not None else 'time', 'ratio': round(row.ratio, 3),
        'low': round(row.low, 3), 'high': round(row.high, 3), 'bar': row.bar, 'verdict': row.verdict or None,
        'what': ' '.join(what.split()), 'command': f'python tests/bench/run.py {key}'} for row in compared])
    if file.exists():
        before = pd.read_csv(file)
        added = pd.concat([before[before.bench != key], added], ignore_index=True)
    write_text(file, table_text(added.sort_values(['bench'], kind='stable')))


def line(row):
    "A row of the table."
    def number(value, form): return '' if value is None else format(value, form)
    figure = number(row.ratio, '.4g') if row.value is None else f'{row.value:.4g} {row.unit}'
    span = '' if row.low is None else f'{row.low:.3g} to {row.high:.3g}'
    return (f'{row.case:<28} {row.side:<22} {number(row.seconds, ".4g"):>9} {number(row.peak_mb, ".1f"):>9} '
            f'{figure:>9}  {span:<16} {number(row.bar, "g"):>6} {row.verdict} {row.note}').rstrip()


def main(arguments=None):
    "Run the benches named; returns the exit code: 0, 1 where one crashed, 2 for a name that isn't there."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('names', nargs='*', metavar='NAME', help='bench, or bench/part; default all')
    parser.add_argument('--list', action='store_true', help='print the names')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the rows here')
    parser.add_argument('--table', type=Path, metavar='FILE', help='table of ratios to put the rows into')
    parser.add_argument('--quick', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    benches = load()
    try: keys = chosen(options.names, benches)
    except KeyError as error:
        known = ', '.join(dict.fromkeys(key.split('/')[0] for key in benches))
        print(
            f'no bench is called {error}: there are {known}, in parts {", ".join(benches)}', file=sys.stderr
        )
        return 2
    if options.list:
        for key in keys: print(f'{key:<20} {benches[key].__doc__}')
        return 0
    print(machine() + ('; quick: sizes and runs too small to mean anything' if options.quick else ''))
    print(
        f'{"case":<28} {"side":<22} {"seconds":>9} {"peak MB":>9} {"ratio":>9}  '
        f'{"95% interval":<16} {"bar":>6}',
        flush=True,
    )
    rows, crashed = [], False
    for key in keys:
        start = time.perf_counter()
        own = []
        try:
            for row in measured(key, benches[key], options.quick):
                own.append(row)
                print(line(row), flush=True)
            if options.table: in_table(options.table, own, key, benches[key].__doc__)
        except Exception:
            crashed = True
            print(f'{key} crashed:', file=sys.stderr)
            traceback.print_exc()
        rows += own
        # after each bench: a later crash or an impatient reader loses nothing
        if options.json: options.json.write_text(json.dumps([row.to_dict() for row in rows], indent=1) + '\n')
        print(f'({key}: {time.perf_counter() - start:.0f} s)', flush=True)
    verdicts = [row.verdict for row in rows if row.verdict]
    print(
        f'{verdicts.count("met")} of {len(verdicts)} bars met, '
        f'{verdicts.count("too noisy")} too noisy to say '
        '(a bar is met where the median does not exceed it and the interval is narrower than '
        'a fifth of the median)'
    )
    return int(crashed)


def measured(key, function, quick):
    "The rows of one bench, one after the other; on a terminal with a line that says how far it is."
    watched = sys.stderr.isatty()
    for case in function(quick):
        def progress(done, total, case=case):
            if not watched: return
            end = '\r' if done < total else '\r\033[K'
            print(f'\r{case.name}: {done} of {total}\033[K', end=end, file=sys.stderr, flush=True)
        yield from rows_of(key, case, quick, 3 if quick else None, progress)


if __name__ == '__main__': sys.exit(main())
