"RAdam, AdaBelief and their Lookahead forms as fastai `opt_func`s; names that fastai has too take its arguments."
from .base import AdamFamily
from .lookahead import Lookahead


def adamw(params, lr, mom=.9, sqr_mom=.99, eps=1e-5, wd=.01, beta=0., decouple_wd=True, gc=False) -> AdamFamily:
    "AdamW with fastai's defaults, https://arxiv.org/abs/1711.05101"
    return AdamFamily(params, lr, mom, sqr_mom, eps, wd, beta, decouple_wd, gc)


def RAdam(params, lr, mom=.9, sqr_mom=.99, eps=1e-5, wd=0., beta=0., decouple_wd=True, gc=False) -> AdamFamily:
    "Adam with a rate rectified for what few steps can't know, https://arxiv.org/abs/1908.03265"
    return AdamFamily(params, lr, mom, sqr_mom, eps, wd, beta, decouple_wd, gc, rectify=True)


def AdaBelief(params, lr, mom=.9, sqr_mom=.999, eps=1e-8, wd=0., beta=0., decouple_wd=True, gc=False, rectify=False) -> AdamFamily:
    "Adam that divides by the surprise of a gradient, https://arxiv.org/abs/2010.07468; eps from the authors: 1e-8 for images, 1e-16 for text."
    return AdamFamily(params, lr, mom, sqr_mom, eps, wd, beta, decouple_wd, gc, rectify, belief=True)


def ranger(
    params,  # Parameters, or a list of them for each group
    lr: float | slice,  # Learning rate
    mom: float = .95,  # Momentum of the average
    wd: float = .01,  # Weight decay
    eps: float = 1e-6,  # Added to the root
    k: int = 6,  # Steps between two meetings of fast and slow weights
    alpha: float = .5,  # Share of the way that slow weights go
    gc: bool = True,  # Centralise gradients, https://arxiv.org/abs/2004.01461; False is fastai's ranger
    **kwargs,  # `sqr_mom`, `beta`, `decouple_wd`
) -> Lookahead:
    "RAdam with gradient centralization under Lookahead."
    return Lookahead(RAdam(params, lr, mom=mom, wd=wd, eps=eps, gc=gc, **kwargs), k, alpha)


def ranger_adabelief(
    params,  # Parameters, or a list of them for each group
    lr: float | slice,  # Learning rate
    mom: float = .95,  # Momentum of the average
    wd: float = .01,  # Weight decay
    eps: float = 1e-8,  # Added to the squares and to the root: 1e-8 for images and half precision, 1e-16 for text, never Adam's 1e-5
    k: int = 6,  # Steps between two meetings of fast and slow weights
    alpha: float = .5,  # Share of the way that slow weights go
    gc: bool = True,  # Centralise gradients
    **kwargs,  # `sqr_mom`, `beta`, `decouple_wd`, `rectify`
) -> Lookahead:
    "Rectified AdaBelief with gradient centralization under Lookahead."
    return Lookahead(AdaBelief(params, lr, **{'mom': mom, 'wd': wd, 'eps': eps, 'gc': gc, 'rectify': True, **kwargs}), k, alpha)
