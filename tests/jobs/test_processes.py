"More processes: each runs the job with its share of the cores, and all end with the block."
import os
import time

from fastmatch.jobs.processes import helpers


def note(folder, echo):
    "A job for the other processes: says that it ran, with how many threads, and stays."
    (folder/str(os.getpid())).write_text(os.environ['OMP_NUM_THREADS'])
    time.sleep(60)


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(.05)


def test_others_run_the_job_and_end_with_the_block(tmp_path, monkeypatch):
    monkeypatch.setattr('fastmatch.jobs.processes.FAREWELL', 0)
    threads_before = os.environ.get('OMP_NUM_THREADS')
    with helpers(2, note, dict(folder=tmp_path)) as start_others:
        assert not list(tmp_path.iterdir())
        start_others()
        start_others()
        wait_for(lambda: list(tmp_path.iterdir()))
    file, = tmp_path.iterdir()
    assert int(file.name) != os.getpid() and int(file.read_text()) >= 1
    assert os.environ.get('OMP_NUM_THREADS') == threads_before

    def is_gone():
        try: return os.waitpid(int(file.name), os.WNOHANG)[0] != 0
        except ChildProcessError: return True
    wait_for(is_gone)


def test_one_process_starts_no_other(tmp_path):
    with helpers(1, note, dict(folder=tmp_path)) as start_others: start_others()
    assert not list(tmp_path.iterdir())
