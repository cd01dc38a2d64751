"The best union of two decisions against every pair of thresholds."
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import (
    Candidates,
    Dense,
    Pool,
    UnionSweep,
    best_threshold,
    best_union,
    candidates,
    decide,
    fuse,
    heldout,
    row_f1,
)
from fastmatch.match.thresholds import union_search
from fastmatch.match.thresholds.union_search import UnionSearch
from tests.match.cases import SCORES, noisy
from tests.reference import match as reference


def random_candidates(values, rng, groups):
    "Candidates of two modalities with ties, padding and pairs of an equal key."
    n = len(groups)
    ids = np.full((n, n), -1)
    first, second, key = (np.full((n, n), -np.inf, np.float32) for _ in range(3))
    for i in range(n):
        others = [j for j in range(n) if j != i and rng.random() < .7]
        row = [i, *others]
        ids[i, :len(row)] = row
        same = groups[row] == groups[i]
        for scores in (first, second):
            scores[i, :len(row)] = rng.choice(values, len(row)) + .25 * same * rng.random(len(row)).round(1)
        key[i, :len(row)] = (rng.random(len(row)) < .1) & same
    return Candidates(ids.astype(np.int64), {'a': first, 'b': second, 'key': key}, join=('key',))


def clustered(n, n_groups, d, noise, k, rng):
    "Candidates of two modalities whose vectors lie around the centers of their groups, and the groups."
    groups = rng.integers(0, n_groups, n)
    centers = rng.normal(size=(n_groups, d))
    vectors = {name: Dense(centers[groups] + rng.normal(size=(n, d)) * noise) for name in 'ab'}
    return candidates(vectors, k), groups


# with what `random_candidates` adds to mates at most 1, as similarities are
SIMILARITIES = [*(score for score in SCORES if score < 1), np.float32(.75)]


# the best threshold lies between two neighbors in float32
@example(n=4, seed=52, values=[np.float32(.5 + 2**-24), np.float32(.75)], joined=False, part=False, block=1)
@settings(max_examples=120, deadline=None)
@given(n=st.integers(1, 8), seed=st.integers(0, 9999),
       values=st.lists(st.sampled_from(SIMILARITIES), min_size=1, max_size=4, unique=True),
       joined=st.booleans(), part=st.booleans(), block=st.sampled_from([1, 3, 128]))
def test_best_union_is_the_best(n, seed, values, joined, part, block):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, max(1, n // 2), n)
    found = random_candidates(values, rng, groups)
    if not joined: found = Candidates(found.ids, {name: found.scores[name] for name in 'ab'})
    mask = rng.random(n) < .6 if part else np.ones(n, bool)
    mask[0] = True
    always = np.zeros(found.ids.shape, bool)
    if joined: always = (found.scores['key'] == 1) & (found.ids >= 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(union_search, 'BLOCK', block)
        thresholds, value = best_union(found, groups, rows=mask)
    wanted = reference.best_union(found, 'ab', groups, np.flatnonzero(mask), always)
    assert value == pytest.approx(wanted, abs=1e-9)
    matches = reference.union(found, 'ab', (thresholds['a'], thresholds['b']), always)
    by_row = UnionSweep(found, groups).at(thresholds)
    np.testing.assert_allclose(by_row, reference.row_f1(matches, groups), atol=1e-12)
    assert by_row[mask].mean() == pytest.approx(value, abs=1e-9)
    # as the fusion decides
    decided = decide(fuse(found, 'union', thresholds, join=()), 0., n + 1)
    if not joined: assert row_f1(decided, groups)[mask].mean() == pytest.approx(value, abs=1e-6)


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


def test_refuses():
    groups = [0, 0, 1, 1, 2]
    one = candidates({'a': Dense(noisy(5, 3, 0))}, 3)
    with pytest.raises(InputError, match='names='): best_union(one, groups)
    two = candidates({'a': Dense(noisy(5, 3, 0)), 'b': Dense(noisy(5, 3, 1))}, 3)
    with pytest.raises(InputError, match='rows: none'): best_union(two, groups, rows=[])
    with pytest.raises(InputError, match='give 5'): best_union(two, groups[:3])
    pool = Pool(Dense(noisy(2, 3, 0)), Dense(noisy(5, 3, 1)))
    with pytest.raises(InputError, match='catalogue'): best_union(candidates({'a': pool, 'b': pool}), [0, 1])
