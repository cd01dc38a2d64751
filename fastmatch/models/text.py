"Title encoders: any transformers model, pooled to one vector a title."
import json
from pathlib import Path

from torch import nn

from ..core import InputError
from .weights import TITLE_PACKAGES, hub_once, no_weights


def resolve(
    name: str,  # Hub name, local folder, or a name with a weights package ('all-MiniLM-L6-v2')
) -> str:
    "What transformers should load for `name`: a folder where one can be found, otherwise a hub name."
    if Path(name).is_dir():
        if not (Path(name)/'config.json').exists(): raise InputError(f'{name}: a folder of a title encoder has a config.json in it')
        return str(name)
    if Path(name).is_file(): raise InputError(f'{name}: a title encoder is a folder (config.json, tokenizer and weights), not a file')
    short = name.removeprefix('sentence-transformers/')
    if short in TITLE_PACKAGES:
        if folder := TITLE_PACKAGES[short].find(): return str(folder)
        # sentence-transformers' models live under its own name on the hub
        return f'sentence-transformers/{short}'
    return name


def _load(auto, name: str, **kwargs):
    source = resolve(name)
    # OSError and ValueError are what transformers raises for an unknown name, an unreachable hub and a bad folder
    try:
        with hub_once(): return auto.from_pretrained(source, **kwargs)
    except (OSError, ValueError) as e: raise no_weights(name.removeprefix('sentence-transformers/'), TITLE_PACKAGES, e) from e


def load_tokenizer(
    name: str,  # As for `TitleEncoder`
):
    "The tokenizer of title encoder `name`; one without a padding token can't make batches and raises."
    from transformers import AutoTokenizer
    tok = _load(AutoTokenizer, name)
    if tok.pad_token_id is None: raise InputError(f'text_arch={name!r}: its tokenizer has no padding token')
    return tok


class TitleEncoder(nn.Module):
    "A transformers model: token ids (n,l), padded with `pad_id`, to features (n, n_out)."
    def __init__(
        self,
        name: str = 'all-MiniLM-L6-v2',  # Hub name, local folder, or a name with a weights package
        pretrained: bool = True,  # Load weights; False starts from random ones (the folder's or hub's config is still read)
        pool: str = 'mean',  # 'mean' over the tokens (sentence-transformers' way), or 'cls': the first token
        pad_id: int | None = None,  # Padding token; None asks the tokenizer
    ):
        super().__init__()
        from transformers import AutoConfig, AutoModel
        if pool not in ('mean', 'cls'): raise InputError(f"pool={pool!r}: choose 'mean' or 'cls'")
        self.name, self.pool = str(name), pool
        self.pad_id = load_tokenizer(self.name).pad_token_id if pad_id is None else pad_id
        self.body = _load(AutoModel, self.name) if pretrained else AutoModel.from_config(_load(AutoConfig, self.name))
        self._trim()

    def _trim(self):
        # BERT's own pooler is a layer on top that neither pooling reads: without it no parameter is left untrained
        if getattr(self.body, 'pooler', None) is not None: self.body.pooler = None
        self.n_out = self.body.config.hidden_size

    def spec(self) -> dict:
        "What `from_spec` builds the same architecture from, as plain values."
        config = json.loads(self.body.config.to_json_string(use_diff=False))
        # the folder it came from is this machine's business
        config.pop('_name_or_path', None)
        return {'name': Path(self.name).name, 'config': config, 'pool': self.pool, 'pad_id': self.pad_id}

    @classmethod
    def from_spec(
        cls,
        spec: dict,  # As `spec` gives it
    ) -> 'TitleEncoder':
        "The encoder that `spec` describes, with random weights: nothing is looked up or downloaded."
        from transformers import AutoConfig, AutoModel
        res = cls.__new__(cls)
        nn.Module.__init__(res)
        config = dict(spec['config'])
        res.name, res.pool, res.pad_id = spec['name'], spec['pool'], spec['pad_id']
        res.body = AutoModel.from_config(AutoConfig.for_model(config.pop('model_type'), **config), trust_remote_code=False)
        res._trim()
        return res

    def forward(self, ids):
        mask = ids != self.pad_id
        hidden = self.body(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        if self.pool == 'cls': return hidden[:, 0]
        mask = mask[..., None].to(hidden.dtype)
        return (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
