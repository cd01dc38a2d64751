"Paired differences and their interval against formulas, a plain loop and a simulation."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import Dense, HeldOut, heldout, paired
from tests.reference import match as reference


def test_cluster_standard_error_against_a_simulation():
    "The spread of the mean over fresh draws of correlated groups; the plain formula is too small by half."
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), rng.integers(1, 8, 60))
    def draw(): return rng.normal(size=60)[groups] + rng.normal(size=len(groups)) * .5
    drawn = [HeldOut(draw(), groups) for _ in range(1500)]
    spread = np.std([one.mean for one in drawn])
    assert np.mean([one.se for one in drawn]) == pytest.approx(spread, rel=.1)
    values = draw()
    assert HeldOut(values, groups).se == pytest.approx(reference.cluster_se(values, list(groups)), rel=1e-9)
    assert np.std(values) / len(values)**.5 < .7 * spread
    # each listing its own group: the textbook's
    assert HeldOut(values, np.arange(len(values))).se == pytest.approx(values.std(ddof=1) / len(values)**.5)


def test_paired():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(150), rng.integers(1, 5, 150))
    shared, n = rng.random(150)[groups], len(groups)
    def draw(shift): return shared + shift + rng.normal(size=150)[groups] * .1 + rng.normal(size=n) * .1
    a, b = (HeldOut(draw(shift), groups) for shift in (.03, 0))
    got = paired(a, b)
    difference = a.row_f1 - b.row_f1
    assert got.diff == pytest.approx(difference.mean())
    assert got.se == pytest.approx(reference.cluster_se(difference, list(groups)), rel=1e-9)
    assert got.low == pytest.approx(got.diff - 1.96 * got.se, abs=.15 * got.se)
    assert got.high == pytest.approx(got.diff + 1.96 * got.se, abs=.15 * got.se)
    wide = paired(a, b, level=.99)
    assert wide.high == pytest.approx(got.diff + 2.576 * got.se, abs=.3 * got.se) and wide.low < got.low
    back = paired(b, a)
    assert back.diff == -got.diff and back.low == pytest.approx(-got.high, abs=1e-12)
    assert back.se == pytest.approx(got.se)
    assert vars(paired(a, b)) == vars(got) and vars(paired(a, b, seed=1)) != vars(got)
    assert set(got.to_dict()) == {'diff', 'se', 'low', 'high'} and got.to_dict()['diff'] == round(got.diff, 5)
    # pairing takes out what both share
    assert got.se < .6 * np.hypot(a.se, b.se)


def test_paired_of_itself_is_nothing():
    rng = np.random.default_rng(0)
    held = heldout(Dense(rng.normal(size=(40, 6))).search(6), rng.integers(0, 13, 40))
    assert set(paired(held, held).to_dict().values()) == {0}


def test_paired_refuses():
    a = HeldOut(np.ones(4), np.array([0, 0, 1, 1]))
    for b in (HeldOut(np.ones(3), np.array([0, 0, 1])), HeldOut(np.ones(4), np.array([0, 1, 1, 1]))):
        with pytest.raises(InputError, match='different listings'): paired(a, b)
    for level in (0, 1, 95):
        with pytest.raises(InputError, match=f'level={level}'): paired(a, a, level)


def test_the_interval_resamples_groups_of_any_size():
    "With unequal groups the mean's denominator is drawn anew as well: against a plain loop."
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2, 3], [1, 2, 10, 4])
    values = rng.normal(size=17) + groups
    got = paired(HeldOut(values, groups), HeldOut(np.zeros(17), groups), n_boot=20_000)
    means = []
    for _ in range(20_000):
        drawn = rng.integers(0, 4, 4)
        means.append(np.concatenate([values[groups == group] for group in drawn]).mean())
    np.testing.assert_allclose([got.low, got.high], np.quantile(means, [.025, .975]), atol=.05)
