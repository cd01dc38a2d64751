"`Units`: quantities in titles; '500ml' and '0.5 l' agree, '500ml' and '250 ml' are two products."
import re

import numpy as np

from ...core import InputError, preview
from ..neighbors import Neighbors, resolve_k
from .base import PairwiseSpace

# dimension -> {words: factor to its base unit}, a _ for a blank; Malay and Indonesian words beside the
# English
UNITS = {
    'mass': {'mg': 1e-3, 'g gr gm gram grams': 1, 'kg kgs kilo kilogram kilograms': 1e3,
             'oz ounce ounces': 28.349523, 'lb lbs pound pounds': 453.59237},
    'volume': {'ml cc': 1, 'cl': 10, 'dl': 100, 'l lt ltr liter liters litre litres': 1e3,
               'fl_oz fl._oz floz': 29.5735, 'gal gallon gallons galon': 3785.41},
    'length': {'mm': 1, 'cm': 10, 'm meter meters metre metres': 1e3, 'inch inches " ″ ” \'\'': 25.4,
               'ft feet': 304.8},
    'data': {'kb': 1e-3, 'mb': 1, 'gb': 1e3, 'tb': 1e6},
    'power': {'w watt watts': 1, 'kw': 1e3},
    'voltage': {'v volt volts': 1, 'kv': 1e3},
    'charge': {'mah': 1, 'ah': 1e3},
    'frequency': {'hz': 1, 'khz': 1e3, 'mhz': 1e6, 'ghz': 1e9},
    'count': {'pcs pc piece pieces pack packs pak tablet tablets tab kapsul capsule capsules sachet sachets '
              'sheet sheets lembar buah biji butir': 1},
}
# word -> (dimension, factor to its base unit)
FACTORS = {word.replace('_', ' '): (dimension, factor) for dimension, factors in UNITS.items()
           for words, factor in factors.items() for word in words.split()}
NUMBER = r'\d+(?:[.,/]\d+)*'
WORD = '|'.join(sorted(map(re.escape, FACTORS), key=len, reverse=True))
# '2 x 500 ml', '10cm x 20 cm': what comes before the last 'x', the last number, its unit
QUANTITY = re.compile(rf'(?<![\w.,/])((?:{NUMBER}\s*(?:[x×*]|{WORD})?\s*[x×*]\s*)*)'
                      rf'({NUMBER})\s*-?\s*({WORD})(?!\w)')
PART = re.compile(rf'({NUMBER})\s*({WORD})?(?=\s*[x×*])')
THOUSANDS = re.compile(r'[1-9]\d{0,2}([.,]\d{3})+')
PACK = re.compile(rf'(?<!\w)(?:isi|pack of|set of|box of)\s*({NUMBER})(?!\w)')
TOLERANCE = .005  # relative: conversions in titles are rounded ('8 oz (237 ml)')


def quantities(
    title: str,  # Any text
) -> dict:  # dimension -> sorted values in its base unit (g, ml, mm, MB, W, V, mAh, Hz, pieces)
    "The numbers with units in a title: '2 x 500ml' holds 2 pieces and 500 ml, '10x20 cm' 100 and 200 mm."
    found_values = {}
    lower_title = title.casefold()
    for multiples, number, unit_word in QUANTITY.findall(lower_title):
        dimension, factor = FACTORS[unit_word]
        found_values.setdefault(dimension, set()).add(_base_value(number, factor))
        for multiple, own_word in PART.findall(multiples):
            # numbers without a unit are the sides of one thing, or how many of it there are
            if own_word: own_dimension, own_factor = FACTORS[own_word]
            else: own_dimension, own_factor = (dimension, factor) if dimension == 'length' else ('count', 1)
            found_values.setdefault(own_dimension, set()).add(_base_value(multiple, own_factor))
    for number in PACK.findall(lower_title):
        found_values.setdefault('count', set()).add(_base_value(number, 1))
    found_values = {dimension: sorted(value for value in values if value > 0)
                    for dimension, values in found_values.items()}
    return {dimension: values for dimension, values in found_values.items() if values}


def _base_value(number, factor):
    "A number as it is written, in the base unit; 0 for what is none."
    # 1.500 g are thousands, 1.500 kg and 0.500 g are not
    if factor <= 1 and THOUSANDS.fullmatch(number): return float(re.sub('[.,]', '', number)) * factor
    numerator, _, denominator = number.replace(',', '.').partition('/')
    try: return float(numerator) / float(denominator or 1) * factor
    # '1.2.3' is a version, '1/0' nothing
    except (ValueError, ZeroDivisionError): return 0.


class Units(PairwiseSpace):
    """Titles by their quantities, for vetoes: similarity 0 where both titles name a dimension without a
    common value.

    All other pairs have similarity 1, and nobody is anybody's neighbor: a search finds the listing itself
    alone.
    """
    def __init__(
        self,
        titles,  # (n,) strings
    ):
        self.titles = list(titles)
        wrong_rows = [number for number, title in enumerate(self.titles) if not isinstance(title, str)]
        if wrong_rows: raise InputError(f'titles: rows {preview(wrong_rows)} are missing or not text')
        title_quantities = [quantities(title) for title in self.titles]
        self.values = {}  # dimension -> float64 (n, most values of a title), NaN behind a title's last value
        for dimension in UNITS:
            n_columns = max((len(values.get(dimension, ())) for values in title_quantities), default=0)
            if not n_columns: continue
            value_table = np.full((len(title_quantities), n_columns), np.nan)
            for table_row, quantities_by_dimension in zip(value_table, title_quantities):
                values = quantities_by_dimension.get(dimension, ())
                table_row[:len(values)] = values
            self.values[dimension] = value_table

    def __len__(self): return len(self.titles)
    def __repr__(self): return f'Units({len(self)} titles: {", ".join(self.values) or "no quantities"})'

    def take(self, rows):
        "A space of some of the titles, by row numbers or bool (n,)."
        return Units(np.asarray(self.titles, object)[rows])

    def append(self, other):
        "A space of these titles and, behind them, those of `other`."
        return Units(self.titles + self._check_compatible(other).titles)

    def transform(
        self,
        titles,  # (m,) strings, one a new listing
    ) -> 'Units':
        "New listings, to hand to `search` and `scores` as `queries`."
        return Units(titles)

    def search(self, k=None, queries=None):
        "Each listing itself, or nothing for queries: quantities can refuse a match, not propose one."
        k = resolve_k(k, len(self))
        n_rows = len(self if queries is None else self._check_compatible(queries))
        return Neighbors.from_pairs([], [], [], n_rows, self_join=queries is None, k=k)

    def _check_compatible(self, queries):
        if not isinstance(queries, Units):
            raise InputError(f'units: queries are {type(queries).__name__}, give Units')
        return queries

    def _pair_scores(self, queries, query_rows, listing_ids):
        scores = np.ones(len(query_rows), np.float32)
        for dimension in set(self.values) & set(queries.values):
            own_values, query_values = self.values[dimension], queries.values[dimension]
            is_missing = np.isnan(query_values[query_rows, 0]) | np.isnan(own_values[listing_ids, 0])
            compared = np.flatnonzero(~is_missing)
            # every value of the one title against every value of the other
            a = query_values[query_rows[compared]][:, :, None]
            b = own_values[listing_ids[compared]][:, None, :]
            is_agreed = (np.abs(a - b) <= TOLERANCE * np.maximum(a, b)).any((1, 2))
            scores[compared[~is_agreed]] = 0
        return scores
