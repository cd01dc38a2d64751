"Cuts by rank, forced matches, vetoes and chiselled sizes against loops over rows."
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import (
    Candidates,
    Dense,
    Keys,
    Neighbors,
    Pool,
    RankSweep,
    UnionSweep,
    Units,
    best_by_rank,
    best_threshold,
    best_union,
    candidates,
    chisel,
    decide,
    fuse,
    heldout,
    min2,
    quantities,
    row_f1,
    shares,
    veto,
)
from tests.match.cases import SCORES, asked, cases, noisy, titles
from tests.reference import match as ref


def sets(matches): return [o.tolist() for o in matches]


THRESHOLD_FUSIONS = st.sampled_from([-1., -.75, 0., .25, .5, .5 + 2**-24, 1., 101.])


@settings(max_examples=100, deadline=None)
@given(case=cases(smallest=1), cuts=st.lists(THRESHOLD_FUSIONS, min_size=1, max_size=4), max_matches=st.integers(1, 8))
def test_cuts_by_rank(case, cuts, max_matches):
    nb, labels = case
    m = decide(nb, cuts, max_matches)
    assert sets(m) == ref.decide_by_rank(nb.ids, nb.scores, cuts, max_matches)
    if len(cuts) == 1: assert sets(m) == sets(decide(nb, cuts[0], max_matches))
    rising = sorted(cuts)
    np.testing.assert_allclose(RankSweep(nb, labels, len(cuts), max_matches).at(rising), row_f1(decide(nb, rising, max_matches), labels), atol=1e-12)


@settings(max_examples=150, deadline=None)
@given(case=cases(), ranks=st.integers(1, 3), max_matches=st.integers(1, 10), part=st.none() | st.integers(0, 99))
def test_best_cuts_by_rank_are_the_best(case, ranks, max_matches, part):
    nb, labels = case
    mask = np.ones(len(labels), bool) if part is None else np.random.default_rng(part).random(len(labels)) < .5
    mask[0] |= not mask.any()
    cuts, value = best_by_rank(nb, labels, ranks, mask, max_matches)
    assert value == pytest.approx(ref.best_by_rank(nb.ids, nb.scores, labels, np.flatnonzero(mask), max_matches, ranks), abs=1e-9)
    assert len(cuts) == ranks and all(type(o) is float for o in cuts) and (np.diff(cuts) >= 0).all()
    assert row_f1(decide(nb, cuts, max_matches), labels)[mask].mean() == pytest.approx(value, abs=1e-9)
    # what is in the gap between two scores: no cut is a score
    assert not np.isin(cuts, nb.scores[mask].astype(np.float64)).any()
    one = best_threshold(nb, labels, mask, max_matches)
    if ranks == 1: assert cuts == (one[0],)
    assert value >= one[1] - 1e-12


def test_two_cuts_are_min2():
    nb = Dense(noisy(40, 5, 0, 10)).search(9)
    labels = np.random.default_rng(0).integers(0, 15, 40)
    (low, main), value = best_by_rank(nb, labels)
    forced = min2(decide(nb, main), nb, low)
    assert sets(forced) == sets(decide(nb, [low, main])) and row_f1(forced, labels).mean() == pytest.approx(value)


def grid(draw_n, values, rng, labels):
    "Candidates of two modalities with ties, padding and pairs of an equal key."
    n = len(labels)
    ids, a = np.full((n, n), -1), np.full((n, n), -np.inf, np.float32)
    b, key = a.copy(), a.copy()
    for i in range(n):
        found = [j for j in range(n) if j != i and rng.random() < .7]
        row = [i, *found]
        ids[i, :len(row)] = row
        same = labels[row] == labels[i]
        a[i, :len(row)], b[i, :len(row)] = (rng.choice(values, len(row)) + .25 * same * rng.random(len(row)).round(1) for _ in range(2))
        key[i, :len(row)] = (rng.random(len(row)) < .1) & same
    return Candidates(ids.astype(np.int64), {'a': a, 'b': b, 'key': key}, join=('key',))


SIMS = [*(o for o in SCORES if o < 1), np.float32(.75)]  # with what `grid` adds to mates at most 1, as similarities are


# the best cut lies between two neighbours in float32
@example(n=4, seed=52, values=[np.float32(.5 + 2**-24), np.float32(.75)], joined=False, part=False, events=1)
@settings(max_examples=120, deadline=None)
@given(n=st.integers(1, 8), seed=st.integers(0, 9999), values=st.lists(st.sampled_from(SIMS), min_size=1, max_size=4, unique=True), joined=st.booleans(),
       part=st.booleans(), events=st.sampled_from([1, 3, 128]))
