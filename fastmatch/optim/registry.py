"""Optimizers by name: this package's, PyTorch's, and all of timm's factory, each with defaults for images
or text."""
from functools import partial

import torch

from ..core import InputError, MissingPackage, checks_options, preview, require_package
from .lookahead import Lookahead
from .ranger import AdaBelief, RAdam, adamw, ranger, ranger_adabelief
from .wrap import Wrapped


@checks_options(Wrapped, torch.optim.SGD)
def sgd(params, lr, mom=0., wd=0., nesterov=False, **kwargs) -> Wrapped:
    "PyTorch's SGD with decoupled decay; at `mom=0` a schedule's momentum has no effect."
    return Wrapped(params, lr, torch.optim.SGD, wd, momentum=mom, nesterov=nesterov, **kwargs)


@checks_options(Wrapped, torch.optim.RMSprop)
def rmsprop(params, lr, mom=0., sqr_mom=.99, eps=1e-8, wd=0., **kwargs) -> Wrapped:
    "PyTorch's RMSprop with decoupled decay; at `mom=0` a schedule's momentum has no effect."
    return Wrapped(params, lr, torch.optim.RMSprop, wd, momentum=mom, alpha=sqr_mom, eps=eps, **kwargs)


def with_wd_names(
    params,  # Parameters, or a list of them for each group
    lr: float | slice,  # Learning rate
    *arguments,  # Further arguments of `make_optimizer`
    make_optimizer,  # (params, lr, ...) -> optimizer, with an option `decouple_wd`
    true_wd: bool | None = None,  # `decouple_wd`: decay the weights and not the gradients
    bn_wd: bool | None = None,  # Decay biases and norms too; None: as the Learner's `wd_bn_bias` says
    **options,  # Further options of `make_optimizer`
):
    "An optimizer that also knows two options of weight decay by the names of fastai's first version."
    if true_wd is not None:
        if 'decouple_wd' in options:
            raise InputError('true_wd and decouple_wd are the same: give one of them')
        options['decouple_wd'] = true_wd
    optimizer = make_optimizer(params, lr, *arguments, **options)
    # `prepare_optimizer` asks it
    optimizer.bn_wd = bn_wd
    return optimizer


_CONFIGS = {
    'adamw': adamw,
    'radam': RAdam,
    'adabelief': AdaBelief,
    'ranger': ranger,
    'ranger_nogc': partial(ranger, gc=False),
    'rangeradabelief': ranger_adabelief,
    'rangeradabelief_nogc': partial(ranger_adabelief, gc=False),
    'sgd': sgd,
    'sgd_momentum': partial(sgd, mom=.9),
    'sgd_nesterov': partial(sgd, mom=.9, nesterov=True),
    'rmsprop': rmsprop,
}

# name -> optimizer; a new one is added above, and to `EPS` if its eps depends on the data
optimizer_configs = {name: partial(with_wd_names, make_optimizer=make_optimizer)
                     for name, make_optimizer in _CONFIGS.items()}

# eps by domain, and the smallest that is used under mixed precision ('amp'). Adam: fastai's 1e-5, BERT's
# 1e-6; ranger: fastai's 1e-6; AdaBelief: its authors' 1e-8 and 1e-16. Gradients that came through half
# precision are accurate to about 1e-8, and the root of less is noise.
_ADAM_EPS = dict(vision=1e-5, text=1e-6, amp=1e-7)
_RANGER_EPS = dict(vision=1e-6, text=1e-6, amp=1e-7)
_BELIEF_EPS = dict(vision=1e-8, text=1e-16, amp=1e-8)
EPS = {
    'adamw': _ADAM_EPS,
    'radam': _ADAM_EPS,
    'adabelief': _BELIEF_EPS,
    'ranger': _RANGER_EPS,
    'ranger_nogc': _RANGER_EPS,
    'rangeradabelief': _BELIEF_EPS,
    'rangeradabelief_nogc': _BELIEF_EPS,
    'rmsprop': dict(vision=1e-8, text=1e-8, amp=1e-7),
}


def _timm_class(name):
    "The class of timm's optimizer `name`, with timm's defaults, and keywords for its momentum."
    factory = require_package('timm.optim', f'the optimizer {name!r}', 'timm')
    optimizer_info = factory.get_optimizer_info(name)
    if optimizer_info.second_order:
        raise InputError(f'{name!r} needs second derivatives, which fastai\'s backward pass leaves out')
    # without it a product of all factors of a weight is taken at once: 100 GB for a small convolution
    if name.startswith('kron'): require_package('opt_einsum', f'the optimizer {name!r}')
    # the class of another package is given by its name
    if isinstance(optimizer_info.opt_class, str):
        require_package(optimizer_info.opt_class.split('.')[0], f'the optimizer {name!r}')
        if not torch.cuda.is_available(): raise MissingPackage(f'the optimizer {name!r} runs on CUDA alone')
    return factory.get_optimizer_class(name), {'momentum': .9} if optimizer_info.has_momentum else {}


def list_opts() -> list[str]:
    "All names that `opt_func` takes, sorted; each may have 'lookahead_' in front."
    timm_names = require_package('timm.optim', 'the list of optimizers', 'timm').list_optimizers()
    return sorted({*optimizer_configs, *timm_names})


def opt_func(
    name: str,  # One of `list_opts()`, with 'lookahead_' in front for Lookahead over it
    domain: str = 'vision',  # Whose default eps: 'vision' or 'text'
    amp: bool = False,  # Mixed precision: no default eps is too small for it
    # Fixed options, by fastai's names (`mom`, `sqr_mom`, `eps`, `wd`; `true_wd`, `bn_wd` of its first
    # version) or the optimizer's own
    **kwargs,
):  # Callable (params, lr) -> optimizer, for `Learner(opt_func=)`
    "An optimizer by name; `InputError` for an unknown one lists the names."
    if domain not in ('vision', 'text'): raise InputError(f"domain={domain!r}: choose 'vision' or 'text'")
    if name.startswith('lookahead_'):
        options = {option: kwargs.pop(option) for option in ('k', 'alpha') if option in kwargs}
        inner_func = opt_func(name.removeprefix('lookahead_'), domain, amp, **kwargs)
        return partial(_lookahead_over, inner=inner_func, **options)
    if name in optimizer_configs:
        if name in EPS: kwargs = {'eps': max(EPS[name][domain], EPS[name]['amp'] if amp else 0.), **kwargs}
        return partial(optimizer_configs[name], **kwargs)
    names = list_opts()
    if name not in names: raise InputError(f'no optimizer {name!r}: choose from {preview(names, 200)}')
    opt_class, momentum = _timm_class(name)
    return partial(with_wd_names, make_optimizer=Wrapped, opt=opt_class, **{**momentum, **kwargs})


def _lookahead_over(params, lr, inner, k=6, alpha=.5): return Lookahead(inner(params, lr=lr), k, alpha)
