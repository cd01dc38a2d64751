"Titles taken apart into words, and compared by edits."
import re

import numpy as np

from ...core import require_package

WORD = re.compile(r'[^\W_]+')


def words_of(
    text: list[str],  # (n,) titles in lower case
) -> list[list[str]]:  # (n,)
    "The words of each title: runs of letters and digits."
    return [WORD.findall(title) for title in text]


def with_digits(
    words: list[list[str]],  # (n,) words of each title
) -> list[list[str]]:  # (n,)
    "Of each title the words with a digit: model numbers and sizes, as a rule."
    return [[word for word in of_title if any(letter.isdigit() for letter in word)] for of_title in words]


def edit_similarity(
    text: list[str],  # (n,) titles
    rows,  # int (m,), the first title of each pair
    ids,  # int (m,), the second
) -> np.ndarray:  # float32 (m,), 1 for equal ones
    "1 - Levenshtein distance / the longer length."
    rapidfuzz = require_package('rapidfuzz', "the feature 'title'")
    return compared(rapidfuzz.distance.Levenshtein.normalized_similarity, text, rows, ids)


def compared(
    scorer,  # One of rapidfuzz's
    text: list[str],  # (n,) titles
    rows,  # int (m,), the first title of each pair
    ids,  # int (m,), the second
) -> np.ndarray:  # float32 (m,)
    "What a scorer says of each pair."
    process = require_package('rapidfuzz.process', 'comparing titles', 'rapidfuzz')
    rows, ids = np.asarray(rows), np.asarray(ids)
    values = np.empty(len(rows), np.float32)
    block_size = 1 << 20  # lists of strings are large
    for block_start in range(0, len(rows), block_size):
        block = slice(block_start, block_start + block_size)
        first_titles, second_titles = ([text[listing] for listing in ends[block].tolist()]
                                       for ends in (rows, ids))
        values[block] = process.cpdist(first_titles, second_titles, scorer=scorer, dtype=np.float32)
    return values
