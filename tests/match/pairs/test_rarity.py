"Words in common by their rarity, by hand and some pairs at a time."
import numpy as np

from fastmatch.match.pairs import rarity
from fastmatch.match.pairs.rarity import WordTable

WORDS = [['sony', 'tv', 'tv'], ['sony', 'radio'], [], ['sony', 'tv', 'red'], ['hat']]


def test_worth_by_hand():
    table = WordTable(WORDS)
    sony, tv, radio = np.log(5 / 3), np.log(5 / 2), np.log(5)
    totals = [sony + tv, sony + radio, 0, sony + tv + radio, radio]
    np.testing.assert_allclose(table.totals, totals, rtol=1e-6)
    rows, ids = np.array([0, 0, 0, 3, 4]), np.array([1, 3, 2, 0, 1])
    np.testing.assert_allclose(table.common(rows, ids), [sony, sony + tv, 0, sony + tv, 0], rtol=1e-6)
    np.testing.assert_allclose(table.rarest_common(rows, ids), [sony, tv, 0, tv, 0], rtol=1e-6)
    np.testing.assert_allclose(table.rarest_lacking(rows, ids), [tv, 0, tv, radio, radio], rtol=1e-6)
    np.testing.assert_allclose(table.overlap(rows, ids), [1 / 3, 2 / 3, -1, 2 / 3, 0], rtol=1e-6)
    shares = table.shares('word', rows, ids)
    np.testing.assert_allclose(shares['word share'][:3], [sony / (sony + tv), 1, 0], rtol=1e-6)
    np.testing.assert_allclose(shares['word left back'], table.totals[ids] - shares['word common'], atol=1e-6)
    assert shares['word share back'].tolist()[2] == -1


def test_a_word_of_all_titles_says_nothing():
    table = WordTable([['sale', 'hat'], ['sale']])
    rows, ids = np.array([0, 1]), np.array([1, 0])
    assert table.common(rows, ids).tolist() == [0, 0]
    assert table.shares('word', rows, ids)['word share'].tolist() == [0, -1]
    counted = WordTable([['sale', 'hat'], ['sale']], weighted=False)
    assert counted.common(rows, ids).tolist() == [1, 1] and counted.totals.tolist() == [2, 1]


def test_blocks_make_no_difference(monkeypatch):
    rng = np.random.default_rng(0)
    words = [rng.choice(list('abcdefgh'), rng.integers(0, 5)).tolist() for _ in range(20)]
    rows, ids = rng.integers(0, 20, (2, 50))
    methods = 'common', 'rarest_common', 'rarest_lacking', 'overlap'
    whole = [getattr(WordTable(words), method)(rows, ids) for method in methods]
    monkeypatch.setattr(rarity, 'BLOCK_PAIRS', 7)
    for method, expected in zip(methods, whole):
        np.testing.assert_array_equal(getattr(WordTable(words), method)(rows, ids), expected)


def test_titles_without_words():
    table = WordTable([[], []])
    rows, ids = np.array([0, 1]), np.array([1, 1])
    assert table.rarest_common(rows, ids).tolist() == [0, 0]
    assert table.shares('word', rows, ids)['word share'].tolist() == [-1, -1]
