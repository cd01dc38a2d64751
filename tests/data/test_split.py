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


def union_find(df, cols):
    "Components by merging pairs, in O(n^2): what `components` must equal."
    root = list(range(len(df)))
    def find(i):
        while root[i] != i: i = root[i]
        return i
    rows = df.to_dict('records')
    for i in range(len(rows)):
        for j in range(i):
            same = (rows[i][c] for c in cols if rows[i][c] is not None and rows[i][c] == rows[j][c])
            if any(value not in PLAIN for value in same): root[find(i)] = find(j)
    first = {}
    return [first.setdefault(find(i), len(first)) for i in range(len(rows))]


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
    df = frame(rows)
    df = df.astype(object).where(df.notna(), None)
    assert components(df, 'label', 'image', phash='hash').tolist() == union_find(
        df, ['label', 'image', 'hash']
    )
    assert components(df, 'label', phash=df.hash.to_numpy()).tolist() == union_find(df, ['label', 'hash'])
    assert components(df, 'label').tolist() == union_find(df, ['label'])
    assert components(df, fn_col='image').tolist() == union_find(df, ['image'])


def test_equal_bytes_link_under_different_names(tmp_path):
    for name, colour in (('a', 'red'), ('b', 'red'), ('c', 'blue')):
        Image.new('RGB', (8, 8), colour).save(tmp_path/f'{name}.png')
    df = pd.DataFrame(dict(label=list('xyz'), image=['a.png', 'b.png', 'c.png']))
    assert components(df, 'label', 'image').tolist() == [0, 1, 2]
    assert components(df, 'label', 'image', tmp_path).tolist() == [0, 0, 1]
    with pytest.raises(InputError, match='1 of 3 files.*d.png'):
        components(df.assign(image=['a.png', 'b.png', 'd.png']), 'label', 'image', tmp_path)


def test_a_placeholder_links_nothing_and_is_named():
    n = 60
    df = pd.DataFrame(
        dict(
            label=[f'g{i // 2}' for i in range(2 * n)],
            image=['none.png' if i % 2 else f'{i}.png' for i in range(2 * n)],
        )
    )
    with pytest.warns(UserWarning, match=r'1 picture\(s\) on more than 50 groups.*none.png \(60 groups\)'):
        comp = components(df, 'label', 'image')
    assert comp.max() == n - 1
    assert components(df, 'label', 'image', max_shared=60).max() == 0
    with pytest.warns(UserWarning, match='perceptual hash'):
        assert components(df, 'label', phash=['aaaa5555aaaa5555']*2*n).max() == n - 1
    # sixty rows of one product with one photo, and one row filed under another label: that is no placeholder
    df = pd.DataFrame(dict(label=['x']*60 + ['y'], image='same.png'))
    assert components(df, 'label', 'image').tolist() == [0]*61
    with pytest.warns(UserWarning, match='61 groups'): assert components(df, None, 'image').max() == 60


def test_columns_by_either_keyword():
    df = pd.DataFrame(dict(label=list('xyzz'), image=['a', 'a', 'b', 'c'], fold=[0, 0, 1, 1]))
    want = components(df, 'label', 'image')
    assert want.tolist() == [0, 0, 1, 1]
    for group, image in (('label_col', 'fn_col'), ('group_col', 'image_col'), ('group_col', 'fn_col')):
        names = {group: 'label', image: 'image'}
        assert components(df, **names).tolist() == want.tolist()
        folds = group_folds(df, 'label', 2, fn_col='image')
        assert group_folds(df, n_folds=2, **names).tolist() == folds.tolist()
        assert valid_split(df, 0, 'fold', **names)[0].tolist() == [True, True, False, False]
    with pytest.raises(InputError, match="group_col='image': the group column is 'label' already"):
        components(df, 'label', group_col='image')
    with pytest.raises(InputError, match='imag_col.*did you mean image_col'):
        components(df, 'label', imag_col='image')


def test_columns_as_one_object():
    "The same as by keyword; a keyword wins over the object, and what the object leaves out is not read."
    df = pd.DataFrame(dict(name=list('abcd'), label=list('xyzz'), photo=['p', 'q', 'q', 'r'],
                           hash=['ff00ff00ff00ff00', None, None, 'ff00ff00ff00ff00'], part=[0, 0, 1, 1]))
    columns = Columns('name', None, None, 'label', 'part', 'hash')
    assert components(df, columns=columns).tolist() == [0, 1, 0, 0]
    assert components(df, columns=columns).tolist() == components(df, 'label', phash='hash').tolist()
    assert components(df, columns=columns, phash_col=None).tolist() == [0, 1, 2, 2]
    assert components(df, fn_col='photo', columns=columns, phash_col=None).tolist() == [0, 1, 1, 1]
    assert components(df, columns=dict(label_col='photo')).tolist() == [0, 1, 1, 2]
    dealt = group_folds(df, n_folds=2, columns=columns)
    assert dealt.tolist() == group_folds(df, 'label', 2, phash='hash').tolist()
    with pytest.warns(UserWarning, match='move there: a'):
        is_valid, moved = valid_split(df, 1, columns=columns)
    assert is_valid.tolist() == [True, False, True, True] and moved.id.tolist() == ['a']
    with pytest.warns(UserWarning, match='move there: 0'): valid_split(df, 1, columns=columns, id_col=None)
    assert valid_split(df, 1, columns=columns, phash_col=None)[0].tolist() == [False, False, True, True]


def test_a_column_that_is_not_there_is_named():
    df = pd.DataFrame(dict(label=list('xyzz'), photo=['p', 'q', 'q', 'r']))
    for columns in (Columns(group='label'), dict(label_col='label', fn_col='foto')):
        with pytest.raises(InputError, match='df lacks image_col='): components(df, columns=columns)
    with pytest.raises(InputError, match='give a Columns'): components(df, columns='label')


