"Components against a naive union-find; folds that never cut one; splits that move what would leak."
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastmatch.core import InputError
from fastmatch.data.columns import Columns
from fastmatch.data.demo import demo_path
from fastmatch.data.split import components, group_folds, valid_split

NONE = st.none()
HASHES = ['aaaa5555aaaa5555', 'bbbb4444bbbb4444', 'cccc3333cccc3333', '8000000000000000', '0000000000000000']
PLAIN = HASHES[3:]


def union_find(listings, columns):
    "Components by merging pairs, in O(n^2): what `components` must equal."
    root = list(range(len(listings)))
    def root_of(row):
        while root[row] != row: row = root[row]
        return row
    rows = listings.to_dict('records')
    for row in range(len(rows)):
        for other in range(row):
            shared_values = (
                rows[row][column]
                for column in columns
                if rows[row][column] is not None and rows[row][column] == rows[other][column]
            )
            if any(value not in PLAIN for value in shared_values): root[root_of(row)] = root_of(other)
    component_of_root = {}
    return [component_of_root.setdefault(root_of(row), len(component_of_root)) for row in range(len(rows))]


ROW = st.tuples(
    NONE | st.integers(0, 8).map(str),
    NONE | st.integers(0, 12).map('{}.png'.format),
    NONE | st.sampled_from(HASHES),
)
ROWS = st.lists(ROW, min_size=1, max_size=30)


def frame(rows): return pd.DataFrame(rows, columns=['label', 'image', 'hash'], dtype=object)


@settings(deadline=None)
@given(ROWS)
def test_components_equal_union_find(rows):
    listings = frame(rows)
    listings = listings.astype(object).where(listings.notna(), None)
    assert components(listings, 'label', 'image', phash='hash').tolist() == union_find(
        listings, ['label', 'image', 'hash']
    )
    by_label_and_hash = components(listings, 'label', phash=listings.hash.to_numpy())
    assert by_label_and_hash.tolist() == union_find(listings, ['label', 'hash'])
    assert components(listings, 'label').tolist() == union_find(listings, ['label'])
    assert components(listings, fn_col='image').tolist() == union_find(listings, ['image'])


def test_equal_bytes_link_under_different_names(tmp_path):
    for name, colour in (('a', 'red'), ('b', 'red'), ('c', 'blue')):
        Image.new('RGB', (8, 8), colour).save(tmp_path/f'{name}.png')
    listings = pd.DataFrame(dict(label=list('xyz'), image=['a.png', 'b.png', 'c.png']))
    assert components(listings, 'label', 'image').tolist() == [0, 1, 2]
    assert components(listings, 'label', 'image', tmp_path).tolist() == [0, 0, 1]
    with pytest.raises(InputError, match='1 of 3 files.*d.png'):
        components(listings.assign(image=['a.png', 'b.png', 'd.png']), 'label', 'image', tmp_path)


def test_a_placeholder_links_nothing_and_is_named():
    n_groups = 60
    listings = pd.DataFrame(
        dict(
            label=[f'g{number // 2}' for number in range(2 * n_groups)],
            image=['none.png' if number % 2 else f'{number}.png' for number in range(2 * n_groups)],
        )
    )
    with pytest.warns(UserWarning, match=r'1 picture\(s\) on more than 50 groups.*none.png \(60 groups\)'):
        component = components(listings, 'label', 'image')
    assert component.max() == n_groups - 1
    assert components(listings, 'label', 'image', max_shared=60).max() == 0
    with pytest.warns(UserWarning, match='perceptual hash'):
        assert components(listings, 'label', phash=['aaaa5555aaaa5555']*2*n_groups).max() == n_groups - 1
    # sixty rows of one product with one photo, and one row filed under another label: that is no placeholder
    listings = pd.DataFrame(dict(label=['x']*60 + ['y'], image='same.png'))
    assert components(listings, 'label', 'image').tolist() == [0]*61
    with pytest.warns(UserWarning, match='61 groups'): assert components(listings, None, 'image').max() == 60


def test_further_keys_link():
    table = pd.DataFrame({'label_group': [1, 1, 2, 3, 4, 5]})
    titles = ['a', 'b', 'b', None, None, 'c']
    codes = [None, None, 7, 7., '8', '8']
    assert components(table, 'label_group', keys={'title': titles}).tolist() == [0, 0, 0, 1, 2, 3]
    assert components(table, 'label_group', keys={'title': titles, 'code': codes}).tolist() == [
        0, 0, 0, 0, 1, 1]
    assert components(table, keys={'code': codes}).tolist() == [0, 1, 2, 2, 3, 3]
    with pytest.raises(InputError, match=r"keys\['title'\]: 1 for 6 rows"):
        components(table, keys={'title': ['a']})
    with pytest.warns(UserWarning, match='title.s. on more than 2 groups taken for placeholders'):
        assert len(set(components(table, keys={'title': ['a'] * 6}, max_shared=2))) == 6


