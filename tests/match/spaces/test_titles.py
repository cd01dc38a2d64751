"Titles as a space: parts and more of them, read in a pool as in one list."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import Dense, Pool, Titles
from fastmatch.match.spaces.pool import first_rows
from tests.match.cases import titles


def edits(first, second):
    "Letters to insert, delete or replace, by the table that defines it."
    table = np.zeros((len(first) + 1, len(second) + 1), int)
    table[:, 0], table[0] = np.arange(len(first) + 1), np.arange(len(second) + 1)
    for i, letter in enumerate(first, 1):
        for j, other in enumerate(second, 1):
            table[i, j] = min(
                table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (letter != other)
            )
    return table[-1, -1]


def similarity_of(texts):
    return np.array([[1 - edits(one, two) / max(len(one), len(two), 1) for two in texts] for one in texts])


def test_scores_by_the_definition():
    texts = [*titles(9, 0), 'läuft', 'laeuft']
    expected = similarity_of(texts)
    # of two empty titles nothing is known
    is_empty = np.array([text == '' for text in texts])
    both = ~(is_empty[:, None] & is_empty)
    actual = Titles(texts).scores(np.arange(11)[:, None], np.arange(11))
    np.testing.assert_allclose(actual[both], expected[both], atol=1e-6)


@pytest.mark.parametrize('n_new', [1, 5, 11])
def test_a_pool_reads_the_same(n_new):
    space = Titles(titles(12, 1))
    pool = Pool(space.take(np.arange(12) < n_new), space.take(np.arange(n_new, 12)))
    rows, ids = np.arange(n_new)[:, None], np.arange(12)
    for other in (pool, pool.whole('a step'), first_rows(space, n_new)):
        np.testing.assert_array_equal(other.scores(rows, ids), space.scores(rows, ids))
    assert pool.whole('a step').titles == space.titles
    known = space.transform(['red shirt', ''])
    assert known.titles == ['red shirt', ''] and space.append(known).titles == [
        *space.titles,
        'red shirt',
        '',
    ]


@pytest.mark.parametrize('make, message', [
    (lambda: Titles(['a']).search(), 'they are read and not searched'),
    (lambda: Titles(['a']).append(Dense(np.eye(1))), 'queries are Dense, give Titles'),
    (lambda: Titles(['a']).scores([0], [0], Dense(np.eye(1))), 'queries are Dense, give Titles')])
def test_refuses(make, message):
    with pytest.raises(InputError, match=f'^titles: {message}'): make()
