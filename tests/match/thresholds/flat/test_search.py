"The flat search gives what the sweeps over the fused grid give, also where most pairs are left out."
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastmatch.match import (
    Candidates,
    Dense,
    Keys,
    RankSweep,
    Sweep,
    Tfidf,
    candidates,
    decide,
    fuse,
    heldout,
    row_f1,
)
from fastmatch.match.judge.heldout import random_halves
from fastmatch.match.thresholds.flat import FUSED, Flat
from tests.match.cases import titles
from tests.match.thresholds.flat.grids import example_of_three, full_sweep, random_grid, random_weights


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 10**6), how=st.sampled_from(FUSED), ranks=st.sampled_from([1, 2]),
       max_matches=st.sampled_from([2, 4, 50]), levels=st.sampled_from([None, 4]),
       modalities=st.sampled_from([1, 2, 3]))
@example(seed=5038, how='above', ranks=1, max_matches=2, levels=None, modalities=1)
def test_same_as_the_sweeps_over_the_grid(seed, how, ranks, max_matches, levels, modalities):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 40))
    width = int(rng.integers(2, n + 1))
    scored_candidates, groups = random_grid(n, width, seed, modalities, levels)
    weights, rows = random_weights(scored_candidates, how, rng), rng.random(n) < .7
    rows[0] = True
    neighbors = fuse(scored_candidates, how, weights, power=3.)
    expected = full_sweep(neighbors, groups, ranks, max_matches)
    flat = Flat(scored_candidates, groups, max_matches=max_matches)
    actual = flat.sweep(how, weights, power=3., ranks=ranks)
    (threshold, value), (expected_threshold, expected_value) = actual.best(rows), expected.best(rows)
    assert value == pytest.approx(expected_value, abs=1e-9)
    if ranks == 1: assert threshold == expected_threshold
    # what is said of a threshold is what the decision gives, on all rows
    decided = row_f1(decide(neighbors, threshold, max_matches), groups)
    np.testing.assert_allclose(actual.at(threshold), decided, atol=1e-12)
    np.testing.assert_allclose(actual.at(expected_threshold), expected.at(expected_threshold), atol=1e-12)


@pytest.mark.parametrize('how', FUSED)
@pytest.mark.parametrize('ranks', [1, 2])
@pytest.mark.parametrize('max_matches', [3, 50])
def test_few_pairs_suffice(how, ranks, max_matches, monkeypatch):
    scored_candidates, groups = random_grid(400, 60, 5)
    rng = np.random.default_rng(1)
    # a third of the listings are far from all others, though their nearest are right: a lower threshold for
    # the nearest pays
    is_far, same_group = rng.random(400) < .3, groups[scored_candidates.ids] == groups[:, None]
    shrunk_by = np.where(same_group[is_far], np.float32(.5), np.float32(.2))
    for scores in scored_candidates.scores.values(): scores[is_far] *= shrunk_by
    # and some right pairs of low scores are equal in a key
    has_equal_key = same_group & (rng.random(scored_candidates.ids.shape) < .3)
    key_scores = np.where(scored_candidates.ids < 0, -np.inf, has_equal_key)
    scored_candidates.scores['key'] = key_scores.astype(np.float32)
    scored_candidates.join = ('key',)
    monkeypatch.setattr('fastmatch.match.thresholds.flat.pairs.DEPTHS', (.2, .6, 2, np.inf))
    flat, pair_counts = Flat(scored_candidates, groups, max_matches=max_matches), []
    for turn in range(8):
        # thresholds so high that hardly a pair is above them, too
        weights = random_weights(scored_candidates, how, rng) if turn else dict(a=.9, b=.95)
        actual = flat.sweep(how, weights, ranks=ranks)
        expected = full_sweep(fuse(scored_candidates, how, weights), groups, ranks, max_matches).best()
        threshold, value = actual.best()
        assert value == pytest.approx(expected[1], abs=1e-9)
        if ranks == 1: assert threshold == expected[0]
        pair_counts.append(len(actual.pairs.scores))
    # it did leave pairs out, and did go deeper where it had to
    assert min(pair_counts) < (scored_candidates.ids[:, 1:] >= 0).sum() / 3 and len(flat._levels) > 1