def test_columns_by_either_keyword():
    listings = pd.DataFrame(dict(label=list('xyzz'), image=['a', 'a', 'b', 'c'], fold=[0, 0, 1, 1]))
    expected = components(listings, 'label', 'image')
    assert expected.tolist() == [0, 0, 1, 1]
    for group, image in (('label_col', 'fn_col'), ('group_col', 'image_col'), ('group_col', 'fn_col')):
        names = {group: 'label', image: 'image'}
        assert components(listings, **names).tolist() == expected.tolist()
        folds = group_folds(listings, 'label', 2, fn_col='image')
        assert group_folds(listings, n_folds=2, **names).tolist() == folds.tolist()
        assert valid_split(listings, 0, 'fold', **names)[0].tolist() == [True, True, False, False]
    with pytest.raises(InputError, match="group_col='image': the group column is 'label' already"):
        components(listings, 'label', group_col='image')
    with pytest.raises(InputError, match='imag_col.*did you mean image_col'):
        components(listings, 'label', imag_col='image')


def test_columns_as_one_object():
    "The same as by keyword; a keyword wins over the object, and what the object leaves out is not read."
    listings = pd.DataFrame(
        dict(
            name=list('abcd'),
            label=list('xyzz'),
            photo=['p', 'q', 'q', 'r'],
            hash=['ff00ff00ff00ff00', None, None, 'ff00ff00ff00ff00'],
            part=[0, 0, 1, 1],
        )
    )
    columns = Columns('name', None, None, 'label', 'part', 'hash')
    assert components(listings, columns=columns).tolist() == [0, 1, 0, 0]
    by_keyword = components(listings, 'label', phash='hash')
    assert components(listings, columns=columns).tolist() == by_keyword.tolist()
    assert components(listings, columns=columns, phash_col=None).tolist() == [0, 1, 2, 2]
    assert components(listings, fn_col='photo', columns=columns, phash_col=None).tolist() == [0, 1, 1, 1]
    assert components(listings, columns=dict(label_col='photo')).tolist() == [0, 1, 1, 2]
    dealt = group_folds(listings, n_folds=2, columns=columns)
    assert dealt.tolist() == group_folds(listings, 'label', 2, phash='hash').tolist()
    with pytest.warns(UserWarning, match='move there: a'):
        is_valid, moved = valid_split(listings, 1, columns=columns)
    assert is_valid.tolist() == [True, False, True, True] and moved.id.tolist() == ['a']
    with pytest.warns(UserWarning, match='move there: 0'):
        valid_split(listings, 1, columns=columns, id_col=None)
    assert valid_split(listings, 1, columns=columns, phash_col=None)[0].tolist() == [False, False, True, True]


def test_a_column_that_is_not_there_is_named():
    listings = pd.DataFrame(dict(label=list('xyzz'), photo=['p', 'q', 'q', 'r']))
    for columns in (Columns(group='label'), dict(label_col='label', fn_col='foto')):
        with pytest.raises(InputError, match='df lacks image_col='): components(listings, columns=columns)
    with pytest.raises(InputError, match='give a Columns'): components(listings, columns='label')


def test_wrong_hashes_are_named():
    listings = pd.DataFrame(dict(label=list('xy')))
    with pytest.raises(InputError, match='not a hex string'):
        components(listings, 'label', phash=['zz', '11'])
    with pytest.raises(InputError, match='3 values for 2 rows'):
        components(listings, 'label', phash=['aa']*3)


@settings(deadline=None)
@given(ROWS, st.integers(2, 5), st.integers(0, 3))
def test_folds_never_cut_a_component_and_are_balanced(rows, n_folds, seed):
    listings = frame(rows)
    component = components(listings, 'label', 'image', phash='hash')
    if component.max() + 1 < n_folds:
        with pytest.raises(InputError, match=f'{component.max() + 1} separate groups.*{n_folds} folds'):
            group_folds(listings, 'label', n_folds, seed, fn_col='image', phash='hash')
        return
    folds = group_folds(listings, 'label', n_folds, seed, fn_col='image', phash='hash')
    assert pd.Series(folds).groupby(component).nunique().max() == 1
    sizes = np.bincount(folds, minlength=n_folds)
    assert len(sizes) == n_folds and sizes.min() > 0
    assert sizes.max() - sizes.min() <= np.bincount(component).max()
    assert np.array_equal(folds, group_folds(listings, 'label', n_folds, seed, fn_col='image', phash='hash'))


def test_large_components_go_first():
    listings = pd.DataFrame(dict(label=[0]*6 + [1, 2, 3, 4, 5, 6]))
    assert np.bincount(group_folds(listings, 'label', 2)).tolist() == [6, 6]


def test_seed_changes_the_folds():
    listings = pd.DataFrame(dict(label=np.repeat(range(40), 3)))
    folds, other_folds = (group_folds(listings, 'label', 5, seed) for seed in (0, 1))
    assert (folds != other_folds).any() and np.bincount(folds).tolist() == [24]*5
    with pytest.raises(InputError, match='n_folds=1'): group_folds(listings, 'label', 1)


