"Groups as codes, and that a grid of options factorises them once."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    PairModel,
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
