"Refined vectors against loops over float64 rows."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    Keys,
    Neighbors,
    Tfidf,
    augment,
    blend,
    candidates,
    cross_mean,
    expand,
    fuse,
)
from tests.match.cases import asked, noisy, titles
from tests.reference import match as ref


def spaces(n=30, seed=0):
    "With exact duplicates, and titles that are empty."
    return Dense(noisy(n, 6, seed, n // 2), 'image'), Tfidf(titles(n, seed) if n > 2 else ['kaos'] * n)


def rows_of(space):
    return np.asarray(
        space.vectors.todense() if hasattr(space.vectors, 'todense') else space.vectors, np.float64
    )


def listed(nb, k): return [[int(j) for j in id_[:k] if j >= 0] for id_ in nb.ids]


STEPS = {
    'augment': (augment, {'k': 4}, lambda s, rank, value: (4 - rank) / 4 if s > 0 or rank == 0 else 0),
    'nearest only': (augment, {'k': 2, 'alpha': 0.0}, lambda s, rank, value: float(s > 0 or rank == 0)),
    'by similarity': (augment, {'k': 5, 'alpha': 2.0}, lambda s, rank, value: max(s, 0) ** 2),
    'blend': (blend, {'threshold': 0.45, 'k': 6}, lambda s, rank, value: s * (s >= 0.45)),
    'blend min2': (
        blend,
        {'threshold': 0.6, 'k': 6, 'power': 2.0, 'min2': True},
        lambda s, rank, value: max(s, 0) ** 2 * (s >= 0.6 or rank == 1),
    ),
    'blend all': (blend, {'threshold': -1.0, 'power': 0.0, 'k': 4}, lambda s, rank, value: float(s > 0)),
}


@pytest.mark.parametrize('name', STEPS)
@pytest.mark.parametrize('n, seed', [(1, 0), (2, 1), (30, 2), (45, 3)])
def test_steps_against_loops(name, n, seed):
    step, args, weight = STEPS[name]
    for space in spaces(n, seed):
        x, before = rows_of(space), space.vectors.copy()
        neighbors = space.search(min(args['k'], n))
        score = {
            (i, int(j)): float(s) for i in range(n) for j, s in zip(neighbors.ids[i], neighbors.scores[i])
        }
        want = ref.mixed(
            x,
            listed(neighbors, args['k']),
            lambda i, rank, j, score=score: 1.0 if rank == 0 else weight(score[i, j], rank, j),
        )
        got = step(space, **args)
        np.testing.assert_allclose(rows_of(got), want, atol=1e-6)
        # a step by neighbours handed in is the same, and nothing changes in place
        np.testing.assert_array_equal(rows_of(step(space, neighbors, **args)), rows_of(got))
        assert (space.vectors != before).sum() == 0 and type(got) is type(space) and len(got) == n


@pytest.mark.parametrize('n, seed', [(1, 0), (2, 1), (30, 2), (45, 3)])
@pytest.mark.parametrize('k, alpha', [(1, 3.), (4, 3.), (6, 0.), (100, 1.)])
def test_expansion_against_loops(n, seed, k, alpha):
    for space in spaces(n, seed):
        x, neighbors = rows_of(space), space.search(min(k, n))
        score = {
            (i, int(j)): float(s) for i in range(n) for j, s in zip(neighbors.ids[i], neighbors.scores[i])
        }
        queries = ref.mixed(
            x,
            listed(neighbors, k),
            lambda i, rank, j, score=score: (
                1.0 if rank == 0 else float(score[i, j] > 0) * max(score[i, j], 0) ** alpha
            ),
        )
        got = expand(space, k=k, alpha=alpha)
        grid = np.arange(n)[:, None], np.arange(n)
        np.testing.assert_allclose(got.scores(*grid), queries @ x.T, atol=2e-6)
        for width in (1, 5, n):
            found = asked(got.search, width, n).check(self_join=True)
            full = got.scores(*grid).astype(np.float64)
            if isinstance(space, Tfidf): full[full <= 0] = -np.inf
            np.testing.assert_array_equal(found.ids, ref.nearest(full, width)[0][:, :width])
            np.testing.assert_array_equal(
                found.scores[:, 1:], ref.nearest(full, width)[1][:, 1:].astype(np.float32)
            )
        # a space like any other
        fuse(candidates({'a': got, 'b': space}, min(5, n))).check(self_join=True)


@pytest.mark.parametrize('n, seed', [(2, 0), (30, 1)])
def test_cross_mean_against_loops(n, seed):
    rng = np.random.default_rng(seed)
    keys = [None if integer == 0 else f'p{integer}' for integer in rng.integers(0, 6, n)]
    for space in spaces(n, seed):
        np.testing.assert_allclose(
            rows_of(cross_mean(space, Keys(keys))), ref.cross_mean(rows_of(space), keys), atol=1e-6
        )
        # a key on more listings than may share one joins nothing
        np.testing.assert_allclose(
            rows_of(cross_mean(space, Keys(keys, max_shared=1))), rows_of(space), atol=1e-6
        )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), step=st.sampled_from([augment, blend, lambda s: expand(s).queries]))