def test_best_union_is_the_best(n, seed, values, joined, part, events):
    from fastmatch.match.thresholds import union_search
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, max(1, n // 2), n)
    cand = grid(n, values, rng, labels)
    if not joined: cand = Candidates(cand.ids, {k: cand.scores[k] for k in 'ab'})
    mask = rng.random(n) < .6 if part else np.ones(n, bool)
    mask[0] = True
    always = (cand.scores['key'] == 1) & (cand.ids >= 0) if joined else np.zeros(cand.ids.shape, bool)
    was, union_search.BLOCK = union_search.BLOCK, events
    try: cuts, value = best_union(cand, labels, rows=mask)
    finally: union_search.BLOCK = was
    assert value == pytest.approx(ref.best_union(cand, 'ab', labels, np.flatnonzero(mask), always), abs=1e-9)
    np.testing.assert_allclose(UnionSweep(cand, labels).at(cuts), ref.row_f1(ref.union(cand, 'ab', (cuts['a'], cuts['b']), always), labels), atol=1e-12)
    assert UnionSweep(cand, labels).at(cuts)[mask].mean() == pytest.approx(value, abs=1e-9)
    # as the fusion decides
    m = decide(fuse(cand, 'union', cuts, join=()), 0., n + 1)
    if not joined: assert row_f1(m, labels)[mask].mean() == pytest.approx(value, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999), noise=st.sampled_from([.3, .8, 2.]), digits=st.sampled_from([1, 2, 7]))
def test_no_pass_that_is_left_out_was_worth_it(seed, noise, digits):
    from fastmatch.match.thresholds.union_search import UnionSearch
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 12, 40)
    centre = rng.normal(size=(12, 5))
    cand = candidates({k: Dense(centre[labels] + rng.normal(size=(40, 5)) * noise) for k in 'ab'}, 8)
    for k in 'ab': cand.scores[k] = cand.scores[k].round(digits)
    got, bound = best_union(cand, labels), UnionSearch._deepest
    UnionSearch._deepest = lambda self, modality, least: len(modality.values)
    try: want = best_union(cand, labels)
    finally: UnionSearch._deepest = bound
    assert got[1] == pytest.approx(want[1], abs=1e-9)


def test_a_gain_that_is_only_rounding_is_none():
    for seed in (757, 1227):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 4, 14)
        rows, ids = np.nonzero(rng.random((14, 14)) < .4)
        nb = Neighbors.from_pairs(rows, ids, rng.integers(0, 40, len(rows)) / 64 + (labels[rows] == labels[ids]) * .05, 14)
        assert best_by_rank(nb, labels, 1)[0] == (best_threshold(nb, labels)[0],)


def test_best_union_of_many_blocks():
    "More edges than a block holds, scores without ties: as one sweep of the second modality for every cut of the first."
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 30, 120)
    centre = rng.normal(size=(30, 8))
    cand = candidates({k: Dense(centre[labels] + rng.normal(size=(120, 8)) * .8) for k in 'ab'}, 12)
    cuts, value = best_union(cand, labels)
    real = cand.ids[:, 1:] >= 0
    tried = []
    for t in np.unique(cand.scores['a'][:, 1:][real])[::-1].tolist() + [9.]:
        forced = np.where(cand.scores['a'] >= np.float32(t), np.float32(9), cand.scores['b'])
        tried.append(best_threshold(fuse(Candidates(cand.ids, {'b': forced}), 'mean'), labels, max_matches=999)[1])
    # forced ones must be in: a cut above them is none of these
    assert value == pytest.approx(max(tried), abs=1e-9) and value > best_threshold(fuse(cand, 'mean', {'a': 1.}), labels)[1] - 1e-9
    sweep = UnionSweep(cand, labels)
    got = heldout({'union': sweep}, labels, halvings=2)
    assert got.mean <= value + 1e-9 and all(set(o[1]) == {'a', 'b'} for o in got.picks)


@settings(max_examples=100, deadline=None)
@given(case=cases(smallest=1), cut=THRESHOLD_FUSIONS, threshold=st.none() | THRESHOLD_FUSIONS, mutual=st.booleans(), gap=st.none() | st.sampled_from([0., 2**-24, .25]))
def test_min2(case, cut, threshold, mutual, gap):
    nb, _ = case
    m = decide(nb, cut)
    got = min2(m, nb, threshold, mutual, gap)
    assert sets(got) == ref.min2(sets(m), nb.ids, nb.scores, threshold, mutual, gap)
    for i in range(len(m)): np.testing.assert_array_equal(got.scores[got.indptr[i]:got.indptr[i + 1]], [nb.scores[i, nb.ids[i].tolist().index(j)] for j in got[i]])


