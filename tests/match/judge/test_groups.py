"Groups as codes, and that a grid of options factorises them once."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    PairModel,
    Sweep,
    alone_heldout,
    best_by_rank,
    best_threshold,
    best_union,
    candidates,
    choose_rule,
    fuse,
    heldout,
    heldout_fused,
    heldout_pairs,
    map_at_r,
    recall_at,
    row_f1,
)
from fastmatch.match.judge import groups as groups_module
from fastmatch.match.judge.groups import Groups
from fastmatch.match.thresholds.flat import Flat


def test_codes_and_sizes():
    groups = Groups(['b', 'a', 'b', 'c'])
    assert groups.codes.tolist() == [0, 1, 0, 2] and groups.codes.dtype == np.int32
    assert groups.sizes.tolist() == [2, 1, 2, 1]
    assert groups.count == 3 and len(groups) == 4
    assert repr(groups) == 'Groups(4 listings in 3 groups)'
    assert Groups([]).count == 0


def test_of_hands_back_what_is_factorised():
    groups = Groups([7, 7, 3])
    assert Groups.of(groups) is groups and Groups.of(groups, 3) is groups
    assert Groups.of(np.array([7, 7, 3]), 3).codes.tolist() == [0, 0, 1]


def test_only_the_first_listings_are_judged():
    groups = Groups(['b', 'a', 'b', 'c', 'a', 'b'], rows=3)
    assert len(groups) == 3 and groups.pool == 6 and groups.count == 2
    assert groups.codes.tolist() == [0, 1, 0, 2, 1, 0] and groups.row_codes.tolist() == [0, 1, 0]
    # the size of a group is that in the whole pool
    assert groups.sizes.tolist() == [3, 2, 3]
    assert repr(groups) == 'Groups(3 listings in 2 groups, looked up among 6)'
    assert Groups.of(groups, 3) is groups
    assert Groups([*'aab'], rows=3).pool == 3 and Groups([*'aab'], rows=0).sizes.tolist() == []
    with pytest.raises(InputError, match=r'^groups of shape \(3,\): give 6'): Groups.of(groups, 6)
    for rows in (-1, 7):
        with pytest.raises(InputError, match=f'^groups: rows={rows} of 6 listings'):
            Groups([*'bababc'], rows=rows)


@pytest.mark.parametrize('n_rows', [2, 5, 17, 30])
def test_what_judges_rows_of_a_pool(n_rows):
    "Scores of the first rows are those of a self-join of all, whichever others there are."
    rng = np.random.default_rng(n_rows)
    codes, vectors = rng.integers(0, 9, 30), rng.normal(size=(30, 4))
    neighbors = Dense(vectors).search(12)
    everything, first = Groups(codes), Groups(codes, rows=n_rows)
    for judge in (recall_at, map_at_r):
        np.testing.assert_array_equal(judge(neighbors.head(n_rows), first),
                                      judge(neighbors, everything)[:n_rows])
    matches = [ids[:4] for ids in neighbors.ids]
    np.testing.assert_array_equal(row_f1(matches[:n_rows], first), row_f1(matches, everything)[:n_rows])
    for threshold in (-.5, .2, .7):
        np.testing.assert_array_equal(Sweep(neighbors.head(n_rows), first).at(threshold),
                                      Sweep(neighbors, everything).at(threshold)[:n_rows])
    is_row = np.arange(30) < n_rows
    for search in (best_threshold, best_by_rank):
        assert search(neighbors.head(n_rows), first)[1] == pytest.approx(
            search(neighbors, everything, rows=is_row)[1], abs=1e-12)


@pytest.mark.parametrize('groups, message', [
    ([1, 2], r'^clusters of shape \(2,\): give 3'), (Groups([1, 2]), r'^clusters of shape \(2,\): give 3'),
    (['a', None, 'b'], '^clusters are missing in rows 1')])
def test_refuses(groups, message):
    with pytest.raises(InputError, match=message): Groups.of(groups, 3, 'clusters')


@pytest.fixture
def factorised(monkeypatch):
    "Counts the calls that factorise groups."
    calls = []
    factorise = groups_module.group_codes

    def counted(*args, **kwargs):
        calls.append(args)
        return factorise(*args, **kwargs)

    monkeypatch.setattr(groups_module, 'group_codes', counted)
    return calls


def some_candidates(n=60):
    rng = np.random.default_rng(0)
    groups = rng.integers(0, n // 5, n)
    centers = rng.normal(size=(n, 6))
    spaces = {modality: Dense(centers[groups] + rng.normal(size=(n, 6))) for modality in 'ab'}
    return candidates(spaces, 10), groups


def test_a_grid_factorises_once(factorised):
    scored_candidates, groups = some_candidates()
    for function in (heldout_fused, choose_rule, lambda *args: heldout_pairs(*args, halvings=2)):
        factorised.clear()
        function(scored_candidates, groups)
        assert len(factorised) == 1
    factorised.clear()
    heldout_fused(scored_candidates, groups, clusters=groups // 2)
    assert len(factorised) == 2  # groups, and the clusters
    factorised.clear()
    heldout_fused(scored_candidates, Groups.of(groups), halvings=2)
    assert len(factorised) == 1


def test_everything_takes_the_object(factorised):
    scored_candidates, groups = some_candidates()
    neighbors = fuse(scored_candidates)
    everything = {
        'recall_at': lambda groups: recall_at(neighbors, groups).tobytes(),
        'map_at_r': lambda groups: map_at_r(neighbors, groups).tobytes(),
        'row_f1': lambda groups: row_f1([[i] for i in range(60)], groups).tobytes(),
        'alone_heldout': lambda groups: alone_heldout(groups).row_f1.tobytes(),
        'best_threshold': lambda groups: best_threshold(neighbors, groups),
        'best_by_rank': lambda groups: best_by_rank(neighbors, groups),
        'best_union': lambda groups: best_union(scored_candidates, groups),
        'flat': lambda groups: Flat(scored_candidates, groups).sweep().best(),
        'heldout': lambda groups: heldout(neighbors, groups, halvings=2).picks,
        'pair model': lambda groups: PairModel().score_unseen(scored_candidates, groups).scores.tobytes()}
    for name, function in everything.items():
        expected = function(groups)
        groups_object = Groups.of(groups)
        factorised.clear()
        assert function(groups_object) == expected, name
        assert not factorised, name
