"Groups from scores against their definitions, scipy, and back to matches."
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    Keys,
    Matches,
    Neighbors,
    agglomerate,
    decide,
    group,
    same_group,
    tiers,
)
from tests.match.cases import cases, noisy
from tests.reference import match as ref


def as_sets(groups): return {frozenset(np.flatnonzero(groups == code).tolist()) for code in np.unique(groups)}


def numbered_in_order(groups):
    first = [np.flatnonzero(groups == index)[0] for index in range(groups.max() + 1)]
    return groups.dtype == np.int64 and first == sorted(first)


@pytest.mark.parametrize(
    'listing_count, k, seed', [(1, 1, 0), (12, 5, 1), (40, 6, 2), (40, 40, 3), (60, 9, 4)]
)
@pytest.mark.parametrize('mean_size, least', [(1., 0.), (2.6, 0.), (2.6, .5), (1e9, 0.), (1e9, .3)])
def test_agglomerate(listing_count, k, seed, mean_size, least):
    neighbors = Dense(noisy(listing_count, 5, seed)).search(k)
    actual = agglomerate(neighbors, mean_size, least)
    assert numbered_in_order(actual) and as_sets(actual) == ref.agglomerate(neighbors, mean_size, least)


@pytest.mark.parametrize('clusters', [40, 15, 3])
def test_agglomerate_is_scipys(clusters):
    neighbors = Dense(np.abs(noisy(40, 5, 7))).search(40)
    similarity = ref.pair_scores(neighbors)
    np.fill_diagonal(similarity, 1)
    tree = linkage(squareform(1 - similarity, checks=False), 'average')
    assert as_sets(agglomerate(neighbors, 40 / clusters)) == as_sets(fcluster(tree, clusters, 'maxclust'))


@settings(max_examples=80, deadline=None)
@given(
    random_case=cases(smallest=1),
    thresholds=st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0, 101.0]), min_size=3, max_size=3),
)
def test_tiers(random_case, thresholds):
    neighbors, _ = random_case
    falling_thresholds = sorted(thresholds, reverse=True)
    actual = tiers(neighbors, *falling_thresholds)
    assert numbered_in_order(actual) and as_sets(actual) == ref.tiers(neighbors, *falling_thresholds)


@settings(max_examples=80, deadline=None)
@given(
    random_case=cases(smallest=1),
    mean_size=st.sampled_from([1.0, 1.5, 2.6, 99.0]),
    least=st.sampled_from([0.0, 0.3, 0.5]),
)
def test_promises_hold_in_ties(random_case, mean_size, least):
    neighbors, _ = random_case
    listing_count, groups = len(neighbors.ids), agglomerate(neighbors, mean_size, least)
    linked = group(decide(neighbors, max(least, 1e-9), listing_count))
    # within what is linked at all, and no more groups are merged than asked for
    assert numbered_in_order(groups)
    assert all(len({linked[i] for i in members}) == 1 for members in as_sets(groups))
    assert listing_count / (len(as_sets(groups)) + 1) < mean_size or len(as_sets(groups)) == listing_count
    if mean_size == 1: assert groups.tolist() == list(range(listing_count))


@settings(max_examples=80, deadline=None)
@given(random_case=cases(smallest=1), limit=st.integers(1, 9))
def test_matches_of_groups(random_case, limit):
    neighbors, labels = random_case
    matches = same_group(labels, neighbors, limit)
    for i, matched_ids in enumerate(matches):
        known = [int(j) for j in neighbors.ids[i, 1:] if j >= 0 and labels[j] == labels[i]]
        rest = [j for j in range(len(labels)) if labels[j] == labels[i] and j != i and j not in known]
        assert matched_ids.tolist() == ([i] + known + rest)[:limit]
        scores = matches.scores[matches.indptr[i]:matches.indptr[i + 1]]
        assert np.isfinite(scores).all() and scores.dtype == np.float32
        score_of = {int(j): score for j, score in zip(neighbors.ids[i], neighbors.scores[i])}
        expected = [score_of[j] for j in matched_ids if j in score_of]
        assert expected == [score for j, score in zip(matched_ids, scores) if j in score_of]


