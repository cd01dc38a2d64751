"""Tfidf: scikit-learn's own vectors multiplied in float64, empty titles, vocabularies, and the way to files
and back."""
import json

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from fastmatch.core import InputError
from fastmatch.match import Tfidf
from tests.match.cases import asked, grid, titles
from tests.match.spaces.promises import assert_exact, assert_same


def product(texts, new=None, **kwargs):
    "Dense product of scikit-learn's own vectors in float64; pairs that share nothing are no neighbors."
    vectorizer = TfidfVectorizer(**{'analyzer': 'char_wb', 'ngram_range': (3, 5), **kwargs}).fit(texts)
    rows = vectorizer.transform(texts if new is None else new).toarray()
    cosines = rows @ vectorizer.transform(texts).toarray().T
    similarity = np.where(cosines > 1e-12, cosines, -np.inf)
    if new is None: np.fill_diagonal(similarity, cosines.diagonal())
    return similarity


@pytest.mark.parametrize('n, k, seed', [
    (2, 2, 0), (2, 1, 1), (60, 5, 2), (60, 3, 3), (40, 60, 4), (33, 40, 5)])
def test_search(n, k, seed):
    texts = titles(n, seed)
    space = Tfidf(texts)
    assert_exact(asked(space.search, k, n), product(texts), space, k)
    new = ['susu sabun', '', 'zzzqqq', texts[-1], '  ']
    queries = space.transform(new)
    assert_exact(asked(lambda k: space.search(k, queries), k, n), product(texts, new), space, k, queries)


@pytest.mark.parametrize('ours, theirs', [
    ({'ngram': (2, 3), 'analyzer': 'char'}, {'ngram_range': (2, 3), 'analyzer': 'char'}),
    ({'ngram': (1, 1), 'analyzer': 'word'}, {'ngram_range': (1, 1), 'analyzer': 'word'}),
    ({'min_df': 3}, {'min_df': 3})])
def test_options(ours, theirs):
    texts = titles(40, 8)
    space = Tfidf(texts, **ours)
    assert_exact(space.search(8), product(texts, **theirs), space, 8)


def test_scores():
    texts, new = titles(20, 6), ['kaos biru', '', 'susu']
    space = Tfidf(texts)
    rows = np.arange(20)
    got = space.scores(rows[:, None], np.concatenate([rows, [-1]])[None])
    # sharing nothing is 0 where a pair is asked for, and nobody's neighbor in a search
    np.testing.assert_allclose(got[:, :-1], np.maximum(product(texts), 0), atol=1e-6)
    assert (got[:, -1] == -np.inf).all() and got.max() <= 1
    got = space.scores(np.arange(3)[:, None], rows, space.transform(new))
    np.testing.assert_allclose(got, np.maximum(product(texts, new), 0), atol=1e-6)


def test_empty_titles():
    neighbors = Tfidf(['', 'kaos merah', '', 'kaos merah', 'susu']).search(5).check(self_join=True)
    assert neighbors.ids.tolist() == [[0, -1, -1, -1, -1], [1, 3, -1, -1, -1], [2, -1, -1, -1, -1],
                                      [3, 1, -1, -1, -1], [4, -1, -1, -1, -1]]
    assert neighbors.scores[0, 0] == neighbors.scores[2, 0] == 0
    some = Tfidf(['kaos'])
    nothing = some.transform(['', ''])
    assert (nothing.search(2).ids == [[0, -1], [1, -1]]).all() and (some.search(1, nothing).ids == -1).all()
    assert (nothing.scores([0, 1], [1, 0]) == 0).all()


def test_row_permutation():
    texts = titles(45, 4)
    order = np.random.default_rng(4).permutation(45)
    back = np.argsort(order)
    space = Tfidf(texts)
    permuted = Tfidf([texts[i] for i in order], vectorizer=space.vectorizer)
    np.testing.assert_array_equal(space.search(9).scores, permuted.search(9).scores[back])


@pytest.mark.parametrize('bad, says', [
    (['a', None, 'b'], 'rows 1 are missing'), (['a', 'b', float('nan')], 'rows 2 are missing'),
    ([3, 'x'], 'rows 0'),
    ('kaos', 'one string'), ([], 'empty'), (['', ''], 'empty vocabulary')])
def test_refuses(bad, says):
    with pytest.raises(InputError, match=says): Tfidf(bad)
    if says == 'empty vocabulary': return
    space = Tfidf(['kaos merah'])
    with pytest.raises(InputError, match=says): space.transform(bad)


def test_state_round_trip():
    space = Tfidf(titles(30, 4) + ['ñandú 🎁 "quoted"'])
    settings, arrays = space.state()
    again = Tfidf.from_state(json.loads(json.dumps(settings)), arrays)
    assert_same(again.search(9), space.search(9))
    assert_same(again.state()[1].values(), arrays.values())
    new = ['kaos merah', 'something else', '']
    want = space.search(5, queries=space.transform(new))
    assert_same(again.search(5, queries=again.transform(new)), want)
    # parts of it, and more behind it, are of the same vocabulary
    part = again.take([3, 1, 30])
    assert part.vectorizer is again.vectorizer and len(part.append(again)) == 34


def test_ready_vectors():
    space = Tfidf(titles(30, 4))
    again = Tfidf(None, vectorizer=space.vectorizer, vectors=space.vectors[5:])
    np.testing.assert_array_equal(again.scores(*grid(25)), space.scores(*grid(30))[5:, 5:])
    with pytest.raises(InputError, match='give the vectorizer'): Tfidf(None, vectors=space.vectors)
