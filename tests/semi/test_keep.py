"Rules that say which predictions are sure enough, against loops."
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.semi.keep import Confidence, Everything, Margin, Quota, margins


def drawn(n, seed=0, classes=4): return np.random.default_rng(seed).dirichlet(np.full(classes, .5), n)


def test_confidence_and_margin():
    probabilities = np.array([[.5, .3, .2], [.2, .2, .6], [.4, .4, .2], [1., 0., 0.]])
    np.testing.assert_allclose(margins(probabilities), [.2, .4, 0., 1.])
    assert Confidence(.5).kept(probabilities).tolist() == [True, True, False, True]
    assert Margin(.25).kept(probabilities).tolist() == [False, True, False, True]
    assert Everything().kept(probabilities).all()


@given(st.integers(0, 40), st.integers(1, 5), st.integers(0, 1000))
def test_a_quota_by_a_loop(n, most, seed):
    probabilities = drawn(n, seed)
    kept = Quota(most).kept(probabilities)
    for number in range(4):
        rows = [row for row in range(n) if probabilities[row].argmax() == number]
        best = sorted(rows, key=lambda row: -probabilities[row, number])[:most]
        assert set(np.flatnonzero(kept)) & set(rows) == set(best)


def test_a_share_of_each_class():
    probabilities = drawn(101)
    kept = Quota(share=.3).kept(probabilities)
    likeliest = probabilities.argmax(1)
    for number in range(4):
        n_of_class = (likeliest == number).sum()
        assert kept[likeliest == number].sum() == np.ceil(.3 * n_of_class)
    # other items by the same cutoffs
    cutoffs = Quota(share=.3).cutoffs(probabilities)
    others = drawn(50, 1)
    least = [probabilities[kept & (likeliest == number), number].min() for number in range(4)]
    expected = [others[row].max() >= least[others[row].argmax()] for row in range(50)]
    assert Quota(share=.3).above(others, cutoffs).tolist() == expected


def test_one_rule_after_another():
    probabilities = drawn(60)
    kept = (Margin(.2) & Quota(3)).kept(probabilities)
    of_first = np.flatnonzero(margins(probabilities) >= .2)
    assert np.flatnonzero(kept).tolist() == of_first[Quota(3).kept(probabilities[of_first])].tolist()
    assert 0 < kept.sum() <= 12


@pytest.mark.parametrize('make, told', [
    (lambda: Confidence(1.2), 'least=1.2: from 0 to 1'), (lambda: Margin(-.1), 'least=-0.1'),
    (lambda: Quota(), 'give one of them'), (lambda: Quota(3, .5), 'give one of them'),
    (lambda: Quota(0), 'most=0: 1 or more'), (lambda: Quota(share=0.), 'share=0.0: above 0')])
def test_refused(make, told):
    with pytest.raises(InputError, match=told): make()
