"""Optimizers for fastai: AdamW, RAdam, AdaBelief and Ranger over lists of tensors, Lookahead over any
optimizer, and PyTorch's and timm's optimizers under fastai's names for hyper-parameters."""
from .lookahead import Lookahead
from .ranger import AdaBelief, RAdam, adamw, ranger, ranger_adabelief
from .registry import list_opts, opt_func, optimizer_configs, rmsprop, sgd
from .wrap import Wrapped

__all__ = ['AdaBelief', 'Lookahead', 'RAdam', 'Wrapped', 'adamw', 'list_opts', 'opt_func',
           'optimizer_configs', 'ranger', 'ranger_adabelief', 'rmsprop', 'sgd']
