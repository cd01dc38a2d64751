"""The one form in which ids, groups, folds, hashes and titles are compared, whatever a table was read with.

The same id is 12 in one table, '12' in a second and 12.0 in a third, where another row lacks its id: pandas
makes floats of whole numbers then. The same title has an accent as one character or as two, the same hash
capitals or not. Every entry that takes such values brings them here, so that equals meet.
"""
import numbers
import re
import unicodedata
from decimal import Decimal

import numpy as np
import pandas as pd

from ..core import InputError, preview

BOOLS = bool, np.bool_
SEVERAL = list, tuple, set, frozenset, dict, np.ndarray  # cells that hold several things
NUMBERS = numbers.Real, Decimal  # numpy's are registered as `numbers.Real`
HASH_DIGITS = 16  # of a perceptual hash of 64 bits
EXACT = 2**53  # floats from here on do not tell neighboring whole numbers apart


def composed(
    text: str,
) -> str:
    "The text in Unicode's composed form (NFC): an accent is part of its letter, not a character behind it."
    return text if text.isascii() else unicodedata.normalize('NFC', text)


def comparable(
    text: str,
) -> str:
    """The text as it is compared with others: without capitals, with single blanks, without characters that
    are not seen, compatible forms (full-width letters, ligatures) as plain ones."""
    if not text.isascii():
        text = unicodedata.normalize('NFKC', unicodedata.normalize('NFKC', text).casefold())
        text = ''.join(character for character in text if unicodedata.category(character) != 'Cf')
    return ' '.join(text.casefold().split())


def as_text(
    cell,  # An id, a group: a number, a text, or nothing
) -> str | None:
    """What a cell says as text, without blanks around it: 12, 12.0 and '12 ' are '12', a list its elements;
    None where missing."""
    if isinstance(cell, str): return composed(str(cell)).strip()
    if isinstance(cell, SEVERAL): return ' '.join(filter(None, map(as_text, cell))) or None
    if pd.isna(cell): return None
    if isinstance(cell, NUMBERS) and not isinstance(cell, BOOLS) and float(cell).is_integer():
        return str(int(cell))
    return composed(str(cell)).strip()


def texts_of(
    cells,  # (n,) ids or groups of any types
) -> np.ndarray:  # object (n,), strings, None where missing
    "Ids or groups as text, for comparing those of one table with those of another."
    codes, distinct = pd.factorize(_column(cells))
    texts = np.array([*(as_text(cell) for cell in distinct), None], dtype=object)
    return texts[codes]


def several(
    cell,  # Of a column
) -> bool:
    "Whether a cell is a sequence of several entries: file names, hashes."
    return isinstance(cell, (list, tuple)) or (isinstance(cell, np.ndarray) and cell.dtype.kind in 'OUS')


def parts_of(
    key,  # Of a listing, as `key_sets` gives it
) -> tuple:
    "The keys of a listing, none where it has none."
    if several(key): return tuple(key)
    return () if key is None else (key,)


def key_sets(
    cells,  # (n,) keys of any types; a list, tuple or array where a listing has several
) -> np.ndarray:  # object (n,), strings, None where missing, tuples of two different strings or more
    "Keys as text, those of a listing with several each once; see `texts_of`."
    if isinstance(cells, np.ndarray) and cells.ndim > 1: cells = list(cells)
    if not any(several(cell) for cell in cells): return texts_of(cells)
    return _one_or_tuple([list(texts_of(list(cell))) if several(cell) else [as_text(cell)] for cell in cells])


def _one_or_tuple(parts_of_cells):
    "Lists of parts as cells: None without a part, the part alone, or a tuple of those that differ."
    cells = np.full(len(parts_of_cells), None, dtype=object)
    for row, parts in enumerate(parts_of_cells):
        distinct = tuple(dict.fromkeys(part for part in parts if part is not None))
        cells[row] = distinct if len(distinct) > 1 else distinct[0] if distinct else None
    return cells


def is_among(
    cells,  # (n,) ids or groups
    others,  # Ids or groups of another table, any number
) -> np.ndarray:  # bool (n,)
    "Which of the cells say the same as one of the others, whatever types both have; missing ones do not."
    known = {text for text in texts_of(list(others)) if text is not None}
    return np.array([text in known for text in texts_of(cells)], dtype=bool)


def codes_of(
    cells,  # (n,) of any types
) -> np.ndarray:  # int64 (n,)
    "Numbers from 0 in order of appearance, equal where cells say the same; -1 where one is missing."
    cells = _column(cells)
    codes, distinct = pd.factorize(cells)
    if cells.dtype.kind in 'iub': return codes.astype(np.int64)
    of_distinct = pd.factorize(np.array([as_text(cell) for cell in distinct], dtype=object))[0]
    return np.append(of_distinct, -1)[codes].astype(np.int64)