def test_given_folds_are_kept_where_they_cut_nothing():
    listings = pd.DataFrame(dict(posting_id=list('abcd'), label=[0, 0, 1, 1], fold=[0, 0, 1, 1]))
    is_valid, moved = valid_split(listings, 0, 'fold', 'label')
    assert is_valid.tolist() == [True, True, False, False] and is_valid.dtype == bool and len(moved) == 0


def test_the_majority_fold_wins_and_ties_go_to_the_smaller():
    listings = pd.DataFrame(
        dict(posting_id=list('abcdefgh'), label=[0, 0, 0, 1, 1, 2, 2, 3], fold=[0, 1, 1, 2, 0, 1, 1, 2])
    )
    with pytest.warns(UserWarning, match=r'2 row\(s\).*a, d'):
        is_valid, moved = valid_split(listings, 0, 'fold', 'label')
    assert moved.to_dict('list') == dict(id=['a', 'd'], row=[0, 3], fold=[0, 2], to=[1, 0])
    assert np.flatnonzero(is_valid).tolist() == [3, 4]


def test_a_shared_picture_moves_its_rows():
    listings = pd.DataFrame(
        dict(
            label=[0, 0, 0, 1, 1, 2, 2],
            image=['a', 'b', 'c', 'c', 'd', 'e', 'f'],
            fold=[1, 1, 1, 0, 0, 0, 0],
        )
    )
    with pytest.warns(UserWarning, match=r'2 row\(s\).*3, 4'):
        is_valid, moved = valid_split(listings, 0, 'fold', 'label', fn_col='image')
    assert is_valid.tolist() == [False]*5 + [True]*2 and moved.id.tolist() == [3, 4]


def test_without_given_folds_they_are_dealt():
    listings = pd.DataFrame(dict(label=np.repeat(range(20), 2)))
    is_valid, moved = valid_split(listings, 3, label_col='label', seed=7)
    assert np.array_equal(is_valid, group_folds(listings, 'label', 5, 7) == 3) and is_valid.sum() == 8
    assert len(moved) == 0


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(valid_fold=7), 'valid_fold=7 is not among the folds: 0, 1'),
        (dict(fold_col='folds'), "lacks fold_col='folds'"),
        (dict(fold_col='half'), 'row 1: 0.5 is not a whole number'),
        (dict(fold_col='one'), 'both training and validation need some'),
    ],
)
def test_useless_splits_raise(change, words):
    listings = pd.DataFrame(dict(label=[0, 0, 1, 1], fold=[0, 0, 1, 1], half=[0, .5, 1, 1], one=0))
    with pytest.raises(InputError, match=words):
        valid_split(listings, **{'valid_fold': 0, 'fold_col': 'fold', 'label_col': 'label', **change})


def test_a_fold_that_lives_inside_another_component_is_an_error():
    listings = pd.DataFrame(dict(label=[0, 0, 0, 1, 1], fold=[1, 1, 0, 2, 2]))
    with pytest.warns(UserWarning), pytest.raises(InputError, match='valid_fold=0 holds 0 of 5 rows'):
        valid_split(listings, 0, 'fold', 'label')


def test_the_sample_has_one_picture_under_two_labels():
    path = demo_path()
    listings = pd.read_csv(path/'listings.csv')
    assert components(listings, 'label_group').max() + 1 == 751
    component = components(listings, 'label_group', 'image', path/'images')
    assert component.max() + 1 == 750
    cricket = component[listings.posting_id == 'emoji_0303'][0]  # Noto v1 draws the insect and the game alike
    assert set(listings.label_group[component == cricket]) == {'1f997', '1f3cf'}


TRUTHS = ['True', 'False', 'True', 'False', 'True', 'False']


@pytest.mark.parametrize('cells', [TRUTHS, [cell.lower() for cell in TRUTHS], pd.Categorical(TRUTHS),
                                   [cell == 'True' for cell in TRUTHS]])
def test_folds_of_true_and_false_as_a_text_file_has_them(cells):
    df = pd.DataFrame({'posting_id': range(6), 'label_group': range(6), 'fold': cells})
    is_valid, _ = valid_split(df, True, 'fold', 'label_group')
    np.testing.assert_array_equal(is_valid, np.arange(6) % 2 == 0)
    with pytest.raises(InputError, match='holds True and False'): valid_split(df, 0, 'fold', 'label_group')


@pytest.mark.parametrize('valid_fold, fold_col, words', [
    ('0', 'fold', 'the number of one fold'), ([0], 'fold', 'the number of one fold'),
    (True, None, 'numbers from 0'), (0, 'mixed', 'True is not a whole number')])
def test_what_is_no_fold(valid_fold, fold_col, words):
    df = pd.DataFrame({'posting_id': range(6), 'label_group': range(6), 'fold': [0, 0, 1, 1, 2, 2],
                       'mixed': [True, 0, 1, 1, 0, 1]})
    with pytest.raises(InputError, match=words): valid_split(df, valid_fold, fold_col, 'label_group')
