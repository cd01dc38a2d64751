"""Fixtures shared by all tests: real data outside the package where there is some, and small pieces that are
quick to make."""
from pathlib import Path

import pytest


def pytest_configure(config):
    import os
    os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')
    # two test processes with two threads each would fight for two cores
    if 'PYTEST_XDIST_WORKER' in os.environ: os.environ.setdefault('OMP_NUM_THREADS', '1')


@pytest.fixture(scope='session')
def real_data():
    "Folder of real data sets beside the repository; tests that want it are skipped where there is none."
    folder = Path(__file__).resolve().parents[2]/'shared'/'data'
    if not folder.exists(): pytest.skip('no folder of real data beside the repository')
    return folder