def test_wrong_hashes_are_named():
    df = pd.DataFrame(dict(label=list('xy')))
    with pytest.raises(InputError, match='not a hex string'): components(df, 'label', phash=['zz', '11'])
    with pytest.raises(InputError, match='3 values for 2 rows'): components(df, 'label', phash=['aa']*3)


@settings(deadline=None)
@given(ROWS, st.integers(2, 5), st.integers(0, 3))
def test_folds_never_cut_a_component_and_are_balanced(rows, n_folds, seed):
    df = frame(rows)
    comp = components(df, 'label', 'image', phash='hash')
    if comp.max() + 1 < n_folds:
        with pytest.raises(InputError, match=f'{comp.max() + 1} separate groups.*{n_folds} folds'):
            group_folds(df, 'label', n_folds, seed, fn_col='image', phash='hash')
        return
    fold = group_folds(df, 'label', n_folds, seed, fn_col='image', phash='hash')
    assert pd.Series(fold).groupby(comp).nunique().max() == 1
    sizes = np.bincount(fold, minlength=n_folds)
    assert len(sizes) == n_folds and sizes.min() > 0 and sizes.max() - sizes.min() <= np.bincount(comp).max()
    assert np.array_equal(fold, group_folds(df, 'label', n_folds, seed, fn_col='image', phash='hash'))


def test_large_components_go_first():
    df = pd.DataFrame(dict(label=[0]*6 + [1, 2, 3, 4, 5, 6]))
    assert np.bincount(group_folds(df, 'label', 2)).tolist() == [6, 6]


def test_seed_changes_the_folds():
    df = pd.DataFrame(dict(label=np.repeat(range(40), 3)))
    a, b = (group_folds(df, 'label', 5, seed) for seed in (0, 1))
    assert (a != b).any() and np.bincount(a).tolist() == [24]*5
    with pytest.raises(InputError, match='n_folds=1'): group_folds(df, 'label', 1)


def test_given_folds_are_kept_where_they_cut_nothing():
    df = pd.DataFrame(dict(posting_id=list('abcd'), label=[0, 0, 1, 1], fold=[0, 0, 1, 1]))
    is_valid, moved = valid_split(df, 0, 'fold', 'label')
    assert is_valid.tolist() == [True, True, False, False] and is_valid.dtype == bool and len(moved) == 0


def test_the_majority_fold_wins_and_ties_go_to_the_smaller():
    df = pd.DataFrame(
        dict(posting_id=list('abcdefgh'), label=[0, 0, 0, 1, 1, 2, 2, 3], fold=[0, 1, 1, 2, 0, 1, 1, 2])
    )
    with pytest.warns(UserWarning, match=r'2 row\(s\).*a, d'):
        is_valid, moved = valid_split(df, 0, 'fold', 'label')
    assert moved.to_dict('list') == dict(id=['a', 'd'], row=[0, 3], fold=[0, 2], to=[1, 0])
    assert np.flatnonzero(is_valid).tolist() == [3, 4]


def test_a_shared_picture_moves_its_rows():
    df = pd.DataFrame(
        dict(
            label=[0, 0, 0, 1, 1, 2, 2],
            image=['a', 'b', 'c', 'c', 'd', 'e', 'f'],
            fold=[1, 1, 1, 0, 0, 0, 0],
        )
    )
    with pytest.warns(UserWarning, match=r'2 row\(s\).*3, 4'):
        is_valid, moved = valid_split(df, 0, 'fold', 'label', fn_col='image')
    assert is_valid.tolist() == [False]*5 + [True]*2 and moved.id.tolist() == [3, 4]


def test_without_given_folds_they_are_dealt():
    df = pd.DataFrame(dict(label=np.repeat(range(20), 2)))
    is_valid, moved = valid_split(df, 3, label_col='label', seed=7)
    assert np.array_equal(is_valid, group_folds(df, 'label', 5, 7) == 3) and is_valid.sum() == 8
    assert len(moved) == 0


@pytest.mark.parametrize(
    'change, word',
    [
        (dict(valid_fold=7), 'valid_fold=7 is not among the folds: 0, 1'),
        (dict(fold_col='folds'), "lacks fold_col='folds'"),
        (dict(fold_col='half'), 'row 1: 0.5 is not a whole number'),
        (dict(fold_col='one'), 'both training and validation need some'),
    ],
)
def test_useless_splits_raise(change, word):
    df = pd.DataFrame(dict(label=[0, 0, 1, 1], fold=[0, 0, 1, 1], half=[0, .5, 1, 1], one=0))
    with pytest.raises(InputError, match=word):
        valid_split(df, **{'valid_fold': 0, 'fold_col': 'fold', 'label_col': 'label', **change})


def test_a_fold_that_lives_inside_another_component_is_an_error():
    df = pd.DataFrame(dict(label=[0, 0, 0, 1, 1], fold=[1, 1, 0, 2, 2]))
    with pytest.warns(UserWarning), pytest.raises(InputError, match='valid_fold=0 holds 0 of 5 rows'):
        valid_split(df, 0, 'fold', 'label')


def test_the_sample_has_one_picture_under_two_labels():
    path = demo_path()
    df = pd.read_csv(path/'listings.csv')
    assert components(df, 'label_group').max() + 1 == 751
    comp = components(df, 'label_group', 'image', path/'images')
    assert comp.max() + 1 == 750
    cricket = comp[df.posting_id == 'emoji_0303'][0]  # Noto v1 draws the insect and the game alike
    assert set(df.label_group[comp == cricket]) == {'1f997', '1f3cf'}
