"""A catalogue of a hundred thousand to a million titles: time and memory of adding, opening and one more day.

`python tests/bench/million_living.py [--rows 100000 1000000] [--vectors] [--out nbs/living_scale.csv]`

Titles are those of the text sets (31,173 real ones, where there are none: the demo's), drawn again and again,
each with one word of another title put in at a random place: the stated noise, without which copies would be
equal. They are added in pieces of `--piece` (`grow_s`), and the file is closed (`close_s`: the search index
is saved beside it, `index_mb`). Then it is opened again (`open_s`: until its groups can be read; `index_s`:
until it can be searched, the saved index read), `--day` further titles are added twice (`first_day_s`,
`day_s`), and one is removed (`remove_s`); `rebuild_s` is the index made anew from the record, after the saved
one was deleted. The rule compares n-grams (TF-IDF, frozen, of 20,000 titles); `--vectors` compares 64 numbers
of a random projection besides, which stand for an encoder's embeddings that were made before.

Each size runs in a process of its own; `peak_mb` is the most that it ever held, the saved index counted where
it is read, `grow_peak_mb` the same before the first closing, `rebuild_peak_mb` while the index was made anew.
Columns that end in `_s` are wall clock and hold for an idle machine alone; those in `_cpu_s` are seconds of
the processor, which with one thread (OMP_NUM_THREADS=1) are about what an idle machine takes.
"""
import argparse
import json
import shutil
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

TEXT = ROOT.parent/'shared'/'data'/'text'
SETS = ('abt_buy', 'amazon_google', 'walmart_amazon')
KNOWN, DIM = 20_000, 64


def titles(n: int, seed: int = 0) -> list:
    "Real titles with noise, as the docstring above says."
    files = [TEXT/f'{name}.csv' for name in SETS if (TEXT/f'{name}.csv').is_file()]
    if files: real = [title for file in files for title in pd.read_csv(file, keep_default_na=False).title]
    else:
        from fastmatch.data.demo import demo_path
        real = pd.read_csv(demo_path()/'listings.csv').title.tolist()
    rng = np.random.default_rng(seed)
    words = np.array([word for title in real for word in title.split()])
    made = []
    for row, word in zip(rng.integers(0, len(real), n), rng.choice(words, n)):
        parts = real[row].split()
        parts.insert(int(rng.integers(len(parts) + 1)), str(word))
        made.append(' '.join(parts))
    return made


def embeddings(texts, start, vectors):
    "Listings with ids from `start` on; their vectors follow from their titles."
    from sklearn.feature_extraction.text import HashingVectorizer

    from fastmatch.match import Embeddings
    made = {}
    if vectors:
        hashed = HashingVectorizer(n_features=2**14, analyzer='word').transform(texts)
        made['title'] = (hashed @ np.random.default_rng(0).normal(size=(2**14, DIM))).astype(np.float32)
    return Embeddings(made, [f'p{start + row}' for row in range(len(texts))], texts)


def child(n, piece, day, vectors, folder):
    "One size: print its figures."
    from fastmatch.catalogue import Catalogue
    from fastmatch.catalogue.saved import folder_of
    from fastmatch.match import Rule
    from fastmatch.matcher import Matcher
    from tests.bench.harness import memory as held
    texts = titles(n + 2 * day)
    weights = {'tfidf': .5, 'title': .5} if vectors else {'tfidf': 1.}
    matcher = Matcher(Rule('mean', weights, .85, k=10), embeddings(texts[:min(n, KNOWN)], 0, vectors))
    clock = [(time.perf_counter(), time.process_time())]
    file, result = Path(folder)/'shop.db', {}

    def lap(name):
        clock.append((time.perf_counter(), time.process_time()))
        for column, before, now in zip((f'{name}_s', f'{name}_cpu_s'), *clock[-2:]):
            result[column] = round(now - before, 2)
        print(name, result[f'{name}_s'], result[f'{name}_cpu_s'], file=sys.stderr, flush=True)

    with Catalogue.create(file, matcher) as catalogue:
        for start in range(0, n, piece):
            catalogue.add(embeddings(texts[start:min(n, start + piece)], start, vectors))
        lap('grow')
    lap('close')
    result['file_mb'] = round(file.stat().st_size / 1e6, 1)
    saved = folder_of(file)
    sizes = [each.stat().st_size for each in saved.rglob('*') if each.is_file()]
    result['index_mb'] = round(sum(sizes) / 1e6, 1)
    result['grow_peak_mb'] = round(held('VmHWM'))
    with Catalogue(file, matcher) as catalogue:
        result['groups'] = int(catalogue.groups().group.nunique())
        lap('open')
        catalogue.index()
        lap('index')
        for name, start in (('first_day', n), ('day', n + day)):
            catalogue.add(embeddings(texts[start:start + day], start, vectors))
            lap(name)
        catalogue.remove('p0')
        lap('remove')
    shutil.rmtree(saved, ignore_errors=True)
    with Catalogue(file, matcher) as catalogue:
        lap('close_again')
        peak = held('VmHWM')
        # from here on the most that it holds is counted anew
        Path('/proc/self/clear_refs').write_text('5', encoding='ascii')
        catalogue.index()
        lap('rebuild')
        result['rebuild_peak_mb'] = round(held('VmHWM'))
    result['peak_mb'] = round(max(peak, held('VmHWM')))
    print(json.dumps(result))


def measure(n, piece, day, vectors):
    "The figures of one size, from a process of its own."
    with tempfile.TemporaryDirectory() as folder:
        arguments = n, piece, day, vectors, folder
        code = f'from tests.bench.million_living import child; child(*{arguments!r})'
        finished = subprocess.run([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if finished.returncode: raise RuntimeError(f'{n} rows: the run ended with {finished.returncode}')
    return {'rows': n, 'piece': piece, 'day': day, 'vectors': vectors,
            **json.loads(finished.stdout.splitlines()[-1])}


def main(arguments=None):
    "Measure, print, and put the rows into a table in the place of earlier ones of the same case."
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', type=int, nargs='+', default=[100_000, 1_000_000])
    parser.add_argument('--piece', type=int, default=50_000)
    parser.add_argument('--day', type=int, default=1_000)
    parser.add_argument('--vectors', action='store_true', help='compare vectors besides')
    parser.add_argument('--out', type=Path, help='csv')
    options = parser.parse_args(arguments)
    for n in options.rows:
        row = measure(n, options.piece, options.day, options.vectors)
        print(row, flush=True)
        if not options.out: continue
        earlier = pd.read_csv(options.out) if options.out.exists() else pd.DataFrame()
        key = ['rows', 'piece', 'vectors']
        if len(earlier): earlier = earlier[(earlier[key] != pd.Series(row)[key]).any(axis=1)]
        write_text(options.out, table_text(pd.concat([earlier, pd.DataFrame([row])]).sort_values(key)))


if __name__ == '__main__': main()
