"How alike two titles are: by edits, and by the words that they share."
import re

import numpy as np
from scipy import sparse

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
    scorer = rapidfuzz.distance.Levenshtein.normalized_similarity
    rows, ids = np.asarray(rows), np.asarray(ids)
    similarities = np.empty(len(rows), np.float32)
    block_size = 1 << 20  # lists of strings are large
    for block_start in range(0, len(rows), block_size):
        block = slice(block_start, block_start + block_size)
        first_titles, second_titles = ([text[listing] for listing in ends[block].tolist()]
                                       for ends in (rows, ids))
        similarities[block] = rapidfuzz.process.cpdist(
            first_titles, second_titles, scorer=scorer, dtype=np.float32)
    return similarities


def overlap(
    words: list,  # (n,) lists of words
    rows,  # int (m,), the first listing of each pair
    ids,  # int (m,), the second
) -> np.ndarray:  # float32 (m,)
    "Words in common over words in both together; -1 where one has none, so that nothing can be said."
    word_codes = {}
    word_sets = [sorted({word_codes.setdefault(word, len(word_codes)) for word in title_words})
                 for title_words in words]
    set_sizes = np.array([len(title_words) for title_words in word_sets])
    word_columns = np.fromiter((word for title_words in word_sets for word in title_words), np.int64)
    title_starts = np.concatenate([[0], set_sizes.cumsum()])
    shape = len(words), max(1, len(word_codes))
    word_table = sparse.csr_matrix((np.ones(set_sizes.sum(), np.float32), word_columns, title_starts), shape)
    overlaps = np.empty(len(rows), np.float32)
    block_size = 1 << 18
    for block_start in range(0, len(rows), block_size):
        block = slice(block_start, block_start + block_size)
        first_titles, second_titles = rows[block], ids[block]
        common_words = np.asarray(word_table[first_titles].multiply(word_table[second_titles]).sum(1)).ravel()
        all_words = np.maximum(set_sizes[first_titles] + set_sizes[second_titles] - common_words, 1)
        both_have_words = (set_sizes[first_titles] > 0) & (set_sizes[second_titles] > 0)
        overlaps[block] = np.where(both_have_words, common_words / all_words, -1)
    return overlaps
