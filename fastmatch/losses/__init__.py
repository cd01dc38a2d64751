"Losses in fastai's form: no parameters, no running state; class centres live in the model's head."
from ..core import auto_scale
from .base import Loss
from .classify import AsymmetricLoss, CrossEntropy, FocalLoss, MultiLabelFocalLoss, SoftFBeta, class_counts, class_weights
from .combine import HardRows, SumLoss
from .distill import Distill, SoftTarget
from .margin import AdaCos, ArcFace, CombinedMargin, CosFace, CurricularFace, LargeMarginSoftmax, NormSoftmax, SphereFace, class_margins
from .overlap import DiceBCE, Lovasz, SoftDice
from .pair import CenterLoss, Contrastive, MultiSimilarity, NTXent, SupCon, Triplet

__all__ = ['AdaCos', 'ArcFace', 'AsymmetricLoss', 'CenterLoss', 'CombinedMargin', 'Contrastive', 'CosFace', 'CrossEntropy',
           'CurricularFace', 'DiceBCE', 'Distill', 'FocalLoss', 'HardRows', 'LargeMarginSoftmax', 'Loss', 'Lovasz', 'MultiLabelFocalLoss',
           'MultiSimilarity', 'NTXent', 'NormSoftmax', 'SoftDice', 'SoftFBeta', 'SoftTarget', 'SphereFace', 'SumLoss', 'SupCon', 'Triplet',
           'auto_scale', 'class_counts', 'class_margins', 'class_weights']
