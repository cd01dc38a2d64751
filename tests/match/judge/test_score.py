"Row F1, recall at k and MAP at R against loops over sets."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Dense, Neighbors, alone, best_threshold, decide, map_at_r, recall_at, row_f1
from tests.match.cases import cases, noisy
from tests.reference import match as ref


@settings(max_examples=200, deadline=None)
@given(case=cases(smallest=1), k=st.integers(1, 6))
def test_neighbours_against_loops(case, k):
    nb, labels = case
    names = [f'g{o}' for o in labels]
    for y in (labels, names, labels * 1000 - 3, np.array(names)):
        np.testing.assert_array_equal(recall_at(nb, y, k), ref.recall_at(nb.ids, labels, k))
        np.testing.assert_allclose(map_at_r(nb, y), ref.map_at_r(nb.ids, labels), atol=1e-12)


@settings(max_examples=200, deadline=None)
@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=8), seed=st.integers(0, 999))
def test_row_f1_against_loops(labels, seed):
    rng, n = np.random.default_rng(seed), len(labels)
    sets = [[i] + [j for j in rng.permutation(n).tolist() if j != i][:rng.integers(n)] for i in range(n)]
    want = ref.row_f1(sets, labels)
    for y in (labels, [f'g{o}' for o in labels]):
        np.testing.assert_allclose(row_f1(sets, y), want, atol=1e-12)
        np.testing.assert_allclose(row_f1([np.array(o) for o in sets], y), want, atol=1e-12)
        np.testing.assert_allclose(alone(y), ref.row_f1([[i] for i in range(n)], labels), atol=1e-12)
        np.testing.assert_allclose(alone(y), row_f1([[i] for i in range(n)], y), atol=1e-12)


def test_by_hand():
    # a singleton, a pair and a group of three; two of row 3's nearest are right
    labels = ['x', 'p', 'p', 't', 't', 't']
    nb = Neighbors.from_pairs([0, 1, 1, 3, 3, 3, 4, 5], [1, 0, 2, 4, 0, 5, 0, 3], [.9, .9, .8, .9, .8, .7, .9, .9], 6)
    assert recall_at(nb, labels).tolist()[1:] == [0, 0, 1, 0, 1] and recall_at(nb, labels, 2).tolist()[1:] == [1, 0, 1, 0, 1]
    # R is 1 for the pair: a mate at rank 2 is worth nothing; row 3 has one right of two, at rank 1; row 5 likewise
    assert map_at_r(nb, labels).tolist()[1:] == [0, 0, .5, 0, .5]
    assert np.isnan(recall_at(nb, labels)[0]) and np.isnan(map_at_r(nb, labels)[0])
    np.testing.assert_allclose(row_f1(decide(nb, .75), labels), [2 / 3, .8, 2 / 3, 2 / 3, .4, .8])
    np.testing.assert_allclose(alone(labels), [1, 2 / 3, 2 / 3, .5, .5, .5])
    assert row_f1([[]] + [[i] for i in range(1, 6)], labels)[0] == 0


def test_columns_are_not_missed():
    # fewer columns than mates: what wasn't looked at is not right
    nb = Dense(noisy(9, 3, 0)).search(2)
    np.testing.assert_allclose(map_at_r(nb, [0] * 9), 1 / 8)
    assert (recall_at(nb, [0] * 9, 5) == 1).all()
    only = nb.top(1)
    assert (recall_at(only, [0] * 9) == 0).all() and (map_at_r(only, [0] * 9) == 0).all()


def test_refuses():
    nb = Dense(noisy(4, 3, 0)).search(2)
    for f in (lambda y: recall_at(nb, y), lambda y: map_at_r(nb, y), lambda y: row_f1(decide(nb, .5), y)):
        with pytest.raises(InputError, match='groups of shape'): f([0, 1, 2])
        with pytest.raises(InputError, match='groups are missing in rows 2'): f(['a', 'b', None, 'a'])
    with pytest.raises(InputError, match='k=0'): recall_at(nb, [0, 0, 1, 1], 0)
    with pytest.raises(InputError, match='rows 1'): alone([1, np.nan])


def test_row_f1_refuses_what_would_score_too_high():
    with pytest.raises(InputError, match='rows 0 name an id twice'): row_f1([[0, 1, 1], [1, 0]], [0, 0])
    with pytest.raises(InputError, match='rows 0 hold ids outside 0 to 2'): row_f1([[0, -1], [1], [2]], [0, 1, 0])


def test_neighbours_of_a_catalogue_are_refused():
    "New listings against a catalogue have no self at rank 0; a decision that took its place for granted would let in a stranger."
    nb = Neighbors(np.array([[1, 0], [0, 1]]), np.array([[.9, .2], [.9, .2]], np.float32))
    for f in (lambda: decide(nb, .95), lambda: recall_at(nb, [0, 1]), lambda: map_at_r(nb, [0, 1]), lambda: best_threshold(nb, [0, 1])):
        with pytest.raises(InputError, match='itself'): f()
