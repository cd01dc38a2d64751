"One-to-one matching against a search over all assignments."
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Matches, Neighbors
from fastmatch.match.decide import decide
from fastmatch.match.spaces.keys import source_space
from fastmatch.match.steps.sources import across_sources, one_to_one

SCORES = st.integers(2, 4).flatmap(lambda n: st.lists(
    st.lists(st.integers(0, 99), min_size=4, max_size=4), min_size=n, max_size=n))


def matched(scores, several=()):
    "Two sources whose listings score each other as a matrix says."
    scores = np.array(scores) / 100 + np.arange(len(scores) * 4).reshape(len(scores), 4) / 1e4  # no ties
    n_left, n_right = scores.shape
    rows, columns = np.nonzero(scores > .3)
    pairs = scores[rows, columns]
    neighbors = Neighbors.from_pairs(np.concatenate([rows, columns + n_left]),
                                     np.concatenate([columns + n_left, rows]),
                                     np.concatenate([pairs, pairs]), n_left + n_right)
    sources = source_space(['left'] * n_left + ['right'] * n_right)
    result = one_to_one(decide(neighbors, .3), neighbors, sources, several)
    return scores, {(row, other - n_left) for row in range(n_left) for other in result[row][1:]}, result


@settings(max_examples=100, deadline=None)
@given(SCORES)
def test_the_only_stable_matching(scores):
    scores, pairs, result = matched(scores)
    n_left, n_right = scores.shape
    stable = [each for each in _matchings(scores) if _is_stable(scores, each)]
    assert stable == [pairs]
    # both sides say the same
    assert pairs == {(other, row - n_left) for row in range(n_left, n_left + n_right)
                     for other in result[row][1:]}


def _matchings(scores):
    possible = [(row, column) for row in range(len(scores)) for column in range(scores.shape[1])
                if scores[row, column] > .3]
    for size in range(len(scores) + 1):
        for chosen in itertools.combinations(possible, size):
            rows, columns = zip(*chosen) if chosen else ((), ())
            if len(set(rows)) == len(rows) and len(set(columns)) == len(columns): yield set(chosen)


def _is_stable(scores, chosen):
    "No possible pair has a higher score than what both of its listings got."
    by_row = {row: scores[row, column] for row, column in chosen}
    by_column = {column: scores[row, column] for row, column in chosen}
    return not any(scores[row, column] > max(.3, by_row.get(row, 0)) and
                   scores[row, column] > max(.3, by_column.get(column, 0))
                   for row in range(len(scores)) for column in range(scores.shape[1]))


@settings(max_examples=50, deadline=None)
@given(SCORES)
def test_one_to_many_gives_each_of_the_many_its_best(scores):
    scores, pairs, _ = matched(scores, several=['left'])
    expected = {(int(scores[:, column].argmax()), column) for column in range(scores.shape[1])
                if scores[:, column].max() > .3}
    assert pairs == expected


def test_of_three_sources_one_in_each():
    ids = np.array([[0, 1, 2, 3], [1, 0, 2, 3], [2, 0, 1, 3], [3, 0, 1, 2]])
    scores = np.array([[1, .9, .8, .7], [1, .9, .6, .5], [1, .8, .6, .4], [1, .7, .5, .4]], np.float32)
    neighbors = Neighbors(ids, scores)
    sources = source_space(['a', 'b', 'c', 'c'])
    result = one_to_one(decide(neighbors, .1), neighbors, sources)
    # listings 2 and 3 are of one source: the first two have a match there once
    found = [ids.tolist() for ids in across_sources(result, sources.keys)]
    assert found == [[0, 1, 2], [1, 0, 2], [2, 0, 1], [3]]


def test_what_is_refused():
    matches = Matches(np.array([0, 1]), np.array([0]), np.ones(1, np.float32))
    neighbors = Neighbors(np.array([[0]]), np.ones((1, 1), np.float32))
    with pytest.raises(InputError, match='one_to_one: 1 rows of 2 listings'):
        one_to_one(matches, neighbors, source_space(['a', 'b']))
    two = Matches(np.array([0, 1, 2]), np.array([0, 1]), np.ones(2, np.float32))
    with pytest.raises(InputError, match="several=\\['c'\\]"):
        one_to_one(two, neighbors, source_space(['a', 'b']), several=['c'])
