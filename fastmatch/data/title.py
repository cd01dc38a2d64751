"Titles in fastai's batches: text until a batch is put together, then token ids padded to its longest title."
import numpy as np
import pandas as pd
from fastai.data.block import TransformBlock
from fastai.torch_core import TensorBase
from fasttransform import Transform
from tqdm.auto import tqdm

from ..layers.padding import most_tokens, pad_token_ids

COUNTED_AT_ONCE = 4096  # titles: a tokenizer keeps by-products of all that it was given at once
MAX_LEN = 64  # tokens of a title: Shopee's longest take about 60 words, most under 20


class Title(str):
    "A listing's title before it is tokenized."
    @classmethod
    def create(cls, text): return text if isinstance(text, Title) else cls(text)


class TitleParts(Title):
    "The texts of several columns, which are tokenized apart and joined with separators."
    def __new__(cls, parts):
        parts = tuple(parts)
        made = super().__new__(cls, ' '.join(filter(None, parts)))
        made.parts = parts
        return made

    # a string subclass is pickled by its text alone
    def __reduce__(self): return TitleParts, (self.parts,)


class TensorTitle(TensorBase):
    "Token ids of titles, int64 (n,l), padded at the end."


class CharacterTokenizer:
    "Stands in for a tokenizer until a title encoder brings its own: a token is a character."
    pad_token_id = 0

    def __call__(self, titles, max_length, **kwargs):
        # four characters to a token, as word pieces have about that many
        return {'input_ids': [[ord(character) for character in title[:max_length * 4]] for title in titles]}

    def decode(self, ids, **kwargs):
        "The text of token ids, without padding."
        return ''.join(chr(code) for code in ids if code)


class Tokenize(Transform):
    """Turns titles of a batch into `TensorTitle`. In a Learner's own copy of its dataloaders `tokenizer` is
    that of its title encoder."""
    def __init__(
        self,
        tokenizer=None,  # A transformers tokenizer; None: characters, for looking at batches
        # Most tokens of a title; the rest is left out. Of `TitleParts` most tokens of each part
        max_len: int | tuple = MAX_LEN,
    ):
        self.tokenizer = CharacterTokenizer() if tokenizer is None else tokenizer
        self.limits = tuple(max_len) if isinstance(max_len, (tuple, list)) else None
        # each part is followed by a separator, the first one has a token before it
        self.max_len = max_len if self.limits is None else sum(self.limits) + len(self.limits) + 1

    def encodes(self, samples: list):
        title_index = next((index for index, part in enumerate(samples[0]) if isinstance(part, Title)), None)
        if title_index is None: return samples
        titles = [sample[title_index] for sample in samples]
        token_ids = self._token_ids(titles)
        padded_ids = pad_token_ids(token_ids, self.tokenizer.pad_token_id)
        return [(*sample[:title_index], TensorTitle(title_ids), *sample[title_index + 1:])
                for sample, title_ids in zip(samples, padded_ids)]

    def _token_ids(self, titles):
        "Token ids of each title."
        if self.limits is not None: return ids_of_parts(self.tokenizer, titles, self.limits)
        limit = most_tokens(self.tokenizer, self.max_len)
        # a missing text has no tokens, and not those that begin and end one
        texts = [str(title) for title in titles]
        token_ids = self.tokenizer(texts, truncation=True, max_length=limit)['input_ids']
        return [ids if text.strip() else [] for text, ids in zip(texts, token_ids)]

    def count(
        self,
        titles: list,  # n `Title`s
    ) -> np.ndarray:  # int64 (n,)
        "How many tokens each title has in a batch, before padding."
        counts = []
        with tqdm(total=len(titles), desc='count tokens', delay=2, leave=False) as progress_bar:
            for start in range(0, len(titles), COUNTED_AT_ONCE):
                counts += map(len, self._token_ids(titles[start:start + COUNTED_AT_ONCE]))
                progress_bar.update(len(counts) - start)
        return np.array(counts, np.int64)

    def decodes(self, x: TensorTitle):
        return Title(self.tokenizer.decode(x.tolist(), skip_special_tokens=True))


def titles_of(
    df: pd.DataFrame,  # One row a listing (n)
    column,  # Of titles
    parts: list | None = None,  # Columns that are tokenized apart; None: the title is tokenized as it is
) -> list:  # n `Title`s
    "The titles of a table as batches get them, without changes that are made in training."
    if parts is None: return [Title.create(cell) for cell in df[column]]
    texts = [['' if cell is None or cell != cell else str(cell).strip() for cell in df[part]]
             for part in parts]
    return [TitleParts(row) for row in zip(*texts)]


def ids_of_parts(
    tokenizer,  # A transformers tokenizer, with tokens that begin and separate texts
    titles: list,  # `TitleParts`
    limits: tuple,  # Most tokens of each part
) -> list[list[int]]:
    """Token ids of texts in parts: the token that begins a text, then each part with a separator behind it.

    A part that is missing leaves its separator, so that it is told which the others are; a text without any
    part has no tokens.
    """
    if isinstance(tokenizer, CharacterTokenizer): begin, separator = [], [ord('|')]
    else:
        begin, separator = ([token] if token is not None else [] for token in marks_of(tokenizer))
        # a prompt stands before whole titles and not before each part
        if hasattr(tokenizer, 'without_prompt'): tokenizer = tokenizer.without_prompt()
    token_ids = [list(begin) for _ in titles]
    for place, limit in enumerate(limits):
        parts = [title.parts[place] for title in titles]
        options = {} if isinstance(tokenizer, CharacterTokenizer) else {'add_special_tokens': False}
        found = tokenizer(parts, truncation=True, max_length=limit, **options)['input_ids']
        for ids, part_ids in zip(token_ids, found): ids += [*part_ids[:limit], *separator]
    return [ids if any(title.parts) else [] for title, ids in zip(titles, token_ids)]


def marks_of(
    tokenizer,  # A tokenizer, as `Tokenize` takes it
) -> tuple:  # Token ids, or None where it has no such token
    "The tokens that begin a text and that separate two."
    inner = getattr(tokenizer, 'tokenizer', tokenizer)
    return tuple(getattr(inner, name, None) for name in ('cls_token_id', 'sep_token_id'))


def TitleBlock(
    tokenizer=None,  # A transformers tokenizer; None: the Learner sets its title encoder's
    max_len: int | tuple = MAX_LEN,  # Most tokens of a title, or of each of its parts
):
    "A `TransformBlock` for titles, tokenized and padded batch by batch."
    return TransformBlock(type_tfms=Title.create, dls_kwargs={'before_batch': Tokenize(tokenizer, max_len)})
