"""A catalogue whose writer is killed again and again: `python -m tests.catalogue.kill_job FILE KILLS SEED`.

A child process carries out operations one after the other and reports each that returned; it is killed
(SIGKILL) at a random moment. Then the file must hold every reported event, at most one more, none twice, and
the groups that follow from what was done; the next child goes on from there. With 'saved' behind
these the search index is saved after each event, so that kills meet its writing too.
"""
import os
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from tqdm import tqdm

os.environ['OMP_NUM_THREADS'] = '1'

from fastmatch.catalogue import Catalogue, saved
from tests.catalogue.made import RULES, blocks_of, listings, matcher_of, partition_of
from tests.catalogue.test_catalogue import at_once


def plan(seed, ids, operations):
    "The operations, each with what is there afterwards: (kind, arguments, ids there, verdicts)."
    rng, there, verdicts, planned = random.Random(seed), [], {}, []
    for _ in range(operations):
        absent = sorted(set(ids) - set(there))
        kind = rng.choice(['add', 'add', 'remove', 'same', 'different'])
        if kind == 'add' and absent:
            chosen = sorted(rng.sample(absent, min(len(absent), rng.choice([1, 3, 9]))))
        elif kind == 'remove' and len(there) > 5: chosen = sorted(rng.sample(there, rng.choice([1, 2, 5])))
        elif len(there) > 5 and kind in ('same', 'different'): chosen = sorted(rng.sample(there, 2))
        else: continue
        if kind == 'add': there = sorted([*there, *chosen])
        if kind == 'remove': there = sorted(set(there) - set(chosen))
        if kind in ('same', 'different'):
            trial = {**verdicts, tuple(chosen): kind == 'same'}
            linked = blocks_of(ids, [], [pair for pair, same in trial.items() if same])
            if any(not same and any(set(pair) <= block for block in linked) for pair, same in trial.items()):
                continue
            verdicts = trial
        planned.append((kind, chosen, tuple(there), dict(verdicts)))
    return planned


def carry_out(catalogue, embeddings, number, operation):
    kind, chosen, *_ = operation
    reason = str(number)
    if kind == 'add': return catalogue.add(embeddings.take([int(each[1:]) for each in chosen]), reason=reason)
    if kind == 'remove': return catalogue.remove(chosen, reason=reason)
    return catalogue.verdict(*chosen, kind == 'same', reason=reason)


def child(file, matcher, embeddings, planned, start, pipe):
    with Catalogue(file, matcher) as catalogue:
        catalogue.index()
        os.write(pipe, b'ready\n')
        for number in range(start, len(planned)):
            carry_out(catalogue, embeddings, number, planned[number])
            os.write(pipe, f'{number}\n'.encode())


def killed_after(reports_wanted, share, file, matcher, embeddings, planned, start):
    """Numbers of the operations that a child reported before it was killed: after so many reports, and a
    share of the time that the last one took."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        # the bars' own lock is shared with the parent, which would wait for ever for one that died holding it
        tqdm.set_lock(threading.RLock())
        try: child(file, matcher, embeddings, planned, start, writing)
        finally: os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as reports:
        assert reports.readline() == 'ready\n'
        moments, lines = [time.monotonic()], []
        for _ in range(reports_wanted):
            lines.append(reports.readline())
            moments.append(time.monotonic())
        time.sleep(share * (moments[-1] - moments[-2] if lines else .02))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        # a line that was cut off was not reported
        return [int(line) for line in [*lines, *reports] if line.endswith('\n')]


def found_in(catalogue):
    "What other listings match, as rows."
    table = catalogue.match(listings(20, 5, .3))
    return table[['posting_id', 'match', 'group']].values.tolist()


def check(file, matcher, planned, pairs, reported):
    "The number of operations done, after every check of the file."
    with Catalogue(file, matcher) as catalogue:
        done = [int(reason) for reason in catalogue.events().reason]
        assert done == list(range(len(done))), 'an event is lost, or there twice'
        assert not reported or len(done) in (reported[-1] + 1, reported[-1] + 2), (done[-1], reported[-1])
        assert catalogue.check() == []
        if not done: return 0
        _, _, there, verdicts = planned[len(done) - 1]
        same, apart = ([pair for pair, each in verdicts.items() if each == wanted and set(pair) <= set(there)]
                       for wanted in (True, False))
        matching = [pair for pair in pairs if pair[0] in there and pair[1] in there]
        assert partition_of(catalogue) == blocks_of(there, matching, same, apart)
        assert set(catalogue.index().numbers) == set(catalogue.record.present())
        found = found_in(catalogue)
    folder = saved.folder_of(file)
    if not folder.exists(): return len(done)
    # a fresh build finds the same; what was saved stays for the next child
    folder.rename(f'{folder}.kept')
    with Catalogue(file, matcher) as catalogue: assert found_in(catalogue) == found
    shutil.rmtree(folder)
    Path(f'{folder}.kept').rename(folder)
    return len(done)


def main(file, kills, seed):
    embeddings, rule = listings(60, spread=.3), RULES['above']
    matcher, pairs = matcher_of(rule), at_once(rule, embeddings)
    planned = plan(seed, embeddings.ids.tolist(), 30 * kills)
    rng = random.Random(seed)
    Catalogue.create(file, matcher).close()
    done, inside = 0, 0
    for _ in range(kills):
        moment = rng.randrange(8), rng.uniform(0, 1.5)
        reported = killed_after(*moment, file, matcher, embeddings, planned, done)
        before, done = done, check(file, matcher, planned, pairs, reported)
        inside += done == before + len(reported) + 1
    print(f'{kills} kills, {done} events, {inside} of them finished and not yet reported')


if __name__ == '__main__':
    if 'saved' in sys.argv: saved.SAVED_FROM, saved.GROWTH, saved.GROWTH_SHARE = 1, -1000, -1
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
