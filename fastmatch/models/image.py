"Image encoders: any timm model as pooled features."
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import nn

from ..core import InputError, some
from ..layers import GeM
from .weights import IMAGE_PACKAGES, hub_once, load_in_order, no_weights, read_weights

POOLS = ('avg', 'max', 'avgmax', 'catavgmax')


def _arch_of(path: Path) -> str:
    "The timm architecture that a weights file is named after: 'resnet18.a1_in1k-mine.safetensors' is a resnet18."
    import timm
    stem = path.stem
    for arch in (stem, stem.split('.')[0], stem.split('-')[0], stem.split('.')[0].split('-')[0]):
        if timm.is_model(arch): return arch
    raise InputError(f'{path}: name the file after its timm architecture (resnet18.safetensors), or give a folder with a config.json')


def _create(name: str, pretrained: bool) -> nn.Module:
    "The timm model `name` with its classifier, weights loaded if `pretrained`."
    import timm
    path = Path(name)
    if path.is_dir():
        if not (path/'config.json').exists(): raise InputError(f'{path}: a folder of an image encoder has a config.json in it')
        return timm.create_model(f'local-dir:{path}', pretrained=pretrained)
    if path.is_file():
        model = timm.create_model(_arch_of(path), pretrained=False)
        if pretrained: load_in_order(model, read_weights(path), str(path))
        return model
    if not timm.is_model(name.removeprefix('hf-hub:').split('.')[0]) and not name.startswith('hf-hub:'):
        near = get_close_matches(name, timm.list_models())
        raise InputError(f'image_arch={name!r} is no timm model, file or folder; ' + (f'near it: {some(near)}' if near else 'see timm.list_models()'))
    if not pretrained: return timm.create_model(name, pretrained=False)
    package = IMAGE_PACKAGES.get(name)
    if package and (file := package.find()):
        model = timm.create_model(name, pretrained=False)
        load_in_order(model, read_weights(file), package.package)
        return model
    # the hub's loader raises what its HTTP library raises: which, depends on its version
    try:
        with hub_once(): return timm.create_model(name, pretrained=True)
    except Exception as e: raise no_weights(name, IMAGE_PACKAGES, e) from e


class ImageEncoder(nn.Module):
    "A timm model without its classifier: images (n,3,h,w), normalised by `mean` and `std`, to features (n, n_out)."
    def __init__(
        self,
        name: str = 'tf_efficientnet_lite0',  # timm name, folder in the hub's layout, or weights file named after its architecture
        pretrained: bool = True,  # Load weights (local, from a weights package, or from the hub); False starts from random ones
        pool: str | None = None,  # 'gem', or one of timm's: 'avg', 'max', 'avgmax' (their mean), 'catavgmax' (side by side); None: the model's own
    ):
        super().__init__()
        import timm
        self.name = str(name)
        self.body = _create(self.name, pretrained)
        if pool not in (None, 'gem', *POOLS): raise InputError(f"pool={pool!r}: choose None, 'gem' or one of timm's {POOLS}")
        # without a pool of its own timm hands out the feature map
        self.body.reset_classifier(0, *([] if pool is None else ['' if pool == 'gem' else pool]))
        self.pool = GeM() if pool == 'gem' else nn.Identity()
        cfg = timm.data.resolve_model_data_config(self.body)
        # what the weights were trained with; plain lists so that they can be written to json
        self.mean, self.std = list(cfg['mean']), list(cfg['std'])
        training = self.body.training
        with torch.no_grad(): feature = self.body.eval()(torch.zeros(1, *cfg['input_size']))
        if pool is not None and feature.ndim != (4 if pool == 'gem' else 2):
            raise InputError(f'pool={pool!r}: {name} gives no feature map to pool, but {tuple(feature.shape)}')
        self.n_out = feature.shape[1]
        self.body.train(training)
        # channels last: depthwise convolutions on a CPU take half the time, on a GPU half precision likes it too
        self.body.to(memory_format=torch.channels_last)

    def forward(self, x): return self.pool(self.body(x.contiguous(memory_format=torch.channels_last)))
