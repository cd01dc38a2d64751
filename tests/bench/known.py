"""Benches whose outcome is known, for the harness' own tests; light to import, as each memory run does it
anew."""
import numpy as np

from tests.bench.harness import Case, Value, bench


@bench('self')
def blocks(quick):
    "Peaks that are known: 64 MB beside 16."
    def fill(mb): return lambda: lambda: np.ones(mb << 17).sum()

    yield Case(
        'blocks', {'large': fill(64), 'small': fill(16)}, ref='small', bar=5, memory=True, imports=('numpy',)
    )


@bench('self')
def crash(quick):
    "One row, then an error."
    yield Value('fine', 'ours', 2., 's', aim=3.)
    raise RuntimeError('the bench broke')