def tidy(
    cells,  # (n,) ids or groups, as a column or any other sequence
    what: str,  # What to call them in messages
) -> np.ndarray:  # (n,): whole numbers int64 where none is missing, mixed types object of strings
    """Ids or groups in one type: whole numbers as such, also where a missing cell had made floats of them,
    and text where there are both. Missing cells are None.

    Raises `InputError` for whole numbers that were read as floats and are too large for it.
    """
    cells = _column(cells)
    if cells.dtype.kind in 'iub' or not len(cells): return cells
    is_missing = np.array(pd.isna(cells), dtype=bool)
    filled = cells[~is_missing].tolist()
    if _are_whole(filled, what): filled = [int(cell) for cell in filled]
    elif cells.dtype.kind == 'f': return cells
    elif not all(isinstance(cell, BOOLS) for cell in filled): filled = [as_text(cell) for cell in filled]
    if cells.dtype.kind == 'U': return np.array(filled)
    tidied = np.full(len(cells), None, dtype=object)
    tidied[~is_missing] = filled
    is_whole = not is_missing.any() and isinstance(filled[0], int)
    return tidied.astype(bool if isinstance(filled[0], bool) else np.int64) if is_whole else tidied


def _are_whole(filled, what):
    "Whether all cells are whole numbers that int64 holds; those that a float can't hold raise."
    if not filled or not all(isinstance(cell, NUMBERS) and not isinstance(cell, BOOLS) for cell in filled):
        return False
    if not all(float(cell).is_integer() for cell in filled): return False
    lossy = [cell for cell in filled if isinstance(cell, float) and abs(cell) >= EXACT]
    if lossy:
        raise InputError(f'{what}: {preview(lossy)} were read as floats, which have no digits for them: '
                         'read the column as text (dtype=str)')
    return all(abs(int(cell)) < 2**63 for cell in filled)


def tidy_titles(
    titles,  # (n,) of any types, missing ones among them
) -> np.ndarray:  # object (n,)
    "Titles in composed form; what is no text stays as it is."
    return np.array([composed(str(title)) if isinstance(title, str) else title for title in titles], object)


def tidy_hashes(
    # (n,) hex digits, None where missing; of several pictures a list, or text with | or ; between
    hashes,
    what: str = 'phash',  # What to call them in messages
) -> np.ndarray:  # object (n,), strings, None where missing, tuples where a listing has several
    """Perceptual hashes in one form: lower case, without blanks and '0x'; what has no hex digits stays.

    A column of digits alone may have been read as whole numbers: they get back the zeros in front, up to 16
    digits. Raises `InputError` for hashes that were read as floats, whose last digits are lost.
    """
    if any(_holds_several(cell) for cell in hashes):
        parts = [_hashes_in(cell) for cell in hashes]
        flat = iter(tidy_hashes([part for of_cell in parts for part in of_cell], what))
        return _one_or_tuple([[next(flat) for _ in of_cell] for of_cell in parts])
    codes, distinct = pd.factorize(_column(hashes).astype(object))
    canonical = np.array([*(_tidy_hash(digits, what) for digits in distinct), None], dtype=object)
    return canonical[codes]


def _holds_several(cell):
    return several(cell) or (isinstance(cell, str) and ('|' in cell or ';' in cell))


def _hashes_in(cell):
    if several(cell): return list(cell)
    return re.split('[|;]', cell) if _holds_several(cell) else [cell]


def _tidy_hash(digits, what):
    if isinstance(digits, (float, np.floating)):
        raise InputError(f'{what}: {digits!r} was read as a float, which lacks the last digits: read the '
                         'column as text (dtype=str)')
    if isinstance(digits, numbers.Integral): return str(digits).zfill(HASH_DIGITS)
    text = as_text(digits).strip()
    if not re.fullmatch('(0[xX])?[0-9a-fA-F]+', text): return text or None
    return text.lower().removeprefix('0x')


def _column(cells):
    "A column as a 1-D array: numpy's own types as they are, categories and nullable types as objects."
    if isinstance(cells, np.ndarray): return cells
    # a list of numbers and texts would become texts in numpy
    series = cells if isinstance(cells, (pd.Series, pd.Index)) else pd.Series(list(cells), dtype=object)
    return series.to_numpy() if isinstance(series.dtype, np.dtype) else series.to_numpy(object)
