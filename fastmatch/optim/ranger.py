"""AdamW, RAdam and AdaBelief, and their Ranger forms under Lookahead; where fastai has the name too,
arguments are fastai's."""
from ..core import checks_options
from .base import AdamFamily, AdamVariant
from .lookahead import Lookahead


def adamw(params, lr, mom=.9, sqr_mom=.99, eps=1e-5, wd=.01, beta=0., decouple_wd=True,
          gc=False) -> AdamFamily:
    """AdamW with fastai's defaults, https://arxiv.org/abs/1711.05101; the arguments are those of
    `AdamFamily` and `AdamVariant`."""
    return AdamFamily(params, lr, mom, sqr_mom, eps, wd, AdamVariant(beta, decouple_wd, gc))


def RAdam(params, lr, mom=.9, sqr_mom=.99, eps=1e-5, wd=0., beta=0., decouple_wd=True,
          gc=False) -> AdamFamily:
    """Adam with a learning rate that is small while the squares are known from few steps,
    https://arxiv.org/abs/1908.03265

    It needs no warm-up. The arguments are those of `AdamFamily` and `AdamVariant`.
    """
    return AdamFamily(params, lr, mom, sqr_mom, eps, wd, AdamVariant(beta, decouple_wd, gc, rectify=True))


def AdaBelief(params, lr, mom=.9, sqr_mom=.999, eps=1e-8, wd=0., beta=0., decouple_wd=True, gc=False,
              rectify=False) -> AdamFamily:
    """Adam that divides by how far gradients are from their running average, https://arxiv.org/abs/2010.07468

    The authors' eps: 1e-8 for images, 1e-16 for text. The arguments are those of `AdamFamily` and
    `AdamVariant`.
    """
    variant = AdamVariant(beta, decouple_wd, gc, rectify, belief=True)
    return AdamFamily(params, lr, mom, sqr_mom, eps, wd, variant)


@checks_options(RAdam)
def ranger(
    params,  # Parameters, or a list of them for each group
    lr: float | slice,  # Learning rate
    mom: float = .95,  # Momentum of the gradients' running average
    wd: float = .01,  # Weight decay
    eps: float = 1e-6,  # Added to the root of the squares
    k: int = 6,  # Steps between two moves of Lookahead's slow weights
    alpha: float = .5,  # Share of the way that slow weights go
    gc: bool = True,  # Centralize gradients, https://arxiv.org/abs/2004.01461; False: fastai's ranger
    **kwargs,  # `sqr_mom`, `beta`, `decouple_wd`
) -> Lookahead:
    "Lookahead over RAdam with centralized gradients."
    return Lookahead(RAdam(params, lr, mom=mom, wd=wd, eps=eps, gc=gc, **kwargs), k, alpha)


@checks_options(AdaBelief)
def ranger_adabelief(
    params,  # Parameters, or a list of them for each group
    lr: float | slice,  # Learning rate
    mom: float = .95,  # Momentum of the gradients' running average
    wd: float = .01,  # Weight decay
    eps: float = 1e-8,  # Added to squares and root; 1e-16 for text, 1e-8 for images, never Adam's 1e-5
    k: int = 6,  # Steps between two moves of Lookahead's slow weights
    alpha: float = .5,  # Share of the way that slow weights go
    gc: bool = True,  # Centralize gradients
    **kwargs,  # `sqr_mom`, `beta`, `decouple_wd`, `rectify`
) -> Lookahead:
    "Lookahead over rectified AdaBelief with centralized gradients."
    options = {'mom': mom, 'wd': wd, 'eps': eps, 'gc': gc, 'rectify': True, **kwargs}
    return Lookahead(AdaBelief(params, lr, **options), k, alpha)