@settings(max_examples=100, deadline=None)
@given(case=cases(smallest=1), share=st.lists(st.sampled_from([0., .1, .34, .5, .8, 1.]), max_size=4))
def test_chisel(case, share):
    nb, labels = case
    share = sorted(share, reverse=True)
    assert sets(chisel(decide(nb, 9), nb, share)) == ref.chisel(nb.ids, nb.scores, share)


def test_chisel_gives_the_sizes_asked_for():
    labels = np.repeat(np.arange(20), [1, 2, 3, 4, 5] * 4)
    nb = Dense(noisy(60, 6, 0)).search(20)
    want = shares(labels)
    got = np.diff(chisel(decide(nb, 9), nb, want).indptr)
    assert want == [(np.bincount(labels)[labels] >= o).mean() for o in (2, 3, 4, 5)]
    assert np.bincount(got)[1:].tolist() == np.bincount(np.bincount(labels)[labels])[1:].tolist()
    assert shares([1, 2, 3]) == [] and shares([1] * 9, max_matches=3) == [1., 1.]


@pytest.mark.parametrize('title, want', [
    ('Susu UHT 500ml', {'volume': [500]}), ('susu 0,5 L', {'volume': [500]}), ('0.5 ltr', {'volume': [500]}), ('2 x 500 ml', {'volume': [500], 'count': [2]}),
    ('10x20x30cm', {'length': [100, 200, 300]}), ('10 cm x 2 m', {'length': [100, 2000]}), ('1.000 gr beras', {'mass': [1000]}), ('1,500ml', {'volume': [1500]}),
    ('1.500 kg', {'mass': [1500]}), ('0.500 g', {'mass': [.5]}), ('1/2 kg', {'mass': [500]}), ('isi 10', {'count': [10]}), ('Pack of 6', {'count': [6]}),
    ('100 pcs x 5 gr', {'count': [100], 'mass': [5]}), ('24" monitor', {'length': [609.6]}), ('iPhone 12 64GB', {'data': [64000]}), ('1tb = 1000 gb', {'data': [1e6]}),
    ('220V 50Hz 5 watt', {'voltage': [220], 'frequency': [50], 'power': [5]}), ('10.000mAh', {'charge': [10000]}), ('8 fl oz', {'volume': [236.588]}),
    ('8 oz', {'mass': [226.796184]}), ('5 in 1', {}), ('v1.5l', {}), ('10.5.3 ml', {}), ('0 ml', {}), ('1/0 kg', {}), ('5m²', {}), ('iphone 12', {}), ('', {}), ('12 lemons', {})])
def test_quantities(title, want): assert quantities(title) == {k: pytest.approx(v) for k, v in want.items()}


WORDS = ['500ml', '0.5 l', '250 ml', '1kg', '1.000 gr', '2 x 500ml', 'isi 2', 'isi 3', '8 fl oz', '237 ml', 'kaos', '']


@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.sampled_from(WORDS), min_size=2, max_size=9), more=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4), m=st.integers(1, 8))
def test_units_against_loops(words, more, m):
    t = [f'{a} {b}' for a, b in zip(words, words[::-1])]
    q = [quantities(o) for o in t]
    def agree(i, j): return all(any(abs(x - y) <= .005 * max(x, y) for x in q[i][d] for y in q[j][d]) for d in set(q[i]) & set(q[j]))
    n = len(t)
    want = np.array([[float(agree(i, j)) for j in range(n)] for i in range(n)])
    assert (want.diagonal() == 1).all() and (want == want.T).all()
    space, pairs = Units(t), (np.arange(n)[:, None], np.arange(n))
    np.testing.assert_array_equal(space.scores(*pairs), want)
    m = min(m, n - 1)
    mask = np.arange(n) < m
    pool = Pool(space.take(mask), space.take(~mask))
    np.testing.assert_array_equal(pool.scores(pairs[0][:m], pairs[1]), want[:m])
    np.testing.assert_array_equal(space.take(mask).append(space.transform(t[m:])).scores(*pairs), want)
    assert (asked(space.search, 3, n).check(self_join=True).ids[:, 1:] < 0).all() and (asked(pool.search, 3, n).ids[:, 1:] < 0).all()


