"Title encoders: any transformers model, pooled to one vector a title, and its tokenizer."
import json
from pathlib import Path

import torch
from torch import nn

from ..core import TEXT_ARCH, InputError
from ..layers.padding import never_empty, parts_of_like_length
from .sentence import POOLS, pool_of, pooled, saved_prompt, sentence_settings, with_prompt
from .weights import IMAGE_PACKAGES, TITLE_PACKAGES, hub_once, no_weights

DTYPES = ('dtype', 'torch_dtype')  # what transformers calls the precision of the weights in a config


def resolve(
    name: str,  # Hub name, local folder, or a name with a weights package ('all-MiniLM-L6-v2')
) -> str:
    "What transformers should load for `name`: a folder where one can be found, otherwise a hub name."
    if Path(name).is_dir():
        if not (Path(name)/'config.json').exists():
            raise InputError(f'{name}: a folder of a title encoder has a config.json in it')
        return str(name)
    if Path(name).is_file():
        raise InputError(f'{name}: a title encoder is a folder (config.json, tokenizer and weights), not a '
                         'file')
    short_name = name.removeprefix('sentence-transformers/')
    if short_name not in TITLE_PACKAGES: return name
    folder = TITLE_PACKAGES[short_name].find()
    # on the hub, the models of sentence-transformers are under its own name
    return str(folder) if folder else f'sentence-transformers/{short_name}'


# what each class of transformers loads, for messages
LOADED = {'AutoTokenizer': 'tokenizer files', 'AutoConfig': 'settings'}


def load_pretrained(
    auto_class: type,  # Of transformers: `AutoModel`, `AutoTokenizer`, ...
    name: str,  # As `resolve` takes it
    option: str = 'text_arch',  # That named it, for messages
    **options,  # For the class's `from_pretrained`
):
    "What a class of transformers loads for a name; raises `MissingPackage` or `InputError` where it can't."
    source = resolve(name)
    # OSError and ValueError are what transformers raises for an unknown name, an unreachable hub and a bad
    # folder
    try:
        with hub_once(): return auto_class.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        what = LOADED.get(auto_class.__name__, 'weights')
        short_name = name.removeprefix('sentence-transformers/')
        packages = TITLE_PACKAGES if option == 'text_arch' else IMAGE_PACKAGES
        raise no_weights(short_name, packages, error, what=what) from error
    # weights of another shape than the settings say
    except RuntimeError as error:
        raise InputError(f'{option}={name!r}: its weights do not belong to its config.json ({error})'
                         ) from error


def load_plain_tokenizer(
    name: str,  # As `resolve` takes it
):  # A transformers tokenizer; raises `InputError` for one without a padding token
    "Load a tokenizer as its own files describe it."
    from transformers import AutoTokenizer
    tokenizer = load_pretrained(AutoTokenizer, name)
    if tokenizer.pad_token_id is not None: return tokenizer
    raise InputError(f'text_arch={name!r}: its tokenizer has no padding token')


def load_tokenizer(
    name: str,  # Title encoder, as `TitleEncoder` takes it
):  # A transformers tokenizer; raises `InputError` for one without a padding token, which can't make batches
    """Load the tokenizer of a title encoder.

    Prompt, case and most tokens are those that a folder of sentence-transformers asks for.
    """
    tokenizer = load_plain_tokenizer(name)
    settings = sentence_settings(resolve(name))
    if settings.max_len is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, settings.max_len)
    return with_prompt(tokenizer, settings.prompt, settings.lower)


def load_saved_tokenizer(
    folder,  # Folder that the tokenizer's `save_pretrained` wrote
):
    "Load a tokenizer from its files alone: nothing is downloaded, and no code in the folder is executed."
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    return with_prompt(tokenizer, **saved_prompt(folder))


