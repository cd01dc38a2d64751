"More processes for one job on this machine: all run the same function, and none outlives the first."
import multiprocessing
import os
import sys
import threading
import time
from contextlib import contextmanager

import torch

from ..core import InputError

POLL = .3  # seconds between two checks that the first process still runs
FAREWELL = 10  # seconds that the others have to end by themselves when all work is done


@contextmanager
def helpers(
    process_count: int,  # Processes in all, this one included
    job,  # Function that each of the others calls; a module's own, so that a new process can import it
    arguments: dict,  # Its keyword arguments, all of them picklable; `echo` is added
):
    "Gives a function that starts the other processes when it is first called; leaving the block ends them."
    processes = []

    def start():
        if process_count == 1 or processes: return
        n_threads = max(1, _cores() // process_count)
        torch.set_num_threads(n_threads)
        with _environment(OMP_NUM_THREADS=str(n_threads)):
            for _ in range(process_count - 1):
                processes.append(context.Process(target=_help, args=(job, arguments, os.getpid())))
                processes[-1].start()

    context = multiprocessing.get_context('spawn')
    try:
        yield start
        # the work is done: a process that is still reading the table has nothing left to do
        for process in processes: process.join(FAREWELL)
    finally:
        for process in processes: process.terminate()


def _cores():
    "The cores that this process may use."
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


@contextmanager
def _environment(**variables):
    "Environment variables that hold inside the block: a new process inherits them."
    earlier_values = {variable: os.environ.get(variable) for variable in variables}
    os.environ.update(variables)
    try: yield
    finally:
        for variable, earlier_value in earlier_values.items():
            if earlier_value is None: del os.environ[variable]
            else: os.environ[variable] = earlier_value


def _help(job, arguments, first_process):
    "What another process runs."
    threading.Thread(target=_end_with, args=(first_process,), daemon=True).start()
    if not sys.stderr.isatty(): os.environ['TQDM_DISABLE'] = '1'
    try: job(**arguments, echo=_print_trial)
    except (InputError, ImportError) as error:
        print(f'fastmatch: a process of the study ended: {error}', file=sys.stderr, flush=True)
        sys.exit(2)


def _end_with(first_process):
    "Ends this process when the first one is gone, killed or not."
    while os.getppid() == first_process: time.sleep(POLL)
    os._exit(1)


def _print_trial(line):
    # everything else is printed by the first process
    if line.startswith('trial'): print(line, flush=True)
