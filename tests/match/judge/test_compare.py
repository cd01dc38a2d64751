"Repeated runs and paired differences against enumeration, Student's own test, `paired`, and a simulation."
import itertools
import sys

import numpy as np
import pytest
from scipy import stats

from fastmatch.core import InputError
from fastmatch.match import HeldOut, paired
from fastmatch.match.judge.compare import compare, repeat


def held(x, groups=None): return HeldOut(np.asarray(x, float), np.arange(len(x)) if groups is None else np.asarray(groups))


def test_repeat():
    r = repeat(lambda seed: seed**2, 4)
    assert r.seeds == (0, 1, 2, 3) and r.mean == 3.5 and r.se == pytest.approx(np.std([0, 1, 4, 9], ddof=1) / 2)
    both = repeat(lambda seed: {'f1': seed, 'recall': held([seed, seed + 1])}, [5, 7])
    assert both['f1'].mean == 6 and both['recall'].values.tolist() == [5.5, 7.5] and len(both['recall'].parts) == 2
    assert np.isnan(repeat(lambda seed: 1., 1).se) and '0.5000' in repr(repeat(lambda seed: .5, 2))


@pytest.mark.parametrize('config, seeds, words', [
    (lambda seed: float('nan') if seed == 1 else 0., 3, 'nan with seed 1'), (lambda seed: 'good', 2, 'gave str'), (lambda seed: 1, 0, 'one at least'),
    (lambda seed: 1, [2, 2], 'each once'), (lambda seed: {'a': 1} if seed else {'b': 1}, 2, 'different figures')])
def test_repeat_refuses(config, seeds, words):
    with pytest.raises(InputError, match=words): repeat(config, seeds)


def test_numbers_a_seed_are_students_test_and_all_flips():
    rng = np.random.default_rng(0)
    a, b = rng.normal(.1, 1, 7), rng.normal(0, 1, 7)
    got, want = compare(list(a), list(b)), stats.ttest_rel(a, b)
    span = want.confidence_interval(.95)
    assert (got.low, got.high) == pytest.approx((span.low, span.high))
    d = a - b
    flips = [abs(np.dot(d, o)) for o in itertools.product((-1, 1), repeat=7)]
    assert got.p == pytest.approx(np.mean(np.array(flips) >= abs(d.sum()) - 1e-12))
    # five seeds that all agree: no fewer than two of 32 flips are as far out
    assert compare([2., 3, 4, 5, 6], [1.] * 5).p == pytest.approx(2 / 32)


def test_one_run_agrees_with_the_bootstrap():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(300), 2)
    base = rng.random(600)
    a, b = held(base + .05 + .1 * rng.normal(size=300)[groups], groups), held(base, groups)
    got, boot = compare(a, b), paired(a, b)
    assert got.diff == pytest.approx(boot.diff) and got.se == pytest.approx(boot.se)
    assert (got.low, got.high) == pytest.approx((boot.low, boot.high), abs=.001)
    assert got.seeds == 1 and got.listings == 600 and 'One seed' in got.sentence and 'better' in got.sentence


def test_flips_drawn_agree_with_scipys():
    d = np.random.default_rng(4).normal(.3, 1, 40)
    want = stats.permutation_test((d,), np.sum, permutation_type='samples', n_resamples=4000, rng=np.random.default_rng(1)).pvalue
    assert .05 < want < .6 and compare(held(d), held(np.zeros(40))).p == pytest.approx(want, abs=.03)


def test_seeds_and_products_both_count(monkeypatch):
    # by the table of modules: the room hands out the function of the same name
    monkeypatch.setattr(sys.modules[compare.__module__], 'FLIPS', 1)  # looked at elsewhere, and dear
    # coverage: seeds and products both drawn, the interval holds the truth as often as it says
    rng, hit, narrow = np.random.default_rng(2), 0, 0
    for _ in range(300):
        of_group, of_seed = rng.normal(0, .3, 80), rng.normal(0, .04, 4)
        d = .05 + of_group[None] + of_seed[:, None] + rng.normal(0, .1, (4, 80))
        got = compare([held(o) for o in d], [held(np.zeros(80))] * 4)
        hit += got.low <= .05 <= got.high
        one = compare(held(d.mean(0)), held(np.zeros(80)))
        narrow += one.low <= .05 <= one.high
    assert 275 <= hit <= 296 and hit > narrow


