"Codes of listings against plain loops: canonical forms, similarity, search."
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastmatch.match.fields.codes import Codes, canonical_code, canonical_codes, check_digit, is_gtin


def naive_edits(one, other):
    "Levenshtein distance by its recursion, a row at a time."
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, 1):
        above, row[0] = row[0], number
        for place, other_letter in enumerate(other, 1):
            above, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1,
                                                above + (letter != other_letter))
    return row[-1]


def naive_similarity(own, other):
    if not own or not other: return np.nan
    def of_two(one, two):
        if one == two: return 1.
        if is_gtin(one) and is_gtin(two): return 0.
        return 1 - naive_edits(one, two) / max(len(one), len(two))
    return max(of_two(one, two) for one in own for two in other)


@pytest.mark.parametrize('same', [
    ('DCR-TRV 30', 'dcrtrv30', 'DCR_TRV30 '),
    ('036000291452', '0036000291452', '00036000291452', 36000291452),  # a UPC, its EAN-13 and GTIN-14
    ('0-306-40615-2', '978-0-306-40615-7', 'ISBN 0306406152'.removeprefix('ISBN ')),
    ('ｅｌｐｌｐ１２', 'ELPLP12'),
    ('A1, B2', ['b2', 'a1'], ('B2', 'A1', 'a-1')),
])
def test_one_code_in_many_spellings(same):
    forms = {canonical_codes(cell) for cell in same[:-1]}
    assert len(forms) == 1 and None not in forms
    if not isinstance(same[-1], int): assert canonical_codes(same[-1]) in forms


@pytest.mark.parametrize('nothing', [None, np.nan, float('nan'), '', ' ', '-', 'N/A', 'n.a.', 'none', '0',
                                     '000', [], [None], ',,', 'Does not apply'])
def test_no_code(nothing):
    assert canonical_codes(nothing) is None


@given(st.text('0123456789', min_size=7, max_size=13).filter(lambda text: len(text) in (7, 11, 12, 13)))
def test_the_check_digit_by_its_definition(digits):
    "All digits weighted 3 and 1 in turn, the check digit with 1, add up to a multiple of ten."
    whole = digits + str(check_digit(digits))
    weights = [1 if place % 2 == 0 else 3 for place in range(len(whole))]
    assert sum(int(digit) * weight for digit, weight in zip(reversed(whole), weights)) % 10 == 0
    assert is_gtin(whole)
    wrong = digits + str((check_digit(digits) + 1) % 10)
    assert not is_gtin(wrong)


CELLS = st.lists(st.one_of(st.none(), st.lists(st.text('abc12', min_size=1, max_size=7), max_size=3)),
                 min_size=2, max_size=12)


@settings(max_examples=150, deadline=None)
@given(CELLS)
def test_similarity_by_plain_loops(cells):
    space = Codes('model', cells)
    canonical = [canonical_codes(cell) for cell in cells]
    rows = np.arange(len(cells))
    scores = space.scores(rows[:, None], np.tile(rows, (len(rows), 1)))
    expected = [[naive_similarity(own, other) for other in canonical] for own in canonical]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    np.testing.assert_array_equal(scores, scores.T)


@settings(max_examples=150, deadline=None)
@given(CELLS, st.integers(1, 6))
def test_search_finds_all_within_one_letter(cells, k):
    "The k best of those with an equal code or one left-out letter in common, by a loop over all pairs."
    space = Codes('model', cells)
    k = min(k, len(cells))
    found = space.search(k).check(self_join=True)
    keys = [_naive_keys(canonical_codes(cell)) for cell in cells]
    for row in range(len(cells)):
        mates = [other for other in range(len(cells)) if other != row and keys[row] & keys[other]]
        scores = {other: space.scores([row], [other])[0] for other in mates}
        expected = sorted(mates, key=lambda other: (-scores[other], other))[:k - 1]
        assert [listing for listing in found.ids[row, 1:] if listing >= 0] == expected


def _naive_keys(codes):
    keys = set()
    for code in codes or ():
        keys.add(code)
        if len(code) >= 5 and not is_gtin(code):
            keys |= {code[:place] + code[place + 1:] for place in range(len(code))}
    return keys


@settings(max_examples=60, deadline=None)
@given(CELLS, CELLS)
def test_queries_and_parts_score_as_one_space(cells, others):
    whole = Codes('model', cells + others)
    known = Codes('model', cells)
    queries = known.transform(others)
    rows = np.arange(len(others))[:, None]
    listings = np.tile(np.arange(len(cells)), (len(others), 1))
    np.testing.assert_array_equal(known.scores(rows, listings, queries),
                                  whole.scores(rows + len(cells), listings))
    appended = known.append(queries)
    assert appended.cells.tolist() == whole.cells.tolist()
    assert appended.take(np.arange(len(cells))).cells.tolist() == known.cells.tolist()


def test_a_code_on_very_many_listings_finds_nothing():
    space = Codes('model', ['SAME1'] * 51 + ['OTHER7'] * 2)
    found = space.search(3)
    assert (found.ids[:51, 1:] == -1).all() and found.ids[51].tolist() == [51, 52, -1]
    assert space.scores([0], [1])[0] == 1  # it is still the same code


def test_letters_alone_matter():
    every = string.ascii_letters + string.digits
    assert canonical_code('-' + '-'.join(every) + '_') == every.lower()
