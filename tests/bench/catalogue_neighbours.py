"""A catalogue beside lancedb and sqlite-vec: adding, searching, crashes and size on the same vectors.

`python tests/bench/catalogue_neighbours.py [--rows 100000] [--kills 10] [--out nbs/catalogue_neighbours.csv]`

`--rows` vectors of 64 numbers around a tenth as many centres are added in pieces of `--piece`; then 1,000
others are looked up, k=10. What each does:

- `catalogue`: `Catalogue.add` and `match`; adding also finds what matches (mean of one modality, from .9) and
  keeps the groups. Up to 75,000 vectors a part are searched exactly, more by an index of faiss.
- `lancedb`: `table.add`, `table.search(...).limit(10)`, without an index, which is exact.
- `lancedb, indexed`: the same with an IVF-PQ index, made after adding (`index_s`).
- `sqlite-vec`: one transaction a piece into a `vec0` table, `match` with k = 10, exact.

`recall`: the share of the ten nearest by brute force that was found; of a catalogue's answer, which holds
what reaches the threshold and no more, the share of those of the ten that reach it. `_s` is wall clock, and
holds for an idle machine alone; `_cpu_s` are seconds of the processor, all threads together. `file_mb` holds
all files.

The crashes: a process adds pieces of 100 and says so after each, until SIGKILL at a random moment (`--kills`
times, into the same file). Of `said` rows, `lost` were said to be there and are not on reopening, `torn` are
pieces of which a part is there, `failed` are reopenings, counts or searches that raised an error.

A neighbour that is not installed is left out; sqlite-vec also needs a sqlite3 that loads extensions, or apsw.
"""
import argparse
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from fastmatch.store import table_text, write_text  # noqa: E402

DIM, QUERIES, K, THRESHOLD, BATCH = 64, 1000, 10, .9, 100
NEIGHBOURS = {'catalogue': [], 'lancedb': ['lancedb'], 'lancedb, indexed': ['lancedb'],
              'sqlite-vec': ['sqlite_vec']}


