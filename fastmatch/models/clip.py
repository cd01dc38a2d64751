"""A model of pictures and texts as two encoders: its folder or hub name is an `image_arch` and a `text_arch`.

CLIP (https://arxiv.org/abs/2103.00020), MetaCLIP 2 (https://arxiv.org/abs/2507.22062), which reads many
languages, and SigLIP (https://arxiv.org/abs/2303.15343) have a tower for pictures and one for texts, trained
so that the features of a picture and of its description are alike. Features here are those that transformers'
`get_image_features` and `get_text_features` give.
"""
import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ..core import InputError, preview
from .sentence import read_json
from .text import DTYPES, load_plain_tokenizer, load_pretrained, resolve

KIND = 'clip'  # in the registry, for pictures and for texts
HUB_NAME = re.compile(r'[\w.-]+/[\w.-]+')
OPTION = {'image': 'image_arch', 'text': 'text_arch'}
ELSEWHERE = ('_name_or_path', 'transformers_version', *DTYPES)  # entries of a config that mean nothing here


@dataclass(frozen=True)
class Family:
    "What has to be known of one type of model."
    prefix: str  # Of its classes in transformers: 'CLIP' of `CLIPTextModel`
    mean: tuple = (.48145466, .4578275, .40821073)  # Of each color channel, where a folder doesn't say
    std: tuple = (.26862954, .26130258, .27577711)
    # Texts are padded to a fixed length, padding is read, and the last place is their feature; False: the
    # feature is that of the first end-of-text token, and what comes after it isn't read
    reads_padding: bool = False


# by transformers' model type
FAMILIES = {'clip': Family('CLIP'), 'metaclip_2': Family('MetaClip2'),
            'siglip': Family('Siglip', (.5, .5, .5), (.5, .5, .5), reads_padding=True)}


@dataclass
class Tower:
    "One of the two parts of such a model."
    model_type: str  # Key of `FAMILIES`
    body: nn.Module  # transformers' model of one tower
    projection: nn.Module | None  # From the tower's width to that of the features; None: in `body`

    @property
    def n_out(self) -> int:
        "Width of the features."
        if self.projection is not None: return self.projection.out_features
        head = getattr(self.body, 'head', None)
        return head.out_features if isinstance(head, nn.Linear) else self.body.config.hidden_size

    def spec(self) -> dict:
        "What `from_spec` builds it from, with random weights."
        config = json.loads(self.body.config.to_json_string(use_diff=False))
        for entry in ELSEWHERE: config.pop(entry, None)
        return {'model': self.model_type, 'config': config, 'n_out': self.n_out}

    @classmethod
    def from_spec(
        cls,
        part: str,  # 'vision' or 'text'
        spec: dict,  # From `spec`
    ) -> 'Tower':
        "The tower that `spec` describes, with random weights."
        import transformers
        model_type = _checked_type(spec['model'], 'spec')
        name = FAMILIES[model_type].prefix + part.capitalize()
        settings = {entry: value for entry, value in spec['config'].items() if entry != 'model_type'}
        config = getattr(transformers, f'{name}Config')(**settings)
        made = getattr(transformers, f'{name}Model')(config)
        # transformers before version 5 has the tower inside of it
        body = getattr(made, f'{part}_model', made)
        # SigLIP has no projection beside its towers
        if FAMILIES[model_type].reads_padding: return cls(model_type, body, None)
        return cls(model_type, body, nn.Linear(config.hidden_size, spec['n_out'], bias=False))


