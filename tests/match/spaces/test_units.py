"Quantities in titles, as they are written, and titles compared by them against plain loops."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Keys, Pool, Units, quantities
from tests.match.cases import checked_search, pair_grid


@pytest.mark.parametrize('title, expected', [
    ('Susu UHT 500ml', {'volume': [500]}), ('susu 0,5 L', {'volume': [500]}), ('0.5 ltr', {'volume': [500]}),
    ('2 x 500 ml', {'volume': [500], 'count': [2]}), ('10x20x30cm', {'length': [100, 200, 300]}),
    ('10 cm x 2 m', {'length': [100, 2000]}), ('1.000 gr beras', {'mass': [1000]}),
    ('1,500ml', {'volume': [1500]}),
    ('1.500 kg', {'mass': [1500]}), ('0.500 g', {'mass': [.5]}), ('1/2 kg', {'mass': [500]}),
    ('isi 10', {'count': [10]}), ('Pack of 6', {'count': [6]}),
    ('100 pcs x 5 gr', {'count': [100], 'mass': [5]}),
    ('24" monitor', {'length': [609.6]}), ('iPhone 12 64GB', {'data': [64000]}),
    ('1tb = 1000 gb', {'data': [1e6]}),
    ('220V 50Hz 5 watt', {'voltage': [220], 'frequency': [50], 'power': [5]}),
    ('10.000mAh', {'charge': [10000]}),
    ('8 fl oz', {'volume': [236.588]}), ('8 oz', {'mass': [226.796184]}), ('5 in 1', {}), ('v1.5l', {}),
    ('10.5.3 ml', {}), ('0 ml', {}), ('1/0 kg', {}), ('5m²', {}), ('iphone 12', {}), ('', {}),
    ('12 lemons', {})])
def test_quantities(title, expected):
    assert quantities(title) == {dimension: pytest.approx(values) for dimension, values in expected.items()}


WORDS = ['500ml', '0.5 l', '250 ml', '1kg', '1.000 gr', '2 x 500ml', 'isi 2', 'isi 3', '8 fl oz', '237 ml',
         'kaos', '']


def agree(first, second):
    "Whether two titles' quantities have a common value, up to rounding, in each dimension that both name."
    def near(x, y): return abs(x - y) <= .005 * max(x, y)
    return all(any(near(x, y) for x in first[dimension] for y in second[dimension])
               for dimension in set(first) & set(second))


@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.sampled_from(WORDS), min_size=2, max_size=9), new_count=st.integers(1, 8))
def test_units_against_loops(words, new_count):
    texts = [f'{word} {other}' for word, other in zip(words, words[::-1])]
    found = [quantities(text) for text in texts]
    listing_count = len(texts)
    expected = np.array([[float(agree(first, second)) for second in found] for first in found])
    assert (expected.diagonal() == 1).all() and (expected == expected.T).all()
    space = Units(texts)
    np.testing.assert_array_equal(space.scores(*pair_grid(listing_count)), expected)
    new_count = min(new_count, listing_count - 1)
    mask = np.arange(listing_count) < new_count
    pool = Pool(space.take(mask), space.take(~mask))
    rows, ids = pair_grid(listing_count)
    np.testing.assert_array_equal(pool.scores(rows[:new_count], ids), expected[:new_count])
    rejoined = space.take(mask).append(space.transform(texts[new_count:]))
    np.testing.assert_array_equal(rejoined.scores(*pair_grid(listing_count)), expected)
    assert (checked_search(space.search, 3, listing_count).check(self_join=True).ids[:, 1:] < 0).all()
    assert (checked_search(pool.search, 3, listing_count).ids[:, 1:] < 0).all()


def test_nobody_is_found_for_queries():
    space = Units(['1 kg', '500 ml'])
    assert (space.search(2, queries=space.transform(['1 kg'])).ids == -1).all()
    assert repr(space) == 'Units(2 titles: mass, volume)'
    assert repr(Units(['a'])) == 'Units(1 titles: no quantities)'


def test_refuses():
    with pytest.raises(InputError, match='rows 1'): Units(['a', None])
    with pytest.raises(InputError, match='Keys'): Units(['a']).scores([0], [0], queries=Keys('a'))
