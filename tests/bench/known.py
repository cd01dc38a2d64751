"""Benches whose outcome is known, for the harness' own tests; light to import, as each memory run does it
anew."""
import numpy as np

from tests.bench.harness import Case, Value, bench


@bench('self')
def blocks(quick):
    "Peaks that are known: 64 MB beside 16."
    def fill(megabytes): return lambda: lambda: np.ones(megabytes << 17).sum()

    sides = {'large': fill(64), 'small': fill(16)}
    yield Case('blocks', sides, reference='small', bar=5, memory=True, imports=('numpy',))


@bench('self')
def crash(quick):
    "One row, then an error."
    yield Value('fine', 'ours', 2., 's', aim=3.)
    raise RuntimeError('the bench broke')