def test_row_order_does_not_matter(seed, step):
    rng = np.random.default_rng(seed)
    x, perm = rng.normal(size=(20, 5)), rng.permutation(20)
    np.testing.assert_allclose(step(Dense(x[perm])).vectors, step(Dense(x)).vectors[perm], atol=1e-6)


def test_limits():
    a, t = spaces()
    for space in (a, t):
        for alone in (
            augment(space, k=1),
            blend(space, threshold=1.01),
            expand(space, k=1).queries,
            cross_mean(space, Keys([None] * 30)),
        ):
            np.testing.assert_allclose(rows_of(alone), rows_of(space), atol=1e-6)
    # duplicates pull together to one vector, at once
    two = Dense([[1., 0], [.8, .6], [0, -1]])
    np.testing.assert_allclose(
        blend(two, threshold=0.7, power=0.0).vectors[:2],
        np.full((2, 2), [np.sqrt(0.9), np.sqrt(0.1)]),
        atol=1e-6,
    )


def test_vectors_that_cancel_keep_their_own():
    neighbors = Neighbors.from_pairs([0, 1], [1, 0], [1., 1.], 2)
    got = augment(Dense([[1., 0], [-1., 0]]), neighbors, k=2, alpha=0.)
    np.testing.assert_array_equal(got.vectors, [[1, 0], [-1, 0]])


def test_refuses():
    a = Dense(noisy(5, 3, 0))
    for function in (augment, blend, expand):
        with pytest.raises(InputError, match='k=0'): function(a, k=0)
        with pytest.raises(InputError, match='3 rows for 5'): function(a, Dense(noisy(3, 3, 0)).search(2))
        with pytest.raises(InputError, match='no vectors'): function(Keys(list('aabbc')))
        with pytest.raises(InputError, match='no vectors'): function(expand(a))
        with pytest.raises(InputError, match='itself'):
            function(a, Neighbors(np.array([[1, 0]] * 5), np.ones((5, 2), np.float32)))
    with pytest.raises(InputError, match='power=-1'): blend(a, power=-1.)
    with pytest.raises(InputError, match='threshold=nan'): blend(a, threshold=np.nan)
    for bad in (84, -2.):
        with pytest.raises(InputError, match=f'threshold={bad}: outside the range'): blend(a, threshold=bad)
    blend(a, a.search(3), threshold=84)
    with pytest.raises(InputError, match='no vectors'): cross_mean(Keys(list('aabbc')), Keys(list('aabbc')))
    with pytest.raises(InputError, match='Dense'): cross_mean(a, a)
    with pytest.raises(InputError, match='keys: 2 for 5'): cross_mean(a, Keys('ab'))
    with pytest.raises(InputError, match='hold their own'): expand(a).search(2, queries=a)
    with pytest.raises(InputError, match='hold their own'): expand(a).scores([0], [0], queries=a)
