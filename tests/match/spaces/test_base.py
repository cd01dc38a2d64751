"""What every space offers: the protocol, its defaults, parts and more of it, and how many neighbors a search
returns."""
import numpy as np
import pytest
from tqdm import tqdm

from fastmatch.core import InputError
from fastmatch.match import Dense, Index, Keys, Pool, Tfidf, Units, candidates, expand
from fastmatch.match.spaces import base, dense
from fastmatch.match.spaces.base import PairwiseSpace, Space, VectorSpace
from tests.match.cases import noisy, pair_grid, titles
from tests.match.spaces.promises import all_scores, assert_same

MAKERS = {'dense': lambda count: Dense(noisy(count, 4, 1)), 'tfidf': lambda count: Tfidf(titles(count, 1)),
          'keys': lambda count: Keys(titles(count, 1)), 'units': lambda count: Units(titles(count, 1)),
          'index': lambda count: Index(noisy(count, 4, 1))}


@pytest.mark.parametrize('kind, missing', [
    (Space, {'__len__', 'search', 'scores'}),
    (PairwiseSpace, {'__len__', 'search', 'take', 'append', '_check_compatible', '_pair_scores'}),
    (VectorSpace, {'take', 'append', '_check_compatible', '_pair_scores', '_with_vectors', '_nearest',
                   '_all_scores'})])
def test_what_a_new_space_must_write(kind, missing):
    assert set(kind.__abstractmethods__) == missing
    with pytest.raises(TypeError, match='abstract'): kind()
    for method in missing - {'__len__'}: assert getattr(kind, method).__doc__


class Numbers(PairwiseSpace):
    "The smallest space there can be: whole numbers, similar where they are near."
    def __init__(self, numbers): self.numbers = np.asarray(numbers)
    def __len__(self): return len(self.numbers)
    def take(self, rows): return Numbers(self.numbers[rows])
    def append(self, other): return Numbers(np.concatenate([self.numbers, other.numbers]))
    def _check_compatible(self, queries): return queries

    def search(self, k=None, queries=None):
        from fastmatch.match import Neighbors
        query_count = len(self if queries is None else queries)
        rows, ids = np.divmod(np.arange(query_count * len(self)), len(self))
        return Neighbors.from_pairs(
            rows, ids, self.scores(rows, ids, queries), query_count, queries is None, k
        )

    def _pair_scores(self, queries, query_rows, listing_ids):
        return 1 - np.abs(queries.numbers[query_rows] - self.numbers[listing_ids]) / 10


def test_a_space_of_ones_own():
    space = Numbers([1, 2, 5, 1])
    assert space.pool == 4 and not space.removed.any()
    assert space.search(3).ids.tolist() == [[0, 3, 1], [1, 0, 3], [2, 1, 0], [3, 0, 1]]
    found = candidates({'numbers': space, 'image': Dense(noisy(4, 3, 0))}, 2)
    assert found.scores['numbers'][0, found.ids[0].tolist().index(3)] == 1
    pool = Pool(space.take([0, 1]), space.take([2, 3]))
    np.testing.assert_array_equal(pool.scores(np.arange(2)[:, None], np.arange(4)), all_scores(space)[:2])


@pytest.mark.parametrize('space_name', MAKERS)
def test_protocol(space_name):
    space = MAKERS[space_name](12)
    assert isinstance(space, Space)
    assert isinstance(space, VectorSpace) == (space_name in ('dense', 'tfidf', 'index'))
    assert space.pool == len(space) == 12 and space.removed.tolist() == [False] * 12
    if isinstance(space, VectorSpace):
        first_five = space._with_vectors(space.vectors[:5])
        assert type(first_five) is type(space) and len(first_five) == 5 and first_five.dim == space.dim
        np.testing.assert_array_equal(all_scores(first_five), all_scores(space)[:5, :5])


@pytest.mark.parametrize('space_name', MAKERS)
def test_take_and_append(space_name):
    whole_space = MAKERS[space_name](20)
    rows = np.array([3, 1, 19, 7])
    np.testing.assert_array_equal(
        all_scores(whole_space.take(rows)), all_scores(whole_space)[np.ix_(rows, rows)]
    )
    mask = np.arange(20) < 12
    joined = whole_space.take(mask).append(whole_space.take(~mask))
    np.testing.assert_array_equal(all_scores(joined), all_scores(whole_space))
    assert_same(joined.search(6), whole_space.search(6))


