"Model numbers in titles: whether that of one title is in the other, spelled the same way or nearly."
import re

import numpy as np

from ...core import require_package

PIECE = re.compile(r'[^\s,;()\[\]]+')
NOT_IN_CODES = re.compile(r'[\W_]+')
SHORTEST, SHORTEST_NUMBER = 4, 5  # letters and digits of a code, digits of a number that is one
MOST_CODES = 6  # of a title, the longest ones


def letters_of(
    text: list[str],  # (n,) titles in lower case
) -> list[str]:  # (n,)
    "The letters and digits of each title in one run: 'DCR-TRV 30' and 'dcrtrv30' are written alike."
    return [NOT_IN_CODES.sub('', title) for title in text]


def codes_of(
    title: str,  # In lower case
) -> list[str]:
    """What looks like a model number, punctuation inside dropped: letters with digits, or a long number.

    Of very many the longest are taken, those of one length in alphabetical order.
    """
    codes = set()
    for piece in letters_of(PIECE.findall(title)):
        has_digits = any(letter.isdigit() for letter in piece)
        shortest = SHORTEST_NUMBER if piece.isdigit() else SHORTEST
        if has_digits and len(piece) >= shortest: codes.add(piece)
    return sorted(codes, key=lambda code: (-len(code), code))[:MOST_CODES]


class Codes:
    "The model numbers of titles, to be compared pair by pair."
    def __init__(
        self,
        text: list[str],  # (n,) titles in lower case
    ):
        self.letters = letters_of(text)
        self.codes = [codes_of(title) for title in text]
        self.counts = np.array([len(codes) for codes in self.codes])

    def features(
        self,
        rows,  # int (m,), the first title of each pair
        ids,  # int (m,), the second
    ) -> dict:  # Name -> float32 (m,)
        """How long a code of the first title is that is in the second ('code found') and the other way
        round ('code found back'), 0 for none; by how much the most similar codes of both are alike ('code
        alike'), and with how many equal letters two of them start ('code start').

        -1 where a title has no code, so that nothing can be said.
        """
        distance = require_package('rapidfuzz.distance', "the feature 'code'", 'rapidfuzz')
        table = np.full((4, len(rows)), -1, np.float32)
        pairs = zip(np.asarray(rows).tolist(), np.asarray(ids).tolist())
        for pair, (row, listing) in enumerate(pairs):
            own_codes, other_codes = self.codes[row], self.codes[listing]
            if own_codes: table[0, pair] = _longest_found(own_codes, self.letters[listing])
            if other_codes: table[1, pair] = _longest_found(other_codes, self.letters[row])
            if own_codes and other_codes: table[2:, pair] = _most_alike(own_codes, other_codes, distance)
        return dict(zip(['code found', 'code found back', 'code alike', 'code start'], table))


def _longest_found(codes, letters):
    # the longest comes first
    return next((len(code) for code in codes if code in letters), 0)


def _most_alike(own_codes, other_codes, distance):
    alike = start = 0
    for code in own_codes:
        for other in other_codes:
            alike = max(alike, distance.Levenshtein.normalized_similarity(code, other))
            start = max(start, distance.Prefix.similarity(code, other))
    return alike, start
