"Ids, groups, folds, hashes and titles meet their equals, whatever pandas made of the columns of a file."
import io
import random
import unicodedata
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.data.read import check_listings
from fastmatch.data.split import components, usable_hashes, valid_split
from fastmatch.match import Embeddings, Keys, Tfidf
from fastmatch.match.cells import as_text, codes_of, comparable, is_among, texts_of, tidy, tidy_hashes
from fastmatch.match.judge.groups import Groups
from fastmatch.match.spaces.keys import title_keys
from fastmatch.matcher.known import check_ids

NFD = unicodedata.normalize('NFD', 'Crème brûlée 120 ml')
NFC = unicodedata.normalize('NFC', NFD)


def as_read(cells):
    "The same cells in the ways in which pandas reads a file that holds them."
    text = 'cell\n' + '\n'.join(map(str, cells)) + '\n'
    with_gap = 'cell,other\n' + '\n'.join(f'{cell},1' for cell in cells) + '\n,1\n'
    plain = pd.read_csv(io.StringIO(text))
    return {
        'read_csv': plain.cell,
        'as text': pd.read_csv(io.StringIO(text), dtype=str).cell,
        'with a missing cell': pd.read_csv(io.StringIO(with_gap)).cell.iloc[:-1],
        'pyarrow': pd.read_csv(io.StringIO(text), dtype_backend='pyarrow').cell,
        'nullable': pd.read_csv(io.StringIO(with_gap), dtype_backend='numpy_nullable').cell.iloc[:-1],
        'objects': plain.cell.astype(object),
        'category': plain.cell.astype('category'),
        'half text, half numbers': pd.Series([cell if row % 2 else str(cell)
                                              for row, cell in enumerate(plain.cell.tolist())], dtype=object),
        'decimals': pd.Series([Decimal(cell) if isinstance(cell, int) else cell
                               for cell in plain.cell.tolist()], dtype=object)}


NUMBERS = st.integers(-50, 50)
CELLS = st.one_of(st.lists(NUMBERS, min_size=2, max_size=8),
                  st.lists(st.one_of(NUMBERS, st.sampled_from(['a', 'b', 'ä'])), min_size=2, max_size=8))


@settings(max_examples=25, deadline=None)
@given(cells=CELLS)
def test_every_way_to_read_a_column_says_the_same(cells):
    wanted = [str(cell) for cell in cells]
    first_seen = list(dict.fromkeys(wanted))
    codes = [first_seen.index(text) for text in wanted]
    for way, column in as_read(cells).items():
        for form in (column, column.tolist(), column.to_numpy()):
            assert texts_of(form).tolist() == wanted, way
            assert codes_of(form).tolist() == codes, way
            assert texts_of(tidy(form, 'ids')).tolist() == wanted, way
            assert Groups(form).codes.tolist() == codes, way
            assert is_among(form, cells).all() and is_among(cells, form).all(), way
            embeddings = Embeddings({'image': np.ones((len(cells), 2))}, form, groups=form)
            assert texts_of(embeddings.ids).tolist() == wanted, way
            assert len({*map(type, embeddings.ids)}) == len({*map(type, embeddings.groups)}) == 1, way
        table = pd.DataFrame({'group': column.reset_index(drop=True)})
        assert components(table, 'group').tolist() == codes, way


@settings(max_examples=8, deadline=None)
@given(ids=st.lists(st.integers(0, 10**6), min_size=3, max_size=8, unique=True), text=st.booleans(),
       seed=st.integers(0, 9))
def test_tables_are_split_alike_however_they_were_read(ids, text, seed):
    rng = np.random.default_rng(seed)
    n = len(ids)
    folds = rng.permutation(np.arange(n) % 2)
    groups = [*range(n)]
    wanted = None
    for way, id_column in as_read([f'p{number}' if text else number for number in ids]).items():
        for fold_column in random.sample([*as_read(folds.tolist()).values()], 2):
            table = pd.DataFrame({'id': id_column.reset_index(drop=True), 'group': groups,
                                  'fold': fold_column.reset_index(drop=True)})
            checked = check_listings(table, id_col='id', group_col='group', fold_col='fold').df
            assert checked.fold.dtype == np.int64 and checked.fold.tolist() == folds.tolist(), way
            is_valid, _ = valid_split(checked, 1, 'fold', 'group')
            assert is_valid.tolist() == (folds == 1).tolist()
            found = check_ids(checked.id, 'ids').tolist()
            wanted = wanted or found
            assert found == wanted, way


def test_ids_that_are_the_same_text_are_repeated():
    table = pd.DataFrame({'id': [1, '1', 2.0]}, dtype=object)
    with pytest.raises(InputError, match="unique, also as text; 1 repeated: '1' on rows 0, 1"):
        check_listings(table, id_col='id')


