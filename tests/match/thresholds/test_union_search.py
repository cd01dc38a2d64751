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


def clustered(n, group_count, dim, noise, k, rng):
    "Candidates of two modalities whose vectors lie around the centers of their groups, and the groups."
    groups = rng.integers(0, group_count, n)
    centers = rng.normal(size=(group_count, dim))
    vectors = {modality: Dense(centers[groups] + rng.normal(size=(n, dim)) * noise) for modality in 'ab'}
    return candidates(vectors, k), groups


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999), noise=st.sampled_from([.3, .8, 2.]), digits=st.sampled_from([1, 2, 7]))
def test_no_pass_that_is_left_out_was_worth_it(seed, noise, digits):
    scored_candidates, groups = clustered(40, 12, 5, noise, 8, np.random.default_rng(seed))
    for scores in scored_candidates.scores.values(): scores[:] = scores.round(digits)
    actual = best_union(scored_candidates, groups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UnionSearch, '_deepest', lambda self, modality, least_total: len(modality.values))
        expected = best_union(scored_candidates, groups)
    assert actual[1] == pytest.approx(expected[1], abs=1e-9)


def test_best_union_of_many_blocks():
    "More pairs than a block holds, without ties: as a sweep of the second for each threshold of the first."
    scored_candidates, groups = clustered(120, 30, 8, .8, 12, np.random.default_rng(0))
    thresholds, value = best_union(scored_candidates, groups)
    is_listed = scored_candidates.ids[:, 1:] >= 0
    tried_values = []
    for threshold in np.unique(scored_candidates.scores['a'][:, 1:][is_listed])[::-1].tolist() + [9.]:
        is_forced = scored_candidates.scores['a'] >= np.float32(threshold)
        forced = np.where(is_forced, np.float32(9), scored_candidates.scores['b'])
        neighbors = fuse(Candidates(scored_candidates.ids, {'b': forced}), 'mean')
        tried_values.append(best_threshold(neighbors, groups, max_matches=999)[1])
    # forced ones must be in: a threshold above them is none of these
    assert value == pytest.approx(max(tried_values), abs=1e-9)
    assert value > best_threshold(fuse(scored_candidates, 'mean', {'a': 1.}), groups)[1] - 1e-9
    sweep = UnionSweep(scored_candidates, groups)
    actual = heldout({'union': sweep}, groups, halvings=2)
    assert actual.mean <= value + 1e-9
    assert all(set(thresholds) == {'a', 'b'} for _, thresholds in actual.picks)
