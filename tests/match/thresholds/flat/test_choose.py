"The chosen thresholds: those of the docstring, and for some rows against every threshold."
import numpy as np
import pytest

from fastmatch.match.thresholds.flat import Flat
from fastmatch.match.thresholds.flat.choose import Chooser
from fastmatch.match.thresholds.flat.ordered import OrderedPairs
from fastmatch.match.thresholds.flat.pairs import DEPTHS
from tests.match.thresholds.flat.grids import pairs_of_three, random_grid


def test_the_example_of_the_docstring():
    one_code = np.zeros(3, int), 1
    choice = Chooser(pairs_of_three(), *one_code).best(np.array([True]))
    assert choice.threshold == pytest.approx(.575) and choice.gain == pytest.approx(2 / 3)
    by_rank = Chooser(pairs_of_three(ranks=2), *one_code)
    further, nearest = (kind.best(np.array([True])) for kind in by_rank.kinds)
    assert (nearest.threshold, further.threshold) == pytest.approx((.575, .551))
    assert by_rank.best(np.array([True])).threshold == pytest.approx((.575, .601))


@pytest.mark.parametrize('seed', range(5))
def test_some_rows_against_every_threshold(seed):
    candidates, groups = random_grid(30, 12, seed, levels=20)
    flat = Flat(candidates, groups)
    level = flat.level(len(DEPTHS) - 1)
    scores = (level.pairs.scores['a'] + level.pairs.scores['b']) / 2
    pairs = OrderedPairs(flat, level, scores, -np.inf, False, 1, 50)
    row_codes = np.random.default_rng(seed).integers(0, 3, 30)
    is_chosen = np.array([True, False, True])
    choice = Chooser(pairs, row_codes, 3).best(is_chosen)
    of_chosen = is_chosen[row_codes][pairs.rows]
    gain_sums = [pairs.gains[of_chosen & (pairs.scores >= score)].sum() for score in np.unique(pairs.scores)]
    assert choice.gain == pytest.approx(max(0, *gain_sums))
    is_let_in = pairs.scores >= choice.threshold
    assert pairs.gains[of_chosen & is_let_in].sum() == pytest.approx(choice.gain)
    assert pairs.gains[~of_chosen & is_let_in].sum() == pytest.approx(choice.gain_elsewhere)
