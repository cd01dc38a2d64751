"""Is a long table matched in pieces in little memory, and in the same bytes after kills at random moments?

`python tests/bench/stream_kills.py [--rows 200000] [--known 20000] [--kills 10] [--encoder] [--out FILE.csv]`

Titles are those of the text sets (where there are none: the demo's), drawn again and again, each with one
word of another title put in. `fastmatch match --rows` looks them up in a catalogue of `--known` further ones
by n-grams, with `--encoder` by MiniLM as it comes besides, whose embeddings a store keeps. Once nobody stops
it (`seconds`, `peak_mb` of the whole process); then the same command is killed (SIGKILL) after a random time
and called again, until it was killed so often and ends by itself. `same` says whether both files are equal in
every byte, `rows_kept` how many listings each killed run had matched already.
"""
import argparse
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from fastmatch.data.columns import Columns
from fastmatch.match import Rule
from fastmatch.matcher import Encoder, Matcher
from fastmatch.store import table_text, write_text
from tests.bench.million_living import titles

START = 5.  # seconds that a process takes at least before it matches
REPOSITORY = Path(__file__).resolve().parents[2]
FASTMATCH = 'from fastmatch.cli import app; app()'


def matcher_of(table, with_encoder):
    "A matcher that knows these titles."
    weights = {'tfidf': .5, 'title': .5} if with_encoder else {'tfidf': 1.}
    rule, columns, encoder = Rule('mean', weights, .75), Columns(image=None), None
    if with_encoder:
        from fastmatch.models import MatchNet, TitleEncoder, load_tokenizer
        tokenizer = load_tokenizer('all-MiniLM-L6-v2')
        title = TitleEncoder(pad_id=tokenizer.pad_token_id)
        encoder = Encoder(MatchNet(None, None, title), tokenizer=tokenizer)
    return Matcher.from_df(table, '.', rule, encoder, columns)[0]


def run(command, seconds=None):
    "Whether a command ended by itself within so many seconds, after which it is killed."
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                               cwd=REPOSITORY)
    try: said = process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return process.returncode != -signal.SIGKILL
    if process.returncode: raise RuntimeError(said)
    return True


def main(arguments=None):
    "Measure, print, and write the row."
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', type=int, default=200_000)
    parser.add_argument('--known', type=int, default=20_000)
    parser.add_argument('--kills', type=int, default=10)
    parser.add_argument('--piece', type=int, default=4096)
    parser.add_argument('--encoder', action='store_true')
    parser.add_argument('--out', type=Path, help='csv')
    options = parser.parse_args(arguments)
    n = options.rows + options.known
    table = pd.DataFrame({'posting_id': [f'p{row}' for row in range(n)], 'title': titles(n)})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        matcher_of(table.head(options.known), options.encoder).save(folder/'matcher')
        table.iloc[options.known:].to_csv(folder/'new.csv', index=False)

        def command(out):
            store = ['--store', f'{folder/out}.store'] if options.encoder else []
            return [sys.executable, '-c', FASTMATCH, 'match', f'{folder}/matcher', f'{folder}/new.csv',
                    '-o', f'{folder/out}', '--rows', str(options.piece), *store]
        started = time.perf_counter()
        run(command('whole.csv'))
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        row = {'rows': options.rows, 'known': options.known, 'encoder': options.encoder,
               'piece': options.piece, 'seconds': round(seconds, 1), 'peak_mb': round(peak)}
        print(row, flush=True)
        drawn, kills, kept, ended = random.Random(0), 0, [], False
        while not ended:
            # what is left after earlier kills is shorter: late moments come less and less often
            longest = START + max(2., (seconds - START) * (1 - (kept[-1] if kept else 0) / options.rows) / 3)
            ended = run(command('killed.csv'), drawn.uniform(1., longest) if kills < options.kills else None)
            if ended: break
            kills += 1
            state = folder/'killed.csv.part.json'
            kept.append(json.loads(state.read_text())['listings'] if state.exists() else 0)
            print(f'killed {kills} times, {kept[-1]} listings matched', flush=True)
        same = (folder/'whole.csv').read_bytes() == (folder/'killed.csv').read_bytes()
    row |= {'kills': kills, 'rows_kept': ' '.join(map(str, kept)), 'same': same}
    print(row)
    if options.out: write_text(options.out, table_text(pd.DataFrame([row])))


if __name__ == '__main__': main()
