"Image encoders: any timm model without its classifier, as pooled features."
import json
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import nn

from ..core import IMAGE_ARCH, InputError, preview
from ..layers.pooling import GeM
from .changes import apply_change
from .weights import IMAGE_PACKAGES, hub_once, load_in_order, no_weights, read_weights

POOLS = ('avg', 'max', 'avgmax', 'catavgmax')
# activations of torch; others keep their output alone, which is less memory
NEED_INPUT = nn.Hardtanh, nn.Hardswish, nn.SiLU, nn.Mish  # ReLU6 is a Hardtanh
OF_MAP = ('gem', 'map')  # pools for which the model hands out its feature map


@dataclass
class ImageBody:
    "A timm model without its classifier, and what has to be known to feed it."
    model: nn.Module  # Pictures (n,3,h,w) to features (n, n_out); for GeM to a feature map (n, n_out, h, w)
    mean: list  # Of each color channel, subtracted from pixels in 0..1: what the weights were trained with
    std: list  # Of each color channel, divided by
    n_out: int  # Width of the features
    args: dict  # Arguments with which timm's architecture was changed, as a folder's config.json gives them
    set_size: list | None = None  # [height, width] that it was set to once it was made; None: as it was made
    # What was changed in its blocks, as `apply_change` takes it, in this order
    changes: list[dict] = field(default_factory=list)


class ImageEncoder(nn.Module):
    """A timm model without its classifier: images (n,3,h,w), normalized by `mean` and `std`, to (n, n_out);
    with `pool='map'` to its feature map (n, n_out, rows, columns)."""
    def __init__(
        self,
        name: str = IMAGE_ARCH,  # timm name, folder, or file of weights named like timm's model
        pretrained: bool = True,  # Load weights (local, from a package or the hub); False: random ones
        # 'gem', timm's 'avg', 'max', 'avgmax' (their mean), 'catavgmax' (side by side), 'map' for none; None:
        # the model's own
        pool: str | None = None,
        body: ImageBody | None = None,  # A model that is made already; None makes the one that `name` names
        # (height, width) of the pictures to come: a model that reads one size alone is changed to it, or
        # raises `InputError` where it can't be; None: the model's own
        img_size: tuple | None = None,
        # Pixels between two cells of the feature map: 16 keeps the resolution of a last stage that would
        # halve it; for a model that is made here. None: the model's own, mostly 32
        output_stride: int | None = None,
    ):
        super().__init__()
        self.name = str(name)
        if body is None: body = _load_body(self.name, pretrained, pool, img_size, output_stride)
        self.body = body.model
        self.pool_name = pool
        self.pool = GeM() if pool == 'gem' else nn.Identity()
        # plain lists, so that they can be written to json
        self.mean = list(body.mean)
        self.std = list(body.std)
        self.n_out = body.n_out
        self.args = body.args
        self.set_size = body.set_size
        self.changes = body.changes
        # channels last: depthwise convolutions on a CPU take half the time, and half precision on
        # a GPU gains as well; tests/bench/bench_layout.py measures it
        self.memory_format = torch.channels_last
        self.body.to(memory_format=self.memory_format)
        _keep_inputs(self.body)

    @property
    def made_for(self) -> tuple:
        "(height, width) of the pictures that the model was made for or set to, and so can read."
        return tuple(self.set_size or self.args.get('img_size') or self.body.pretrained_cfg['input_size'][1:])

    def spec(self) -> dict:
        "What `from_spec` builds the same architecture from, as plain values for json; weights are not in it."
        # the name alone: the folder that it came from means nothing on another machine
        architecture = self.body.pretrained_cfg['architecture']
        spec = {'name': Path(self.name).name, 'arch': architecture, 'args': self.args, 'pool': self.pool_name,
                'mean': self.mean, 'std': self.std, 'n_out': self.n_out}
        if self.set_size is not None: spec['set_size'] = self.set_size
        if self.changes: spec['changes'] = self.changes
        return spec

    @classmethod
    def from_spec(
        cls,
        spec: dict,  # From `spec`
    ) -> 'ImageEncoder':
        "Build the encoder that `spec` describes, with random weights: nothing is looked up or downloaded."
        body = _body_from_spec(spec)
        return cls(spec['name'], pretrained=False, pool=spec['pool'], body=body)

    def forward(self, images):
        # encoders of exported Learners of earlier versions have no layout of their own
        layout = getattr(self, 'memory_format', torch.channels_last)
        images = images.contiguous(memory_format=layout)
        return self.pool(_with_channels_first(self.body(images), self.body))


def _keep_inputs(model):
    "Activations whose gradient needs their input don't overwrite it: torch would copy it first, each time."
    for module in model.modules():
        if isinstance(module, NEED_INPUT): module.inplace = False


