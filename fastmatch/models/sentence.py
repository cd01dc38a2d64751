"""What a folder of sentence-transformers says about its own use: pooling, prompt, case and length.

Its `Normalize` module needs no setting here: embeddings of this package are of unit length in any case.
"""
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

from ..core import InputError
from .weights import hub_once

POOLS = ('mean', 'cls', 'max', 'lasttoken', 'weightedmean', 'mean_sqrt_len_tokens')
# as earlier versions of sentence-transformers wrote them
FLAGS = {'pooling_mode_cls_token': 'cls', 'pooling_mode_max_tokens': 'max',
         'pooling_mode_mean_tokens': 'mean', 'pooling_mode_mean_sqrt_len_tokens': 'mean_sqrt_len_tokens',
         'pooling_mode_weightedmean_tokens': 'weightedmean', 'pooling_mode_lasttoken': 'lasttoken'}
FOLLOWED = ('Transformer', 'Pooling', 'Normalize')  # modules of sentence-transformers that are read here
PROMPT_FILE = 'prompt.json'  # beside a saved tokenizer's own files


@dataclass(frozen=True)
class SentenceSettings:
    "How the authors of a sentence encoder use it."
    pool: tuple = ()  # Names of poolings; several are put side by side, none where the folder says nothing
    prompt: str = ''  # Put before each title
    lower: bool = False  # Titles are lower-cased
    max_len: int | None = None  # Tokens after which a title is truncated
    unread: tuple = ()  # Kinds of modules, or settings, that are not followed here


def sentence_settings(
    source: str,  # Folder, or name on the hub, as `resolve` gives it
) -> SentenceSettings:
    "Read what a folder or a hub's repository of sentence-transformers asks for."
    unsure = (f'text_arch={source!r}: the hub can not be reached to see whether modules.json asks for '
              'another pooling than the mean; give pool= to be sure')
    modules = read_json(source, 'modules.json', unsure)
    # a repository on the hub is asked for further files only where it has the first
    if modules is None and not Path(source).is_dir(): return SentenceSettings()
    kinds = {module['type'].split('.')[-1]: module['path'] for module in modules or ()}
    pooling = read_json(source, f"{kinds.get('Pooling', '1_Pooling')}/config.json") or {}
    bert = read_json(source, 'sentence_bert_config.json') or {}
    prompts = read_json(source, 'config_sentence_transformers.json') or {}
    prompt = (prompts.get('prompts') or {}).get(prompts.get('default_prompt_name')) or ''
    unread = [kind for kind in kinds if kind not in FOLLOWED]
    if prompt and not pooling.get('include_prompt', True): unread.append('include_prompt=False')
    return SentenceSettings(_poolings(pooling), prompt, bool(bert.get('do_lower_case')),
                            bert.get('max_seq_length'), tuple(unread))


def pool_of(
    name: str,  # Title encoder, for messages
    settings: SentenceSettings,  # Of its folder
) -> str:
    "The pooling that the folder of a title encoder asks for, 'mean' where it asks for none."
    if settings.unread:
        warnings.warn(f'text_arch={name!r}: its folder also asks for {", ".join(settings.unread)}, which is '
                      'left out here: embeddings differ from those of sentence-transformers', stacklevel=2)
    if len(settings.pool) > 1 or not set(settings.pool) <= set(POOLS):
        asked = ' and '.join(settings.pool)
        raise InputError(f'text_arch={name!r}: its folder asks for the pooling {asked}; choose one of '
                         f'{POOLS} instead, e.g. pool={settings.pool[0]!r}')
    return settings.pool[0] if settings.pool else 'mean'


def pooled(
    token_features,  # (n,l,d)
    is_token,  # bool (n,l), False for padding
    pool: str,  # One of `POOLS`
):  # (n,d)
    "One vector a title from those of its tokens, as sentence-transformers pools them."
    if pool == 'cls': return token_features[:, 0]
    if pool == 'max':
        # a title without a token has no largest feature
        largest = token_features.masked_fill(~is_token[..., None], -float('inf')).amax(1)
        return largest.masked_fill(~is_token.any(1, keepdim=True), 0.)
    n_tokens = is_token.sum(1, keepdim=True)
    if pool == 'lasttoken':
        last = (n_tokens - 1).clamp(min=0)[..., None].expand(-1, -1, token_features.shape[-1])
        return token_features.gather(1, last).squeeze(1)
    weights = is_token.to(token_features.dtype)
    # the tokens are counted from 1: later ones of a decoder have read more of the title
    if pool == 'weightedmean': weights = weights * weights.cumsum(1)
    total = (token_features * weights[..., None]).sum(1)
    if pool == 'mean_sqrt_len_tokens': return total / n_tokens.to(total.dtype).clamp(min=1).sqrt()
    return total / weights.sum(1, keepdim=True).clamp(min=1)