class ClipImageEncoder(nn.Module):
    """The picture tower of a CLIP or SigLIP model: images (n,3,h,w), normalized by `mean` and `std`, to
    features (n, n_out).

    Pictures may be of another size than those of its training: its positions are interpolated then.
    """
    def __init__(
        self,
        name: str,  # Folder or hub name of the whole model
        pretrained: bool = True,  # Load weights; False: random ones, for the config in the folder or hub
        pool: str | None = None,  # There is no choice: the model has a pooling of its own
        img_size: tuple | None = None,  # (height, width) of the pictures to come; None: not known
        tower: Tower | None = None,  # One that is made already; None makes that of `name`
        # (mean, std) of each color channel; None: as the folder's preprocessor_config.json says
        stats: tuple | None = None,
    ):
        super().__init__()
        self.name = str(name)
        _refuse_pool(pool, self.name)
        if tower is None: tower = _tower_of('image', _load_whole('image', self.name, pretrained), self.name)
        self.tower_spec = tower.spec()
        self.body = tower.body.float()
        self.projection = nn.Identity() if tower.projection is None else tower.projection.float()
        self.n_out = tower.n_out
        if stats is None: stats = _mean_and_std(self.name, FAMILIES[tower.model_type])
        # plain lists, so that they can be written to json
        self.mean, self.std = ([float(value) for value in values] for values in stats)
        config = self.body.config
        if getattr(config, 'vision_use_head', True) is False:
            raise InputError(f'image_arch={self.name!r}: has no head that makes one feature of a picture')
        # pixels of the square pictures of its training
        self.trained_at = config.image_size
        if img_size is not None and min(img_size) < config.patch_size:
            raise InputError(f'image_arch={self.name!r} reads squares of {config.patch_size} pixels, and '
                             f'pictures of {img_size[0]} x {img_size[1]} have none: it was trained on '
                             f'{self.trained_at} x {self.trained_at}')

    def spec(self) -> dict:
        "What `from_spec` builds the same architecture from, as plain values for json; weights are not in it."
        return {'name': Path(self.name).name, **self.tower_spec, 'mean': self.mean, 'std': self.std}

    @classmethod
    def from_spec(
        cls,
        spec: dict,  # From `spec`
    ) -> 'ClipImageEncoder':
        "Build the encoder that `spec` describes, with random weights: nothing is looked up or downloaded."
        return cls(spec['name'], tower=Tower.from_spec('vision', spec), stats=(spec['mean'], spec['std']))

    def forward(self, images):
        is_other_size = tuple(images.shape[-2:]) != (self.trained_at, self.trained_at)
        features = self.body(pixel_values=images, interpolate_pos_encoding=is_other_size)
        return self.projection(features.pooler_output)


class ClipTextEncoder(nn.Module):
    "The text tower of a CLIP or SigLIP model: token ids (n,l), padded with `pad_id`, to features (n, n_out)."
    def __init__(
        self,
        name: str,  # Folder or hub name of the whole model
        pretrained: bool = True,  # Load weights; False: random ones, for the config in the folder or hub
        pool: str | None = None,  # There is no choice: the model has a pooling of its own
        pad_id: int | None = None,  # Padding token; None asks the tokenizer
        tower: Tower | None = None,  # One that is made already; None makes that of `name`
    ):
        super().__init__()
        self.name = str(name)
        _refuse_pool(pool, self.name)
        self.pad_id = load_clip_tokenizer(self.name).pad_token_id if pad_id is None else pad_id
        if tower is None: tower = _tower_of('text', _load_whole('text', self.name, pretrained), self.name)
        self.tower_spec = tower.spec()
        self.body = tower.body.float()
        self.projection = nn.Identity() if tower.projection is None else tower.projection.float()
        self.n_out = tower.n_out
        self.reads_padding = FAMILIES[tower.model_type].reads_padding
        self.end_id = _end_id(tower.model_type, self.body.config)

    def spec(self) -> dict:
        "What `from_spec` builds the same architecture from, as plain values for json; weights are not in it."
        return {'name': Path(self.name).name, **self.tower_spec, 'pad_id': self.pad_id}

    @classmethod
    def from_spec(
        cls,
        spec: dict,  # From `spec`
    ) -> 'ClipTextEncoder':
        "Build the encoder that `spec` describes, with random weights: nothing is looked up or downloaded."
        return cls(spec['name'], pad_id=spec['pad_id'], tower=Tower.from_spec('text', spec))

    def forward(self, ids):
        if self.reads_padding:
            n_missing = self.body.config.max_position_embeddings - ids.shape[1]
            # more than that the model itself refuses
            padded_ids = F.pad(ids, (0, max(n_missing, 0)), value=self.pad_id)
            return self.projection(self.body(input_ids=padded_ids).pooler_output)
        ends = ids == (ids.amax(1, keepdim=True) if self.end_id is None else self.end_id)
        # the first one: padding may be the same token
        end = ends.int().argmax(1, keepdim=True)
        is_token = torch.arange(ids.shape[1], device=ids.device) <= end
        token_features = self.body(input_ids=ids, attention_mask=is_token.long()).last_hidden_state
        chosen = end[..., None].expand(-1, -1, token_features.shape[-1])
        return self.projection(token_features.gather(1, chosen).squeeze(1))