def timm_body(
    model: nn.Module,  # A timm model, with its classifier or without
    pool: str | None = None,  # As `ImageEncoder` takes it
    img_size: tuple | None = None,  # (height, width) of the pictures to come; None: the model's own
    name: str = 'the model',  # For messages
    args: dict | None = None,  # Arguments with which its architecture was changed
    remake=None,  # Size -> the same model made for pictures of that size; None where that can't be
) -> ImageBody:
    "Take the classifier off a timm model, set it to pictures of a size, and look up how it was trained."
    import timm
    if pool not in (None, *OF_MAP, *POOLS):
        raise InputError(f"pool={pool!r}: choose None, one of {OF_MAP} or one of timm's {POOLS}")
    settings = timm.data.resolve_model_data_config(model)
    size = tuple(img_size or settings['input_size'][1:])
    args = dict(args or {})
    try: _remove_classifier(model, pool)
    # CoaT, EfficientViT and others pool in one way alone
    except AssertionError as error:
        raise InputError(f'pool={pool!r}: {name} can not pool in another way than its own '
                         f'({_first_line(error)}); leave pool and parts out, or choose another image_arch'
                         ) from error
    # measured, not taken from timm's `num_features`: with another pool the width may differ
    features, problem = features_of(model, size)
    set_size = None
    if problem is not None:
        model, features, is_set = _made_for(model, size, name, pool, remake, problem)
        if is_set: set_size = list(size)
        else: args['img_size'] = list(size)
    if pool is not None and features.ndim != (4 if pool in OF_MAP else 2):
        raise InputError(f'pool={pool!r}: {name} gives no feature map to pool, but {tuple(features.shape)}')
    return ImageBody(model, settings['mean'], settings['std'], features.shape[1], args, set_size)


def features_of(
    model: nn.Module,  # Of pictures
    size: tuple,  # (height, width)
) -> tuple:  # (features, None), or (None, error)
    "The features of an empty picture, of a map its channels first, or what the model raised."
    was_training = model.training
    device = next(model.parameters()).device
    try:
        with torch.no_grad(): features = model.eval()(torch.zeros(1, 3, *size, device=device))
        return _with_channels_first(features, model), None
    # each model has its own error for a size that it can't read: an assertion, shapes that don't fit
    except Exception as error: return None, error
    finally: model.train(was_training)


def _with_channels_first(features, model):
    "Features as they are, and a map as (n,c,h,w), also of Swin, MambaOut and others that have (n,h,w,c)."
    is_last = features.ndim == 4 and getattr(model, 'output_fmt', None) == 'NHWC'
    return features.permute(0, 3, 1, 2) if is_last else features


def _made_for(model, size, name, pool, remake, problem):
    """A model that has failed on pictures of `size` set to that size, or made anew for it; its features; and
    whether it was set, which is not the same: the windows of a Swin differ."""
    ways = [(lambda: _set_size(model, size), True)] if hasattr(model, 'set_input_size') else []
    if remake is not None: ways.append((lambda: _remade(remake, size, pool), False))
    for way, is_set in ways:
        # some models take only sizes that their patches divide, others no `img_size` at all
        try: changed = way()
        except Exception as error:
            problem = error
            continue
        features, problem = features_of(changed, size)
        if problem is None: return changed, features, is_set
    expected = getattr(model, 'pretrained_cfg', {}).get('input_size')
    trained_at = f', it was trained on {expected[1]} x {expected[2]}' if expected else ''
    example = expected[1] if expected else 224
    reason = f'{type(problem).__name__}: {_first_line(problem)}'
    raise InputError(f'image_arch={name!r} can not read pictures of {size[0]} x {size[1]} pixels{trained_at} '
                     f'({reason}): choose another size for the pictures, e.g. item_tfms=Resize({example})'
                     ) from problem


def _set_size(model, size):
    model.set_input_size(img_size=size)
    return model


def _remade(remake, size, pool):
    model = remake(size)
    _remove_classifier(model, pool)
    return model


def _first_line(error): return (str(error).strip() or 'no message').splitlines()[0][:200]


def _load_body(name: str, pretrained: bool, pool: str | None, img_size: tuple | None,
               output_stride: int | None = None) -> ImageBody:
    "The timm model `name` without its classifier, and the settings that its weights were trained with."
    config = Path(name)/'config.json'
    # a folder may change the arguments of its architecture
    changed_args = {}
    if config.is_file(): changed_args = json.loads(config.read_text(encoding='utf-8')).get('model_args', {})
    stride = {} if output_stride is None else {'output_stride': output_stride}

    def made_for(size): return _create(name, pretrained, img_size=size, **stride)
    try: model = _create(name, pretrained, **stride)
    # timm's models of a fixed stride refuse the argument, or a value of it
    except (TypeError, AssertionError, NotImplementedError, RuntimeError) as error:
        if not stride: raise
        raise InputError(f'output_stride={output_stride}: {name} can not be made with it '
                         f'({type(error).__name__}: {_first_line(error)}); None leaves its own, which '
                         'parts=Parts((1, 2, 3), stride=None) does') from error
    return timm_body(model, pool, img_size, name, {**changed_args, **stride},
                     None if Path(name).is_file() else made_for)


