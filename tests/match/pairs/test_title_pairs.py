"What pairs of titles say: every feature against a loop over made-up shop titles, and both views of a pair."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.match.pairs.title_pairs import TITLE_FEATURES, TitlePairs, numbers_of
from tests.reference import pair as reference

PIECES = ['Sony', 'sony', 'turntable', 'DCR-TRV30', 'dcrtrv30', 'dcr-trv330', '(dcr', 'trv30)', 'v5.0', '5',
          '05', '1,024', '1024', '1,0245', 'mac', 'cs3', '12345', '1234', '0012345678', '50ml', '&', '-',
          '6.10.2', 'a/b2c3']
TITLES = st.lists(st.lists(st.sampled_from(PIECES), max_size=7).map(' '.join), min_size=2, max_size=7)


@settings(max_examples=150, deadline=None)
@given(TITLES)
def test_every_feature_against_a_loop(titles):
    rows, ids = (ends.ravel() for ends in np.indices((len(titles), len(titles))))
    features = TitlePairs(titles).of(set(TITLE_FEATURES) - {'title'}, rows, ids)
    looped = reference.Titles(titles)
    for pair, (i, j) in enumerate(zip(rows, ids)):
        expected = looped.of(i, j)
        assert set(expected) == set(features)
        for name, values in features.items():
            assert values[pair] == pytest.approx(expected[name], abs=2e-5), (name, titles[i], titles[j])


@given(TITLES)
def test_features_that_look_back_are_those_of_the_turned_pair(titles):
    rows, ids = (ends.ravel() for ends in np.indices((len(titles), len(titles))))
    there, back = (TitlePairs(titles).of(TITLE_FEATURES, *ends) for ends in ((rows, ids), (ids, rows)))
    for name, values in there.items():
        if f'{name} back' in there: turned = f'{name} back'
        elif name.endswith('_i'): turned = f'{name[:-2]}_j'
        elif name.endswith('_j') or name.endswith(' back'): continue
        else: turned = name
        np.testing.assert_array_equal(values, back[turned], err_msg=name)


def test_numbers():
    assert numbers_of('v05 5.0 6.10 1,024 1,0245 x200') == ['5', '5', '6.1', '1024', '1', '245', '200']
    assert numbers_of('no. 00123456789') == ['00123456789'] and numbers_of('none') == []


def test_two_products_and_one():
    titles = ['Sony DCR-TRV30 camcorder', 'camcorder by sony, dcrtrv 30', 'Sony DCR-TRV33 camcorder', '']
    features = TitlePairs(titles).of(TITLE_FEATURES, np.array([0, 0, 0]), np.array([1, 2, 3]))
    assert features['code found'].tolist() == [8, 0, 0]
    assert features['number clash'].tolist() == [False, True, False]
    assert features['word share'][0] < features['word share'][1] < 1 and features['word share'][2] == 0
    for name in ('set ratio', 'sorted ratio', 'word share back', 'code found back', 'code alike'):
        assert features[name][2] == -1


def test_no_pairs():
    none = np.zeros(0, np.int64)
    features = TitlePairs(['a', 'b']).of(TITLE_FEATURES, none, none)
    assert features and all(len(values) == 0 for values in features.values())
