"""What every space offers: the protocol, its defaults, parts and more of it, and how many neighbors a search
returns."""
import numpy as np
import pytest
from tqdm import tqdm

from fastmatch.core import InputError
from fastmatch.match import Dense, Index, Keys, Pool, Tfidf, Units, candidates, expand
from fastmatch.match.spaces import base, dense
from fastmatch.match.spaces.base import PairwiseSpace, Space, VectorSpace
from tests.match.cases import grid, noisy, titles
from tests.match.spaces.promises import all_scores, assert_same

MAKERS = {'dense': lambda n: Dense(noisy(n, 4, 1)), 'tfidf': lambda n: Tfidf(titles(n, 1)),
          'keys': lambda n: Keys(titles(n, 1)), 'units': lambda n: Units(titles(n, 1)),
          'index': lambda n: Index(noisy(n, 4, 1))}


@pytest.mark.parametrize('kind, missing', [
    (Space, {'__len__', 'search', 'scores'}),
    (PairwiseSpace, {'__len__', 'search', 'take', 'append', '_check_compatible', '_pair_scores'}),
    (VectorSpace, {'take', 'append', '_check_compatible', '_pair_scores', '_with_vectors', '_nearest',
                   '_all_scores'})])
def test_what_a_new_space_must_write(kind, missing):
    assert set(kind.__abstractmethods__) == missing
    with pytest.raises(TypeError, match='abstract'): kind()
    for name in missing - {'__len__'}: assert getattr(kind, name).__doc__


class Numbers(PairwiseSpace):
    "The smallest space there can be: whole numbers, similar where they are near."
    def __init__(self, numbers): self.numbers = np.asarray(numbers)
    def __len__(self): return len(self.numbers)
    def take(self, rows): return Numbers(self.numbers[rows])
    def append(self, other): return Numbers(np.concatenate([self.numbers, other.numbers]))
    def _check_compatible(self, queries): return queries

    def search(self, k=None, queries=None):
        from fastmatch.match import Neighbors
        n = len(self if queries is None else queries)
        rows, ids = np.divmod(np.arange(n * len(self)), len(self))
        return Neighbors.from_pairs(rows, ids, self.scores(rows, ids, queries), n, queries is None, k)

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


@pytest.mark.parametrize('name', MAKERS)
def test_protocol(name):
    space = MAKERS[name](12)
    assert isinstance(space, Space)
    assert isinstance(space, VectorSpace) == (name in ('dense', 'tfidf', 'index'))
    assert space.pool == len(space) == 12 and space.removed.tolist() == [False] * 12
    if isinstance(space, VectorSpace):
        again = space._with_vectors(space.vectors[:5])
        assert type(again) is type(space) and len(again) == 5 and again.dim == space.dim
        np.testing.assert_array_equal(all_scores(again), all_scores(space)[:5, :5])


@pytest.mark.parametrize('name', MAKERS)
def test_take_and_append(name):
    whole = MAKERS[name](20)
    rows = np.array([3, 1, 19, 7])
    np.testing.assert_array_equal(all_scores(whole.take(rows)), all_scores(whole)[np.ix_(rows, rows)])
    mask = np.arange(20) < 12
    both = whole.take(mask).append(whole.take(~mask))
    np.testing.assert_array_equal(all_scores(both), all_scores(whole))
    assert_same(both.search(6), whole.search(6))


@pytest.mark.parametrize('make', [
    *MAKERS.values(), lambda n: expand(Dense(noisy(n, 4, 1))),
    lambda n: Pool(Dense(noisy(2, 4, 0)), Dense(noisy(n - 2, 4, 1)))])
def test_as_many_as_there_are_and_no_more(make):
    "In every space: without a `k` 50, or all of fewer; a `k` above that is an error."
    for n in (4, 49, 50, 51, 60):
        space = make(n)
        assert space.search().ids.shape[1] == space.search(None).ids.shape[1] == min(50, n)
        assert space.search(n).ids.shape[1] == n
        assert candidates({'a': space}).k == 50 and candidates({'a': space}, n).k == n
        for search in (space.search, lambda k, space=space: candidates({'a': space}, k)):
            with pytest.raises(InputError, match=f'^k={n + 1}: there are {n} listings$'): search(n + 1)


@pytest.mark.parametrize('name', ['dense', 'tfidf', 'index'])
def test_refuses_a_k_that_is_no_count(name):
    for k in (0, 2.5, True, '3'):
        with pytest.raises(InputError, match='k='): MAKERS[name](5).search(k)


def test_refuses_other_queries():
    pictures, texts = Dense(noisy(5, 4, 1), 'pics'), Tfidf(['kaos merah', 'susu'])
    with pytest.raises(InputError, match='pics: queries have 3 dimensions, the listings 4'):
        pictures.search(2, Dense(noisy(5, 3, 1)))
    with pytest.raises(InputError, match='pics: queries are Tfidf'): pictures.search(2, texts)
    with pytest.raises(InputError, match='queries are Dense'): texts.search(2, pictures)
    with pytest.raises(InputError, match='another vocabulary'): texts.search(2, Tfidf(['kaos']))
    with pytest.raises(InputError, match='units: queries are Keys'): Units(['a']).scores([0], [0], Keys('a'))
    with pytest.raises(InputError, match='keys: queries are Units'): Keys('a').search(1, Units(['a']))


@pytest.mark.parametrize('rows, ids, says', [
    ([9], [0], 'rows up to 9'), ([0], [9], 'ids up to 9'), ([-1], [0], 'rows'), ([0.], [0], 'rows of dtype'),
    ([0], [1.], 'ids of dtype')])
def test_scores_refuse(rows, ids, says):
    space = Dense(noisy(9, 4, 1, 3))
    with pytest.raises(InputError, match=says): space.scores(rows, ids)
    with pytest.raises(InputError, match='rows up to 5'): space.scores([5], [0], Dense(noisy(5, 4, 2)))


def test_small_blocks_change_nothing(monkeypatch):
    vectors, texts = noisy(50, 131, 1, 30), titles(50, 1)
    def results():
        spaces = Dense(vectors), Tfidf(texts)
        return [array for space in spaces for array in (*space.search(6), all_scores(space))]
    want = results()
    for module in (base, dense): monkeypatch.setattr(module, 'BLOCK_FLOATS', 20)
    assert_same(results(), want)


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
    assert space.scores(*grid(4)).shape == (4, 4)
