"Row F1, recall at k and MAP at R against loops over sets."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    Neighbors,
    alone,
    best_threshold,
    candidates,
    decide,
    fuse,
    heldout,
    map_at_r,
    recall_at,
    row_f1,
)
from fastmatch.match.judge.score import recall_and_precision
from tests.match.cases import cases, noisy
from tests.reference import match as reference


@settings(max_examples=200, deadline=None)
@given(random_case=cases(smallest=1), k=st.integers(1, 6))
def test_neighbors_against_loops(random_case, k):
    neighbors, groups = random_case
    group_names = [f'g{group}' for group in groups]
    for given_groups in (groups, group_names, groups * 1000 - 3, np.array(group_names)):
        if is_cut(neighbors, groups, k):
            with pytest.raises(InputError, match='search with k='): recall_at(neighbors, given_groups, k)
        else:
            expected = reference.recall_at(neighbors.ids, groups, k)
            np.testing.assert_array_equal(recall_at(neighbors, given_groups, k), expected)
        precision = recall_and_precision(neighbors, given_groups)[1]
        if is_cut(neighbors, groups):
            with pytest.raises(InputError, match='search with k='): map_at_r(neighbors, given_groups)
            assert np.isnan(precision).all()
        else:
            expected = reference.map_at_r(neighbors.ids, groups)
            np.testing.assert_allclose(map_at_r(neighbors, given_groups), expected, atol=1e-12)
            np.testing.assert_allclose(precision, expected, atol=1e-12)


def is_cut(neighbors, groups, k=None):
    "Whether a row with a mate was not searched as far as `k` others, or as it has mates: row by row."
    for row, ids in enumerate(neighbors.ids.tolist()):
        n_mates = sum(group == groups[row] for group in groups) - 1
        wanted = min(n_mates if k is None else k, len(groups) - 1)
        if n_mates and ids[-1] >= 0 and len(ids) - 1 < wanted: return True
    return False


@settings(max_examples=200, deadline=None)
@given(groups=st.lists(st.integers(0, 3), min_size=1, max_size=8), seed=st.integers(0, 999))
def test_row_f1_against_loops(groups, seed):
    rng, n = np.random.default_rng(seed), len(groups)
    match_lists = [[i] + [j for j in rng.permutation(n).tolist() if j != i][:rng.integers(n)]
                   for i in range(n)]
    all_alone = [[i] for i in range(n)]
    expected = reference.row_f1(match_lists, groups)
    for given_groups in (groups, [f'g{group}' for group in groups]):
        np.testing.assert_allclose(row_f1(match_lists, given_groups), expected, atol=1e-12)
        matches = [np.array(ids) for ids in match_lists]
        np.testing.assert_allclose(row_f1(matches, given_groups), expected, atol=1e-12)
        np.testing.assert_allclose(alone(given_groups), reference.row_f1(all_alone, groups), atol=1e-12)
        np.testing.assert_allclose(alone(given_groups), row_f1(all_alone, given_groups), atol=1e-12)


def test_by_hand():
    # a singleton, a pair and a group of three; two of row 3's nearest are right
    groups = ['x', 'p', 'p', 't', 't', 't']
    rows = [0, 1, 1, 3, 3, 3, 4, 5]
    ids = [1, 0, 2, 4, 0, 5, 0, 3]
    scores = [.9, .9, .8, .9, .8, .7, .9, .9]
    neighbors = Neighbors.from_pairs(rows, ids, scores, 6)
    assert recall_at(neighbors, groups).tolist()[1:] == [0, 0, 1, 0, 1]
    assert recall_at(neighbors, groups, 2).tolist()[1:] == [1, 0, 1, 0, 1]
    # R is 1 for the pair: a mate at rank 2 is worth nothing; rows 3 and 5 have one right of two, at rank 1
    assert map_at_r(neighbors, groups).tolist()[1:] == [0, 0, .5, 0, .5]
    assert np.isnan(recall_at(neighbors, groups)[0]) and np.isnan(map_at_r(neighbors, groups)[0])
    decided = decide(neighbors, .75)
    np.testing.assert_allclose(row_f1(decided, groups), [2 / 3, .8, 2 / 3, 2 / 3, .4, .8])
    np.testing.assert_allclose(alone(groups), [1, 2 / 3, 2 / 3, .5, .5, .5])
    assert row_f1([[]] + [[i] for i in range(1, 6)], groups)[0] == 0