@pytest.mark.parametrize('make_space', [
    *MAKERS.values(), lambda count: expand(Dense(noisy(count, 4, 1))),
    lambda count: Pool(Dense(noisy(2, 4, 0)), Dense(noisy(count - 2, 4, 1)))])
def test_as_many_as_there_are_and_no_more(make_space):
    "In every space: without a `k` 50, or all of fewer; a `k` above that is an error."
    for listing_count in (4, 49, 50, 51, 60):
        space = make_space(listing_count)
        assert space.search().ids.shape[1] == space.search(None).ids.shape[1] == min(50, listing_count)
        assert space.search(listing_count).ids.shape[1] == listing_count
        # all that there are is no limit for a rule that meets more
        assert candidates({'a': space}).k == 50
        assert candidates({'a': space}, listing_count).k == max(50, listing_count)
        assert candidates({'a': space}, listing_count).searched == listing_count
        for search in (space.search, lambda k, space=space: candidates({'a': space}, k)):
            message = f'^k={listing_count + 1}: there are {listing_count} listings$'
            with pytest.raises(InputError, match=message): search(listing_count + 1)


@pytest.mark.parametrize('space_name', ['dense', 'tfidf', 'index'])
def test_refuses_a_k_that_is_no_count(space_name):
    for k in (0, 2.5, True, '3'):
        with pytest.raises(InputError, match='k='): MAKERS[space_name](5).search(k)


def test_refuses_other_queries():
    pictures, texts = Dense(noisy(5, 4, 1), 'pics'), Tfidf(['kaos merah', 'susu'])
    with pytest.raises(InputError, match='pics: queries have 3 dimensions, the listings 4'):
        pictures.search(2, Dense(noisy(5, 3, 1)))
    with pytest.raises(InputError, match='pics: queries are Tfidf'): pictures.search(2, texts)
    with pytest.raises(InputError, match='queries are Dense'): texts.search(2, pictures)
    with pytest.raises(InputError, match='another vocabulary'): texts.search(2, Tfidf(['kaos']))
    with pytest.raises(InputError, match='units: queries are Keys'): Units(['a']).scores([0], [0], Keys('a'))
    with pytest.raises(InputError, match='keys: queries are Units'): Keys('a').search(1, Units(['a']))


@pytest.mark.parametrize('rows, ids, message', [
    ([9], [0], 'rows up to 9'), ([0], [9], 'ids up to 9'), ([-1], [0], 'rows'), ([0.], [0], 'rows of dtype'),
    ([0], [1.], 'ids of dtype')])
def test_scores_refuse(rows, ids, message):
    space = Dense(noisy(9, 4, 1, 3))
    with pytest.raises(InputError, match=message): space.scores(rows, ids)
    with pytest.raises(InputError, match='rows up to 5'): space.scores([5], [0], Dense(noisy(5, 4, 2)))


def test_small_blocks_change_nothing(monkeypatch):
    vectors, texts = noisy(50, 131, 1, 30), titles(50, 1)
    def results():
        spaces = Dense(vectors), Tfidf(texts)
        return [array for space in spaces for array in (*space.search(6), all_scores(space))]
    expected = results()
    for module in (base, dense): monkeypatch.setattr(module, 'BLOCK_FLOATS', 20)
    assert_same(results(), expected)


def test_a_long_search_shows_a_bar(monkeypatch):
    shown = []
    def noted(blocks, **kwargs):
        shown.append(kwargs['desc'])
        return tqdm(blocks, **kwargs)
    monkeypatch.setattr(base, 'tqdm', noted)
    Dense(noisy(5, 3, 0)).search(2)
    assert 'search' in shown and 'score' in shown


def test_as_grid():
    mask = np.array([[True, False, True], [False, False, False], [False, True, False]])
    assert base._as_grid(mask).tolist() == [[0, 2], [-1, -1], [1, -1]]
    assert base._as_grid(mask[1:2]).shape == (1, 0)


def test_scores_of_one_pair_and_of_none():
    space = Dense(noisy(4, 3, 0))
    assert space.scores(2, 3).shape == () and space.scores([], []).shape == (0,)
    assert space.scores(*pair_grid(4)).shape == (4, 4)
