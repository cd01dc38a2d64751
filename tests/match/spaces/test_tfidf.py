"""Tfidf: against n-grams counted in dicts, in float64; empty titles, new n-grams, and the way to files and
back."""
import json
import math
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from fastmatch.core import InputError
from fastmatch.match import Tfidf
from tests.match.cases import checked_search, pair_grid, titles
from tests.match.spaces.promises import assert_exact, assert_same


def naive_vectors(vectorizer, n_known, texts, known_texts):
    "Each text as {n-gram: weight}, float64, of length 1: n-grams that no known text has weigh as the rarest."
    ngrams_of = vectorizer.build_analyzer()
    found_in = Counter(ngram for text in known_texts for ngram in set(ngrams_of(text)))
    weights = {ngram: math.log((1 + n_known) / (1 + count)) + 1 for ngram, count in found_in.items()
               if count >= vectorizer.min_df}
    rarest = max(weights.values())
    vectors = []
    for text in texts:
        counts = Counter(ngrams_of(text))
        vector = {ngram: count * weights.get(ngram, rarest) for ngram, count in counts.items()
                  if vectorizer.min_df == 1 or ngram in weights}
        length = math.sqrt(sum(weight**2 for weight in vector.values())) or 1.
        vectors.append({ngram: weight / length for ngram, weight in vector.items()})
    return vectors


def expected_similarity(texts, new_texts=None, among_new=False, **kwargs):
    "Cosines of naive vectors; pairs that share nothing are no neighbors."
    vectorizer = TfidfVectorizer(**{'analyzer': 'char_wb', 'ngram_range': (3, 5), **kwargs})
    columns = naive_vectors(vectorizer, len(texts), texts, texts)
    rows = columns if new_texts is None else naive_vectors(vectorizer, len(texts), new_texts, texts)
    if among_new: columns = rows
    cosines = np.array([[sum(weight * column.get(ngram, 0) for ngram, weight in row.items())
                         for column in columns] for row in rows])
    similarity = np.where(cosines > 1e-12, cosines, -np.inf)
    if new_texts is None: np.fill_diagonal(similarity, cosines.diagonal())
    return similarity


@pytest.mark.parametrize('listing_count, k, seed', [
    (2, 2, 0), (2, 1, 1), (60, 5, 2), (60, 3, 3), (40, 60, 4), (33, 40, 5)])
def test_search(listing_count, k, seed):
    texts = titles(listing_count, seed)
    space = Tfidf(texts)
    assert_exact(checked_search(space.search, k, listing_count), expected_similarity(texts), space, k)
    new_texts = ['susu sabun', '', 'zzzqqq', texts[-1], '  ']
    queries = space.transform(new_texts)
    neighbors = checked_search(lambda k: space.search(k, queries), k, listing_count)
    assert_exact(neighbors, expected_similarity(texts, new_texts), space, k, queries)


@pytest.mark.parametrize('our_options, their_options', [
    ({'ngram': (2, 3), 'analyzer': 'char'}, {'ngram_range': (2, 3), 'analyzer': 'char'}),
    ({'ngram': (1, 1), 'analyzer': 'word'}, {'ngram_range': (1, 1), 'analyzer': 'word'}),
    ({'min_df': 3}, {'min_df': 3})])
def test_options(our_options, their_options):
    texts = titles(40, 8)
    space = Tfidf(texts, **our_options)
    assert_exact(space.search(8), expected_similarity(texts, **their_options), space, 8)


def test_scores():
    texts, new_texts = titles(20, 6), ['kaos biru', '', 'susu']
    space = Tfidf(texts)
    rows = np.arange(20)
    actual = space.scores(rows[:, None], np.concatenate([rows, [-1]])[None])
    # sharing nothing is 0 where a pair is asked for, and nobody's neighbor in a search
    np.testing.assert_allclose(actual[:, :-1], np.maximum(expected_similarity(texts), 0), atol=1e-6)
    assert (actual[:, -1] == -np.inf).all() and actual.max() <= 1
    actual = space.scores(np.arange(3)[:, None], rows, space.transform(new_texts))
    np.testing.assert_allclose(actual, np.maximum(expected_similarity(texts, new_texts), 0), atol=1e-6)


def test_empty_titles():
    neighbors = Tfidf(['', 'kaos merah', '', 'kaos merah', 'susu']).search(5).check(self_join=True)
    assert neighbors.ids.tolist() == [[0, -1, -1, -1, -1], [1, 3, -1, -1, -1], [2, -1, -1, -1, -1],
                                      [3, 1, -1, -1, -1], [4, -1, -1, -1, -1]]
    assert neighbors.scores[0, 0] == neighbors.scores[2, 0] == 0
    known = Tfidf(['kaos'])
    empty_queries = known.transform(['', ''])
    assert (empty_queries.search(2).ids == [[0, -1], [1, -1]]).all()
    assert (known.search(1, empty_queries).ids == -1).all()
    assert (empty_queries.scores([0, 1], [1, 0]) == 0).all()


