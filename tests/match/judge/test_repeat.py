"The same thing with several seeds: mean and standard error."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import HeldOut
from fastmatch.match.judge.repeat import repeat


def held_out(values): return HeldOut(np.asarray(values, float), np.arange(len(values)))


def test_repeat():
    squares = repeat(lambda seed: seed**2, 4)
    assert squares.seeds == (0, 1, 2, 3) and squares.mean == 3.5
    assert squares.se == pytest.approx(np.std([0, 1, 4, 9], ddof=1) / 2)
    figures = repeat(lambda seed: {'f1': seed, 'recall': held_out([seed, seed + 1])}, [5, 7])
    assert figures['f1'].mean == 6
    assert figures['recall'].values.tolist() == [5.5, 7.5] and len(figures['recall'].parts) == 2
    assert np.isnan(repeat(lambda seed: 1., 1).se)
    assert '0.5000' in repr(repeat(lambda seed: .5, 2))


@pytest.mark.parametrize('config, seeds, message', [
    (lambda seed: float('nan') if seed == 1 else 0., 3, 'nan with seed 1'),
    (lambda seed: 'good', 2, 'gave str'),
    (lambda seed: 1, 0, 'one at least'),
    (lambda seed: 1, [2, 2], 'each once'),
    (lambda seed: {'a': 1} if seed else {'b': 1}, 2, 'different figures')])
def test_repeat_refuses(config, seeds, message):
    with pytest.raises(InputError, match=message): repeat(config, seeds)
