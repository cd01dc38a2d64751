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
from tests.match.cases import checked_search, noisy, titles
from tests.reference import match as ref


def spaces(count=30, seed=0):
    "With exact duplicates, and titles that are empty."
    texts = titles(count, seed) if count > 2 else ['kaos'] * count
    return Dense(noisy(count, 6, seed, count // 2), 'image'), Tfidf(texts)


def rows_of(space):
    return np.asarray(
        space.vectors.todense() if hasattr(space.vectors, 'todense') else space.vectors, np.float64
    )


def listed_ids(neighbors, k): return [[int(j) for j in row[:k] if j >= 0] for row in neighbors.ids]


STEPS = {
    'augment': (
        augment,
        {'k': 4},
        lambda score, rank, neighbor: (4 - rank) / 4 if score > 0 or rank == 0 else 0,
    ),
    'nearest only': (
        augment,
        {'k': 2, 'alpha': 0.0},
        lambda score, rank, neighbor: float(score > 0 or rank == 0),
    ),
    'by similarity': (augment, {'k': 5, 'alpha': 2.0}, lambda score, rank, neighbor: max(score, 0) ** 2),
    'blend': (blend, {'threshold': 0.45, 'k': 6}, lambda score, rank, neighbor: score * (score >= 0.45)),
    'blend min2': (
        blend,
        {'threshold': 0.6, 'k': 6, 'power': 2.0, 'min2': True},
        lambda score, rank, neighbor: max(score, 0) ** 2 * (score >= 0.6 or rank == 1),
    ),
    'blend all': (
        blend,
        {'threshold': -1.0, 'power': 0.0, 'k': 4},
        lambda score, rank, neighbor: float(score > 0),
    ),
}


@pytest.mark.parametrize('step_name', STEPS)
@pytest.mark.parametrize('listing_count, seed', [(1, 0), (2, 1), (30, 2), (45, 3)])
def test_steps_against_loops(step_name, listing_count, seed):
    step, options, weight = STEPS[step_name]
    for space in spaces(listing_count, seed):
        vectors, before = rows_of(space), space.vectors.copy()
        neighbors = space.search(min(options['k'], listing_count))
        score_of = {
            (i, int(j)): float(score)
            for i in range(listing_count)
            for j, score in zip(neighbors.ids[i], neighbors.scores[i])
        }
        expected = ref.mixed(
            vectors,
            listed_ids(neighbors, options['k']),
            lambda i, rank, j, score_of=score_of: 1.0 if rank == 0 else weight(score_of[i, j], rank, j),
        )
        actual = step(space, **options)
        np.testing.assert_allclose(rows_of(actual), expected, atol=1e-6)
        # a step by neighbours handed in is the same, and nothing changes in place
        np.testing.assert_array_equal(rows_of(step(space, neighbors, **options)), rows_of(actual))
        assert (space.vectors != before).sum() == 0
        assert type(actual) is type(space) and len(actual) == listing_count


@pytest.mark.parametrize('listing_count, seed', [(1, 0), (2, 1), (30, 2), (45, 3)])
@pytest.mark.parametrize('k, alpha', [(1, 3.), (4, 3.), (6, 0.), (100, 1.)])
def test_expansion_against_loops(listing_count, seed, k, alpha):
    for space in spaces(listing_count, seed):
        vectors, neighbors = rows_of(space), space.search(min(k, listing_count))
        score_of = {
            (i, int(j)): float(score)
            for i in range(listing_count)
            for j, score in zip(neighbors.ids[i], neighbors.scores[i])
        }
        queries = ref.mixed(
            vectors,
            listed_ids(neighbors, k),
            lambda i, rank, j, score_of=score_of: (
                1.0 if rank == 0 else float(score_of[i, j] > 0) * max(score_of[i, j], 0) ** alpha
            ),
        )
        actual = expand(space, k=k, alpha=alpha)
        pairs = np.arange(listing_count)[:, None], np.arange(listing_count)
        np.testing.assert_allclose(actual.scores(*pairs), queries @ vectors.T, atol=2e-6)
        for width in (1, 5, listing_count):
            found = checked_search(actual.search, width, listing_count).check(self_join=True)
            all_scores = actual.scores(*pairs).astype(np.float64)
            if isinstance(space, Tfidf): all_scores[all_scores <= 0] = -np.inf
            np.testing.assert_array_equal(found.ids, ref.nearest(all_scores, width)[0][:, :width])
            np.testing.assert_array_equal(
                found.scores[:, 1:], ref.nearest(all_scores, width)[1][:, 1:].astype(np.float32)
            )
        # a space like any other
        fuse(candidates({'a': actual, 'b': space}, min(5, listing_count))).check(self_join=True)


@pytest.mark.parametrize('listing_count, seed', [(2, 0), (30, 1)])
def test_cross_mean_against_loops(listing_count, seed):
    rng = np.random.default_rng(seed)
    keys = [None if integer == 0 else f'p{integer}' for integer in rng.integers(0, 6, listing_count)]
    for space in spaces(listing_count, seed):
        np.testing.assert_allclose(
            rows_of(cross_mean(space, Keys(keys))), ref.cross_mean(rows_of(space), keys), atol=1e-6
        )
        # a key on more listings than may share one joins nothing
        np.testing.assert_allclose(
            rows_of(cross_mean(space, Keys(keys, max_shared=1))), rows_of(space), atol=1e-6
        )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), step=st.sampled_from([augment, blend, lambda space: expand(space).queries]))
