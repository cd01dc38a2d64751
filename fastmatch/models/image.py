"Image encoders: any timm model as pooled features."
import json
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import nn

from ..core import InputError, preview
from ..layers.pooling import GeM
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
        try: return timm.create_model(f'local-dir:{path}', pretrained=pretrained)
        except Exception as e: raise InputError(f'{path}: timm can not read it as an image encoder ({type(e).__name__}: {e})') from e
    if path.is_file():
        model = timm.create_model(_arch_of(path), pretrained=False)
        if pretrained: load_in_order(model, read_weights(path), str(path))
        return model
    if not timm.is_model(name.removeprefix('hf-hub:').split('.')[0]) and not name.startswith('hf-hub:'):
        near = get_close_matches(name, timm.list_models())
        raise InputError(f'image_arch={name!r} is no timm model, file or folder; ' + (f'near it: {preview(near)}' if near else 'see timm.list_models()'))
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
        self._repool(pool)
        cfg = timm.data.resolve_model_data_config(self.body)
        training = self.body.training
        with torch.no_grad(): feature = self.body.eval()(torch.zeros(1, *cfg['input_size']))
        if pool is not None and feature.ndim != (4 if pool == 'gem' else 2):
            raise InputError(f'pool={pool!r}: {name} gives no feature map to pool, but {tuple(feature.shape)}')
        self.body.train(training)
        config = Path(name)/'config.json'
        # a folder in the hub's layout may change the architecture's arguments
        args = json.loads(config.read_text(encoding='utf-8')).get('model_args', {}) if config.is_file() else {}
        self._set(cfg['mean'], cfg['std'], feature.shape[1], args)

    def _repool(self, pool):
        # without a pool of its own timm hands out the feature map
        self.body.reset_classifier(0, *([] if pool is None else ['' if pool == 'gem' else pool]))
        self.pool_name, self.pool = pool, GeM() if pool == 'gem' else nn.Identity()

    def _set(self, mean, std, n_out, args):
        # what the weights were trained with; plain lists so that they can be written to json
        self.mean, self.std, self.n_out, self.args = list(mean), list(std), n_out, args
        # channels last: depthwise convolutions on a CPU take half the time, on a GPU half precision likes it too
        self.body.to(memory_format=torch.channels_last)

    def spec(self) -> dict:
        "What `from_spec` builds the same architecture from, as plain values."
        # the folder it came from is this machine's business
        return {'name': Path(self.name).name, 'arch': self.body.pretrained_cfg['architecture'], 'args': self.args, 'pool': self.pool_name, 'mean': self.mean,
                'std': self.std, 'n_out': self.n_out}

    @classmethod
    def from_spec(
        cls,
        spec: dict,  # As `spec` gives it
    ) -> 'ImageEncoder':
        "The encoder that `spec` describes, with random weights: nothing is looked up or downloaded."
        import timm
        # a spec may come from elsewhere: it names an architecture and its shape, never a place to load from
        if not isinstance(spec['arch'], str) or ':' in spec['arch'] or not timm.is_model(spec['arch']): raise InputError(f"arch={spec['arch']!r} is no architecture of timm's")
        if bad := [k for k in spec['args'] if k.startswith('pretrained') or k in ('checkpoint_path', 'cache_dir')]: raise InputError(f'args: {bad} say where to load from')
        res = cls.__new__(cls)
        nn.Module.__init__(res)
        res.name, res.body = spec['name'], timm.create_model(spec['arch'], pretrained=False, **spec['args'])
        res._repool(spec['pool'])
        res._set(spec['mean'], spec['std'], spec['n_out'], spec['args'])
        return res

    def forward(self, x): return self.pool(self.body(x.contiguous(memory_format=torch.channels_last)))