def test_columns_are_not_missed():
    "Fewer columns than mates: what wasn't looked at is not known."
    neighbors = Dense(noisy(9, 3, 0)).search(2)
    with pytest.raises(InputError, match='mAP@R.*need up to 8 nearest others.*k=9'):
        map_at_r(neighbors, [0] * 9)
    with pytest.raises(InputError, match='recall@5.*k=6'): recall_at(neighbors, [0] * 9, 5)
    with pytest.raises(InputError, match='recall@1'): recall_at(neighbors.top(1), [0] * 9)
    assert (recall_at(neighbors, [0] * 9) == 1).all()
    # more than there are is all there are
    assert (recall_at(Dense(noisy(9, 3, 0)).search(9), [0] * 9, 200) == 1).all()
    # groups of two need one neighbor
    assert np.isfinite(map_at_r(neighbors, np.arange(9) // 2)[:8]).all()


def test_perfect_retrieval_of_large_groups_is_perfect_or_refused():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(3), 120)
    space = Dense(rng.normal(size=(3, 16))[groups] + .01 * rng.normal(size=(360, 16)))
    with pytest.raises(InputError, match='k=120'): map_at_r(space.search(), groups)
    assert (map_at_r(space.search(120), groups) == 1).all()
    assert (map_at_r(fuse(candidates({'image': space}, 120)), groups) == 1).all()
    # fused candidates may be wider than what each modality was searched for, with padding in some rows
    other = Dense(rng.normal(size=(360, 16)))
    fused = fuse(candidates({'image': space, 'title': other}, 80))
    assert fused.ids.shape[1] > 120 and (fused.ids[:, -1] < 0).any()
    with pytest.raises(InputError, match='k=120'): map_at_r(fused, groups)
    assert np.isnan(heldout(space.search(), groups, halvings=1).map_at_r).all()
    assert heldout(space.search(), groups, halvings=1).summary()['map_at_r'] is None


def test_refuses():
    neighbors = Dense(noisy(4, 3, 0)).search(2)
    score_functions = (
        lambda groups: recall_at(neighbors, groups), lambda groups: map_at_r(neighbors, groups),
        lambda groups: row_f1(decide(neighbors, .5), groups))
    for score_function in score_functions:
        with pytest.raises(InputError, match='groups of shape'): score_function([0, 1, 2])
        with pytest.raises(InputError, match='groups are missing in rows 2'):
            score_function(['a', 'b', None, 'a'])
    with pytest.raises(InputError, match='k=0'): recall_at(neighbors, [0, 0, 1, 1], 0)
    with pytest.raises(InputError, match='rows 1'): alone([1, np.nan])


def test_row_f1_refuses_what_would_score_too_high():
    with pytest.raises(InputError, match='rows 0 name an id twice'): row_f1([[0, 1, 1], [1, 0]], [0, 0])
    with pytest.raises(InputError, match='rows 0 hold ids outside 0 to 2'):
        row_f1([[0, -1], [1], [2]], [0, 1, 0])


def test_neighbors_of_a_catalogue_are_refused():
    "New listings have no self at rank 0; a decision that took its place for granted would let in a stranger."
    neighbors = Neighbors(np.array([[1, 0], [0, 1]]), np.array([[.9, .2], [.9, .2]], np.float32))
    groups = [0, 1]
    for refused_call in (lambda: decide(neighbors, .95), lambda: recall_at(neighbors, groups),
                         lambda: map_at_r(neighbors, groups), lambda: best_threshold(neighbors, groups)):
        with pytest.raises(InputError, match='itself'): refused_call()