def test_row_order_does_not_matter(seed, step):
    rng = np.random.default_rng(seed)
    vectors, permutation = rng.normal(size=(20, 5)), rng.permutation(20)
    plain, permuted = step(Dense(vectors)), step(Dense(vectors[permutation]))
    np.testing.assert_allclose(permuted.vectors, plain.vectors[permutation], atol=1e-6)


def test_limits():
    image, tfidf = spaces()
    for space in (image, tfidf):
        for alone in (
            augment(space, k=1),
            blend(space, threshold=1.01),
            expand(space, k=1).queries,
            cross_mean(space, Keys([None] * 30)),
        ):
            np.testing.assert_allclose(rows_of(alone), rows_of(space), atol=1e-6)
    # duplicates pull together to one vector, at once
    near_duplicates = Dense([[1., 0], [.8, .6], [0, -1]])
    np.testing.assert_allclose(
        blend(near_duplicates, threshold=0.7, power=0.0).vectors[:2],
        np.full((2, 2), [np.sqrt(0.9), np.sqrt(0.1)]),
        atol=1e-6,
    )


def test_vectors_that_cancel_keep_their_own():
    neighbors = Neighbors.from_pairs([0, 1], [1, 0], [1., 1.], 2)
    actual = augment(Dense([[1., 0], [-1., 0]]), neighbors, k=2, alpha=0.)
    np.testing.assert_array_equal(actual.vectors, [[1, 0], [-1, 0]])


def test_refuses():
    space = Dense(noisy(5, 3, 0))
    for function in (augment, blend, expand):
        with pytest.raises(InputError, match='k=0'): function(space, k=0)
        with pytest.raises(InputError, match='3 rows for 5'): function(space, Dense(noisy(3, 3, 0)).search(2))
        with pytest.raises(InputError, match='no vectors'): function(Keys(list('aabbc')))
        with pytest.raises(InputError, match='no vectors'): function(expand(space))
        with pytest.raises(InputError, match='itself'):
            function(space, Neighbors(np.array([[1, 0]] * 5), np.ones((5, 2), np.float32)))
    with pytest.raises(InputError, match='power=-1'): blend(space, power=-1.)
    with pytest.raises(InputError, match='threshold=nan'): blend(space, threshold=np.nan)
    for invalid in (84, -2.):
        with pytest.raises(InputError, match=f'threshold={invalid}: outside the range'):
            blend(space, threshold=invalid)
    blend(space, space.search(3), threshold=84)
    with pytest.raises(InputError, match='no vectors'): cross_mean(Keys(list('aabbc')), Keys(list('aabbc')))
    with pytest.raises(InputError, match='Dense'): cross_mean(space, space)
    with pytest.raises(InputError, match='keys: 2 for 5'): cross_mean(space, Keys('ab'))
    with pytest.raises(InputError, match='hold their own'): expand(space).search(2, queries=space)
    with pytest.raises(InputError, match='hold their own'): expand(space).scores([0], [0], queries=space)
