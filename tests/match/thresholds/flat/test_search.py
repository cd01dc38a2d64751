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
    found, groups = random_grid(n, int(rng.integers(2, n + 1)), seed, modalities, levels)
    weights, rows = random_weights(found, how, rng), rng.random(n) < .7
    rows[0] = True
    neighbors = fuse(found, how, weights, power=3.)
    wanted = full_sweep(neighbors, groups, ranks, max_matches)
    got = Flat(found, groups, max_matches=max_matches).sweep(how, weights, power=3., ranks=ranks)
    (threshold, value), (wanted_threshold, wanted_value) = got.best(rows), wanted.best(rows)
    assert value == pytest.approx(wanted_value, abs=1e-9)
    if ranks == 1: assert threshold == wanted_threshold
    # what is said of a threshold is what the decision gives, on all rows
    decided = row_f1(decide(neighbors, threshold, max_matches), groups)
    np.testing.assert_allclose(got.at(threshold), decided, atol=1e-12)
    np.testing.assert_allclose(got.at(wanted_threshold), wanted.at(wanted_threshold), atol=1e-12)


@pytest.mark.parametrize('how', FUSED)
@pytest.mark.parametrize('ranks', [1, 2])
@pytest.mark.parametrize('max_matches', [3, 50])
def test_few_pairs_suffice(how, ranks, max_matches, monkeypatch):
    found, groups = random_grid(400, 60, 5)
    rng = np.random.default_rng(1)
    # a third of the listings are far from all others, though their nearest are right: a lower threshold for
    # the nearest pays
    low, same = rng.random(400) < .3, groups[found.ids] == groups[:, None]
    shrunk_by = np.where(same[low], np.float32(.5), np.float32(.2))
    for scores in found.scores.values(): scores[low] *= shrunk_by
    # and some right pairs of low scores are equal in a key
    equal = same & (rng.random(found.ids.shape) < .3)
    found.scores['key'] = np.where(found.ids < 0, -np.inf, equal).astype(np.float32)
    found.join = ('key',)
    monkeypatch.setattr('fastmatch.match.thresholds.flat.pairs.DEPTHS', (.2, .6, 2, np.inf))
    flat, looked_at = Flat(found, groups, max_matches=max_matches), []
    for turn in range(8):
        # thresholds so high that hardly a pair is above them, too
        weights = random_weights(found, how, rng) if turn else dict(a=.9, b=.95)
        got = flat.sweep(how, weights, ranks=ranks)
        wanted = full_sweep(fuse(found, how, weights), groups, ranks, max_matches).best()
        threshold, value = got.best()
        assert value == pytest.approx(wanted[1], abs=1e-9)
        if ranks == 1: assert threshold == wanted[0]
        looked_at.append(len(got.pairs.scores))
    # it did leave pairs out, and did go deeper where it had to
    assert min(looked_at) < (found.ids[:, 1:] >= 0).sum() / 3 and len(flat._levels) > 1


def test_real_spaces_keys_and_empty_titles():
    rng = np.random.default_rng(2)
    groups = rng.integers(0, 25, 90)
    vectors = rng.normal(size=(30, 8))[groups] + rng.normal(size=(90, 8))
    keys = [str(group) if rng.random() < .4 else None for group in groups]
    found = candidates({'image': Dense(vectors), 'tfidf': Tfidf(titles(90, 3)), 'phash': Keys(keys)}, 12)
    assert not found.present['tfidf'].all()
    weights = dict(image=.6, tfidf=.3)
    for how in FUSED:
        for ranks in (1, 2):
            wanted = full_sweep(fuse(found, how, weights), groups, ranks).best()
            got = Flat(found, groups).sweep(how, weights, ranks=ranks).best()
            assert got[1] == pytest.approx(wanted[1], abs=1e-9)


@pytest.mark.parametrize('ranks', [1, 2])
def test_crossed_is_the_held_out_protocol(ranks):
    found, groups = random_grid(120, 30, 3)
    order = {group: i for i, group in enumerate(dict.fromkeys(groups.tolist()))}
    sides = list(random_halves(np.array([order[group] for group in groups]), 4, 9))
    weights = dict(a=.3, b=.7)
    neighbors = fuse(found, 'mean', weights)
    wanted = heldout(neighbors if ranks == 1 else RankSweep(neighbors, groups, 2), groups, halvings=4, seed=9)
    sweep = Flat(found, groups).sweep('mean', weights, ranks=ranks)
    assert sweep.crossed(sides) == pytest.approx(wanted.mean, abs=1e-9 if ranks == 1 else 2e-3)


def test_the_protocol_takes_it():
    "As any `ThresholdSearch`: with the neighbors that it fuses for recall and precision."
    found, groups = random_grid(60, 20, 3)
    weights = dict(a=.3, b=.7)
    got = heldout(Flat(found, groups).sweep('prob_or', weights), groups, halvings=3)
    wanted = heldout(fuse(found, 'prob_or', weights), groups, halvings=3)
    np.testing.assert_allclose(got.row_f1, wanted.row_f1, atol=1e-12)
    np.testing.assert_array_equal(got.map_at_r, wanted.map_at_r)
    assert got.picks == wanted.picks


def test_nobody_near():
    scores = np.array([[1, -np.inf], [1, -np.inf]], np.float32)
    found = Candidates(np.array([[0, -1], [1, -1]]), {'a': scores}, 2)
    for ranks in (1, 2): assert Flat(found, [0, 0]).sweep(ranks=ranks).best()[1] == pytest.approx(2 / 3)


def test_fewer_pairs_than_listings_without_a_pool():
    "'joint' looks up what the listings have: by listing, not by pair."
    ids = np.full((6, 2), -1)
    ids[:, 0] = np.arange(6)
    ids[5, 1] = 4
    scores = np.where(ids >= 0, .5, -np.inf).astype(np.float32)
    found = Candidates(ids, {'a': scores, 'b': scores}, 2)
    groups = [0, 1, 2, 3, 4, 4]
    wanted = Sweep(fuse(found, 'joint'), groups).best()
    assert Flat(found, groups).sweep('joint').best() == pytest.approx(wanted)


def test_the_example_of_the_docstring(monkeypatch):
    monkeypatch.setattr('fastmatch.match.thresholds.flat.pairs.DEPTHS', (.4, np.inf))
    sweep = example_of_three().sweep()
    assert sweep.best() == (pytest.approx(.575), 1.) and len(sweep.pairs.scores) == 4
