"Categories of listings: spellings, synonyms, similarity."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match.fields.categories import Categories, canonical_category
from tests.match.fields.test_codes import naive_edits


@pytest.mark.parametrize('same', [('Hewlett-Packard', 'hewlett packard', ' HEWLETT  PACKARD '),
                                  ('Nestlé', 'NESTLÉ', 'nestle\u0301'), ('3', 3, 3.0), ('ＳＯＮＹ', 'sony')])
def test_one_value_in_many_spellings(same):
    assert len({canonical_category(cell) for cell in same}) == 1


VALUES = st.lists(st.one_of(st.none(), st.text('ab c', max_size=6)), min_size=2, max_size=10)


def naive_similarity(one, other):
    if one is None or other is None: return np.nan
    if one == other: return 1.
    words, others = set(one.split()), set(other.split())
    shared = len(words & others) / min(len(words), len(others))
    return max(1 - naive_edits(one, other) / max(len(one), len(other)), .9 * shared)


@settings(max_examples=150, deadline=None)
@given(VALUES)
def test_similarity_by_plain_loops(cells):
    space = Categories('brand', cells)
    canonical = [canonical_category(cell) for cell in cells]
    rows = np.arange(len(cells))
    scores = space.scores(rows[:, None], np.tile(rows, (len(rows), 1)))
    expected = [[naive_similarity(one, other) for other in canonical] for one in canonical]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    np.testing.assert_array_equal(scores, scores.T)
    same = space.pair_features(rows, rows[::-1])[f'{space.name} same']
    expected = [-1 if None in (canonical[row], canonical[-1 - row]) else canonical[row] == canonical[-1 - row]
                for row in rows]
    np.testing.assert_array_equal(same, expected)


def test_synonyms_are_one_value():
    space = Categories('brand', ['HP', 'Hewlett-Packard', 'hp inc', 'Sony'],
                       {'hp': 'hewlett packard', 'HP Inc.': 'HP'})
    assert space.cells.tolist() == ['hewlett packard'] * 3 + ['sony']
    assert space.transform(['H P', 'hp']).cells.tolist() == ['h p', 'hewlett packard']
    # a circle of synonyms ends
    assert Categories('brand', ['a'], {'a': 'b', 'b': 'a'}).cells[0] in ('a', 'b')
    with pytest.raises(InputError, match='^brand: synonyms={None'): Categories('brand', ['a'], {None: 'b'})


def test_synonyms_are_learnt_from_matches():
    cells = ['HP'] * 4 + ['Hewlett-Packard'] * 6 + ['Sony', 'Canon', 'Sony', None]
    #        0..3          4..9                     10      11       12     13
    learnt = Categories('brand', cells).learnt(rows=[0, 1, 2, 10, 13], ids=[4, 5, 6, 11, 12])
    assert learnt.synonyms == {'hp': 'hewlett packard'}
    assert learnt.scores([0], [4])[0] == 1
    # one match may be a mistake
    assert learnt.scores([10], [11])[0] < 1
    assert Categories('brand', cells).learnt([0], [4]).synonyms == {}


def test_a_brand_proposes_no_candidates():
    found = Categories('brand', ['a', 'a', 'b']).search(3)
    assert (found.ids[:, 1:] == -1).all() and found.ids[:, 0].tolist() == [0, 1, 2]
