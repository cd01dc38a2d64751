"The search for the best union: no pass that it leaves out was worth it, and blocks change nothing."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.match import (
    Candidates,
    Dense,
    UnionSweep,
    best_threshold,
    best_union,
    candidates,
    fuse,
    heldout,
)
from fastmatch.match.thresholds.union_search import UnionSearch


def clustered(n, n_groups, d, noise, k, rng):
    "Candidates of two modalities whose vectors lie around the centers of their groups, and the groups."
    groups = rng.integers(0, n_groups, n)
    centers = rng.normal(size=(n_groups, d))
    vectors = {name: Dense(centers[groups] + rng.normal(size=(n, d)) * noise) for name in 'ab'}
    return candidates(vectors, k), groups


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999), noise=st.sampled_from([.3, .8, 2.]), digits=st.sampled_from([1, 2, 7]))
def test_no_pass_that_is_left_out_was_worth_it(seed, noise, digits):
    found, groups = clustered(40, 12, 5, noise, 8, np.random.default_rng(seed))
    for name in 'ab': found.scores[name] = found.scores[name].round(digits)
    got = best_union(found, groups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UnionSearch, '_deepest', lambda self, modality, least_total: len(modality.values))
        wanted = best_union(found, groups)
    assert got[1] == pytest.approx(wanted[1], abs=1e-9)


def test_best_union_of_many_blocks():
    "More pairs than a block holds, without ties: as a sweep of the second for each threshold of the first."
    found, groups = clustered(120, 30, 8, .8, 12, np.random.default_rng(0))
    thresholds, value = best_union(found, groups)
    real = found.ids[:, 1:] >= 0
    tried = []
    for threshold in np.unique(found.scores['a'][:, 1:][real])[::-1].tolist() + [9.]:
        forced = np.where(found.scores['a'] >= np.float32(threshold), np.float32(9), found.scores['b'])
        neighbors = fuse(Candidates(found.ids, {'b': forced}), 'mean')
        tried.append(best_threshold(neighbors, groups, max_matches=999)[1])
    # forced ones must be in: a threshold above them is none of these
    assert value == pytest.approx(max(tried), abs=1e-9)
    assert value > best_threshold(fuse(found, 'mean', {'a': 1.}), groups)[1] - 1e-9
    sweep = UnionSweep(found, groups)
    got = heldout({'union': sweep}, groups, halvings=2)
    assert got.mean <= value + 1e-9
    assert all(set(thresholds) == {'a', 'b'} for _, thresholds in got.picks)
