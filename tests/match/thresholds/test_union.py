"The best union of two decisions against every pair of thresholds."
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Candidates, Dense, Pool, UnionSweep, best_union, candidates, decide, fuse, row_f1
from fastmatch.match.thresholds import union_search
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


def test_refuses():
    groups = [0, 0, 1, 1, 2]
    one = candidates({'a': Dense(noisy(5, 3, 0))}, 3)
    with pytest.raises(InputError, match='names='): best_union(one, groups)
    two = candidates({'a': Dense(noisy(5, 3, 0)), 'b': Dense(noisy(5, 3, 1))}, 3)
    with pytest.raises(InputError, match='rows: none'): best_union(two, groups, rows=[])
    with pytest.raises(InputError, match='give 5'): best_union(two, groups[:3])
    pool = Pool(Dense(noisy(2, 3, 0)), Dense(noisy(5, 3, 1)))
    with pytest.raises(InputError, match='catalogue'): best_union(candidates({'a': pool, 'b': pool}), [0, 1])
