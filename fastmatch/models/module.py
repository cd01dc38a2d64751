"Image encoders that come as modules or functions: torchvision's models, and modules of one's own."
import torch
from torch import nn

from ..core import InputError
from ..layers.pooling import GeM
from .weights import IMAGE_PACKAGES, hub_once, no_weights

# of ImageNet's pictures by color channel, as nearly all pretrained models use them
IMAGENET_MEAN = (.485, .456, .406)
IMAGENET_STD = (.229, .224, .225)


class ModuleEncoder(nn.Module):
    """A module of one's own as an image encoder: pictures (n,3,h,w), normalized, to features (n, n_out).

    It trains and embeds as any other. A matcher with it can't be saved, as nothing says how to build it
    again: for that, write a class with `spec` and `from_spec`, see `register_encoder`.
    """
    def __init__(
        self,
        body: nn.Module,  # Pictures to features (n,d), or to a feature map (n,d,h,w), which is pooled
        pool: str | None = None,  # Of a feature map: 'avg', 'max', 'gem', 'map' for none; None: 'avg'
        mean: tuple = IMAGENET_MEAN,  # Of each color channel, subtracted from pixels in 0..1
        std: tuple = IMAGENET_STD,  # Of each color channel, divided by
        img_size: tuple | None = None,  # (height, width) of the pictures to come; None: 224 x 224
    ):
        super().__init__()
        if pool not in (None, *POOLS):
            raise InputError(f'pool={pool!r}: choose None or one of {list(POOLS)}')
        self.body = body
        self.pool_name = pool
        self.mean = list(mean)
        self.std = list(std)
        features = _try_module(body, img_size or (224, 224))
        if pool is not None and features.ndim == 2:
            raise InputError(f'pool={pool!r}: {type(body).__name__} gives no feature map to pool, but '
                             f'{tuple(features.shape)}')
        self.pool = POOLS[pool or 'avg']() if features.ndim == 4 else nn.Identity()
        self.n_out = features.shape[1]

    def forward(self, images): return self.pool(self.body(images))


class TorchvisionEncoder(ModuleEncoder):
    "A model of torchvision's without its last layer, the classifier: fastai's `resnet18` is one of these."
    def __init__(
        self,
        name: str,  # As `torchvision.models.get_model` takes it: 'resnet18'
        pretrained: bool = True,  # Load torchvision's best weights, trained on ImageNet; False: random ones
        pool: str | None = None,  # Of a feature map: 'avg', 'max' or 'gem'
        img_size: tuple | None = None,  # (height, width) of the pictures to come; None: 224 x 224
    ):
        super().__init__(_torchvision_body(name, pretrained), pool, img_size=img_size)
        self.name = name

    def spec(self) -> dict:
        "What `from_spec` builds the same architecture from, as plain values for json; weights are not in it."
        return {'name': self.name, 'pool': self.pool_name, 'n_out': self.n_out}

    @classmethod
    def from_spec(
        cls,
        spec: dict,  # From `spec`
    ) -> 'TorchvisionEncoder':
        "Build the encoder that `spec` describes, with random weights: nothing is looked up or downloaded."
        return cls(spec['name'], pretrained=False, pool=spec['pool'])


def without_classifier(
    model: nn.Module,  # A classifier, as the functions of torchvision and fastai make them
    name: str,  # For messages
) -> nn.Module:  # The same object
    "Replace the last linear layer of a model, which tells the classes of its training apart, by nothing."
    linear_layers = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear_layers or getattr(model, 'aux_logits', False):
        raise InputError(f'image_arch={name}: no single linear layer at its end to take off; give a module '
                         'that turns pictures into features (n,d)')
    parent_path, _, child_name = linear_layers[-1].rpartition('.')
    setattr(model.get_submodule(parent_path), child_name, nn.Identity())
    return model


class _MeanMap(nn.Module):
    def forward(self, features): return features.mean((2, 3))


class _MaxMap(nn.Module):
    def forward(self, features): return features.amax((2, 3))


MAP_POOLS = {'avg': _MeanMap, 'max': _MaxMap, 'gem': GeM}
POOLS = {**MAP_POOLS, 'map': nn.Identity}


def _try_module(body, size):
    "The features that a module makes of two empty pictures; raises `InputError` unless it makes some."
    was_training = body.training
    parameter = next(body.parameters(), torch.zeros(()))
    name = type(body).__name__
    try:
        with torch.no_grad(): features = body.eval()(torch.zeros(2, 3, *size, device=parameter.device))
    # whatever a module of the user's own raises
    except Exception as error:
        reason = (str(error) or 'no message').splitlines()[0][:200]
        raise InputError(f'image_arch={name}: it can not read pictures (2,3,{size[0]},{size[1]}) '
                         f'({type(error).__name__}: {reason})') from error
    finally: body.train(was_training)
    if isinstance(features, torch.Tensor) and features.ndim in (2, 4) and len(features) == 2: return features
    given = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
    raise InputError(f'image_arch={name}: of pictures (2,3,{size[0]},{size[1]}) it makes {given} and not '
                     'features (2,d) or a feature map (2,d,h,w)')


def _torchvision_body(name, pretrained):
    from torchvision import models
    # a spec may come from a stranger: it names a model of torchvision's, never a place to load from
    if name not in models.list_models(module=models):
        raise InputError(f'image_arch={name!r} is no classification model of torchvision')
    if not pretrained: return without_classifier(models.get_model(name, weights=None), name)
    try:
        with hub_once(): model = models.get_model(name, weights='DEFAULT')
    # torch's loader raises what the network or a damaged file gives
    except Exception as error: raise no_weights(name, IMAGE_PACKAGES, error, untrained_helps=True) from error
    return without_classifier(model, name)