def vectors_of(n: int, seed: int) -> np.ndarray:  # float32 (n,64), unit length
    "Vectors around centres, so that some are near each other."
    centres = np.random.default_rng(0).normal(size=(max(2, n // 10), DIM))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(0, len(centres), n)] + .25 * rng.normal(size=(n, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


class OfCatalogue:
    "fastmatch: rows are listings p0, p1, ...."
    def __init__(self, folder):
        from fastmatch.catalogue import Catalogue
        from fastmatch.match import Embeddings, Rule
        from fastmatch.matcher import Matcher
        self.embeddings, file = Embeddings, Path(folder)/'shop.db'
        # what is looked up is matched among itself too
        rule = Rule('mean', {'title': 1.}, THRESHOLD, k=5 * K)
        matcher = Matcher(rule, Embeddings({'title': vectors_of(20, 7)}, [f'm{row}' for row in range(20)]))
        self.catalogue = Catalogue(file, matcher) if file.exists() else Catalogue.create(file, matcher)

    def add(self, start, vectors):
        ids = [f'p{start + row}' for row in range(len(vectors))]
        self.catalogue.add(self.embeddings({'title': vectors}, ids))

    def index(self): self.catalogue.index()

    def search(self, vectors):
        ids = [f'q{row}' for row in range(len(vectors))]
        table = self.catalogue.match(self.embeddings({'title': vectors}, ids))
        table = table[table.match.str.startswith('p')]
        found = table.groupby('posting_id', sort=False).match.agg(list)
        return [[int(each[1:]) for each in found.get(listing, [])[:K]] for listing in ids]

    def rows(self): return [int(each[1:]) for each in self.catalogue.groups().posting_id]
    def close(self): self.catalogue.close()


class OfLance:
    "lancedb without an index."
    def __init__(self, folder):
        import lancedb
        self.connection = lancedb.connect(folder)
        names = self.connection.list_tables()
        is_there = 'shop' in getattr(names, 'tables', names)
        self.table = self.connection.open_table('shop') if is_there else None

    def add(self, start, vectors):
        import pyarrow
        flat = pyarrow.array(vectors.ravel())
        content = pyarrow.table({'number': np.arange(start, start + len(vectors)),
                                 'vector': pyarrow.FixedSizeListArray.from_arrays(flat, DIM)})
        if self.table is None: self.table = self.connection.create_table('shop', content)
        else: self.table.add(content)

    def index(self): pass

    def search(self, vectors):
        columns = ['number', '_distance']
        found = [self.table.search(vector).select(columns).limit(K).to_list() for vector in vectors]
        return [[row['number'] for row in rows] for rows in found]

    def rows(self): return [] if self.table is None else self.table.to_arrow()['number'].to_pylist()
    def close(self): pass


class OfIndexedLance(OfLance):
    "lancedb with its index."
    def index(self): self.table.create_index(metric='l2', num_partitions=256, num_sub_vectors=16)


class OfSqliteVec:
    "sqlite-vec in a file with a write-ahead log, as fast as a catalogue's and as safe."
    def __init__(self, folder):
        import sqlite_vec
        self.connection = _connection(Path(folder)/'shop.db')
        self.connection.enable_load_extension(True)
        if hasattr(self.connection, 'loadextension'):
            self.connection.loadextension(sqlite_vec.loadable_path())
        else: sqlite_vec.load(self.connection)
        self.execute('pragma journal_mode = wal')
        self.execute('pragma synchronous = full')
        self.execute(f'create virtual table if not exists shop using vec0(vector float[{DIM}])')

    def execute(self, *arguments): return list(self.connection.cursor().execute(*arguments))

    def add(self, start, vectors):
        self.execute('begin immediate')
        self.connection.cursor().executemany('insert into shop(rowid, vector) values (?, ?)',
                                             [(start + row, vector.tobytes())
                                              for row, vector in enumerate(vectors)])
        self.execute('commit')

    def index(self): pass

    def search(self, vectors):
        nearest = f'select rowid, distance from shop where vector match ? and k = {K} order by distance'
        return [[row for row, _ in self.execute(nearest, (vector.tobytes(),))] for vector in vectors]

    def rows(self): return [row for row, in self.execute('select rowid from shop')]
    def close(self): self.connection.close()


def _connection(file):
    import sqlite3
    connection = sqlite3.connect(file, isolation_level=None)
    if hasattr(connection, 'enable_load_extension'): return connection
    import apsw
    return apsw.Connection(str(file))


OPENED = {'catalogue': OfCatalogue, 'lancedb': OfLance, 'lancedb, indexed': OfIndexedLance,
          'sqlite-vec': OfSqliteVec}


def is_installed(name: str) -> bool:
    "Whether what a neighbour needs is there."
    import sqlite3
    loads = hasattr(sqlite3.Connection, 'enable_load_extension') or importlib.util.find_spec('apsw')
    return all(importlib.util.find_spec(package) for package in NEIGHBOURS[name]) and (
        name != 'sqlite-vec' or bool(loads))


def measured(name, n, piece, folder):
    "Print the figures of one neighbour, without crashes."
    vectors, queries = vectors_of(n, 1), vectors_of(n, 2)[:QUERIES]
    result, clock = {}, [(time.perf_counter(), time.process_time())]

    def lap(what):
        clock.append((time.perf_counter(), time.process_time()))
        for column, before, now in zip((f'{what}_s', f'{what}_cpu_s'), *clock[-2:]):
            result[column] = round(now - before, 2)

    opened = OPENED[name](folder)
    lap('import')
    for start in range(0, n, piece): opened.add(start, vectors[start:start + piece])
    lap('add')
    opened.index()
    lap('index')
    found = opened.search(queries)
    lap('search')
    opened.close()
    files = [each for each in Path(folder).rglob('*') if each.is_file()]
    result['file_mb'] = round(sum(each.stat().st_size for each in files) / 1e6, 1)
    hits, wanted = 0, 0
    for start in range(0, len(queries), 100):
        cosines = queries[start:start + 100] @ vectors.T
        for row, of_query in enumerate(cosines):
            nearest = np.argpartition(-of_query, K)[:K]
            if name == 'catalogue': nearest = nearest[of_query[nearest] >= THRESHOLD]
            hits += len(set(nearest.tolist()) & set(found[start + row]))
            wanted += len(nearest)
    result['recall'] = round(hits / wanted, 4)
    del result['import_s'], result['import_cpu_s']
    print(json.dumps(result))


def adding(name, folder, start):
    "Add pieces until killed, and say which are there."
    opened = OPENED[name](folder)
    print('ready', flush=True)
    while True:
        opened.add(start, vectors_of(BATCH, start))
        start += BATCH
        print(start, flush=True)


def crashes(name, kills, folder):
    "What a killed writer lost or left damaged."
    rng, said, result = random.Random(0), 0, {'lost': 0, 'torn': 0, 'failed': 0, 'said': 0}
    for _ in range(kills):
        code = f'from tests.bench.catalogue_neighbours import adding; adding({name!r}, {folder!r}, {said})'
        child = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        wanted, began = rng.randrange(1, 6), time.monotonic()
        lines = [child.stdout.readline() for _ in range(1 + wanted)]
        time.sleep(rng.uniform(0, 1.5) * (time.monotonic() - began) / wanted)
        os.kill(child.pid, signal.SIGKILL)
        # a line that was cut off was not said
        lines += child.stdout.read().splitlines(keepends=True)
        child.wait()
        if not lines[wanted].endswith('\n'):
            # it could not open or add
            result['failed'] += 1
            break
        said = max([said, *(int(line) for line in lines[1:] if line.endswith('\n'))])
        code = f'from tests.bench.catalogue_neighbours import reopened; reopened({name!r}, {folder!r})'
        finished = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
        if finished.returncode:
            result['failed'] += 1
            print(finished.stderr[-500:], file=sys.stderr)
            break
        rows = json.loads(finished.stdout.splitlines()[-1])
        there = np.bincount(np.array(rows, int) // BATCH, minlength=said // BATCH)
        result['lost'] += int((BATCH - np.minimum(BATCH, there[:said // BATCH])).sum())
        result['torn'] += int(((there > 0) & (there != BATCH)).sum())
        result['said'] = said
        # a piece that was added and not said is there, and stays
        said = max(said, BATCH * len(there))
    return result


def reopened(name, folder):
    "Print the rows that are there, after a search that must not fail."
    opened = OPENED[name](folder)
    rows = opened.rows()
    if rows: opened.search(vectors_of(5, 3))
    opened.close()
    print(json.dumps(rows))


def figures(name, n, piece, kills):
    "One row of the table."
    with tempfile.TemporaryDirectory() as folder:
        code = ('from tests.bench.catalogue_neighbours import measured; '
                f'measured({name!r}, {n}, {piece}, {folder!r})')
        finished = subprocess.run([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if finished.returncode: raise RuntimeError(f'{name}: the run ended with {finished.returncode}')
    with tempfile.TemporaryDirectory() as folder: crashed = crashes(name, kills, folder)
    return {'what': name, 'version': version_of(name), 'rows': n, 'piece': piece,
            **json.loads(finished.stdout.splitlines()[-1]), 'kills': kills, **crashed}


def version_of(name: str) -> str:
    "The version of a neighbour's package."
    from importlib.metadata import version
    return version({'catalogue': 'fastmatch', 'sqlite-vec': 'sqlite-vec'}.get(name, 'lancedb'))


def main(arguments=None):
    "Measure and print; put the rows into a table."
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', type=int, default=100_000)
    parser.add_argument('--piece', type=int, default=10_000)
    parser.add_argument('--kills', type=int, default=10)
    parser.add_argument('--what', nargs='+', default=list(NEIGHBOURS), choices=list(NEIGHBOURS))
    parser.add_argument('--out', type=Path, help='csv')
    options = parser.parse_args(arguments)
    rows = []
    for name in options.what:
        if not is_installed(name):
            print(f'{name}: not installed, left out')
            continue
        rows.append(figures(name, options.rows, options.piece, options.kills))
        rows[-1]['command'] = (f'python tests/bench/catalogue_neighbours.py --rows {options.rows} '
                               f'--piece {options.piece} --kills {options.kills}')
        print(rows[-1], flush=True)
        if options.out: write_text(options.out, table_text(pd.DataFrame(rows)))


if __name__ == '__main__': main()
