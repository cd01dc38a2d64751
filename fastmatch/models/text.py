"Title encoders: any transformers model, pooled to one vector a title, and its tokenizer."
import json
from pathlib import Path

from torch import nn

from ..core import TEXT_ARCH, InputError
from .weights import TITLE_PACKAGES, hub_once, no_weights


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


def _load(auto_class, name: str, **kwargs):
    "What a class of transformers (`AutoModel`, `AutoTokenizer`, ...) loads for `name`."
    source = resolve(name)
    # OSError and ValueError are what transformers raises for an unknown name, an unreachable hub and a bad
    # folder
    try:
        with hub_once(): return auto_class.from_pretrained(source, **kwargs)
    except (OSError, ValueError) as error:
        raise no_weights(name.removeprefix('sentence-transformers/'), TITLE_PACKAGES, error) from error


def load_tokenizer(
    name: str,  # Title encoder, as `TitleEncoder` takes it
):  # A transformers tokenizer; raises `InputError` for one without a padding token, which can't make batches
    "Load the tokenizer of a title encoder."
    from transformers import AutoTokenizer
    tokenizer = _load(AutoTokenizer, name)
    if tokenizer.pad_token_id is None:
        raise InputError(f'text_arch={name!r}: its tokenizer has no padding token')
    return tokenizer


def load_saved_tokenizer(
    folder,  # Folder that the tokenizer's `save_pretrained` wrote
):
    "Load a tokenizer from its files alone: nothing is downloaded, and no code in the folder is executed."
    from transformers import AutoTokenizer
    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


class TitleEncoder(nn.Module):
    "A transformers model: token ids (n,l), padded with `pad_id`, to features (n, n_out)."
    def __init__(
        self,
        name: str = TEXT_ARCH,  # Hub name, local folder, or a name with a weights package
        pretrained: bool = True,  # Load weights; False: random ones, for the config in the folder or hub
        pool: str = 'mean',  # 'mean' over the tokens, as sentence-transformers does; 'cls': the first token
        pad_id: int | None = None,  # Padding token; None asks the tokenizer
        body: nn.Module | None = None,  # A model that is made already; None makes the one that `name` names
    ):
        super().__init__()
        if pool not in ('mean', 'cls'): raise InputError(f"pool={pool!r}: choose 'mean' or 'cls'")
        self.name = str(name)
        self.pool = pool
        self.pad_id = load_tokenizer(self.name).pad_token_id if pad_id is None else pad_id
        self.body = _load_body(self.name, pretrained) if body is None else body
        # BERT's own pooler is a layer on top that neither pooling reads: left in, its parameters would never
        # be trained
        if getattr(self.body, 'pooler', None) is not None: self.body.pooler = None
        self.n_out = self.body.config.hidden_size

    def spec(self) -> dict:
        "What `from_spec` builds the same architecture from, as plain values for json; weights are not in it."
        config = json.loads(self.body.config.to_json_string(use_diff=False))
        # the folder that it came from means nothing on another machine
        config.pop('_name_or_path', None)
        return {'name': Path(self.name).name, 'config': config, 'pool': self.pool, 'pad_id': self.pad_id}

    @classmethod
    def from_spec(
        cls,
        spec: dict,  # From `spec`
    ) -> 'TitleEncoder':
        "Build the encoder that `spec` describes, with random weights: nothing is looked up or downloaded."
        from transformers import AutoConfig, AutoModel
        settings = dict(spec['config'])
        config = AutoConfig.for_model(settings.pop('model_type'), **settings)
        body = AutoModel.from_config(config, trust_remote_code=False)
        return cls(spec['name'], pretrained=False, pool=spec['pool'], pad_id=spec['pad_id'], body=body)

    def forward(self, ids):
        is_token = ids != self.pad_id
        token_features = self.body(input_ids=ids, attention_mask=is_token.long()).last_hidden_state
        if self.pool == 'cls': return token_features[:, 0]
        token_weights = is_token[..., None].to(token_features.dtype)
        return (token_features * token_weights).sum(1) / token_weights.sum(1).clamp(min=1)


def _load_body(name: str, pretrained: bool) -> nn.Module:
    "The transformers model `name`, with its weights or with random ones."
    from transformers import AutoConfig, AutoModel
    if pretrained: return _load(AutoModel, name)
    return AutoModel.from_config(_load(AutoConfig, name))
