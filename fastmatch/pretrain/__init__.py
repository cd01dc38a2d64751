"""Pretraining without labels: objectives for nets that read frames and text together (`Streams`).

`make_objectives` makes them by name for a net, `PretrainNet` puts both into one model, and `WeightedTerms` is
its loss; the callbacks are in `callbacks.py`.
"""
from .base import MaskedObjective, Objective, Objectives, PretrainNet, WeightedTerms
from .itc import ITC
from .itm import ITM
from .keep import WithObjectives
from .mfm import MFM
from .mlm import MLM
from .objectives import OBJECTIVES, make_objectives

__all__ = ['ITC', 'ITM', 'MFM', 'MLM', 'MaskedObjective', 'OBJECTIVES', 'Objective', 'Objectives',
           'PretrainNet', 'WeightedTerms', 'WithObjectives', 'make_objectives']
