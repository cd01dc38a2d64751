"""Where encoders are made: by name, or from the spec in a saved matcher.

`register_encoder` adds a kind of encoder of your own. Built in are timm's and torchvision's models for
pictures (`ImageEncoder`, `TorchvisionEncoder`), transformers' for titles (`TitleEncoder`), their word vectors
without attention (`StaticTextEncoder`), and for both the towers of CLIP and SigLIP models
(`ClipImageEncoder`, `ClipTextEncoder`).
"""
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ..core import InputError
from .clip import KIND as CLIP
from .clip import ClipImageEncoder, ClipTextEncoder, is_whole_model, load_clip_tokenizer
from .given import ATTRIBUTES, given_encoder, name_of_function, tokenizer_name
from .image import ImageEncoder
from .module import TorchvisionEncoder
from .parts import PartEncoder
from .static import KIND as STATIC
from .static import StaticTextEncoder
from .text import TitleEncoder, load_saved_tokenizer, load_tokenizer
from .weights import IMAGE_PACKAGES, TITLE_PACKAGES


@dataclass(frozen=True)
class EncoderKind:
    "One kind of encoder: its class, and for text what makes or loads its tokenizer."
    name: str  # What a spec calls it
    encoder: type  # Class of the module: made from a name; `n_out`, `spec()` and `from_spec(spec)`
    tokenizer: Callable | None = None  # Encoder name -> tokenizer; None for image encoders
    saved_tokenizer: Callable | None = None  # Folder written by its `save_pretrained` -> tokenizer


# the kind of an encoder whose name or spec gives no other
BUILT_IN = {'image': 'timm', 'text': 'transformers'}
KINDS = {
    'image': {'timm': EncoderKind('timm', ImageEncoder),
              'torchvision': EncoderKind('torchvision', TorchvisionEncoder),
              'parts': EncoderKind('parts', PartEncoder),
              CLIP: EncoderKind(CLIP, ClipImageEncoder)},
    'text': {'transformers': EncoderKind('transformers', TitleEncoder, load_tokenizer, load_saved_tokenizer),
             CLIP: EncoderKind(CLIP, ClipTextEncoder, load_clip_tokenizer, load_saved_tokenizer),
             STATIC: EncoderKind(STATIC, StaticTextEncoder, load_tokenizer, load_saved_tokenizer)}}
RESERVED = ('hf-hub', 'hf_hub', 'local-dir')  # what timm itself writes before a colon
# a class that doesn't take one of these options can still be made while the option has its default value
DEFAULTS = {'pretrained': (True,), 'pool': (None, 'mean')}


def register_encoder(
    modality: str,  # 'image' or 'text'
    kind: str,  # Name to ask for encoders by: 'my-clip', or 'my-clip:large' for one of several
    encoder: type,  # Class of the module; what it must offer is listed below
    tokenizer: Callable | None = None,  # Text only: name or saved folder -> tokenizer; None: transformers'
):
    """Add a kind of encoder, which learners, studies and saved matchers then take by its name.

    - The class can be made from a name alone: `encoder('large')`. Where its constructor takes `pretrained`,
      `pool` or `pad_id` (the tokenizer's padding token), it is given them.
    - An instance turns a batch, images (n,3,h,w) or token ids (n,l), into features (n, n_out). It has
      `n_out`, for images also `mean` and `std` of each color channel, and `spec()`: plain values for json,
      from which `encoder.from_spec(spec)` builds the same architecture with any weights.
    - A tokenizer is called as those of transformers are, `tokenizer(titles, truncation=True, max_length=64)`
      with `'input_ids'` in what it returns, and has `pad_token_id`, `save_pretrained(folder)` and
      `decode(ids, skip_special_tokens=True)`. Where a saved matcher is loaded, the function `tokenizer` is
      called with that folder.

    A saved matcher holds an encoder's kind, `spec()` and weights, not its code: register the kind before you
    load one.
    """
    kinds = _kinds(modality)
    _check_kind_name(modality, kind)
    needed_methods = ('spec', 'from_spec', 'forward')
    missing = [method for method in needed_methods if not callable(getattr(encoder, method, None))]
    if missing:
        raise InputError(f'{kind}: {getattr(encoder, "__name__", encoder)!r} has no {", ".join(missing)}()')
    if tokenizer is not None and modality == 'image':
        raise InputError(f'{kind}: an image encoder has no tokenizer')
    earlier = kinds.get(kind)
    # running a notebook's cell again defines the same class anew: that is no clash
    if earlier is not None and _full_name(earlier.encoder) != _full_name(encoder):
        raise InputError(f'{kind!r} is a kind of {modality} encoder already ({_full_name(earlier.encoder)}): '
                         'give another name')
    if modality == 'image': kinds[kind] = EncoderKind(kind, encoder)
    else:
        kinds[kind] = EncoderKind(kind, encoder, tokenizer or load_tokenizer,
                                  tokenizer or load_saved_tokenizer)


