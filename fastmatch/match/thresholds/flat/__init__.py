"""The best thresholds of any fusion in milliseconds, for studies that try hundreds of fusions.

`Flat` prepares the candidates once. For each fusion, `Flat.sweep` searches only the pairs that score high
enough to matter, and more of them where the best threshold could lie lower. The results are those of
`Sweep` and `RankSweep`. All files use one example, of three listings and two modalities, that can be
followed with a pencil.
"""
from .pairs import FUSED, Flat
from .search import FlatSweep

__all__ = ['FUSED', 'Flat', 'FlatSweep']
