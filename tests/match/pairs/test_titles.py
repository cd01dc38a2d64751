"How alike titles are: edits and words, by hand."
import numpy as np

from fastmatch.match.pairs.rarity import WordTable
from fastmatch.match.pairs.titles import edit_similarity, with_digits, words_of


def test_edit_similarity():
    titles = ['kitten', 'sitting', '', 'kitten', 'läuft', 'laeuft']
    actual = edit_similarity(titles, [0, 0, 2, 2, 4], [1, 3, 2, 0, 5])
    np.testing.assert_allclose(actual, [1 - 3 / 7, 1, 1, 0, 1 - 2 / 6], atol=1e-6)


def test_words():
    words = words_of(['kaos x-200 läuft', '', 'x 200ml 200ml'])
    assert words == [['kaos', 'x', '200', 'läuft'], [], ['x', '200ml', '200ml']]
    assert with_digits(words) == [['200'], [], ['200ml', '200ml']]
    rows, ids = np.array([0, 0, 2, 1]), np.array([2, 1, 2, 1])
    np.testing.assert_allclose(WordTable(words).overlap(rows, ids), [1 / 5, -1, 1, -1])
