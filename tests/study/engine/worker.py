"""A worker that notes in a file what it began and ended:

python -m tests.study.engine.worker STORAGE N_TRIALS FILE SECONDS"""
import os
import random
import sys
import time

from fastmatch.study import open_study, search_space, suggest, work

SPACE = search_space('margin', 'scale', lr=(1e-4, 1e-2, 'log'))


def main(storage, n_trials, notes_file, seconds):
    def note(*words):
        # one write: lines of several processes don't mix
        descriptor = os.open(notes_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, (' '.join(map(str, words)) + '\n').encode())
        os.close(descriptor)

    def objective(trial):
        margin = suggest(trial, SPACE)['margin']
        note('began', trial.number, os.getpid(), margin)
        for step in range(3):
            time.sleep(float(seconds) * random.random())
            trial.report(-abs(margin - .4), step + 1)
        note('ended', trial.number, os.getpid(), margin)
        return -abs(margin - .4)
    note('up', os.getpid())
    work(open_study('shared', storage, space=SPACE), objective, int(n_trials))
    note('through', os.getpid())


if __name__ == '__main__': main(*sys.argv[1:])
