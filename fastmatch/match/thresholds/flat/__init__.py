"""The best thresholds of any fusion in milliseconds, for studies that try hundreds of fusions.

A fusion makes one score of those that a pair of listings has in several modalities. `Flat` prepares the
candidate pairs once. For each fusion, `Flat.sweep` searches only the pairs that score high enough to matter,
and goes on to lower scores where the best threshold could lie among them. The results are those of `Sweep`
and `RankSweep`, which search all pairs. The docstrings follow one example, of three listings and two
modalities (see `Flat`), small enough to be worked out by hand.
"""
from .pairs import FUSED, Flat
from .search import FlatSweep

__all__ = ['FUSED', 'Flat', 'FlatSweep']
