"Search among listings of other sources, against a loop over all pairs; rules that keep sources apart."
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.core import InputError
from fastmatch.match import Dense, Embeddings, Rule, Step, Tfidf
from fastmatch.match.candidates import candidates, with_pairs
from fastmatch.match.fields.codes import Codes
from fastmatch.match.spaces.keys import Keys, source_space
from fastmatch.match.spaces.pool import Pool, first_rows
from fastmatch.match.spaces.sources import search_other_sources
from tests.match.cases import halves_of_one, titles


def spaces_of(n, seed):
    rng = np.random.default_rng(seed)
    return {'image': Dense(halves_of_one(n, 5, seed)), 'tfidf': Tfidf(titles(n, seed)),
            'model': Codes('model', [str(code) if code < 9 else None for code in rng.integers(0, 12, n)]),
            'phash': Keys([f'{key:x}' if key < 5 else None for key in rng.integers(0, 9, n)])}


def assert_as_naive(space, k, sources, n_rows):
    "The best of other sources by a loop, ties to the smaller id."
    found = search_other_sources(space, k, sources)
    pool = len(sources)
    for row in range(n_rows):
        others = [other for other in range(pool) if sources[other] != sources[row]]
        scores = dict(zip(others, space.scores(np.full(len(others), row), np.array(others, int))))
        listed = [listing for listing in found.ids[row, 1:] if listing >= 0]
        ordered = sorted(listed, key=lambda other: (-scores[other], other))
        assert listed == ordered and len(set(listed)) == len(listed) <= k - 1
        assert set(listed) <= set(others)
        lowest = min((scores[other] for other in listed), default=np.inf)
        if isinstance(space, Dense) or (isinstance(space, Pool) and isinstance(space.new, Dense)):
            assert len(listed) == min(k - 1, len(others))
            assert all(scores[other] <= lowest for other in others if other not in listed)
    assert found.ids[:, 0].tolist() == list(range(n_rows))


@settings(max_examples=25, deadline=None)
@given(n=st.integers(3, 24), seed=st.integers(0, 99), n_sources=st.integers(2, 4), k=st.integers(1, 9))
def test_search_by_brute_force(n, seed, n_sources, k):
    sources = np.random.default_rng(seed).integers(0, n_sources, n)
    k = min(k, n)
    for space in spaces_of(n, seed).values():
        assert_as_naive(space, k, sources, n)
        if n > 5:
            assert_as_naive(Pool(space.take(np.arange(3)), space.take(np.arange(3, n))), k, sources, 3)
            assert_as_naive(first_rows(space, 3), k, sources, 3)


def test_candidates_are_of_other_sources_alone():
    spaces, sources = spaces_of(30, 1), np.arange(30) % 2
    found = candidates(spaces, 6, sources)
    rows, columns = np.nonzero(found.ids >= 0)
    ids = found.ids[rows, columns]
    assert ((sources[rows] != sources[ids]) | (rows == ids)).all()
    # all are found where as many are asked for
    dense = candidates({'image': spaces['image']}, 30, sources)
    assert ((dense.ids >= 0).sum(1) == 16).all()


def test_pairs_besides_those_that_were_found():
    spaces, sources = spaces_of(30, 2), np.arange(30) % 2
    found = candidates(spaces, 3, sources)
    rows, ids = np.array([0, 0, 5, 7]), np.array([1, 29, 5, 8])
    more = with_pairs(found, spaces, rows, ids)
    for row in range(30):
        expected = set(found.ids[row][found.ids[row] >= 0]) | set(ids[rows == row])
        listed = more.ids[row][more.ids[row] >= 0]
        assert listed.tolist() == [row, *sorted(expected - {row})]
        for name, space in spaces.items():
            np.testing.assert_array_equal(more.scores[name][row, :len(listed)],
                                          space.scores(np.full(len(listed), row), listed))
    assert with_pairs(more, spaces, rows, ids) is more
    with pytest.raises(InputError, match='^pairs 1 name rows or listings that are not there'):
        with_pairs(found, spaces, [0, 30], [1, 1])


def embeddings_of(n, seed):
    return Embeddings({'image': halves_of_one(n, 5, seed)}, np.arange(n), titles(n, seed),
                      source=np.random.default_rng(seed).integers(0, 3, n))


@pytest.mark.parametrize('steps', [(), ('min2',), ('components',), (Step('augment', by='fused', k=3),)])
def test_a_rule_that_keeps_sources_apart(steps):
    embeddings = embeddings_of(60, 5)
    rule = Rule('mean', {'image': 1., 'tfidf': 1.}, .4, k=60, apart='source', steps=steps)
    assert Rule.from_dict(rule.to_dict()) == rule and 'source' in rule.reads
    spaces = embeddings.spaces(only=('image', 'tfidf', 'source'))
    matches = rule.apply(spaces)
    source = embeddings.source
    for row, matched in enumerate(matches): assert all(source[other] != source[row] for other in matched[1:])
    if steps: return
    similarity = sum(spaces[name].scores(np.arange(60)[:, None], np.tile(np.arange(60), (60, 1)))
                     for name in ('image', 'tfidf')) / 2
    for row, matched in enumerate(matches):
        expected = {other for other in range(60) if source[other] != source[row]
                    and similarity[row, other] >= .4}
        assert set(matched[1:]) == expected


def test_what_can_not_be_kept_apart():
    rule = Rule('mean', {'image': 1.}, .4, apart='source')
    spaces = {'image': Dense(np.eye(3)), 'source': source_space(['a', 'a', 'a'])}
    with pytest.raises(InputError, match="^all 3 listings are of the source 'a'"): rule.apply(spaces)
    with pytest.raises(InputError, match='^source: missing in rows 1'):
        rule.apply({**spaces, 'source': source_space(['a', None, 'b'])})
    with pytest.raises(InputError, match='source'): rule.apply({'image': spaces['image']})
