"`Codes`: model numbers, EAN, UPC, ISBN and the like, compared exactly and nearly."
import re

import numpy as np
import pandas as pd

from ...core import require_package
from ..cells import as_text, comparable
from ..neighbors import Neighbors, resolve_k
from .base import FieldSpace, as_objects

SEPARATORS = re.compile(r'[,;|\n]')  # between several codes in a cell
NOT_IN_CODES = re.compile(r'[\W_]+')
# what people write where there is no code
PLACEHOLDERS = {'', 'na', 'none', 'null', 'nan', 'unknown', 'doesnotapply', 'notapplicable', 'no', 'tbd'}
GTIN_LENGTHS = (8, 12, 13, 14)  # digits of EAN-8, UPC-A, EAN-13 and GTIN-14
GTIN = 14  # digits that all of them are written with here
ISBN = 10  # letters of the old ISBN, whose last may be an X
SHORTEST_NEAR = 5  # letters and digits of a code that is also looked up with one of them left out
MAX_SHARED = 50  # a key of more listings than this is a placeholder and finds nothing


def check_digit(
    digits: str,  # Of a GTIN without its last one
) -> int:
    "The last digit of a GTIN: weights 3 and 1 in turn from the right, to the next multiple of ten."
    weighted = sum(int(digit) * (3 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(digits)))
    return -weighted % 10


def canonical_code(
    code: str,
) -> str | None:
    """A code in one form: letters and digits alone, without capitals; EAN, UPC and ISBN with a right check
    digit as 14 digits; None for what is no code."""
    letters = NOT_IN_CODES.sub('', comparable(code))
    if letters in PLACEHOLDERS or not letters.strip('0'): return None
    if len(letters) == ISBN and re.fullmatch(r'\d{9}[\dx]', letters) and _is_isbn(letters):
        start = '978' + letters[:-1]
        return (start + str(check_digit(start))).zfill(GTIN)
    if is_gtin(letters): return letters.zfill(GTIN)
    return letters


def is_gtin(
    letters: str,  # Letters and digits
) -> bool:
    "Whether it is the number of an article: as many digits as those have, the last one right."
    return (len(letters) in GTIN_LENGTHS and letters.isascii() and letters.isdigit()
            and int(letters[-1]) == check_digit(letters[:-1]))


def _is_isbn(letters):
    numbers = [10 if letter == 'x' else int(letter) for letter in letters]
    return sum(number * weight for number, weight in zip(numbers, range(ISBN, 0, -1))) % 11 == 0


def canonical_codes(
    cell,  # A code, several with commas or the like between them, a list of codes, a number, or nothing
) -> tuple | None:
    "The codes of a cell in one form, sorted, each once; None for a cell without any."
    if isinstance(cell, (list, tuple, set, np.ndarray)): texts = [as_text(code) for code in cell]
    else: texts = SEPARATORS.split(as_text(cell) or '')
    codes = {canonical_code(text) for text in texts if text is not None} - {None}
    return tuple(sorted(codes)) or None


class Codes(FieldSpace):
    """Listings by the codes in a column: similarity 1 where one code of both is the same, otherwise how few
    edits lead from one to the other, as a share of the longer. Two article numbers whose check digits are
    right are never nearly the same.

    A search finds listings with the same code, or with one that differs by one letter or digit.
    """
    kind = 'code'
    is_searched = True

    def __init__(
        self,
        name: str,  # Of the column, for messages
        cells,  # (n,) cells as a table has them; canonical ones with `canonical`
        canonical: bool = False,  # Whether they are canonical already
    ):
        super().__init__(name, as_objects(cells if canonical else [canonical_codes(cell) for cell in cells]))

    def _with_cells(self, cells): return Codes(self.name, cells, canonical=True)

    def transform(self, cells):
        "New listings, to hand to `search` and `scores` as `queries`."
        return Codes(self.name, cells)

    def settings(self): return {}

    def search(self, k=None, queries=None):
        "The listings with an equal or nearly equal code, `k` at most, best first."
        k = resolve_k(k, len(self))
        self_join = queries is None
        queries = self if self_join else self._check_compatible(queries)
        own, theirs = (_keys(space.cells) for space in (self, queries))
        numbers = pd.factorize(np.array([*own[0], *theirs[0]], object))[0]
        listed = pd.DataFrame({'key': numbers[:len(own[0])], 'id': own[1]})
        sizes = listed.groupby('key').size()
        listed = listed[listed.key.isin(sizes.index[sizes <= MAX_SHARED])]
        asked = pd.DataFrame({'key': numbers[len(own[0]):], 'row': theirs[1]})
        pairs = asked.merge(listed, on='key')[['row', 'id']].drop_duplicates()
        rows, ids = pairs.row.to_numpy(np.int64), pairs.id.to_numpy(np.int64)
        scores = self.scores(rows, ids, None if self_join else queries)
        return Neighbors.from_pairs(rows, ids, scores, len(queries), self_join=self_join, k=k)

    def _pair_scores(self, queries, query_rows, listing_ids):
        best = np.full(len(query_rows), np.nan, np.float32)
        own, asked = _Table(self.cells), _Table(queries.cells)
        for query_place in range(asked.width):
            is_asked = asked.known[query_rows, query_place]
            for own_place in range(own.width):
                compared = np.flatnonzero(is_asked & own.known[listing_ids, own_place])
                if not len(compared): continue
                first, second = (query_rows[compared], query_place), (listing_ids[compared], own_place)
                scores = _similarity(asked.codes[first], own.codes[second],
                                     asked.is_checked[first] & own.is_checked[second])
                best[compared] = np.fmax(best[compared], scores)
        return best


class _Table:
    "The codes of n listings as a table, and what is known of each code: it stands in many pairs."
    def __init__(self, cells):
        self.width = max((len(codes) for codes in cells if codes is not None), default=1)
        # object (n, most of a listing), None behind a listing's last one
        self.codes = np.full((len(cells), self.width), None, object)
        self.known = np.zeros(self.codes.shape, bool)
        self.is_checked = np.zeros(self.codes.shape, bool)  # the number of an article, its last digit right
        for row, codes in enumerate(cells):
            if codes is None: continue
            self.codes[row, :len(codes)] = codes
            self.known[row, :len(codes)] = True
            self.is_checked[row, :len(codes)] = [is_gtin(code) for code in codes]


def _similarity(first, second, both_checked):
    "Of pairs of codes, float32 (m,); `both_checked`: whether both are numbers of articles."
    process = require_package('rapidfuzz.process', 'comparing codes', 'rapidfuzz')
    distance = require_package('rapidfuzz.distance', 'comparing codes', 'rapidfuzz')
    scores = (first == second).astype(np.float32)
    differing = np.flatnonzero((scores == 0) & ~both_checked)
    if len(differing):
        scores[differing] = process.cpdist(
            first[differing].tolist(), second[differing].tolist(), dtype=np.float32,
            scorer=distance.Levenshtein.normalized_similarity)
    return scores


def _keys(cells):
    "(keys, the listing of each): each code, and each with one letter or digit left out."
    keys, listings = [], []
    for listing, codes in enumerate(cells):
        of_listing = set(codes or ())
        for code in codes or ():
            if len(code) >= SHORTEST_NEAR and not is_gtin(code):
                of_listing |= {code[:place] + code[place + 1:] for place in range(len(code))}
        keys += sorted(of_listing)
        listings += [listing] * len(of_listing)
    return keys, np.array(listings, np.int64)