def test_one_giant_group_takes_no_memory_squared():
    "A chain of 20,000 listings in one group, and a key that all of them have: a few numbers a listing."
    n = 20_000
    listing = np.arange(n)
    chain = Neighbors.from_pairs(listing[:-1], listing[1:], np.full(n - 1, .9), n)
    tracemalloc.start()
    matches = same_group(np.zeros(n, int), chain, 5)
    found = Keys(['k'] * n, max_shared=n).search(5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 8 * n  # all pairs would be 400 million
    assert matches[700].tolist() == [700, 701, 0, 1, 2] and matches[1].tolist() == [1, 2, 0, 3, 4]
    assert found.ids[700].tolist() == [700, 0, 1, 2, 3] and found.ids[1].tolist() == [1, 0, 2, 3, 4]


def test_row_order_does_not_matter():
    vectors, permutation = noisy(40, 4, 0), np.random.default_rng(0).permutation(40)
    for function in (agglomerate, lambda neighbors: tiers(neighbors, .9, .8, .6)):
        plain = as_sets(function(Dense(vectors).search(40)))
        permuted = as_sets(function(Dense(vectors[permutation]).search(40)))
        assert plain == {frozenset(permutation[list(members)].tolist()) for members in permuted}
        assert len(plain) < 40


def test_by_hand():
    neighbors = Neighbors.from_pairs([0, 2, 1, 4, 5], [1, 3, 2, 0, 4], [.9, .85, .75, .72, .4], 6)
    # two pairs above .8; their link of .75 is too weak to merge; 4 joins, 5 finds nobody single
    assert tiers(neighbors).tolist() == [0, 0, 1, 1, 0, 2]
    assert tiers(neighbors, .75, .7, .3).tolist() == [0, 0, 0, 0, 0, 1]
    assert tiers(neighbors, .95, .95, .3).tolist() == [0, 0, 1, 1, 2, 2]
    assert agglomerate(neighbors, 1.5).tolist() == [0, 0, 1, 1, 2, 3]
    assert agglomerate(neighbors, 2.).tolist() == [0, 0, 1, 1, 2, 2]


def test_refuses():
    neighbors = Dense(noisy(5, 3, 0)).search(4)
    with pytest.raises(InputError, match='mean_size=0.5'): agglomerate(neighbors, .5)
    with pytest.raises(InputError, match='least=nan'): agglomerate(neighbors, least=np.nan)
    with pytest.raises(InputError, match='do not rise'): tiers(neighbors, .5, .6)
    with pytest.raises(InputError, match='give 5'): same_group([0, 1], neighbors)
    for function in (agglomerate, tiers):
        with pytest.raises(InputError, match='itself'):
            function(Neighbors(neighbors.ids[:, 1:], neighbors.scores[:, 1:]))


NEIGHBORS = Neighbors.from_pairs([0, 0, 1, 2, 3], [1, 2, 0, 0, 4], [.75, .5, .75, .5, .25], 5)


def test_group():
    assert group(decide(NEIGHBORS, .5)).tolist() == [0, 0, 0, 1, 2]
    # a chain that is linked one way only, its first listing last
    matches = Matches(np.array([0, 1, 3, 5, 6]), np.array([0, 1, 3, 2, 0, 3]), np.ones(6, np.float32))
    assert group(matches).tolist() == [0, 1, 0, 1] and group(matches).dtype == np.int64
    assert group(Matches(np.array([0, 1]), np.array([0]), np.ones(1, np.float32))).tolist() == [0]


@settings(max_examples=80, deadline=None)
@given(listing_count=st.integers(1, 30), link_count=st.integers(0, 30), seed=st.integers(0, 999))
def test_group_is_union_find(listing_count, link_count, seed):
    rng = np.random.default_rng(seed)
    linked = [[i] for i in range(listing_count)]
    for i, j in rng.integers(0, listing_count, (link_count, 2)): linked[i].append(int(j))
    matches = Matches(
        np.cumsum([0] + [len(linked_ids) for linked_ids in linked]),
        np.concatenate(linked),
        np.ones(listing_count + link_count, np.float32),
    )
    np.testing.assert_array_equal(group(matches), ref.group(linked))