def _body_from_spec(spec: dict) -> ImageBody:
    "The architecture that `ImageEncoder.spec` described, with random weights."
    import timm
    architecture = spec['arch']
    # a spec may come from a stranger: it names an architecture and its shape, never a place to load from
    if not isinstance(architecture, str) or ':' in architecture or not timm.is_model(architecture):
        raise InputError(f"arch={architecture!r} is no architecture of timm's")
    load_options = [argument for argument in spec['args']
                    if argument.startswith('pretrained') or argument in ('checkpoint_path', 'cache_dir')]
    if load_options: raise InputError(f'args: {load_options} say where to load from')
    arguments = dict(spec['args'])
    # json has lists in place of tuples
    if 'img_size' in arguments: arguments['img_size'] = tuple(arguments['img_size'])
    model = timm.create_model(architecture, pretrained=False, **arguments)
    _remove_classifier(model, spec['pool'])
    # earlier versions made the model for the size, also where it had been set to it
    set_size = spec.get('set_size')
    if set_size is not None: model.set_input_size(img_size=tuple(set_size))
    changes = spec.get('changes', [])
    for change in changes: apply_change(model, change)
    return ImageBody(model, spec['mean'], spec['std'], spec['n_out'], spec['args'], set_size, changes)


def _remove_classifier(model: nn.Module, pool: str | None):
    "Take the classifier off a timm model and change its pooling; for GeM or none it hands out its map."
    if pool is None: model.reset_classifier(0)
    else: model.reset_classifier(0, '' if pool in OF_MAP else pool)


def _architecture_of(weights_file: Path) -> str:
    """The timm architecture that a weights file is named after: 'resnet18.a1_in1k-mine.safetensors' holds a
    resnet18."""
    import timm
    file_stem = weights_file.stem
    before_dot = file_stem.split('.')[0]
    for architecture in (file_stem, before_dot, file_stem.split('-')[0], before_dot.split('-')[0]):
        if timm.is_model(architecture): return architecture
    raise InputError(f'{weights_file}: name the file after its timm architecture (resnet18.safetensors), '
                     'or give a folder with a config.json')


def _create(model_name: str, pretrained: bool, **arguments) -> nn.Module:
    "The timm model `model_name` with its classifier, its weights loaded if `pretrained`."
    path = Path(model_name)
    if path.is_dir(): return _create_from_folder(path, pretrained, **arguments)
    if path.is_file(): return _create_from_file(path, pretrained, **arguments)
    return _create_by_name(model_name, pretrained, **arguments)


def _create_from_folder(folder: Path, pretrained: bool, **arguments) -> nn.Module:
    import timm
    if not (folder/'config.json').exists():
        raise InputError(f'{folder}: a folder of an image encoder has a config.json in it')
    # the classifier isn't used: its size in the file may be any
    try: return timm.create_model(f'local-dir:{folder}', pretrained=pretrained, **arguments)
    except Exception as error:
        raise InputError(f'{folder}: timm can not read it as an image encoder ({type(error).__name__}: '
                         f'{error})') from error


def _create_from_file(weights_file: Path, pretrained: bool, **arguments) -> nn.Module:
    import timm
    model = timm.create_model(_architecture_of(weights_file), pretrained=False, **arguments)
    if pretrained: load_in_order(model, read_weights(weights_file), str(weights_file), _classifiers_of(model))
    return model


def _classifiers_of(model: nn.Module) -> tuple:
    "The names of the modules of a timm model that are its classifier."
    classifier = model.pretrained_cfg.get('classifier') or ()
    return (classifier,) if isinstance(classifier, str) else tuple(classifier)


def _create_by_name(model_name: str, pretrained: bool, **arguments) -> nn.Module:
    import timm
    is_on_hub = model_name.startswith('hf-hub:')
    if not is_on_hub and not timm.is_model(model_name.split('.')[0]):
        nearest = get_close_matches(model_name, timm.list_models())
        advice = f'near it: {preview(nearest)}' if nearest else 'see timm.list_models()'
        # a CLIP model on the hub that could be read would have been taken for one
        if '/' in model_name: advice = f"of the hub name one as 'hf-hub:{model_name}', or 'clip:{model_name}'"
        raise InputError(f'image_arch={model_name!r} is no timm model, file or folder; {advice}')
    if not pretrained and not is_on_hub: return timm.create_model(model_name, pretrained=False, **arguments)
    package = IMAGE_PACKAGES.get(model_name)
    weights_file = package.find() if package else None
    if weights_file:
        model = timm.create_model(model_name, pretrained=False, **arguments)
        load_in_order(model, read_weights(weights_file), package.package, _classifiers_of(model))
        return model
    # the hub's loader raises what its HTTP library raises, which depends on its version
    try:
        with hub_once(): return timm.create_model(model_name, pretrained=pretrained, **arguments)
    except Exception as error:
        # the architecture of a model that is on the hub alone is read there, with its weights or without
        raise no_weights(model_name, IMAGE_PACKAGES, error, untrained_helps=not is_on_hub) from error
