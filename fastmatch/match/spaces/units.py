"Quantities in titles: '500ml' and '0.5 l' agree, '500ml' and '250 ml' are two products."
import re

import numpy as np

from ...core import InputError, preview
from ..neighbors import Neighbors, resolve_k
from .base import Space

# dimension -> {words: factor to its base unit}; Malay and Indonesian words beside the English
UNITS = {
    'mass': {'mg': 1e-3, 'g gr gm gram grams': 1, 'kg kgs kilo kilogram kilograms': 1e3, 'oz ounce ounces': 28.349523, 'lb lbs pound pounds': 453.59237},
    'volume': {'ml cc': 1, 'cl': 10, 'dl': 100, 'l lt ltr liter liters litre litres': 1e3, 'fl_oz fl._oz floz': 29.5735, 'gal gallon gallons galon': 3785.41},
    'length': {'mm': 1, 'cm': 10, 'm meter meters metre metres': 1e3, 'inch inches " ″ ” \'\'': 25.4, 'ft feet': 304.8},
    'data': {'kb': 1e-3, 'mb': 1, 'gb': 1e3, 'tb': 1e6},
    'power': {'w watt watts': 1, 'kw': 1e3},
    'voltage': {'v volt volts': 1, 'kv': 1e3},
    'charge': {'mah': 1, 'ah': 1e3},
    'frequency': {'hz': 1, 'khz': 1e3, 'mhz': 1e6, 'ghz': 1e9},
    'count': {'pcs pc piece pieces pack packs pak tablet tablets tab kapsul capsule capsules sachet sachets sheet sheets lembar buah biji butir': 1},
}
FACTORS = {word.replace('_', ' '): (dim, factor) for dim, o in UNITS.items() for words, factor in o.items() for word in words.split()}
NUMBER = r'\d+(?:[.,/]\d+)*'
WORD = '|'.join(sorted(map(re.escape, FACTORS), key=len, reverse=True))
QUANTITY = re.compile(rf'(?<![\w.,/])((?:{NUMBER}\s*(?:[x×*]|{WORD})?\s*[x×*]\s*)*)({NUMBER})\s*-?\s*({WORD})(?!\w)')
PART = re.compile(rf'({NUMBER})\s*({WORD})?(?=\s*[x×*])')
THOUSANDS = re.compile(r'[1-9]\d{0,2}([.,]\d{3})+')
HOLDS = re.compile(rf'(?<!\w)(?:isi|pack of|set of|box of)\s*({NUMBER})(?!\w)')
NEAR = .005  # relative: conversions in titles are rounded ('8 oz (237 ml)')


def quantities(
    title: str,  # Any text
) -> dict:  # dimension -> sorted values in its base unit (g, ml, mm, MB, W, V, mAh, Hz, pieces)
    "The numbers with units in a title: '2 x 500ml' holds 2 pieces and 500 ml, '10x20 cm' 100 and 200 mm."
    found, text = {}, title.casefold()
    for times, number, word in QUANTITY.findall(text):
        dim, factor = FACTORS[word]
        found.setdefault(dim, set()).add(_value(number, factor))
        for more, unit in PART.findall(times):
            # sides of one thing, or so many of it
            d, f = FACTORS[unit] if unit else (dim, factor) if dim == 'length' else ('count', 1)
            found.setdefault(d, set()).add(_value(more, f))
    for number in HOLDS.findall(text): found.setdefault('count', set()).add(_value(number, 1))
    return {k: sorted(o for o in v if o > 0) for k, v in found.items() if any(o > 0 for o in v)}


def _value(text, factor):
    # 1.500 g are thousands, 1.500 kg and 0.500 g are not
    if factor <= 1 and THOUSANDS.fullmatch(text): return float(re.sub('[.,]', '', text)) * factor
    whole, _, below = text.replace(',', '.').partition('/')
    try: return float(whole) / float(below or 1) * factor
    # '1.2.3' is a version, '1/0' nothing
    except (ValueError, ZeroDivisionError): return 0.


class Units(Space):
    "Titles by their quantities, as a space that says no: similarity 0 where both name one dimension without a common value, otherwise 1; nobody's neighbour."
    _width = 1

    def __init__(
        self,
        titles,  # (n,) strings
    ):
        self.titles = list(titles)
        bad = [i for i, o in enumerate(self.titles) if not isinstance(o, str)]
        if bad: raise InputError(f'titles: rows {preview(bad)} are missing or not text')
        seen = [quantities(o) for o in self.titles]
        self.values = {}
        for dim in UNITS:
            if not (width := max((len(o.get(dim, ())) for o in seen), default=0)): continue
            table = self.values[dim] = np.full((len(seen), width), np.nan)
            for row, o in zip(table, seen): row[:len(o.get(dim, ()))] = o.get(dim, ())

    def __len__(self): return len(self.titles)
    def __repr__(self): return f'Units({len(self)} titles: {", ".join(self.values) or "no quantities"})'

    def take(self, rows): return Units(np.asarray(self.titles, object)[rows])
    def append(self, other): return Units(self.titles + self._check_compatible(other).titles)
    def transform(self, titles): return Units(titles)

    def _check_compatible(self, queries):
        if not isinstance(queries, Units): raise InputError(f'units: queries are {type(queries).__name__}, give Units')
        return queries

    def search(self, k=None, queries=None):
        k = resolve_k(k, len(self))
        n = len(self if queries is None else self._check_compatible(queries))
        return Neighbors.from_pairs([], [], [], n, self_join=queries is None, k=k)

    def _pairs(self, q, rows, ids):
        out = np.ones(len(rows), np.float32)
        for dim in set(self.values) & set(q.values):
            mine, theirs = self.values[dim], q.values[dim]
            both = np.flatnonzero(~np.isnan(theirs[rows, 0]) & ~np.isnan(mine[ids, 0]))
            a, b = theirs[rows[both]][:, :, None], mine[ids[both]][:, None, :]
            out[both[~(np.abs(a - b) <= NEAR * np.maximum(a, b)).any((1, 2))]] = 0
        return out
