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
    out = np.empty(len(rows), np.float32)
    step = 1 << 20  # lists of strings are large
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        first, second = ([text[i] for i in ends[part].tolist()] for ends in (rows, ids))
        out[part] = rapidfuzz.process.cpdist(first, second, scorer=scorer, dtype=np.float32)
    return out


def overlap(
    words: list,  # (n,) lists of words
    rows,  # int (m,), the first listing of each pair
    ids,  # int (m,), the second
) -> np.ndarray:  # float32 (m,)
    "Words in common over words in both together; -1 where one has none, so that nothing can be said."
    code = {}
    sets = [sorted({code.setdefault(word, len(code)) for word in of_title}) for of_title in words]
    size = np.array([len(of_title) for of_title in sets])
    columns = np.fromiter((word for of_title in sets for word in of_title), np.int64)
    starts = np.concatenate([[0], size.cumsum()])
    shape = len(words), max(1, len(code))
    table = sparse.csr_matrix((np.ones(size.sum(), np.float32), columns, starts), shape)
    out = np.empty(len(rows), np.float32)
    step = 1 << 18
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        first, second = rows[part], ids[part]
        common = np.asarray(table[first].multiply(table[second]).sum(1)).ravel()
        both = np.maximum(size[first] + size[second] - common, 1)
        out[part] = np.where((size[first] > 0) & (size[second] > 0), common / both, -1)
    return out
