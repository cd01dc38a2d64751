"Losses in fastai's form: no parameters, no running state; class centres live in the model's head."
from .base import Loss
from .classify import CrossEntropy, FocalLoss
from .margin import ArcFace, NormSoftmax

__all__ = ['ArcFace', 'CrossEntropy', 'FocalLoss', 'Loss', 'NormSoftmax']
