"""The embedded samples: 2,100 listings of 751 emoji, each drawn and named by several 'sellers'; the same as
751 items with several frames and texts; the tables of two made-up shops.

`NOTICE` names the sellers and their licenses.
"""
from pathlib import Path

from .items import demo_items
from .shops import demo_shops

__all__ = ['demo_items', 'demo_path', 'demo_shops']


def demo_path() -> Path:
    "The folder of the sample: `listings.csv` (2,100 rows, 751 groups, folds 0-4) and `images/` (64 px PNGs)."
    return Path(__file__).parent
