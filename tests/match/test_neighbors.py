"""Neighbors against loose pairs kept in dicts: order, ties, padding, self at rank 0, and each promise broken
once."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Neighbors
from fastmatch.match.neighbors import group_codes
from tests.reference import match as ref

PAIR = st.tuples(st.integers(0, 5), st.integers(-1, 5), st.sampled_from([-.5, 0., .25, .5, 1., 1.5]))


def assert_same(actual, expected):
    for actual_array, expected_array in zip(actual, expected):
        np.testing.assert_array_equal(actual_array, expected_array)


@settings(max_examples=200, deadline=None)
@given(pairs=st.lists(PAIR, max_size=30), self_join=st.booleans(), k=st.none() | st.integers(1, 8),
       seed=st.integers(0, 9))
def test_from_pairs(pairs, self_join, k, seed):
    rows, ids, scores = (np.array(column) for column in zip(*pairs)) if pairs else (np.zeros(0, int),) * 3
    expected = ref.from_pairs(rows, ids, scores, 6, self_join)
    neighbors = Neighbors.from_pairs(rows, ids, scores, 6, self_join, k).check(self_join)
    width = k or max(1, max(map(len, expected)))
    assert neighbors.ids.shape == (6, width)
    assert neighbors.ids.dtype == np.int64 and neighbors.scores.dtype == np.float32
    for i, row in enumerate(expected):
        row = (row + [(-1, -np.inf)] * width)[:width]
        assert list(zip(neighbors.ids[i].tolist(), neighbors.scores[i].tolist())) == row
    shuffled = np.random.default_rng(seed).permutation(len(rows))
    assert_same(
        neighbors, Neighbors.from_pairs(rows[shuffled], ids[shuffled], scores[shuffled], 6, self_join, k)
    )


def test_pairs_and_top():
    neighbors = Neighbors.from_pairs([0, 0, 2], [1, 2, 0], [.5, .75, .25], 3)
    rows, ids, scores = neighbors.pairs()
    assert rows.tolist() == [0, 0, 0, 1, 2, 2] and ids.tolist() == [0, 2, 1, 1, 2, 0]
    assert scores.tolist() == [1, .75, .5, 1, 1, .25]
    assert_same(neighbors, Neighbors.from_pairs(rows, ids, scores, 3))
    assert neighbors.top(2).ids.tolist() == [[0, 2], [1, -1], [2, 0]]
    assert neighbors.top(2).scores.tolist() == [[1, .75], [1, -np.inf], [1, .25]]
    assert neighbors.top(9).ids.shape == (3, 3)
    for k in (0, -1, 1.5, True, None):
        with pytest.raises(InputError, match='k='): neighbors.top(k)
        if k is not None:
            with pytest.raises(InputError, match='k='): Neighbors.from_pairs([], [], [], 3, k=k)


def test_head():
    neighbors = Neighbors.from_pairs([0, 0, 2], [1, 2, 0], [.5, .75, .25], 3)
    assert_same(neighbors.head(2), (neighbors.ids[:2], neighbors.scores[:2]))
    assert_same(neighbors.head(9), neighbors)


@pytest.mark.parametrize('arguments, message', [
    (([0], [1, 2], [.5, .5], 3), '1-D arrays of one length'),
    (([[0]], [[1]], [[.5]], 3), '1-D arrays of one length'),
    (([3], [1], [.5], 3), 'rows from 3 to 3, but n=3'),
    (([-1], [1], [.5], 3), 'rows from -1'),
    (([0], [3], [.5], 3), 'id 3'),
    (([0, 2], [1, 1], [.5, np.nan], 3), 'rows 2 are not finite'),
    (([1], [1], [np.inf], 3), 'rows 1 are not finite')])
def test_from_pairs_refuses(arguments, message):
    with pytest.raises(InputError, match=message): Neighbors.from_pairs(*arguments)


def test_from_pairs_without_self_takes_any_id():
    neighbors = Neighbors.from_pairs([0, 0], [7, 3], [.5, .5], 2, self_join=False).check()
    assert neighbors.ids.tolist() == [[3, 7], [-1, -1]]


def broken(promise):
    ids = np.array([[0, 1, -1], [1, 2, 0], [2, 1, 0]])
    scores = np.array([[1, .5, -np.inf], [1, .5, .25], [1, .5, .5]], np.float32)
    if promise == 'ids below -1': ids[0, 2] = -2
    if promise == 'behind the padding':
        ids[2, 1] = -1
        scores[2, 1] = -np.inf
    if promise == 'is not -inf': scores[0, 2] = -5
    if promise == 'is not finite': scores[1, 0] = np.inf
    if promise == 'not sorted': scores[1] = [1, .25, .5]
    if promise == 'twice': ids[2, 2] = 1
    if promise == 'start with the listing itself': ids[1] = [2, 1, 0]
    if promise == 'past the last listing': ids[2, 1] = 3
    return Neighbors(ids, scores)


@pytest.mark.parametrize('promise, row', [
    ('ids below -1', 0), ('behind the padding', 2), ('is not -inf', 0), ('is not finite', 1),
    ('not sorted', 1),
    ('twice', 2), ('start with the listing itself', 1), ('past the last listing', 2)])
def test_check_names_the_row(promise, row):
    with pytest.raises(InputError, match=f'rows {row} .*{promise}'): broken(promise).check(self_join=True)


def test_check_passes_and_returns_itself():
    neighbors = broken('')
    assert neighbors.check() is neighbors and neighbors.check(self_join=True) is neighbors
    broken('start with the listing itself').check()
    broken('past the last listing').check()
    # NaN compares false with everything: it must not slip through the order
    neighbors.scores[2, 1] = np.nan
    with pytest.raises(InputError, match='rows 2 '): neighbors.check()


def test_check_shape_and_dtype():
    ids, scores = broken('')
    for invalid, message in [((ids.astype(np.int32), scores), 'ids has dtype int32'),
                      ((ids, scores.astype(np.float64)), 'scores has dtype float64'),
                      ((ids[0], scores), 'ids: give a 2-D array, not 1-D'),
                      ((ids, scores.tolist()), 'scores: give a 2-D array, not list'),
                      ((ids, scores[:, :2]), r'shape \(3, 3\), neighbors.scores \(3, 2\)')]:
        with pytest.raises(InputError, match=message): Neighbors(*invalid).check()
    nothing = Neighbors(ids[:, :0], scores[:, :0])
    with pytest.raises(InputError, match='no columns'): nothing.check(self_join=True)


def test_group_codes():
    for groups in ([5, 3, 5, 9], ['b', 'a', 'b', ''], np.array(['b', 'a', 'b', 'c']),
                   pd.Series([1, 0, 1, 4], index=[9, 8, 7, 6]), (2., 1., 2., 0.)):
        assert group_codes(groups, 4).tolist() == [0, 1, 0, 2]
    for groups, row in ((['a', None, 'b'], 1), ([1., np.nan, 2.], 1), (pd.Series(['a', 'b', None]), 2)):
        with pytest.raises(InputError, match=f'missing in rows {row}$'): group_codes(groups, 3)
    for groups in ([1, 2], np.zeros((3, 1), int)):
        with pytest.raises(InputError, match='give 3, one a row'): group_codes(groups, 3)
