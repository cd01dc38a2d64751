"Numbers of listings against plain formulae: how they are read, and their similarity."
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match.fields.numbers import Numbers, parse_number


@pytest.mark.parametrize('cell, value, unit', [
    (12, 12, ''), (12.5, 12.5, ''), ('12', 12, ''), ('12.50', 12.5, ''), ('12,50', 12.5, ''), ('-3', -3, ''),
    ('$1,299.00', 1299, 'USD'), ('1.299,00 €', 1299, 'EUR'), ('EUR 3.5', 3.5, 'EUR'), ('1,299', 1299, ''),
    ('Rp 15.000', 15000, 'IDR'), ('1 299,5 zł', 1299.5, 'PLN'), ("1'299.5 CHF", 1299.5, 'CHF'),
    ('1,299,000', 1299000, ''), ('1.5 kg', 1500, 'mass'), ('12oz', 12 * 28.349523, 'mass'),
    ('500 ml', 500, 'volume'), ('0.5 L', 500, 'volume'), ('3e5', 3e5, ''), ('1E-2', .01, ''),
    ('1.234', 1.234, ''), ('£7', 7, 'GBP'), ('7 stars', 7, 'stars'), (np.float32(2.5), 2.5, ''),
])
def test_how_numbers_are_read(cell, value, unit):
    read, read_unit = parse_number(cell)
    assert math.isclose(read, value, rel_tol=1e-6) and read_unit == unit


@pytest.mark.parametrize('cell', [None, float('nan'), np.nan, '', '  ', 'N/A', 'nan', '-', float('inf')])
def test_missing_numbers(cell):
    assert parse_number(cell) is None


def test_cells_without_a_number_are_named():
    with pytest.raises(InputError, match="^price: 2 cells hold no number: row 1: 'cheap'.*row 3"):
        Numbers('price', ['1', 'cheap', None, 'free'])


NUMBERS = st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6), st.sampled_from([0., 1., 2.])), min_size=2,
                   max_size=12)


def naive_similarity(one, other):
    if one is None or other is None: return math.nan
    if one == other: return 1.
    return max(0., 1 - abs(one - other) / max(abs(one), abs(other)))


@settings(max_examples=150, deadline=None)
@given(NUMBERS)
def test_similarity_by_its_formula(cells):
    space = Numbers('price', cells)
    rows = np.arange(len(cells))
    scores = space.scores(rows[:, None], np.tile(rows, (len(rows), 1)))
    np.testing.assert_allclose(scores, [[naive_similarity(one, other) for other in cells] for one in cells],
                               rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(scores, scores.T)


@given(st.floats(.01, 1e5), st.floats(.01, 1e5), st.floats(.1, 100))
def test_units_do_not_matter(one, other, factor):
    "The similarity of two numbers is that of their multiples, so that it is the same in grams and kilos."
    pair = Numbers('weight', [one, other]).scores([0], [1])
    scaled = Numbers('weight', [one * factor, other * factor]).scores([0], [1])
    np.testing.assert_allclose(pair, scaled, atol=1e-5)
    in_grams = Numbers('weight', [f'{one:.9f} kg', f'{other * 1000:.6f} g']).scores([0], [1])
    np.testing.assert_allclose(in_grams, pair, atol=1e-3 / min(one, other))


def test_what_is_in_other_units_says_nothing():
    space = Numbers('size', ['1 kg', '1 l', '1000 g', '5', '5 USD'])
    scores = space.scores([[0], [0], [0], [3]], [[1], [2], [3], [4]]).ravel()
    np.testing.assert_array_equal(scores, [np.nan, 1, np.nan, np.nan])


def test_currencies_by_their_rates():
    rates = {'EUR': 1.1, 'USD': 1.}
    space = Numbers('price', ['10 EUR', '$11', '£11', '11'], unit='USD', rates=rates)
    np.testing.assert_allclose(space.scores([0, 0, 1, 1], [1, 3, 3, 2]), [1, 1, 1, np.nan], rtol=1e-6)
    with pytest.raises(InputError, match="^price: rates={'EUR': -1}"):
        Numbers('price', [1], rates={'EUR': -1})


def test_the_ratio_turns_with_the_pair():
    space = Numbers('price', [2., 8., None, 0., -1.])
    ratios = space.pair_features(np.array([0, 1, 0, 0, 0]), np.array([1, 0, 2, 3, 4]))['price ratio']
    np.testing.assert_allclose(ratios, [math.log(4), -math.log(4), 0, 0, 0], rtol=1e-6)