@pytest.mark.parametrize('kwargs', [{}, {'ngram': (2, 3), 'analyzer': 'char'}, {'min_df': 2}])
def test_new_ngrams_keep_their_weight(kwargs):
    "Between new titles and known ones, among new ones, and when they have become known."
    texts, new_texts = titles(25, 3), ['kaos merah zzyx', 'zzyx qqq', 'celana zzyx 12', '', titles(25, 3)[4]]
    their_options = {{'ngram': 'ngram_range'}.get(name, name): value for name, value in kwargs.items()}
    space = Tfidf(texts, **kwargs)
    new = space.transform(new_texts)
    rows, columns = np.arange(len(new_texts))[:, None], np.arange(len(texts))
    expected = expected_similarity(texts, new_texts, **their_options)
    np.testing.assert_allclose(space.scores(rows, columns, new), np.maximum(expected, 0), atol=1e-6)
    among_new = np.maximum(expected_similarity(texts, new_texts, among_new=True, **their_options), 0)
    np.testing.assert_allclose(new.scores(rows, rows.T), among_new, atol=1e-6)
    grown = space.append(new)
    assert_same(grown.search(6, space.take([1, 2])).scores, grown.search(6).scores[1:3])
    np.testing.assert_allclose(grown.scores(rows + 25, rows.T + 25), among_new, atol=1e-6)
    newest = ['zzyx wwww', 'zzyx']
    settings, arrays = grown.state()
    again = Tfidf.from_state(json.loads(json.dumps(settings)), arrays)
    found = [each.search(9, queries=each.transform(newest)) for each in (grown, again)]
    assert_same(*found)
    # known n-grams of a title are as they were, bit for bit
    np.testing.assert_array_equal(space.transform(texts).vectors.toarray(), space.vectors.toarray())


def test_ngrams_of_different_calls_are_not_mixed_up():
    space = Tfidf(titles(25, 3))
    first, second = space.transform(['zzyx']), space.transform(['qqqq'])
    with pytest.raises(InputError, match='different calls of `transform`'): first.search(1, queries=second)
    with pytest.raises(InputError, match='different calls of `transform`'): first.append(second)
    later = space.append(first).transform(['zzyx qqqq'])
    np.testing.assert_allclose(space.append(first).scores([0], [25], later), [
        expected_similarity(titles(25, 3), ['zzyx qqqq', 'zzyx'], among_new=True)[0, 1]], atol=1e-6)


def test_row_permutation():
    texts = titles(45, 4)
    permutation = np.random.default_rng(4).permutation(45)
    inverse = np.argsort(permutation)
    space = Tfidf(texts)
    permuted = Tfidf([texts[i] for i in permutation], vectorizer=space.vectorizer)
    np.testing.assert_array_equal(space.search(9).scores, permuted.search(9).scores[inverse])


@pytest.mark.parametrize('invalid, message', [
    (['a', None, 'b'], 'rows 1 are missing'), (['a', 'b', float('nan')], 'rows 2 are missing'),
    ([3, 'x'], 'rows 0'),
    ('kaos', 'one string'), ([], 'empty'), (['', ''], 'empty vocabulary')])
def test_refuses(invalid, message):
    with pytest.raises(InputError, match=message): Tfidf(invalid)
    if message == 'empty vocabulary': return
    space = Tfidf(['kaos merah'])
    with pytest.raises(InputError, match=message): space.transform(invalid)


def test_state_round_trip():
    space = Tfidf(titles(30, 4) + ['ñandú 🎁 "quoted"'])
    settings, arrays = space.state()
    restored = Tfidf.from_state(json.loads(json.dumps(settings)), arrays)
    assert_same(restored.search(9), space.search(9))
    assert_same(restored.state()[1].values(), arrays.values())
    new_texts = ['kaos merah', 'something else', '']
    expected = space.search(5, queries=space.transform(new_texts))
    assert_same(restored.search(5, queries=restored.transform(new_texts)), expected)
    # parts of it, and more behind it, are of the same vocabulary
    part = restored.take([3, 1, 30])
    assert part.vectorizer is restored.vectorizer and len(part.append(restored)) == 34


def test_ready_vectors():
    space = Tfidf(titles(30, 4))
    restored = Tfidf(None, vectorizer=space.vectorizer, vectors=space.vectors[5:])
    np.testing.assert_array_equal(restored.scores(*pair_grid(25)), space.scores(*pair_grid(30))[5:, 5:])
    with pytest.raises(InputError, match='give the vectorizer'): Tfidf(None, vectors=space.vectors)
