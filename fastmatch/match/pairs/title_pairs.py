"What two titles say of whether they name one product: edits, words and their rarity, numbers, model numbers."
import re
from functools import cached_property

import numpy as np

from ...core import require_package
from .codes import Codes, letters_of
from .rarity import WordTable
from .titles import compared, edit_similarity, with_digits, words_of

# features of a pair that read titles, a name of `use` -> the method of `TitlePairs` that makes them
TITLE_FEATURES = {'title': 'alike', 'rarity': 'rarity', 'number': 'numbers', 'code': 'codes',
                  'ratio': 'ratios'}
GRAM = 3  # letters of a piece
NUMBER = re.compile(r'\d+(?:\.\d+)?')
THOUSANDS = re.compile(r'(?<=\d),(?=\d{3}(?!\d))')


def numbers_of(
    title: str,  # Any text
) -> list[str]:
    "The numbers of a title, those within words too, as they are written shortest: '05' and '5.0' are one."
    return [f'{float(number):g}' if len(number) < 7 else number
            for number in NUMBER.findall(THOUSANDS.sub('', title))]


class TitlePairs:
    """Titles compared pair by pair; what they are taken apart into is made once, when it is first needed.

    A feature whose name ends in ' back' is the one of the pair seen from its other listing.
    """
    def __init__(
        self,
        titles,  # (n,) strings
    ):
        self.text = [str(title).lower() for title in titles]

    def of(
        self,
        use,  # Some of `TITLE_FEATURES`; others are passed over
        rows,  # int (m,), the first title of each pair
        ids,  # int (m,), the second
    ) -> dict:  # Name -> (m,)
        "The features of pairs of titles."
        features = {}
        for name, method in TITLE_FEATURES.items():
            if name in use: features |= getattr(self, method)(rows, ids)
        return features

    @cached_property
    def lengths(self): return np.array([len(title) for title in self.text])
    @cached_property
    def words(self): return words_of(self.text)
    @cached_property
    def word_table(self): return WordTable(self.words)
    @cached_property
    def digit_table(self): return WordTable(with_digits(self.words))
    @cached_property
    def gram_table(self):
        return WordTable([[letters[start:start + GRAM] for start in range(len(letters) - GRAM + 1)]
                          for letters in letters_of(self.text)])
    @cached_property
    def number_tables(self):
        numbers = [numbers_of(title) for title in self.text]
        return WordTable(numbers), WordTable(numbers, weighted=False)
    @cached_property
    def code_table(self): return Codes(self.text)
    @cached_property
    def sorted_words(self): return [' '.join(sorted(words)) for words in self.words]

    def alike(self, rows, ids):
        "How few edits lead from one title to the other, and how many of their words are the same."
        return {'edit': edit_similarity(self.text, rows, ids),
                'words': self.word_table.overlap(rows, ids),
                'codes': self.digit_table.overlap(rows, ids)}

    def rarity(self, rows, ids):
        """Words and pieces of three letters in common, as `WordTable.shares` says, and the rarest word that
        both hold, or that one lacks."""
        words = self.word_table
        return {**words.shares('word', rows, ids),
                'word rarest': words.rarest_common(rows, ids),
                'word lacking': words.rarest_lacking(rows, ids),
                'word lacking back': words.rarest_lacking(ids, rows),
                **self.gram_table.shares('gram', rows, ids)}

    def numbers(self, rows, ids):
        """Numbers in common and left over, by rarity and counted; whether both titles have one that the
        other lacks, as versions, years and sizes of two products do ('number clash')."""
        rare, counted = self.number_tables
        features = rare.shares('number', rows, ids) | counted.shares('numbers', rows, ids)
        clash = (features['numbers left'] > 0) & (features['numbers left back'] > 0)
        return {**features, 'number clash': clash}

    def codes(self, rows, ids):
        "Model numbers, as `Codes.features` says, and how many there are in either title."
        features = self.code_table.features(rows, ids)
        counts = self.code_table.counts
        return {**features, 'code count_i': counts[rows], 'code count_j': counts[ids]}

    def ratios(self, rows, ids):
        """Edits after the words are sorted ('sorted ratio'), and with the words that both hold set against
        the rest of either ('set ratio'), 0 to 1; https://rapidfuzz.github.io/RapidFuzz/Usage/fuzz.html"""
        fuzz = require_package('rapidfuzz.fuzz', "the feature 'ratio'", 'rapidfuzz')
        scorers = {'sorted ratio': fuzz.ratio, 'set ratio': fuzz.token_set_ratio}
        is_empty = np.array([not words for words in self.words], bool)
        unknown = is_empty[rows] | is_empty[ids]
        return {name: np.where(unknown, np.float32(-1), compared(scorer, self.sorted_words, rows, ids) / 100)
                for name, scorer in scorers.items()}
