"Paired differences and their interval against formulas, a plain loop and a simulation."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import Dense, HeldOut, heldout, paired, summary_table
from tests.reference import match as reference


def test_cluster_standard_error_against_a_simulation():
    "The spread of the mean over fresh draws of correlated groups; the plain formula is too small by half."
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), rng.integers(1, 8, 60))
    def draw(): return rng.normal(size=60)[groups] + rng.normal(size=len(groups)) * .5
    simulations = [HeldOut(draw(), groups, independent=True) for _ in range(1500)]
    spread = np.std([simulated.mean for simulated in simulations])
    assert np.mean([simulated.se for simulated in simulations]) == pytest.approx(spread, rel=.1)
    values = draw()
    scores = HeldOut(values, groups, independent=True)
    assert scores.se == pytest.approx(reference.cluster_se(values, list(groups)), rel=1e-9)
    assert np.std(values) / len(values)**.5 < .7 * spread
    # each listing its own group: the textbook's
    by_listing = HeldOut(values, np.arange(len(values)), independent=True)
    assert by_listing.se == pytest.approx(values.std(ddof=1) / len(values)**.5)


def test_paired():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(150), rng.integers(1, 5, 150))
    shared, n_listings = rng.random(150)[groups], len(groups)
    def draw(shift):
        return shared + shift + rng.normal(size=150)[groups] * .1 + rng.normal(size=n_listings) * .1

    first, second = (HeldOut(draw(shift), groups, independent=True) for shift in (.03, 0))
    actual = paired(first, second)
    difference = first.row_f1 - second.row_f1
    assert actual.diff == pytest.approx(difference.mean())
    assert actual.se == pytest.approx(reference.cluster_se(difference, list(groups)), rel=1e-9)
    assert actual.low == pytest.approx(actual.diff - 1.96 * actual.se, abs=.15 * actual.se)
    assert actual.high == pytest.approx(actual.diff + 1.96 * actual.se, abs=.15 * actual.se)
    wide_interval = paired(first, second, level=.99)
    assert wide_interval.high == pytest.approx(actual.diff + 2.576 * actual.se, abs=.3 * actual.se)
    assert wide_interval.low < actual.low
    swapped = paired(second, first)
    assert swapped.diff == -actual.diff and swapped.low == pytest.approx(-actual.high, abs=1e-12)
    assert swapped.se == pytest.approx(actual.se)
    assert vars(paired(first, second)) == vars(actual) and vars(paired(first, second, seed=1)) != vars(actual)
    assert set(actual.to_dict()) == {'diff', 'se', 'low', 'high'}
    assert actual.to_dict()['diff'] == round(actual.diff, 5)
    # pairing takes out what both share
    assert actual.se < .6 * np.hypot(first.se, second.se)


def test_matched_groups_are_not_independent():
    "The same scores with wider intervals around the same mean, the wider the fewer groups there are."
    rng = np.random.default_rng(2)
    factors = []
    for n_groups in (20, 60, 150, 11_000):
        groups = np.repeat(np.arange(n_groups), 2)
        scores = rng.normal(size=(2, 2 * n_groups))
        matched, apart = ([HeldOut(values, groups, independent=independent) for values in scores]
                          for independent in (False, True))
        wide, narrow = paired(*matched, n_boot=500), paired(*apart, n_boot=500)
        assert wide.diff == narrow.diff
        factor = wide.se / narrow.se
        assert (wide.low - wide.diff) / (narrow.low - narrow.diff) == pytest.approx(factor)
        assert (wide.high - wide.diff) / (narrow.high - narrow.diff) == pytest.approx(factor)
        assert matched[0].se == pytest.approx(factor * apart[0].se)
        assert paired(matched[0], apart[1], n_boot=500) == wide
        factors.append(factor)
    # what simulated draws needed, and what is left of it in a table of Shopee's size
    assert factors[:3] == pytest.approx([1.39, 1.26, 1.18], abs=.06) and 1 < factors[3] < 1.12
    assert (np.diff(factors) < 0).all()


def test_paired_of_itself_is_nothing():
    rng = np.random.default_rng(0)
    held_out = heldout(Dense(rng.normal(size=(40, 6))).search(6), rng.integers(0, 13, 40))
    assert set(paired(held_out, held_out).to_dict().values()) == {0}


def test_paired_refuses():
    first = HeldOut(np.ones(4), np.array([0, 0, 1, 1]))
    for second in (HeldOut(np.ones(3), np.array([0, 0, 1])), HeldOut(np.ones(4), np.array([0, 1, 1, 1]))):
        with pytest.raises(InputError, match='different listings'): paired(first, second)
    for level in (0, 1, 95):
        with pytest.raises(InputError, match=f'level={level}'): paired(first, first, level)


def test_the_interval_resamples_groups_of_any_size():
    "With unequal groups the mean's denominator is drawn anew as well: against a plain loop."
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2, 3], [1, 2, 10, 4])
    values = rng.normal(size=17) + groups
    first, second = (HeldOut(scores, groups, independent=True) for scores in (values, np.zeros(17)))
    actual = paired(first, second, n_boot=20_000)
    sampled_means = []
    for _ in range(20_000):
        drawn_groups = rng.integers(0, 4, 4)
        sampled_means.append(np.concatenate([values[groups == group] for group in drawn_groups]).mean())
    np.testing.assert_allclose([actual.low, actual.high], np.quantile(sampled_means, [.025, .975]), atol=.05)


def figures(row_f1, n=5):
    return {'row_f1': row_f1, 'se': .01, 'recall_at_1': None, 'map_at_r': .5, 'n': n}


GAIN = {'rule over fused': {'diff': .05, 'se': .01, 'low': .03, 'high': .07}}


def test_a_table_for_each_setting():
    judged = {'in the catalogue': {'pool': 27_615, 'rows': {'alone': figures(.5), 'rule': figures(.7)}},
              'among themselves': {'pool': 5, 'rows': {'alone': figures(.5), 'rule': figures(.8)}}}
    lines = summary_table({'judged': judged, 'heldout': {'alone': figures(.1)}, 'gain': GAIN}).split('\n')
    assert lines[0] == 'in the catalogue: 5 listings, each looked up among 27,615'
    assert lines[5] == 'among themselves: 5 listings, each looked up among 5'
    assert [line.split()[:2] for line in (*lines[2:4], *lines[7:9])] == [
        ['alone', '0.500'], ['rule', '0.700'], ['alone', '0.500'], ['rule', '0.800']]
    assert lines[-1] == 'rule over fused: +0.050 row F1, 95% interval +0.030 to +0.070: it helps'
    assert '0.100' not in '\n'.join(lines) and '  -  ' in lines[2]


@pytest.mark.parametrize('low, high, words', [(.01, .02, 'it helps'), (0., .02, 'not clear'),
                                              (-.02, 0., 'not clear'), (-.02, -.01, 'it does harm')])
def test_what_an_interval_says(low, high, words):
    summary = {'heldout': {'alone': figures(.5)},
               'gain': {'fused over untrained_fused': {'diff': 0., 'se': .01, 'low': low, 'high': high}}}
    assert summary_table(summary).endswith(f': {words}')


def test_a_table_of_an_earlier_version():
    "Figures of the held-out listings without a word on where they were looked up."
    lines = summary_table({'heldout': {'alone': figures(0.5), 'fused': figures(0.75)}, 'gain': GAIN}).split(
        '\n'
    )
    assert lines[0].split()[:2] == ['row', 'F1'] and lines[2].split()[:2] == ['fused', '0.750']
    assert lines[-1].startswith('rule over fused: +0.050')
