"Within `freed_memory_kept` blocks that were freed are taken again; afterwards the system has them back."
import platform
import resource
import subprocess
import sys

import pytest
import torch

from fastmatch.learner.memory import freed_memory_kept

N = 2**24  # numbers of 4 bytes: above what glibc keeps by itself
is_glibc = pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='the C library is not glibc')


def faults():
    "Pages that the system mapped while a block was made, filled and freed eight times."
    # rests of earlier blocks may lie in the way of the first ones
    for _ in range(10): torch.zeros(N)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8): torch.zeros(N)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def run_anew(code):
    "What `code` prints in a process of its own: an allocation that failed earlier moves a thread's blocks."
    code = ('import psutil\n'
            'from tests.learner.test_memory import N, faults, freed_memory_kept\n') + code
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout.split()


@is_glibc
def test_blocks_are_mapped_once():
    outside, inner, after = map(int, run_anew(
        'print(faults())\n'
        'with freed_memory_kept():\n'
        # a training within a training, as a study's trial in a notebook's loop
        '    with freed_memory_kept(): print(faults())\n'
        '    print(faults())\n'))
    assert inner < .05 * outside and after < .05 * outside
    pages = 8 * N * 4 / resource.getpagesize()
    # huge pages are mapped by two megabytes
    assert pages / 600 < outside < 1.2 * pages


@is_glibc
def test_the_system_gets_it_back():
    held, left = map(int, run_anew(
        'process = psutil.Process()\n'
        'with freed_memory_kept():\n'
        '    faults()\n'
        '    print(process.memory_info().rss)\n'
        'print(process.memory_info().rss)\n'))
    assert held - left > .9 * N * 4


def test_errors_pass(monkeypatch):
    with pytest.raises(KeyError), freed_memory_kept(): raise KeyError
    monkeypatch.setattr(platform, 'libc_ver', lambda: ('', ''))
    with freed_memory_kept(): assert torch.zeros(3).sum() == 0


# loaders made without a device have none
@is_glibc
@pytest.mark.parametrize('device', ['cpu', None])
def test_a_fit_on_a_cpu_keeps_it(device):
    code = ('from fastmatch.learner.fits import FastaiFits\n'
            'class Fit:\n'
            '    opt, cbs = 1, []\n'
            '    def fit(self, *args): self.seen = faults()\n'
            'class Learner(FastaiFits, Fit):\n'
            f'    class dls: device = {device!r}\n'
            '    loss_func = None\n'
            'learner = Learner()\n'
            'print(faults())\n'
            'learner.fit(0, 1.)\n'
            'print(learner.seen)\n')
    outside, within = map(int, run_anew(code))
    assert within < .05 * outside