def test_real_spaces_keys_and_empty_titles():
    rng = np.random.default_rng(2)
    groups = rng.integers(0, 25, 90)
    vectors = rng.normal(size=(30, 8))[groups] + rng.normal(size=(90, 8))
    keys = [str(group) if rng.random() < .4 else None for group in groups]
    spaces = {'image': Dense(vectors), 'tfidf': Tfidf(titles(90, 3)), 'phash': Keys(keys)}
    scored_candidates = candidates(spaces, 12)
    assert not scored_candidates.present['tfidf'].all()
    weights = dict(image=.6, tfidf=.3)
    for how in FUSED:
        for ranks in (1, 2):
            expected = full_sweep(fuse(scored_candidates, how, weights), groups, ranks).best()
            actual = Flat(scored_candidates, groups).sweep(how, weights, ranks=ranks).best()
            assert actual[1] == pytest.approx(expected[1], abs=1e-9)


@pytest.mark.parametrize('ranks', [1, 2])
def test_crossed_is_the_held_out_protocol(ranks):
    scored_candidates, groups = random_grid(120, 30, 3)
    code_of_group = {group: code for code, group in enumerate(dict.fromkeys(groups.tolist()))}
    sides = list(random_halves(np.array([code_of_group[group] for group in groups]), 4, 9))
    weights = dict(a=.3, b=.7)
    neighbors = fuse(scored_candidates, 'mean', weights)
    option = neighbors if ranks == 1 else RankSweep(neighbors, groups, 2)
    expected = heldout(option, groups, halvings=4, seed=9)
    sweep = Flat(scored_candidates, groups).sweep('mean', weights, ranks=ranks)
    assert sweep.crossed(sides) == pytest.approx(expected.mean, abs=1e-9 if ranks == 1 else 2e-3)


def test_the_protocol_takes_it():
    "As any `ThresholdSearch`: with the neighbors that it fuses for recall and precision."
    scored_candidates, groups = random_grid(60, 20, 3)
    weights = dict(a=.3, b=.7)
    actual = heldout(Flat(scored_candidates, groups).sweep('prob_or', weights), groups, halvings=3)
    expected = heldout(fuse(scored_candidates, 'prob_or', weights), groups, halvings=3)
    np.testing.assert_allclose(actual.row_f1, expected.row_f1, atol=1e-12)
    np.testing.assert_array_equal(actual.map_at_r, expected.map_at_r)
    assert actual.picks == expected.picks


def test_nobody_near():
    scores = np.array([[1, -np.inf], [1, -np.inf]], np.float32)
    scored_candidates = Candidates(np.array([[0, -1], [1, -1]]), {'a': scores}, 2)
    for ranks in (1, 2):
        _, value = Flat(scored_candidates, [0, 0]).sweep(ranks=ranks).best()
        assert value == pytest.approx(2 / 3)


def test_fewer_pairs_than_listings_without_a_pool():
    "'joint' looks up what the listings have: by listing, not by pair."
    ids = np.full((6, 2), -1)
    ids[:, 0] = np.arange(6)
    ids[5, 1] = 4
    scores = np.where(ids >= 0, .5, -np.inf).astype(np.float32)
    scored_candidates = Candidates(ids, {'a': scores, 'b': scores}, 2)
    groups = [0, 1, 2, 3, 4, 4]
    expected = Sweep(fuse(scored_candidates, 'joint'), groups).best()
    assert Flat(scored_candidates, groups).sweep('joint').best() == pytest.approx(expected)


def test_the_example_of_the_docstring(monkeypatch):
    monkeypatch.setattr('fastmatch.match.thresholds.flat.pairs.DEPTHS', (.4, np.inf))
    sweep = example_of_three().sweep()
    assert sweep.best() == (pytest.approx(.575), 1.) and len(sweep.pairs.scores) == 4
