"Where the embedded sample lies."
from pathlib import Path


def demo_path() -> Path:
    "The folder of the embedded sample: `listings.csv` (2,100 rows, 751 groups, folds 0-4) and `images/` (64 px PNGs)."
    return Path(__file__).parent/'demo'
