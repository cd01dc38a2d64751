"Cuts by rank, forced matches, vetoes and chiselled sizes against loops over rows."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    Keys,
    Neighbors,
    Pool,
    RankSweep,
    Units,
    best_by_rank,
    best_union,
    candidates,
    chisel,
    decide,
    min2,
    quantities,
    row_f1,
    shares,
    veto,
)
from tests.match.cases import asked, cases, noisy, titles
from tests.reference import match as ref


def sets(matches): return [match.tolist() for match in matches]


THRESHOLDS = st.sampled_from([-1., -.75, 0., .25, .5, .5 + 2**-24, 1., 101.])


@settings(max_examples=100, deadline=None)
@given(
    case=cases(smallest=1),
    cuts=st.lists(THRESHOLDS, min_size=1, max_size=4),
    max_matches=st.integers(1, 8),
)
def test_cuts_by_rank(case, cuts, max_matches):
    neighbors, labels = case
    matches = decide(neighbors, cuts, max_matches)
    assert sets(matches) == ref.decide_by_rank(neighbors.ids, neighbors.scores, cuts, max_matches)
    if len(cuts) == 1: assert sets(matches) == sets(decide(neighbors, cuts[0], max_matches))
    rising = sorted(cuts)
    np.testing.assert_allclose(
        RankSweep(neighbors, labels, len(cuts), max_matches).at(rising),
        row_f1(decide(neighbors, rising, max_matches), labels),
        atol=1e-12,
    )


@settings(max_examples=100, deadline=None)
@given(
    case=cases(smallest=1),
    cut=THRESHOLDS,
    threshold=st.none() | THRESHOLDS,
    mutual=st.booleans(),
    gap=st.none() | st.sampled_from([0.0, 2**-24, 0.25]),
)
def test_min2(case, cut, threshold, mutual, gap):
    neighbors, _ = case
    matches = decide(neighbors, cut)
    got = min2(matches, neighbors, threshold, mutual, gap)
    assert sets(got) == ref.min2(sets(matches), neighbors.ids, neighbors.scores, threshold, mutual, gap)
    for i in range(len(matches)):
        np.testing.assert_array_equal(
            got.scores[got.indptr[i] : got.indptr[i + 1]],
            [neighbors.scores[i, neighbors.ids[i].tolist().index(j)] for j in got[i]],
        )


@settings(max_examples=100, deadline=None)
@given(case=cases(smallest=1), share=st.lists(st.sampled_from([0., .1, .34, .5, .8, 1.]), max_size=4))
def test_chisel(case, share):
    neighbors, labels = case
    share = sorted(share, reverse=True)
    assert sets(chisel(decide(neighbors, 9), neighbors, share)) == ref.chisel(
        neighbors.ids, neighbors.scores, share
    )


def test_chisel_gives_the_sizes_asked_for():
    labels = np.repeat(np.arange(20), [1, 2, 3, 4, 5] * 4)
    neighbors = Dense(noisy(60, 6, 0)).search(20)
    want = shares(labels)
    got = np.diff(chisel(decide(neighbors, 9), neighbors, want).indptr)
    assert want == [(np.bincount(labels)[labels] >= item).mean() for item in (2, 3, 4, 5)]
    assert np.bincount(got)[1:].tolist() == np.bincount(np.bincount(labels)[labels])[1:].tolist()
    assert shares([1, 2, 3]) == [] and shares([1] * 9, max_matches=3) == [1., 1.]


@pytest.mark.parametrize(
    'title, want',
    [
        ('Susu UHT 500ml', {'volume': [500]}),
        ('susu 0,5 L', {'volume': [500]}),
        ('0.5 ltr', {'volume': [500]}),
        ('2 x 500 ml', {'volume': [500], 'count': [2]}),
        ('10x20x30cm', {'length': [100, 200, 300]}),
        ('10 cm x 2 m', {'length': [100, 2000]}),
        ('1.000 gr beras', {'mass': [1000]}),
        ('1,500ml', {'volume': [1500]}),
        ('1.500 kg', {'mass': [1500]}),
        ('0.500 g', {'mass': [0.5]}),
        ('1/2 kg', {'mass': [500]}),
        ('isi 10', {'count': [10]}),
        ('Pack of 6', {'count': [6]}),
        ('100 pcs x 5 gr', {'count': [100], 'mass': [5]}),
        ('24" monitor', {'length': [609.6]}),
        ('iPhone 12 64GB', {'data': [64000]}),
        ('1tb = 1000 gb', {'data': [1e6]}),
        ('220V 50Hz 5 watt', {'voltage': [220], 'frequency': [50], 'power': [5]}),
        ('10.000mAh', {'charge': [10000]}),
        ('8 fl oz', {'volume': [236.588]}),
        ('8 oz', {'mass': [226.796184]}),
        ('5 in 1', {}),
        ('v1.5l', {}),
        ('10.5.3 ml', {}),
        ('0 ml', {}),
        ('1/0 kg', {}),
        ('5m²', {}),
        ('iphone 12', {}),
        ('', {}),
        ('12 lemons', {}),
    ],
)
def test_quantities(title, want):
    assert quantities(title) == {name: pytest.approx(value) for name, value in want.items()}


