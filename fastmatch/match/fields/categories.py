"`Categories`: brands, colours, sizes: few values in many spellings."
import re
from collections import Counter

import numpy as np
import pandas as pd

from ...core import InputError, require_package
from ..cells import as_text, comparable
from .base import FieldSpace, as_objects, filled

NOT_IN_WORDS = re.compile(r'[\W_]+')
PART = .9  # similarity of a value whose words are all in the other's: 'sony' and 'sony electronics'
LEAST_MATCHES = 2  # known matches that two spellings must have before they count as synonyms


def canonical_category(
    cell,  # Text, a number, or nothing
) -> str | None:
    "A value in one spelling: its words without capitals and punctuation; None for a cell without any."
    text = as_text(cell)
    if text is None: return None
    return ' '.join(NOT_IN_WORDS.sub(' ', comparable(text)).split()) or None


class Categories(FieldSpace):
    """Listings by the value of a column: similarity 1 for the same value in any spelling, and for synonyms;
    otherwise the larger of how few edits lead from one to the other and of the words in common.

    A search finds each listing itself alone: a brand has too many listings to propose them.
    """
    kind = 'category'

    def __init__(
        self,
        name: str,  # Of the column, for messages
        cells,  # (n,) cells as a table has them
        synonyms: dict | None = None,  # Spelling -> the one it stands for, both in any spelling
    ):
        self.synonyms = {}
        for spelling, meant in (synonyms or {}).items():
            canonical, target = canonical_category(spelling), canonical_category(meant)
            if canonical is None or target is None:
                raise InputError(f'{name}: synonyms={{{spelling!r}: {meant!r}}}: give two values')
            self.synonyms[canonical] = target
        values = [canonical_category(cell) for cell in cells]
        super().__init__(name, as_objects([self._meant(value) for value in values]))

    def _meant(self, value):
        "What a value stands for, through synonyms of synonyms."
        seen = set()
        while value in self.synonyms and value not in seen:
            seen.add(value)
            value = self.synonyms[value]
        return value

    def _with_cells(self, cells): return Categories(self.name, cells, self.synonyms)

    def transform(self, cells):
        "New listings, to hand to `search` and `scores` as `queries`."
        return Categories(self.name, cells, self.synonyms)

    def settings(self): return {'synonyms': self.synonyms} if self.synonyms else {}

    def learnt(
        self,
        rows,  # int (m,), the first listing of each known match
        ids,  # int (m,), the second
        least: int = LEAST_MATCHES,  # Matches that two spellings must have in common
    ) -> 'Categories':
        """The space with the synonyms that known matches show: two values that `least` matches have, and half
        at least of the matches of the rarer one that has another value."""
        first, second = self.cells[rows], self.cells[ids]
        pairs = Counter(tuple(sorted(values)) for values in zip(first, second)
                        if None not in values and values[0] != values[1])
        of_value: Counter = Counter()
        all_values = Counter(value for value in self.cells if value is not None)
        for values, count in pairs.items():
            for value in values: of_value[value] += count
        synonyms = dict(self.synonyms)
        for (one, other), count in sorted(pairs.items(), key=lambda item: (-item[1], item[0])):
            rarer, commoner = sorted((one, other), key=lambda value: (all_values[value], value))
            if count >= least and 2 * count >= of_value[rarer] and rarer not in synonyms:
                synonyms[rarer] = commoner
        return Categories(self.name, self.cells, synonyms)

    def pair_features(self, rows, ids):
        "Whether the values are the same, -1 where that is unknown."
        first, second = self.cells[rows], self.cells[ids]
        is_known = self.known[rows] & self.known[ids]
        return {f'{self.name} same': filled(np.where(is_known, first == second, np.nan))}

    def _pair_scores(self, queries, query_rows, listing_ids):
        scores = np.full(len(query_rows), np.nan, np.float32)
        codes, values = pd.factorize(np.concatenate([queries.cells, self.cells]))
        first, second = codes[query_rows], codes[len(queries) + listing_ids]
        compared = np.flatnonzero((first >= 0) & (second >= 0))
        if not len(compared): return scores
        # few values, and many pairs of the same two
        pair_codes, pairs = pd.factorize(first[compared] * len(values) + second[compared])
        one, other = np.divmod(pairs, len(values))
        scores[compared] = _similarities(list(zip(values[one], values[other])))[pair_codes]
        return scores


def _similarities(pairs):
    "Of pairs of values, float32 (m,)."
    distance = require_package('rapidfuzz.distance', 'comparing categories', 'rapidfuzz')
    scores = np.empty(len(pairs), np.float32)
    for number, (one, other) in enumerate(pairs):
        words, other_words = set(one.split()), set(other.split())
        shared = len(words & other_words) / min(len(words), len(other_words))
        edits = distance.Levenshtein.normalized_similarity(one, other)
        scores[number] = 1. if one == other else max(edits, PART * shared)
    return scores
