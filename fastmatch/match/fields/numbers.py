"`Numbers`: prices, weights, pack sizes, compared by their relative difference."
import math
import numbers
import re

import numpy as np

from ...core import InputError, preview
from ..cells import BOOLS, as_text
from ..spaces.units import FACTORS
from .base import FieldSpace, as_objects

SYMBOLS = {'$': 'USD', '€': 'EUR', '£': 'GBP', '¥': 'JPY', '₹': 'INR', '₩': 'KRW', 'Rp': 'IDR', 'zł': 'PLN',
           'kr': 'SEK', 'CHF': 'CHF', 'RM': 'MYR', 'R$': 'BRL'}
CURRENCIES = {*SYMBOLS.values(), 'AUD', 'CAD', 'CNY', 'DKK', 'HKD', 'MXN', 'NOK', 'NZD', 'SGD', 'THB', 'TRY',
              'VND', 'ZAR'}
NUMBER = re.compile(r'[-+]?\d[\d.,’\' \u00a0\u202f]*')
SCIENTIFIC = re.compile(r'[-+]?\d+(?:\.\d+)?[eE][-+]?\d+')
THOUSANDS = re.compile(r'\d{1,3}([.,])\d{3}(\1\d{3})*')
PLAIN = ''  # the dimension of a number without a unit


def parse_number(
    cell,  # A number, a text with one and perhaps a unit or a currency, or nothing
) -> tuple | None:
    """(value, unit) of a cell: ('$1,299.00') is (1299, 'USD'), '1.5 kg' (1500, 'weight'), 12 (12, ''); None
    for a missing cell.

    A comma or point before exactly three digits at the end separates thousands where there is one alone in a
    text with a currency, or where both are used. Raises `ValueError` for a text without a number.
    """
    if isinstance(cell, numbers.Real) and not isinstance(cell, BOOLS):
        return (float(cell), PLAIN) if math.isfinite(cell) else None
    text = as_text(cell)
    if not text or text.lower() in ('nan', 'none', 'n/a', 'na', '-'): return None
    # as computers write small and large ones
    if SCIENTIFIC.fullmatch(text): return float(text), PLAIN
    found = NUMBER.search(text)
    if found is None: raise ValueError(f'{text!r} holds no number')
    before, after = text[:found.start()].strip(), text[found.end():].strip()
    currency = _currency(before) or _currency(after)
    value = _value(found[0], currency is not None)
    if currency is not None: return value, currency
    word = re.match(r'[^\W\d_]+', after.casefold())
    if word is not None and word[0] in FACTORS:
        dimension, factor = FACTORS[word[0]]
        return value * factor, dimension
    return value, after.casefold() if after else PLAIN


def _currency(text):
    "The code of the currency that a text names, or None."
    if text in SYMBOLS: return SYMBOLS[text]
    return text.upper() if text.isascii() and text.upper() in CURRENCIES else None


def _value(written, is_money):
    "A number as it is written, with either kind of decimal point."
    digits = re.sub(r"[’'\s\u00a0\u202f]", '', written).rstrip('.,')
    marks = [letter for letter in digits if letter in '.,']
    if len(set(marks)) == 2:
        # the last of both is the decimal point
        thousands = marks[0]
        return float(digits.replace(thousands, '').replace(',', '.'))
    unsigned = digits.lstrip('+-')
    if len(marks) > 1 or (marks == [','] and THOUSANDS.fullmatch(unsigned)) or (
            marks and is_money and THOUSANDS.fullmatch(unsigned)):
        return float(digits.replace(marks[0], ''))
    return float(digits.replace(',', '.'))


class Numbers(FieldSpace):
    """Listings by a number: the similarity is 1 - |a - b| / the larger of |a| and |b|, 0 for numbers of
    opposite sign. Numbers in different units or currencies say nothing of each other, unless `rates` has
    both currencies.

    A search finds each listing itself alone. Raises `InputError` naming the rows whose cells hold no number.
    """
    kind = 'number'

    def __init__(
        self,
        name: str,  # Of the column, for messages
        cells,  # (n,) cells as a table has them; canonical ones with `canonical`
        unit: str | None = None,  # Unit or currency of numbers that are written without: 'kg', 'EUR'
        rates: dict | None = None,  # Currency -> its worth in a common one: {'EUR': 1.08, 'USD': 1}
        canonical: bool = False,  # Whether cells are canonical already
    ):
        self.unit = unit
        self.rates = _checked_rates(name, rates)
        super().__init__(name, as_objects(cells if canonical else self._parsed(name, cells)))

    def _parsed(self, name, cells):
        parsed, faults = [], []
        for row, cell in enumerate(cells):
            try: number = parse_number(cell)
            except ValueError as error:
                faults.append(f'row {row}: {error}')
                number = None
            parsed.append(None if number is None else self._in_common_unit(*number))
        if faults: raise InputError(f'{name}: {len(faults)} cells hold no number: {preview(faults)}')
        return parsed

    def _in_common_unit(self, value, unit):
        if unit == PLAIN and self.unit is not None:
            unit = self.unit
            if unit.casefold() in FACTORS:
                unit, factor = FACTORS[unit.casefold()]
                value = value * factor
        if unit in self.rates: return value * self.rates[unit], 'money'
        return value, unit

    def _with_cells(self, cells): return Numbers(self.name, cells, self.unit, self.rates, canonical=True)

    def transform(self, cells):
        "New listings, to hand to `search` and `scores` as `queries`."
        return Numbers(self.name, cells, self.unit, self.rates)

    def settings(self):
        settings = {'unit': self.unit, 'rates': self.rates}
        return {option: value for option, value in settings.items() if value}

    def pair_features(self, rows, ids):
        "The logarithm of how many times the second number is the first; 0 where that is unknown."
        (first, units), (second, other_units) = (_columns(self.cells[side]) for side in (rows, ids))
        with np.errstate(divide='ignore', invalid='ignore'): ratios = np.log(second / first)
        usable = np.isfinite(ratios) & (units == other_units)
        return {f'{self.name} ratio': np.where(usable, ratios, 0).astype(np.float32)}

    def _pair_scores(self, queries, query_rows, listing_ids):
        first, units = _columns(queries.cells)
        second, other_units = _columns(self.cells)
        first, second = first[query_rows], second[listing_ids]
        is_compared = (units[query_rows] == other_units[listing_ids]) & ~np.isnan(first) & ~np.isnan(second)
        larger = np.maximum(np.abs(first), np.abs(second))
        with np.errstate(invalid='ignore'):
            similarity = 1 - np.abs(first - second) / np.where(larger > 0, larger, 1)
        return np.where(is_compared, np.maximum(similarity, 0), np.nan)


def _columns(cells):
    "Values, float64 (n,) with NaN where missing, and units, object (n,)."
    values = np.array([np.nan if cell is None else cell[0] for cell in cells], np.float64)
    return values, as_objects([None if cell is None else cell[1] for cell in cells])


def _checked_rates(name, rates):
    rates = dict(rates or {})
    wrong = {currency: rate for currency, rate in rates.items()
             if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < math.inf}
    if wrong: raise InputError(f'{name}: rates={wrong}: give numbers above 0')
    return rates