class PromptTokenizer:
    "A tokenizer that puts its encoder's prompt before each title, and lower-cases where that is asked for."
    def __init__(
        self,
        tokenizer,  # A transformers tokenizer
        prompt: str = '',  # Put before each title
        lower: bool = False,  # Lower-case prompt and title
    ):
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.lower = lower

    def __call__(self, titles, others=None, **options):
        if isinstance(titles, str): return self.tokenizer(self._prepared(titles), **options)
        prepared = [self._prepared(title) for title in titles]
        if others is None: return self.tokenizer(prepared, **options)
        # two texts read as one have one prompt
        return self.tokenizer(prepared, [self._cased(other) for other in others], **options)

    def without_prompt(self) -> 'PromptTokenizer':
        "The same tokenizer for texts that go on: it lower-cases as this one does."
        return PromptTokenizer(self.tokenizer, '', self.lower)

    def _prepared(self, title): return self._cased(self.prompt + title)
    def _cased(self, text): return text.lower() if self.lower else text

    @property
    def pad_token_id(self): return self.tokenizer.pad_token_id

    @property
    def model_max_length(self): return self.tokenizer.model_max_length

    def get_vocab(self): return self.tokenizer.get_vocab()

    def decode(self, ids, **options):
        "The text of token ids, the prompt included."
        return self.tokenizer.decode(ids, **options)

    def save_pretrained(self, folder):
        "Write the tokenizer's files, and the prompt beside them."
        self.tokenizer.save_pretrained(folder)
        settings = {'prompt': self.prompt, 'lower': self.lower}
        (Path(folder)/PROMPT_FILE).write_bytes(json.dumps(settings).encode())


def with_prompt(
    tokenizer,  # A transformers tokenizer
    prompt: str,  # Put before each title
    lower: bool,  # Whether titles are lower-cased
):
    "The tokenizer, made one that puts a prompt before titles and lower-cases where that is asked for."
    return PromptTokenizer(tokenizer, prompt, lower) if prompt or lower else tokenizer


def saved_prompt(
    folder,  # That `save_pretrained` wrote
) -> dict:
    "`prompt` and `lower` of a saved tokenizer."
    file = Path(folder)/PROMPT_FILE
    return json.loads(file.read_text(encoding='utf-8')) if file.is_file() else {'prompt': '', 'lower': False}


def _poolings(pooling):
    "The poolings that a pooling module's config names, in the order in which they are put side by side."
    if 'pooling_mode' in pooling:
        modes = pooling['pooling_mode']
        return (modes,) if isinstance(modes, str) else tuple(modes)
    flagged = tuple(pool for flag, pool in FLAGS.items() if pooling.get(flag))
    # as sentence-transformers reads a config that has flags and sets none
    return flagged or (('mean',) if any(flag in pooling for flag in FLAGS) else ())


def read_json(
    source: str,  # Folder, or name of a repository on the hub
    file_name: str,
    unsure: str = '',  # A warning, where the hub can't be reached to see whether there is such a file
):
    "The content of a json file of a folder or a hub's repository; None where it has no such file."
    file = Path(source)/file_name if Path(source).is_dir() else _hub_file(source, file_name, unsure)
    if file is None or not Path(file).is_file(): return None
    return json.loads(Path(file).read_text(encoding='utf-8'))


def _hub_file(repository, file_name, unsure):
    "The path of a repository's file in the hub's cache, downloaded where it isn't there; None for no file."
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    cached = try_to_load_from_cache(repository, file_name)
    if cached is _CACHED_NO_EXIST: return None
    if cached is not None: return cached
    try:
        with hub_once(): return hf_hub_download(repository, file_name)
    except LocalEntryNotFoundError:
        if unsure: warnings.warn(unsure, stacklevel=2)
    except EntryNotFoundError: pass
    return None
