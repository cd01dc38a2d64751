"Cuts on loose pairs: the same as the sweeps over the fused grid, also where levels are shallow and most pairs are left out."
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Candidates, Dense, Keys, RankSweep, Sweep, Tfidf, candidates, decide, fuse, heldout, row_f1
from fastmatch.match.judge.heldout import random_halves
from fastmatch.match.thresholds.flat import FUSED, Flat
from fastmatch.match.thresholds.flat.level import not_exceeded
from fastmatch.match.thresholds.flat.ordered import sort_within_rows
from tests.match.cases import titles


def grid(n, width, seed, modalities=2, levels=None, fill=1.):
    "Random candidates, as `candidates` lays them out, and labels; mates score higher."
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, max(1, n // 3), n)
    ids = np.full((n, width), -1, np.int64)
    for i in range(n):
        others = rng.permutation(np.delete(np.arange(n), i))[:min(width - 1, int((n - 1) * fill))]
        mates = np.flatnonzero((labels == labels[i]) & (np.arange(n) != i))
        ids[i, 0] = i
        row = np.unique(np.concatenate([mates, others]))[:width - 1]
        ids[i, 1:1 + len(row)] = row
    same, scores = labels[ids] == labels[:, None], {}
    for j in range(modalities):
        s = np.where(same, .7, .35) + rng.normal(0, .2, ids.shape)
        if levels: s = np.round(s * levels) / levels
        scores['abc'[j]] = np.where(ids >= 0, np.clip(s, -1, 1), -np.inf).astype(np.float32)
    return Candidates(ids, scores, width), labels


def weights_of(cand, how, rng):
    names = [k for k in cand.scores if k not in cand.join]
    if how in ('union', 'above'): return {k: float(rng.uniform(-.3, .6)) for k in names}
    if how == 'power': return {k: float(rng.uniform(.3, 1)) for k in names}
    w = {k: float(rng.choice([0, .3, 1, 2.5])) for k in names}
    return w if any(w.values()) else dict.fromkeys(names, 1.)


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 10**6), how=st.sampled_from(FUSED), ranks=st.sampled_from([1, 2]), most=st.sampled_from([2, 4, 50]), levels=st.sampled_from([None, 4]),
       modalities=st.sampled_from([1, 2, 3]))
@example(seed=5038, how='above', ranks=1, most=2, levels=None, modalities=1)
def test_same_as_the_sweeps_over_the_grid(seed, how, ranks, most, levels, modalities):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 40))
    cand, labels = grid(n, int(rng.integers(2, n + 1)), seed, modalities, levels)
    w, rows = weights_of(cand, how, rng), rng.random(n) < .7
    rows[0] = True
    nb = fuse(cand, how, w, power=3.)
    want = Sweep(nb, labels, most) if ranks == 1 else RankSweep(nb, labels, 2, most)
    got = Flat(cand, labels, max_matches=most).sweep(how, w, power=3., ranks=ranks)
    (cut, value), (cut_, value_) = got.best(rows), want.best(rows)
    assert value == pytest.approx(value_, abs=1e-9)
    if ranks == 1: assert cut == cut_
    # what is said of a cut is what the decision gives, on all rows
    np.testing.assert_allclose(got.at(cut), row_f1(decide(nb, cut, most), labels), atol=1e-12)
    np.testing.assert_allclose(got.at(cut_), want.at(cut_), atol=1e-12)


@pytest.mark.parametrize('how', FUSED)
@pytest.mark.parametrize('ranks', [1, 2])
@pytest.mark.parametrize('most', [3, 50])
def test_few_pairs_suffice(how, ranks, most, monkeypatch):
    cand, labels = grid(400, 60, 5)
    rng = np.random.default_rng(1)
    # a third of the listings are far from all others, though their nearest are right: a lower cut for the nearest pays
    low, same = rng.random(400) < .3, labels[cand.ids] == labels[:, None]
    for s in cand.scores.values(): s[low] = np.where(same[low], s[low] * .5, s[low] * .2)
    # and some right pairs of low scores are equal in a key
    cand.scores['key'] = np.where(cand.ids < 0, -np.inf, same & (rng.random(cand.ids.shape) < .3)).astype(np.float32)
    cand.join = ('key',)
    monkeypatch.setattr('fastmatch.match.thresholds.flat.pairs.DEPTHS', (.2, .6, 2, np.inf))
    flat, least = Flat(cand, labels, max_matches=most), []
    for turn in range(8):
        # thresholds so high that hardly a pair is above them, too
        w = weights_of(cand, how, rng) if turn else dict(a=.9, b=.95)
        got = flat.sweep(how, w, ranks=ranks)
        nb = fuse(cand, how, w)
        want = (Sweep(nb, labels, most) if ranks == 1 else RankSweep(nb, labels, 2, most)).best()
        cut, value = got.best()
        assert value == pytest.approx(want[1], abs=1e-9)
        if ranks == 1: assert cut == want[0]
        least.append(len(got.pairs.scores))
    # it did leave pairs out, and did go deeper where it had to
    assert min(least) < (cand.ids[:, 1:] >= 0).sum() / 3 and len(flat._levels) > 1


