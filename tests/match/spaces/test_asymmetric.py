"Other vectors search than are found, and the first of many listings looked up among all."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import Dense, Index, Keys, Pool, Tfidf, candidates, expand, fuse
from fastmatch.match.spaces.asymmetric import AsymmetricSpace
from fastmatch.match.spaces.pool import first_rows, holds_keys
from tests.match.cases import halves_of_one, noisy, titles
from tests.match.spaces.promises import assert_exact, assert_same
from tests.reference import match as ref

COUNT = 60


def removed_index():
    index = Index(noisy(COUNT, 6, 3, 20))
    index.remove([1, 5, 40])
    return index


def repeated_keys():
    keys = np.random.default_rng(0).choice([*'abcdefgh', None], COUNT).astype(object)
    keys[::2] = 'placeholder'
    return keys


SPACES = {
    'Dense': lambda: Dense(noisy(COUNT, 6, 0, 20)),
    'Dense with ties': lambda: Dense(halves_of_one(COUNT, 5, 1)),
    'Tfidf': lambda: Tfidf(titles(COUNT, 0)),
    'Keys': lambda: Keys(repeated_keys()),
    'Keys, placeholders': lambda: Keys(repeated_keys(), max_shared=9),
    'Index': lambda: Index(noisy(COUNT, 6, 3, 20)),
    'Index, removed': removed_index,
    'AsymmetricSpace': lambda: expand(Dense(noisy(COUNT, 6, 0, 20)), k=3),
    'AsymmetricSpace, Tfidf': lambda: expand(Tfidf(titles(COUNT, 0)), k=3),
}


@pytest.mark.parametrize('n_rows', [1, 7, 29, COUNT])
@pytest.mark.parametrize('kind', SPACES)
def test_first_rows_are_the_head_of_the_self_join(kind, n_rows):
    space = SPACES[kind]()
    first = first_rows(space, n_rows)
    assert len(first) == n_rows and first.pool == COUNT and holds_keys(first) == kind.startswith('Keys')
    np.testing.assert_array_equal(first.removed, space.removed)
    for k in (1, 2, 9, COUNT):
        whole, head = space.search(k), first.search(k)
        np.testing.assert_array_equal(head.ids, whole.ids[:n_rows])
        np.testing.assert_allclose(head.scores[:, 1:], whole.scores[:n_rows, 1:], atol=1e-6)
    rows, ids = np.arange(n_rows)[:, None], np.arange(COUNT)
    np.testing.assert_allclose(first.scores(rows, ids), space.scores(rows, ids), atol=1e-6)
    if n_rows == COUNT: assert first is space


@pytest.mark.parametrize('n_rows', [1, 7, 29])
def test_candidates_of_the_first_rows(n_rows):
    "As one fusion of several modalities: the same as the first rows of that of all."
    spaces = {kind: SPACES[kind]() for kind in ('Dense', 'Tfidf', 'AsymmetricSpace', 'Keys')}
    weights = {'Dense': .3, 'Tfidf': .3, 'AsymmetricSpace': .4}
    whole = fuse(candidates(spaces, 9), 'mean', weights)
    first = fuse(
        candidates({name: first_rows(space, n_rows) for name, space in spaces.items()}, 9), 'mean', weights
    )
    width = first.ids.shape[1]
    np.testing.assert_array_equal(first.ids, whole.ids[:n_rows, :width])
    assert (whole.ids[:n_rows, width:] < 0).all()
    np.testing.assert_allclose(first.scores, whole.scores[:n_rows, :width], atol=1e-6)


@pytest.mark.parametrize('n_queries', [1, 5, 12])
def test_search_by_brute_force(n_queries):
    """The similarity of (i, j) is that of i's query to listing j; the listing itself comes first whatever it
    is."""
    listings, queries = noisy(12, 4, 0), noisy(n_queries, 4, 1)
    space = AsymmetricSpace(Dense(listings), Dense(queries))
    similarity = ref.cosine(queries, listings)
    for k in (1, 4, 12):
        ids, scores = space.search(k)
        expected_ids, expected_scores = ref.nearest(similarity, k)
        np.testing.assert_array_equal(ids, expected_ids)
        # what the listing itself is given is no cosine: as high as any other, or higher
        np.testing.assert_allclose(scores[:, 1:], expected_scores[:, 1:], atol=1e-6)
        assert (scores[:, 0] >= scores.max(1)).all()
    np.testing.assert_allclose(
        space.scores(np.arange(n_queries)[:, None], np.arange(12)), similarity, atol=1e-6
    )


def test_the_same_vectors_are_a_self_join():
    space = Dense(noisy(20, 4, 0, 8))
    assert_same(AsymmetricSpace(space, space).search(5), space.search(5))
    assert_exact(AsymmetricSpace(space, space).search(5), ref.cosine(space.vectors, space.vectors), space, 5)


def test_what_it_says_of_itself():
    index, queries = removed_index(), Dense(noisy(9, 6, 1))
    index.made_with = {'tta': True}
    space = AsymmetricSpace(index, queries)
    assert (len(space), space.pool, space.made_with) == (9, COUNT, {'tta': True})
    assert 'AsymmetricSpace(Index(' in repr(space)
    # a removed listing searches for nothing and is nobody's neighbor
    ids, scores = space.search(5)
    assert (ids[[1, 5], 1:] == -1).all() and (scores[[1, 5], 1:] == -np.inf).all()
    assert not np.isin(np.delete(ids, [1, 5], 0), [1, 5, 40]).any()


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda: AsymmetricSpace(Dense(np.eye(3)), Dense(np.eye(4)[:, :3] + 1)), '^4 queries for 3 listings'),
        (
            lambda: AsymmetricSpace(Dense(np.eye(3)), Dense(np.eye(3))).search(2, Dense(np.eye(3))),
            '^new queries',
        ),
        (
            lambda: AsymmetricSpace(Dense(np.eye(3)), Dense(np.eye(3))).scores([0], [0], Dense(np.eye(3))),
            '^new queries',
        ),
        (lambda: AsymmetricSpace(Dense(np.eye(3)), Dense(np.eye(3))).search(4), '^k=4: there are 3 listings'),
    ],
)
def test_refuses(make, message):
    with pytest.raises(InputError, match=message): make()


def test_keys_in_a_pool_are_counted_over_all():
    "A key is a placeholder by its number in the whole pool, whichever of them are looked up."
    keys = ['x'] * 4 + ['y'] * 2
    first = first_rows(Keys(keys, max_shared=3), 2)
    assert isinstance(first, Pool) and first.search(6).ids.tolist()[0][1:] == [-1] * (
        first.search(6).ids.shape[1] - 1
    )
    assert first_rows(Keys(keys[::-1], max_shared=3), 2).search(3).ids[:, :2].tolist() == [[0, 1], [1, 0]]
