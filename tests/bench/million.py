"""Build, search and decide from ten thousand to a million listings: time, memory, recall against exact
search.

`python tests/bench/million.py [--rows 10000 100000 1000000] [--random] [--kind exact] [--out nbs/scale.csv]`

Vectors are real title embeddings (MiniLM, 31,173 titles of the text sets), drawn again and again, each with
Gaussian noise of its own, whose length is `--noise` beside the embedding's 1: with .5 a copy's cosine to its
title is .89, that of two copies of a title .8. `--random`: Gaussian vectors alone, where no neighbour is much
nearer than any other; indexes like these are no good there, and the table says so. Each size runs in a
process of its own, which makes its vectors, builds, searches 50 neighbours of every row, and decides;
`peak_mb` is the most this process ever held, the vectors and libraries included.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
TEXT = ROOT.parent/'shared'/'data'/'text'
SETS = ('abt_buy', 'amazon_google', 'walmart_amazon')
# the competition's most matches; rows looked up exactly; a cut between copies' .8 and other titles
DIM, K, SAMPLE, THRESHOLD = 384, 50, 10_000, .7


def title_vectors(batch_size: int = 64) -> np.ndarray:  # float32 (n,384)
    "Embed the titles of the text sets."
    import pandas as pd

    from fastmatch.matcher import Encoder
    from fastmatch.models import MatchNet, TitleEncoder, load_tokenizer
    tables = [pd.read_csv(TEXT/f'{name}.csv', keep_default_na=False) for name in SETS]
    titles = [title for table in tables for title in table.title]
    tokenizer = load_tokenizer('all-MiniLM-L6-v2')
    title_encoder = TitleEncoder('all-MiniLM-L6-v2', pad_id=tokenizer.pad_token_id)
    encoder = Encoder(MatchNet(None, None, title_encoder), None, tokenizer)
    return encoder.embed(None, titles, batch_size)[0]['title']


# float32 (n,384), unit length
def made(n: int, base: np.ndarray | None, noise: float, seed: int = 0) -> np.ndarray:
    "Vectors as the docstring above says, a part at a time: nothing else of their size is held."
    rng, vectors = np.random.default_rng(seed), np.empty((n, DIM), np.float32)
    if base is not None: base = base / np.linalg.norm(base, axis=1, keepdims=True)
    for start in range(0, n, 50_000):
        part = rng.normal(size=(min(50_000, n - start), DIM)).astype(np.float32)
        if base is not None:
            drawn = base[rng.integers(0, len(base), len(part))]
            part = drawn + np.float32(noise / DIM**.5) * part
        vectors[start:start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def child(n, file, noise, kind, recall, memory, sample):
    "One size: print its figures."
    from fastmatch.match import Index, decide
    from tests.bench.harness import memory as held
    vectors = made(n, np.load(file) if file else None, noise)
    clock = [time.perf_counter()]

    def lap():
        clock.append(time.perf_counter())
        return round(clock[-1] - clock[-2], 2)

    index = Index(vectors, 'title', kind, recall, memory, normalized=True)
    result = {}
    # the parts of a first search, one after the other
    if index.kind != 'exact': index._build()
    result['build_s'] = lap()
    if index.kind != 'exact': index._prepare(K)
    result['try_s'] = lap()
    neighbors = index.search(K)
    result['search_s'] = lap()
    matches = decide(neighbors, THRESHOLD)
    result['decide_s'] = lap()
    result |= {
        'total_s': round(clock[-1] - clock[0], 2),
        'peak_mb': round(held('VmHWM')),
        'kind': index.kind,
        'effort': index._effort_for.get(K),
        'matches_a_row': round(len(matches.ids) / n, 2),
    }
    del matches
    if index.kind == 'exact': result |= {'recall': 1., 'recall_se': 0., 'recall_rows': 0}
    else:
        # other rows than the search was tried out on, and what the search above found for them
        found = index.recall(K, sample, seed=1)
        result |= {
            'recall': round(found.mean, 4),
            'recall_se': round(found.se, 5),
            'recall_rows': found.rows,
            'exact_s': lap(),
        }
    print(json.dumps(result))


def measure(n, file, noise, kind, recall, memory, sample):
    "The figures of one size, from a process of its own."
    arguments = n, file, noise, kind, recall, memory, sample
    code = f'from tests.bench.million import child; child(*{arguments!r})'
    finished = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    if finished.returncode:
        raise RuntimeError(f'{n} rows: the run ended with {finished.returncode}\n{finished.stderr}')
    result = json.loads(finished.stdout.splitlines()[-1])
    return {
        'data': 'titles' if file else 'random',
        'rows': n,
        'dim': DIM,
        'k': K,
        'noise': noise if file else None,
        'asked': kind,
        **result,
        'threads': int(os.environ.get('OMP_NUM_THREADS') or os.cpu_count()),
    }


def main(arguments=None):
    "Measure, print, and put the rows into a table, in the place of earlier ones of the same case."
    import pandas as pd
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', type=int, nargs='+', default=[10_000, 100_000, 1_000_000])
    parser.add_argument('--random', action='store_true', help='Gaussian vectors instead of titles')
    parser.add_argument('--noise', type=float, default=.5,
                        help="length of each title's noise beside its embedding's 1")
    parser.add_argument('--kind', default='auto', help='as for Index')
    parser.add_argument('--recall', type=float, default=.98, help='as for Index')
    parser.add_argument('--memory', type=float, default=2., help='as for Index, GB')
    parser.add_argument('--sample', type=int, default=SAMPLE, help='rows looked up exactly')
    parser.add_argument('--titles', type=Path,
                        help='float32 .npy of title embeddings, made there if it is missing')
    parser.add_argument('--out', type=Path, help='csv')
    options = parser.parse_args(arguments)
    settings = {name: getattr(options, name) for name in ('noise', 'kind', 'recall', 'memory')}
    with tempfile.TemporaryDirectory() as folder:
        file = None if options.random else options.titles or Path(folder)/'titles.npy'
        if file and not file.exists():
            if not TEXT.exists(): parser.error(f'no titles at {TEXT}: --random does without')
            np.save(file, title_vectors())
        for n in options.rows:
            row = measure(n, file and str(file), **settings, sample=options.sample)
            print(row, flush=True)
            row['command'] = (
                f'python tests/bench/million.py --rows {n}'
                + ''.join(f' --{name} {value}' for name, value in settings.items())
                + ' --random' * options.random
            )
            if options.out:
                earlier = pd.read_csv(options.out) if options.out.exists() else pd.DataFrame()
                key = ['data', 'rows', 'kind']
                if len(earlier): earlier = earlier[(earlier[key] != pd.Series(row)[key]).any(axis=1)]
                table = pd.concat([earlier, pd.DataFrame([row])]).sort_values(key)
                table.to_csv(options.out, index=False)


if __name__ == '__main__': main()
