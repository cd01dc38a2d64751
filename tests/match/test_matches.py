"Matches: rows, indexing, and the competition's table."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    Neighbors,
    decide,
)

NEIGHBORS = Neighbors.from_pairs([0, 0, 1, 2, 3], [1, 2, 0, 0, 4], [.75, .5, .75, .5, .25], 5)


def test_to_frame():
    matches = decide(NEIGHBORS, .5)
    df = matches.to_frame(['p0', 'p1', 'p2', 'p3', 'p4'])
    assert df.columns.tolist() == ['posting_id', 'matches'] and df.posting_id.tolist() == [
        'p0',
        'p1',
        'p2',
        'p3',
        'p4',
    ]
    assert df.matches.tolist() == ['p0 p1 p2', 'p1 p0', 'p2 p0', 'p3', 'p4']
    assert decide(NEIGHBORS, -1, 2).to_frame(np.arange(5) * 7).matches.tolist() == [
        '0 7',
        '7 0',
        '14 0',
        '21 28',
        '28',
    ]
    with pytest.raises(InputError, match='4 for 5'): matches.to_frame(list('abcd'))
    capped = decide(Dense(np.ones((70, 2))).search(70), .5).to_frame(range(70))
    assert (capped.matches.str.split(' ').str.len() == 50).all() and (
        capped.matches.str.split(' ').str[0] == capped.posting_id
    ).all()


def test_matches_indexing():
    matches = decide(NEIGHBORS, .5)
    assert (
        matches[-1].tolist() == [4]
        and matches[-5].tolist() == [0, 1, 2]
        and matches[np.int64(1)].tolist() == [1, 0]
    )
    for i in (5, -6):
        with pytest.raises(IndexError): matches[i]