def load_clip_tokenizer(
    name: str,  # Folder or hub name of the whole model
):  # A transformers tokenizer
    "Load the tokenizer of a CLIP or SigLIP model; raises `InputError` where it ends texts unlike the model."
    from transformers import AutoConfig
    config = load_pretrained(AutoConfig, name)
    model_type = _checked_type(config.model_type, f'text_arch={name!r}')
    tokenizer = load_plain_tokenizer(name)
    places = config.text_config.max_position_embeddings
    tokenizer.model_max_length = min(tokenizer.model_max_length, places)
    if FAMILIES[model_type].reads_padding: return tokenizer
    expected = _end_id(model_type, config.text_config)
    # of early configs, which name another token, the end of a text is the last of the vocabulary
    if expected is None: expected = max(tokenizer.get_vocab().values())
    last = tokenizer(['a'])['input_ids'][0][-1:]
    if last != [expected]:
        raise InputError(f'text_arch={name!r}: its model looks for token {expected} at the end of a text, '
                         f'and its tokenizer puts {last} there: they belong to different models')
    return tokenizer


def is_whole_model(
    modality: str,  # 'image' or 'text'
    name: str,  # As `make_encoder` takes it
) -> bool:
    "Whether a folder or a hub's repository is a model of pictures and of something else, by its config.json."
    if modality == 'text': source = resolve(name)
    else:
        path = Path(name)
        # timm's own names have no slash
        if not path.is_dir() and (path.exists() or not HUB_NAME.fullmatch(name)): return False
        source = str(name)
    # what the hub doesn't have, or doesn't give, is told by the loader of the other kind
    try: config = read_json(source, 'config.json')
    except (OSError, ValueError): return False
    return isinstance(config, dict) and 'vision_config' in config


def is_whole_module(
    module: nn.Module,  # Any
) -> bool:
    "Whether a module is transformers' model of both towers."
    return getattr(getattr(module, 'config', None), 'model_type', None) in FAMILIES


def encoder_of_module(
    modality: str,  # 'image' or 'text'
    module: nn.Module,  # For which `is_whole_module` is true
    pool: str | None = None,  # There is no choice: the model has a pooling of its own
    pad_id: int | None = None,  # Texts only: padding token; None asks the tokenizer
    img_size: tuple | None = None,  # Pictures only: (height, width) of those to come
) -> nn.Module:
    "The encoder of one tower of a model that was loaded already; the tower itself, no copy."
    name = module.name_or_path
    tower = _tower_of(modality, module, name)
    if modality == 'text': return ClipTextEncoder(name, pool=pool, pad_id=pad_id, tower=tower)
    return ClipImageEncoder(name, pool=pool, img_size=img_size, tower=tower)


def _refuse_pool(pool, name):
    if pool is not None: raise InputError(f'pool={pool!r}: {name!r} has a pooling of its own')


def _checked_type(model_type, what):
    "A model's type; raises `InputError` unless its two towers are known."
    if model_type in FAMILIES: return model_type
    raise InputError(f'{what}: a {model_type} model reads pictures and texts; of such models the towers of '
                     f'{", ".join(FAMILIES)} can be taken. Of others save the text part as a folder of its '
                     'own, with the tokenizer, and name that')


def _load_whole(modality, name, pretrained):
    "The model of both towers."
    from transformers import AutoConfig, AutoModel
    option = OPTION[modality]
    config = load_pretrained(AutoConfig, name, option)
    _checked_type(config.model_type, f'{option}={name!r}')
    if not pretrained: return AutoModel.from_config(config, trust_remote_code=False)
    model, told = load_pretrained(AutoModel, name, option, output_loading_info=True)
    if not told['missing_keys']: return model
    raise InputError(f'{option}={name!r}: its weights lack {preview(sorted(told["missing_keys"]), 2)}')


def _tower_of(modality, model, name):
    "One tower of a whole model."
    model_type = _checked_type(model.config.model_type, f'{OPTION[modality]}={name!r}')
    body = model.vision_model if modality == 'image' else model.text_model
    projection = getattr(model, 'visual_projection' if modality == 'image' else 'text_projection', None)
    return Tower(model_type, body, projection)


def _end_id(model_type, config):
    "The token at the end of a text; None: the largest in it, as transformers reads early configs of CLIP."
    return None if model_type == 'clip' and config.eos_token_id == 2 else config.eos_token_id


def _mean_and_std(name, family):
    "How a model's own preprocessing normalizes pictures."
    # a model that was made in memory
    if not name: return family.mean, family.std
    unsure = (f'image_arch={name!r}: the hub can not be reached to see how pictures are normalized for it; '
              'they are as for most models of its family')
    settings = read_json(name, 'preprocessor_config.json', unsure)
    # as transformers writes it since version 5
    if settings is None:
        settings = (read_json(name, 'processor_config.json') or {}).get('image_processor') or {}
    if settings.get('do_normalize') is False: return (0.,) * 3, (1.,) * 3
    return settings.get('image_mean') or family.mean, settings.get('image_std') or family.std
