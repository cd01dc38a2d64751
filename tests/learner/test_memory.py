"Within `freed_memory_kept` blocks that were freed are taken again; afterwards the system has them back."
import platform
import resource
import subprocess
import sys

import psutil
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


@is_glibc
def test_blocks_are_mapped_once():
    pages = 8 * N * 4 / resource.getpagesize()
    outside = faults()
    with freed_memory_kept():
        # a training within a training, as a study's trial in a notebook's loop
        with freed_memory_kept(): assert faults() < .05 * outside
        assert faults() < .05 * outside
    # huge pages are mapped by two megabytes
    assert pages / 600 < outside < 1.2 * pages


@is_glibc
def test_the_system_gets_it_back():
    process = psutil.Process()
    with freed_memory_kept():
        faults()
        held = process.memory_info().rss
    assert held - process.memory_info().rss > .9 * N * 4


def test_errors_pass(monkeypatch):
    with pytest.raises(KeyError), freed_memory_kept(): raise KeyError
    monkeypatch.setattr(platform, 'libc_ver', lambda: ('', ''))
    with freed_memory_kept(): assert torch.zeros(3).sum() == 0


@is_glibc
def test_a_fit_on_a_cpu_keeps_it():
    code = ('import torch\n'
            'from tests.learner.test_memory import faults\n'
            'from fastmatch.learner.fits import FastaiFits\n'
            'class Fit:\n'
            '    opt, cbs = 1, []\n'
            '    def fit(self, *args): self.seen = faults()\n'
            'class Learner(FastaiFits, Fit):\n'
            "    class dls: device = 'cpu'\n"
            '    loss_func = None\n'
            'learner = Learner()\n'
            'outside = faults()\n'
            'learner.fit(0, 1.)\n'
            'print(learner.seen < .05 * outside)\n')
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert done.stdout.split()[-1:] == ['True'], done.stderr