def make_encoder(
    modality: str,  # 'image' or 'text'
    # As `ImageEncoder` or `TitleEncoder` takes it, a registered kind ('my-clip:large'), a module, or a
    # function or class that makes one
    name,
    pretrained: bool = True,  # Load weights; False: random ones
    pool: str | None = None,  # How features are pooled; None: the kind's own default
    pad_id: int | None = None,  # Text only: the tokenizer's padding token; None: the encoder finds out
    # Images only: (height, width) of the pictures to come, for a model of fixed size; None: the model's own
    img_size: tuple | None = None,
    output_stride: int | None = None,  # Pixels between two cells of the feature map, for models that take it
) -> nn.Module:  # With `n_out`; an image encoder also with `mean` and `std`
    "Make an encoder by its name; raises `InputError` for an option that its class does not take."
    given = dict(pretrained=pretrained, pool=pool, pad_id=pad_id, img_size=img_size,
                 output_stride=output_stride)
    name = name_of_function(modality, name)
    if callable(name): return given_encoder(modality, name, given)
    kind, own_name = _kind_of_name(modality, name)
    accepted = inspect.signature(kind.encoder).parameters
    options = {option: setting for option, setting in given.items()
               if option in accepted and setting is not None}
    for option, defaults in DEFAULTS.items():
        setting = given[option]
        if option not in accepted and setting not in defaults:
            raise InputError(f'{option}={setting!r}: encoders of kind {kind.name!r} take no {option}')
    encoder = kind.encoder(own_name, **options)
    missing = [attribute for attribute in ATTRIBUTES[modality] if not hasattr(encoder, attribute)]
    if missing: raise InputError(f'an encoder of kind {kind.name!r} lacks {", ".join(missing)}')
    return encoder


def make_tokenizer(
    name,  # Text encoder, as `make_encoder` takes it
):  # A tokenizer, as `register_encoder` describes it
    "Make the tokenizer that belongs to a text encoder; a module may bring its own as `tokenizer`."
    if callable(name) and getattr(name, 'tokenizer', None) is not None: return name.tokenizer
    name = tokenizer_name(name)
    kind, own_name = _kind_of_name('text', name)
    tokenizer = kind.tokenizer(own_name)
    if tokenizer.pad_token_id is None:
        raise InputError(f'text_arch={str(name)!r}: its tokenizer has no padding token')
    return tokenizer


def encoder_spec(
    modality: str,  # 'image' or 'text'
    encoder: nn.Module,  # Encoder of a registered or built-in kind
) -> dict:  # Plain values; with a key 'kind' where the kind isn't built in
    "What `encoder_from_spec` builds the same architecture from; raises `InputError` for an unknown class."
    kinds = {kind.encoder: kind.name for kind in _kinds(modality).values()}
    # a subclass that isn't registered is saved as what it extends
    kind_name = next((kinds[base] for base in type(encoder).__mro__ if base in kinds), None)
    own_name = type(encoder).__name__
    if kind_name is None:
        raise InputError(f'{own_name} is of no registered kind of {modality} encoder and can not be saved: '
                         f"call register_encoder({modality!r}, 'a-name', {own_name}) first")
    spec = encoder.spec()
    if kind_name == BUILT_IN[modality]: return spec
    if 'kind' in spec:
        raise InputError(f"{own_name}.spec() has a key 'kind', which is kept for the name of its kind: "
                         'rename it')
    return {'kind': kind_name, **spec}


def encoder_from_spec(
    modality: str,  # 'image' or 'text'
    spec: dict,  # From `encoder_spec`
) -> nn.Module:
    "Build the encoder that `spec` describes, with random weights; raises `InputError` for an unknown kind."
    kind = _kind_of_spec(modality, spec)
    return kind.encoder.from_spec({entry: value for entry, value in spec.items() if entry != 'kind'})


def tokenizer_from_folder(
    spec: dict,  # Of the text encoder that it belongs to, from `encoder_spec`
    folder,  # Folder that the tokenizer's `save_pretrained` wrote
):
    "Load a saved tokenizer in its encoder's way; raises `InputError` for an unknown kind of encoder."
    return _kind_of_spec('text', spec).saved_tokenizer(str(folder))


def _kinds(modality):
    "The kinds of a modality, by name."
    if modality not in KINDS: raise InputError(f'modality={modality!r}: choose one of {list(KINDS)}')
    return KINDS[modality]


def _full_name(encoder_class): return f'{encoder_class.__module__}.{encoder_class.__qualname__}'


def _check_kind_name(modality, kind):
    "Raise unless `kind` is a name that means nothing else."
    if not isinstance(kind, str) or not kind or any(character in kind for character in ':/\\'):
        raise InputError(f'kind={kind!r}: give a name without colon and slash')
    if kind in RESERVED or kind == BUILT_IN[modality]:
        raise InputError(f'kind={kind!r}: taken, give another name')
    if modality == 'text': is_known = kind in TITLE_PACKAGES
    else:
        import timm
        is_known = kind in IMAGE_PACKAGES or timm.is_model(kind)
    if is_known: raise InputError(f'kind={kind!r}: that is the name of an encoder already, give another one')


def _unknown(modality, kind):
    "The error for a kind that nobody registered."
    known_kinds = ', '.join(KINDS[modality])
    return InputError(f'{kind!r} is no registered kind of {modality} encoder (there are {known_kinds}): '
                      f'call register_encoder({modality!r}, {kind!r}, YourEncoder) first')


def _kind_of_name(modality, encoder_name):
    "An encoder's kind and its name within that kind: 'my-clip:large' is 'large' of the kind 'my-clip'."
    kinds = _kinds(modality)
    encoder_name = str(encoder_name)
    prefix, colon, name_in_kind = encoder_name.partition(':')
    if prefix in kinds: return kinds[prefix], name_in_kind if colon else encoder_name
    # a single letter before a colon is a Windows drive
    if colon and prefix not in RESERVED and len(prefix) > 1 and not Path(encoder_name).exists():
        raise _unknown(modality, prefix)
    # one name stands for both towers of a model of pictures and texts
    return kinds[CLIP if is_whole_model(modality, encoder_name) else BUILT_IN[modality]], encoder_name


def _kind_of_spec(modality, spec):
    "The kind that a spec names, or the built-in one."
    kinds = _kinds(modality)
    kind = spec.get('kind', BUILT_IN[modality])
    if kind not in kinds: raise _unknown(modality, kind)
    return kinds[kind]
