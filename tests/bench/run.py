"What things cost beside the plain way of doing them: `python tests/bench/run.py [NAME...] [--list] [--json FILE]`, a name as --list prints it."
import argparse
import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path

# a script: its own checkout is what is measured
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.bench.harness import load, rows_of


def chosen(names, benches):
    "The benches that `names` name, whole ('main') or in part ('main/search'), in their own order; KeyError for an unknown one."
    for o in names:
        if not any(o in (k, k.split('/')[0]) for k in benches): raise KeyError(o)
    return [k for k in benches if not names or k in names or k.split('/')[0] in names]


def machine():
    "Versions and threads, a line."
    import faiss
    import torch
    return (f'python {platform.python_version()}, torch {torch.__version__} on {torch.get_num_threads()} threads, faiss {faiss.__version__} on '
            f'{faiss.omp_get_max_threads()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}')


def line(row):
    "A row of the table."
    num = lambda o, f: '' if o is None else format(o, f)
    what = num(row.ratio, '.4g') if row.value is None else f'{row.value:.4g} {row.unit}'
    span = '' if row.low is None else f'{row.low:.3g} to {row.high:.3g}'
    mark = {None: '', True: 'met', False: 'MISSED'}[row.met]
    return (f'{row.case:<28} {row.side:<22} {num(row.seconds, ".4g"):>9} {num(row.peak_mb, ".1f"):>9} {what:>9}  {span:<16} '
            f'{num(row.bar, "g"):>6} {mark} {row.note}').rstrip()


def main(args=None):
    "Run the benches named; returns the exit code: 0, 1 where one crashed, 2 for a name that isn't there."
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('names', nargs='*', metavar='NAME', help='bench, or bench/part; default all')
    p.add_argument('--list', action='store_true', help='print the names')
    p.add_argument('--json', type=Path, metavar='FILE', help='write the rows here')
    p.add_argument('--quick', action='store_true', help=argparse.SUPPRESS)
    a = p.parse_args(args)
    benches = load()
    try: keys = chosen(a.names, benches)
    except KeyError as e:
        print(f'no bench is called {e}: there are {", ".join(dict.fromkeys(k.split("/")[0] for k in benches))}, in parts {", ".join(benches)}', file=sys.stderr)
        return 2
    if a.list:
        for k in keys: print(f'{k:<20} {benches[k].__doc__}')
        return 0
    print(machine() + ('; quick: sizes and runs too small to mean anything' if a.quick else ''))
    print(f'{"case":<28} {"side":<22} {"seconds":>9} {"peak MB":>9} {"ratio":>9}  {"95% interval":<16} {"bar":>6}', flush=True)
    rows, crashed, look = [], False, sys.stderr.isatty()

    for key in keys:
        start = time.perf_counter()
        try:
            for case in benches[key](a.quick):
                def tick(i, n, case=case):
                    if look: print(f'\r{case.name}: {i} of {n}\033[K', end='\r' if i < n else '\r\033[K', file=sys.stderr, flush=True)
                for row in rows_of(key, case, a.quick, 3 if a.quick else None, tick):
                    rows.append(row)
                    print(line(row), flush=True)
        except Exception:
            crashed = True
            print(f'{key} crashed:', file=sys.stderr)
            traceback.print_exc()
        # after each bench: a later crash or an impatient reader loses nothing
        if a.json: a.json.write_text(json.dumps([o.to_dict() for o in rows], indent=1) + '\n')
        print(f'({key}: {time.perf_counter() - start:.0f} s)', flush=True)
    bars = [o.met for o in rows if o.met is not None]
    print(f'{sum(bars)} of {len(bars)} bars met (a bar is met where the interval reaches down to it)')
    return int(crashed)


if __name__ == '__main__': sys.exit(main())