def test_real_spaces_keys_and_empty_titles():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 25, 90)
    x = rng.normal(size=(30, 8))[labels] + rng.normal(size=(90, 8))
    keys = [str(o) if rng.random() < .4 else None for o in labels]
    cand = candidates({'image': Dense(x), 'tfidf': Tfidf(titles(90, 3)), 'phash': Keys(keys)}, 12)
    assert not cand.present['tfidf'].all()
    for how in FUSED:
        for ranks in (1, 2):
            w = dict(image=.6, tfidf=.3)
            nb = fuse(cand, how, w)
            want = (Sweep(nb, labels) if ranks == 1 else RankSweep(nb, labels, 2)).best()
            assert Flat(cand, labels).sweep(how, w, ranks=ranks).best()[1] == pytest.approx(want[1], abs=1e-9)


@pytest.mark.parametrize('ranks', [1, 2])
def test_crossed_is_the_held_out_protocol(ranks):
    cand, labels = grid(120, 30, 3)
    codes = np.unique(labels, return_inverse=True)[1]
    first = np.array([list(dict.fromkeys(codes)).index(o) for o in codes])
    nb, sides = fuse(cand, 'mean', dict(a=.3, b=.7)), list(random_halves(first, 4, 9))
    want = heldout(nb if ranks == 1 else RankSweep(nb, labels, 2), labels, halvings=4, seed=9)
    assert Flat(cand, labels).sweep('mean', dict(a=.3, b=.7), ranks=ranks).crossed(sides) == pytest.approx(want.mean, abs=1e-9 if ranks == 1 else 2e-3)


def test_some_rows_alone():
    cand, labels = grid(150, 40, 4)
    rows = np.random.default_rng(0).random(150) < .5
    sweep = Flat(cand, labels, rows).sweep('prob_or')
    want = Sweep(fuse(cand, 'prob_or'), labels)
    assert sweep.best() == (want.best(rows)[0], pytest.approx(want.best(rows)[1], abs=1e-12))
    np.testing.assert_allclose(sweep.at(.9)[rows], want.at(.9)[rows], atol=1e-12)
    assert np.isnan(sweep.at(.9)[~rows]).all()


def testnot_exceeded():
    a, b = np.array([[.9, .1, .5, .5, .4]]), np.array([[.1, .9, .5, .4, .4]])
    # equal in one is not exceeded: a weight of 0 would make them ties
    assert not_exceeded([a, b], np.ones((1, 5), bool)).tolist() == [[True, True, True, True, False]]


def test_sorted_within_rows():
    rng = np.random.default_rng(0)
    for top in (0, 1, 2, 4, 5, 70):
        count = rng.integers(0, top + 1, 50)
        row, key = np.repeat(np.arange(50), count), rng.integers(0, 2**63, count.sum()).astype(np.uint64) * 2 + 1
        want = key[np.lexsort((key, row))]
        sort_within_rows(key, count)
        assert (key == want).all()


def test_nobody_near():
    cand = Candidates(np.array([[0, -1], [1, -1]]), {'a': np.array([[1, -np.inf], [1, -np.inf]], np.float32)}, 2)
    for ranks in (1, 2): assert Flat(cand, [0, 0]).sweep(ranks=ranks).best()[1] == pytest.approx(2 / 3)


@pytest.mark.parametrize('do, words', [
    (lambda f: f.sweep('piecewise'), 'choose one of'), (lambda f: f.sweep('mean', {'x': 1.}), r"name \['x'\]"), (lambda f: f.sweep(ranks=3), 'ranks'),
    (lambda f: f.sweep('mean', {'a': -1.}), 'weights'), (lambda f: f.sweep().best(np.zeros(9, bool)), 'none is chosen'),
    (lambda f: Flat(f.candidates, [0] * 9, []), 'none is chosen')])
def test_refused(do, words):
    cand, labels = grid(9, 5, 0)
    with pytest.raises(InputError, match=words): do(Flat(cand, labels))