def test_veto():
    t = ['susu 500ml', 'susu 0.5 l', 'susu 250 ml', 'susu', 'susu 250ml isi 2', 'susu isi 3']
    nb = Dense(noisy(6, 4, 0)).search(6)
    got = veto(nb, Units(t)).check(self_join=True)
    out = {(0, 2), (0, 4), (1, 2), (1, 4), (4, 5)}
    want = {(i, j): s for i, j, s in zip(*nb.pairs()) if (min(i, j), max(i, j)) not in out}
    assert {(i, j): s for i, j, s in zip(*got.pairs())} == want
    for a, b in zip(veto(nb, Units([''] * 6)), nb): np.testing.assert_array_equal(a, b)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999))
def test_row_order_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    x, t, labels, perm = rng.normal(size=(20, 4)), titles(20, seed), rng.integers(0, 8, 20), rng.permutation(20)
    def table(order):
        nb = Dense(x[order]).search(20)
        at = [chisel(decide(nb, 9), nb, [.6, .3]), min2(decide(nb, .8), nb, .2, gap=.01), decide(veto(nb, Units([t[i] for i in order])), .5)]
        names = [{frozenset((order[i], order[j])) for i, o in enumerate(m) for j in o} for m in at]
        cand = candidates({'a': Dense(x[order]), 'b': Dense(x[order][:, ::-1] ** 3)}, 6)
        return names, best_by_rank(nb, labels[order], 3)[1], best_union(cand, labels[order])[1]
    a, b = table(np.arange(20)), table(perm)
    assert a[0] == b[0] and a[1:] == pytest.approx(b[1:], abs=1e-9)


def test_refuses():
    nb = Dense(noisy(5, 3, 0)).search(4)
    labels, m = [0, 0, 1, 1, 2], decide(nb, .5)
    for bad in ([], [[.5]], [.5, np.nan]):
        with pytest.raises(InputError, match='^threshold'): decide(nb, bad)
    spoilt = Neighbors(nb.ids.copy(), nb.scores.copy())
    spoilt.scores[[1, 4], [3, 2]] = np.nan
    for k in (2, 50):
        with pytest.raises(InputError, match='^neighbors: rows 1, 4 have a score that is NaN$'): decide(spoilt, .5, k)
    # behind the last neighbour nobody looks
    spoilt.ids[[1, 4], 2:] = -1
    assert len(decide(spoilt, .5)) == 5
    with pytest.raises(InputError, match='ranks=0'): best_by_rank(nb, labels, 0)
    with pytest.raises(InputError, match='do not fall'): RankSweep(nb, labels).at([.5, .2])
    with pytest.raises(InputError, match='threshold=inf'): min2(m, nb, np.inf)
    with pytest.raises(InputError, match='gap=nan'): min2(m, nb, gap=np.nan)
    with pytest.raises(InputError, match='matches of 5 rows, neighbors of 3'): min2(m, Dense(noisy(3, 3, 0)).search(2))
    with pytest.raises(InputError, match='not among'): min2(decide(nb, -1), nb.top(1))
    for bad in ([.5, .6], [1.1], [-.1], [np.nan], .5):
        with pytest.raises(InputError, match='shares='): chisel(m, nb, bad)
    with pytest.raises(InputError, match='rows 1'): Units(['a', None])
    with pytest.raises(InputError, match='Keys'): Units(['a']).scores([0], [0], queries=Keys('a'))
    cand = candidates({'a': Dense(noisy(5, 3, 0))}, 3)
    with pytest.raises(InputError, match='names='): best_union(cand, labels)
    two = candidates({'a': Dense(noisy(5, 3, 0)), 'b': Dense(noisy(5, 3, 1))}, 3)
    with pytest.raises(InputError, match='rows: none'): best_union(two, labels, rows=[])
    with pytest.raises(InputError, match='give 5'): best_union(two, labels[:3])
    pool = Pool(Dense(noisy(2, 3, 0)), Dense(noisy(5, 3, 1)))
    with pytest.raises(InputError, match='catalogue'): best_union(candidates({'a': pool, 'b': pool}), [0, 1])


def test_nothing_near():
    nb = Neighbors.from_pairs([], [], [], 3)
    assert best_by_rank(nb, [0, 0, 1], 2) == ((1.001, 1.001), pytest.approx(7 / 9))
    assert sets(min2(decide(nb, .5), nb)) == [[0], [1], [2]] and sets(chisel(decide(nb, .5), nb, [1.])) == [[0], [1], [2]]