def test_the_luck_of_seeds_is_in_p(monkeypatch):
    monkeypatch.setattr(sys.modules[compare.__module__], 'FLIPS', 199)
    # without a difference one in twenty is below .05, also where seeds differ more than products do (of flips of products alone two in five were)
    rng, low = np.random.default_rng(5), 0
    for _ in range(120):
        d = rng.normal(0, .1, 80)[None] + rng.normal(0, .05, 5)[:, None] + rng.normal(0, .1, (5, 80))
        low += compare([held(o) for o in d], [held(np.zeros(80))] * 5).p < .05
    assert low <= 14
    # drawn by hand: signs of products, Student's t of seeds
    d = np.array([[.3, .1, -.2, .4, .2, .1], [.1, .2, .1, .3, .1, .2], [.2, .2, -.1, .1, .3, .2]])
    sums = rng.choice([-1, 1], (200_000, 6)) @ d.mean(0) / 6 + stats.sem(d.mean(1)) * rng.standard_t(2, 200_000)
    assert compare([held(o) for o in d], [held(np.zeros(6))] * 3).p == pytest.approx((abs(sums) >= d.mean()).mean(), abs=.005)
    # seeds that all gave the same have none
    assert compare([held(d[0])] * 3, [held(np.zeros(6))] * 3).p == compare(held(d[0]), held(np.zeros(6))).p


def test_folds_are_put_side_by_side():
    rng = np.random.default_rng(3)
    x, y = rng.random((2, 2, 30))
    groups = [np.repeat(np.arange(15), 2), np.repeat(np.arange(10), 3)]
    a = {(s, f): held(x[s] + f, groups[f]) for s in (0, 1) for f in (0, 1)}
    b = {(s, f): held(y[s], groups[f]) for s in (0, 1) for f in (0, 1)}
    got = compare(a, b)
    d = np.concatenate([x - y, x - y + 1], 1)
    assert got.diff == pytest.approx(d.mean()) and got.listings == 60 and got.seeds == 2
    joined = np.concatenate([groups[0], groups[1] + 15])
    assert got.se**2 == pytest.approx(paired(held(d.mean(0), joined), held(np.zeros(60), joined)).se**2 + stats.sem(d.mean(1))**2)


def test_no_difference_is_said():
    a = held([.5, .5, 1.])
    got = compare(a, a)
    assert (got.diff, got.low, got.high, got.p) == (0, 0, 0, 1) and got.sentence.startswith('No difference that 1 seed on 3 listings could show')
    r = repeat(lambda seed: held([seed, 0, 1.]), 3)
    assert compare(r, r).seeds == 3 and compare([1., 2.], [3., 5.]).sentence.startswith('No difference that 2 seeds could show')
    assert 'worse' in compare([1., 1.1, 1.05], [2., 2.1, 2.06]).sentence


@pytest.mark.parametrize('a, b, words', [
    ([1.], [2.], 'two seeds'), ([1., float('nan')], [1., 2.], 'a: seed 1, fold 0'), (held([1., .5]), held([1., np.inf]), 'b: seed 0'),
    (held([1., .5], [0, 0]), held([0., 1], [0, 0]), 'one group'), ([1., 2.], [1., 2., 3.], 'same runs'), ('x', 'y', 'str'), (held([1.]), held([1., 2.]), 'different listings'),
    ({(0, 0): held([1.]), (1, 1): held([1.])}, {(0, 0): held([1.]), (1, 1): held([1.])}, 'each seed needs each fold')])
def test_refused(a, b, words):
    with pytest.raises(InputError, match=words): compare(a, b)