WORDS = [
    '500ml',
    '0.5 l',
    '250 ml',
    '1kg',
    '1.000 gr',
    '2 x 500ml',
    'isi 2',
    'isi 3',
    '8 fl oz',
    '237 ml',
    'kaos',
    '',
]


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(st.sampled_from(WORDS), min_size=2, max_size=9),
    more=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4),
    m=st.integers(1, 8),
)
def test_units_against_loops(words, more, m):
    t = [f'{a} {b}' for a, b in zip(words, words[::-1])]
    queries = [quantities(item) for item in t]
    def agree(i, j):
        return all(
            any(abs(x - y) <= 0.005 * max(x, y) for x in queries[i][values] for y in queries[j][values])
            for values in set(queries[i]) & set(queries[j])
        )

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
    assert (asked(space.search, 3, n).check(self_join=True).ids[:, 1:] < 0).all() and (
        asked(pool.search, 3, n).ids[:, 1:] < 0
    ).all()


def test_veto():
    t = ['susu 500ml', 'susu 0.5 l', 'susu 250 ml', 'susu', 'susu 250ml isi 2', 'susu isi 3']
    neighbors = Dense(noisy(6, 4, 0)).search(6)
    got = veto(neighbors, Units(t)).check(self_join=True)
    out = {(0, 2), (0, 4), (1, 2), (1, 4), (4, 5)}
    want = {(i, j): s for i, j, s in zip(*neighbors.pairs()) if (min(i, j), max(i, j)) not in out}
    assert {(i, j): s for i, j, s in zip(*got.pairs())} == want
    for a, b in zip(veto(neighbors, Units([''] * 6)), neighbors): np.testing.assert_array_equal(a, b)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999))
def test_row_order_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    x, t, labels, perm = (
        rng.normal(size=(20, 4)),
        titles(20, seed),
        rng.integers(0, 8, 20),
        rng.permutation(20),
    )

    def table(order):
        neighbors = Dense(x[order]).search(20)
        at = [
            chisel(decide(neighbors, 9), neighbors, [0.6, 0.3]),
            min2(decide(neighbors, 0.8), neighbors, 0.2, gap=0.01),
            decide(veto(neighbors, Units([t[i] for i in order])), 0.5),
        ]
        names = [
            {frozenset((order[i], order[j])) for i, item in enumerate(matches) for j in item}
            for matches in at
        ]
        scored = candidates({'a': Dense(x[order]), 'b': Dense(x[order][:, ::-1] ** 3)}, 6)
        return names, best_by_rank(neighbors, labels[order], 3)[1], best_union(scored, labels[order])[1]
    a, b = table(np.arange(20)), table(perm)
    assert a[0] == b[0] and a[1:] == pytest.approx(b[1:], abs=1e-9)


def test_refuses():
    neighbors = Dense(noisy(5, 3, 0)).search(4)
    labels, matches = [0, 0, 1, 1, 2], decide(neighbors, .5)
    for bad in ([], [[.5]], [.5, np.nan]):
        with pytest.raises(InputError, match='^threshold'): decide(neighbors, bad)
    spoilt = Neighbors(neighbors.ids.copy(), neighbors.scores.copy())
    spoilt.scores[[1, 4], [3, 2]] = np.nan
    for k in (2, 50):
        with pytest.raises(InputError, match='^neighbors: rows 1, 4 have a score that is NaN$'):
            decide(spoilt, .5, k)
    # behind the last neighbour nobody looks
    spoilt.ids[[1, 4], 2:] = -1
    assert len(decide(spoilt, .5)) == 5
    with pytest.raises(InputError, match='ranks=0'): best_by_rank(neighbors, labels, 0)
    with pytest.raises(InputError, match='do not fall'): RankSweep(neighbors, labels).at([.5, .2])
    with pytest.raises(InputError, match='threshold=inf'): min2(matches, neighbors, np.inf)
    with pytest.raises(InputError, match='gap=nan'): min2(matches, neighbors, gap=np.nan)
    with pytest.raises(InputError, match='matches of 5 rows, neighbors of 3'):
        min2(matches, Dense(noisy(3, 3, 0)).search(2))
    with pytest.raises(InputError, match='not among'): min2(decide(neighbors, -1), neighbors.top(1))
    for bad in ([.5, .6], [1.1], [-.1], [np.nan], .5):
        with pytest.raises(InputError, match='shares='): chisel(matches, neighbors, bad)
    with pytest.raises(InputError, match='rows 1'): Units(['a', None])
    with pytest.raises(InputError, match='Keys'): Units(['a']).scores([0], [0], queries=Keys('a'))
    scored = candidates({'a': Dense(noisy(5, 3, 0))}, 3)
    with pytest.raises(InputError, match='names='): best_union(scored, labels)
    two = candidates({'a': Dense(noisy(5, 3, 0)), 'b': Dense(noisy(5, 3, 1))}, 3)
    with pytest.raises(InputError, match='rows: none'): best_union(two, labels, rows=[])
    with pytest.raises(InputError, match='give 5'): best_union(two, labels[:3])
    pool = Pool(Dense(noisy(2, 3, 0)), Dense(noisy(5, 3, 1)))
    with pytest.raises(InputError, match='catalogue'): best_union(candidates({'a': pool, 'b': pool}), [0, 1])


def test_nothing_near():
    neighbors = Neighbors.from_pairs([], [], [], 3)
    assert best_by_rank(neighbors, [0, 0, 1], 2) == ((1.001, 1.001), pytest.approx(7 / 9))
    assert sets(min2(decide(neighbors, 0.5), neighbors)) == [[0], [1], [2]] and sets(
        chisel(decide(neighbors, 0.5), neighbors, [1.0])
    ) == [[0], [1], [2]]
