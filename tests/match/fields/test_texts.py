"A column of text as a space: TF-IDF as it is, and nothing said where a text is missing."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match.fields.texts import Texts
from fastmatch.match.pairs.title_pairs import TITLE_FEATURES, TitlePairs
from fastmatch.match.spaces.tfidf import Tfidf
from tests.match.cases import titles

CELLS = [*titles(20, 0), None, np.nan, '', *titles(6, 1)]
IS_MISSING = np.array([not isinstance(cell, str) or not cell for cell in CELLS])


def grid(n):
    rows = np.arange(n)
    return rows[:, None], np.tile(rows, (n, 1))


def test_similarity_is_that_of_tfidf_where_both_are_there():
    texts = [cell if isinstance(cell, str) else '' for cell in CELLS]
    expected = Tfidf(texts).scores(*grid(len(CELLS)))
    scores = Texts('description', CELLS).scores(*grid(len(CELLS)))
    is_unknown = IS_MISSING[:, None] | IS_MISSING
    np.testing.assert_array_equal(np.isnan(scores), is_unknown)
    np.testing.assert_array_equal(scores[~is_unknown], expected[~is_unknown])


def test_search_and_parts():
    space = Texts('description', CELLS)
    found = space.search(5).check(self_join=True)
    plain = Tfidf([cell if isinstance(cell, str) else '' for cell in CELLS]).search(5)
    np.testing.assert_array_equal(found.ids, plain.ids)
    rows = np.arange(0, len(CELLS), 2)
    part = space.take(rows)
    np.testing.assert_array_equal(part.scores(*grid(len(rows))),
                                  space.scores(rows[:, None], np.tile(rows, (len(rows), 1))))
    known, new = space.take(np.arange(20)), space.transform(CELLS[20:])
    assert known.append(new).texts == space.texts


def test_pair_features_are_those_of_titles_where_both_are_there():
    space = Texts('description', CELLS)
    rows = np.repeat(np.arange(len(CELLS)), len(CELLS))
    ids = np.tile(np.arange(len(CELLS)), len(CELLS))
    is_unknown = IS_MISSING[rows] | IS_MISSING[ids]
    expected = TitlePairs(space.texts).of(TITLE_FEATURES, rows, ids)
    features = space.pair_features(rows, ids)
    assert set(features) == {f'description {name}' for name in expected}
    for name, values in expected.items():
        found = features[f'description {name}']
        assert (found[is_unknown] == -1).all()
        np.testing.assert_array_equal(found[~is_unknown], np.asarray(values)[~is_unknown])


def test_a_column_without_any_text():
    with pytest.raises(InputError, match='^description: all 3 texts are missing'):
        Texts('description', [None, '', np.nan])
