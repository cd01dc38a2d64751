"Optimizers right under fastai: list kernels, Lookahead, torch's and timm's with fastai's words."
from ..optim import flags  # noqa: F401  tells optimizers of norms, biases, embeddings and centres
from .lookahead import Lookahead
from .ranger import AdaBelief, RAdam, adamw, ranger, ranger_adabelief
from .registry import list_opts, opt_func, optimizer_configs, rmsprop, sgd
from .wrap import Wrapped

__all__ = ['AdaBelief', 'Lookahead', 'RAdam', 'Wrapped', 'adamw', 'list_opts', 'opt_func', 'optimizer_configs', 'ranger', 'ranger_adabelief', 'rmsprop',
           'sgd']
