"Encoders that were given as a module or a function in place of a name."
import inspect

import torch
from torch import nn

from ..core import InputError
from .clip import encoder_of_module, is_whole_module
from .image import ImageEncoder, timm_body
from .module import ModuleEncoder, without_classifier
from .text import TitleEncoder

ATTRIBUTES = {'image': ('n_out', 'mean', 'std'), 'text': ('n_out',)}  # what an encoder has


def name_of_function(
    modality: str,  # 'image' or 'text'
    given,  # What was given as an encoder
):
    "The encoder's name where a function of timm's or torchvision's was given, else what was given."
    if modality != 'image' or isinstance(given, nn.Module) or not callable(given): return given
    module_name = getattr(given, '__module__', None) or ''
    function_name = getattr(given, '__name__', '')
    if module_name.startswith('timm.models'): return function_name
    if module_name.startswith('torchvision.models') and inspect.isfunction(given):
        return f'torchvision:{function_name}'
    return given


def given_encoder(
    modality: str,  # 'image' or 'text'
    given,  # A module, or a function or class that makes one
    options: dict,  # Of `make_encoder`: a function is given those that it takes
) -> nn.Module:
    """The encoder that was given as a module, or that a function makes.

    A module of timm's loses its classifier, one of transformers' is pooled, of CLIP or SigLIP one tower is
    taken, and what a function of pictures makes loses its last linear layer. Raises `InputError` for what is
    no encoder.
    """
    if isinstance(given, nn.Module): return _encoder_of(modality, given, options)
    accepted = inspect.signature(given).parameters
    taken = {option: setting for option, setting in options.items()
             if option in accepted and setting is not None}
    name = getattr(given, '__name__', str(given))
    missing = [parameter.name for parameter in accepted.values() if parameter.default is parameter.empty
               and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
               and parameter.name not in taken]
    if missing:
        raise InputError(f'{modality}_arch={name}: it also needs {", ".join(missing)}; give a module, or '
                         f'partial({name}, ...)')
    made = given(**taken)
    if not isinstance(made, nn.Module):
        raise InputError(f'{modality}_arch={name}: it made {type(made).__name__} and not a module')
    is_ready = all(hasattr(made, attribute) for attribute in ATTRIBUTES[modality])
    if modality == 'image' and not is_ready and not _is_timm(made): made = without_classifier(made, name)
    return _encoder_of(modality, made, options)


def tokenizer_name(
    given,  # Text encoder: a name, or a module
):
    "The name of the tokenizer of a text encoder: its own, or where transformers loaded a module from."
    if not isinstance(given, nn.Module): return given
    name = getattr(given, 'name', None) or getattr(given, 'name_or_path', None)
    if name: return name
    raise InputError(f'text_arch={type(given).__name__}: which tokenizer it reads stays unknown; give it an '
                     'attribute `tokenizer`, or `name` with the name of a text encoder')


def _encoder_of(modality, module, options):
    "A module as an encoder, wrapped where it is no encoder yet."
    pool, img_size = options.get('pool'), options.get('img_size')
    if all(hasattr(module, attribute) for attribute in ATTRIBUTES[modality]):
        if pool is None: return module
        raise InputError(f'pool={pool!r}: the encoder {type(module).__name__} was given ready-made')
    if is_whole_module(module):
        return encoder_of_module(modality, module, pool, options.get('pad_id'), img_size)
    if modality == 'text': return _text_encoder(module, pool, options.get('pad_id'))
    # of a module in half precision, small steps of a training would be rounded away
    module = module.float()
    if not _is_timm(module): return ModuleEncoder(module, pool, img_size=img_size)
    name = module.pretrained_cfg['architecture']
    return ImageEncoder(name, pool=pool, body=timm_body(module, pool, img_size, name))


def _is_timm(module): return hasattr(module, 'pretrained_cfg') and hasattr(module, 'reset_classifier')


def _text_encoder(module, pool, pad_id):
    name = type(module).__name__
    if hasattr(module, 'config') and hasattr(module, 'name_or_path'):
        # transformers loads a checkpoint in the precision of its file, which nobody has asked for
        return TitleEncoder(module.name_or_path or name, pool=pool, pad_id=pad_id, body=module,
                            dtype=torch.float32)
    raise InputError(f'text_arch={name}: no text encoder; one has `n_out`, the width of its features, and '
                     'turns token ids (n,l) into features (n, n_out)')
