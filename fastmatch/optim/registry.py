"Optimizers by name: the kit's own, torch's, and everything in timm's factory, each with its defaults by domain."
from functools import partial

import torch

from ..core import InputError, MissingPackage, preview, require_package
from .lookahead import Lookahead
from .ranger import AdaBelief, RAdam, adamw, ranger, ranger_adabelief
from .wrap import Wrapped


def sgd(params, lr, mom=0., wd=0., nesterov=False, **kwargs) -> Wrapped:
    "torch's SGD with decoupled decay; at `mom=0` a schedule's momentum has no effect."
    return Wrapped(params, lr, torch.optim.SGD, wd, momentum=mom, nesterov=nesterov, **kwargs)


def rmsprop(params, lr, mom=0., sqr_mom=.99, eps=1e-8, wd=0., **kwargs) -> Wrapped:
    "torch's RMSprop with decoupled decay; at `mom=0` a schedule's momentum has no effect."
    return Wrapped(params, lr, torch.optim.RMSprop, wd, momentum=mom, alpha=sqr_mom, eps=eps, **kwargs)


optimizer_configs = {
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

# eps by domain, and the least under mixed precision. Adam: fastai's 1e-5, BERT's 1e-6; ranger: fastai's 1e-6; AdaBelief: its authors' 1e-8 and 1e-16.
# Gradients that came through half precision carry no more than about 1e-8, the root of less is noise.
_ADAM, _RANGER, _BELIEF = dict(vision=1e-5, text=1e-6, amp=1e-7), dict(vision=1e-6, text=1e-6, amp=1e-7), dict(vision=1e-8, text=1e-16, amp=1e-8)
EPS = {'adamw': _ADAM, 'radam': _ADAM, 'adabelief': _BELIEF, 'ranger': _RANGER, 'ranger_nogc': _RANGER, 'rangeradabelief': _BELIEF,
       'rangeradabelief_nogc': _BELIEF, 'rmsprop': dict(vision=1e-8, text=1e-8, amp=1e-7)}


def _timms(name):
    "The class of timm's optimizer with timm's defaults, and its momentum."
    factory = require_package('timm.optim', f'the optimizer {name!r}', 'timm')
    info = factory.get_optimizer_info(name)
    if info.second_order: raise InputError(f'{name!r} needs second derivatives, which fastai\'s backward pass leaves out')
    if isinstance(info.opt_class, str):
        require_package(info.opt_class.split('.')[0], f'the optimizer {name!r}')
        if not torch.cuda.is_available(): raise MissingPackage(f'the optimizer {name!r} runs on CUDA alone')
    return factory.get_optimizer_class(name), {'momentum': .9} if info.has_momentum else {}


def list_opts() -> list[str]:
    "Every name that `opt_func` takes; before each of them 'lookahead_' may stand."
    return sorted({*optimizer_configs, *require_package('timm.optim', 'the list of optimizers', 'timm').list_optimizers()})


def opt_func(
    name: str,  # One of `list_opts()`, with 'lookahead_' before it if wanted
    domain: str = 'vision',  # Whose default eps: 'vision' or 'text'
    amp: bool = False,  # Mixed precision: no eps too small for it
    **kwargs,  # Fixed for the optimizer, in fastai's words (`mom`, `sqr_mom`, `eps`, `wd`) or its own
):
    "A callable for `Learner(opt_func=)` by name."
    if domain not in ('vision', 'text'): raise InputError(f"domain={domain!r}: choose 'vision' or 'text'")
    if name.startswith('lookahead_'):
        k = {o: kwargs.pop(o) for o in ('k', 'alpha') if o in kwargs}
        return partial(_ahead, inner=opt_func(name.removeprefix('lookahead_'), domain, amp, **kwargs), **k)
    if name in optimizer_configs:
        if name in EPS: kwargs = {'eps': max(EPS[name][domain], EPS[name]['amp'] if amp else 0.), **kwargs}
        return partial(optimizer_configs[name], **kwargs)
    if name not in list_opts(): raise InputError(f'no optimizer {name!r}: choose from {preview(list_opts(), 200)}')
    cls, mom = _timms(name)
    return partial(Wrapped, opt=cls, **{**mom, **kwargs})


def _ahead(params, lr, inner, k=6, alpha=.5): return Lookahead(inner(params, lr=lr), k, alpha)