def test_a_missing_cell_makes_no_floats():
    table = pd.read_csv(io.StringIO('id,group\n1,7\n,7\n3,8\n4,\n5,8\n'))
    assert table.id.dtype == float and table.group.dtype == float
    checked = check_listings(table, id_col='id', group_col='group', on_error='skip')
    assert checked.df.id.tolist() == [1, 3, 5] and checked.df.dtypes.tolist() == [np.int64, np.int64]
    assert checked.skipped.row.tolist() == [1, 3]
    assert check_ids(np.array([1., 3.]), 'ids').tolist() == ['1', '3']
    with pytest.raises(InputError, match='read as floats.*dtype=str'): tidy([1e17, 2.], 'ids')
    assert tidy([2**70, 3], 'ids').tolist() == [str(2**70), '3']
    assert tidy([1.5, 2.], 'groups').tolist() == ['1.5', '2'] and tidy(np.array([.5]), 'g').tolist() == [.5]
    assert tidy([True, False], 'g').dtype == bool


@pytest.mark.parametrize('dtype', [bool, 'boolean', object])
def test_a_column_of_booleans_needs_a_boolean_fold(dtype):
    column = pd.Series([True, False, True, False], dtype=dtype)
    table = pd.DataFrame({'id': range(4), 'group': range(4), 'is_valid': column})
    checked = check_listings(table, id_col='id', group_col='group', fold_col='is_valid').df
    for listings in (table, checked):
        assert valid_split(listings, True, 'is_valid', 'group')[0].tolist() == [True, False, True, False]
        assert valid_split(listings, False, 'is_valid', 'group')[0].tolist() == [False, True, False, True]
        for number in (0, 1):
            with pytest.raises(InputError, match="'is_valid' holds True and False: valid_fold=True"):
                valid_split(listings, number, 'is_valid', 'group')
    with pytest.raises(InputError, match='valid_fold=True.*numbers'):
        valid_split(table.assign(fold=[0, 1, 0, 1]), True, 'fold', 'group')


def test_titles_in_another_normal_form_are_the_same():
    assert NFD != NFC
    titles = [NFC, NFD, 'Ｃｒèｍｅ　BRÛLÉE\u200b 120 ml', 'other']
    assert len(set(title_keys(titles)[:3])) == 1 and comparable('\u00ad\ufeff') == ''
    assert Embeddings({}, range(4), titles).titles[:2] == [NFC, NFC]
    assert Tfidf(titles).scores(0, 1) == pytest.approx(1)
    assert check_listings(pd.DataFrame({'id': range(4), 'title': titles}), id_col='id', title_col='title') \
        .df.title[1] == NFC
    assert codes_of([NFC, NFD]).tolist() == [0, 0] and Keys([NFC, NFD]).codes()[0].tolist() == [0, 0]
    assert is_among([NFD], [NFC]).all() and as_text(NFD) == NFC
    with pytest.raises(InputError, match='given twice'): check_ids(['cr\u00e8me', 'cre\u0300me'], 'ids')


def test_hashes_in_capitals_are_the_same():
    hashes = ['ff00aa00ff00aa00', 'FF00AA00FF00AA00', ' ff00aa00ff00aa00 ', '0xFF00aa00FF00aa00',
              None, np.nan, '']
    assert tidy_hashes(hashes).tolist() == ['ff00aa00ff00aa00'] * 4 + [None] * 3
    assert usable_hashes(hashes).tolist() == ['ff00aa00ff00aa00'] * 4 + [None] * 3
    table = pd.DataFrame({'group': range(7)})
    assert components(table, 'group', phash=hashes).tolist() == [0, 0, 0, 0, 1, 2, 3]
    embeddings = Embeddings({'image': np.ones((7, 2))}, range(7), phash=hashes)
    assert embeddings.spaces()['phash'].codes()[0].tolist() == [0, 0, 0, 0, -1, -1, -1]
    # of digits alone, so that pandas reads numbers
    column = pd.read_csv(io.StringIO('phash\n0012345678901234\n1234567890123456\n')).phash
    assert tidy_hashes(column).tolist() == ['0012345678901234', '1234567890123456']
    with pytest.raises(InputError, match='dtype=str'): tidy_hashes([1e15, None])


def test_blanks_around_ids_and_groups_are_no_part_of_them():
    assert texts_of(['a', ' a', 'a\t', 'a b']).tolist() == ['a', 'a', 'a', 'a b']
    assert codes_of(['a', 'a ', 'b']).tolist() == [0, 0, 1]
    assert tidy(['a ', 'b'], 'groups').tolist() == ['a', 'b']