class TitleEncoder(nn.Module):
    """A transformers model: token ids (n,l), padded with `pad_id`, to features (n, n_out).

    In training on a CPU, long and short titles of a batch are read apart, which changes nothing but the time:
    of titles of 20 tokens on average in batches of 64, half of what would be read is padding.
    """
    def __init__(
        self,
        name: str = TEXT_ARCH,  # Hub name, local folder, or a name with a weights package
        pretrained: bool = True,  # Load weights; False: random ones, for the config in the folder or hub
        # 'mean' over the tokens, 'cls' (the first), 'lasttoken', 'max', 'weightedmean' or
        # 'mean_sqrt_len_tokens'; None: what a folder of sentence-transformers asks for, 'mean' for others
        pool: str | None = None,
        pad_id: int | None = None,  # Padding token; None asks the tokenizer
        body: nn.Module | None = None,  # A model that is made already; None makes the one that `name` names
        # Of the weights; None: float32 whatever the checkpoint holds, or as `body` has them. In half
        # precision, small steps of a training are rounded away
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if pool is not None and pool not in POOLS: raise InputError(f'pool={pool!r}: choose one of {POOLS}')
        self.name = str(name)
        if dtype is None and body is None: dtype = torch.float32
        self.pad_id = load_tokenizer(self.name).pad_token_id if pad_id is None else pad_id
        if pool is None and body is None: pool = pool_of(self.name, sentence_settings(resolve(self.name)))
        self.pool = pool or 'mean'
        self.body = _load_body(self.name, pretrained) if body is None else body
        if dtype is not None: self.body.to(dtype)
        # BERT's own pooler is a layer on top that neither pooling reads: left in, its parameters would never
        # be trained. LayoutLM calls it without asking whether it is there
        if getattr(self.body, 'pooler', None) is not None: self.body.pooler = nn.Identity()
        self.n_out = self.body.config.hidden_size

    @property
    def dtype(self) -> torch.dtype:
        "Of the weights."
        return next(parameter.dtype for parameter in self.body.parameters() if parameter.is_floating_point())

    def spec(self) -> dict:
        "What `from_spec` builds the same architecture from, as plain values for json; weights are not in it."
        config = json.loads(self.body.config.to_json_string(use_diff=False))
        # which model of a family it is, where there are several
        if not config.get('architectures'): config['architectures'] = [type(self.body).__name__]
        # the folder that it came from means nothing on another machine, the precision of its file neither
        for entry in ('_name_or_path', *DTYPES): config.pop(entry, None)
        spec = {'name': Path(self.name).name, 'config': config, 'pool': self.pool, 'pad_id': self.pad_id}
        if self.dtype == torch.float32: return spec
        return {**spec, 'dtype': str(self.dtype).removeprefix('torch.')}

    @classmethod
    def from_spec(
        cls,
        spec: dict,  # From `spec`
    ) -> 'TitleEncoder':
        "Build the encoder that `spec` describes, with random weights: nothing is looked up or downloaded."
        from transformers import AutoConfig
        settings = dict(spec['config'])
        # earlier versions left the precision in the config
        precisions = [settings.pop(entry) for entry in DTYPES if settings.get(entry)]
        dtype = getattr(torch, spec.get('dtype', precisions[0] if precisions else 'float32'))
        config = AutoConfig.for_model(settings.pop('model_type'), **settings)
        body = _made_of(config, spec['name'])
        return cls(spec['name'], pretrained=False, pool=spec['pool'], pad_id=spec['pad_id'], body=body,
                   dtype=dtype)

    def forward(self, ids):
        is_token = ids != self.pad_id
        # a GPU would wait for the lengths, and has room for the padding; a compiler makes a program a length
        if not self.training or ids.device.type != 'cpu' or torch.compiler.is_compiling():
            return self._features(ids, is_token)
        order, parts = parts_of_like_length(is_token)
        if len(parts) == 1: return self._features(ids, is_token)
        features = [self._features(ids[order[rows], :n_columns], is_token[order[rows], :n_columns])
                    for rows, n_columns in parts]
        return torch.cat(features)[order.argsort()]

    def _features(self, ids, is_token):
        # an attention over nothing is not a number
        mask = never_empty(is_token).long()
        token_features = self.body(input_ids=ids, attention_mask=mask).last_hidden_state
        return pooled(token_features, is_token, self.pool)


def _load_body(name: str, pretrained: bool) -> nn.Module:
    "The transformers model `name`, with its weights or with random ones."
    from transformers import AutoConfig
    config = load_pretrained(AutoConfig, name)
    if not pretrained: return _made_of(config, name)
    return _encoder_part(load_pretrained(_auto_class(config, name), name))


def _made_of(config, name: str) -> nn.Module:
    "The encoder that a config describes, with random weights."
    auto_class = _auto_class(config, name)
    # the model's own class is made of a config, the `AutoModel`s choose one by it
    if not hasattr(auto_class, 'from_config'): return _encoder_part(auto_class(config))
    return _encoder_part(auto_class.from_config(config, trust_remote_code=False))


def _auto_class(config, name: str):
    "The class of transformers that makes a text encoder of a config; raises `InputError` for another model."
    from transformers import MODEL_MAPPING, AutoModel, AutoModelForTextEncoding
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
    if hasattr(config, 'vision_config') or hasattr(config, 'audio_config'):
        raise InputError(f'text_arch={name!r}: a {config.model_type} model reads more than titles. Learners '
                         'and make_encoder take the text tower of CLIP, MetaCLIP 2 and SigLIP; elsewhere, '
                         'and of others, save the text part as a folder of its own and name that, e.g. '
                         'CLIPTextModel.from_pretrained(...).save_pretrained(folder), with the tokenizer')
    # of T5 and its kin the encoder alone; of others the same model as `AutoModel` makes
    has_own_class = config.model_type in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
    if has_own_class: return AutoModelForTextEncoding
    return AutoModel if type(config) in MODEL_MAPPING else _named_class(config, name)


def _named_class(config, name: str):
    "The class of transformers that a config names, for a model that `AutoModel` doesn't know: e.g. SigLIP's."
    import transformers
    for class_name in config.architectures or ():
        named = getattr(transformers, class_name, None)
        # a spec may come from a stranger: nothing else is made by its name
        if isinstance(named, type) and issubclass(named, transformers.PreTrainedModel): return named
    raise InputError(f'text_arch={name!r}: transformers has no encoder for a model of type '
                     f'{config.model_type!r}')


def _encoder_part(model: nn.Module) -> nn.Module:
    "The encoder of a model that has a decoder as well, any other model as it is."
    # Funnel's decoder only brings its encoder's output back to one vector a token
    if not getattr(model.config, 'is_encoder_decoder', False): return model
    has_both = all(isinstance(getattr(model, part, None), nn.Module) for part in ('encoder', 'decoder'))
    return model.get_encoder() if has_both else model
