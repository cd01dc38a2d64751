"""Losses in fastai's form, without parameters or running state; the class centers they need are in the
model's head.

`margin` and `softmax` for class centers, `pair` for pairs of a batch, `classify` and `multilabel` for
classification, `overlap` for masks, `distill` for learning from probabilities, `combine` for sums of losses.
"""
from ..core import auto_scale
from .base import Loss
from .classify import CrossEntropy, FocalLoss, class_counts, class_weights
from .combine import HardRows, SumLoss
from .distill import Distill, SoftTarget
from .margin import (
    ArcFace,
    CombinedMargin,
    CosFace,
    CurricularFace,
    LargeMarginSoftmax,
    SphereFace,
    class_margins,
)
from .multilabel import AsymmetricLoss, MultiLabelFocalLoss, SoftFBeta
from .overlap import DiceBCE, Lovasz, MaskAndPresence, SoftDice
from .pair import CenterLoss, Contrastive, MultiSimilarity, NTXent, SupCon, Triplet
from .softmax import AdaCos, NormSoftmax

__all__ = ['AdaCos', 'ArcFace', 'AsymmetricLoss', 'CenterLoss', 'CombinedMargin', 'Contrastive', 'CosFace',
           'CrossEntropy', 'CurricularFace', 'DiceBCE', 'Distill', 'FocalLoss', 'HardRows',
           'LargeMarginSoftmax', 'Loss', 'Lovasz', 'MaskAndPresence', 'MultiLabelFocalLoss',
           'MultiSimilarity', 'NTXent', 'NormSoftmax', 'SoftDice', 'SoftFBeta', 'SoftTarget', 'SphereFace',
           'SumLoss', 'SupCon', 'Triplet', 'auto_scale', 'class_counts', 'class_margins', 'class_weights']
