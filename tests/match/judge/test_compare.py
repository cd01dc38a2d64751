"Paired differences against enumeration, Student's own test, `paired`, and a simulation."
import itertools
import sys

import numpy as np
import pytest
from scipy import stats

from fastmatch.core import InputError
from fastmatch.match import HeldOut, paired
from fastmatch.match.judge.compare import compare
from fastmatch.match.judge.repeat import repeat


def held(values, clusters=None):
    if clusters is None: clusters = np.arange(len(values))
    return HeldOut(np.asarray(values, float), np.asarray(clusters))


def set_flips(monkeypatch, count):
    "By the table of modules: the room hands out the function of the same name."
    monkeypatch.setattr(sys.modules[compare.__module__], 'FLIPS', count)


def test_numbers_a_seed_are_students_test_and_all_flips():
    rng = np.random.default_rng(0)
    a, b = rng.normal(.1, 1, 7), rng.normal(0, 1, 7)
    got = compare(list(a), list(b))
    interval = stats.ttest_rel(a, b).confidence_interval(.95)
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high))
    difference = a - b
    flipped = [abs(np.dot(difference, signs)) for signs in itertools.product((-1, 1), repeat=7)]
    assert got.p == pytest.approx(np.mean(np.array(flipped) >= abs(difference.sum()) - 1e-12))
    # five seeds that all agree: no fewer than two of 32 flips are as far out
    assert compare([2., 3, 4, 5, 6], [1.] * 5).p == pytest.approx(2 / 32)


def test_one_run_agrees_with_the_bootstrap():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(300), 2)
    base = rng.random(600)
    a, b = held(base + .05 + .1 * rng.normal(size=300)[groups], groups), held(base, groups)
    got, bootstrap = compare(a, b), paired(a, b)
    assert got.diff == pytest.approx(bootstrap.diff) and got.se == pytest.approx(bootstrap.se)
    assert (got.low, got.high) == pytest.approx((bootstrap.low, bootstrap.high), abs=.001)
    assert got.seeds == 1 and got.listings == 600
    assert 'One seed' in got.sentence and 'better' in got.sentence


def test_flips_drawn_agree_with_scipys():
    difference = np.random.default_rng(4).normal(.3, 1, 40)
    wanted = stats.permutation_test((difference,), np.sum, permutation_type='samples', n_resamples=4000,
                                    rng=np.random.default_rng(1)).pvalue
    assert .05 < wanted < .6
    assert compare(held(difference), held(np.zeros(40))).p == pytest.approx(wanted, abs=.03)


def test_seeds_and_groups_both_count(monkeypatch):
    set_flips(monkeypatch, 1)  # looked at elsewhere, and dear
    # coverage: seeds and groups both drawn, the interval holds the truth as often as it says
    rng = np.random.default_rng(2)
    hit = narrow = 0
    for _ in range(300):
        of_group, of_seed = rng.normal(0, .3, 80), rng.normal(0, .04, 4)
        differences = .05 + of_group[None] + of_seed[:, None] + rng.normal(0, .1, (4, 80))
        got = compare([held(values) for values in differences], [held(np.zeros(80))] * 4)
        hit += got.low <= .05 <= got.high
        one = compare(held(differences.mean(0)), held(np.zeros(80)))
        narrow += one.low <= .05 <= one.high
    assert 275 <= hit <= 296 and hit > narrow


def test_the_luck_of_seeds_is_in_p(monkeypatch):
    set_flips(monkeypatch, 199)
    # without a difference one in twenty is below .05, also where seeds differ more than groups do (by flips
    # of groups alone it was two in five)
    rng = np.random.default_rng(5)
    low = 0
    for _ in range(120):
        of_group, of_seed = rng.normal(0, .1, 80), rng.normal(0, .05, 5)
        differences = of_group[None] + of_seed[:, None] + rng.normal(0, .1, (5, 80))
        low += compare([held(values) for values in differences], [held(np.zeros(80))] * 5).p < .05
    assert low <= 14
    # drawn by hand: signs of groups, Student's t of seeds
    differences = np.array([[.3, .1, -.2, .4, .2, .1], [.1, .2, .1, .3, .1, .2], [.2, .2, -.1, .1, .3, .2]])
    nothing = held(np.zeros(6))
    sums = rng.choice([-1, 1], (200_000, 6)) @ differences.mean(0) / 6
    sums += stats.sem(differences.mean(1)) * rng.standard_t(2, 200_000)
    wanted = (abs(sums) >= differences.mean()).mean()
    got = compare([held(values) for values in differences], [nothing] * 3)
    assert got.p == pytest.approx(wanted, abs=.005)
    # seeds that all gave the same have none
    one = held(differences[0])
    assert compare([one] * 3, [nothing] * 3).p == compare(one, nothing).p


def test_folds_are_put_side_by_side():
    rng = np.random.default_rng(3)
    first, second = rng.random((2, 2, 30))
    groups = [np.repeat(np.arange(15), 2), np.repeat(np.arange(10), 3)]
    runs = list(itertools.product((0, 1), (0, 1)))
    a = {(seed, fold): held(first[seed] + fold, groups[fold]) for seed, fold in runs}
    b = {(seed, fold): held(second[seed], groups[fold]) for seed, fold in runs}
    got = compare(a, b)
    difference = np.concatenate([first - second, first - second + 1], 1)
    assert got.diff == pytest.approx(difference.mean()) and got.listings == 60 and got.seeds == 2
    joined = np.concatenate([groups[0], groups[1] + 15])
    over_groups = paired(held(difference.mean(0), joined), held(np.zeros(60), joined)).se
    assert got.se**2 == pytest.approx(over_groups**2 + stats.sem(difference.mean(1))**2)


def test_no_difference_is_said():
    same = held([.5, .5, 1.])
    got = compare(same, same)
    assert (got.diff, got.low, got.high, got.p) == (0, 0, 0, 1)
    assert got.sentence.startswith('No difference that 1 seed on 3 listings could show')
    repeated = repeat(lambda seed: held([seed, 0, 1.]), 3)
    assert compare(repeated, repeated).seeds == 3
    assert compare([1., 2.], [3., 5.]).sentence.startswith('No difference that 2 seeds could show')
    assert 'worse' in compare([1., 1.1, 1.05], [2., 2.1, 2.06]).sentence


LACKS_A_FOLD = {(0, 0): held([1.]), (1, 1): held([1.])}


@pytest.mark.parametrize('a, b, words', [
    ([1.], [2.], 'two seeds'),
    ([1., float('nan')], [1., 2.], 'a: seed 1, fold 0'),
    (held([1., .5]), held([1., np.inf]), 'b: seed 0'),
    (held([1., .5], [0, 0]), held([0., 1], [0, 0]), 'one group'),
    ([1., 2.], [1., 2., 3.], 'same runs'),
    ('x', 'y', 'str'),
    (held([1.]), held([1., 2.]), 'different listings'),
    (LACKS_A_FOLD, LACKS_A_FOLD, 'each seed needs each fold')])
def test_refused(a, b, words):
    with pytest.raises(InputError, match=words): compare(a, b)
